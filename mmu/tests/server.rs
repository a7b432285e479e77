//! A hart in one thread, the server in another, real segments between them.

mod common;

use common::pte::build;
use common::vm::{Ask, RAM_BYTES, ROOT, SATP, TestVm};
use quasar_abi::hart_mmu::mmu_status::{ACCESS_FAULT, OK, ONCE, PAGE_FAULT};
use quasar_abi::machine::{RAM_BASE, UART};
use quasar_abi::party::{PartyId, attention};
use quasar_abi::tlb::{access, flag, space};
use quasar_mmu::walk::pte;
use quasar_mmu::{AttachError, Server};
use std::sync::atomic::{AtomicBool, Ordering};

const RWX: u64 = pte::V | pte::R | pte::W | pte::X;
const USED: u64 = pte::A | pte::D;
/// A page of RAM for data.
const DATA: u64 = RAM_BASE + 0x40_0000;

/// Runs `hart` against a server.
fn served(vm: &TestVm, hart: impl FnOnce()) {
    let server = Server::attach(&vm.grants).expect("attach");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| server.run(&stop));
        // The server ends even when the hart's half panics, so that the panic is what one sees.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(hart));
        stop.store(true, Ordering::Relaxed);
        vm.vm.party(PartyId::Mmu).doorbell.ring();
        thread.join().expect("server");
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn untranslated_accesses_are_kept_large() {
    let vm = TestVm::new(1);
    served(&vm, || {
        for (ask, key) in [
            (Ask::machine(DATA + 8, access::WRITE), space::MACHINE),
            (Ask::bare(DATA + 8, access::FETCH), space::BARE),
            (Ask { privilege: 0, ..Ask::bare(DATA + 8, access::READ) }, space::BARE),
        ] {
            let (status, flags) = vm.ask(0, ask);
            assert_eq!((status, flags & flag::GPA), (OK, DATA));
            let far = RAM_BASE + RAM_BYTES - 8;
            let found = vm.cache(0).probe(far, key, flag::D).expect("a gigabyte in one entry");
            assert_eq!(found & flag::GPA, far & !0xfff);
        }
        assert_eq!(vm.ask(0, Ask::machine(RAM_BASE - 8, access::READ)).0, ACCESS_FAULT);
        assert_eq!(vm.ask(0, Ask::machine(RAM_BASE + RAM_BYTES, access::READ)).0, ACCESS_FAULT);
        assert_eq!(vm.ask(0, Ask::machine(u64::MAX, access::READ)).0, ACCESS_FAULT);
    });
}

#[test]
fn device_registers_are_marked_and_not_executed() {
    let vm = TestVm::new(1);
    vm.map(0x7000, 0, build(UART.base, RWX | USED));
    served(&vm, || {
        for ask in [Ask::machine(UART.base, access::READ), Ask::write(0x7000)] {
            let (status, flags) = vm.ask(0, ask);
            assert_eq!((status, flags & flag::GPA), (OK, UART.base));
            assert_eq!(flags & (flag::IO | flag::PMP_X), flag::IO);
            assert_eq!(vm.ask(0, Ask { access: access::FETCH, ..ask }).0, ACCESS_FAULT);
        }
        assert_eq!(vm.ask(0, Ask::machine(0x5000_0000, access::READ)).0, ACCESS_FAULT, "nothing is there");
    });
}

#[test]
fn a_miss_brings_its_neighbours() {
    let vm = TestVm::new(1);
    let page = |n: u64| 0x4000_0000 + n * 4096;
    for n in 0..32 {
        let bits = match n {
            // Not accessed, invalid, read-only, clean, out of RAM: only what the guest uses is granted.
            1 => RWX,
            2 => 0,
            3 => pte::V | pte::R | pte::A,
            4 => RWX | pte::A,
            _ => RWX | USED,
        };
        let gpa = if n == 5 { 0x4000_0000 } else { DATA + n * 4096 };
        vm.map(page(n), 0, build(gpa, bits));
    }
    served(&vm, || {
        assert_eq!(vm.ask(0, Ask::read(page(9) + 0x123)).0, OK);
        let probe = |n| vm.cache(0).probe(page(n), SATP, 0);
        for n in 0..32 {
            let wanted = !matches!(n, 1 | 2 | 5) && n < 16;
            assert_eq!(probe(n).is_some(), wanted, "page {n}");
            if let Some(flags) = probe(n) {
                assert_eq!(flags & flag::GPA, DATA + n * 4096);
                assert_eq!(flags & flag::D != 0, !matches!(n, 3 | 4), "page {n}");
            }
        }
        assert_eq!(vm.vm.mmu_counters.neighbours.get(), 12);
        assert_eq!(vm.vm.mmu_counters.served.get(), 1);
        assert_eq!(vm.ask(0, Ask::read(page(2))).0, PAGE_FAULT);
        assert_eq!(vm.ask(0, Ask::read(page(5))).0, ACCESS_FAULT);
        assert_eq!(vm.ask(0, Ask::write(page(3))).0, PAGE_FAULT);
        let (status, flags) = vm.ask(0, Ask::write(page(4)));
        assert_eq!((status, flags & flag::D), (OK, flag::D));
        assert!(vm.cache(0).probe(page(4), SATP, flag::D).is_some(), "replaced, not doubled");
        assert_eq!(vm.vm.mmu_counters.ad_updates.get(), 1);
    });
}

