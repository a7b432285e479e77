//! The card's end of its switch port.

use quasar_abi::frames::PortSegment;
use quasar_abi::{Segment, SegmentError, SegmentKind};

/// An attached port.
#[derive(Debug)]
pub struct Port {
    segment: Segment,
}

impl Port {
    /// Attaches to the port's rings.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn attach(name: &str) -> Result<Self, SegmentError> {
        let segment = Segment::attach(name, SegmentKind::Port)?;
        segment.view::<PortSegment>(0)?;
        Ok(Self { segment })
    }

    /// The rings.
    #[must_use]
    pub fn ring(&self) -> &PortSegment {
        match self.segment.view(0) {
            Ok(port) => port,
            Err(_) => unreachable!("the length was checked when the port was attached"),
        }
    }
}
