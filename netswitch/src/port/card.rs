//! A VM's network card: packet rings in shared memory.

use super::{Ingress, Port, PortError};
use parking_lot::Mutex;
use quasar_abi::frames::{FrameRing, PortSegment, PushError, RING_BYTES};
use quasar_abi::{Grant, Segment, SegmentKind, View};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The switch's side of a card.
pub struct CardPort {
    rings: View<PortSegment>,
    ingress: Ingress,
    /// Nothing is read from the card any more.
    settled: AtomicBool,
    /// Nobody waits for the card any more.
    stopped: AtomicBool,
    /// It let a patient sender down: until it takes a frame nobody waits for it again, so that a VM at rest does
    /// not hold up the others behind a sender.
    sluggish: AtomicBool,
    /// Serialises producers: the ring has room for one.
    producer: Mutex<()>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl CardPort {
    /// Attaches to the card's rings.
    ///
    /// # Errors
    /// When the segment is missing or of another version.
    pub fn open(rings: &Grant, ingress: Ingress) -> Result<Arc<Self>, PortError> {
        let segment = Segment::attach(rings, SegmentKind::Port)?;
        Ok(Arc::new(Self {
            rings: View::new(Arc::new(segment), 0)?,
            ingress,
            settled: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            sluggish: AtomicBool::new(false),
            producer: Mutex::default(),
            reader: Mutex::default(),
        }))
    }

    fn serve(&self) {
        let ring = &self.rings.to_switch;
        let mut frame = Vec::new();
        while !self.settled.load(Ordering::Acquire) {
            let seen = ring.data_bell.seen();
            loop {
                match ring.pop(&mut frame) {
                    Ok(true) => self.ingress.frame(&frame),
                    Ok(false) => break,
                    Err(damaged) => log::warn!("{}: {damaged}", self.rings.segment().name()),
                }
                if self.settled.load(Ordering::Acquire) {
                    return;
                }
            }
            ring.data_bell.wait(seen, None);
        }
    }

    fn push_patiently(&self, ring: &FrameRing, frame: &[u8], patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let seen = ring.room_bell.seen();
            // SeqCst pairs with `FrameRing::pop`: either it sees that we wait, or we see its room.
            ring.full.store(1, Ordering::SeqCst);
            let pushed = ring.push(frame);
            if pushed != Err(PushError::Full) {
                ring.full.store(0, Ordering::Relaxed);
                return pushed.is_ok();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stopped.load(Ordering::Acquire) {
                ring.full.store(0, Ordering::Relaxed);
                return false;
            }
            ring.room_bell.wait(seen, Some(left));
        }
    }
}

impl Port for CardPort {
    fn start(self: Arc<Self>) {
        self.rings.link_up.store(1, Ordering::Release);
        let me = Arc::clone(&self);
        let name = format!("port {}", me.rings.segment().name());
        match std::thread::Builder::new().name(name).spawn(move || me.serve()) {
            Ok(reader) => *self.reader.lock() = Some(reader),
            Err(error) => log::error!("{}: no thread for the port: {error}", self.rings.segment().name()),
        }
    }

    fn send(&self, frame: &[u8], patience: Duration) -> bool {
        let patient = !patience.is_zero();
        let ring = &self.rings.to_card;
        if self.rings.card_up.load(Ordering::Acquire) == 0 {
            return false;
        }
        let _one = self.producer.lock();
        let taken = match ring.push(frame) {
            Err(PushError::Full) if patient && !self.sluggish.load(Ordering::Relaxed) => {
                self.push_patiently(ring, frame, patience)
            }
            pushed => pushed.is_ok(),
        };
        if taken || patient {
            self.sluggish.store(!taken, Ordering::Relaxed);
        }
        if !taken {
            ring.dropped.bump(1);
        }
        taken
    }

    fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        let ring = &self.rings.to_switch;
        ring.data_bell.ring();
        if let Some(reader) = self.reader.lock().take() {
            // It ended in a panic or otherwise; either way it reads no more.
            let _ = reader.join();
        }
        // A card at rest leaves a ring full at most; another one's frames are its own loss.
        let (mut frame, mut left) = (Vec::new(), RING_BYTES);
        while left > 0 && matches!(ring.pop(&mut frame), Ok(true)) {
            left = left.saturating_sub(frame.len());
            self.ingress.frame(&frame);
        }
    }

    fn take_back(&self) -> Vec<Vec<u8>> {
        let ring = &self.rings.to_card;
        let (mut frames, mut frame, mut left) = (vec![], Vec::new(), RING_BYTES);
        while left > 0 && matches!(ring.pop(&mut frame), Ok(true)) {
            left = left.saturating_sub(frame.len());
            frames.push(std::mem::take(&mut frame));
        }
        frames
    }

    fn stop(&self) {
        self.settled.store(true, Ordering::Release);
        self.stopped.store(true, Ordering::Release);
        self.rings.link_up.store(0, Ordering::Release);
        self.rings.to_switch.data_bell.ring();
    }
}
