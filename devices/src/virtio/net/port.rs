//! The card's end of its switch port.

use quasar_abi::frames::PortSegment;
use quasar_abi::{Grant, Segment, SegmentError, SegmentKind, View};
use std::sync::Arc;

/// An attached port.
#[derive(Debug)]
pub struct Port {
    rings: View<PortSegment>,
}

impl Port {
    /// Attaches to the port's rings.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn attach(grant: &Grant) -> Result<Self, SegmentError> {
        let segment = Segment::attach(grant, SegmentKind::Port)?;
        Ok(Self { rings: View::new(Arc::new(segment), 0)? })
    }

    /// The rings.
    #[must_use]
    pub fn ring(&self) -> &PortSegment {
        &self.rings
    }
}
