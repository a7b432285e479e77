//! The 16550A's registers (Texas Instruments PC16550D datasheet, section 8), without any host.
//!
//! The transmitter is always empty: a sent byte is gone at once.

use super::state::{FIFO, TX_BUFFER, UartState};

const IER_RECEIVED: u8 = 1 << 0;
const IER_TRANSMITTER: u8 = 1 << 1;
const IER_LINE: u8 = 1 << 2;
const IER_MODEM: u8 = 1 << 3;
const IIR_NONE: u8 = 0x01;
const IIR_MODEM: u8 = 0x00;
const IIR_TRANSMITTER: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RX: u8 = 1 << 1;
const FCR_TRIGGER: u8 = 0xc0;
const LCR_DLAB: u8 = 1 << 7;
const LSR_DATA: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_EMPTY: u8 = 0x60;
const MCR_RTS: u8 = 1 << 1;
const MCR_LOOP: u8 = 1 << 4;
/// A terminal that is there and ready: carrier, data set ready, clear to send.
const MSR_READY: u8 = 0xb0;

impl UartState {
    fn fifo_enabled(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    /// How many bytes the line may hand over now: none while the guest has not read all of the last ones, so that each
    /// of its services comes to an end.
    #[must_use]
    pub fn room(&self) -> usize {
        let held = self.mcr & MCR_LOOP != 0 || self.rts_used != 0 && self.mcr & MCR_RTS == 0;
        match self.fifo_enabled() {
            _ if held || self.rx_len > 0 => 0,
            true => FIFO,
            false => 1,
        }
    }

    /// Whether nothing received waits to be read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.rx_len == 0
    }

    fn trigger(&self) -> u8 {
        match (self.fifo_enabled(), self.fcr & FCR_TRIGGER) {
            (false, _) | (true, 0x00) => 1,
            (true, 0x40) => 4,
            (true, 0x80) => 8,
            (true, _) => 14,
        }
    }

    /// A byte comes in over the line; lost, and an overrun, when there is no room.
    pub fn receive(&mut self, byte: u8) {
        let room = if self.fifo_enabled() { FIFO } else { 1 };
        match self.rx[..room].get_mut(usize::from(self.rx_len)) {
            Some(place) => {
                *place = byte;
                self.rx_len += 1;
            }
            None => self.overrun = 1,
        }
    }

    fn take_received(&mut self) -> u8 {
        if self.rx_len == 0 {
            return 0;
        }
        let byte = self.rx[0];
        self.rx.copy_within(1.., 0);
        self.rx[FIFO - 1] = 0;
        self.rx_len -= 1;
        byte
    }

    /// What was sent and is not on the console yet.
    #[must_use]
    pub fn sent(&self) -> &[u8] {
        &self.tx[..(self.tx_len.get() as usize).min(TX_BUFFER)]
    }

    /// Whether [`UartState::sent`] must be taken before the next byte.
    #[must_use]
    pub fn tx_full(&self) -> bool {
        self.sent().len() == TX_BUFFER
    }

    /// Forgets what was sent: it is on the console, which has `written` bytes now.
    pub fn clear_sent(&mut self, written: u64) {
        self.flushed = written.into();
        self.tx_len = 0.into();
    }

    fn send(&mut self, byte: u8) {
        if self.mcr & MCR_LOOP != 0 {
            self.receive(byte);
        } else if let Some(place) = self.tx.get_mut(self.tx_len.get() as usize) {
            *place = byte;
            self.tx_len += 1;
        }
        self.thre = 1;
    }

