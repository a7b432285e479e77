//! A console as a byte stream over an upgraded connection.

use super::entry::Entry;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use quasar_abi::party::PartyId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

/// How often a quiet console is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long input waits for room before it tries again.
const ROOM: Duration = Duration::from_millis(5);
const CHUNK: usize = 16 << 10;

type Stream = TokioIo<Upgraded>;

/// What to stream.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    /// Which console.
    pub port: usize,
    /// Take no input.
    pub read_only: bool,
    /// Begin with what was shown before.
    pub history: bool,
}

/// Streams a console until the client leaves or the VM has ended.
pub async fn serve(entry: Arc<Entry>, stream: Stream, attachment: Attachment) {
    let (reader, writer) = tokio::io::split(stream);
    let gone = Arc::new(AtomicBool::new(false));
    let (send, receive) = mpsc::channel(8);
    let follower = {
        let (entry, gone) = (Arc::clone(&entry), Arc::clone(&gone));
        move || follow(&entry, attachment, &gone, &send)
    };
    if let Err(error) = std::thread::Builder::new().name("console".into()).spawn(follower) {
        log::error!("a console thread cannot be started: {error}");
        return;
    }
    let output = copy_out(receive, writer);
    let input = copy_in(&entry, attachment, reader);
    tokio::pin!(output, input);
    tokio::select! {
        () = &mut output => {}
        // A client that only closes its sending side still wants to read.
        half_closed = &mut input => if half_closed { output.await },
    }
    gone.store(true, Ordering::Release);
}

async fn copy_out(mut chunks: mpsc::Receiver<Vec<u8>>, mut writer: WriteHalf<Stream>) {
    while let Some(chunk) = chunks.recv().await {
        if writer.write_all(&chunk).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
    // The client may be gone already.
    drop(writer.shutdown().await);
}

/// Returns whether the client may still read.
async fn copy_in(entry: &Entry, attachment: Attachment, mut reader: ReadHalf<Stream>) -> bool {
    let mut buffer = vec![0; 1024];
    loop {
        let mut bytes = match reader.read(&mut buffer).await {
            Ok(0) => return true,
            Ok(count) => &buffer[..count],
            Err(_) => return false,
        };
        while !bytes.is_empty() && !attachment.read_only {
            let Some(machine) = entry.handle.machine() else { return true };
            let Some(console) = machine.consoles().consoles.get(attachment.port) else { return true };
            let taken = console.push_input(bytes);
            bytes = &bytes[taken..];
            machine.vm.party(PartyId::Devices).doorbell.ring();
            if !bytes.is_empty() {
                drop(machine);
                tokio::time::sleep(ROOM).await;
            }
        }
    }
}

/// Sends what the guest writes until the VM has ended or nobody listens.
fn follow(entry: &Entry, attachment: Attachment, gone: &AtomicBool, out: &mpsc::Sender<Vec<u8>>) {
    let Some(machine) = entry.handle.machine() else {
        if attachment.history {
            // Nobody listens any more: nothing to do about it.
            drop(out.blocking_send(entry.console_history(attachment.port)));
        }
        return;
    };
    let Some(console) = machine.consoles().consoles.get(attachment.port) else { return };
    let mut position = if attachment.history { 0 } else { console.written.load(Ordering::Acquire) };
    let mut chunk = vec![0; CHUNK];
    loop {
        let seen = console.output_bell.seen();
        // Read before the output, so that what was written before the end is sent.
        let ended = entry.handle.status().phase.is_final();
        let (count, next) = console.read(position, &mut chunk);
        position = next;
        if count > 0 {
            if out.blocking_send(chunk[..count].to_vec()).is_err() {
                return;
            }
        } else if ended || gone.load(Ordering::Acquire) || out.is_closed() {
            return;
        } else {
            console.output_bell.wait(seen, Some(LOOK));
        }
    }
}
