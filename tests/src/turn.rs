//! Taking turns: guests of different tests, in whatever process, don't run all at once.

use crate::programs;
use anyhow::Context;
use std::fs::{File, TryLockError};
use std::time::Duration;

/// Processors that a test's guests keep busy: a hart and its mmu.
const PROCESSORS_PER_TURN: usize = 2;

/// The right to run guests, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Turn(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

impl Turn {
    /// Waits for a turn.
    ///
    /// # Errors
    /// When the lock files cannot be used.
    pub fn take() -> anyhow::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let places = (processors / PROCESSORS_PER_TURN).max(1);
        let directory = programs::directory()?;
        loop {
            for place in 0..places {
                let path = directory.join(format!("guests-{place}.lock"));
                let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
                match file.try_lock() {
                    Ok(()) => return Ok(Self(file)),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => {
                        return Err(error).with_context(|| format!("{}", path.display()));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
