//! The loop over the harts' mailboxes.

use crate::fill::{Answer, Effects, TlbFiller};
use crate::pmp::{Pmp, PmpWords};
use crate::request::Request;
use crate::tables::Trail;
use quasar_abi::dirty::PageMaps;
use quasar_abi::grants::MmuGrants;
use quasar_abi::hart_mmu::{MmuMailbox, mmu_status};
use quasar_abi::machine::RAM_BASE;
use quasar_abi::party::{MAX_HARTS, PartyId, attention, status};
use quasar_abi::tlb::HartTlb;
use quasar_abi::vm::Vm;
use quasar_abi::{GuestRam, Segment, SegmentError, SegmentKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the server sleeps when nothing rings: it then looks at `stop` and shows progress.
const IDLE: Duration = Duration::from_millis(500);
/// How long when a request waits for something that rings no bell: an absent page, a hart that goes on.
const RETRY: Duration = Duration::from_micros(500);
/// How long the server spins for the next request before it sleeps: a hart that misses at all mostly misses again
/// soon, and waking a sleeper costs it 10 to 50 µs.
const LONG_SPIN: Duration = Duration::from_micros(200);
/// The same while requests come seldom, and where harts need the host's cores themselves.
const SHORT_SPIN: Duration = Duration::from_micros(20);
/// Sleeps longer than [`LONG_SPIN`] in a row after which the server spins shortly, until a shorter one comes.
const LONG_SLEEPS: u32 = 8;

/// Why a VM cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A segment is missing or of another layout.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Sizes disagree.
    #[error(
        "the VM's control block says {said} bytes of RAM and the RAM segment has {found}; they belong to \
         different VMs or one is damaged"
    )]
    RamSize {
        /// By the control block.
        said: u64,
        /// By the segment.
        found: u64,
    },
    /// More harts than a VM can have, or none.
    #[error("the VM's control block says {0} harts; it is 1 to {MAX_HARTS}")]
    Harts(u32),
}

/// A VM's memory, attached.
#[derive(Debug)]
pub struct Server {
    vm: Vm,
    ram: GuestRam,
    maps: PageMaps,
    tlb: Segment,
    harts: usize,
    /// A senseless request was reported; further ones are not, so that a hart gone wild fills no log.
    complained: AtomicBool,
}

/// What one look at all mailboxes found.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    served: u64,
    /// Requests that must be looked at again without a ring.
    postponed: u64,
}

