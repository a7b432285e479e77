//! What two switches say to each other. Records of a 32-bit little-endian length, a kind and a body; every
//! integer is little-endian, every length is checked before anything is kept.

use crate::announce::MOST_ADDRESSES;
use crate::ethernet::Mac;
use crate::service::leases::LONGEST_NAME as LONGEST_VM_NAME;
use quasar_abi::frames::MAX_FRAME_BYTES;
use std::net::Ipv4Addr;

/// First bytes of a hello's body.
pub const MAGIC: &[u8; 8] = b"QUASARLK";
/// Oldest and newest version of these messages that this program speaks.
pub const VERSIONS: (u16, u16) = (1, 2);
/// First version that knows [`Message::Lease`].
pub const LEASES_SINCE: u16 = 2;
/// Networks that a host may announce.
pub const MOST_NETWORKS: usize = 1024;
/// Longest name of a network, in bytes.
pub const LONGEST_NAME: usize = 255;
/// Longest record, its length field not counted: a full list of networks.
pub const MAX_RECORD_BYTES: usize = 3 + MOST_NETWORKS * (5 + LONGEST_NAME);
/// Longest record of someone who has not said hello.
pub const MAX_HELLO_BYTES: usize = 256;

/// A switch's number, drawn when it starts.
pub type Instance = [u8; 16];

/// One message. Networks are named by numbers that the sender has announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// First of each side; the side that accepted begins.
    Hello {
        /// Oldest version spoken.
        oldest: u16,
        /// Newest version spoken.
        newest: u16,
        /// Who speaks.
        instance: Instance,
    },
    /// The sender's networks, all of them, whenever they have changed.
    Networks(Vec<(u32, String)>),
    /// A frame of a network.
    Frame {
        /// The network.
        network: u32,
        /// Whether the sender's table names the receiver's host as the way; otherwise it is a flood.
        directed: bool,
        /// The frame.
        frame: &'a [u8],
    },
    /// Nothing; shows life.
    Heartbeat,
    /// A VM has left the sender's host.
    Moved {
        /// The network.
        network: u32,
        /// Its card.
        mac: Mac,
        /// Its addresses as far as known.
        addresses: Vec<Ipv4Addr>,
    },
    /// A VM is at the sender's host now.
    Here {
        /// The network.
        network: u32,
        /// Its card.
        mac: Mac,
    },
    /// A frame for a VM that has left the sender's host, whatever the frame's own destination. Only its card takes it;
    /// it is never passed on.
    Forward {
        /// The network.
        network: u32,
        /// The VM's card.
        mac: Mac,
        /// The frame.
        frame: &'a [u8],
    },
    /// The sender ends the connection.
    Refused(String),
    /// A VM that was at the sender's host has ended.
    Ended {
        /// The network.
        network: u32,
        /// Its card.
        mac: Mac,
    },
    /// How a VM at the sender's host is known. From version 2 on.
    Lease {
        /// The network.
        network: u32,
        /// Its card.
        mac: Mac,
        /// Its address and name; nothing when the sender's host does not have it any more.
        lease: Option<(Ipv4Addr, String)>,
    },
}

/// The other side sent what no switch sends. The connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A record longer than its kind may be.
    #[error("a record of {0} bytes was announced")]
    TooLong(usize),
    /// A record without a kind, or of an unknown one.
    #[error("a record of unknown kind {0:?}")]
    Kind(Option<u8>),
    /// A body that does not fit its kind.
    #[error("a record of kind {kind} with a body of {len} bytes makes no sense")]
    Body {
        /// The kind.
        kind: u8,
        /// Length of its body.
        len: usize,
    },
}

