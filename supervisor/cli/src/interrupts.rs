//! Signals to a command that shows a guest: some ask for the guest's end, others only for the command's.

use procfs::FromRead;
use procfs::process::Status;
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The end of what was begun (SIGINT, SIGTERM).
    End,
    /// That the command leaves, with this exit status, and nothing else ends (SIGHUP: a lost connection to the
    /// machine; SIGQUIT).
    Leave(u8),
}

/// The signals, caught as long as the process lives.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hang_up: Option<Signal>,
}

/// Whether whoever started this process wants it to outlive its terminal (`nohup`): signals of the mask of
/// `/proc/self/status`, numbered from 1.
fn is_ignored(number: i32) -> bool {
    let mask = Status::from_file("/proc/self/status").map_or(0, |status| status.sigign);
    u32::try_from(number - 1).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|rest| rest & 1 == 1))
}

impl Interrupts {
    /// Catches them from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn catch() -> io::Result<Self> {
        let hang_up = SignalKind::hangup();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hang_up: if is_ignored(hang_up.as_raw_value()) { None } else { Some(signal(hang_up)?) },
        })
    }

    /// Waits for one.
    pub async fn next(&mut self) -> Interrupt {
        let status = |kind: SignalKind| u8::try_from(128 + kind.as_raw_value()).unwrap_or(u8::MAX);
        let hung_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Interrupt::End,
            _ = self.terminate.recv() => Interrupt::End,
            _ = self.quit.recv() => Interrupt::Leave(status(SignalKind::quit())),
            _ = hung_up => Interrupt::Leave(status(SignalKind::hangup())),
        }
    }
}
