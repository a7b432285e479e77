//! Ethernet headers and addresses (IEEE 802.3, clause 3).

use std::fmt;

/// Shortest frame that has a whole header: destination, source, type.
pub const HEADER_BYTES: usize = 14;

/// A 48-bit MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it addresses a group: broadcast and multicast.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where it goes.
    pub destination: Mac,
    /// Where it comes from.
    pub source: Mac,
}

impl Header {
    /// Reads a frame's header; nothing when the frame is too short or its source is a group.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let (header, _) = frame.split_first_chunk::<HEADER_BYTES>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = *header;
        let source = Mac([s0, s1, s2, s3, s4, s5]);
        (!source.is_group()).then_some(Self { destination: Mac([d0, d1, d2, d3, d4, d5]), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_frames_and_group_sources_are_refused() {
        let mut frame = [0; 14];
        assert!(Header::parse(&frame[..13]).is_none());
        frame[..6].fill(0xff);
        frame[11] = 7;
        let header = Header::parse(&frame).expect("header");
        assert!(header.destination.is_group());
        assert_eq!(header.source.to_string(), "00:00:00:00:00:07");
        frame[6] = 1;
        assert!(Header::parse(&frame).is_none());
    }
}