/// Encodes a message with its length.
#[must_use]
pub fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut out = vec![0; 4];
    match message {
        Message::Hello { oldest, newest, instance } => {
            out.push(1);
            out.extend(MAGIC);
            out.extend(oldest.to_le_bytes());
            out.extend(newest.to_le_bytes());
            out.extend(instance);
        }
        Message::Networks(list) => {
            out.push(2);
            for (id, name) in list.iter().filter(|(_, n)| n.len() <= LONGEST_NAME).take(MOST_NETWORKS) {
                out.extend(id.to_le_bytes());
                out.extend(u8::try_from(name.len()));
                out.extend(name.as_bytes());
            }
        }
        Message::Frame { network, directed, frame } => {
            out.reserve(6 + frame.len());
            out.push(3);
            out.extend(network.to_le_bytes());
            out.push(u8::from(*directed));
            out.extend(*frame);
        }
        Message::Heartbeat => out.push(4),
        Message::Moved { network, mac, addresses } => {
            out.push(5);
            out.extend(network.to_le_bytes());
            out.extend(mac.0);
            out.extend(addresses.iter().take(MOST_ADDRESSES).flat_map(|a| a.octets()));
        }
        Message::Here { network, mac } => {
            out.push(6);
            out.extend(network.to_le_bytes());
            out.extend(mac.0);
        }
        Message::Forward { network, mac, frame } => {
            out.push(7);
            out.extend(network.to_le_bytes());
            out.extend(mac.0);
            out.extend(*frame);
        }
        Message::Refused(why) => {
            out.push(8);
            out.extend(why.as_bytes().iter().take(200));
        }
        Message::Ended { network, mac } => {
            out.push(9);
            out.extend(network.to_le_bytes());
            out.extend(mac.0);
        }
        Message::Lease { network, mac, lease } => {
            out.push(10);
            out.extend(network.to_le_bytes());
            out.extend(mac.0);
            if let Some((address, name)) = lease {
                out.extend(address.octets());
                out.extend(name.bytes().take(LONGEST_VM_NAME));
            }
        }
    }
    // No message is longer than MAX_RECORD_BYTES.
    let len = u32::try_from(out.len() - 4).unwrap_or(0);
    out[..4].copy_from_slice(&len.to_le_bytes());
    out
}

fn networks(mut body: &[u8]) -> Option<Vec<(u32, String)>> {
    let mut list = vec![];
    while !body.is_empty() {
        let (id, rest) = body.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        list.push((u32::from_le_bytes(*id), String::from_utf8(name.to_vec()).ok()?));
        body = rest;
    }
    (list.len() <= MOST_NETWORKS).then_some(list)
}

fn whole_frame(frame: &[u8]) -> Option<&[u8]> {
    (!frame.is_empty() && frame.len() <= MAX_FRAME_BYTES).then_some(frame)
}

fn card(body: &[u8]) -> Option<(u32, Mac, &[u8])> {
    let (network, rest) = body.split_first_chunk::<4>()?;
    let (mac, rest) = rest.split_first_chunk::<6>()?;
    Some((u32::from_le_bytes(*network), Mac(*mac), rest))
}

#[expect(clippy::option_option, reason = "outside: whether it parses")]
fn lease(body: &[u8]) -> Option<Option<(Ipv4Addr, String)>> {
    if body.is_empty() {
        return Some(None);
    }
    let (address, name) = body.split_first_chunk::<4>()?;
    let name = std::str::from_utf8(name).ok().filter(|name| (1..=LONGEST_VM_NAME).contains(&name.len()))?;
    Some(Some((Ipv4Addr::from(*address), name.to_owned())))
}

fn hello(body: &[u8]) -> Option<Message<'_>> {
    let (magic, rest) = body.split_first_chunk::<8>()?;
    let (oldest, rest) = rest.split_first_chunk::<2>()?;
    let (newest, rest) = rest.split_first_chunk::<2>()?;
    // A newer hello may carry more; what it means, its version says.
    let instance = *rest.first_chunk::<16>()?;
    let (oldest, newest) = (u16::from_le_bytes(*oldest), u16::from_le_bytes(*newest));
    (magic == MAGIC && oldest <= newest).then_some(Message::Hello { oldest, newest, instance })
}

fn body(kind: u8, body: &[u8]) -> Option<Message<'_>> {
    Some(match kind {
        1 => hello(body)?,
        2 => Message::Networks(networks(body)?),
        3 => {
            let (network, rest) = body.split_first_chunk::<4>()?;
            let (flags, frame) = rest.split_first()?;
            let directed = match flags {
                0 => false,
                1 => true,
                _ => return None,
            };
            Message::Frame { network: u32::from_le_bytes(*network), directed, frame: whole_frame(frame)? }
        }
        4 if body.is_empty() => Message::Heartbeat,
        5 => {
            let (network, mac, rest) = card(body)?;
            let (addresses, tail) = rest.as_chunks::<4>();
            if !tail.is_empty() || addresses.len() > MOST_ADDRESSES {
                return None;
            }
            Message::Moved { network, mac, addresses: addresses.iter().map(|a| Ipv4Addr::from(*a)).collect() }
        }
        6 => {
            let (network, mac, rest) = card(body)?;
            rest.is_empty().then_some(Message::Here { network, mac })?
        }
        7 => {
            let (network, mac, frame) = card(body)?;
            Message::Forward { network, mac, frame: whole_frame(frame)? }
        }
        8 if body.len() <= 200 => Message::Refused(String::from_utf8_lossy(body).escape_debug().to_string()),
        9 => {
            let (network, mac, rest) = card(body)?;
            rest.is_empty().then_some(Message::Ended { network, mac })?
        }
        10 => {
            let (network, mac, rest) = card(body)?;
            Message::Lease { network, mac, lease: lease(rest)? }
        }
        _ => return None,
    })
}

