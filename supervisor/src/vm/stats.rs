//! What a VM and its processes have counted.

use super::handle::VmHandle;
use procfs::FromRead;
use procfs::process::{Stat, Status};
use quasar_abi::clock::host_monotonic_ns;
use quasar_abi::report::{DevicesReport, HartStats, MmuStats, NetworksReport};
use quasar_api::{ProcessInfo, ProcessStats, VmStats};

/// Milliseconds of a clock tick (CLK_TCK is 100 on Linux).
const TICK_MS: u64 = 10;

/// Reads what the system says of a process; zero for one that is gone.
fn read(process: ProcessInfo) -> ProcessStats {
    let place = |name| format!("/proc/{}/{name}", process.pid);
    let status = Status::from_file(place("status")).ok();
    let kib = |field: fn(&Status) -> Option<u64>| status.as_ref().and_then(field).unwrap_or(0);
    ProcessStats {
        rss_bytes: kib(|status| status.vmrss) * 1024,
        private_bytes: kib(|status| status.rssanon) * 1024,
        cpu_ms: Stat::from_file(place("stat")).map_or(0, |stat| (stat.utime + stat.stime) * TICK_MS),
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
        let own =
            ProcessInfo { role: "test".into(), pid: std::process::id(), restarts: 0, arch: String::new() };
        let spent = std::time::Instant::now();
        while spent.elapsed().as_millis() < 50 {
            std::hint::spin_loop();
        }
        let read_own = read(own.clone());
        assert!(read_own.rss_bytes > read_own.private_bytes && read_own.private_bytes > 0, "{read_own:?}");
        assert!(read_own.cpu_ms > 0, "{read_own:?}");
        let gone = read(ProcessInfo { pid: u32::MAX, ..own });
        assert_eq!((gone.rss_bytes, gone.private_bytes, gone.cpu_ms), (0, 0, 0));
    }
}
