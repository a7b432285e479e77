//! What the demonstration found out, as a text and as JSON.

use crate::kills::{self, Kill};
use serde_json::{Value, json};
use std::time::Duration;

/// One migration.
pub struct Journey {
    /// Where to.
    pub to: &'static str,
    /// Of memory.
    pub rounds: u64,
    /// Of memory, as they were.
    pub raw_bytes: f64,
    /// As they were sent.
    pub wire_bytes: f64,
    /// The downtime that was foretold.
    pub forecast_ms: f64,
    /// The one that was measured.
    pub downtime_ms: f64,
    /// All of it.
    pub total_ms: f64,
    /// Milliseconds between two looks of the guest at its clock.
    pub guest_gap_ms: f64,
    /// Between two blocks that the client got.
    pub client_gap_ms: f64,
}

/// What the demonstration found out.
pub struct Report {
    /// The migrations.
    pub journeys: Vec<Journey>,
    /// The processes that were killed.
    pub kills: Vec<Kill>,
    /// Over one connection while it moved.
    pub requests: u64,
    /// Of the checked stream.
    pub blocks: u64,
    /// Until the shell was there.
    pub boot: Duration,
    /// The same in its own time.
    pub guest_seconds: f64,
    /// Until the web server answered.
    pub answer: Duration,
    /// Of that.
    pub url: String,
    /// What it answered.
    pub page: String,
    /// After the boot.
    pub stats: Value,
    /// After the power key.
    pub shutdown: Duration,
}

/// A JSON number; 0 for anything else.
pub fn number(value: &Value) -> f64 {
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
    /// Shows it.
    pub fn print(&self) {
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
        kills::print(&self.kills);
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

    /// It as JSON.
    pub fn json(&self) -> Value {
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
            "kills": kills::as_json(&self.kills),
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
