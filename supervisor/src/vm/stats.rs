//! What a VM and its processes have counted.

use super::handle::VmHandle;
use super::status::{Phase, ProcessInfo};
use quasar_abi::clock::host_monotonic_ns;
use quasar_abi::hart::HartCounters;
use quasar_abi::vm::MmuCounters;
use serde::{Deserialize, Serialize};

/// Counters of a VM at an instant. Rates come from two of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmStats {
    /// The VM.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// The host's monotonic clock in nanoseconds.
    pub at_ns: u64,
    /// Guest time in nanoseconds.
    pub guest_ns: u64,
    /// By hart.
    pub harts: Vec<HartStats>,
    /// The mmu process.
    pub mmu: MmuStats,
    /// What the devices process says.
    pub devices: serde_json::Value,
    /// What the switch says, about all networks.
    pub network: serde_json::Value,
    /// The VM's processes and the host's.
    pub processes: Vec<ProcessStats>,
}

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident from $source:ty { $($field:ident)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            $(#[doc = concat!("See [`", stringify!($source), "::", stringify!($field), "`].")] pub $field: u64,)*
        }
        impl From<&$source> for $name {
            fn from(source: &$source) -> Self {
                Self { $($field: source.$field.get(),)* }
            }
        }
        impl $name {
            /// What was counted since `before`; a process that was replaced counts from zero.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self { $($field: self.$field.checked_sub(before.$field).unwrap_or(self.$field),)* }
            }
        }
    };
}

counters! {
    /// A hart's counters since its process started; times in nanoseconds.
    HartStats from HartCounters {
        instructions l2_hits mmu_requests mmu_wait_ns mmio_requests mmio_wait_ns notifications exceptions
        interrupts sbi_calls wfi_ns run_ns blocks_decoded tlb_flushes fence_i marked
    }
}

counters! {
    /// The mmu process's counters; times in nanoseconds.
    MmuStats from MmuCounters {
        served page_faults access_faults neighbours ad_updates busy_ns sleeps
    }
}

/// A process and the memory it has mapped in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStats {
    /// Its role and process id.
    #[serde(flatten)]
    pub process: ProcessInfo,
    /// Resident bytes, the VM's shared memory included.
    pub rss_bytes: u64,
    /// Resident bytes that are its own.
    pub private_bytes: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
}

/// A field of `/proc/PID/status`, in bytes.
fn status_bytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: Option<u64> = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0) * 1024
}

/// User and system time in `/proc/PID/stat`, in milliseconds (clock ticks are 10 ms on Linux).
fn cpu_ms(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = |index| after_name.split(' ').nth(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    (field(11) + field(12)) * 10
}

impl ProcessStats {
    /// Reads what the system says; zero for a process that is gone.
    #[must_use]
    pub fn read(process: ProcessInfo) -> Self {
        let file =
            |name| std::fs::read_to_string(format!("/proc/{}/{name}", process.pid)).unwrap_or_default();
        let status = file("status");
        Self {
            rss_bytes: status_bytes(&status, "VmRSS"),
            private_bytes: status_bytes(&status, "RssAnon"),
            cpu_ms: cpu_ms(&file("stat")),
            process,
        }
    }
}

/// Collects a VM's counters.
#[must_use]
pub fn collect(
    name: &str,
    handle: &VmHandle,
    devices: serde_json::Value,
    network: serde_json::Value,
    host: Vec<ProcessInfo>,
) -> VmStats {
    let status = handle.status();
    let daemon = ProcessInfo {
        role: "supervisor".into(),
        pid: std::process::id(),
        restarts: 0,
        arch: std::env::consts::ARCH.into(),
    };
    let mut stats = VmStats {
        name: name.to_owned(),
        phase: status.phase,
        at_ns: host_monotonic_ns(),
        guest_ns: 0,
        harts: vec![],
        mmu: MmuStats::default(),
        devices,
        network,
        processes: status.processes.into_iter().chain(host).chain([daemon]).map(ProcessStats::read).collect(),
    };
    if let Some(machine) = handle.machine() {
        let vm = &machine.vm;
        let harts = usize::try_from(vm.harts.get()).unwrap_or(0);
        // Both lag behind a running hart; the time shown in deterministic mode does, too.
        let retired = vm.hart_state[0].current().retired.get().max(vm.clock.retired.get());
        stats.guest_ns = vm.clock.ticks(retired).saturating_mul(100);
        stats.harts = vm.counters.iter().take(harts).map(HartStats::from).collect();
        stats.mmu = MmuStats::from(&vm.mmu_counters);
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_files_are_read() {
        let status = "Name:\tquasar\nVmRSS:\t   1024 kB\nRssAnon:\t 12 kB\n";
        assert_eq!((status_bytes(status, "VmRSS"), status_bytes(status, "RssAnon")), (1 << 20, 12 << 10));
        assert_eq!(status_bytes(status, "VmSwap"), 0);
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 100 0 0 0 25 17 0 0 20 0 1 0 100 0 0";
        assert_eq!(cpu_ms(stat), 420);
        let own =
            ProcessInfo { role: "test".into(), pid: std::process::id(), restarts: 0, arch: String::new() };
        assert!(ProcessStats::read(own).rss_bytes > 0);
    }

    #[test]
    fn rates_survive_a_replaced_process() {
        let before = MmuStats { served: 100, sleeps: 5, ..MmuStats::default() };
        let after = MmuStats { served: 30, sleeps: 9, ..MmuStats::default() };
        let since = after.since(&before);
        assert_eq!((since.served, since.sleeps), (30, 4));
    }
}
