//! Whether a host can ever give a machine the memory that it asks for.
//!
//! A guest's pages are taken as it touches them, so that VMs may together ask for more than there is. One that asks for
//! more than the host has altogether ends by force at some time: that is said before its start.

use procfs::{Current, Meminfo};
use std::path::{Path, PathBuf};

/// Memory that is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory of {} is more than {what}: {}", size(*memory), size(*there))]
pub struct TooMuch {
    /// Bytes asked for.
    memory: u64,
    /// What limits it.
    what: &'static str,
    /// Bytes of that.
    there: u64,
}

fn size(bytes: u64) -> String {
    let gib = bytes >> 30;
    if gib >= 10 { format!("{gib} GiB") } else { format!("{} MiB", bytes >> 20) }
}

/// Where the limits of this process' memory cgroup and of those around it stand (Linux, cgroup-v2 and cgroup-v1/memory).
fn cgroup_limits(cgroup: &str) -> Vec<PathBuf> {
    let unified = cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
    // `4:cpuset,memory:/path`: a hierarchy may have several controllers (cgroups(7)).
    let memory = cgroup.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
        controllers.split(',').any(|controller| controller == "memory").then_some(path)
    });
    let below = |root: &str, path: Option<&str>, file: &str| -> Vec<PathBuf> {
        let Some(path) = path else { return vec![] };
        let place = Path::new(root).join(path);
        place.ancestors().take_while(|dir| dir.starts_with(root)).map(|dir| dir.join(file)).collect()
    };
    let mut all = below("/sys/fs/cgroup", unified, "memory.max");
    all.extend(below("/sys/fs/cgroup/memory", memory, "memory.limit_in_bytes"));
    all
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn refuse(memory: u64, limits: &[(&'static str, Option<u64>)]) -> Result<(), TooMuch> {
    for (what, there) in limits {
        if let Some(there) = there.filter(|there| memory > *there) {
            return Err(TooMuch { memory, what, there });
        }
    }
    Ok(())
}

/// Refuses what is more than the host's RAM, its file system of shared memory, or the limit of this process' cgroup.
///
/// # Errors
/// [`TooMuch`], with the numbers.
pub fn check(memory: u64) -> Result<(), TooMuch> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let shm = nix::sys::statvfs::statvfs("/dev/shm").ok();
    let shm = shm.map(|stat| stat.blocks().saturating_mul(stat.fragment_size()));
    let cgroup = cgroup_limits(&read("/proc/self/cgroup")).iter().filter_map(|path| number(path)).min();
    refuse(
        memory,
        &[
            ("this host has", Meminfo::current().ok().map(|memory| memory.mem_total)),
            // A file system without a size of its own says 0.
            ("its shared memory takes (/dev/shm; `mount -o remount,size=…`)", shm.filter(|bytes| *bytes > 0)),
            ("the daemon's cgroup may use (memory.max)", cgroup),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_host_has_is_refused_with_numbers() {
        check(1 << 20).expect("a MiB");
        let error = check(1 << 59).expect_err("an EiB").to_string();
        assert!(error.contains("this host has") && error.contains("GiB"), "{error}");
        let limits = [("a", Some(24 << 30)), ("b", Some(64 << 20)), ("c", None)];
        assert_eq!(refuse(64 << 20, &limits), Ok(()));
        let error = refuse(512 << 20, &limits).expect_err("more than b").to_string();
        assert_eq!(error, "memory of 512 MiB is more than b: 64 MiB");
    }

    #[test]
    fn limits_are_read_where_the_kernel_says() {
        let paths = cgroup_limits("0::/user.slice/a.scope\n");
        assert_eq!(paths[0], Path::new("/sys/fs/cgroup/user.slice/a.scope/memory.max"));
        assert_eq!(paths.last().expect("root"), Path::new("/sys/fs/cgroup/memory.max"));
        let paths = cgroup_limits("5:memory:/docker/x\n1:name=systemd:/y\n");
        assert_eq!(paths[0], Path::new("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes"));
        assert_eq!(paths.len(), 3);
        let paths = cgroup_limits("4:cpuset,memory:/a\n");
        assert_eq!(paths[0], Path::new("/sys/fs/cgroup/memory/a/memory.limit_in_bytes"));
    }
}
