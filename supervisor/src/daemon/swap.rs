//! Swapping a VM's processes for another build: from what a user writes to what the VM's controller does, or the
//! network's keeper for the switch, which serves all of the host's VMs. A migrator lives for one journey: the swap says
//! which program the VM's journeys from now on are made by.

use super::entry::Entry;
use super::error::HostError;
use super::host::Host;
use super::journey::migrator::Migrator;
use crate::children::Launcher;
use crate::children::exec::Executable;
use crate::vm::{Request, SwapRequest};
use quasar_abi::control::ProcessKind;
use quasar_api::orders::kind_named;
use quasar_api::{SwapSpec, Swapped};

const OTHERS: &str = "mmu, devices, netswitch or migrator";

fn kind(spec: &SwapSpec) -> Result<ProcessKind, String> {
    let process = &spec.process;
    let name = process.trim_end_matches(|c: char| c.is_ascii_digit());
    kind_named(name)
        .filter(|_| name == process || name == "cpu")
        .ok_or_else(|| format!("{process:?} is no process; it is cpu (all harts), cpu0, cpu1, …, {OTHERS}"))
}

/// A launcher of the wanted program, which is there and can be run on this machine.
fn launcher(spec: &SwapSpec, ours: &Launcher, kind: ProcessKind) -> Result<Launcher, String> {
    let launcher = match (&spec.build, &spec.exe) {
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

impl Host {
    /// Swaps processes of a VM, or the host's switch.
    ///
    /// # Errors
    /// [`HostError`]; the VM goes on with the processes that it had, unless the reason says otherwise.
    pub fn swap(&self, name: &str, spec: &SwapSpec) -> Result<Swapped, HostError> {
        let refused = |reason| HostError::Refused { name: name.to_owned(), reason };
        let entry = self.find(name)?;
        let kind = kind(spec).map_err(refused)?;
        let launcher = launcher(spec, self.launcher(), kind).map_err(refused)?;
        let program = launcher.program(kind);
        let arch = Executable::open(&program).map_or_else(|_| String::new(), |file| file.arch().to_owned());
        let done = match kind {
            ProcessKind::Netswitch => self.network.swap(launcher),
            ProcessKind::Migrator => self.swap_migrator(&entry, launcher),
            _ => {
                let harts = entry.spec.machine.harts;
                let parties = SwapRequest::parties(&spec.process, harts)
                    .ok_or_else(|| refused(format!("its harts are cpu0 to cpu{}", harts - 1)))?;
                entry.handle.ask_and_wait(Request::Swap(SwapRequest { parties, launcher }))
            }
        };
        let paused_ms = done.map_err(refused)?["paused_ms"].as_f64().unwrap_or(0.0);
        Ok(Swapped { process: spec.process.clone(), program, arch, paused_ms })
    }

    /// The next journeys' program is tried first: on a journey it would fail late.
    fn swap_migrator(&self, entry: &Entry, launcher: Launcher) -> Result<serde_json::Value, String> {
        let log = entry.open_log().map_err(|error| error.to_string())?;
        Migrator::try_out(&launcher, &log)?;
        entry.set_migrator(launcher);
        Ok(serde_json::Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::control::Transport;
    use std::path::PathBuf;

    fn spec(process: &str, build: Option<&str>, exe: Option<&str>) -> SwapSpec {
        SwapSpec { process: process.into(), build: build.map(ToOwned::to_owned), exe: exe.map(PathBuf::from) }
    }

    #[test]
    fn a_swap_says_which_process_and_for_what() {
        assert_eq!(kind(&spec("cpu12", None, None)), Ok(ProcessKind::Cpu));
        for kind in [ProcessKind::Devices, ProcessKind::Netswitch, ProcessKind::Migrator] {
            let name = kind.program().trim_start_matches("quasar-");
            assert_eq!(super::kind(&spec(name, None, None)), Ok(kind));
        }
        for wrong in ["mmu0", "netswitch1", "cp", "", "supervisor"] {
            assert!(kind(&spec(wrong, None, None)).is_err(), "{wrong}");
        }
        let ours = Launcher::new("/nonexistent".into(), Transport::Ipc);
        let refusal = |spec: SwapSpec| launcher(&spec, &ours, ProcessKind::Mmu).expect_err("refused");
        assert!(refusal(spec("mmu", None, None)).contains("build"));
        assert!(refusal(spec("mmu", Some("s390x"), Some("/bin/sh"))).contains("one of"));
        assert!(refusal(spec("mmu", None, Some("quasar-mmu"))).contains("absolute"));
        assert!(
            refusal(spec("mmu", None, Some("/nonexistent/quasar-mmu"))).contains("/nonexistent/quasar-mmu")
        );
        assert!(refusal(spec("mmu", Some("s390x"), None)).contains("cargo xtask build --target s390x"));
    }
}
