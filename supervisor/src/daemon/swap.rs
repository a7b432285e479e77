//! Swapping a VM's processes for another build: from what a user writes to what the VM's controller does.

use super::host::{Host, HostError};
use crate::children::exec::Executable;
use crate::children::{Launcher, kind_named};
use crate::vm::{Request, SwapRequest};
use quasar_abi::control::ProcessKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A wish to swap, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapSpec {
    /// Which process: `cpu` (all harts), `cpuN`, `mmu` or `devices`.
    pub process: String,
    /// For the build for this architecture …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// … or for this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<PathBuf>,
}

impl SwapSpec {
    fn kind(&self) -> Result<ProcessKind, String> {
        let name = self.process.trim_end_matches(|c: char| c.is_ascii_digit());
        kind_named(name).filter(|_| name == self.process || name == "cpu").ok_or_else(|| {
            format!("{:?} is no process; it is cpu (all harts), cpu0, cpu1, …, mmu or devices", self.process)
        })
    }

    /// A launcher of the wanted program, which is there and can be run on this machine.
    fn launcher(&self, ours: &Launcher, kind: ProcessKind) -> Result<Launcher, String> {
        let launcher = match (&self.build, &self.exe) {
            (Some(arch), None) => {
                let program = ours.build(kind, arch).map_err(|error| error.to_string())?;
                if program == ours.program(kind) { ours.clone() } else { ours.with_program(kind, program) }
            }
            (None, Some(exe)) if exe.is_absolute() => ours.with_program(kind, exe.clone()),
            (None, Some(exe)) => return Err(format!("{} is no absolute path", exe.display())),
            _ => return Err("one of `build` and `exe` says what to swap it for".to_owned()),
        };
        let program = launcher.program(kind);
        let usable = Executable::open(&program).and_then(|file| file.command());
        usable.map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(launcher)
    }
}

impl Host {
    /// Swaps processes of a VM. Answers for how long its guest stood still.
    ///
    /// # Errors
    /// [`HostError`]; the VM goes on with the processes that it had, unless the reason says otherwise.
    pub fn swap(&self, name: &str, spec: &SwapSpec) -> Result<serde_json::Value, HostError> {
        let refused = |reason| HostError::Refused { name: name.to_owned(), reason };
        let entry = self.find(name)?;
        let kind = spec.kind().map_err(refused)?;
        let launcher = spec.launcher(self.launcher(), kind).map_err(refused)?;
        let harts = entry.spec.machine.harts;
        let parties = SwapRequest::parties(&spec.process, harts).ok_or_else(|| {
            refused(format!(
                "cpu0 to cpu{}, mmu and devices can be swapped, {} cannot",
                harts - 1,
                spec.process
            ))
        })?;
        entry.handle.ask_and_wait(Request::Swap(SwapRequest { parties, launcher })).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::control::Transport;

    fn spec(process: &str, build: Option<&str>, exe: Option<&str>) -> SwapSpec {
        SwapSpec { process: process.into(), build: build.map(ToOwned::to_owned), exe: exe.map(PathBuf::from) }
    }

    #[test]
    fn a_swap_says_which_process_and_for_what() {
        assert_eq!(spec("cpu12", None, None).kind(), Ok(ProcessKind::Cpu));
        assert_eq!(spec("devices", None, None).kind(), Ok(ProcessKind::Devices));
        for wrong in ["mmu0", "cp", "", "supervisor"] {
            assert!(spec(wrong, None, None).kind().is_err(), "{wrong}");
        }
        let ours = Launcher::new("/nonexistent".into(), Transport::Ipc);
        let refusal = |spec: SwapSpec| spec.launcher(&ours, ProcessKind::Mmu).expect_err("refused");
        assert!(refusal(spec("mmu", None, None)).contains("build"));
        assert!(refusal(spec("mmu", Some("s390x"), Some("/bin/sh"))).contains("one of"));
        assert!(refusal(spec("mmu", None, Some("quasar-mmu"))).contains("absolute"));
        assert!(
            refusal(spec("mmu", None, Some("/nonexistent/quasar-mmu"))).contains("/nonexistent/quasar-mmu")
        );
        assert!(refusal(spec("mmu", Some("s390x"), None)).contains("cargo xtask build --target s390x"));
    }
}
