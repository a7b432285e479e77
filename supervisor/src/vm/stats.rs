//! What a VM and its processes have counted.

use super::handle::VmHandle;
use quasar_abi::clock::host_monotonic_ns;
use quasar_abi::report::{DevicesReport, HartStats, MmuStats, NetworksReport};
use quasar_api::{ProcessInfo, ProcessStats, VmStats};

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

/// Reads what the system says of a process; zero for one that is gone.
fn read(process: ProcessInfo) -> ProcessStats {
    let file = |name| std::fs::read_to_string(format!("/proc/{}/{name}", process.pid)).unwrap_or_default();
    let status = file("status");
    ProcessStats {
        rss_bytes: status_bytes(&status, "VmRSS"),
        private_bytes: status_bytes(&status, "RssAnon"),
        cpu_ms: cpu_ms(&file("stat")),
        process,
    }
}

/// Collects a VM's counters.
#[must_use]
pub fn collect(
    name: &str,
    handle: &VmHandle,
    devices: Option<DevicesReport>,
    network: Option<NetworksReport>,
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
        processes: status.processes.into_iter().chain(host).chain([daemon]).map(read).collect(),
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
        assert!(read(own).rss_bytes > 0);
    }
}
