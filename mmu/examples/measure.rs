//! What translations cost: an L2 hit, a walk, a miss answered by the mmu process.
//!
//! `cargo build --release -p quasar-mmu && cargo run --release -p quasar-mmu --example measure`.
//! The figures go into docs/adr/0001-l2-translation-cache.md.

#[path = "../tests/common/mod.rs"]
mod common;

use anyhow::{Context, Result, ensure};
use common::pte::build;
use common::vm::{Ask, SATP, TestVm};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use quasar_abi::control::mmu::{Mmu, MmuCommand};
use quasar_abi::control::{Event, Parent, Transport};
use quasar_abi::doorbell::default_spins;
use quasar_abi::hart_mmu::mmu_status;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::tlb::access;
use quasar_mmu::fill::TlbFiller;
use quasar_mmu::pmp::{Pmp, PmpWords};
use quasar_mmu::request::Request;
use quasar_mmu::walk::pte;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const DATA: u64 = RAM_BASE + 0x100_0000;
const VA: u64 = 0x4000_0000;
const PAGES: u64 = 8192;

fn main() -> Result<()> {
    let vm = TestVm::new(1);
    let bits = pte::V | pte::R | pte::W | pte::A | pte::D;
    for n in 0..PAGES {
        vm.map(VA + n * 4096, 0, build(DATA + n * 4096, bits));
    }
    vm.map(0x8000_0000, 1, build(RAM_BASE, bits));
    println!("spins before sleeping: {}", default_spins());
    in_this_process(&vm);
    across_processes(&vm)
}

/// Nanoseconds per call.
fn each(calls: u32, mut call: impl FnMut(u32)) -> f64 {
    let begin = Instant::now();
    for n in 0..calls {
        call(n);
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn report(what: &str, nanoseconds: f64) {
    println!("{what:<58} {nanoseconds:>10.1} ns");
}

fn in_this_process(vm: &TestVm) {
    let tlb = vm.cache(0);
    let pmp = Pmp::new(PmpWords::of(&vm.vm.pmp[0]));
    let filler = TlbFiller { ram: &vm.ram, maps: &vm.maps, control: &vm.vm, tlb, pmp: &pmp };
    let mail = &vm.vm.mmu_mail[0];
    let ask = Ask::read(VA);
    mail.space.set(ask.space);
    mail.access.set(ask.access);
    mail.privilege.set(ask.privilege);
    mail.menvcfg.set(ask.menvcfg);
    mail.len.set(ask.len);
    let answer = |va: u64| {
        mail.va.set(va);
        Request::try_from(mail).map(|request| filler.answer(&request))
    };
    let walks = each(200_000, |n| {
        black_box(answer(VA + u64::from(n) % PAGES * 4096)).ok();
    });
    report("walk and fill, 4 KiB page and 15 neighbours, no messages", walks);
    let large = each(200_000, |_| {
        black_box(answer(0x8000_0000)).ok();
    });
    report("walk and fill, 2 MiB page, no messages", large);
    for (what, pages) in [("one page", 1), ("256 pages", 256), ("4096 pages", 4096)] {
        for n in 0..pages {
            black_box(answer(VA + n * 4096)).ok();
        }
        let mut va = 0u64;
        let hits = each(5_000_000, |_| {
            va = (va + 1237) % pages;
            black_box(tlb.probe(VA + va * 4096, SATP, 0));
        });
        report(&format!("L2 hit, 4 KiB entries, {what}"), hits);
    }
    let hits = each(5_000_000, |n| {
        black_box(tlb.probe(0x8000_0000 + (u64::from(n) * 1237 % 512) * 4096, SATP, 0));
    });
    report("L2 hit, 2 MiB entry", hits);
    tlb.flush_all();
    let misses = each(5_000_000, |n| {
        black_box(tlb.probe(VA + (u64::from(n) * 1237 % PAGES) * 4096, SATP, 0));
    });
    report("L2 probe that finds nothing", misses);
}

fn across_processes(vm: &TestVm) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("../quasar-mmu");
    let (parent, theirs) = Parent::new()?;
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut child = std::process::Command::new(&program)
        .args([
            "--control-fd",
            &theirs.as_raw_fd().to_string(),
            "--transport",
            &Transport::Socket.to_string(),
        ])
        .spawn()
        .with_context(|| format!("{}: build it first, with the same profile", program.display()))?;
    drop(theirs);
    let patience = Some(Duration::from_secs(10));
    let (_, mut commands, events) = parent.greet::<Mmu>(patience)?.context("no hello")?;
    commands.send(MmuCommand::Start { grants: vm.grants.clone() })?;
    let event = events.recv(patience)?.context("no answer")?;
    ensure!(matches!(event, Event::Done { .. }), "{event:?}");
    requests(vm);
    let idle = cpu_ticks(child.id())?;
    std::thread::sleep(Duration::from_secs(2));
    println!("CPU time used while idle for 2 s: {} ms", (cpu_ticks(child.id())? - idle) * 10);
    commands.send(MmuCommand::Shutdown)?;
    ensure!(child.wait()?.success(), "the mmu did not end cleanly");
    Ok(())
}

fn requests(vm: &TestVm) {
    let spins = default_spins();
    let ask = |ask: Ask| {
        let begin = Instant::now();
        vm.post(0, ask);
        assert!(vm.vm.mmu_mail[0].mailbox.wait(spins, || true));
        let took = begin.elapsed();
        assert_eq!(vm.vm.mmu_mail[0].status.get(), mmu_status::OK);
        took
    };
    type Ready = fn();
    let cases: [(&str, u64, Ready); 4] = [
        ("4 KiB page and neighbours", VA, || {}),
        ("2 MiB page", 0x8000_0000, || {}),
        ("4 KiB page, 0.2 ms after the last", VA, || std::thread::sleep(Duration::from_micros(200))),
        ("4 KiB page, 5 ms after the last", VA, || std::thread::sleep(Duration::from_millis(5))),
    ];
    for (index, (what, va, ready)) in cases.into_iter().enumerate() {
        let count = if index < 2 { 100_000 } else { 400 };
        let mut times: Vec<Duration> = (0..count)
            .map(|_| {
                ready();
                ask(Ask::read(va))
            })
            .collect();
        times.sort_unstable();
        let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e9;
        println!(
            "miss, {what:<52} median {:>8.0} p99 {:>8.0} mean {:>8.0} ns",
            at(50),
            at(99),
            times.iter().sum::<Duration>().as_secs_f64() * 1e9 / f64::from(count)
        );
    }
    vm.cache(0).flush_all();
    let before = vm.vm.mmu_counters.served.get();
    let begin = Instant::now();
    for n in 0..PAGES {
        let va = VA + n * 4096;
        if vm.cache(0).probe(va, SATP, 0).is_none() {
            ask(Ask::paged(va, access::READ));
        }
    }
    let (took, sent) = (begin.elapsed(), vm.vm.mmu_counters.served.get() - before);
    report(
        &format!("per page, {PAGES} cold pages in order ({sent} messages)"),
        took.as_secs_f64() * 1e9 / 8192.0,
    );
    let counters = &vm.vm.mmu_counters;
    let served = counters.served.get().max(1);
    println!(
        "served {served}, busy {} ns each, sleeps {}",
        counters.busy_ns.get() / served,
        counters.sleeps.get()
    );
}

/// utime + stime of a process in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
