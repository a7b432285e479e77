//! How a process ended, in words for people.

use super::oom;
use nix::libc::c_int;
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What is left in /dev/shm when a guest that touches a new page finds none.
const NO_ROOM: u64 = 1 << 20;

/// What follows "the process"; `by_us` when we killed it ourselves.
#[must_use]
pub fn describe(status: ExitStatus, by_us: bool) -> String {
    let Some(signal) = status.signal() else {
        return match status.code() {
            Some(0) => "ended by itself".to_owned(),
            Some(code) => format!("ended with exit status {code}"),
            None => "ended".to_owned(),
        };
    };
    let core = if status.core_dumped() { " (core dumped)" } else { "" };
    let why = match Signal::try_from(signal) {
        Ok(Signal::SIGKILL) if !by_us => oom::reason(),
        Ok(Signal::SIGBUS) => shared_memory_is_full(),
        _ => None,
    };
    format!("was killed by {}{core}{}", name(signal), why.map_or_else(String::new, |why| format!(": {why}")))
}

fn name(signal: c_int) -> String {
    // The names of real-time signals are the program's own.
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// A touch of a page for which there is no memory is a SIGBUS.
fn shared_memory_is_full() -> Option<String> {
    let room = nix::sys::statvfs::statvfs("/dev/shm").ok()?;
    let left = room.blocks_available().saturating_mul(room.fragment_size());
    (left < NO_ROOM).then(|| {
        "/dev/shm, where the guests' memory lies, is full; stop a VM, or make it larger (mount -o remount,size=…)"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn ending(script: &str) -> String {
        // No core files in the source tree.
        let script = format!("ulimit -c 0; {script}");
        describe(Command::new("sh").args(["-c", &script]).status().expect("sh"), false)
    }

    #[test]
    fn every_end_has_its_words() {
        assert_eq!(ending("true"), "ended by itself");
        assert_eq!(ending("exit 3"), "ended with exit status 3");
        for signal in ["SIGTERM", "SIGSEGV", "SIGABRT", "SIGKILL", "SIGXCPU"] {
            let script = format!("kill -{} $$", signal.trim_start_matches("SIG"));
            assert_eq!(ending(&script), format!("was killed by {signal}"));
        }
        assert_eq!(ending("kill -36 $$"), "was killed by signal 36");
        assert!(describe(ExitStatus::from_raw(0x80 | 11), false).ends_with("SIGSEGV (core dumped)"));
    }
}
