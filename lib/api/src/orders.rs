//! What can be done to the processes of a VM, and what became of it.

use crate::vm::{Outcome, VmView};
use quasar_abi::control::ProcessKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A wish to send a signal, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillSpec {
    /// Which processes, by role.
    pub processes: Vec<String>,
    /// The signal's name, with or without "SIG", or its number.
    #[serde(default = "kill")]
    pub signal: String,
}

fn kill() -> String {
    "KILL".into()
}

/// A process that was sent a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// What it was.
    pub role: String,
    /// Its process id.
    pub pid: u32,
    /// The signal's name.
    pub signal: String,
}

/// What a swap was, for the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swapped {
    /// What was swapped.
    pub process: String,
    /// Its program.
    #[serde(with = "quasar_abi::os_path")]
    pub program: PathBuf,
    /// What that was built for.
    pub arch: String,
    /// For how long the guest stood still, or the switch passed no frame: milliseconds.
    pub paused_ms: f64,
}

/// A wish to swap, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapSpec {
    /// Which process: `cpu` (all harts), `cpuN`, `mmu`, `devices`, `netswitch` or `migrator`.
    pub process: String,
    /// For the build for this architecture …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// … or for this program.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "quasar_abi::os_path::optional")]
    pub exe: Option<PathBuf>,
}

/// A wish to verify, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifySpec {
    /// How many instructions the copies execute, those that trap included.
    pub instructions: u64,
    /// A second copy runs by builds for this architecture …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// … or by these programs, by kind of process: `cpu`, `mmu`, `devices`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exe_for: BTreeMap<String, PathBuf>,
}

/// What a copy came to, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedRun {
    /// What each process was built for, by role.
    pub programs: BTreeMap<String, String>,
    /// Hash of memory, registers and time at the end, in hexadecimal.
    pub hash: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Instructions that retired: fewer than asked for when some trapped, or when nothing was left to do.
    pub retired: u64,
}

/// What all copies came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Instructions that the VM had retired when it was copied.
    pub from: u64,
    /// The copies: the first by this host's own programs.
    pub runs: Vec<VerifiedRun>,
    /// Whether all came to the same.
    pub same: bool,
}

/// A VM, and what was killed of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WithKilled {
    /// The VM afterwards.
    #[serde(flatten)]
    pub vm: VmView,
    /// What was sent a signal.
    pub killed: Vec<Killed>,
}

/// A VM, and what was swapped of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WithSwapped {
    /// The VM afterwards.
    #[serde(flatten)]
    pub vm: VmView,
    /// What was swapped.
    pub swapped: Swapped,
}

/// A kind of process by the name that people use: its program's without `quasar-`.
#[must_use]
pub fn kind_named(name: &str) -> Option<ProcessKind> {
    use ProcessKind::{Cpu, Devices, Migrator, Mmu, Netswitch};
    let all = [Cpu, Mmu, Devices, Netswitch, Migrator];
    all.into_iter().find(|kind| kind.program().strip_prefix("quasar-") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_its_programs_name_without_ours() {
        assert_eq!(kind_named("devices"), Some(ProcessKind::Devices));
        assert_eq!(kind_named("quasar-devices"), None);
    }
}
