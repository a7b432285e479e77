//! Where this user's files are, and whether nobody else can put something there.
//!
//! Whoever may write to a directory on the way to a file can exchange the file, or lead us by a link to another one. So
//! the directories in which we work belong to us, and those above them to us or to root; one that others may write to
//! (`/tmp`) is passed only where its sticky bit keeps them from our entries, and no link is followed in it.

#![forbid(unsafe_code)]

mod daemon;
mod sparse;

pub use daemon::{LONGEST_SOCKET, Paths, SocketTooLong, check_socket, data_directory};
pub use sparse::copy_sparse;

use nix::libc;
use nix::unistd::{Uid, User, getegid, geteuid};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

/// Links that are followed on one way, as the kernel does it.
const MOST_LINKS: usize = 40;

/// An environment variable that names an absolute directory; others are as good as none (XDG Base Directory 0.8).
fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// This user's home: `$HOME`, or what the passwd entry says. A user without either is at `/`, where only root can make
/// anything.
#[must_use]
pub fn home() -> PathBuf {
    let entry = || User::from_uid(geteuid()).ok().flatten().map(|user| user.dir);
    named("HOME").or_else(entry).unwrap_or_else(|| PathBuf::from("/"))
}

/// `quasar` in the directory that this variable names, or else at this place in the user's home.
#[must_use]
pub fn of_user(variable: &str, in_home: &str) -> PathBuf {
    named(variable).unwrap_or_else(|| home().join(in_home)).join("quasar")
}

/// `$XDG_RUNTIME_DIR`, if it is this user's own: `su` leaves that of another one.
#[must_use]
pub fn runtime() -> Option<PathBuf> {
    let own = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.uid() == geteuid().as_raw());
    named("XDG_RUNTIME_DIR").filter(own)
}

/// A user as messages name it.
#[must_use]
pub fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("user {} ({uid})", user.name),
        _ => format!("user {uid}"),
    }
}

fn refused(path: &Path, why: &str) -> Error {
    let advice = "remove it, or name another place";
    Error::new(ErrorKind::PermissionDenied, format!("{} {why}; {advice}", path.display()))
}

/// Who may own what is on the way: we, root, and in a namespace of users who root outside appears as.
fn is_trusted(uid: u32) -> bool {
    let maps = |text: &str| -> Option<bool> {
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [first, _, count] = numbers[..] else { return None };
        Some((first..first.saturating_add(count)).contains(&uid.into()))
    };
    let unmapped = || {
        let nobody = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        nobody.is_ok_and(|nobody| nobody.trim() == uid.to_string())
            && !map.is_empty()
            && map.lines().all(|line| maps(line) == Some(false))
    };
    uid == 0 || uid == geteuid().as_raw() || unmapped()
}

/// Whether others may make entries in it.
fn is_shared(found: &Metadata) -> bool {
    let group = found.mode() & 0o020 != 0 && found.gid() != 0 && found.gid() != getegid().as_raw();
    found.mode() & 0o002 != 0 || group
}

/// Looks at every directory on the way, as far as there are any, and at the links between them.
fn look(path: &Path) -> std::io::Result<()> {
    let path = std::path::absolute(path)?;
    let words = |path: &Path| -> VecDeque<OsString> {
        path.components().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut at, mut rest, mut links, mut shared) = (PathBuf::new(), words(&path), 0, false);
    while let Some(word) = rest.pop_front() {
        if Path::new(&word).components().next() == Some(Component::ParentDir) {
            at.pop();
            continue;
        }
        at.push(word);
        let found = match at.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if !is_trusted(found.uid()) {
            return Err(refused(&at, &format!("belongs to {}", user(found.uid()))));
        }
        if found.is_symlink() {
            links += 1;
            if shared {
                return Err(refused(&at, "is a link in a directory that others may write to"));
            }
            if links > MOST_LINKS {
                return Err(refused(&at, "is one of too many links"));
            }
            let target = std::fs::read_link(&at)?;
            at.pop();
            for word in words(&target).into_iter().rev() {
                rest.push_front(word);
            }
            continue;
        }
        shared = is_shared(&found);
        if shared && found.mode() & 0o1000 == 0 {
            return Err(refused(&at, "may be written to by others"));
        }
    }
    Ok(())
}

/// Makes the directory and those above it, where there are none, and says whether nobody else can exchange what is put
/// there. It may be one that others use too, such as `/tmp`.
///
/// # Errors
/// In a sentence that names the directory and what is wrong with it.
pub fn way(directory: &Path) -> std::io::Result<()> {
    look(directory)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Someone may have been quicker.
    look(directory)
}