#[test]
fn superpages_stay_one_entry_and_shrink_where_they_must() {
    let vm = TestVm::new(1);
    vm.map(0x4000_0000, 1, build(DATA, RWX | USED));
    // A gigabyte that starts at RAM and one that starts below it: the second is RAM in parts.
    vm.map(0x8000_0000, 2, build(RAM_BASE, RWX | USED));
    let hole = RAM_BASE + RAM_BYTES;
    vm.map(0xc000_0000, 2, build(hole, RWX | USED));
    served(&vm, || {
        assert_eq!(vm.ask(0, Ask::read(0x4000_5000)).0, OK);
        let found = vm.cache(0).probe(0x401f_f000, SATP, flag::D).expect("2 MiB");
        assert_eq!(found & flag::GPA, DATA + 0x1f_f000);
        assert_eq!(vm.ask(0, Ask::read(0x8000_5000)).0, OK);
        assert!(vm.cache(0).probe(0xbfff_f000, SATP, flag::D).is_some(), "1 GiB");
        assert_eq!(vm.ask(0, Ask::read(0xc000_0000)).0, ACCESS_FAULT);
        assert_eq!(vm.cache(0).fractured.get(), 0);
        // PMP that ends inside leaves 2 MiB of the gigabyte, and the hart is told that there are parts.
        let pmp = &vm.vm.pmp[0];
        pmp.cfg[0].set(0x0f);
        pmp.addr[0].set((RAM_BASE + 0x60_0000) >> 2);
        vm.cache(0).flush_all();
        assert_eq!(vm.ask(0, Ask::read(0x8020_0000)).0, OK);
        assert!(vm.cache(0).probe(0x803f_f000, SATP, 0).is_some());
        assert!(vm.cache(0).probe(0x8040_0000, SATP, 0).is_none());
        assert_eq!(vm.cache(0).fractured.get(), 1);
        assert_eq!(vm.ask(0, Ask::read(0x8060_0000)).0, ACCESS_FAULT);
    });
}

#[test]
fn pages_that_pmp_splits_are_allowed_once() {
    let vm = TestVm::new(1);
    vm.map(0x7000, 0, build(DATA, RWX | USED));
    let pmp = &vm.vm.pmp[0];
    // Entry 0: read-only up to the middle of the page; entry 1: everything else.
    pmp.cfg[0].set(0x1f00 | 0x09);
    pmp.addr[0].set((DATA + 0x800) >> 2);
    pmp.addr[1].set((1 << 54) - 1);
    served(&vm, || {
        // The tables lie below DATA and so are read-only too: no A or D update is needed here.
        assert_eq!(vm.ask(0, Ask::read(0x7000)).0, ONCE);
        assert_eq!(vm.ask(0, Ask::write(0x7000)).0, ACCESS_FAULT);
        let (status, flags) = vm.ask(0, Ask::write(0x7800));
        assert_eq!((status, flags & flag::GPA), (ONCE, DATA));
        assert_eq!(vm.ask(0, Ask::read(0x77fc)).0, ACCESS_FAULT, "across the border");
        assert_eq!(vm.ask(0, Ask { len: 4, ..Ask::read(0x77fc) }).0, ONCE);
        assert!(vm.cache(0).probe(0x7000, SATP, 0).is_none());
        let (status, _) = vm.ask(0, Ask::machine(DATA, access::WRITE));
        assert_eq!(status, ONCE, "entries that aren't locked let M-mode through, but the page is split");
    });
}

