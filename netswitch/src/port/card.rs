//! A VM's network card: packet rings in shared memory.

use super::{Ingress, Port};
use quasar_abi::frames::{FrameRing, PortSegment, PushError};
use quasar_abi::{Segment, SegmentKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a patient sender waits for the card to take frames.
const PATIENCE: Duration = Duration::from_millis(100);

/// The switch's side of a card.
pub struct CardPort {
    segment: Segment,
    ingress: Ingress,
    stopped: AtomicBool,
    /// Serialises producers: the ring has room for one.
    producer: Mutex<()>,
}

impl CardPort {
    /// Attaches to the card's rings.
    ///
    /// # Errors
    /// When the segment is missing or of another version.
    pub fn open(segment: &str, ingress: Ingress) -> anyhow::Result<Arc<Self>> {
        let segment = Segment::attach(segment, SegmentKind::Port)?;
        segment.view::<PortSegment>(0)?;
        Ok(Arc::new(Self { segment, ingress, stopped: AtomicBool::new(false), producer: Mutex::new(()) }))
    }

    fn rings(&self) -> &PortSegment {
        match self.segment.view(0) {
            Ok(rings) => rings,
            Err(_) => unreachable!("the length was checked when the segment was attached"),
        }
    }

    fn serve(&self) {
        let ring = &self.rings().to_switch;
        let mut frame = Vec::new();
        while !self.stopped.load(Ordering::Acquire) {
            let seen = ring.data_bell.seen();
            loop {
                match ring.pop(&mut frame) {
                    Ok(true) => self.ingress.frame(&frame),
                    Ok(false) => break,
                    Err(damaged) => log::warn!("{}: {damaged}", self.segment.name()),
                }
                if self.stopped.load(Ordering::Acquire) {
                    return;
                }
            }
            ring.data_bell.wait(seen, None);
        }
    }

    fn push_patiently(&self, ring: &FrameRing, frame: &[u8]) -> bool {
        let deadline = Instant::now() + PATIENCE;
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
        self.rings().link_up.store(1, Ordering::Release);
        let me = Arc::clone(&self);
        let name = format!("port {}", me.segment.name());
        if let Err(error) = std::thread::Builder::new().name(name).spawn(move || me.serve()) {
            log::error!("{}: no thread for the port: {error}", self.segment.name());
        }
    }

    fn send(&self, frame: &[u8], patient: bool) -> bool {
        let ring = &self.rings().to_card;
        if self.rings().card_up.load(Ordering::Acquire) == 0 {
            return false;
        }
        let _one = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        match ring.push(frame) {
            Ok(()) => true,
            Err(PushError::Full) if patient => self.push_patiently(ring, frame),
            Err(_) => {
                ring.dropped.bump(1);
                false
            }
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.rings().link_up.store(0, Ordering::Release);
        self.rings().to_switch.data_bell.ring();
    }
}
