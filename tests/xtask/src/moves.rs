//! Migrations: Quasar between two daemons, QEMU between two of its processes, of the same guest on this machine.

use crate::demo;
use crate::qmp::Qmp;
use anyhow::{Context, ensure};
use quasar_tests::guest::{APPEND, PROMPT};
use quasar_tests::turn::Turn;
use quasar_tests::{Console, Host, Recipe, http, images};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the guest does meanwhile, with the command for it.
const LOADS: &[(&str, Option<&str>)] = &[("idle", None), ("writing 50 MiB/s", Some("/bench/dirty 128 50"))];
/// A migration that has not ended after this long does not converge.
const PATIENCE: Duration = Duration::from_secs(60);

/// One migration.
struct Moved {
    total_ms: f64,
    downtime_ms: f64,
    sent_mib: f64,
    /// The longest time without a look at its clock that the guest saw, and what it was before. Of QEMU only the
    /// latter: its guest's console gives no answer after the move.
    gap_ms: Option<f64>,
    jitter_ms: f64,
}

/// How QEMU is used.
#[derive(Clone, Copy)]
enum Tuning {
    /// As it comes.
    Defaults,
    /// Several connections, zstd, all the bandwidth.
    Tuned,
}

fn longest_gap(console: &mut Console) -> anyhow::Result<f64> {
    let gaps = console.command("sleep 2; grep -o 'gap [0-9.]*' /tmp/tick | cut -d' ' -f2; : > /tmp/tick")?;
    Ok(gaps.lines().filter_map(|line| line.trim().parse().ok()).fold(0.0, f64::max))
}

/// Starts what is to run in the guest; returns the longest gap before the migration.
fn load(console: &mut Console, work: Option<&str>) -> anyhow::Result<f64> {
    if let Some(work) = work {
        console.command(&format!("({work} > /tmp/work 2>&1 &)"))?;
        console.command("while ! grep -q worst /tmp/work; do sleep 1; done")?;
    }
    console.command("(/bench/tick > /tmp/tick 2>&1 &)")?;
    console.command("sleep 4")?;
    longest_gap(console)
}

fn quasar(work: Option<&str>) -> anyhow::Result<Moved> {
    let here = Host::listening()?;
    let there = here.neighbour()?;
    let mut guest = Recipe::initramfs("bench")?.append("quiet").publish(80)?.start(&here)?;
    let moved = (|| {
        guest.boot()?;
        let jitter_ms = load(&mut guest.console, work)?;
        let events = guest.migrate(&there, &[])?;
        let done = events.last().filter(|event| event["event"] == "completed").context("the last event")?;
        let number = |name: &str| done[name].as_f64().unwrap_or(0.0);
        let gap_ms = Some(longest_gap(&mut guest.console)?);
        let sent_mib = number("wire_bytes") / f64::from(1 << 20);
        let (total_ms, downtime_ms) = (number("total_us") / 1e3, number("downtime_us") / 1e3);
        Ok(Moved { total_ms, downtime_ms, sent_mib, gap_ms, jitter_ms })
    })();
    let moved = guest.explain(moved)?;
    drop(guest);
    drop((here, there));
    Ok(moved)
}

/// A QEMU with a socket for its machine protocol.
fn qemu_process(socket: &std::path::Path, incoming: bool) -> anyhow::Result<(Console, Qmp)> {
    let images = images::images()?;
    let mut command = Command::new("qemu-system-riscv64");
    command.args(["-M", "virt", "-smp", "1", "-m", "512M", "-nographic", "-no-reboot", "-monitor", "none"]);
    command.args(["-serial", "stdio", "-global", "virtio-mmio.force-legacy=false"]);
    command.arg("-kernel").arg(&images.kernel).arg("-initrd").arg(&images.initrd);
    command.args(["-append", &format!("{APPEND} quiet"), "-netdev", "user,id=net"]);
    command.args(["-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"]);
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", socket.display()));
    if incoming {
        command.args(["-incoming", "defer"]);
    }
    command.stderr(Stdio::inherit());
    let console = Console::attach(&mut command).context("QEMU: cargo xtask setup installs it")?;
    Ok((console, Qmp::connect(socket)?))
}

fn tune(qmp: &mut Qmp, tuning: Tuning) -> anyhow::Result<()> {
    if matches!(tuning, Tuning::Tuned) {
        let multifd = json!({"capabilities": [{"capability": "multifd", "state": true}]});
        qmp.execute("migrate-set-capabilities", &multifd)?;
        let all = json!({"multifd-compression": "zstd", "max-bandwidth": 100_000_000_000_u64});
        qmp.execute("migrate-set-parameters", &all)?;
    }
    Ok(())
}

/// Nothing when it did not converge.
fn qemu(work: Option<&str>, tuning: Tuning) -> anyhow::Result<Option<Moved>> {
    let _turn = Turn::take()?;
    let directory = tempfile::tempdir()?;
    let (mut here, mut from) = qemu_process(&directory.path().join("here"), false)?;
    here.expect("GUEST READY ")?;
    here.expect(PROMPT)?;
    let jitter_ms = load(&mut here, work)?;
    let (_there, mut to) = qemu_process(&directory.path().join("there"), true)?;
    tune(&mut from, tuning)?;
    tune(&mut to, tuning)?;
    let address = json!({"uri": format!("tcp:127.0.0.1:{}", http::free_port()?)});
    to.execute("migrate-incoming", &address)?;
    from.execute("migrate", &address)?;
    let start = Instant::now();
    let done = loop {
        let state = from.execute("query-migrate", &json!({}))?;
        match state["status"].as_str() {
            Some("completed") => break state,
            Some("failed" | "cancelled") => anyhow::bail!("QEMU's migration: {state}"),
            _ if start.elapsed() > PATIENCE => return Ok(None),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    ensure!(number(&done["total-time"]) > 0.0, "QEMU says {done}");
    Ok(Some(Moved {
        total_ms: number(&done["total-time"]),
        downtime_ms: number(&done["downtime"]),
        sent_mib: number(&done["ram"]["transferred"]) / f64::from(1 << 20),
        gap_ms: None,
        jitter_ms,
    }))
}

fn print(load: &str, who: &str, moved: Option<&Moved>) {
    match moved {
        Some(m) => println!(
            "| {load} | {who} | {:.0} | {:.1} | {:.1} | {} | {:.1} |",
            m.total_ms,
            m.sent_mib,
            m.downtime_ms,
            m.gap_ms.map_or_else(|| "not measured".to_owned(), |gap| format!("{gap:.1}")),
            m.jitter_ms
        ),
        None => println!("| {load} | {who} | not within {} s | | | | |", PATIENCE.as_secs()),
    }
}

/// Measures all and prints a Markdown table.
pub fn bench() -> anyhow::Result<()> {
    demo::prepare()?;
    println!(
        "\n| guest of 512 MiB | by | total, ms | sent, MiB | downtime, ms | longest gap in the guest, ms | before, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, work) in LOADS {
        print(name, "Quasar", Some(&quasar(*work)?));
        print(name, "QEMU", qemu(*work, Tuning::Defaults)?.as_ref());
        print(name, "QEMU, multifd and zstd", qemu(*work, Tuning::Tuned)?.as_ref());
    }
    Ok(())
}
