//! A stream uplink: frames behind a 32-bit big-endian length over a unix socket, as passt speaks.
//!
//! passt knows one guest: it sends to the card that spoke last, and to the broadcast address while none has (a system
//! drops TCP from a broadcast frame). So the uplink is one VM's, and whatever comes in is for that VM's card.

use super::{Ingress, Port};
use crate::ethernet::Mac;
use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError, bounded};
use quasar_abi::frames::MAX_FRAME_BYTES;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const QUEUE_FRAMES: usize = 512;
const RETRY: Duration = Duration::from_millis(50);

/// A connection to passt (or a program of its protocol) that is made again whenever it breaks.
pub struct StreamPort {
    path: PathBuf,
    ingress: Ingress,
    owner: Mac,
    stopped: AtomicBool,
    queue: Sender<Vec<u8>>,
    waiting: Receiver<Vec<u8>>,
}

impl StreamPort {
    /// An uplink of the VM with the card `owner` to the socket at `path`. It need not be there yet.
    #[must_use]
    pub fn open(path: PathBuf, owner: Mac, ingress: Ingress) -> Arc<Self> {
        let (queue, waiting) = bounded(QUEUE_FRAMES);
        let stopped = AtomicBool::new(false);
        Arc::new(Self { path, ingress, owner, stopped, queue, waiting })
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Connects, serves until the connection breaks, and again.
    fn serve(self: Arc<Self>) {
        let mut reported = false;
        while !self.stopped() {
            match UnixStream::connect(&self.path) {
                Ok(stream) => {
                    reported = false;
                    log::info!("uplink {}: connected", self.path.display());
                    let error = self.connection(&stream);
                    if !self.stopped() {
                        log::warn!("uplink {}: {error}; connecting again", self.path.display());
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut reported, true) {
                        log::warn!("uplink {}: {error}; trying until it is there", self.path.display());
                    }
                }
            }
            std::thread::sleep(RETRY);
        }
    }

    /// One connection: a thread writes, this one reads. Returns why it ended.
    fn connection(self: &Arc<Self>, stream: &UnixStream) -> std::io::Error {
        let broken = Arc::new(AtomicBool::new(false));
        let writer = stream.try_clone().and_then(|out| {
            let (me, broken) = (Arc::clone(self), Arc::clone(&broken));
            std::thread::Builder::new().name("uplink out".into()).spawn(move || me.write(out, &broken))
        });
        let error = match &writer {
            // A read times out now and then, so that a stop is seen.
            Ok(_) => match stream.set_read_timeout(Some(Duration::from_millis(200))) {
                Ok(()) => self.read(stream, &broken),
                Err(error) => error,
            },
            Err(error) => std::io::Error::new(error.kind(), error.to_string()),
        };
        broken.store(true, Ordering::Release);
        // The socket may be gone already; there is nothing else to close.
        let _ = stream.shutdown(std::net::Shutdown::Both);
        if let Ok(writer) = writer {
            let _ = writer.join();
        }
        error
    }

    fn read(&self, stream: &UnixStream, broken: &AtomicBool) -> std::io::Error {
        let mut input = BufReader::with_capacity(256 * 1024, stream);
        let mut frame = vec![0; MAX_FRAME_BYTES];
        loop {
            let mut length = [0; 4];
            if let Err(error) = self.read_exact(&mut input, &mut length, broken) {
                return error;
            }
            let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            let Some(space) = frame.get_mut(..len).filter(|s| !s.is_empty()) else {
                return std::io::Error::new(
                    ErrorKind::InvalidData,
                    format!("a frame of {len} bytes was announced"),
                );
            };
            if let Err(error) = self.read_exact(&mut input, space, broken) {
                return error;
            }
            if let Some(destination) = space.first_chunk_mut::<6>() {
                *destination = self.owner.0;
            }
            self.ingress.frame(space);
        }
    }

    fn read_exact(
        &self,
        input: &mut impl Read,
        space: &mut [u8],
        broken: &AtomicBool,
    ) -> std::io::Result<()> {
        let mut done = 0;
        while done < space.len() {
            match input.read(&mut space[done..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) =>
                {
                    if self.stopped() || broken.load(Ordering::Acquire) {
                        return Err(ErrorKind::ConnectionAborted.into());
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write(&self, mut out: UnixStream, broken: &AtomicBool) {
        let mut batch = Vec::with_capacity(128 * 1024);
        while !self.stopped() && !broken.load(Ordering::Acquire) {
            let first = match self.waiting.recv_timeout(Duration::from_millis(200)) {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            batch.clear();
            let more = std::iter::from_fn(|| self.waiting.try_recv().ok()).take(32);
            for frame in std::iter::once(first).chain(more) {
                // Frames in the queue are within MAX_FRAME_BYTES.
                batch.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(0).to_be_bytes());
                batch.extend_from_slice(&frame);
            }
            if out.write_all(&batch).is_err() {
                broken.store(true, Ordering::Release);
            }
        }
    }
}

impl Port for StreamPort {
    fn start(self: Arc<Self>) {
        let path = self.path.clone();
        if let Err(error) = std::thread::Builder::new().name("uplink in".into()).spawn(move || self.serve()) {
            log::error!("uplink {}: no thread: {error}", path.display());
        }
    }

    fn send(&self, frame: &[u8], patience: Duration) -> bool {
        if frame.len() > MAX_FRAME_BYTES {
            return false;
        }
        match self.queue.try_send(frame.to_vec()) {
            Ok(()) => true,
            Err(TrySendError::Full(frame)) if !patience.is_zero() => {
                !matches!(self.queue.send_timeout(frame, patience), Err(SendTimeoutError::Timeout(_)))
            }
            Err(_) => false,
        }
    }

    /// Nobody moves an uplink.
    fn settle(&self) {}

    /// What went into the host's network stays there.
    fn take_back(&self) -> Vec<Vec<u8>> {
        vec![]
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::os::unix::net::UnixListener;

    #[test]
    fn frames_pass_both_ways_and_a_broken_connection_is_made_again() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("uplink.sock");
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&got);
        let ingress = Ingress::new(move |f: &[u8]| sink.lock().push(f.to_vec()));
        let port = StreamPort::open(path.clone(), Mac([2, 0, 0, 0, 0, 9]), ingress);
        Arc::clone(&port).start();
        let listener = UnixListener::bind(&path).expect("bind");
        for round in 1..=2u8 {
            let (mut peer, _) = listener.accept().expect("accept");
            peer.write_all(&[&[0, 0, 0, 7], &[0xff; 6][..], &[round]].concat()).expect("write");
            assert!(port.send(&[7; 60], Duration::from_secs(1)));
            let mut out = [0; 64];
            peer.read_exact(&mut out).expect("read");
            assert_eq!((&out[..4], &out[4..]), (&[0, 0, 0, 60][..], &[7; 60][..]));
            while got.lock().len() < usize::from(round) {
                std::thread::yield_now();
            }
            // A length that no frame has ends the connection, not the port.
            peer.write_all(&[0xff; 4]).expect("write");
        }
        port.stop();
        // To whom passt addressed them does not matter.
        assert_eq!(*got.lock(), [[2, 0, 0, 0, 0, 9, 1], [2, 0, 0, 0, 0, 9, 2]]);
    }
}
