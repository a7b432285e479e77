//! `cargo xtask demo`: from nothing to a web server in a guest that answers the host, while it moves to another
//! daemon and back, and over architectures.

use crate::command::{cargo, run};
use crate::tour::{self, Step};
use anyhow::{Context, ensure};
use quasar_tests::stream::{KeepAlive, Stream};
use quasar_tests::{Guest, Host, Recipe, http, images};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Builds all processes, and the images where they are not built yet.
pub fn prepare() -> anyhow::Result<()> {
    // All targets, as the tests build them: the same features, so that nothing is built twice.
    run(cargo().args(["build", "--release", "--workspace", "--all-targets", "--locked"]))?;
    let quasar = quasar_tests::programs::quasar()?;
    // Shows its own progress.
    run(std::process::Command::new(quasar)
        .args(["image", "build", "debian"])
        .stdout(std::process::Stdio::null()))
}

/// One migration.
struct Journey {
    to: &'static str,
    rounds: u64,
    raw_bytes: f64,
    wire_bytes: f64,
    forecast_ms: f64,
    downtime_ms: f64,
    total_ms: f64,
    /// Milliseconds between two looks of the guest at its clock.
    guest_gap_ms: f64,
    /// Between two blocks that the client got.
    client_gap_ms: f64,
}

/// What the demonstration found out.
struct Report {
    journeys: Vec<Journey>,
    tour: Vec<Step>,
    requests: u64,
    blocks: u64,
    boot: Duration,
    guest_seconds: f64,
    answer: Duration,
    url: String,
    page: String,
    stats: Value,
    shutdown: Duration,
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// Millions of instructions per second of the hart's running time.
fn mips(stats: &Value) -> f64 {
    let hart = &stats["harts"][0];
    number(&hart["instructions"]) * 1e3 / number(&hart["run_ns"]).max(1.0)
}

fn mmu_share(stats: &Value) -> f64 {
    let hart = &stats["harts"][0];
    number(&hart["mmu_wait_ns"]) / number(&hart["run_ns"]).max(1.0)
}

fn show(what: &str, value: impl std::fmt::Display) {
    println!("  {what:<22} {value}");
}

impl Report {
    fn print(&self) {
        println!("\nDebian riscv64 on Quasar");
        show(
            "boot to ready",
            format!("{:.1} s ({:.1} s in the guest's time)", self.boot.as_secs_f64(), self.guest_seconds),
        );
        show("speed while booting", format!("{:.0} million instructions per second", mips(&self.stats)));
        let served = number(&self.stats["mmu"]["served"]);
        show(
            "waiting for the mmu",
            format!("{:.1} % of run time, {served:.0} misses served", mmu_share(&self.stats) * 100.0),
        );
        show("HTTP", format!("{} answered after {:.0} ms", self.url, self.answer.as_secs_f64() * 1e3));
        show("", self.page.lines().last().unwrap_or_default().trim());
        show("clean shutdown", format!("{:.1} s after the power key", self.shutdown.as_secs_f64()));
        show("left behind", "nothing");
        println!("\n  process       pid        own memory   with shared memory");
        let mib = |value: &Value| format!("{:.1} MiB", number(value) / f64::from(1 << 20));
        for process in self.stats["processes"].as_array().into_iter().flatten() {
            let role = process["role"].as_str().unwrap_or_default();
            let (own, all) = (mib(&process["private_bytes"]), mib(&process["rss_bytes"]));
            println!("  {role:<13} {:<10} {own:>10}   {all:>10}", process["pid"]);
        }
        self.print_journeys();
        tour::print(&self.tour);
        println!(
            "\nDebian with systemd, on a disk of its own:  target/release/quasar run --image debian-disk"
        );
    }

    fn print_journeys(&self) {
        let (requests, blocks) = (self.requests, self.blocks);
        println!(
            "\n  {requests} requests over one connection and {blocks} checked blocks passed while it moved,"
        );
        println!("  none lost, repeated or changed\n");
        println!(
            "  to           rounds     memory       sent  ratio   forecast   downtime      total  guest's gap  client's gap"
        );
        for j in &self.journeys {
            let mib = f64::from(1 << 20);
            let (raw, wire, ratio) =
                (j.raw_bytes / mib, j.wire_bytes / mib, j.raw_bytes / j.wire_bytes.max(1.0));
            print!("  {:<11} {:>7} {raw:>6.1} MiB {wire:>6.1} MiB {ratio:>6.1}", j.to, j.rounds);
            print!(" {:>7.1} ms {:>7.1} ms {:>7.0} ms", j.forecast_ms, j.downtime_ms, j.total_ms);
            println!(" {:>9.1} ms {:>10.1} ms", j.guest_gap_ms, j.client_gap_ms);
        }
    }

