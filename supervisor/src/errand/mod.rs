//! Errands: what this program has a short-lived process of its own do, because it touches files that users name.
//!
//! A file may be on storage that does not answer, shrink while it is read, or be of any size; shared memory may be full
//! when guest memory is filled. All of that then ends or holds up a process that does one thing for one VM, not the
//! daemon with all of them. [`child`] is that process, this module is who sends it.

mod child;

pub use child::as_child;

use crate::children::exec;
use crate::children::{PidFd, describe, spawn_bound, trouble};
use crate::daemon::check::Content;
use crate::machine::boot::Booted;
use crate::machine::grants::BootGrants;
use quasar_abi::grants;
use quasar_api::{MachineConfig, VmSpec};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The word by which this program is told that it is such a process.
const WORD: &str = "internal-errand";
/// Longest answer that is read.
const MOST_ANSWER: u64 = 64 << 10;
/// Time for storage to answer.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub enum Errand {
    /// Say whether a VM can be made of its files.
    Examine(Box<VmSpec>, Content),
    /// Fill a machine's memory and set its harts up.
    Boot(Box<BootErrand>),
}

/// What the process reads.
#[derive(Debug, Serialize, Deserialize)]
struct Sheet {
    /// The [`Errand`].
    errand: serde_json::Value,
    /// What it gives, by the numbers that the process has inherited.
    descriptors: Vec<RawFd>,
}

/// A machine to be filled.
#[derive(Debug, Serialize, Deserialize)]
pub struct BootErrand {
    /// What it is.
    pub config: MachineConfig,
    /// How many of its virtio slots hold a device.
    pub virtio: usize,
    /// What is given of it.
    pub grants: BootGrants,
}

/// What came of it.
pub type Answer = Result<Booted, String>;

/// An errand under way; dropping it ends the process.
#[derive(Debug)]
pub struct Sent(Arc<PidFd>);

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Sends a process on an errand. It dies with the calling thread; `tell` is called from another one, once.
///
/// # Errors
/// When it cannot be started.
pub fn send(errand: &Errand, log: Stdio, tell: impl FnOnce(Answer) + Send + 'static) -> io::Result<Sent> {
    let (errand, given) = grants::beside(|| serde_json::to_value(errand));
    let given: Vec<BorrowedFd<'_>> = given.iter().map(AsFd::as_fd).collect();
    let descriptors = given.iter().map(AsRawFd::as_raw_fd).collect();
    let text = serde_json::to_vec(&Sheet { errand: errand?, descriptors })?;
    let mut command = exec::own()?;
    command.arg0("quasar").arg(WORD).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let (child, pidfd) = spawn_bound(&mut command, &given)?;
    let sent = Sent(Arc::new(pidfd));
    let attend = move || tell(attend(child, &text));
    std::thread::Builder::new().name("errand".into()).stack_size(STACK).spawn(attend)?;
    Ok(sent)
}

/// Enough for a thread that waits, reads and parses a few hundred bytes.
const STACK: usize = 256 << 10;

/// Has an errand done and waits for its end, for at most [`DEADLINE`].
///
/// # Errors
/// In words for people.
pub fn run(errand: &Errand) -> Answer {
    let (tell, answer) = crossbeam_channel::bounded(1);
    let sent = send(errand, Stdio::null(), move |answer| drop(tell.send(answer)));
    let _sent = sent.map_err(|error| unsent(&error))?;
    answer.recv_timeout(DEADLINE).unwrap_or_else(|_| Err(late()))
}

/// In words for people, why none was sent.
#[must_use]
pub fn unsent(error: &io::Error) -> String {
    format!("the process that reads its files cannot be started: {}", trouble::explain(error))
}

/// In words for people, why none came back.
#[must_use]
pub fn late() -> String {
    format!("its files were not read within {DEADLINE:?}: the storage that they are on does not answer")
}

fn attend(mut child: Child, text: &[u8]) -> Answer {
    // A process that has ended already does not read; how it ended says more.
    drop(child.stdin.take().map(|mut input| input.write_all(text)));
    let mut answer = vec![];
    let read = child.stdout.take().map(|out| out.take(MOST_ANSWER).read_to_end(&mut answer));
    let status = child.wait().map_err(|error| error.to_string())?;
    if let Ok(answer) = serde_json::from_slice::<Answer>(&answer) {
        return answer;
    }
    let why = match read {
        Some(Err(error)) => format!(": {error}"),
        _ => String::new(),
    };
    // Who kills it does not wait for its answer.
    Err(format!("the process that reads its files {}{why}", describe(status, false)))
}

/// A log for the process' own messages.
///
/// # Errors
/// When the file cannot be shared.
pub fn to_log(log: &File) -> io::Result<Stdio> {
    Ok(log.try_clone()?.into())
}
