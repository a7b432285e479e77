//! `quasar verify`: copies of a deterministic VM run for the same number of instructions, here and by other builds,
//! and are compared. The VM itself stands still only while it is copied.
//!
//! What a copy comes to depends on the VM's memory and state alone. So a copy run at the source before a migration
//! and one run at the destination after it must agree as well.

mod twin;

use super::error::HostError;
use super::host::Host;
use crate::children::Launcher;
use crate::children::exec::Executable;
use crate::machine::Machine;
use quasar_abi::control::ProcessKind;
use quasar_abi::vm::{Vm, pause};
use quasar_api::orders::kind_named;
use quasar_api::{Phase, Verified, VerifiedRun, VerifySpec, VmSpec};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use twin::{Run, Twin};

/// Time for the guest to come to rest.
const REST_DEADLINE: Duration = Duration::from_secs(10);

impl From<Run> for VerifiedRun {
    fn from(run: Run) -> Self {
        let Run { programs, hash, outcome, retired } = run;
        Self { programs: programs.into_iter().collect(), hash: hash.to_string(), outcome, retired }
    }
}

/// Who runs the copies.
fn launchers(spec: &VerifySpec, ours: &Launcher) -> Result<Vec<Launcher>, String> {
    let mut other = ours.clone();
    if let Some(arch) = &spec.build {
        for kind in [ProcessKind::Cpu, ProcessKind::Mmu, ProcessKind::Devices] {
            other = other.with_program(kind, other.build(kind, arch).map_err(|error| error.to_string())?);
        }
    }
    for (name, path) in &spec.exe_for {
        let kind = kind_named(name)
            .filter(|kind| matches!(kind, ProcessKind::Cpu | ProcessKind::Mmu | ProcessKind::Devices));
        let kind = kind.ok_or_else(|| format!("{name:?} is no process of a copy: cpu, mmu or devices"))?;
        if !path.is_absolute() {
            return Err(format!("{} is no absolute path", path.display()));
        }
        let usable = Executable::open(path).and_then(|file| file.command());
        usable.map_err(|error| format!("{}: {error}", path.display()))?;
        other = other.with_program(kind, path.clone());
    }
    let second = spec.build.is_some() || !spec.exe_for.is_empty();
    Ok([ours.clone()].into_iter().chain(second.then_some(other)).collect())
}

/// Holds a VM at rest until it is dropped.
struct Rest(Vm);

impl Rest {
    fn of(vm: &Vm) -> Result<Self, String> {
        vm.pause(pause::COPY);
        let rest = Self(vm.clone());
        vm.wait_at_rest(REST_DEADLINE).map_err(|error| error.to_string())?;
        Ok(rest)
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.unpause(pause::COPY);
    }
}