#[test]
fn tables_under_pmp_fault_as_the_access() {
    let vm = TestVm::new(1);
    let slot = vm.map(0x7000, 0, build(DATA, RWX));
    let pmp = &vm.vm.pmp[0];
    // The leaf table may be read and not written.
    pmp.cfg[0].set(0x1f00 | 0x19);
    pmp.addr[0].set(((slot & !0xfff) >> 2) | 0x1ff);
    pmp.addr[1].set((1 << 54) - 1);
    served(&vm, || {
        assert_eq!(vm.ask(0, Ask::read(0x7000)).0, ACCESS_FAULT, "A cannot be set");
        vm.ram.cell64(slot).expect("RAM").set(build(DATA, RWX | USED));
        assert_eq!(vm.ask(0, Ask::read(0x7000)).0, OK);
        assert_eq!(vm.ask(0, Ask { space: (8 << 60) | 1, ..Ask::read(0x7000) }).0, ACCESS_FAULT, "no RAM");
    });
}

#[test]
fn senseless_requests_get_access_faults() {
    let vm = TestVm::new(1);
    vm.map(0x7000, 0, build(DATA, RWX | USED));
    let good = Ask::read(0x7000);
    served(&vm, || {
        for bad in [
            Ask { access: 3, ..good },
            Ask { access: u64::MAX, ..good },
            Ask { privilege: 2, ..good },
            Ask { privilege: 3, ..good },
            Ask { privilege: 3, space: space::BARE, ..good },
            Ask { space: space::MACHINE, ..good },
            Ask { space: 11 << 60, ..good },
            Ask { space: 1, ..good },
        ] {
            assert_eq!(vm.ask(0, bad).0, ACCESS_FAULT, "{bad:?}");
        }
        for len in [0, 1, 4096, u64::MAX] {
            assert_eq!(vm.ask(0, Ask { len, ..good }).0, OK);
        }
    });
}

/// Garbage in requests and tables: an answer every time, and an honest request is served after it.
#[test]
fn noise_is_answered() {
    let vm = TestVm::new(1);
    vm.map(0x7000, 0, build(DATA, RWX | USED));
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let noise = RAM_BASE + 0x100_0000;
    for word in 0..4096 {
        // Half of the pointers lead back into the noise.
        let value =
            if random() & 1 == 0 { random() } else { build(noise + (random() & 7) * 4096, random() & 0xff) };
        vm.ram.cell64(noise + word * 8).expect("RAM").set(value);
    }
    served(&vm, || {
        for _ in 0..20_000 {
            let satp = (8 + random() % 3) << 60 | noise >> 12;
            let ask = Ask {
                va: if random() & 3 == 0 { random() } else { random() & 0x1f_ffff },
                space: if random() & 7 == 0 { random() } else { satp },
                access: random() & 3,
                privilege: random() & 3,
                mstatus: random(),
                menvcfg: random(),
                len: random() >> (random() & 63),
            };
            assert!(vm.ask(0, ask).0 <= ONCE, "{ask:?}");
        }
        vm.cache(0).flush_all();
        assert_eq!(vm.ask(0, Ask::read(0x7000)).0, OK);
    });
}

#[test]
fn absent_pages_hold_up_their_hart_alone() {
    let vm = TestVm::new(2);
    let slot = vm.map(0x7000, 0, build(DATA, RWX | USED));
    vm.map(0x8000, 0, build(DATA + 4096, RWX | USED));
    vm.map(0x4000_0000, 1, build(DATA, RWX | USED));
    vm.vm.residency_active.set(1);
    for gpa in (ROOT..ROOT + 0x1_0000).step_by(4096) {
        vm.maps.set_resident(gpa, true);
    }
    vm.maps.set_resident(DATA + 4096, true);
    served(&vm, || {
        vm.post(0, Ask::read(0x7000));
        assert_eq!(vm.ask(1, Ask::read(0x8000)).0, OK);
        assert!(vm.pending(0), "the page has not arrived");
        assert!(vm.cache(1).probe(0x7000, SATP, 0).is_none(), "nor is it granted as a neighbour");
        assert_eq!(vm.ask(1, Ask::read(0x4000_1000)).0, OK);
        assert!(vm.cache(1).probe(0x4000_0000, SATP, 0).is_none(), "nor inside a superpage");
        vm.maps.set_resident(DATA, true);
        assert_eq!(vm.reply(0).0, OK);
        // A page table that is absent is waited for as well.
        vm.maps.set_resident(slot, false);
        vm.post(0, Ask::read(0x7000));
        assert_eq!(vm.ask(1, Ask::machine(DATA, access::READ)).0, OK);
        assert!(vm.pending(0));
        vm.maps.set_resident(slot, true);
        assert_eq!(vm.reply(0).0, OK);
    });
}

