//! The daemon's process: its socket, its signals, its end.

use super::arrivals::Arrivals;
use super::door::{Door, Stay};
use super::host::Host;
use super::serving::{ServeError, io};
use super::{api, leftovers};
use crate::children::{Launcher, cap_own, trouble};
use crate::machine::segments;
use nix::fcntl::{Flock, FlockArg};
use quasar_abi::note;
use quasar_peer::Neighbours;
use quasar_places::{self as places, Paths, check_socket, data_directory};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long a daemon in the background waits for one before it, which is ending its VMs.
const SUCCESSION: Duration = Duration::from_secs(90);
/// How long any waits for one that is about to end for want of VMs.
const FAREWELL: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// How often it is looked how long the daemon's own log has become.
const LOG_LOOK: Duration = Duration::from_secs(20);

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where.
    pub paths: Paths,
    /// The siblings.
    pub launcher: Launcher,
    /// End when no VM is listed any more and no client is connected.
    pub exit_when_idle: bool,
    /// Whoever started it holds the other end of its standard input, and it stays as long as that is open.
    pub background: bool,
    /// The daemon that serves now is about to end by itself, and is waited for.
    pub follows_idle: bool,
    /// What it is to other hosts.
    pub neighbours: Neighbours,
}

/// The daemon before us removes its lock's file when it ends: a lock on a file without a name is none.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(theirs)) => (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino()),
        _ => false,
    }
}

/// Takes the daemon's lock. One in the background waits for another that is ending; one that serves is enough.
fn lock(paths: &Paths, background: bool, follows_idle: bool) -> Result<Flock<File>, ServeError> {
    let patience = match (background, follows_idle) {
        (_, true) => FAREWELL,
        (true, false) => SUCCESSION,
        (false, false) => Duration::ZERO,
    };
    let path = paths.lock();
    let start = Instant::now();
    loop {
        let opened = places::own_file(&path, OpenOptions::new().create(true).truncate(false).write(true));
        let file = opened.map_err(io("cannot open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if is_at(&lock, &path) => return Ok(lock),
            Ok(_) => {}
            Err(_)
                if start.elapsed() >= patience
                    || (!follows_idle && UnixStream::connect(&paths.socket).is_ok()) =>
            {
                return Err(ServeError::Running(paths.socket.clone()));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Whether the other end of the standard input is open.
fn watch_starter() -> std::io::Result<Arc<AtomicBool>> {
    let there = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&there);
    let wait = move || {
        // Nothing comes but the end.
        drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
        seen.store(false, Ordering::Release);
    };
    std::thread::Builder::new().name("starter".into()).spawn(wait)?;
    Ok(there)
}

/// Serves until a signal or idleness ends it; then stops every VM and removes what it made.
///
/// # Errors
/// [`ServeError`].
pub fn serve(options: &ServeOptions) -> Result<(), ServeError> {
    let ServeOptions { paths, launcher, exit_when_idle, background, follows_idle, neighbours } = options;
    check_socket(&paths.socket)?;
    paths.check_free().map_err(io("no daemon can serve", &paths.socket))?;
    trouble::raise_open_files();
    paths.create().map_err(io("cannot make the directory of", &paths.socket))?;
    let mut lock = lock(paths, *background, *follows_idle)?;
    // Whoever has started it sees in the file, and need not ask, whether it is this one that serves.
    let signed = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    signed.map_err(io("cannot write", &paths.lock()))?;
    let starter = background.then(watch_starter).transpose();
    let starter = starter.map_err(io("cannot start a thread for", &paths.socket))?;
    let stay = Stay { until_idle: *exit_when_idle, starter };
    for path in leftovers::sweep_runtime(&paths.directory()) {
        log::info!("removed {}, which a daemon that was killed had left", path.display());
    }
    for path in leftovers::sweep_data(&data_directory()) {
        log::warn!("removed {}, which a daemon that was killed had left", path.display());
    }
    paths.create().map_err(io("cannot make the directory of", &paths.socket))?;
    match segments::remove_stale(Path::new("/dev/shm")) {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => log::warn!("removed {} segments of processes that are gone", removed.len()),
        Err(error) => log::warn!("stale segments are not looked for: /dev/shm: {error}"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(io("cannot start the event loop for", &paths.socket))?;
    let host = Host::new(paths.clone(), launcher.clone(), neighbours.clone(), *exit_when_idle);
    let host = host.inspect_err(|_| drop(std::fs::remove_dir_all(paths.directory())))?;
    let result = runtime.block_on(listen(paths, &host, stay));
    host.shut_down();
    // Consoles end with their VMs; whatever else is left of a connection is cut.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = segments::remove_own(Path::new("/dev/shm")) {
        log::warn!("segments may be left: /dev/shm: {error}");
    }
    for path in [&paths.socket, &paths.lock()] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                log::warn!("{} cannot be removed: {error}", path.display());
            }
            _ => {}
        }
    }
    result
}

async fn listen(paths: &Paths, host: &Arc<Host>, stay: Stay) -> Result<(), ServeError> {
    let door = Door::open(&paths.socket, host, stay).map_err(io("cannot listen on", &paths.socket))?;
    let closed = door.closed();
    let router = api::router(Arc::clone(host));
    let arrivals = Arrivals::open(host).await?;
    let signals = interrupted().map_err(io("cannot watch signals for", &paths.socket))?;
    note!("quasar: serving {}", paths.socket.display());
    tokio::select! {
        result = axum::serve(door, router) => result.map_err(io("cannot serve", &paths.socket)),
        () = arrivals.take() => Ok(()),
        name = signals => {
            log::info!("{name}: stopping every VM");
            Ok(())
        }
        () = tend_log(paths.log()) => Ok(()),
        () = closed.notified() => {
            log::info!("no VM is listed and no client is left");
            Ok(())
        }
    }
}

fn interrupted() -> std::io::Result<impl Future<Output = &'static str>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // Its default, a core dump, would leave processes and memory.
    let mut quit = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hang_up.recv() => "SIGHUP",
            _ = quit.recv() => "SIGQUIT",
        }
    })
}

/// Keeps the log of a daemon in the background from growing without end.
async fn tend_log(path: PathBuf) {
    loop {
        tokio::time::sleep(LOG_LOOK).await;
        let own = std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
        if let Err(error) = own.and_then(|own| cap_own(&path, &own))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("{}: {error}", path.display());
        }
    }
}
