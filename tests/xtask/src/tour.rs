//! The demonstration's tour: the guest's hart becomes a build for big-endian PowerPC, then the guest moves to a whole
//! host of another architecture, and home.

use crate::stage::stage;
use crate::target::Target;
use crate::{cross, emulators, install};
use anyhow::{Context, ensure};
use quasar_tests::stream::Stream;
use quasar_tests::{Guest, Host, Recipe};
use serde_json::{Value, json};
use std::time::Instant;

/// What the hart's process becomes a build for.
const HART: &str = "powerpc64";
/// The architecture of the other host.
pub const HOST: &str = "aarch64";

/// Installs and builds what the tour needs and no more.
fn prepare() -> anyhow::Result<()> {
    stage(
        "the tour of architectures: set-up of two more compilers (cargo xtask demo --no-tour leaves it out)",
    );
    let targets = [Target::named(HART)?, Target::named(HOST)?];
    install::provide("the tour", &cross::needs(&targets))?;
    emulators::programs(&targets)?;
    stage(&format!("building a hart for {HART}"));
    cross::build_some(&[HART], &["quasar-cpu"], false)?;
    stage(&format!("building a host for {HOST}: all six programs"));
    cross::build_some(&[HOST], cross::PACKAGES, false)
}

/// A part of the tour.
pub struct Step {
    what: String,
    /// What the hart's process, and that of the other processes, was built for afterwards.
    hart: String,
    others: String,
    /// Milliseconds without a guest.
    still_ms: f64,
    total_ms: f64,
    /// Between two blocks that the client got.
    client_gap_ms: f64,
}

/// What the VM's processes were built for: the hart's, and the others'.
fn archs(host: &Host, vm: &str) -> anyhow::Result<(String, String)> {
    let stats = host.json(&["stats", vm, "--json"])?;
    let processes = stats["processes"].as_array().context("stats list no processes")?;
    let of = |role: &str| {
        let found = processes.iter().find(|process| process["role"] == role);
        found.and_then(|process| process["arch"].as_str()).with_context(|| format!("no {role}"))
    };
    ensure!(of("mmu")? == of("devices")?, "the tour swaps the hart alone");
    Ok((of("cpu0")?.to_owned(), of("mmu")?.to_owned()))
}

/// Does something to the guest under a checked stream; `action` answers for how long the guest stood still.
fn step<'h>(
    guest: &mut Guest<'h>,
    what: &str,
    action: impl FnOnce(&mut Guest<'h>) -> anyhow::Result<f64>,
) -> anyhow::Result<Step> {
    stage(what);
    let stream = Stream::open(guest.port(7000)?)?;
    stream.flows(50)?;
    let start = Instant::now();
    let still_ms = action(guest)?;
    let total_ms = start.elapsed().as_secs_f64() * 1e3;
    stream.flows(50)?;
    let passed = stream.finish()?;
    let (hart, others) = archs(guest.host(), &guest.name)?;
    let client_gap_ms = passed.longest_gap.as_secs_f64() * 1e3;
    Ok(Step { what: what.to_owned(), hart, others, still_ms, total_ms, client_gap_ms })
}

fn moved<'h>(guest: &mut Guest<'h>, to: &'h Host) -> anyhow::Result<f64> {
    let events = guest.migrate(to, &["--max-downtime", "1000"])?;
    let done = events.last().filter(|event| event["event"] == "completed").context("the last event")?;
    Ok(done["downtime_us"].as_f64().context("a downtime")? / 1e3)
}

/// Prepares the tour and makes it with a guest of its own.
pub fn run() -> anyhow::Result<Vec<Step>> {
    prepare()?;
    stage("starting a daemon, a guest there, and an emulated daemon");
    let home = Host::listening()?;
    let foreign = home.foreign_neighbour(HOST)?;
    let mut guest = Recipe::initramfs("tour")?.append("quiet").publish(7000)?.start(&home)?;
    let made = (|| {
        guest.boot()?;
        guest.check_stream(7000)?;
        let steps = tour(&mut guest, &home, &foreign)?;
        stage("pressing the power key");
        guest.power_key()?;
        Ok(steps)
    })();
    let steps = guest.explain(made)?;
    drop(guest);
    home.stop()?;
    foreign.stop()?;
    Ok(steps)
}

/// The tour of a guest that is at home.
fn tour<'h>(guest: &mut Guest<'h>, home: &'h Host, foreign: &'h Host) -> anyhow::Result<Vec<Step>> {
    let swapped = |guest: &mut Guest<'h>| {
        let said = home.quasar(&["swap", &guest.name, "cpu", "--build", HART])?;
        let still = said.rsplit(' ').nth(1).and_then(|number| number.parse().ok());
        still.with_context(|| format!("quasar swap said {said:?}"))
    };
    Ok(vec![
        step(guest, &format!("swapping the hart for a build for {HART}"), swapped)?,
        step(guest, &format!("moving to a host of {HOST}"), |guest| moved(guest, foreign))?,
        step(guest, "moving home", |guest| moved(guest, home))?,
    ])
}

/// Shows it as a table.
pub fn print(steps: &[Step]) {
    println!("\n  tour of architectures (emulated on this machine)");
    println!(
        "  step                                        hart        others     stood still        total  client's gap"
    );
    for s in steps {
        let Step { what, hart, others, still_ms, total_ms, client_gap_ms } = s;
        println!(
            "  {what:<43} {hart:<11} {others:<11} {still_ms:>7.1} ms {total_ms:>9.0} ms {client_gap_ms:>10.1} ms"
        );
    }
}

/// It as JSON.
pub fn as_json(steps: &[Step]) -> Value {
    let step = |s: &Step| {
        json!({
            "what": s.what,
            "hart": s.hart,
            "others": s.others,
            "still_ms": s.still_ms,
            "total_ms": s.total_ms,
            "client_gap_ms": s.client_gap_ms,
        })
    };
    steps.iter().map(step).collect()
}