#[test]
fn a_parked_hart_is_served_when_it_goes_on() {
    let vm = TestVm::new(2);
    let slot = vm.map(0x7000, 0, build(DATA, RWX));
    vm.vm.park(PartyId::Hart(0));
    served(&vm, || {
        vm.post(0, Ask::write(0x7000));
        assert_eq!(vm.ask(1, Ask::machine(DATA, access::READ)).0, OK);
        assert!(vm.pending(0));
        assert_eq!(vm.ram.cell64(slot).expect("RAM").get() & USED, 0, "nothing changes while it is at rest");
        assert!(vm.vm.try_run(PartyId::Hart(0)));
        assert_eq!(vm.reply(0).0, OK, "without another ring");
    });
}

#[test]
fn the_next_server_answers_what_was_left() {
    let vm = TestVm::new(1);
    served(&vm, || assert_eq!(vm.ask(0, Ask::machine(DATA, access::READ)).0, OK));
    assert!(!vm.mmu_runs());
    vm.post(0, Ask::machine(DATA, access::READ));
    served(&vm, || {
        assert_eq!(vm.reply(0).0, OK);
        let party = vm.vm.party(PartyId::Mmu);
        assert_eq!(party.generation.get(), 2);
        assert_eq!(party.pid.get(), std::process::id());
    });
    // Attention ends it too.
    let server = Server::attach(&vm.grants).expect("attach");
    vm.vm.party(PartyId::Mmu).call(attention::STOP);
    server.run(&AtomicBool::new(false));
    assert!(!vm.mmu_runs());
}

#[test]
fn segments_that_do_not_belong_together_are_refused() {
    let vm = TestVm::new(1);
    vm.vm.ram_bytes.set(RAM_BYTES / 2);
    assert!(matches!(Server::attach(&vm.grants), Err(AttachError::RamSize { .. })));
    vm.vm.ram_bytes.set(RAM_BYTES);
    vm.vm.harts.set(17);
    assert!(matches!(Server::attach(&vm.grants), Err(AttachError::Harts(17))));
    vm.vm.harts.set(1);
    let mut mixed = vm.grants.clone();
    mixed.tlb = vm.grants.maps.clone();
    assert!(matches!(Server::attach(&mixed), Err(AttachError::Segment(_))));
}

#[test]
fn what_is_not_cached_says_which_entries_it_follows_from() {
    const ADUE: u64 = 1 << 61;
    let vm = TestVm::new(1);
    let va = 0x4000_0000;
    let slot = vm.map(va, 0, build(DATA, pte::V | pte::R | pte::W));
    // PMP splits the page: the first half is everybody's, as is all else, under another entry.
    let pmp = &vm.vm.pmp[0];
    pmp.addr[0].set(DATA >> 2 | 0x1ff >> 1);
    pmp.addr[1].set((1 << 54) - 1);
    pmp.cfg[0].set(0x1f19);
    let mail = &vm.vm.mmu_mail[0];
    let steps = || {
        let count = usize::try_from(mail.step_count.get()).expect("few");
        mail.steps[..count].iter().map(|step| (step.gpa.get(), step.value.get())).collect::<Vec<_>>()
    };
    let now = |gpa: u64| vm.ram.cell64(gpa).expect("RAM").get();
    served(&vm, || {
        assert_eq!(vm.ask(0, Ask::paged(va, access::FETCH)).0, PAGE_FAULT);
        let told = steps();
        assert_eq!(told.iter().map(|(gpa, _)| *gpa).collect::<Vec<_>>(), [ROOT + 8, ROOT + 8192, slot]);
        assert!(told.iter().all(|(gpa, value)| now(*gpa) == *value));
        // What the walk has changed itself is told as it is now.
        let ask = Ask { menvcfg: ADUE, len: 8, ..Ask::paged(va, access::READ) };
        assert_eq!(vm.ask(0, ask).0, ONCE);
        assert_eq!(steps(), [told[0], told[1], (slot, told[2].1 | pte::A)]);
        assert_eq!(vm.ask(0, Ask::paged(va + (1 << 30), access::READ)).0, PAGE_FAULT);
        assert_eq!(steps(), [(ROOT + 16, 0)]);
        assert_eq!(vm.ask(0, Ask::machine(0, access::READ)).0, ACCESS_FAULT);
        assert_eq!(steps(), []);
    });
}
