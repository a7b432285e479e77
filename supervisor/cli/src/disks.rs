//! `quasar disk`: the disks in the data directory, and whom they belong to. It works without a daemon.

use super::client::{Client, ClientError};
use super::size::short;
use super::table;
use anyhow::{Context, bail};
use procfs::{FromBufRead, LockType, Locks};
use quasar_abi::files::ARRIVAL_SUFFIX;
use quasar_abi::{output, say};
use quasar_api::VmView;
use quasar_places::data_directory;
use serde::Serialize;
use std::fs::{File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How the name of a copy begins that is not complete yet, or never will be.
pub const UNFINISHED: &str = "unfinished-";
/// How the name of a directory begins that holds the disks of a verification while it runs.
const VERIFICATION: &str = "verify-";

/// What a disk is to the VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// It belongs to a VM that is listed.
    Listed,
    /// A process has it open that this daemon knows nothing of: another daemon's VM.
    InUse,
    /// It belongs to nobody.
    Orphan,
    /// A copy that was not completed.
    Unfinished,
}

/// A disk.
#[derive(Debug, Serialize)]
struct Disk {
    /// The VM that it was made for.
    vm: String,
    file: String,
    path: PathBuf,
    /// Bytes that it takes.
    size: u64,
    /// Bytes that a guest sees.
    virtual_size: u64,
    state: State,
    /// Who has it, and in which phase that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    used_by: Option<(String, &'static str)>,
}

impl Disk {
    fn name(&self) -> String {
        format!("{}/{}", self.vm, self.file)
    }

    fn shown(&self) -> String {
        match (&self.used_by, self.state) {
            (Some((name, phase)), _) => format!("of {name}, which is {phase}"),
            (None, State::Listed | State::InUse) => "in use".into(),
            (None, State::Orphan) => "orphan".into(),
            (None, State::Unfinished) => "unfinished copy".into(),
        }
    }
}

type Identity = (u64, u64);

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Files that are locked by `flock`, as inode numbers: asking by a lock of our own could keep a VM from starting.
/// (The device's number there is not always that of `stat`.)
fn locked(locks: &str) -> Vec<u64> {
    // One by one: a line that is not understood hides no other lock.
    let locks =
        locks.lines().filter_map(|line| Locks::from_buf_read(line.as_bytes()).ok()).flat_map(|locks| locks.0);
    locks.filter(|lock| matches!(lock.lock_type, LockType::FLock)).map(|lock| lock.inode).collect()
}