/// Reads a record, its length field taken off.
///
/// # Errors
/// [`WireError`].
pub fn parse(record: &[u8]) -> Result<Message<'_>, WireError> {
    let (kind, rest) = record.split_first().ok_or(WireError::Kind(None))?;
    if !(1..=10).contains(kind) {
        return Err(WireError::Kind(Some(*kind)));
    }
    body(*kind, rest).ok_or(WireError::Body { kind: *kind, len: rest.len() })
}

/// Bytes of a stream, cut into records.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    start: usize,
    greeted: bool,
}

impl Records {
    /// Adds bytes as they came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// From now on records may have their full length.
    pub fn greeted(&mut self) {
        self.greeted = true;
    }

    /// The next whole message.
    ///
    /// # Errors
    /// [`WireError`]; the stream is of no use any more.
    pub fn next_message(&mut self) -> Result<Option<Message<'_>>, WireError> {
        let waiting = &self.bytes[self.start..];
        let Some((length, rest)) = waiting.split_first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if len > if self.greeted { MAX_RECORD_BYTES } else { MAX_HELLO_BYTES } {
            return Err(WireError::TooLong(len));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let from = self.start + 4;
        self.start = from + len;
        parse(&self.bytes[from..from + len]).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Message<'static>> {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        vec![
            Message::Hello { oldest: 1, newest: 3, instance: [7; 16] },
            Message::Networks(vec![(1, "lan".into()), (9, "dmz".into())]),
            Message::Frame { network: 1, directed: true, frame: &[1; 60] },
            Message::Heartbeat,
            Message::Moved { network: 1, mac, addresses: vec![Ipv4Addr::new(10, 0, 0, 1)] },
            Message::Here { network: 1, mac },
            Message::Forward { network: 2, mac, frame: &[3; 70] },
            Message::Refused("no".into()),
            Message::Ended { network: 2, mac },
            Message::Lease { network: 2, mac, lease: Some((Ipv4Addr::new(10, 0, 2, 40), "web".into())) },
            Message::Lease { network: 2, mac, lease: None },
        ]
    }

    #[test]
    fn the_wire_format_does_not_change() {
        let frames = ["01".repeat(60), "03".repeat(70)];
        let frozen = [
            "1d0000000151554153 41524c4b01000300 07070707070707070707070707070707",
            "11000000020100000003 6c616e 0900000003 646d7a",
            &format!("42000000 03 01000000 01 {}", frames[0]),
            "01000000 04",
            "0f000000 05 01000000 020000000009 0a000001",
            "0b000000 06 01000000 020000000009",
            &format!("51000000 07 02000000 020000000009 {}", frames[1]),
            "03000000 08 6e6f",
            "0b000000 09 02000000 020000000009",
            "12000000 0a 02000000 020000000009 0a000228 776562",
            "0b000000 0a 02000000 020000000009",
        ];
        assert_eq!(all().len(), frozen.len());
        for (message, frozen) in all().iter().zip(frozen) {
            let hex: String = encode(message).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hex, frozen.replace(' ', ""));
            assert_eq!(parse(&encode(message)[4..]).as_ref(), Ok(message));
        }
    }

    #[test]
    fn a_stranger_cannot_make_us_keep_much() {
        let mut records = Records::default();
        records.feed(&5000u32.to_le_bytes());
        assert_eq!(records.next_message(), Err(WireError::TooLong(5000)));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut_of_the_stream(cuts in prop::collection::vec(1usize..40, 1..60)) {
            let stream: Vec<u8> = all().iter().flat_map(encode).collect();
            let (mut records, mut got, mut at) = (Records::default(), 0, 0);
            records.greeted();
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(stream.len());
                records.feed(&stream[at..end]);
                at = end;
                while let Some(message) = records.next_message().expect("valid") {
                    prop_assert_eq!(&message, &all()[got]);
                    got += 1;
                }
                if at == stream.len() { break }
            }
            prop_assert_eq!(got, all().len());
        }

        #[test]
        fn garbage_is_an_error_or_a_message_and_what_parses_encodes_the_same(
            kind in 0u8..11, body in prop::collection::vec(any::<u8>(), 0..80)
        ) {
            let record = [&[kind][..], &body].concat();
            if let Ok(message) = parse(&record) {
                // Newer hellos and odd text are read leniently; all else has one encoding.
                if !matches!(message, Message::Hello { .. } | Message::Refused(_)) {
                    prop_assert_eq!(&encode(&message)[4..], &record[..]);
                }
            }
        }

        #[test]
        fn any_stream_ends_or_waits(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut records = Records::default();
            records.feed(&bytes);
            while let Ok(Some(_)) = records.next_message() {}
        }
    }
}