    fn json(&self) -> Value {
        json!({
            "boot_seconds": self.boot.as_secs_f64(),
            "guest_seconds": self.guest_seconds,
            "mips": mips(&self.stats),
            "mmu_share": mmu_share(&self.stats),
            "http": { "url": self.url, "milliseconds": self.answer.as_secs_f64() * 1e3, "body": self.page },
            "shutdown_seconds": self.shutdown.as_secs_f64(),
            "processes": self.stats["processes"],
            "requests": self.requests,
            "blocks": self.blocks,
            "tour": tour::as_json(&self.tour),
            "journeys": self.journeys.iter().map(Journey::json).collect::<Vec<_>>(),
        })
    }
}

impl Journey {
    fn json(&self) -> Value {
        json!({
            "to": self.to,
            "rounds": self.rounds,
            "raw_bytes": self.raw_bytes,
            "wire_bytes": self.wire_bytes,
            "forecast_ms": self.forecast_ms,
            "downtime_ms": self.downtime_ms,
            "total_ms": self.total_ms,
            "guest_gap_ms": self.guest_gap_ms,
            "client_gap_ms": self.client_gap_ms,
        })
    }
}

/// Moves the guest while a client watches.
fn travel<'h>(guest: &mut Guest<'h>, to: &'h Host, name: &'static str) -> anyhow::Result<(Journey, u64)> {
    let stream = Stream::open(guest.port(7000)?)?;
    stream.flows(100)?;
    guest.console.command(": > /tmp/tick; sleep 1")?;
    let events = guest.migrate(to, &[])?;
    stream.flows(100)?;
    let passed = stream.finish()?;
    let gaps = guest.console.command("sleep 2; grep -o 'gap [0-9.]*' /tmp/tick | cut -d' ' -f2")?;
    let guest_gap_ms = gaps.lines().filter_map(|line| line.trim().parse().ok()).fold(0.0, f64::max);
    let done = events.last().filter(|event| event["event"] == "completed").context("the last event")?;
    let rounds = events.iter().filter(|event| event["event"] == "round");
    let journey = Journey {
        to: name,
        rounds: done["rounds"].as_u64().unwrap_or(0),
        raw_bytes: rounds.map(|round| number(&round["raw_bytes"])).sum(),
        wire_bytes: number(&done["wire_bytes"]),
        forecast_ms: number(&done["forecast_us"]) / 1e3,
        downtime_ms: number(&done["downtime_us"]) / 1e3,
        total_ms: number(&done["total_us"]) / 1e3,
        guest_gap_ms,
        client_gap_ms: passed.longest_gap.as_secs_f64() * 1e3,
    };
    Ok((journey, passed.sent + passed.received))
}

fn attend<'h>(
    home: &'h Host,
    abroad: &'h Host,
    foreign: &'h Host,
    mut guest: Guest<'h>,
    start: Instant,
) -> anyhow::Result<Report> {
    let observed = (|| {
        guest.console.expect("GUEST READY ")?;
        let boot = start.elapsed();
        let uptime = guest.console.expect("\r\n")?;
        let guest_seconds = uptime.trim().parse().with_context(|| format!("an uptime of {uptime:?}"))?;
        let stats = home.json(&["stats", &guest.name, "--json"])?;
        guest.console.expect(quasar_tests::guest::PROMPT)?;
        eprintln!("the guest is ready; asking its web server");
        let port = guest.port(80)?;
        let start = Instant::now();
        let page = String::from_utf8_lossy(&http::get_patiently(port, "/")?).into_owned();
        let answer = start.elapsed();
        ensure!(page.contains("riscv64 guest"), "the web server answered {page:?}");
        guest.check_stream(7000)?;
        guest.console.command("(/bench/tick > /tmp/tick &)")?;
        let client = KeepAlive::open(port, "/1k.bin")?;
        let (mut journeys, mut blocks) = (vec![], 0);
        for (to, name) in [(abroad, "neighbour"), (home, "home again")] {
            eprintln!("moving it: {name}");
            let (journey, passed) = travel(&mut guest, to, name)?;
            journeys.push(journey);
            blocks += passed;
        }
        let tour = tour::tour(&mut guest, home, foreign)?;
        let (requests, _) = client.finish()?;
        eprintln!("pressing the power key");
        let start = Instant::now();
        guest.power_key()?;
        let url = format!("http://127.0.0.1:{port}/");
        let shutdown = start.elapsed();
        Ok(Report {
            journeys,
            tour,
            requests,
            blocks,
            boot,
            guest_seconds,
            answer,
            url,
            page,
            stats,
            shutdown,
        })
    })();
    guest.explain(observed)
}

/// Boots a guest, asks its web server, moves it there and back, shuts it down, and sees that nothing is left.
pub fn demo(as_json: bool) -> anyhow::Result<()> {
    prepare()?;
    tour::prepare()?;
    images::images()?;
    eprintln!("starting three daemons, and a guest at one of them; its boot takes some ten seconds");
    let home = Host::listening()?;
    let abroad = home.neighbour()?;
    let foreign = home.foreign_neighbour(tour::HOST)?;
    let recipe = Recipe::initramfs("demo")?.append("quiet").publish(80)?.publish(7000)?;
    let start = Instant::now();
    let guest = recipe.start(&home)?;
    let report = attend(&home, &abroad, &foreign, guest, start)?;
    // Fails when a process, a segment or a socket is left.
    home.stop()?;
    abroad.stop()?;
    foreign.stop()?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        report.print();
    }
    Ok(())
}
