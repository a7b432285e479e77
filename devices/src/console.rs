//! A console of the VM as attached by this process.

use quasar_abi::console::{Console, ConsoleSegment};
use quasar_abi::{Segment, SegmentError, View};
use std::sync::Arc;

/// One console's rings. Cheap to clone; derefs to [`Console`].
#[derive(Clone, Debug)]
pub struct ConsolePort {
    segment: View<ConsoleSegment>,
    index: usize,
}

impl ConsolePort {
    /// The console `index` ([`quasar_abi::console::UART_CONSOLE`] or the virtio one's) of the segment.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when the segment is too small.
    pub fn new(segment: &Arc<Segment>, index: usize) -> Result<Self, SegmentError> {
        Ok(Self { segment: View::new(Arc::clone(segment), 0)?, index })
    }
}

impl std::ops::Deref for ConsolePort {
    type Target = Console;
    fn deref(&self) -> &Console {
        &self.segment.consoles[self.index]
    }
}
