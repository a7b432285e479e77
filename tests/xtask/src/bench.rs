//! `cargo xtask bench`: Quasar and QEMU's TCG, one after the other, on the same kernel and initramfs.

use crate::demo;
use crate::load::Busy;
use crate::peers::{Peer, Qemu, Quasar, Waits};
use anyhow::{Context, ensure};
use quasar_tests::http;
use quasar_tests::process::output;
use std::process::Command;
use std::time::Instant;

/// The benchmark set with arguments for all of it and for `--quick`; see `tests/guest/bench/`.
const PROGRAMS: &[(&str, &str, Option<&str>)] = &[
    ("sha256", "", Some("8")),
    ("sort", "", None),
    ("sieve", "", Some("4")),
    ("dhry", "", Some("1")),
    ("interp", "", None),
    ("fib", "", Some("29")),
    ("matmul", "", Some("2")),
    ("mandel", "", None),
    ("nbody", "", None),
    ("memcpy", "", None),
    ("triad", "", None),
    ("chase", "", None),
    ("getpid", "", Some("0.2")),
    ("pingpong", "", Some("5")),
    ("forkexec", "", Some("100")),
    ("fault", "", Some("4")),
];
/// Files of the web server.
const FILES: &[&str] = &["1k.bin", "100k.bin"];

/// One line of the benchmark set.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    seconds: f64,
    sum: String,
    waits: Waits,
}

/// What was measured on one peer.
struct Run {
    boot: f64,
    boot_waits: Waits,
    programs: Vec<Measured>,
    requests: Vec<f64>,
}

/// Reads `name work unit seconds s rate unit/s sum=…`.
fn parse(name: &'static str, text: &str) -> anyhow::Result<Measured> {
    let line = text
        .lines()
        .find(|line| line.contains("sum="))
        .with_context(|| format!("{name} printed {text:?}"))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let seconds =
        words.iter().position(|word| *word == "s").and_then(|at| words.get(at.checked_sub(1)?)?.parse().ok());
    let sum = words.last().copied().unwrap_or_default().to_owned();
    let seconds = seconds.with_context(|| format!("{name} printed {line:?}"))?;
    Ok(Measured { name, seconds, sum, waits: Waits::default() })
}

/// Requests per second that `wrk` counts.
fn load(port: u16, file: &str, seconds: u32) -> anyhow::Result<f64> {
    let url = format!("http://127.0.0.1:{port}/{file}");
    let text =
        output(Command::new("wrk").args(["-t1", "-c4", "--timeout", "60s", &format!("-d{seconds}s"), &url]))?;
    ensure!(!text.contains("Non-2xx"), "wrk met errors:\n{text}");
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    rate.with_context(|| format!("wrk printed {text}"))
}

fn measure(peer: &mut impl Peer, quick: bool, start: Instant) -> anyhow::Result<Run> {
    peer.console().expect("GUEST READY ")?;
    let boot = start.elapsed().as_secs_f64();
    let waits = |peer: &dyn Peer| Ok::<_, anyhow::Error>(peer.mmu_waits()?.unwrap_or_default());
    let boot_waits = waits(peer)?;
    peer.console().expect(quasar_tests::guest::PROMPT)?;
    eprintln!("  booted in {boot:.1} s");
    let mut programs = vec![];
    for (name, all, short) in PROGRAMS {
        let Some(arguments) = (if quick { *short } else { Some(*all) }) else { continue };
        let before = waits(peer)?;
        let text = peer.console().command(format!("/bench/{name} {arguments}").trim_end())?;
        let measured = Measured { waits: waits(peer)?.since(before), ..parse(name, &text)? };
        eprintln!("  {name:<10} {:>8.2} s", measured.seconds);
        programs.push(measured);
    }
    let port = peer.port();
    http::get_patiently(port, "/")?;
    let mut requests = vec![];
    for file in FILES {
        let rate = load(port, file, if quick { 3 } else { 10 })?;
        eprintln!("  {file:<10} {rate:>8.0} requests/s");
        requests.push(rate);
    }
    Ok(Run { boot, boot_waits, programs, requests })
}

