//! Processes that are killed under the running guest: how long until each is replaced, and what the guest and a client
//! notice.

use anyhow::Context;
use nix::sys::signal::Signal;
use quasar_tests::stream::Stream;
use quasar_tests::{Guest, Host, http, process, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Roles as `quasar stats` lists them, and whether open connections outlive them: those of passt are its own sockets.
const VICTIMS: &[(&str, bool)] = &[("mmu", true), ("devices", true), ("netswitch", true), ("passt", false)];
/// Between two looks for a successor.
const LOOK: Duration = Duration::from_millis(5);

/// A killed process.
pub struct Kill {
    role: &'static str,
    /// It, and its successor.
    pids: (u32, u32),
    /// Milliseconds until there was one.
    replaced_ms: f64,
    /// The longest between two looks of the guest at its clock.
    guest_gap_ms: f64,
    /// The longest between two blocks that a client got, or until a new connection was answered.
    client_gap_ms: f64,
    /// Whether open connections went on.
    kept: bool,
}

/// The longest time between two looks of the guest at its clock that it wrote to /tmp/tick.
pub fn longest_gap(guest: &mut Guest<'_>) -> anyhow::Result<f64> {
    let gaps = guest.console.command("sleep 2; grep -o 'gap [0-9.]*' /tmp/tick | cut -d' ' -f2")?;
    Ok(gaps.lines().filter_map(|line| line.trim().parse().ok()).fold(0.0, f64::max))
}

/// The process with a role; that of passt's has the network's name behind it.
fn pid(host: &Host, vm: &str, role: &str) -> anyhow::Result<u32> {
    let stats = host.json(&["stats", vm, "--json"])?;
    let processes = stats["processes"].as_array().context("stats list no processes")?;
    let is = |p: &&Value| p["role"].as_str().and_then(|r| r.split(' ').next()) == Some(role);
    let found = processes.iter().find(is).and_then(|p| p["pid"].as_u64());
    u32::try_from(found.with_context(|| format!("no {role} in {processes:?}"))?).context("a process id")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn kill(guest: &mut Guest<'_>, role: &'static str, kept: bool) -> anyhow::Result<Kill> {
    let (host, vm) = (guest.host(), guest.name.clone());
    let stream = Stream::open(guest.port(7000)?)?;
    stream.flows(50)?;
    guest.console.command(": > /tmp/tick; sleep 1")?;
    let old = pid(host, &vm, role)?;
    let start = Instant::now();
    process::signal(old, Signal::SIGKILL)?;
    let new = wait_for("a successor", || {
        std::thread::sleep(LOOK);
        pid(host, &vm, role).ok().filter(|new| *new != old)
    })?;
    let replaced_ms = ms(start.elapsed());
    let client_gap_ms = if kept {
        stream.flows(50)?;
        ms(stream.finish()?.longest_gap)
    } else {
        drop(stream);
        http::get_patiently(guest.port(80)?, "/")?;
        ms(start.elapsed())
    };
    let guest_gap_ms = longest_gap(guest)?;
    Ok(Kill { role, pids: (old, new), replaced_ms, guest_gap_ms, client_gap_ms, kept })
}

/// Kills one after the other; the guest runs `tick` into /tmp/tick.
pub fn all(guest: &mut Guest<'_>) -> anyhow::Result<Vec<Kill>> {
    let one = |(role, kept): &(&'static str, bool)| {
        eprintln!("killing {role}");
        kill(guest, role, *kept).with_context(|| format!("{role} was killed"))
    };
    VICTIMS.iter().map(one).collect()
}

/// Shows them as a table.
pub fn print(kills: &[Kill]) {
    println!("\n  killed by SIGKILL under the running guest\n");
    println!(
        "  process       pid      successor   replaced after  guest's gap  client's gap  open connections"
    );
    for k in kills {
        let (old, new) = k.pids;
        let connections = if k.kept { "went on" } else { "ended; new ones answered" };
        print!("  {:<13} {old:<8} {new:<8} {:>14.0} ms", k.role, k.replaced_ms);
        println!(" {:>9.1} ms {:>10.1} ms  {connections}", k.guest_gap_ms, k.client_gap_ms);
    }
}

/// They as JSON.
pub fn as_json(kills: &[Kill]) -> Value {
    let kill = |k: &Kill| {
        json!({
            "role": k.role,
            "pid": k.pids.0,
            "successor": k.pids.1,
            "replaced_ms": k.replaced_ms,
            "guest_gap_ms": k.guest_gap_ms,
            "client_gap_ms": k.client_gap_ms,
            "connections_kept": k.kept,
        })
    };
    kills.iter().map(kill).collect()
}
