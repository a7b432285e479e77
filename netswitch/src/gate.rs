//! The gate before a port: frames wait at it while its VM is on its way here.

use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes that wait at most; what comes beyond is dropped.
pub const HELD_BYTES: usize = 4 << 20;
/// Frames that wait at most.
pub const HELD_FRAMES: usize = 8192;
/// How long a released card may take to accept what waited.
const DELIVERY: Duration = Duration::from_secs(2);

/// What a gate does with frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// They pass.
    Open,
    /// The VM still runs elsewhere: the port takes no part in its network.
    Expecting,
    /// The VM has left the other place: they wait.
    Holding,
}

#[derive(Debug)]
struct Inside {
    stage: Stage,
    held: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A gate. While it is open a frame pays for one relaxed load.
#[derive(Debug)]
pub struct PortGate {
    shut: AtomicBool,
    inside: Mutex<Inside>,
}

impl PortGate {
    /// A gate at a stage.
    #[must_use]
    pub fn new(stage: Stage) -> Self {
        let inside = Inside { stage, held: VecDeque::new(), bytes: 0 };
        Self { shut: AtomicBool::new(stage != Stage::Open), inside: Mutex::new(inside) }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock()
    }

    /// The stage now.
    #[must_use]
    pub fn stage(&self) -> Stage {
        if self.shut.load(Ordering::Acquire) { self.inside().stage } else { Stage::Open }
    }

    /// Frames that wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.inside().held.len()
    }

    /// Shuts an open gate before a VM that is expected.
    pub fn expect(&self) {
        let mut inside = self.inside();
        if inside.stage == Stage::Open {
            inside.stage = Stage::Expecting;
            self.shut.store(true, Ordering::Release);
        }
    }

    /// The VM has left the other place. False when that was known or nobody was expected.
    pub fn arrive(&self) -> bool {
        let mut inside = self.inside();
        let due = inside.stage == Stage::Expecting;
        if due {
            inside.stage = Stage::Holding;
        }
        due
    }

    /// Lets a frame pass by `send`, or keeps it. False when it was dropped.
    pub fn pass(&self, frame: &[u8], send: impl FnOnce(&[u8]) -> bool) -> bool {
        if self.shut.load(Ordering::Acquire) {
            let mut inside = self.inside();
            match inside.stage {
                Stage::Open => {}
                Stage::Expecting => return false,
                Stage::Holding => {
                    let room = inside.held.len() < HELD_FRAMES && inside.bytes + frame.len() <= HELD_BYTES;
                    if room {
                        inside.bytes += frame.len();
                        inside.held.push_back(frame.to_vec());
                    }
                    return room;
                }
            }
        }
        send(frame)
    }

    /// Gives back what waits, in order: the VM goes on elsewhere.
    pub fn evict(&self) -> Vec<Vec<u8>> {
        let mut inside = self.inside();
        inside.bytes = 0;
        std::mem::take(&mut inside.held).into()
    }

    /// Opens: what waited goes first, in order; frames that come meanwhile wait for their turn. Returns how
    /// many were delivered and how many the port did not take in time.
    pub fn open(&self, mut send: impl FnMut(&[u8]) -> bool) -> (u64, u64) {
        let mut inside = self.inside();
        let by = Instant::now() + DELIVERY;
        let (mut delivered, mut dropped) = (0, 0);
        while let Some(frame) = inside.held.pop_front() {
            let mut done = send(&frame);
            // A card that comes up with its VM may need a moment.
            while !done && Instant::now() < by {
                std::thread::sleep(Duration::from_micros(200));
                done = send(&frame);
            }
            if done {
                delivered += 1;
            } else {
                dropped += 1 + inside.held.len() as u64;
                inside.held.clear();
            }
        }
        inside.bytes = 0;
        inside.held.shrink_to_fit();
        inside.stage = Stage::Open;
        self.shut.store(false, Ordering::Release);
        (delivered, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_wait_from_the_arrival_on_and_leave_in_order() {
        let gate = PortGate::new(Stage::Expecting);
        let never = |_: &[u8]| panic!("passed a shut gate");
        assert!(!gate.pass(&[0; 60], never));
        assert!(gate.arrive() && !gate.arrive());
        for n in 1..=3 {
            assert!(gate.pass(&[n; 60], never));
        }
        let mut seen = vec![];
        assert_eq!(
            gate.open(|f| {
                seen.push(f[0]);
                true
            }),
            (3, 0)
        );
        assert!(gate.pass(&[4; 60], |f| {
            seen.push(f[0]);
            true
        }));
        assert_eq!((seen, gate.stage()), (vec![1, 2, 3, 4], Stage::Open));
        assert!(!gate.arrive());
    }

    #[test]
    fn what_waits_is_bounded_by_frames_and_by_bytes() {
        let gate = PortGate::new(Stage::Expecting);
        gate.arrive();
        let taken = (0..HELD_FRAMES + 10).filter(|_| gate.pass(&[0; 60], |_| true)).count();
        assert_eq!((taken, gate.held()), (HELD_FRAMES, HELD_FRAMES));
        let gate = PortGate::new(Stage::Expecting);
        gate.arrive();
        let taken = (0..HELD_FRAMES).filter(|_| gate.pass(&[0; 65_536], |_| true)).count();
        assert_eq!(taken, HELD_BYTES / 65_536);
    }
}
