//! What an engine works on: the hart, its memory, and the machine around it.

use crate::csr::CsrEnv;
use crate::hart::{Hart, Privilege};
use crate::mem::{Cause, Fault, Memory, TranslationState};
use crate::trap::Trap;
use quasar_abi::hart::{HartControl, HartCounters};
use quasar_abi::vm::Vm;
use std::sync::atomic::Ordering;

/// A hart about to execute.
#[derive(Debug)]
pub struct ExecContext {
    /// Registers.
    pub hart: Hart,
    /// Memory.
    pub memory: Memory,
    /// The machine.
    pub vm: Vm,
}

/// The machine as registers show it.
#[derive(Debug)]
pub struct HartEnv<'a> {
    vm: &'a Vm,
    hart: u8,
    retired: u64,
}

impl CsrEnv for HartEnv<'_> {
    fn time(&self) -> u64 {
        self.vm.clock.ticks(self.retired)
    }

    fn lines(&self) -> u64 {
        self.vm.hart_control[usize::from(self.hart)].lines.load(Ordering::SeqCst)
    }

    fn mtimecmp(&self) -> u64 {
        self.vm.hart_control[usize::from(self.hart)].mtimecmp.load(Ordering::SeqCst)
    }
}

impl ExecContext {
    /// A hart over its memory and machine.
    #[must_use]
    pub fn new(hart: Hart, memory: Memory, vm: Vm) -> Self {
        let mut context = Self { hart, memory, vm };
        context.translation_changed();
        context
    }

    /// What the hart's registers show of the machine now.
    #[must_use]
    pub fn env(&self) -> HartEnv<'_> {
        HartEnv { vm: &self.vm, hart: self.hart.index, retired: self.hart.retired }
    }

    /// The same, while the hart is borrowed otherwise.
    pub(crate) fn parts(&mut self) -> (&mut Hart, HartEnv<'_>) {
        let env = HartEnv { vm: &self.vm, hart: self.hart.index, retired: self.hart.retired };
        (&mut self.hart, env)
    }

    /// The hart's words in the control block.
    #[must_use]
    pub fn control(&self) -> &HartControl {
        &self.vm.hart_control[usize::from(self.hart.index)]
    }

    /// The hart's counters.
    #[must_use]
    pub fn counters(&self) -> &HartCounters {
        &self.vm.counters[usize::from(self.hart.index)]
    }

    /// Before other processes are asked for anything: in deterministic mode they take the time from this.
    pub(crate) fn tell_time(&self) {
        if self.memory.synchronous() && self.hart.index == 0 {
            self.vm.clock.retired.store(self.hart.retired, Ordering::Release);
        }
    }

    /// Publishes the architectural state. At an instruction boundary.
    pub fn publish(&self) {
        let published = &self.vm.hart_state[usize::from(self.hart.index)];
        self.hart.save(published.next());
        published.publish();
    }

    /// After a change of PMP or menvcfg, which cached translations are not told apart by.
    pub fn protection_changed(&mut self) {
        self.tell_pmp();
        self.memory.flush_all();
        self.translation_changed();
    }

    /// Tells the mmu process the PMP registers.
    fn tell_pmp(&self) {
        let (told, csr) = (&self.vm.pmp[usize::from(self.hart.index)], &self.hart.csr);
        for (cell, value) in told.cfg.iter().zip(csr.pmpcfg).chain(told.addr.iter().zip(csr.pmpaddr)) {
            cell.set(value);
        }
    }

    /// After anything that changes how addresses translate.
    pub fn translation_changed(&mut self) {
        let hart = &self.hart;
        self.memory.set_state(&TranslationState {
            satp: hart.csr.satp,
            mstatus: hart.csr.mstatus,
            menvcfg: hart.csr.menvcfg,
            privilege: hart.privilege.bits(),
            data_privilege: hart.data_privilege().bits(),
        });
    }

    /// Takes an exception of the instruction at `pc`.
    pub fn raise(&mut self, trap: Trap, pc: u64) {
        self.hart.take_exception(trap, pc);
        self.counters().exceptions.bump(1);
        self.translation_changed();
    }

    /// Takes the consequence of a memory fault at the instruction at `pc`. Returns whether the hart goes on.
    pub(crate) fn fault(&mut self, pc: u64) -> bool {
        self.hart.pc = pc;
        match self.memory.fault() {
            Cause::Trap(trap) => {
                self.raise(trap, pc);
                true
            }
            Cause::Interrupted | Cause::Alone => false,
        }
    }

    /// An illegal instruction's fault, with the bits that lie in memory at `pc` as tval.
    #[cold]
    pub(crate) fn illegal(&mut self, pc: u64) -> Fault {
        let bits = self.bits_at(pc).unwrap_or(0);
        self.memory.raise(Trap::illegal(bits))
    }

    fn bits_at(&mut self, pc: u64) -> Result<u64, Fault> {
        let mut half = |va| {
            let gpa = self.memory.fetch_gpa(va)?;
            Ok::<u64, Fault>(self.memory.ram().load16(gpa).unwrap_or(0).into())
        };
        let low = half(pc)?;
        if low & 3 == 3 { Ok(low | half(pc.wrapping_add(2))? << 16) } else { Ok(low) }
    }

    /// Takes an interrupt if one is pending and enabled. Call at instruction boundaries.
    pub fn take_interrupt(&mut self) -> bool {
        let posted = &self.control().posted;
        if posted.load(Ordering::Relaxed) != 0 {
            let bits = posted.swap(0, Ordering::SeqCst);
            self.hart.post(bits);
        }
        if self.hart.csr.mie == 0 {
            return false;
        }
        let mip = self.hart.mip(&self.env());
        let Some(cause) = self.hart.pending_interrupt(mip) else { return false };
        self.hart.take_interrupt(cause);
        self.counters().interrupts.bump(1);
        self.translation_changed();
        true
    }

    /// Whether an interrupt that WFI waits for is pending.
    #[must_use]
    pub fn wakes(&self) -> bool {
        let posted = self.control().posted.load(Ordering::SeqCst);
        self.hart.wakes(self.hart.mip(&self.env()) | posted)
    }

    /// Whether an `ecall` now is the built-in SBI's.
    pub(crate) fn calls_sbi(&self) -> bool {
        self.hart.builtin_sbi && self.hart.privilege == Privilege::S
    }
}
