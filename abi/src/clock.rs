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
    /// Time goes with retired instructions of hart 0 (deterministic mode). While the hart waits for its timer, time
    /// jumps.
    pub const INSTRUCTIONS: u32 = 1;
    /// The same, and the hart sleeps for as long as the time it jumps over, so that an idle guest is idle. To the
    /// guest there is no difference, unless something comes from outside meanwhile.
    pub const PACED: u32 = 2;
}

shm_struct! {
    /// A moment at which both clocks were known.
    pub struct ClockBase: 16 => {
        /// The guest's ticks then.
        pub ticks: AtomicLe64,
        /// The host's CLOCK_MONOTONIC in nanoseconds then. Never leaves the host.
        pub host_ns: AtomicLe64,
    }
}

shm_struct! {
    /// How `time` is derived. Changed only while every party is parked, except that a hart in deterministic mode
    /// moves the base ahead while it waits: so there is one writer at a time.
    ///
    /// Two bases and a selector: a writer that ends in the middle of a change leaves the base that was valid before,
    /// and nobody waits for it.
    pub struct VmClock: 64 => {
        /// [`mode`].
        pub mode: AtomicLe32,
        /// How often the base was changed; the lowest bit says which of `bases` is valid.
        pub selector: AtomicLe32,
        /// The bases.
        pub bases: [ClockBase; 2],
        /// Nanoseconds of guest time per retired instruction in deterministic mode.
        pub ns_per_instruction: AtomicLe64,
        /// Wall clock (nanoseconds since 1970) minus guest time in nanoseconds: what the RTC adds.
        pub wall_offset_ns: AtomicLe64,
        /// Deterministic mode: hart 0's retired instructions as the devices may use them. The hart stores it
        /// before each of its requests to them; it is exact until the request is answered.
        pub retired: AtomicLe64,
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
    /// Starts or restarts the clock at `ticks`, now. `retired` is as for [`VmClock::ticks`]. While every party is
    /// parked.
    pub fn start(&self, ticks: u64, retired: u64) {
        let base = if self.is_deterministic() { ticks.wrapping_sub(self.elapsed(retired)) } else { ticks };
        self.retired.store(retired, Ordering::Release);
        self.set_base(base, host_monotonic_ns());
    }

    /// The base in force: its ticks and its host's nanoseconds, both of one change.
    #[inline]
    #[must_use]
    pub fn base(&self) -> (u64, u64) {
        loop {
            let selector = self.selector.load(Ordering::Acquire);
            let base = &self.bases[usize::from(selector & 1 != 0)];
            let found = (base.ticks.load(Ordering::Acquire), base.host_ns.load(Ordering::Acquire));
            // Whoever fills this base anew has changed the selector before. Each look again is another change that
            // was finished: nobody waits here for a writer that is gone.
            if self.selector.load(Ordering::Acquire) == selector {
                return found;
            }
            crate::sync::spin_loop();
        }
    }

    /// Puts another base in force. One writer at a time.
    pub fn set_base(&self, ticks: u64, host_ns: u64) {
        let selector = self.selector.get();
        let next = &self.bases[usize::from(selector & 1 == 0)];
        // Release: whoever sees one of these words sees the selector that came before them.
        next.ticks.store(ticks, Ordering::Release);
        next.host_ns.store(host_ns, Ordering::Release);
        self.selector.store(selector.wrapping_add(1), Ordering::Release);
    }

    /// Whether time goes with retired instructions.
    #[inline]
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        self.mode.get() != mode::REAL
    }

    /// The ticks that so many instructions take in deterministic mode.
    fn elapsed(&self, retired: u64) -> u64 {
        retired.saturating_mul(self.ns_per_instruction.load(Ordering::Acquire)) / NS_PER_TICK
    }

    /// Deterministic mode: the count of retired instructions at which [`VmClock::ticks`] reaches `ticks`.
    #[must_use]
    pub fn instructions_at(&self, ticks: u64) -> u64 {
        // The base may lie before zero: it is what the time would have been at no instruction.
        let elapsed = ticks.wrapping_sub(self.base().0).saturating_mul(NS_PER_TICK);
        elapsed.div_ceil(self.ns_per_instruction.load(Ordering::Acquire).max(1))
    }

    /// Deterministic mode: lets so many ticks pass in which no instruction retires. Hart 0, which waits.
    pub fn skip(&self, ticks: u64) {
        let (before, host_ns) = self.base();
        self.set_base(before.wrapping_add(ticks), host_ns);
    }

    /// Ticks now. `retired` is hart 0's retired instructions, used in deterministic mode alone.
    #[inline]
    #[must_use]
    pub fn ticks(&self, retired: u64) -> u64 {
        let (base, host_ns) = self.base();
        let elapsed = if self.is_deterministic() {
            self.elapsed(retired)
        } else {
            host_monotonic_ns().saturating_sub(host_ns) / NS_PER_TICK
        };
        base.wrapping_add(elapsed)
    }

    /// How long until `deadline` ticks in real time; zero when it has passed.
    #[must_use]
    pub fn until(&self, deadline: u64, retired: u64) -> Duration {
        Duration::from_nanos(deadline.saturating_sub(self.ticks(retired)).saturating_mul(NS_PER_TICK))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::segment::{Segment, SegmentKind};
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    fn deterministic(ns_per_instruction: u64, test: impl FnOnce(&VmClock)) {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("/quasar-test-{}-clock{number}", std::process::id());
        let segment = Segment::create(&name, SegmentKind::Control, size_of::<VmClock>(), 1).expect("segment");
        let clock = segment.view::<VmClock>(0).expect("clock");
        clock.mode.set(mode::INSTRUCTIONS);
        clock.ns_per_instruction.set(ns_per_instruction);
        test(clock);
    }

    #[test]
    fn time_goes_with_instructions_alone() {
        deterministic(10, |clock| {
            clock.start(1000, 0);
            assert_eq!(
                [0, 9, 10, 19, 20, 1_000_000].map(|n| clock.ticks(n)),
                [1000, 1000, 1001, 1001, 1002, 101_000]
            );
        });
    }

    #[test]
    fn a_restart_at_the_time_that_it_was_changes_nothing() {
        deterministic(7, |clock| {
            clock.start(5, 0);
            // Any number of instructions, those within a tick among them; as at each step of a journey.
            for retired in [0, 1, 13, 14, 15, 99, 100, 12_345_678_901] {
                let (now, base) = (clock.ticks(retired), clock.base().0);
                clock.start(now, retired);
                assert_eq!((clock.ticks(retired), clock.base().0), (now, base));
            }
            assert_eq!(clock.retired.get(), 12_345_678_901);
        });
    }

    #[test]
    fn deadlines_are_reached_at_the_first_instruction_that_has_their_time() {
        for ns in [1, 7, 10, 33, 100, 1000] {
            deterministic(ns, |clock| {
                // What the time would have been at no instruction lies before zero.
                clock.start(3, 1_000_000_007);
                for deadline in (4..500).chain([1_000_000]) {
                    let at = clock.instructions_at(deadline);
                    assert!(clock.ticks(at) >= deadline, "{ns} ns, deadline {deadline}");
                    assert!(clock.ticks(at - 1) < deadline, "{ns} ns, deadline {deadline}");
                }
            });
        }
    }

    #[test]
    fn waiting_lets_time_pass_and_no_instruction() {
        deterministic(10, |clock| {
            clock.start(0, 50);
            assert_eq!(clock.instructions_at(100), 1050);
            clock.skip(90);
            assert_eq!((clock.ticks(50), clock.instructions_at(100)), (90, 150));
        });
    }

    /// Kills a process that changes the clock without end, again and again, and asks for the time each time. The
    /// process is this test in another process, which the name of the segment is for.
    #[test]
    #[cfg_attr(
        not(target_arch = "x86_64"),
        ignore = "builds for other architectures are tested under emulators, which do not start them as further processes"
    )]
    fn a_writer_that_is_killed_stops_no_reader() {
        const SEGMENT: &str = "QUASAR_TEST_CLOCK";
        const TEST: &str = "clock::tests::a_writer_that_is_killed_stops_no_reader";
        if let Ok(fd) = std::env::var(SEGMENT) {
            let fd = crate::control::channel::inherited(fd.parse().expect("a number")).expect("inherited");
            let grant = crate::Grant::new("the clock".into(), fd);
            let segment = Segment::attach(&grant, SegmentKind::Control).expect("the test's segment");
            let clock = segment.view::<VmClock>(0).expect("clock");
            loop {
                clock.skip(1);
            }
        }
        let name = format!("/quasar-test-{}-clock-kills", std::process::id());
        let segment =
            Arc::new(Segment::create(&name, SegmentKind::Control, size_of::<VmClock>(), 1).expect("segment"));
        let clock = segment.view::<VmClock>(0).expect("clock");
        clock.mode.set(mode::INSTRUCTIONS);
        let inherited = segment.file().expect("a descriptor");
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).expect("fcntl");
        for _ in 0..50 {
            let before = clock.ticks(0);
            let mut writer = std::process::Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", TEST])
                .env(SEGMENT, inherited.as_raw_fd().to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("a writer");
            while clock.ticks(0) == before {
                let ended = writer.try_wait().expect("a child");
                assert!(ended.is_none(), "the writer has ended by itself: {ended:?}");
                std::thread::yield_now();
            }
            writer.kill().expect("kill");
            writer.wait().expect("its end");
            let (answer, answered) = std::sync::mpsc::channel();
            let reader = Arc::clone(&segment);
            std::thread::spawn(move || {
                let clock = reader.view::<VmClock>(0).expect("clock");
                answer.send([clock.ticks(0), clock.ticks(0)])
            });
            let [now, again] = answered
                .recv_timeout(Duration::from_secs(60))
                .expect("a reader waits for a writer that is dead");
            assert!(now > before && now == again);
            clock.skip(5);
            assert_eq!(clock.ticks(0), now + 5, "who comes after goes on from what was valid");
        }
    }
}
