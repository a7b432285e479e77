//! A hart's way to memory: L1, then the shared L2, then the mmu process; device registers by mailbox.
//!
//! [`Memory`] is owned by the hart's thread. Its fast path is [`Memory::load`] and [`Memory::store`]; what
//! those miss goes through [`translate`], [`mmio`], [`atomic`] and [`htif`]. Memory is written in [`store`] alone.
//! `unsafe` is in `l1` alone.

#![expect(
    clippy::cast_possible_truncation,
    reason = "registers are 64 bits wide; narrow accesses keep their low bytes by definition"
)]

mod answers;
mod atomic;
mod context;
mod filter;
mod htif;
#[expect(unsafe_code, reason = "accesses through host addresses")]
mod l1;
mod mmio;
mod slow;
mod store;
mod translate;

pub use atomic::{AmoOp, AmoWidth};
pub use l1::{Width, Word};
pub use store::HartRam;

use crate::trap::Trap;
use answers::Answers;
use context::{Contexts, View};
use filter::PageFilter;
use l1::{Context, L1};
use quasar_abi::dirty::PageMaps;
use quasar_abi::party::PartyId;
use quasar_abi::segment::{Segment, SegmentError, View as SegmentView};
use quasar_abi::tlb::{HartTlb, space};
use quasar_abi::vm::Vm;
use quasar_abi::{GuestRam, doorbell, hart::HartCounters};
use std::mem::offset_of;
use std::sync::Arc;

/// mstatus.SUM and MXR (RISC-V Privileged 1.13, 3.1.6.3).
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;

/// An access that was not carried out; [`Memory::fault`] says why. A marker, so that the fast path's
/// result fits registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Why an access was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The instruction raises this exception.
    Trap(Trap),
    /// The hart has to park or end while another process has not answered: nothing happened yet, and
    /// the instruction is executed again later.
    Interrupted,
    /// Deterministic mode: the instruction speaks to another process. Nothing happened yet; it is to be executed
    /// with nothing beside it ([`Memory::set_alone`]).
    Alone,
}

/// Where an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// RAM at this guest-physical address.
    Ram(u64),
    /// A device register.
    Io(u64),
}

/// What decides how addresses are translated; taken from the hart whenever one of them changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationState {
    /// satp.
    pub satp: u64,
    /// mstatus.
    pub mstatus: u64,
    /// menvcfg.
    pub menvcfg: u64,
    /// Privilege of fetches (0 U, 1 S, 3 M).
    pub privilege: u64,
    /// Privilege of loads and stores, by MPRV.
    pub data_privilege: u64,
}

/// One hart's memory. Its layout is fixed as far as generated code looks pages up itself: the contexts of loads and
/// stores and of fetches, and L1.
#[repr(C)]
pub struct Memory {
    data: Context,
    fetch: Context,
    l1: L1,
    ram: HartRam,
    vm: Vm,
    /// Counts what makes all remembered instruction addresses stale.
    fetch_epoch: u64,
    /// How often instructions in memory were said to have changed.
    instruction_generation: u64,
    fault: Cause,
    hart: u8,
    htif_waiting: bool,
    /// Deterministic mode, and the leave to speak to other processes in it.
    synchronous: bool,
    alone: bool,
    spins: u32,
    menvcfg: u64,
    data_view: View,
    fetch_view: View,
    tlb: SegmentView<HartTlb>,
    /// Pages entered into L1 from large translations, and pages that were fetched from.
    large: PageFilter,
    executed: PageFilter,
    answers: Answers,
    contexts: Contexts,
}

const _: () = {
    assert!(offset_of!(Memory, data) == 0 && offset_of!(Memory, fetch) == 8 && offset_of!(Memory, l1) == 16);
    assert!(size_of::<Context>() == 8);
};

impl Memory {
    /// The memory of hart `hart` over the VM's segments.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when the segment of translation caches is too small.
    pub fn new(
        vm: Vm,
        ram: GuestRam,
        maps: PageMaps,
        tlb: Arc<Segment>,
        hart: u8,
    ) -> Result<Self, SegmentError> {
        let tlb = SegmentView::new(tlb, usize::from(hart) * size_of::<HartTlb>())?;
        let mut contexts = Contexts::new();
        let (context, _) = contexts.of(View::MACHINE);
        Ok(Self {
            l1: L1::new(ram.clone()),
            contexts,
            data_view: View::MACHINE,
            data: context,
            fetch_view: View::MACHINE,
            fetch: context,
            fetch_epoch: 0,
            instruction_generation: 0,
            large: PageFilter::new(),
            executed: PageFilter::new(),
            answers: Answers::new(),
            menvcfg: 0,
            fault: Cause::Interrupted,
            htif_waiting: false,
            synchronous: false,
            alone: false,
            ram: HartRam::new(vm.clone(), ram, maps),
            vm,
            tlb,
            hart,
            spins: doorbell::default_spins(),
        })
    }

    /// Guest RAM.
    #[must_use]
    pub const fn ram(&self) -> &HartRam {
        &self.ram
    }

    /// Makes `trap` the reason of a fault.
    pub const fn raise(&mut self, trap: Trap) -> Fault {
        self.fault = Cause::Trap(trap);
        Fault
    }

    /// Why the latest [`Fault`] was returned.
    #[must_use]
    pub const fn fault(&self) -> Cause {
        self.fault
    }