fn mean(ratios: &[f64]) -> f64 {
    let count = u32::try_from(ratios.len()).unwrap_or(u32::MAX);
    (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / f64::from(count)).exp()
}

/// Ratios above 1 say that Quasar is faster.
fn print(quasar: &Run, qemu: &Run) {
    println!("\n| | Quasar | QEMU TCG | Quasar's speed / QEMU's |\n|---|---|---|---|");
    println!("| boot to ready, s | {:.1} | {:.1} | {:.2} |", quasar.boot, qemu.boot, qemu.boot / quasar.boot);
    let mut ratios = vec![];
    for (ours, theirs) in quasar.programs.iter().zip(&qemu.programs) {
        let ratio = theirs.seconds / ours.seconds;
        println!("| {}, s | {:.2} | {:.2} | {ratio:.2} |", ours.name, ours.seconds, theirs.seconds);
        ratios.push(ratio);
    }
    println!("| geometric mean of the programs | | | {:.2} |", mean(&ratios));
    for (file, (ours, theirs)) in FILES.iter().zip(quasar.requests.iter().zip(&qemu.requests)) {
        println!("| HTTP {file}, requests/s | {ours:.0} | {theirs:.0} | {:.2} |", ours / theirs);
    }
}

/// How Quasar's hart waited for the mmu process.
fn print_waits(quasar: &Run) {
    println!("\n| | s | of it waiting for the mmu | requests | µs each |\n|---|---|---|---|---|");
    let row = |name: &str, seconds: f64, Waits { requests, ns }: Waits| {
        let waited = std::time::Duration::from_nanos(ns);
        let each = waited.as_secs_f64() * 1e6 / f64::from(u32::try_from(requests.max(1)).unwrap_or(u32::MAX));
        println!("| {name} | {seconds:.2} | {:.2} | {requests} | {each:.1} |", waited.as_secs_f64());
    };
    row("boot", quasar.boot, quasar.boot_waits);
    quasar.programs.iter().for_each(|program| row(program.name, program.seconds, program.waits));
}

/// Measures both and prints a Markdown table; with every processor busy besides, another one of what that costs.
pub fn bench(quick: bool, busy: bool) -> anyhow::Result<()> {
    demo::prepare()?;
    let _busy = busy.then(Busy::everywhere);
    eprintln!("Quasar");
    let start = Instant::now();
    let (host, guest) = Quasar::host()?;
    let start_guest = Instant::now();
    let mut peer = Quasar::start(&host, guest)?;
    let quasar = measure(&mut peer, quick, start_guest);
    let quasar = peer.explain(quasar)?;
    drop(peer);
    host.stop()?;
    eprintln!("QEMU");
    let start_guest = Instant::now();
    let mut peer = Qemu::start()?;
    let qemu = measure(&mut peer, quick, start_guest)?;
    drop(peer);
    for (ours, theirs) in quasar.programs.iter().zip(&qemu.programs) {
        let name = ours.name;
        ensure!(ours.sum == theirs.sum, "{name} computed {} on Quasar and {} on QEMU", ours.sum, theirs.sum);
    }
    print(&quasar, &qemu);
    if busy {
        print_waits(&quasar);
    }
    eprintln!("measured in {:.0} s; all checksums are equal", start.elapsed().as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_benchmarks_line_is_read() {
        let line = "sha256         67108864 byte       1.1502 s       58345212 byte/s  sum=00000000deadbeef";
        let measured = parse("sha256", line).expect("a good line");
        assert!((measured.seconds - 1.1502).abs() < 1e-9, "{measured:?}");
        assert_eq!(measured.sum, "sum=00000000deadbeef");
        assert!(parse("sha256", "Killed").is_err());
        assert!(parse("sha256", "sum=1").is_err());
    }

    #[test]
    fn the_mean_of_ratios_is_geometric() {
        assert!((mean(&[0.5, 2.0]) - 1.0).abs() < 1e-12);
        assert!((mean(&[4.0, 1.0]) - 2.0).abs() < 1e-12);
    }
}
