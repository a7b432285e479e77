//! Clients that notice any loss: a numbered, checksummed stream both ways against the guest's `tcpcheck server`,
//! and requests in a row over one connection.

use crate::PATIENCE;
use crate::http::Connection;
use anyhow::{Context, anyhow, ensure};
use parking_lot::Mutex;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const HEADER_WORDS: usize = 4;
const MAGIC: u64 = 0x5153_4152_424c_4b31;
/// Number of the block that ends a direction.
const LAST: u64 = u64::MAX;
const TO_GUEST: u64 = 1;
const FROM_GUEST: u64 = 2;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// About 1 MiB/s.
const PACE: Duration = Duration::from_millis(4);

const fn mix(mut x: u64) -> u64 {
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A block as `tests/guest/bench/check.h` makes it: all of it follows from two numbers.
fn block(number: u64, sequence: u64) -> Vec<u8> {
    let mut state = mix(number) ^ mix(sequence << 20 | 7);
    let mut sum = mix(number.wrapping_mul(3).wrapping_add(1)) ^ mix(sequence.wrapping_mul(5).wrapping_add(2));
    let mut body = Vec::with_capacity(BLOCK);
    for _ in HEADER_WORDS..BLOCK / 8 {
        state = state.wrapping_add(GOLDEN);
        let word = mix(state);
        sum = sum.rotate_left(7).wrapping_add(word.wrapping_mul(GOLDEN));
        body.extend_from_slice(&word.to_le_bytes());
    }
    let header = [MAGIC, number, sequence, sum];
    header.iter().flat_map(|word| word.to_le_bytes()).chain(body).collect()
}

/// Between two requests: the guest shall be busy, not swamped.
const PAUSE: Duration = Duration::from_millis(20);

/// What went through.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Blocks to the guest.
    pub sent: u64,
    /// Blocks from it.
    pub received: u64,
    /// The longest wait for a block.
    pub longest_gap: Duration,
}

/// A stream that runs until it is finished.
pub struct Stream {
    socket: TcpStream,
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    /// Why a direction has ended before its time.
    ended: Arc<Mutex<String>>,
    sender: JoinHandle<anyhow::Result<u64>>,
    receiver: JoinHandle<anyhow::Result<(u64, Duration)>>,
}

fn send(mut socket: TcpStream, stop: &AtomicBool) -> anyhow::Result<u64> {
    let mut sequence = 0;
    while !stop.load(Ordering::Acquire) {
        socket.write_all(&block(TO_GUEST, sequence)).with_context(|| format!("sending block {sequence}"))?;
        sequence += 1;
        std::thread::sleep(PACE);
    }
    socket.write_all(&block(LAST, sequence)).context("sending the last block")?;
    Ok(sequence)
}

fn receive(mut socket: TcpStream, arrived: &AtomicU64) -> anyhow::Result<(u64, Duration)> {
    let (mut sequence, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    let mut found = vec![0; BLOCK];
    loop {
        socket.read_exact(&mut found).with_context(|| format!("receiving block {sequence}"))?;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if found == block(LAST, sequence) {
            return Ok((sequence, longest));
        }
        ensure!(found == block(FROM_GUEST, sequence), "block {sequence} from the guest is not what it sent");
        sequence += 1;
        arrived.store(sequence, Ordering::Release);
    }
}

fn tell(ended: &Mutex<String>, error: &anyhow::Error) {
    ended.lock().push_str(&format!("{error:#}; "));
}

impl Stream {
    /// Connects to a port of this machine that leads to a `tcpcheck server`, and begins.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(port: u16) -> anyhow::Result<Self> {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting to tcpcheck")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let (stop, arrived) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (to, from) = (socket.try_clone()?, socket.try_clone()?);
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&arrived));
        let ended = Arc::<Mutex<String>>::default();
        let (note, also) = (Arc::clone(&ended), Arc::clone(&ended));
        let sender = std::thread::spawn(move || send(to, &stopped).inspect_err(|error| tell(&note, error)));
        let receiver =
            std::thread::spawn(move || receive(from, &count).inspect_err(|error| tell(&also, error)));
        Ok(Self { socket, stop, arrived, ended, sender, receiver })
    }

    /// Waits until so many more blocks have come from the guest.
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn flows(&self, blocks: u64) -> anyhow::Result<()> {
        let (wanted, start) = (self.arrived.load(Ordering::Acquire) + blocks, Instant::now());
        while self.arrived.load(Ordering::Acquire) < wanted {
            ensure!(
                !self.receiver.is_finished() && !self.sender.is_finished(),
                "the stream has ended: {}",
                self.ended.lock()
            );
            ensure!(start.elapsed() < PATIENCE, "nothing comes any more");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends both directions; every byte must have arrived.
    ///
    /// # Errors
    /// What was lost, repeated or changed, or that the connection broke.
    pub fn finish(self) -> anyhow::Result<Passed> {
        self.stop.store(true, Ordering::Release);
        let join = |_| anyhow!("a thread of the stream panicked");
        let sent = self.sender.join().map_err(join)?;
        if sent.is_err() {
            // The other thread need not wait for what cannot come.
            drop(self.socket.shutdown(Shutdown::Both));
        }
        let (received, longest_gap) = self.receiver.join().map_err(join)??;
        Ok(Passed { sent: sent?, received, longest_gap })
    }
}

/// Requests in a row over one connection.
pub struct KeepAlive {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<(u64, Duration)>>,
}

impl KeepAlive {
    /// Connects to a web server at a port of this machine and begins.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(port: u16, path: &'static str) -> anyhow::Result<Self> {
        let mut connection = Connection::open(port)?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let ask = move || {
            let (mut count, mut longest, mut first) = (0, Duration::ZERO, None);
            while !stopped.load(Ordering::Acquire) {
                let start = Instant::now();
                let (status, body) = connection.get(path).with_context(|| format!("request {count}"))?;
                longest = longest.max(start.elapsed());
                ensure!(status == 200, "request {count}: status {status}");
                ensure!(*first.get_or_insert_with(|| body.clone()) == body, "request {count}: another body");
                count += 1;
                std::thread::sleep(PAUSE);
            }
            Ok((count, longest))
        };
        Ok(Self { stop, thread: std::thread::spawn(ask) })
    }

    /// Ends; returns the number of requests and the longest of them.
    ///
    /// # Errors
    /// When the connection broke or an answer was wrong.
    pub fn finish(self) -> anyhow::Result<(u64, Duration)> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the client panicked"))?
    }
}