/// [`way`] to a directory in which nobody else has entries: it is made for this user alone.
///
/// # Errors
/// As [`way`]; also when it is another user's, root's included, or others may write to it.
pub fn own_directory(directory: &Path) -> std::io::Result<()> {
    way(directory)?;
    let found = std::fs::metadata(directory)?;
    if found.uid() != geteuid().as_raw() {
        return Err(refused(directory, &format!("belongs to {}", user(found.uid()))));
    }
    if is_shared(&found) {
        return Err(refused(directory, "may be written to by others"));
    }
    Ok(())
}

/// Opens a file of ours, or makes it for us alone, where others may have put something else under its name: no link is
/// followed, and nothing but a plain file that is ours and has no other name is taken.
///
/// # Errors
/// In a sentence.
pub fn own_file(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    // Without O_NONBLOCK a pipe would hold us up before we see that it is one.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = options.mode(0o600).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => refused(path, "is a link"),
        _ => error,
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(refused(path, "is no plain file"));
    }
    if found.uid() != geteuid().as_raw() {
        return Err(refused(path, &format!("belongs to {}", user(found.uid()))));
    }
    if found.nlink() > 1 {
        return Err(refused(path, "has another name elsewhere"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::process::Command;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    }

    fn why(result: std::io::Result<()>) -> String {
        result.expect_err("it was taken").to_string()
    }

    /// A directory like /tmp.
    fn shared() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        mode(dir.path(), 0o1777);
        dir
    }

    #[test]
    fn directories_are_made_for_us_alone() {
        let dir = shared();
        let own = dir.path().join("a/b");
        own_directory(&own).expect("made");
        own_directory(&own).expect("ours");
        for made in [&own, &dir.path().join("a")] {
            assert_eq!(std::fs::metadata(made).expect("there").mode() & 0o777, 0o700);
        }
        way(dir.path()).expect("one may pass");
        assert!(why(own_directory(dir.path())).contains("may be written to by others"));
        mode(&own, 0o757);
        assert!(why(own_directory(&own)).contains("may be written to by others"));
        mode(&own, 0o755);
        own_directory(&own).expect("others may read");
        mode(dir.path(), 0o777);
        assert!(why(own_directory(&own)).contains("may be written to by others"), "others may exchange it");
    }

    #[test]
    fn links_are_followed_where_only_we_can_make_them() {
        let dir = shared();
        let (private, target) = (dir.path().join("private"), dir.path().join("target"));
        own_directory(&private).expect("made");
        own_directory(&target).expect("made");
        symlink("../target", private.join("link")).expect("link");
        own_directory(&private.join("link/below")).expect("our own link");
        symlink("target", dir.path().join("link")).expect("link");
        assert!(why(own_directory(&dir.path().join("link"))).contains("is a link"));
        assert!(why(own_directory(&dir.path().join("link/below"))).contains("is a link"));
        symlink("turn", private.join("turn")).expect("link");
        assert!(why(own_directory(&private.join("turn"))).contains("too many links"));
    }

    /// With another user's own process, where we may become one.
    #[test]
    fn what_another_user_has_made_is_not_ours() {
        if !geteuid().is_root() {
            // Root's directories are another user's.
            assert!(why(own_directory(Path::new("/etc"))).contains("belongs to user root"));
            return;
        }
        let dir = shared();
        let by_other = |script: &str| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-ec", script]);
            assert!(command.current_dir(dir.path()).status().expect("setpriv").success(), "{script}");
        };
        by_other("mkdir theirs; ln -s /root link; mkdir theirs/below; echo > file; mkfifo pipe");
        for path in ["theirs", "theirs/below", "theirs/new", "link", "link/below"] {
            let error = why(own_directory(&dir.path().join(path)));
            assert!(error.contains("belongs to user") && error.contains("65534"), "{path}: {error}");
        }
        assert!(!dir.path().join("theirs/new").exists());
        let open =
            |name: &str| own_file(&dir.path().join(name), OpenOptions::new().append(true).create(true));
        for name in ["link", "file"] {
            drop(open(name).expect_err("it was taken"));
        }
        // Given away: then it is ours.
        chown(dir.path().join("theirs/below"), Some(0), Some(0)).expect("chown");
        assert!(why(own_directory(&dir.path().join("theirs/below"))).contains("theirs belongs to"));
    }

    #[test]
    fn files_are_plain_and_ours() {
        let dir = shared();
        let open =
            |name: &str| own_file(&dir.path().join(name), OpenOptions::new().append(true).create(true));
        let made = open("new").expect("made").metadata().expect("there");
        assert_eq!(made.mode() & 0o777, 0o600);
        drop(open("new").expect("ours"));
        symlink("new", dir.path().join("link")).expect("link");
        assert!(open("link").expect_err("a link").to_string().contains("is a link"));
        std::fs::hard_link(dir.path().join("new"), dir.path().join("name")).expect("link");
        assert!(open("name").expect_err("a name").to_string().contains("another name"));
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        let read = own_file(&dir.path().join("pipe"), OpenOptions::new().read(true));
        assert!(read.expect_err("a pipe").to_string().contains("no plain file"));
    }
}
