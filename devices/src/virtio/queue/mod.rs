//! Split virtqueues (virtio 1.3, 2.7) in guest memory.
//!
//! A device finishes buffers in the order in which it was given them, and takes one only by finishing it. So
//! the used index in guest memory says at every moment, a killed process included, what is still to be done.

pub mod arithmetic;
pub mod chain;

use super::transport::state::QueueState;
use crate::dma::Dma;
pub use chain::{Chain, RingError};
use std::sync::atomic::{Ordering, fence};

/// A queue in use.
#[derive(Debug)]
pub struct Queue<'a> {
    state: &'a mut QueueState,
    dma: &'a Dma,
    event_idx: bool,
    indirect: bool,
}

impl<'a> Queue<'a> {
    /// The queue `state` in the memory behind `dma`, with the features that were agreed upon.
    pub fn new(state: &'a mut QueueState, dma: &'a Dma, event_idx: bool, indirect: bool) -> Self {
        Self { state, dma, event_idx, indirect }
    }

    /// Guest memory.
    #[must_use]
    pub fn dma(&self) -> &'a Dma {
        self.dma
    }

    /// Buffers that the queue can hold.
    #[must_use]
    pub fn capacity(&self) -> u16 {
        self.state.size.get()
    }

    fn size(&self) -> u64 {
        self.state.size.get().into()
    }

    /// After a restart: takes in what the guest can already see as finished. Returns how many bytes were written to
    /// each of those buffers.
    ///
    /// # Errors
    /// [`RingError`] when the guest has overwritten its used index.
    pub fn recover(&mut self) -> Result<Vec<u32>, RingError> {
        let used = self.dma.load16(self.state.used.get() + 2)?;
        let finished = arithmetic::distance(self.state.next_used.get(), used, self.state.size.get())
            .ok_or(RingError::Index { ring: "used", index: used, expected: self.state.next_used.get() })?;
        let mut written = vec![];
        for ahead in 0..finished {
            let at = arithmetic::place(self.state.next_used.get().wrapping_add(ahead), self.state.size.get());
            let mut len = [0; 4];
            self.dma.read(self.state.used.get() + 8 + 8 * at, &mut len)?;
            written.push(u32::from_le_bytes(len));
        }
        self.state.next_used = used.into();
        self.state.next_avail += finished;
        Ok(written)
    }

    /// The buffer `ahead` places after the next one, if the driver has made it available. It stays there
    /// until it is finished.
    fn peek(&self, ahead: u16) -> Result<Option<Chain>, RingError> {
        let (size, next) = (self.state.size.get(), self.state.next_avail.get());
        let avail = self.dma.load16(self.state.avail.get() + 2)?;
        let waiting = arithmetic::distance(next, avail, size).ok_or(RingError::Index {
            ring: "available",
            index: avail,
            expected: next,
        })?;
        if ahead >= waiting {
            return Ok(None);
        }
        let at = arithmetic::place(next.wrapping_add(ahead), size);
        let head = self.dma.load16(self.state.avail.get() + 4 + 2 * at)?;
        Chain::walk(self.dma, self.state.desc.get(), size, head, self.indirect).map(Some)
    }

    /// The next buffer; when there is none, the driver is asked to notify about the next one.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn next_buffer(&self) -> Result<Option<Chain>, RingError> {
        self.buffer_ahead(0)
    }

    /// The buffer `ahead` places after the next one; when it is not there yet, the driver is asked to notify
    /// about it.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn buffer_ahead(&self, ahead: u16) -> Result<Option<Chain>, RingError> {
        if let Some(chain) = self.peek(ahead)? {
            return Ok(Some(chain));
        }
        if !self.event_idx || ahead >= self.capacity() {
            return Ok(None);
        }
        let awaited = self.state.next_avail.get().wrapping_add(ahead);
        self.dma.store16(self.state.used.get() + 4 + 8 * self.size(), awaited)?;
        // Our wish before another look at the index; the driver does it the other way round.
        fence(Ordering::SeqCst);
        self.peek(ahead)
    }

    /// Finishes the next buffers, in order: the head of each and how many bytes were written to it. The
    /// guest sees them all at once.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn finish(&mut self, buffers: &[(u16, u32)]) -> Result<(), RingError> {
        let mut next = self.state.next_used.get();
        for (head, len) in buffers {
            let mut element = [0; 8];
            element[..4].copy_from_slice(&u32::from(*head).to_le_bytes());
            element[4..].copy_from_slice(&len.to_le_bytes());
            let at = arithmetic::place(next, self.state.size.get());
            self.dma.write(self.state.used.get() + 4 + 8 * at, &element)?;
            next = next.wrapping_add(1);
        }
        self.dma.store16(self.state.used.get() + 2, next)?;
        let count = next.wrapping_sub(self.state.next_used.get());
        self.state.next_used = next.into();
        self.state.next_avail += count;
        Ok(())
    }

    /// Whether the driver wants to hear of what was finished since this was last asked.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn interrupt_due(&mut self) -> Result<bool, RingError> {
        let (old, new) = (self.state.signalled.get(), self.state.next_used.get());
        if old == new {
            return Ok(false);
        }
        self.state.signalled = new.into();
        // The used index before the driver's wish; the driver does it the other way round.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.dma.load16(self.state.avail.get() + 4 + 2 * self.size())?;
            Ok(arithmetic::crosses(event, old, new))
        } else {
            Ok(self.dma.load16(self.state.avail.get())? & 1 == 0)
        }
    }
}
