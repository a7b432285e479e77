//! Why the system did not start a process or a thread, in words that name what ran out.

use nix::libc;
use quasar_abi::control::Trouble;
use quasar_abi::control::trouble::errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Most descriptors that are asked for: some programs look at each that they could have.
const MOST_FILES: u64 = 1 << 16;

/// Takes as many open files as this process may have: a VM needs some forty.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MOST_FILES, |maximum| maximum.min(MOST_FILES));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        log::warn!("the limit of open files stays as it is: {error}");
    }
}

/// What ran out, and where it is limited; nothing for other reasons.
#[must_use]
pub fn shortage(error: &io::Error) -> Option<String> {
    let limit = |resource| {
        getrlimit(resource).current.map_or_else(|| "no limit".into(), |limit: u64| limit.to_string())
    };
    match errno(error)? as i32 {
        libc::EMFILE => Some(format!(
            "it has all the files open that it may have ({}; `ulimit -n`, LimitNOFILE= of systemd)",
            limit(Resource::Nofile)
        )),
        libc::ENFILE => Some("the host has all the files open that it may have (sysctl fs.file-max)".into()),
        libc::EAGAIN => Some(format!(
            "no more processes or threads are allowed ({} for this user, `ulimit -u`; the cgroup's pids.max; sysctl \
             kernel.threads-max)",
            limit(Resource::Nproc)
        )),
        libc::EFBIG => Some(format!(
            "no file may be longer than {} bytes (`ulimit -f`, LimitFSIZE= of systemd), or than its file system takes",
            limit(Resource::Fsize)
        )),
        libc::ENOMEM => Some("the host has no memory left for it".into()),
        _ => None,
    }
}

/// Whether the same may work in a moment: something ran out that others give back.
#[must_use]
pub fn is_momentary(error: &io::Error) -> bool {
    Trouble::of(error).passing
}

/// Why a program of ours was not started.
#[must_use]
pub fn explain(error: &io::Error) -> String {
    match (shortage(error), error.kind()) {
        (Some(shortage), _) => format!("{error}: {shortage}"),
        (None, io::ErrorKind::NotFound) => {
            format!("{error} (set QUASAR_LIBEXEC or --exe-dir to the directory of Quasar's programs)")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_out_is_named_and_nothing_else_is_blamed() {
        let said = |errno| explain(&io::Error::from_raw_os_error(errno));
        assert!(said(libc::EMFILE).contains("ulimit -n") && said(libc::ENFILE).contains("file-max"));
        assert!(said(libc::EAGAIN).contains("pids.max") && said(libc::ENOMEM).contains("memory"));
        assert!(said(libc::ENOENT).contains("QUASAR_LIBEXEC"));
        for errno in [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM, libc::EACCES, libc::ENOEXEC] {
            assert!(!said(errno).contains("QUASAR_LIBEXEC"), "{errno}");
        }
    }
}
