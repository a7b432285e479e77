//! `cargo xtask demo`: from nothing to a web server in a guest that answers the host.

use crate::command::{cargo, run};
use anyhow::{Context, ensure};
use quasar_tests::{Guest, Host, Recipe, http, images};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Builds all processes, and the images where they are not built yet.
pub fn prepare() -> anyhow::Result<()> {
    run(cargo().args(["build", "--release", "--workspace", "--locked"]))?;
    let quasar = quasar_tests::programs::quasar()?;
    // Shows its own progress.
    run(std::process::Command::new(quasar)
        .args(["image", "build", "debian"])
        .stdout(std::process::Stdio::null()))
}

/// What the demonstration found out.
struct Report {
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
        println!(
            "\nDebian with systemd, on a disk of its own:  target/release/quasar run --image debian-disk"
        );
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
        })
    }
}

fn attend(host: &Host, mut guest: Guest<'_>, start: Instant) -> anyhow::Result<Report> {
    let observed = (|| {
        guest.console.expect("GUEST READY ")?;
        let boot = start.elapsed();
        let uptime = guest.console.expect("\r\n")?;
        let guest_seconds = uptime.trim().parse().with_context(|| format!("an uptime of {uptime:?}"))?;
        let stats = host.json(&["stats", &guest.name, "--json"])?;
        eprintln!("the guest is ready; asking its web server");
        let port = guest.port(80)?;
        let start = Instant::now();
        let page = String::from_utf8_lossy(&http::get_patiently(port, "/")?).into_owned();
        let answer = start.elapsed();
        ensure!(page.contains("riscv64 guest"), "the web server answered {page:?}");
        eprintln!("pressing the power key");
        let start = Instant::now();
        guest.power_key()?;
        let url = format!("http://127.0.0.1:{port}/");
        Ok(Report { boot, guest_seconds, answer, url, page, stats, shutdown: start.elapsed() })
    })();
    guest.explain(observed)
}

/// Boots a guest, asks its web server, shuts it down, and sees that nothing is left.
pub fn demo(as_json: bool) -> anyhow::Result<()> {
    prepare()?;
    images::images()?;
    eprintln!("starting a daemon and a guest; its boot takes some ten seconds");
    let host = Host::start()?;
    let recipe = Recipe::initramfs("demo")?.append("quiet").publish(80)?;
    let start = Instant::now();
    let guest = recipe.start(&host)?;
    let report = attend(&host, guest, start)?;
    // Fails when a process, a segment or a socket is left.
    host.stop()?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        report.print();
    }
    Ok(())
}