    /// In deterministic mode accesses that other processes see happen at known counts of instructions: each
    /// faults with [`Cause::Alone`] unless [`Memory::set_alone`] has said that it may happen, and queue
    /// notifications are waited for.
    pub const fn set_synchronous(&mut self, synchronous: bool) {
        self.synchronous = synchronous;
    }

    /// Whether the mode is deterministic.
    #[must_use]
    pub const fn synchronous(&self) -> bool {
        self.synchronous
    }

    /// The next instruction is executed alone: the count of retired instructions is exact, and the hart comes
    /// to a safepoint's look at its attention right after it.
    pub const fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    pub(super) fn check_alone(&mut self) -> Result<(), Fault> {
        if self.synchronous && !self.alone {
            self.fault = Cause::Alone;
            return Err(Fault);
        }
        Ok(())
    }

    /// Distinguishes instruction address spaces: while it is the same, an instruction address has the
    /// same guest-physical address and the instructions there are the same.
    #[inline(always)]
    #[must_use]
    pub const fn fetch_key(&self) -> u64 {
        self.fetch.0 | self.fetch_epoch << 12
    }

    /// Loads, zero-extended.
    ///
    /// # Errors
    /// [`Fault`].
    #[inline(always)]
    pub fn load<W: Width>(&mut self, va: u64) -> Result<u64, Fault> {
        match self.l1.load::<W>(self.data, va) {
            Some(value) => Ok(value),
            None => self.load_slow(va, W::BYTES),
        }
    }

    /// Takes up a new translation state. Nothing is flushed: each view has its own L1 context.
    pub fn set_state(&mut self, state: &TranslationState) {
        let space_of = |privilege: u64| match (privilege, state.satp >> 60) {
            (3, _) => space::MACHINE,
            (_, 0) => space::BARE,
            _ => state.satp,
        };
        // SUM matters to S-mode loads and stores, MXR to loads of U- and S-mode, neither to fetches.
        let relevant = match state.data_privilege {
            3 => 0,
            1 => SUM | MXR,
            _ => MXR,
        };
        self.menvcfg = state.menvcfg;
        self.data_view = View {
            space: space_of(state.data_privilege),
            privilege: state.data_privilege,
            mstatus: state.mstatus & relevant,
        };
        self.fetch_view = View { space: space_of(state.privilege), privilege: state.privilege, mstatus: 0 };
        self.take_contexts();
    }

    fn take_contexts(&mut self) {
        let (fetch, wipe) = self.contexts.of(self.fetch_view);
        let (data, again) = self.contexts.of(self.data_view);
        (self.fetch, self.data) = (fetch, data);
        if wipe || again {
            self.l1.wipe();
            self.answers.forget();
            self.fetch_epoch += 1;
            // When the second ran out the first is no longer known; both come from the new numbers now.
            self.fetch = self.contexts.of(self.fetch_view).0;
            self.data = self.contexts.of(self.data_view).0;
        }
    }

    /// sfence.vma (RISC-V Privileged 1.13, 12.2.1), by virtual address, by ASID, by both, or of everything.
    pub fn fence(&mut self, va: Option<u64>, asid: Option<u64>) {
        self.counters().tlb_flushes.bump(1);
        match (va, asid) {
            (Some(va), _) => self.fence_page(va),
            (None, Some(asid)) => {
                self.own_tlb().flush_asid(asid);
                self.forget();
            }
            (None, None) => self.flush_all(),
        }
    }

    fn fence_page(&mut self, va: u64) {
        let tlb = self.own_tlb();
        let huge = tlb.huge_filled.get() != 0;
        let fractured = tlb.fractured.get() != 0;
        tlb.flush_page(va);
        // A large page lies in L1 as many small ones, of which only one has this address.
        if fractured || self.large.has(va >> 21) || (huge && !self.large.is_empty()) {
            self.forget();
        } else {
            self.l1.drop_page(va);
            if self.executed.has(va >> 12) {
                self.fetch_epoch += 1;
                self.executed.clear();
            }
        }
    }

    /// Drops every translation, writable ones among them.
    pub fn flush_all(&mut self) {
        self.own_tlb().flush_all();
        self.forget();
    }

    /// Forgets which pages may be written without a mark, when an epoch ends ([`quasar_abi::dirty`]).
    pub fn drop_writes(&mut self) {
        self.l1.wipe_writes();
    }

    fn forget(&mut self) {
        self.contexts.forget();
        self.large.clear();
        self.executed.clear();
        self.answers.forget();
        self.take_contexts();
    }

    /// fence.i: instructions seen so far may have changed.
    pub fn instructions_changed(&mut self) {
        self.instruction_generation += 1;
        self.fetch_epoch += 1;
        self.executed.clear();
    }

    /// Changes with each [`Memory::instructions_changed`]: what was decoded before must be compared with memory.
    #[must_use]
    pub const fn instruction_generation(&self) -> u64 {
        self.instruction_generation
    }

    fn own_tlb(&self) -> &HartTlb {
        &self.tlb
    }

    fn counters(&self) -> &HartCounters {
        &self.vm.counters[usize::from(self.hart)]
    }

    const fn me(&self) -> PartyId {
        PartyId::Hart(self.hart)
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory")
            .field("hart", &self.hart)
            .field("data", &self.data_view)
            .finish_non_exhaustive()
    }
}
