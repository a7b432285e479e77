//! A hart's architectural state: versioned, host-neutral, in shared memory.

use crate::le::{AtomicLe32, AtomicLe64};
use crate::shm_struct;
use std::sync::atomic::Ordering;

/// Version of [`HartState`]'s meaning.
pub const HART_STATE_VERSION: u64 = 1;
/// PMP entries a hart has (RISC-V Privileged 1.13, 3.7).
pub const PMP_ENTRIES: usize = 16;

shm_struct! {
    /// Architectural state at an instruction boundary. Units: registers are raw bits.
    pub struct HartState: 1024 => {
        /// [`HART_STATE_VERSION`].
        pub version: AtomicLe64,
        /// Address of the next instruction.
        pub pc: AtomicLe64,
        /// Integer registers; x0 is zero.
        pub x: [AtomicLe64; 32],
        /// Floating-point registers, NaN-boxed raw bits.
        pub f: [AtomicLe64; 32],
        /// Privilege: 0 U, 1 S, 3 M.
        pub privilege: AtomicLe64,
        /// fcsr: frm and fflags.
        pub fcsr: AtomicLe64,
        /// mstatus with the fields of sstatus.
        pub mstatus: AtomicLe64,
        /// mie.
        pub mie: AtomicLe64,
        /// The software-writable bits of mip (SSIP, STIP without Sstc, SEIP).
        pub mip: AtomicLe64,
        /// medeleg.
        pub medeleg: AtomicLe64,
        /// mideleg.
        pub mideleg: AtomicLe64,
        /// mtvec.
        pub mtvec: AtomicLe64,
        /// mscratch.
        pub mscratch: AtomicLe64,
        /// mepc.
        pub mepc: AtomicLe64,
        /// mcause.
        pub mcause: AtomicLe64,
        /// mtval.
        pub mtval: AtomicLe64,
        /// mcounteren.
        pub mcounteren: AtomicLe64,
        /// mcountinhibit.
        pub mcountinhibit: AtomicLe64,
        /// menvcfg.
        pub menvcfg: AtomicLe64,
        /// stvec.
        pub stvec: AtomicLe64,
        /// sscratch.
        pub sscratch: AtomicLe64,
        /// sepc.
        pub sepc: AtomicLe64,
        /// scause.
        pub scause: AtomicLe64,
        /// stval.
        pub stval: AtomicLe64,
        /// satp.
        pub satp: AtomicLe64,
        /// scounteren.
        pub scounteren: AtomicLe64,
        /// senvcfg.
        pub senvcfg: AtomicLe64,
        /// stimecmp (Sstc); all ones when no timer is set.
        pub stimecmp: AtomicLe64,
        /// Instructions retired since the VM's start, never written by the guest.
        pub retired: AtomicLe64,
        /// What is added to `retired` to read minstret.
        pub minstret_offset: AtomicLe64,
        /// What is added to `retired` to read mcycle.
        pub mcycle_offset: AtomicLe64,
        /// pmpcfg0 and pmpcfg2.
        pub pmpcfg: [AtomicLe64; 2],
        /// pmpaddr0 to pmpaddr15.
        pub pmpaddr: [AtomicLe64; PMP_ENTRIES],
        /// Non-zero while the hart waits in WFI.
        pub waiting: AtomicLe64,
        /// Non-zero when the SBI is the built-in one (an `ecall` from S-mode is served by the hart itself).
        pub builtin_sbi: AtomicLe64,
        /// Address of the reservation set plus 1, zero when there is none.
        pub reservation: AtomicLe64,
        /// The value that LR loaded.
        pub reserved_value: AtomicLe64,
        /// Zero.
        pub spare: [AtomicLe64; 13],
    }
}

shm_struct! {
    /// Two copies and a selector: the published state is whole at every moment.
    pub struct PublishedHart: 2112 => {
        /// Index of the copy that is valid (0 or 1).
        pub selector: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 7],
        /// The copies.
        pub copies: [HartState; 2],
    }
}

impl PublishedHart {
    /// The published copy.
    #[must_use]
    pub fn current(&self) -> &HartState {
        &self.copies[usize::from(self.selector.load(Ordering::Acquire) & 1 != 0)]
    }

    /// The copy to fill before [`PublishedHart::publish`]. Only the hart's process, or the owner of a
    /// parked hart, writes it.
    #[must_use]
    pub fn next(&self) -> &HartState {
        &self.copies[usize::from(self.selector.get() & 1 == 0)]
    }

    /// Makes the filled copy the published one.
    pub fn publish(&self) {
        self.selector.store((self.selector.get() & 1) ^ 1, Ordering::Release);
    }
}

impl HartState {
    /// Every word of the state in order, for saving and comparing. Restoring writes the same words back.
    #[must_use]
    pub fn words(&self) -> Box<[u64]> {
        self.cells().map(AtomicLe64::get).collect()
    }

