//! Whether this host can carry a specification out: what [`VmSpec::check`] cannot say without it.

use super::disks::{self, DiskId};
use crate::machine::formats::{self, Format};
use crate::machine::room::{self, TooMuch};
use quasar_abi::files::{self, Access, UserFile};
use quasar_api::{Disk, Net, SpecError, UplinkSpec, VmSpec};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::PathBuf;

/// Bytes of a disk that are looked at for another format's magic.
const HEAD_BYTES: u64 = 4096;

/// A specification that cannot be carried out here.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nor anywhere else.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A disk that is not there.
    #[error("disk {path}: {source}")]
    Disk {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One disk is there twice.
    #[error(
        "disk {path} is the same as disk {other}, or a part of it; a disk that is written can be there once: give a copy, \
         or make both read-only"
    )]
    Twice {
        /// One of its names.
        path: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// What its files are not.
    #[error("{0}")]
    Files(String),
    /// More memory than there is.
    #[error(transparent)]
    Room(#[from] TooMuch),
    /// A TAP interface that is not there.
    #[error("there is no network interface {0}: make it first (`ip tuntap add {0} mode tap user …`)")]
    Tap(String),
}

/// Who wrote what is on a VM's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// Its user: a file of another format is a mistake.
    New,
    /// Its guest, who may write anything.
    Used,
}

/// Opens a disk as its VM will, and looks whether its bytes are a disk's.
fn check_disk(disk: &Disk, content: Content) -> std::io::Result<()> {
    let access = if disk.read_only { Access::Read } else { Access::Write };
    let UserFile { file, .. } = files::open(&disk.path, access)?;
    if content == Content::Used {
        return Ok(());
    }
    let mut head = vec![];
    file.take(HEAD_BYTES).read_to_end(&mut head)?;
    let refused = |text| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    match formats::of_disk(&head) {
        Some(format @ Format::Disk(_)) => refused(format!(
            "{format}, and a guest would see that format's own structures: only raw images can be used (`qemu-img \
             convert -O raw`)"
        )),
        Some(format) => refused(format!("{format}; unpack it first")),
        None => Ok(()),
    }
}

/// Whether the disks of one VM can be disks, and are different ones where one is written.
fn disks(disks: &[Disk]) -> Result<(), CheckError> {
    let mut seen: Vec<(DiskId, &Disk)> = vec![];
    for disk in disks {
        let failed = |source| CheckError::Disk { path: disk.path.clone(), source };
        let metadata = std::fs::metadata(&disk.path).map_err(failed)?;
        files::check(&metadata).map_err(failed)?;
        let length = match metadata.is_file() {
            true => metadata.len(),
            false => files::open(&disk.path, files::Access::Read).map_err(failed)?.bytes,
        };
        disks::check_length(length).map_err(failed)?;
        let id = DiskId::of(&metadata);
        let clash =
            seen.iter().find(|(other, with)| other.overlaps(&id) && !(with.read_only && disk.read_only));
        if let Some((_, other)) = clash {
            return Err(CheckError::Twice { path: disk.path.clone(), other: other.path.clone() });
        }
        seen.push((id, disk));
    }
    Ok(())
}

/// Checks everything that can be checked before anything is made.
///
/// # Errors
/// [`CheckError`].
pub fn whole(spec: &VmSpec, content: Content) -> Result<(), CheckError> {
    spec.check()?;
    // Before one is opened: a FIFO would wait for its other end.
    disks(&spec.disks)?;
    for disk in &spec.disks {
        check_disk(disk, content).map_err(|source| CheckError::Disk { path: disk.path.clone(), source })?;
    }
    Ok(())
}

/// Checks what this host must have for a VM that starts here.
///
/// # Errors
/// [`CheckError`].
pub fn host(spec: &VmSpec) -> Result<(), CheckError> {
    room::check(spec.machine.memory)?;
    if let Some(Net { uplink: UplinkSpec::Tap(interface), .. }) = &spec.net
        && nix::net::if_::if_nametoindex(interface.as_str()).is_err()
    {
        return Err(CheckError::Tap(interface.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_api::machine::MAX_MEMORY;

    fn spec() -> VmSpec {
        serde_json::from_value(serde_json::json!({
            "name": "web",
            "machine": {"memory": 1 << 28, "harts": 1, "boot": {"kernel": {"kernel": "/boot/Image"}}},
            "net": {"uplink": "passt", "publish": ["8080:80"]},
        }))
        .expect("spec")
    }

    #[test]
    fn what_this_host_has_not_is_said_before_anything_is_made() {
        whole(&spec(), Content::New).expect("good");
        host(&spec()).expect("good");
        let mut tap = spec();
        tap.net.as_mut().expect("net").uplink = UplinkSpec::Tap("quasar-none".into());
        assert!(host(&tap).expect_err("no interface").to_string().contains("quasar-none"));
        tap.machine.memory = MAX_MEMORY;
        assert!(host(&tap).expect_err("a TiB").to_string().contains("GiB"));
        let mut bad = spec();
        bad.disks.push(Disk { path: "/nonexistent".into(), read_only: true, owned: false });
        let error = whole(&bad, Content::New).expect_err("no file").to_string();
        assert!(error.contains("disk /nonexistent"), "{error}");
        bad.name = "../x".into();
        let error = whole(&bad, Content::New).expect_err("no name").to_string();
        assert!(error.contains("no name for a VM"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_disk_is_refused_with_a_word() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = |name: &str| dir.path().join(name);
        let disk = |path: PathBuf, read_only| Disk { path, read_only, owned: false };
        let refused = |disks: &[Disk]| super::disks(disks).expect_err("refused").to_string();
        std::fs::write(path("good"), [0; 1024]).expect("write");
        std::fs::write(path("empty"), []).expect("write");
        std::fs::write(path("odd"), [0; 1000]).expect("write");
        std::fs::hard_link(path("good"), path("same")).expect("link");
        disks(&[disk(path("good"), false)]).expect("good");
        assert!(refused(&[disk(path("empty"), true)]).contains("empty: it is empty"));
        assert!(refused(&[disk(path("odd"), false)]).contains("it has 1000 bytes"));
        for other in ["/dev/null", "/dev/zero", "/"] {
            assert!(refused(&[disk(other.into(), true)]).contains("not a file or a block device"), "{other}");
        }
        let twice = |first, second| [disk(path("good"), first), disk(path("same"), second)];
        disks(&twice(true, true)).expect("both are read");
        for (first, second) in [(false, false), (true, false), (false, true)] {
            let error = refused(&twice(first, second));
            assert!(error.contains("/same is the same as") && error.contains("/good"), "{error}");
        }
    }
}