/// The disks below a directory, given those of the VMs that are listed and the inodes that are locked.
fn disks(root: &Path, used: &[(Identity, String, &'static str)], locked: &[u64]) -> Vec<Disk> {
    let below = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = vec![];
    for directory in below(root) {
        for path in below(&directory) {
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            let (vm, file) = (name(&directory), name(&path));
            // What tells daemons of one another.
            if file.starts_with('.') || file.ends_with(ARRIVAL_SUFFIX) {
                continue;
            }
            let arrives = directory.join(format!("{file}{ARRIVAL_SUFFIX}")).exists();
            let user = used.iter().find(|(file, ..)| *file == identity(&metadata));
            let partial = file.starts_with(UNFINISHED) || file.ends_with(".partial");
            let state = match user {
                Some(_) => State::Listed,
                None if arrives || locked.contains(&metadata.ino()) => State::InUse,
                None if partial || vm.starts_with(VERIFICATION) => State::Unfinished,
                None => State::Orphan,
            };
            found.push(Disk {
                vm,
                file,
                path,
                // stat(2): in units of 512 bytes, whatever the file system's block is.
                size: metadata.blocks() * 512,
                virtual_size: metadata.len(),
                state,
                used_by: user.map(|(_, name, phase)| (name.clone(), *phase)),
            });
        }
    }
    found
}

async fn all(client: &Client) -> anyhow::Result<Vec<Disk>> {
    let vms: Vec<VmView> = match client.get("/v1/vms").await {
        Err(ClientError::NoDaemon(_)) => vec![],
        vms => vms?,
    };
    let used = vms.iter().flat_map(|vm| {
        let phase = vm.status.phase.word();
        let files = vm.spec.disks.iter().filter_map(|disk| std::fs::metadata(&disk.path).ok());
        files.map(move |metadata| (identity(&metadata), vm.name.clone(), phase))
    });
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    Ok(disks(&data_directory(), &used.collect::<Vec<_>>(), &locked(&locks)))
}

/// `quasar disk ls`.
///
/// # Errors
/// With a message for people.
pub async fn list(client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let disks = all(client).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&disks)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |disk: &Disk| vec![disk.name(), short(disk.size), short(disk.virtual_size), disk.shown()];
    let rows: Vec<Vec<String>> = disks.iter().map(row).collect();
    output::print(format_args!("{}", table::render(&["DISK", "SIZE", "VIRTUAL", "STATE"], &rows)))?;
    Ok(ExitCode::SUCCESS)
}

/// Why a disk is not to be removed, when that is so.
fn refusal(disk: &Disk) -> Option<String> {
    match (&disk.used_by, disk.state) {
        (Some((vm, phase)), _) => {
            let force = if *phase == "stopped" { "" } else { " --force" };
            let name = disk.name();
            Some(format!(
                "disk {name} belongs to VM {vm}, which is {phase}; `quasar rm{force} {vm}` removes both"
            ))
        }
        (None, State::Listed | State::InUse) => {
            Some(format!("disk {} is in use, by a VM of another daemon or another program", disk.name()))
        }
        (None, State::Orphan | State::Unfinished) => None,
    }
}

fn remove_one(disk: &Disk) -> anyhow::Result<()> {
    let shown = disk.path.display();
    let file = File::open(&disk.path).with_context(|| format!("{shown} cannot be opened"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("disk {} is in use", disk.name()),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{shown} cannot be locked"));
        }
    }
    std::fs::remove_file(&disk.path).with_context(|| format!("{shown} cannot be removed"))?;
    if let Some(directory) = disk.path.parent() {
        // Others of its disks may be left.
        drop(std::fs::remove_dir(directory));
    }
    Ok(())
}

/// `quasar disk rm`: all that were named, or none.
///
/// # Errors
/// With a message for people.
pub async fn remove(client: &Client, names: &[String]) -> anyhow::Result<ExitCode> {
    let disks = all(client).await?;
    let mut doomed: Vec<&Disk> = vec![];
    for name in names {
        let named: Vec<&Disk> =
            disks.iter().filter(|disk| disk.vm == *name || disk.name() == *name).collect();
        if named.is_empty() {
            bail!("there is no disk {name} in {} (`quasar disk ls`)", data_directory().display());
        }
        if let Some(reason) = named.iter().find_map(|disk| refusal(disk)) {
            bail!("{reason}; nothing was removed");
        }
        doomed.extend(named);
    }
    doomed.dedup_by(|a, b| a.path == b.path);
    for disk in doomed {
        remove_one(disk)?;
        say!("{}", disk.name())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orphans_are_told_from_disks_in_use() {
        let root = tempfile::tempdir().expect("a directory");
        let make = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            std::fs::write(&path, [1; 4096]).expect("disk");
            path.metadata().expect("metadata")
        };
        let (web, other) = (make("web/disk.ext4"), make("far/disk0-0.raw"));
        make("old/disk.ext4");
        make("old/unfinished-x");
        make("verify-1/disk0");
        let used = [(identity(&web), "web".to_owned(), "running")];
        let found = disks(root.path(), &used, &[other.ino()]);
        let states: Vec<(String, State)> = found.iter().map(|disk| (disk.name(), disk.state)).collect();
        let expected = [
            ("far/disk0-0.raw", State::InUse),
            ("old/disk.ext4", State::Orphan),
            ("old/unfinished-x", State::Unfinished),
            ("verify-1/disk0", State::Unfinished),
            ("web/disk.ext4", State::Listed),
        ];
        assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)));
        assert!(refusal(&found[4]).is_some_and(|why| why.contains("quasar rm --force web")));
        assert!(refusal(&found[0]).is_some() && refusal(&found[1]).is_none());
        assert_eq!((found[1].size, found[1].virtual_size), (4096, 4096));
    }

    #[test]
    fn locks_are_read() {
        let text = "1: POSIX  ADVISORY  WRITE 812 00:19:1169 0 EOF\n2: LEASE  ACTIVE    READ 7 <none>:0 0 EOF\n\
                    3: FLOCK  ADVISORY  WRITE 900 fe:01:77 0 EOF\n3: -> FLOCK  ADVISORY  READ 901 fe:01:77 0 EOF\n";
        assert_eq!(locked(text), [77, 77]);
    }
}
