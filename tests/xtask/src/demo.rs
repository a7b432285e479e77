//! `cargo xtask demo`: from nothing to a web server in a guest that answers the host, while it moves to another
//! daemon and back and its processes are killed; then a tour over architectures.

use crate::building::Build;
use crate::cross;
use crate::progress::Steps;
use crate::report::{Journey, Report, number};
use crate::stage::{elapsed, stage};
use crate::{kills, setup, tour};
use anyhow::{Context, ensure};
use quasar_tests::stream::{KeepAlive, Stream};
use quasar_tests::{Guest, Host, Recipe, http, images};
use std::time::Instant;

/// Builds the six programs; meanwhile installs what the guest needs and makes the images, where they are not there yet:
/// the one is work for the processors, the other for the network.
pub fn prepare() -> anyhow::Result<()> {
    stage("building Quasar's six programs; meanwhile:");
    let building = Build::begin(&mut cross::build_command(cross::PACKAGES, false))?;
    setup::guests()?;
    stage(
        "making the guest's images from Debian packages (some 170 MB to download when it is done for the first time)",
    );
    let steps = Steps::new();
    quasar_image::build(&quasar_image::BuildOptions::default(), &steps)?;
    steps.finish();
    building.finish()
}

/// Moves the guest while a client watches.
fn travel<'h>(guest: &mut Guest<'h>, to: &'h Host, name: &'static str) -> anyhow::Result<(Journey, u64)> {
    let stream = Stream::open(guest.port(7000)?)?;
    stream.flows(100)?;
    guest.console.command(": > /tmp/tick; sleep 1")?;
    let events = guest.migrate(to, &[])?;
    stream.flows(100)?;
    let passed = stream.finish()?;
    let guest_gap_ms = kills::longest_gap(guest)?;
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
    mut guest: Guest<'h>,
    start: Instant,
) -> anyhow::Result<Report> {
    let observed = (|| {
        guest.console.show(true);
        guest.console.expect("\n")?;
        stage("that was the guest's first line");
        guest.console.expect("GUEST READY ")?;
        let boot = start.elapsed();
        let uptime = guest.console.expect("\r\n")?;
        let guest_seconds = uptime.trim().parse().with_context(|| format!("an uptime of {uptime:?}"))?;
        let stats = home.json(&["stats", &guest.name, "--json"])?;
        guest.console.expect(quasar_tests::guest::PROMPT)?;
        guest.console.show(false);
        stage("the guest is ready; asking its web server");
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
            stage(&format!("moving it: {name}"));
            let (journey, passed) = travel(&mut guest, to, name)?;
            journeys.push(journey);
            blocks += passed;
        }
        let (requests, _) = client.finish()?;
        let kills = kills::all(&mut guest)?;
        stage("pressing the power key");
        let start = Instant::now();
        guest.power_key()?;
        let url = format!("http://127.0.0.1:{port}/");
        let shutdown = start.elapsed();
        Ok(Report {
            journeys,
            kills,
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

/// The first part: a guest at one daemon, another daemon to move to, and nothing left of either.
fn home_and_abroad() -> anyhow::Result<Report> {
    stage("starting two daemons, and a guest at one of them");
    let home = Host::listening()?;
    let abroad = home.neighbour()?;
    let recipe = Recipe::initramfs("demo")?.publish(80)?.publish(7000)?;
    let start = Instant::now();
    let guest = recipe.start(&home)?;
    let report = attend(&home, &abroad, guest, start)?;
    // Fails when a process, a segment or a socket is left.
    home.stop()?;
    abroad.stop()?;
    Ok(report)
}

/// Boots a guest, asks its web server, moves it there and back, kills its processes, shuts it down, and sees that nothing
/// is left; then the tour of architectures, with its own set-up.
pub fn demo(as_json: bool, with_tour: bool) -> anyhow::Result<()> {
    prepare()?;
    images::images()?;
    let report = home_and_abroad()?;
    if !as_json {
        report.print();
    }
    let steps = if with_tour { tour::run().context("the tour of architectures")? } else { vec![] };
    if as_json {
        let mut value = report.json();
        value["tour"] = tour::as_json(&steps);
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else if with_tour {
        tour::print(&steps);
    }
    let seconds = elapsed().as_secs();
    eprintln!("\nall of it took {} min {} s", seconds / 60, seconds % 60);
    Ok(())
}
