//! Other machines: OpenSBI as firmware, two harts. A boot each, about 30 s together.

use anyhow::ensure;
use quasar_tests::images::OPENSBI;
use quasar_tests::{Host, Recipe};

#[test]
fn opensbi_boots_the_same_debian() -> anyhow::Result<()> {
    let host = Host::start()?;
    let mut guest =
        Recipe::initramfs("firm")?.with(&["--firmware", OPENSBI, "--net", "none"]).start(&host)?;
    let booted = (|| {
        guest.console.expect("OpenSBI v")?;
        guest.boot()?;
        // Implementation 1 is OpenSBI (SBI 2.0, chapter 4).
        guest.console.command("dmesg | grep -i 'SBI implementation ID=0x1 '")?;
        guest.power_key()
    })();
    guest.explain(booted)?;
    drop(guest);
    host.stop()
}

#[test]
fn two_harts_work_side_by_side() -> anyhow::Result<()> {
    let host = Host::start()?;
    let mut guest = Recipe::initramfs("pair")?.with(&["--harts", "2", "--net", "none"]).start(&host)?;
    let booted = (|| {
        guest.boot()?;
        ensure!(guest.console.command("nproc")?.trim() == "2");
        // Work on both, with pipes between them and processes that come and go.
        guest.console.command("(/bench/fib 24 & /bench/pingpong 1 & /bench/forkexec 20 & wait)")?;
        ensure!(guest.console.command("grep -c ^processor /proc/cpuinfo")?.trim() == "2");
        Ok(())
    })();
    guest.explain(booted)?;
    let stats = host.json(&["stats", "pair", "--json"])?;
    let retired = |hart: usize| stats["harts"][hart]["instructions"].as_u64().unwrap_or(0);
    ensure!(
        retired(0) > 1_000_000 && retired(1) > 1_000_000,
        "{} and {} instructions",
        retired(0),
        retired(1)
    );
    let view = host.view("pair")?;
    ensure!(view["processes"].as_array().is_some_and(|p| p.len() == 4), "{view}");
    let ended = guest.power_key();
    guest.explain(ended)?;
    drop(guest);
    host.stop()
}
