//! A disk's file belongs to one writer, or to any number of readers: among our VMs by `flock`, and towards QEMU by the
//! locks by which its processes tell each other what they do with an image.
//!
//! QEMU's are open-file-description locks on single bytes, all of them shared: byte 100 + n says "I do n", byte 200 + n
//! "I bear nobody who does n". Whoever comes takes its own and looks for the opposite ones of others.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::{File, TryLockError};
use std::os::fd::AsFd;

const DONE: i64 = 100;
const NOT_BORNE: i64 = 200;
const READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

fn byte(kind: i32, at: i64) -> libc::flock {
    let short = |value: i32| libc::c_short::try_from(value).unwrap_or_default();
    libc::flock { l_type: short(kind), l_whence: short(libc::SEEK_SET), l_start: at, l_len: 1, l_pid: 0 }
}

/// Tells QEMU's processes what is done with the file, and looks whether one of them minds. File systems without such
/// locks have none of them either.
fn agree(file: &File, read_only: bool) -> Result<bool, Errno> {
    let (ours, not_borne): (&[i64], &[i64]) =
        if read_only { (&[READ], &[WRITE, RESIZE]) } else { (&[READ, WRITE], &[READ, WRITE, RESIZE]) };
    let own = ours.iter().map(|n| DONE + n).chain(not_borne.iter().map(|n| NOT_BORNE + n));
    for at in own {
        match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))) {
            // Somebody has it for himself alone: not QEMU, but busy with it.
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            Err(Errno::EINVAL | Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(true),
            Err(other) => return Err(other),
            Ok(_) => {}
        }
    }
    let opposite = ours.iter().map(|n| NOT_BORNE + n).chain(not_borne.iter().map(|n| DONE + n));
    for at in opposite {
        let mut found = byte(libc::F_WRLCK, at);
        fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut found))?;
        if i32::from(found.l_type) != libc::F_UNLCK {
            return Ok(false);
        }
    }
    Ok(true)
}

fn disagree(file: &File) {
    let mut all = byte(libc::F_UNLCK, DONE);
    all.l_len = NOT_BORNE;
    // Both go with the file at the latest, which nobody keeps that did not get it, or tries again to get it.
    if let Err(error) =
        fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&all)).map_err(Into::into).and(file.unlock())
    {
        log::warn!("a lock stays for a while: {error}");
    }
}

/// Takes the file for as long as it is open.
///
/// # Errors
/// [`TryLockError::WouldBlock`] when another has it.
pub fn take(file: &File, read_only: bool) -> Result<(), TryLockError> {
    if read_only {
        file.try_lock_shared()?
    } else {
        file.try_lock()?
    }
    match agree(file, read_only) {
        Ok(true) => Ok(()),
        Ok(false) => {
            disagree(file);
            Err(TryLockError::WouldBlock)
        }
        Err(errno) => {
            disagree(file);
            Err(TryLockError::Error(errno.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &tempfile::NamedTempFile) -> File {
        File::options().read(true).write(true).open(file.path()).expect("open")
    }

    /// As QEMU opens an image: to write it alone, or to read it beside other readers.
    fn qemu(file: &File, writes: bool) -> bool {
        let set = |at| fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at))).expect("lock");
        let is_there = |at| {
            let mut found = byte(libc::F_WRLCK, at);
            fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut found)).expect("look");
            i32::from(found.l_type) != libc::F_UNLCK
        };
        set(DONE + READ);
        set(NOT_BORNE + WRITE);
        if writes {
            set(DONE + WRITE);
        }
        let minded = is_there(NOT_BORNE + READ) || writes && is_there(NOT_BORNE + WRITE);
        !minded && !is_there(DONE + WRITE)
    }

    #[test]
    fn what_qemu_has_is_in_use_and_it_sees_what_we_have() {
        let file = tempfile::NamedTempFile::new().expect("file");
        for (theirs, ours, together) in
            [(true, true, false), (true, false, false), (false, true, false), (false, false, true)]
        {
            let (one, other) = (open(&file), open(&file));
            assert!(qemu(&one, theirs));
            assert_eq!(take(&other, !ours).is_ok(), together, "QEMU writes: {theirs}, we write: {ours}");
            drop((one, other));
            let (one, other) = (open(&file), open(&file));
            take(&one, !ours).expect("nobody has it");
            assert_eq!(qemu(&other, theirs), together, "QEMU writes: {theirs}, we write: {ours}");
        }
        let (one, other) = (open(&file), open(&file));
        qemu(&one, true);
        assert!(take(&other, false).is_err());
        drop(one);
        take(&other, false).expect("nothing of the attempt is left in the way");
    }
}
