//! The socket's door: it counts who is inside, and closes when nobody needs the daemon any more.
//!
//! Whoever connects holds the daemon for as long as the connection stands, whatever it does there and however slow it
//! is; but one that is gone before the next look has only asked something, and does not make the daemon's time longer,
//! however often it comes again. The door closes in an order that loses nobody: the socket's name goes first, then
//! whoever came before that is let in, and only when nobody did the daemon ends. Who comes in the last moment sees its
//! connection break before it was answered, and looks for a daemon again.

use super::host::Host;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::time::Interval;

/// How often it is looked whether the daemon is needed.
const LOOK: Duration = Duration::from_millis(250);
/// So many looks in a row find it idle before it ends: one command often follows another.
const LOOKS: u32 = 4;
/// How long a door without a name waits for those who came before.
const LAST_CALL: Duration = Duration::from_millis(50);
/// Rest after an error of the system.
const REST: Duration = Duration::from_millis(100);

/// When the daemon ends by itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Stay {
    /// When nothing is listed and nobody is connected, rather than never.
    pub(super) until_idle: bool,
    /// Whoever started the daemon in the background is still there; nobody did, without one.
    pub(super) starter: Option<Arc<AtomicBool>>,
}

/// Who is inside: by number, in the order of their coming.
#[derive(Debug, Default)]
struct Inside {
    here: BTreeSet<u64>,
    came: u64,
    /// Numbers below this one had come at the last look.
    seen: u64,
}

/// What a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Somebody who was there at the look before.
    Staying,
    /// Those who have come since, and may be gone in a moment.
    Passing,
    /// Nobody.
    Nobody,
}

impl Inside {
    fn enter(&mut self) -> u64 {
        self.came += 1;
        self.here.insert(self.came);
        self.came
    }

    fn look(&mut self) -> Found {
        let found = match self.here.first() {
            Some(first) if *first <= self.seen => Found::Staying,
            Some(_) => Found::Passing,
            None => Found::Nobody,
        };
        self.seen = self.came;
        found
    }
}

/// A connection that is counted.
pub(super) struct Counted {
    stream: UnixStream,
    number: u64,
    inside: Arc<Mutex<Inside>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.inside.lock().here.remove(&self.number);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The listening socket.
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    host: Arc<Host>,
    stay: Stay,
    inside: Arc<Mutex<Inside>>,
    /// Goes on whoever comes: somebody who asks again and again what is listed is not at work.
    looks: Interval,
    idle_looks: u32,
    closed: Arc<Notify>,
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    // We hold the lock, so that a socket here is a dead daemon's.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

impl Door {
    /// Opens it; whoever holds the daemon's lock may.
    pub(super) fn open(path: &Path, host: &Arc<Host>, stay: Stay) -> io::Result<Self> {
        let listener = bind(path)?;
        let host = Arc::clone(host);
        let (inside, closed) = (Arc::default(), Arc::default());
        let looks = tokio::time::interval(LOOK);
        Ok(Self { listener, path: path.to_owned(), host, stay, inside, looks, idle_looks: 0, closed })
    }

    /// Notified when it has closed for good.
    pub(super) fn closed(&self) -> Arc<Notify> {
        Arc::clone(&self.closed)
    }

    /// Whether it is needed but for those who are inside.
    fn is_needed(&self) -> bool {
        let Stay { until_idle, starter } = &self.stay;
        let expected = match starter {
            Some(there) => there.load(Ordering::Acquire),
            // It was started for the VMs that are to come.
            None => !self.host.has_had_vms(),
        };
        !until_idle || expected || !self.host.is_idle()
    }

    fn count(&self, stream: UnixStream) -> Counted {
        let number = self.inside.lock().enter();
        Counted { stream, number, inside: Arc::clone(&self.inside) }
    }

    /// Closes it, unless somebody is still in front of it.
    async fn close(&mut self) -> Option<(Counted, SocketAddr)> {
        if let Err(error) = std::fs::remove_file(&self.path) {
            log::warn!("{} cannot be removed: {error}", self.path.display());
        }
        let last = tokio::time::timeout(LAST_CALL, self.listener.accept()).await;
        let Ok(Ok((stream, address))) = last else {
            self.closed.notify_one();
            return std::future::pending().await;
        };
        let counted = self.count(stream);
        loop {
            match bind(&self.path) {
                Ok(listener) => {
                    self.listener = listener;
                    return Some((counted, address));
                }
                Err(error) => {
                    log::error!("cannot listen on {}: {error}", self.path.display());
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

impl axum::serve::Listener for Door {
    type Io = Counted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Counted, SocketAddr) {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => return (self.count(stream), address),
                    Err(error) => {
                        log::warn!("a connection was not accepted: {error}");
                        tokio::time::sleep(REST).await;
                    }
                },
                _ = self.looks.tick() => {
                    let found = self.inside.lock().look();
                    let idle = !self.is_needed() && found != Found::Staying;
                    self.idle_looks = if idle { self.idle_looks + 1 } else { 0 };
                    if self.idle_looks >= LOOKS && found == Found::Nobody {
                        self.idle_looks = 0;
                        if let Some(late) = self.close().await {
                            return late;
                        }
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_again_and_again_is_passing_and_who_stays_is_not() {
        let mut inside = Inside::default();
        assert_eq!(inside.look(), Found::Nobody);
        for _ in 0..5 {
            let asks = inside.enter();
            assert_eq!(inside.look(), Found::Passing, "another one each time");
            inside.here.remove(&asks);
        }
        assert_eq!(inside.look(), Found::Nobody);
        let (stays, asks) = (inside.enter(), inside.enter());
        assert_eq!(inside.look(), Found::Passing);
        inside.here.remove(&asks);
        assert_eq!(inside.look(), Found::Staying);
        inside.enter();
        assert_eq!(inside.look(), Found::Staying);
        inside.here.remove(&stays);
        assert_eq!(inside.look(), Found::Staying, "the other one has stayed as well");
    }
}
