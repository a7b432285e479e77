//! Strangers who connect to a host's doors and hold the line.

use anyhow::Context;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often each says a byte.
const PACE: Duration = Duration::from_millis(500);

/// Connections that send a byte now and then of what might become a handshake, that say nothing, nonsense, or nothing
/// more. They are there until this is dropped, as far as they are not hung up on.
pub struct Crowd {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// So many at each of these addresses. Their sockets are of the network where this is called.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn at(doors: &[SocketAddr], each: usize) -> anyhow::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let mut crowd = vec![];
        for door in doors {
            for n in 0..each {
                let stranger = TcpStream::connect(door).with_context(|| format!("stranger {n} at {door}"))?;
                crowd.push(stranger);
            }
        }
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // A record of TLS that announces a long first message.
            let mut words = [22u8, 3, 1, 64, 0].into_iter().chain(std::iter::repeat(0));
            while !stopped.load(Ordering::Acquire) {
                let byte = words.next().unwrap_or(0);
                for (n, stranger) in crowd.iter_mut().enumerate() {
                    // Who was hung up on has nothing to say.
                    drop(match n % 4 {
                        0 => Ok(()),
                        1 => stranger.write_all(b"GET / HTTP/1.1\r\n"),
                        2 => stranger.shutdown(Shutdown::Write),
                        _ => stranger.write_all(&[byte]),
                    });
                }
                std::thread::sleep(PACE);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been printed.
            drop(thread.join());
        }
    }
}
