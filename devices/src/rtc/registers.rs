//! The goldfish clock's registers (Android emulator, `GOLDFISH-VIRTUAL-HARDWARE`, "RTC"), without any host.

use super::state::RtcState;
use crate::access::{half, with_half};

const TIME_LOW: u64 = 0x00;
const TIME_HIGH: u64 = 0x04;
const ALARM_LOW: u64 = 0x08;
const ALARM_HIGH: u64 = 0x0c;
const IRQ_ENABLED: u64 = 0x10;
const CLEAR_ALARM: u64 = 0x14;
const ALARM_STATUS: u64 = 0x18;
const CLEAR_INTERRUPT: u64 = 0x1c;

impl RtcState {
    /// Reads a register. `wall_ns` is the VM's wall clock; what is not there reads zero.
    pub fn read(&mut self, offset: u64, wall_ns: u64) -> u32 {
        match offset {
            TIME_LOW => {
                let now = self.time(wall_ns);
                self.latched_high = half(now, true).into();
                half(now, false)
            }
            TIME_HIGH => self.latched_high.get(),
            ALARM_LOW => half(self.alarm_ns.get(), false),
            ALARM_HIGH => half(self.alarm_ns.get(), true),
            IRQ_ENABLED => self.irq_enabled.get(),
            ALARM_STATUS => self.alarm_set.get(),
            _ => 0,
        }
    }

    /// Writes a register. The low half of the alarm is written last and sets it.
    pub fn write(&mut self, offset: u64, value: u32, wall_ns: u64) {
        match offset {
            TIME_LOW | TIME_HIGH => {
                let wanted = with_half(self.time(wall_ns), offset == TIME_HIGH, value);
                self.offset_ns = wanted.wrapping_sub(wall_ns).into();
            }
            ALARM_LOW => {
                self.alarm_ns = with_half(self.alarm_ns.get(), false, value).into();
                self.alarm_set = 1.into();
            }
            ALARM_HIGH => self.alarm_ns = with_half(self.alarm_ns.get(), true, value).into(),
            IRQ_ENABLED => self.irq_enabled = (value & 1).into(),
            CLEAR_ALARM => self.alarm_set = 0.into(),
            CLEAR_INTERRUPT => self.irq_pending = 0.into(),
            _ => {}
        }
        self.expire(wall_ns);
    }

    fn time(&self, wall_ns: u64) -> u64 {
        wall_ns.wrapping_add(self.offset_ns.get())
    }

    /// Fires the alarm if it is due; returns whether it did.
    pub fn expire(&mut self, wall_ns: u64) -> bool {
        let due = self.until_alarm(wall_ns) == Some(0);
        if due {
            self.alarm_set = 0.into();
            self.irq_pending = 1.into();
        }
        due
    }

    /// Nanoseconds until the alarm, if one is set.
    #[must_use]
    pub fn until_alarm(&self, wall_ns: u64) -> Option<u64> {
        (self.alarm_set.get() != 0).then(|| self.alarm_ns.get().saturating_sub(self.time(wall_ns)))
    }

    /// Whether the interrupt line is up.
    #[must_use]
    pub fn raises(&self) -> bool {
        self.irq_pending.get() & self.irq_enabled.get() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 0x1234_5678_9abc_def0;

    #[test]
    fn the_high_half_is_that_of_the_low_half_read_before() {
        let mut rtc = RtcState::default();
        assert_eq!(rtc.read(TIME_LOW, 0x1_ffff_ffff), 0xffff_ffff);
        assert_eq!(rtc.read(TIME_HIGH, 0x2_0000_0000), 1);
    }

    #[test]
    fn the_guest_sets_the_time() {
        let mut rtc = RtcState::default();
        rtc.write(TIME_HIGH, 1, NOW);
        rtc.write(TIME_LOW, 2, NOW);
        assert_eq!((rtc.read(TIME_LOW, NOW + 5), rtc.read(TIME_HIGH, NOW)), (7, 1));
    }

    #[test]
    fn an_alarm_fires_once_and_is_seen_when_enabled() {
        let mut rtc = RtcState::default();
        rtc.write(ALARM_HIGH, half(NOW, true), NOW);
        rtc.write(ALARM_LOW, half(NOW, false) + 100, NOW);
        assert_eq!((rtc.until_alarm(NOW), rtc.read(ALARM_STATUS, NOW)), (Some(100), 1));
        assert!(!rtc.expire(NOW + 99) && rtc.expire(NOW + 100) && !rtc.expire(NOW + 101));
        assert!(!rtc.raises());
        rtc.write(IRQ_ENABLED, 1, NOW);
        assert!(rtc.raises());
        rtc.write(CLEAR_INTERRUPT, 1, NOW);
        assert!(!rtc.raises());
        rtc.write(ALARM_LOW, 0, NOW);
        assert!(rtc.raises(), "an alarm in the past fires at once");
    }
}