    /// The most urgent enabled interrupt, as IIR shows it.
    fn identify(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.overrun != 0 {
            IIR_LINE
        } else if self.ier & IER_RECEIVED != 0 && self.rx_len >= self.trigger() {
            IIR_RECEIVED
        } else if self.ier & IER_RECEIVED != 0 && self.rx_len > 0 {
            // Fewer bytes than the trigger asks for: no more are on their way, so that the time is out at once.
            IIR_TIMEOUT
        } else if self.ier & IER_TRANSMITTER != 0 && self.thre != 0 {
            IIR_TRANSMITTER
        } else if self.ier & IER_MODEM != 0 && self.msr_delta != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// Whether the interrupt line is up.
    #[must_use]
    pub fn raises(&self) -> bool {
        self.identify() != IIR_NONE
    }

    fn modem_lines(&self) -> u8 {
        if self.mcr & MCR_LOOP == 0 {
            return MSR_READY;
        }
        // In loopback the outputs are the inputs: DTR is DSR, RTS is CTS, OUT1 is RI, OUT2 is DCD.
        let [dtr, rts, out1, out2] = [0, 1, 2, 3].map(|bit| self.mcr >> bit & 1);
        rts << 4 | dtr << 5 | out1 << 6 | out2 << 7
    }

    fn set_mcr(&mut self, value: u8) {
        let before = self.modem_lines();
        self.mcr = value & 0x1f;
        if self.mcr & (MCR_LOOP | MCR_RTS) == MCR_RTS {
            self.rts_used = 1;
        }
        let after = self.modem_lines();
        // The ring indicator counts when it falls, the others when they change.
        let changed = (before ^ after) >> 4 & 0b1011 | (before & !after) >> 4 & 0b0100;
        self.msr_delta |= changed;
    }

    /// Reads one of the eight registers.
    pub fn read(&mut self, register: u8) -> u8 {
        match register {
            0 | 1 if self.lcr & LCR_DLAB != 0 => self.divisor[usize::from(register)],
            0 => self.take_received(),
            1 => self.ier,
            2 => {
                let identity = self.identify();
                if identity == IIR_TRANSMITTER {
                    self.thre = 0;
                }
                identity | if self.fifo_enabled() { IIR_FIFOS } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let data = if self.rx_len > 0 { LSR_DATA } else { 0 };
                let overrun = if std::mem::take(&mut self.overrun) != 0 { LSR_OVERRUN } else { 0 };
                LSR_EMPTY | data | overrun
            }
            6 => self.modem_lines() | std::mem::take(&mut self.msr_delta),
            7 => self.scr,
            _ => 0,
        }
    }

    /// Writes one of the eight registers.
    pub fn write(&mut self, register: u8, value: u8) {
        match register {
            0 | 1 if self.lcr & LCR_DLAB != 0 => self.divisor[usize::from(register)] = value,
            0 => self.send(value),
            1 => {
                // The transmitter is empty: enabling its interrupt raises it.
                if value & !self.ier & IER_TRANSMITTER != 0 {
                    self.thre = 1;
                }
                self.ier = value & 0x0f;
            }
            2 => {
                let toggled = (value ^ self.fcr) & FCR_ENABLE != 0;
                if value & FCR_CLEAR_RX != 0 || toggled {
                    self.rx = [0; FIFO];
                    self.rx_len = 0;
                }
                self.fcr = if value & FCR_ENABLE != 0 { value & (FCR_ENABLE | FCR_TRIGGER) } else { 0 };
            }
            3 => self.lcr = value,
            4 => self.set_mcr(value),
            7 => self.scr = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transmitter_interrupt_comes_once_per_emptying() {
        let mut uart = UartState::default();
        assert_eq!(uart.read(2), IIR_NONE);
        uart.write(1, IER_TRANSMITTER);
        assert!(uart.raises());
        assert_eq!(uart.read(2), IIR_TRANSMITTER);
        assert_eq!((uart.read(2), uart.raises()), (IIR_NONE, false));
        uart.write(0, b'x');
        assert_eq!(uart.read(2), IIR_TRANSMITTER);
        assert_eq!(uart.sent(), b"x");
    }

    #[test]
    fn linux_finds_a_16550a() {
        let mut uart = UartState::default();
        uart.write(2, 0x07);
        assert_eq!(uart.read(2) & 0xc0, 0xc0);
        uart.write(2, 0x00);
        assert_eq!(uart.read(2) & 0xc0, 0);
        uart.write(7, 0xa5);
        assert_eq!(uart.read(7), 0xa5);
        uart.write(4, MCR_LOOP | 0x0a);
        assert_eq!(uart.read(6) & 0xf0, 0x90);
        uart.write(4, 0);
        assert_eq!(uart.read(6) & 0xf0, 0xb0);
    }

    #[test]
    fn the_divisor_hides_data_and_interrupt_enable() {
        let mut uart = UartState::default();
        uart.write(3, LCR_DLAB | 3);
        uart.write(0, 12);
        uart.write(1, 34);
        assert_eq!((uart.read(0), uart.read(1)), (12, 34));
        uart.write(3, 3);
        assert_eq!((uart.read(1), uart.sent().len()), (0, 0));
    }

    #[test]
    fn received_bytes_interrupt_at_the_trigger_and_below_it() {
        let mut uart = UartState::default();
        uart.write(2, FCR_ENABLE | 0x40);
        uart.write(1, IER_RECEIVED);
        uart.receive(b'a');
        assert_eq!(uart.read(2) & 0x0f, IIR_TIMEOUT);
        (b'b'..=b'd').for_each(|byte| uart.receive(byte));
        assert_eq!(uart.read(2) & 0x0f, IIR_RECEIVED);
        assert_eq!([(); 4].map(|()| uart.read(0)), *b"abcd");
        assert_eq!((uart.raises(), uart.read(5)), (false, LSR_EMPTY));
    }

    #[test]
    fn a_full_receiver_overruns_and_says_so_once() {
        let mut uart = UartState::default();
        uart.write(1, IER_LINE);
        uart.receive(1);
        assert_eq!(uart.room(), 0);
        uart.receive(2);
        assert_eq!(uart.read(2), IIR_LINE);
        assert_eq!(uart.read(5), LSR_EMPTY | LSR_DATA | LSR_OVERRUN);
        assert_eq!((uart.read(5), uart.read(0), uart.raises()), (LSR_EMPTY | LSR_DATA, 1, false));
    }

    #[test]
    fn the_line_hands_over_when_all_was_read() {
        let mut uart = UartState::default();
        assert_eq!(uart.room(), 1);
        uart.write(2, FCR_ENABLE);
        assert_eq!(uart.room(), FIFO);
        (0..16).for_each(|byte| uart.receive(byte));
        for byte in 0..16 {
            assert_eq!((uart.room(), uart.read(0)), (0, byte));
        }
        assert_eq!((uart.room(), uart.read(5) & LSR_DATA), (FIFO, 0));
    }

    #[test]
    fn a_guest_that_uses_rts_stops_the_line_with_it() {
        let mut uart = UartState::default();
        uart.write(2, FCR_ENABLE);
        // As Linux looks for the port: RTS in loopback is on no line.
        uart.write(4, MCR_LOOP | MCR_RTS);
        uart.write(4, 0);
        assert_eq!(uart.room(), FIFO);
        uart.write(4, MCR_RTS | 1);
        assert_eq!(uart.room(), FIFO);
        uart.write(4, 1);
        assert_eq!(uart.room(), 0);
        uart.write(4, MCR_RTS);
        assert_eq!(uart.room(), FIFO);
    }

    #[test]
    fn loopback_returns_what_is_sent_and_shows_modem_changes() {
        let mut uart = UartState::default();
        uart.write(2, FCR_ENABLE);
        uart.write(4, MCR_LOOP | 0x0f);
        uart.write(0, b'l');
        assert_eq!((uart.read(0), uart.sent().len()), (b'l', 0));
        uart.read(6);
        uart.write(1, IER_MODEM);
        uart.write(4, MCR_LOOP);
        assert_eq!(uart.read(2) & 0x0f, IIR_MODEM);
        assert_eq!(uart.read(6), 0x0f);
        assert!(!uart.raises());
    }
}
