//! Network card on a port of the host's switch (virtio 1.3, 5.1). Frames are sent by the server's thread and
//! received by the card's worker, both under the card's lock.

pub mod config;
pub mod port;
pub mod worker;

use super::device::{Device, Wants};
use super::queue::{Queue, RingError};
use super::transport::registers::Identity;
use super::transport::{self, state::MAX_QUEUE_SIZE};
use crate::error::{BadState, DevicesError};
use crate::saved::plain_state;
use port::Port;
use quasar_abi::Grant;
use quasar_abi::frames::{MAX_FRAME_BYTES, PushError};
use quasar_abi::report::{DeviceReport, NetReport};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The receive queue.
pub const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// `struct virtio_net_hdr` as version 1 has it (virtio 1.3, 5.1.6).
const HEADER: usize = 12;
const NUM_BUFFERS: usize = 10;
/// How soon a full ring to the switch is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// The card. It keeps nothing: frames are in the rings or delivered.
#[derive(Debug)]
pub struct Net {
    port: Arc<Port>,
    mac: [u8; 6],
    /// A frame out of the port's ring that waits for buffers. Lost with the process, as frames may be.
    held: Vec<u8>,
    /// The ring to the switch was full.
    stalled: bool,
    mergeable: bool,
    sent: u64,
    received: u64,
    dropped: u64,
}

impl Net {
    /// Attaches to the port.
    ///
    /// # Errors
    /// [`DevicesError::Segment`].
    pub fn attach(port: &Grant, mac: [u8; 6]) -> Result<(Self, Arc<Port>), DevicesError> {
        let port = Arc::new(Port::attach(port)?);
        let card = Self {
            port: Arc::clone(&port),
            mac,
            held: vec![],
            stalled: false,
            mergeable: true,
            sent: 0,
            received: 0,
            dropped: 0,
        };
        Ok((card, port))
    }

    fn transmit(&mut self, queue: &mut Queue<'_>) -> Result<(), RingError> {
        let ring = &self.port.ring().to_switch;
        self.stalled = false;
        let mut frame = vec![];
        while let Some(chain) = queue.next_buffer()? {
            let len = chain.readable_len();
            let Some(len) = len.checked_sub(HEADER as u64) else {
                return Err(RingError::Short { needed: HEADER as u64, found: len });
            };
            // No offload was agreed upon, so that the header says nothing.
            frame.resize(usize::try_from(len).unwrap_or(usize::MAX).min(MAX_FRAME_BYTES + 1), 0);
            chain.read(queue.dma(), HEADER as u64, &mut frame)?;
            match ring.push(&frame) {
                Ok(()) => self.sent += 1,
                Err(PushError::Length(_)) => self.dropped += 1,
                Err(PushError::Full) => {
                    ring.full.store(1, Ordering::SeqCst);
                    self.stalled = true;
                    return Ok(());
                }
            }
            queue.finish(&[(chain.head, 0)])?;
        }
        ring.full.store(0, Ordering::SeqCst);
        Ok(())
    }

    fn receive(&mut self, queue: &mut Queue<'_>) -> Result<(), RingError> {
        let port = Arc::clone(&self.port);
        let ring = &port.ring().to_card;
        loop {
            if self.held.is_empty() {
                match ring.pop(&mut self.held) {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(damaged) => {
                        // Once per ring of the bell, so that a broken switch does not keep us here.
                        log::warn!("network port: {damaged}");
                        return Ok(());
                    }
                }
            }
            if !self.deliver(queue)? {
                return Ok(());
            }
        }
    }

    /// Puts the held frame into buffers; `false` when there are not enough yet.
    fn deliver(&mut self, queue: &mut Queue<'_>) -> Result<bool, RingError> {
        let need = (HEADER + self.held.len()) as u64;
        let (mut chains, mut room) = (vec![], 0);
        while room < need {
            let ahead = u16::try_from(chains.len()).unwrap_or(u16::MAX);
            if ahead == 1 && !self.mergeable {
                self.drop_held();
                return Ok(true);
            }
            let Some(chain) = queue.buffer_ahead(ahead)? else {
                if ahead >= queue.capacity() {
                    self.drop_held();
                    return Ok(true);
                }
                return Ok(false);
            };
            if chain.writable_len() == 0 {
                return Err(RingError::Short { needed: 1, found: 0 });
            }
            room += chain.writable_len();
            chains.push(chain);
        }
        let mut packet = vec![0; HEADER];
        let count = u16::try_from(chains.len()).unwrap_or(u16::MAX);
        packet[NUM_BUFFERS..].copy_from_slice(&count.to_le_bytes());
        packet.append(&mut self.held);
        let mut rest = packet.as_slice();
        let mut used = vec![];
        for chain in &chains {
            let len = usize::try_from(chain.writable_len()).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at(len);
            chain.write(queue.dma(), 0, piece)?;
            used.push((chain.head, u32::try_from(len).unwrap_or(u32::MAX)));
            rest = after;
        }
        queue.finish(&used)?;
        self.received += 1;
        Ok(true)
    }

    fn drop_held(&mut self) {
        self.held.clear();
        self.dropped += 1;
    }
}

impl Device for Net {
    fn identity(&self) -> Identity {
        let features = transport::FEATURES | config::FEATURES;
        Identity { id: 1, features, queues: &[MAX_QUEUE_SIZE, MAX_QUEUE_SIZE] }
    }

    fn name(&self) -> &'static str {
        "net"
    }

    fn config(&self) -> Vec<u8> {
        config::space(self.mac)
    }

    fn write_config(&mut self, _offset: u64, _byte: u8) {}

    fn start(&mut self, features: u64) {
        self.mergeable = features & config::F_MRG_RXBUF != 0;
        self.port.ring().card_up.store(1, Ordering::SeqCst);
    }

    fn work(&mut self, index: usize, queue: &mut Queue<'_>) -> Result<(), RingError> {
        match index {
            RECEIVE => self.receive(queue),
            TRANSMIT => self.transmit(queue),
            _ => Ok(()),
        }
    }

    fn wants(&self) -> Wants {
        if self.stalled { Wants { queue: Some(TRANSMIT), again: Some(RETRY) } } else { Wants::default() }
    }

    fn save(&self) -> Vec<u8> {
        vec![]
    }

    fn load(&mut self, state: &[u8]) -> Result<(), BadState> {
        plain_state::<[u8; 0]>("net", state).map(drop)
    }

    fn recovered(&mut self, _index: usize, _written: u64) {}

    fn reset(&mut self) {
        self.port.ring().card_up.store(0, Ordering::SeqCst);
        self.held.clear();
        self.stalled = false;
    }

    fn press_power(&mut self, _live: bool) -> Option<bool> {
        None
    }

    fn stats(&self) -> DeviceReport {
        DeviceReport::Net(NetReport { sent: self.sent, received: self.received, dropped: self.dropped })
    }
}
