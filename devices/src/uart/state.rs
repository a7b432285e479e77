//! What the serial port keeps.

use crate::saved::{Check, checked_state, require};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Version of [`UartState`].
///
/// 2: how far the console's input was taken, and whether the guest uses RTS.
pub const VERSION: u32 = 2;
/// Bytes of the receiver's FIFO.
pub const FIFO: usize = 16;
/// Sent bytes that are gathered before they go to the console.
pub const TX_BUFFER: usize = 256;

/// The port's state.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UartState {
    /// Divisor latch. It changes nothing: the line is as fast as the guest.
    pub divisor: [u8; 2],
    /// Interrupt enable register.
    pub ier: u8,
    /// FIFO control register: enable and trigger bits.
    pub fcr: u8,
    /// Line control register.
    pub lcr: u8,
    /// Modem control register.
    pub mcr: u8,
    /// Scratch register.
    pub scr: u8,
    /// Overrun was seen: 0 or 1.
    pub overrun: u8,
    /// Modem status: what changed since it was read (bits 0..=3).
    pub msr_delta: u8,
    /// The transmitter became empty and the guest was not told: 0 or 1.
    pub thre: u8,
    /// Bytes in `rx`.
    pub rx_len: u8,
    /// The guest has raised RTS: from then on input waits while it is down (hardware flow control). 0 or 1.
    pub rts_used: u8,
    /// [`quasar_abi::console::Console::written`] when `tx` was last emptied. If the console is further, `tx`
    /// is on it already: a killed process writes no byte twice.
    pub flushed: U64,
    /// [`quasar_abi::console::Console::input_tail`] after what was received. If the console is behind, a killed process
    /// has not said there that it had taken it.
    pub taken: U64,
    /// Bytes in `tx`.
    pub tx_len: U32,
    /// Received bytes, oldest first.
    pub rx: [u8; FIFO],
    /// Sent bytes that are not yet on the console.
    pub tx: [u8; TX_BUFFER],
}

impl Default for UartState {
    fn default() -> Self {
        Self { divisor: [1, 0], mcr: 0, ..Self::new_zeroed() }
    }
}

impl UartState {
    pub(crate) fn check(&self) -> Check {
        require(usize::from(self.rx_len) <= FIFO, "rx_len", self.rx_len)?;
        require(self.tx_len.get() as usize <= TX_BUFFER, "tx_len", self.tx_len.get())?;
        require(self.ier < 0x10, "ier", self.ier)?;
        require(self.mcr < 0x20, "mcr", self.mcr)?;
        require(self.msr_delta < 0x10, "msr_delta", self.msr_delta)?;
        require(self.rts_used <= 1, "rts_used", self.rts_used)?;
        require(self.thre <= 1 && self.overrun <= 1, "thre or overrun", self.thre.max(self.overrun))
    }
}

checked_state!(UartState, "uart");
