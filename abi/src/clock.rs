//! The guest's time: ticks of [`crate::machine::TIMEBASE_HZ`], the same on every host.

use crate::le::{AtomicLe32, AtomicLe64};
use crate::machine::TIMEBASE_HZ;
use crate::shm_struct;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NS_PER_TICK: u64 = 1_000_000_000 / TIMEBASE_HZ;

/// Values of [`VmClock::mode`].
pub mod mode {
    /// Time goes with the host's monotonic clock.
    pub const REAL: u32 = 0;
    /// Time goes with retired instructions of hart 0 (deterministic mode).
    pub const INSTRUCTIONS: u32 = 1;
}

shm_struct! {
    /// How `time` is derived. Changed only while every party is parked; `sequence` is odd meanwhile.
    pub struct VmClock: 64 => {
        /// [`mode`].
        pub mode: AtomicLe32,
        /// Odd while the other words change.
        pub sequence: AtomicLe32,
        /// Ticks at the base instant.
        pub base_ticks: AtomicLe64,
        /// The host's CLOCK_MONOTONIC in nanoseconds at the base instant. Never leaves the host.
        pub base_host_ns: AtomicLe64,
        /// Nanoseconds of guest time per retired instruction in deterministic mode.
        pub ns_per_instruction: AtomicLe64,
        /// Wall clock (nanoseconds since 1970) minus guest time in nanoseconds: what the RTC adds.
        pub wall_offset_ns: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 3],
    }
}

/// The host's CLOCK_MONOTONIC in nanoseconds.
#[inline]
#[must_use]
pub fn host_monotonic_ns() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| u64::try_from(Duration::from(t).as_nanos()).unwrap_or(u64::MAX))
}

impl VmClock {
    /// Starts or restarts the clock at `ticks`, now.
    pub fn start(&self, ticks: u64) {
        self.sequence.fetch_add(1, Ordering::AcqRel);
        self.base_ticks.store(ticks, Ordering::Release);
        self.base_host_ns.store(host_monotonic_ns(), Ordering::Release);
        self.sequence.fetch_add(1, Ordering::AcqRel);
    }

    /// Ticks now. `retired` is hart 0's retired instructions, used in deterministic mode alone.
    #[inline]
    #[must_use]
    pub fn ticks(&self, retired: u64) -> u64 {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let base = self.base_ticks.load(Ordering::Acquire);
            let ns = if self.mode.get() == mode::REAL {
                host_monotonic_ns().saturating_sub(self.base_host_ns.load(Ordering::Acquire))
            } else {
                retired.saturating_mul(self.ns_per_instruction.load(Ordering::Acquire))
            };
            if before & 1 == 0 && self.sequence.load(Ordering::Acquire) == before {
                return base.wrapping_add(ns / NS_PER_TICK);
            }
            std::hint::spin_loop();
        }
    }

    /// How long until `deadline` ticks in real time; zero when it has passed.
    #[must_use]
    pub fn until(&self, deadline: u64, retired: u64) -> Duration {
        Duration::from_nanos(deadline.saturating_sub(self.ticks(retired)).saturating_mul(NS_PER_TICK))
    }
}
