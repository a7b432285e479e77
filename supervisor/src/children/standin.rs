//! Programs that stand in for ours in unit tests: scripts, which are real processes and never say hello.

use super::Launcher;
use quasar_abi::control::{ProcessKind, Transport};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;

/// Ends at once, after a word.
pub const BROKEN: &str = "#!/bin/sh\necho broken by design >&2\nexit 3\n";
/// Is stopped, and never goes on.
pub const STOPPED: &str = "#!/bin/sh\nkill -STOP $$\n";
/// Says nothing.
pub const SILENT: &str = "#!/bin/sh\nexec sleep 1000\n";

/// A directory in which a script stands for each of these programs, and what starts them. Who is stopped is dead after a
/// second.
pub fn launcher(script: &str, kinds: &[ProcessKind]) -> (TempDir, Launcher) {
    let directory = tempfile::tempdir().expect("tempdir");
    for kind in kinds {
        let program = directory.path().join(kind.program());
        std::fs::write(&program, script).expect("write");
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("chmod");
    }
    let launcher = Launcher::new(directory.path().to_owned(), Transport::Socket);
    (directory, Launcher { patience: Duration::from_secs(1), ..launcher })
}

/// Where they write.
pub fn log(directory: &TempDir) -> File {
    File::create(directory.path().join("log")).expect("log")
}
