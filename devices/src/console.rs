//! A console of the VM as attached by this process.

use quasar_abi::console::{Console, ConsoleSegment};
use quasar_abi::{Segment, SegmentError};
use std::sync::Arc;

/// One console's rings. Cheap to clone; derefs to [`Console`].
#[derive(Clone, Debug)]
pub struct ConsolePort {
    segment: Arc<Segment>,
    index: usize,
}

impl ConsolePort {
    /// The console `index` ([`quasar_abi::console::UART_CONSOLE`] or the virtio one's) of the segment.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when the segment is too small.
    pub fn new(segment: &Arc<Segment>, index: usize) -> Result<Self, SegmentError> {
        segment.view::<ConsoleSegment>(0)?;
        Ok(Self { segment: Arc::clone(segment), index })
    }
}

impl std::ops::Deref for ConsolePort {
    type Target = Console;
    fn deref(&self) -> &Console {
        match self.segment.view::<ConsoleSegment>(0) {
            Ok(segment) => &segment.consoles[self.index],
            Err(_) => unreachable!("the length was checked when the segment was taken"),
        }
    }
}