impl Host {
    /// Runs copies of a VM and compares what they come to.
    ///
    /// # Errors
    /// [`HostError`]; the VM goes on as it was in any case.
    pub fn verify(&self, name: &str, spec: &VerifySpec) -> Result<Verified, HostError> {
        let refused = |reason| HostError::Refused { name: name.to_owned(), reason };
        let entry = self.find(name)?;
        if !entry.spec.machine.icount {
            return Err(refused(
                "only a VM that was started in deterministic mode (icount) can be verified".to_owned(),
            ));
        }
        if spec.instructions == 0 {
            return Err(refused(
                "no instruction is to be executed; give a number of instructions".to_owned(),
            ));
        }
        if let Some(journey) = self.journey(&entry.spec.name) {
            return Err(HostError::Travelling { name: name.to_owned(), way: journey.view().way });
        }
        let launchers = launchers(spec, self.launcher()).map_err(refused)?;
        let gone = || HostError::State { name: name.to_owned(), phase: entry.handle.status().phase.word() };
        let machine = entry.handle.machine().ok_or_else(gone)?;
        if !matches!(entry.handle.status().phase, Phase::Running | Phase::Paused) {
            return Err(gone());
        }
        let needed = machine.ram.len().saturating_mul(launchers.len() as u64);
        super::travel::has_room(std::path::Path::new("/dev/shm"), "copies", needed).map_err(refused)?;
        let twins = self.copies(&machine, &entry.spec, launchers, spec.instructions).map_err(refused)?;
        // Whoever ended or moved it meanwhile has left nothing sound to copy.
        if !matches!(entry.handle.status().phase, Phase::Running | Phase::Paused)
            || self.journey(&entry.spec.name).is_some()
        {
            return Err(refused("it was stopped or moved while it was copied".to_owned()));
        }
        let (from, twins) = twins;
        let wanted = || !self.is_ending() && !entry.handle.status().phase.is_final();
        let runs = twins.into_iter().map(|twin| twin.run(&wanted).map(VerifiedRun::from));
        let runs = runs.collect::<Result<Vec<_>, _>>().map_err(|error| refused(error.to_string()))?;
        let result = |run: &VerifiedRun| (run.hash.clone(), run.outcome, run.retired);
        let same = runs.windows(2).all(|pair| result(&pair[0]) == result(&pair[1]));
        Ok(Verified { from, runs, same })
    }

    /// Copies a VM while it stands still, once for each launcher.
    fn copies(
        &self,
        machine: &Arc<Machine>,
        spec: &VmSpec,
        launchers: Vec<Launcher>,
        instructions: u64,
    ) -> Result<(u64, Vec<Twin>), String> {
        let _rest = Rest::of(&machine.vm)?;
        let from = machine.vm.hart_state[0].current().retired.get();
        let copy = |launcher| {
            let id = format!("{}.{}", spec.name, self.births.fetch_add(1, Ordering::Relaxed));
            Twin::of(machine, spec, &id, launcher, instructions).map_err(|error| error.to_string())
        };
        let twins = launchers.into_iter().map(copy).collect::<Result<_, _>>()?;
        Ok((from, twins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::control::Transport;
    use std::path::PathBuf;

    fn spec(build: Option<&str>, exe_for: &[(&str, &str)]) -> VerifySpec {
        VerifySpec {
            instructions: 1,
            build: build.map(ToOwned::to_owned),
            exe_for: exe_for.iter().map(|(kind, path)| ((*kind).to_owned(), PathBuf::from(path))).collect(),
        }
    }

    #[test]
    fn a_second_copy_runs_when_other_programs_are_named() {
        let ours = Launcher::new("/nonexistent".into(), Transport::Ipc);
        assert_eq!(super::launchers(&spec(None, &[]), &ours).expect("one").len(), 1);
        let own = std::env::current_exe().expect("path");
        let own = own.to_str().expect("a path");
        let launchers = super::launchers(&spec(None, &[("cpu", own)]), &ours).expect("two");
        let program = |index: usize, kind| launchers[index].program(kind).display().to_string();
        assert_eq!(program(0, ProcessKind::Cpu), "/nonexistent/quasar-cpu");
        assert_eq!(program(1, ProcessKind::Cpu), own);
        assert_eq!(program(1, ProcessKind::Mmu), "/nonexistent/quasar-mmu");
    }

    #[test]
    fn programs_that_cannot_run_are_refused_with_the_reason() {
        let ours = Launcher::new("/nonexistent".into(), Transport::Ipc);
        let refusal = |spec: VerifySpec| super::launchers(&spec, &ours).expect_err("refused");
        assert!(refusal(spec(Some("s390x"), &[])).contains("cargo xtask build --target s390x"));
        assert!(refusal(spec(None, &[("netswitch", "/bin/true")])).contains("cpu, mmu or devices"));
        assert!(refusal(spec(None, &[("cpu", "quasar-cpu")])).contains("absolute"));
        assert!(refusal(spec(None, &[("mmu", "/nonexistent/x")])).contains("/nonexistent/x"));
    }
}
