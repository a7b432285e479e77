//! A VM of segments alone, and a hart that asks.

use super::pte::build;
use quasar_abi::dirty::{PageMaps, maps_bytes};
use quasar_abi::grants::MmuGrants;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::party::{PartyId, status};
use quasar_abi::tlb::{HartTlb, TLB_SEGMENT_BYTES, access, space};
use quasar_abi::vm::{CONTROL_BYTES, Vm};
use quasar_abi::{GuestRam, Segment, SegmentKind};
use quasar_mmu::walk::pte;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// RAM of the test VM; memory is used only where a test writes.
pub const RAM_BYTES: u64 = 1 << 30;
/// Where [`TestVm::map`] has its root table.
pub const ROOT: u64 = RAM_BASE + 0x10_0000;
/// satp of that root: Sv39, ASID 1.
pub const SATP: u64 = (8 << 60) | (1 << 44) | (ROOT >> 12);
/// menvcfg.ADUE.
pub const ADUE: u64 = 1 << 61;

/// A VM without processes.
pub struct TestVm {
    pub vm: Vm,
    pub ram: GuestRam,
    pub maps: PageMaps,
    pub grants: MmuGrants,
    pub tlb: Arc<Segment>,
}

/// What a hart asks.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub va: u64,
    pub space: u64,
    pub access: u64,
    pub privilege: u64,
    pub mstatus: u64,
    pub menvcfg: u64,
    pub len: u64,
}

impl Ask {
    /// An 8-byte access of S-mode under [`SATP`] with ADUE.
    pub fn paged(va: u64, access: u64) -> Self {
        Self { va, space: SATP, access, privilege: 1, mstatus: 0, menvcfg: ADUE, len: 8 }
    }
    /// The same of M-mode.
    pub fn machine(va: u64, access: u64) -> Self {
        Self { space: space::MACHINE, privilege: 3, ..Self::paged(va, access) }
    }
    /// The same of S-mode without paging.
    pub fn bare(va: u64, access: u64) -> Self {
        Self { space: space::BARE, ..Self::paged(va, access) }
    }
    pub fn read(va: u64) -> Self {
        Self::paged(va, access::READ)
    }
    pub fn write(va: u64) -> Self {
        Self::paged(va, access::WRITE)
    }
}

impl TestVm {
    /// A VM with `harts` running harts whose PMP is open.
    pub fn new(harts: u8) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix =
            format!("/quasar-test-mmu-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let make = |what: &str, kind, len: u64| {
            let len = usize::try_from(len).expect("fits");
            Arc::new(Segment::create(&format!("{prefix}-{what}"), kind, len, 1).expect("create"))
        };
        let control = make("control", SegmentKind::Control, CONTROL_BYTES as u64);
        let ram = make("ram", SegmentKind::Ram, RAM_BYTES);
        let tlb = make("tlb", SegmentKind::Tlb, TLB_SEGMENT_BYTES as u64);
        let maps = make("maps", SegmentKind::Maps, maps_bytes(RAM_BYTES));
        let grants = MmuGrants {
            vm: "test".into(),
            control: control.grant(),
            ram: ram.grant(),
            tlb: tlb.grant(),
            maps: maps.grant(),
        };
        let vm = Vm::new(control).expect("control");
        vm.ram_bytes.set(RAM_BYTES);
        vm.harts.set(harts.into());
        for hart in 0..harts {
            assert!(vm.try_run(PartyId::Hart(hart)));
            let pmp = &vm.pmp[usize::from(hart)];
            pmp.cfg[0].set(0x1f);
            pmp.addr[0].set((1 << 54) - 1);
        }
        let (ram, maps) =
            (GuestRam::new(ram, RAM_BASE), PageMaps::new(maps, RAM_BASE, RAM_BYTES).expect("maps"));
        Self { vm, ram, maps, grants, tlb }
    }

    /// A hart's cache.
    pub fn cache(&self, hart: usize) -> &HartTlb {
        self.tlb.view(hart * size_of::<HartTlb>()).expect("view")
    }

    /// Maps `va` in [`SATP`]'s Sv39 tree at `level`; tables lie behind the root, by number.
    pub fn map(&self, va: u64, level: u32, leaf: u64) -> u64 {
        let mut table = ROOT;
        for at in (level..3).rev() {
            let slot = table + ((va >> (12 + 9 * at)) & 511) * 8;
            let cell = self.ram.cell64(slot).expect("RAM");
            if at == level {
                cell.set(leaf);
                return slot;
            }
            if cell.get() & pte::V == 0 {
                // The word behind the root's page counts the tables made so far.
                let count = self.ram.cell64(ROOT + 4096).expect("RAM");
                count.bump(1);
                cell.set(build(ROOT + 4096 + count.get() * 4096, pte::V));
            }
            table = (cell.get() >> 10) << 12;
        }
        unreachable!("the loop ends at the level")
    }

    /// Posts a request without waiting.
    pub fn post(&self, hart: usize, ask: Ask) {
        let mail = &self.vm.mmu_mail[hart];
        mail.va.set(ask.va);
        mail.space.set(ask.space);
        mail.access.set(ask.access);
        mail.privilege.set(ask.privilege);
        mail.mstatus.set(ask.mstatus);
        mail.menvcfg.set(ask.menvcfg);
        mail.len.set(ask.len);
        mail.mailbox.post();
        self.vm.party(PartyId::Mmu).doorbell.ring();
    }

    /// Waits for the reply: status and `gpa_flags`.
    pub fn reply(&self, hart: usize) -> (u64, u64) {
        let mail = &self.vm.mmu_mail[hart];
        assert!(mail.mailbox.wait(1000, || true));
        (mail.status.get(), mail.gpa_flags.get())
    }

    /// Posts and waits.
    pub fn ask(&self, hart: usize, ask: Ask) -> (u64, u64) {
        self.post(hart, ask);
        self.reply(hart)
    }

    /// Whether a hart's request is unanswered.
    pub fn pending(&self, hart: usize) -> bool {
        self.vm.mmu_mail[hart].mailbox.pending()
    }

    /// Whether the mmu serves.
    pub fn mmu_runs(&self) -> bool {
        self.vm.party(PartyId::Mmu).status.load(Ordering::SeqCst) == status::RUNNING
    }
}