impl Server {
    /// Attaches to a VM and takes the mmu's slot.
    ///
    /// What a predecessor left in the caches stays valid, wherever it was killed: an entry has no tag while
    /// it is written, a request is pending until its reply is whole, and serving it twice does no harm.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(grants: &MmuGrants) -> Result<Self, AttachError> {
        let vm = Vm::attach(&grants.control)?;
        let ram = GuestRam::attach(&grants.ram, RAM_BASE)?;
        let maps = PageMaps::attach(&grants.maps, RAM_BASE, vm.ram_bytes.get())?;
        let tlb = Segment::attach(&grants.tlb, SegmentKind::Tlb)?;
        Self::new(vm, ram, maps, tlb)
    }

    /// Takes attached segments.
    ///
    /// # Errors
    /// [`AttachError`] when they don't go together.
    pub fn new(vm: Vm, ram: GuestRam, maps: PageMaps, tlb: Segment) -> Result<Self, AttachError> {
        let said = vm.ram_bytes.get();
        if said != ram.len() {
            return Err(AttachError::RamSize { said, found: ram.len() });
        }
        let count = vm.harts.get();
        let harts = usize::try_from(count).unwrap_or(usize::MAX);
        if !(1..=MAX_HARTS).contains(&harts) {
            return Err(AttachError::Harts(count));
        }
        tlb.slice::<HartTlb>(0, harts)?;
        let party = vm.party(PartyId::Mmu);
        party.attention.store(0, Ordering::SeqCst);
        party.generation.fetch_add(1, Ordering::Relaxed);
        party.pid.set(std::process::id());
        party.status.store(status::RUNNING, Ordering::SeqCst);
        Ok(Self { vm, ram, maps, tlb, harts, complained: AtomicBool::new(false) })
    }

    /// The control block.
    #[must_use]
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Serves until `stop` is set (ring the mmu's doorbell afterwards) or attention says STOP.
    pub fn run(&self, stop: &AtomicBool) {
        let party = self.vm.party(PartyId::Mmu);
        let mut pmps: Vec<Pmp> = (0..self.harts).map(|_| Pmp::new(PmpWords::default())).collect();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let long_spin = if cores > self.harts { LONG_SPIN } else { SHORT_SPIN };
        let mut long_sleeps = 0;
        loop {
            let seen = party.doorbell.seen();
            if stop.load(Ordering::Relaxed) || party.attention.load(Ordering::SeqCst) & attention::STOP != 0 {
                break;
            }
            let round = self.round(&mut pmps);
            party.progress.bump(1);
            if round.served != 0 {
                continue;
            }
            let timeout = if round.postponed == 0 { IDLE } else { RETRY };
            let patience = if long_sleeps < LONG_SLEEPS { long_spin } else { SHORT_SPIN };
            if cores > 1 && self.spin(seen, patience) {
                continue;
            }
            let asleep = Instant::now();
            self.vm.mmu_counters.sleeps.bump(1);
            party.doorbell.wait(seen, Some(timeout));
            long_sleeps = if asleep.elapsed() < LONG_SPIN { 0 } else { (long_sleeps + 1).min(LONG_SLEEPS) };
        }
        party.pid.set(0);
        party.status.store(status::ABSENT, Ordering::SeqCst);
    }

    /// Waits a little for a ring; says whether it came.
    fn spin(&self, seen: u32, patience: Duration) -> bool {
        let count = &self.vm.party(PartyId::Mmu).doorbell.count;
        let begin = Instant::now();
        while begin.elapsed() < patience {
            for _ in 0..64 {
                if count.load(Ordering::Acquire) != seen {
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        false
    }

    /// Serves each pending request once.
    fn round(&self, pmps: &mut [Pmp]) -> Round {
        let mut round = Round::default();
        for (hart, pmp) in pmps.iter_mut().enumerate() {
            if !self.vm.mmu_mail[hart].mailbox.pending() {
                continue;
            }
            // A parked or absent hart counts as at rest, and so must what is done for it: no A or D bit is
            // set and no page marked behind the back of who paused the VM.
            let running = self.vm.parties[hart].status.load(Ordering::SeqCst) == status::RUNNING;
            if running && self.serve(hart, pmp) {
                round.served += 1;
            } else {
                round.postponed += 1;
            }
        }
        round
    }

    /// Serves a hart's request; `false` leaves it pending.
    fn serve(&self, hart: usize, pmp: &mut Pmp) -> bool {
        let begin = Instant::now();
        let mail = &self.vm.mmu_mail[hart];
        let words = PmpWords::of(&self.vm.pmp[hart]);
        if words != *pmp.words() {
            *pmp = Pmp::new(words);
        }
        let (answer, effects) = match (Request::try_from(mail), self.tlb.view(hart * size_of::<HartTlb>())) {
            (Ok(request), Ok(tlb)) => {
                let filler = TlbFiller { ram: &self.ram, maps: &self.maps, control: &self.vm, tlb, pmp };
                filler.answer(&request)
            }
            (Err(bad), _) => {
                if !self.complained.swap(true, Ordering::Relaxed) {
                    log::warn!("hart {hart}: {bad}; answered with an access fault, further ones silently");
                }
                (Answer::AccessFault, Effects::default())
            }
            (_, Err(error)) => {
                log::error!("hart {hart} has no translation cache: {error}");
                (Answer::AccessFault, Effects::default())
            }
        };
        self.count(answer, effects);
        let done = reply(mail, answer, &effects.trail);
        self.vm.mmu_counters.busy_ns.bump(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        done
    }

    fn count(&self, answer: Answer, effects: Effects) {
        let counters = &self.vm.mmu_counters;
        match answer {
            Answer::Ok(_) | Answer::Once(_) => counters.served.bump(1),
            Answer::PageFault => {
                counters.served.bump(1);
                counters.page_faults.bump(1);
            }
            Answer::AccessFault => {
                counters.served.bump(1);
                counters.access_faults.bump(1);
            }
            Answer::Later => {}
        }
        counters.neighbours.bump(effects.neighbours);
        counters.ad_updates.bump(effects.ad_updates);
    }
}

fn reply(mail: &MmuMailbox, answer: Answer, trail: &Trail) -> bool {
    let (code, gpa_flags) = match answer {
        Answer::Ok(gpa_flags) => (mmu_status::OK, gpa_flags),
        Answer::Once(gpa_flags) => (mmu_status::ONCE, gpa_flags),
        Answer::PageFault => (mmu_status::PAGE_FAULT, 0),
        Answer::AccessFault => (mmu_status::ACCESS_FAULT, 0),
        Answer::Later => return false,
    };
    if code != mmu_status::OK {
        trail.tell(mail);
    }
    mail.status.set(code);
    mail.gpa_flags.set(gpa_flags);
    mail.mailbox.complete();
    true
}
