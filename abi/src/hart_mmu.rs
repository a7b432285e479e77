//! Harts and the mmu process: a mailbox per hart for requests, and what the mmu has counted. Answers that may be kept
//! lie in the hart's translation cache ([`crate::tlb`]).

use crate::le::AtomicLe64;
use crate::mailbox::Mailbox;
use crate::shm_struct;

shm_struct! {
    /// A page-table entry as a walk found it.
    pub struct Step: 16 => {
        /// Where it lies.
        pub gpa: AtomicLe64,
        /// What it held.
        pub value: AtomicLe64,
    }
}

/// Page-table entries that a walk reads at most: Sv57 has five levels.
pub const MOST_STEPS: usize = 5;

shm_struct! {
    /// A hart's request to the mmu process. Idempotent: a walk repeated gives the same or a newer answer.
    pub struct MmuMailbox: 192 => {
        /// Sequence.
        pub mailbox: Mailbox,
        /// Request: virtual address.
        pub va: AtomicLe64,
        /// Request: satp, or a value of [`crate::tlb::space`].
        pub space: AtomicLe64,
        /// Request: [`crate::tlb::access`].
        pub access: AtomicLe64,
        /// Request: effective privilege (0 U, 1 S, 3 M).
        pub privilege: AtomicLe64,
        /// Request: mstatus, for SUM (bit 18) and MXR (bit 19).
        pub mstatus: AtomicLe64,
        /// Request: menvcfg, for ADUE (bit 61) and PBMTE (bit 62).
        pub menvcfg: AtomicLe64,
        /// Request: bytes accessed, for PMP regions smaller than a page.
        pub len: AtomicLe64,
        /// Reply: [`mmu_status`].
        pub status: AtomicLe64,
        /// Reply: `gpa_flags` of the 4 KiB page ([`crate::tlb::TlbEntry`]).
        pub gpa_flags: AtomicLe64,
        /// Reply, unless it is [`mmu_status::OK`]: how many entries of `steps` count.
        pub step_count: AtomicLe64,
        /// Reply, unless it is [`mmu_status::OK`]: the page-table entries that it follows from. While all of them are
        /// what they were and the hart has flushed nothing, the same request has the same reply.
        pub steps: [Step; MOST_STEPS],
        /// Zero.
        pub reserved: [AtomicLe64; 2],
    }
}

/// Values of [`MmuMailbox::status`].
pub mod mmu_status {
    /// Allowed; the translation is in the reply and in the cache.
    pub const OK: u64 = 0;
    /// Page fault of the access's kind.
    pub const PAGE_FAULT: u64 = 1;
    /// Access fault of the access's kind (PMP, or a page table outside RAM).
    pub const ACCESS_FAULT: u64 = 2;
    /// Allowed for this access alone; nothing may be cached (PMP splits the page).
    pub const ONCE: u64 = 3;
}

shm_struct! {
    /// What the mmu process has counted. Times in nanoseconds.
    pub struct MmuCounters: 128 => {
        /// Requests served.
        pub served: AtomicLe64,
        /// Walks that ended in a page fault.
        pub page_faults: AtomicLe64,
        /// Requests denied by PMP or because nothing is there.
        pub access_faults: AtomicLe64,
        /// Neighbours filled beside what was asked.
        pub neighbours: AtomicLe64,
        /// PTEs whose A or D bit was set.
        pub ad_updates: AtomicLe64,
        /// Time spent serving.
        pub busy_ns: AtomicLe64,
        /// Times it went to sleep.
        pub sleeps: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 9],
    }
}
