//! Migrations: Quasar between two daemons, QEMU between two of its processes, of the same guest on this machine.

use crate::demo;
use crate::qemu;
use crate::qmp::Qmp;
use anyhow::{Context, ensure};
use quasar_tests::guest::{APPEND, PROMPT};
use quasar_tests::turn::Turn;
use quasar_tests::{Console, Host, Recipe, http, images};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What the guest does meanwhile.
struct Load {
    name: &'static str,
    /// The command for it.
    work: Option<&'static str>,
    /// Bytes per second that the link is allowed; 0 for all it has.
    bandwidth: u64,
}

const LOADS: &[Load] = &[
    Load { name: "idle", work: None, bandwidth: 0 },
    Load { name: "writing 50 MiB/s", work: Some("/bench/dirty 128 50"), bandwidth: 0 },
    Load {
        name: "writing 200 MiB/s, link of 1 Gbit/s",
        work: Some("/bench/dirty 128 200"),
        bandwidth: 125_000_000,
    },
];
/// A guest that says nothing on its console for this long after a migration will not.
const SILENCE: Duration = Duration::from_secs(20);
/// A migration that has not ended after this long does not converge.
const PATIENCE: Duration = Duration::from_secs(60);

/// One migration.
struct Moved {
    total_ms: f64,
    downtime_ms: f64,
    sent_mib: f64,
    /// The longest time without a look at its clock that the guest saw, and what it was before.
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

/// Seconds of the guest's reports that are looked at.
const REPORTS: usize = 4;

/// The longest gap in the guest's next reports on its console.
fn longest_gap(console: &mut Console, patience: Duration) -> anyhow::Result<f64> {
    let mut longest = 0.0;
    for _ in 0..REPORTS {
        console.expect_within("max gap ", patience)?;
        let gap = console.expect_within(" ms", patience)?;
        longest = f64::max(longest, gap.parse().with_context(|| format!("a gap of {gap:?}"))?);
    }
    Ok(longest)
}

/// Starts what is to run in the guest; returns the longest gap before the migration.
fn load(console: &mut Console, load: &Load) -> anyhow::Result<f64> {
    if let Some(work) = load.work {
        console.command(&format!("({work} > /tmp/work 2>&1 &)"))?;
        console.command("while ! grep -q worst /tmp/work; do sleep 1; done")?;
    }
    console.command("(/bench/tick > /dev/console 2>&1 &)")?;
    longest_gap(console, quasar_tests::PATIENCE)
}

fn quasar(what: &Load) -> anyhow::Result<Moved> {
    let here = Host::listening()?;
    let there = here.neighbour()?;
    let mut guest = Recipe::initramfs("bench")?.append("quiet").publish(80)?.start(&here)?;
    let moved = (|| {
        guest.boot()?;
        let jitter_ms = load(&mut guest.console, what)?;
        let bandwidth = what.bandwidth.to_string();
        let limit = ["--bandwidth", &bandwidth];
        let events = guest.migrate(&there, if what.bandwidth == 0 { &[] } else { &limit })?;
        let done = events.last().filter(|event| event["event"] == "completed").context("the last event")?;
        let number = |name: &str| done[name].as_f64().unwrap_or(0.0);
        // What it showed before the move is no news.
        let mut console = Console::attach(&mut there.command(&["console", &guest.name, "--no-history"]))?;
        let gap_ms = Some(longest_gap(&mut console, quasar_tests::PATIENCE)?);
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
    let mut command = qemu::command()?;
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
    let console = Console::attach(&mut command).context("QEMU")?;
    Ok((console, Qmp::connect(socket)?))
}

fn tune(qmp: &mut Qmp, tuning: Tuning, what: &Load) -> anyhow::Result<()> {
    let most = if what.bandwidth == 0 { 100_000_000_000 } else { what.bandwidth };
    if matches!(tuning, Tuning::Tuned) {
        let multifd = json!({"capabilities": [{"capability": "multifd", "state": true}]});
        qmp.execute("migrate-set-capabilities", &multifd)?;
        let all = json!({"multifd-compression": "zstd", "max-bandwidth": most});
        qmp.execute("migrate-set-parameters", &all)?;
    } else if what.bandwidth != 0 {
        qmp.execute("migrate-set-parameters", &json!({"max-bandwidth": most}))?;
    }
    Ok(())
}

/// Nothing when it did not converge.
fn qemu(what: &Load, tuning: Tuning) -> anyhow::Result<Option<Moved>> {
    let _turn = Turn::take()?;
    let directory = tempfile::tempdir()?;
    let (mut here, mut from) = qemu_process(&directory.path().join("here"), false)?;
    here.expect("GUEST READY ")?;
    here.expect(PROMPT)?;
    let jitter_ms = load(&mut here, what)?;
    let (mut there, mut to) = qemu_process(&directory.path().join("there"), true)?;
    tune(&mut from, tuning, what)?;
    tune(&mut to, tuning, what)?;
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
    let gap_ms =
        longest_gap(&mut there, SILENCE).inspect_err(|error| eprintln!("QEMU's guest: {error:#}")).ok();
    Ok(Some(Moved {
        total_ms: number(&done["total-time"]),
        downtime_ms: number(&done["downtime"]),
        sent_mib: number(&done["ram"]["transferred"]) / f64::from(1 << 20),
        gap_ms,
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
    for what in LOADS {
        print(what.name, "Quasar", Some(&quasar(what)?));
        print(what.name, "QEMU", qemu(what, Tuning::Defaults)?.as_ref());
        print(what.name, "QEMU, multifd and zstd", qemu(what, Tuning::Tuned)?.as_ref());
    }
    Ok(())
}