    /// The state's words as cells, in the order of [`HartState::words`].
    pub fn cells(&self) -> impl Iterator<Item = &AtomicLe64> {
        [&self.version, &self.pc]
            .into_iter()
            .chain(&self.x)
            .chain(&self.f)
            .chain([
                &self.privilege,
                &self.fcsr,
                &self.mstatus,
                &self.mie,
                &self.mip,
                &self.medeleg,
                &self.mideleg,
                &self.mtvec,
                &self.mscratch,
                &self.mepc,
                &self.mcause,
                &self.mtval,
                &self.mcounteren,
                &self.mcountinhibit,
                &self.menvcfg,
                &self.stvec,
                &self.sscratch,
                &self.sepc,
                &self.scause,
                &self.stval,
                &self.satp,
                &self.scounteren,
                &self.senvcfg,
                &self.stimecmp,
                &self.retired,
                &self.minstret_offset,
                &self.mcycle_offset,
            ])
            .chain(&self.pmpcfg)
            .chain(&self.pmpaddr)
            .chain([&self.waiting, &self.builtin_sbi, &self.reservation, &self.reserved_value])
            .chain(&self.spare)
    }
}

shm_struct! {
    /// A hart's PMP registers as the mmu process checks by them: all that it knows of a hart beside the request.
    /// Written by the hart's process while it waits for no answer; its next request makes them visible.
    pub struct PmpBlock: 192 => {
        /// pmpcfg0 and pmpcfg2.
        pub cfg: [AtomicLe64; 2],
        /// pmpaddr0 to pmpaddr15.
        pub addr: [AtomicLe64; PMP_ENTRIES],
        /// Zero.
        pub reserved: [AtomicLe64; 6],
    }
}

/// HSM states as SBI numbers them (SBI 2.0, table 9.1).
pub mod hsm {
    /// Executing.
    pub const STARTED: u32 = 0;
    /// Not executing; waits for `sbi_hart_start`.
    pub const STOPPED: u32 = 1;
    /// Asked to start; the hart takes it up.
    pub const START_PENDING: u32 = 2;
    /// Suspended (waits for an interrupt).
    pub const SUSPENDED: u32 = 4;
}

shm_struct! {
    /// What others do to a hart, and what it asks of them. One per hart, in the control block.
    pub struct HartControl: 256 => {
        /// Interrupt lines as mip bits (MEIP 11, SEIP 9, MSIP 3): level, driven by the devices process.
        pub lines: AtomicLe64,
        /// Interrupts posted by other harts as mip bits (SSIP 1): taken by the hart, which clears them.
        pub posted: AtomicLe64,
        /// ACLINT mtimecmp in ticks; MTIP is `time >= mtimecmp`. Written by the devices process.
        pub mtimecmp: AtomicLe64,
        /// Remote sfence.vma requests so far; whoever asks adds one and waits for the acknowledgement.
        pub sfence_asked: AtomicLe64,
        /// Requests served. A hart that starts or is unparked serves them before it executes.
        pub sfence_done: AtomicLe64,
        /// Remote fence.i requests so far.
        pub fencei_asked: AtomicLe64,
        /// Requests served.
        pub fencei_done: AtomicLe64,
        /// [`hsm`] state.
        pub hsm: AtomicLe32,
        /// Zero.
        pub reserved0: AtomicLe32,
        /// Where a START_PENDING hart starts (SBI 2.0, 9.1).
        pub start_address: AtomicLe64,
        /// What it finds in a1.
        pub start_opaque: AtomicLe64,
        /// Of 1000 parts of real time, how many the hart shall not run (migration's throttle); 0 is full speed.
        pub throttle_permille: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 21],
    }
}

shm_struct! {
    /// What a hart has counted since its process started. Times in nanoseconds.
    pub struct HartCounters: 256 => {
        /// Instructions retired.
        pub instructions: AtomicLe64,
        /// L1 misses answered by the shared translation cache.
        pub l2_hits: AtomicLe64,
        /// Misses sent to the mmu process.
        pub mmu_requests: AtomicLe64,
        /// Time spent waiting for the mmu process.
        pub mmu_wait_ns: AtomicLe64,
        /// MMIO accesses sent to the devices process.
        pub mmio_requests: AtomicLe64,
        /// Time spent waiting for the devices process.
        pub mmio_wait_ns: AtomicLe64,
        /// Posted queue notifications.
        pub notifications: AtomicLe64,
        /// Exceptions taken.
        pub exceptions: AtomicLe64,
        /// Interrupts taken.
        pub interrupts: AtomicLe64,
        /// Built-in SBI calls served.
        pub sbi_calls: AtomicLe64,
        /// Time spent in WFI.
        pub wfi_ns: AtomicLe64,
        /// Time spent executing (waits for mmu and devices included, WFI and pauses not).
        pub run_ns: AtomicLe64,
        /// Blocks decoded.
        pub blocks_decoded: AtomicLe64,
        /// Translation flushes (sfence.vma, satp, remote).
        pub tlb_flushes: AtomicLe64,
        /// fence.i executed.
        pub fence_i: AtomicLe64,
        /// Pages marked dirty.
        pub marked: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 16],
    }
}
