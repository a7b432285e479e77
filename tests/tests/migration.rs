//! Live migration between daemons of one machine, over loopback: real guests under load, connections that notice
//! any loss, and every way to fail that leaves exactly one whole guest. Three boots, about two minutes.

use anyhow::{Context, ensure};
use quasar_tests::http::get_patiently;
use quasar_tests::stream::{KeepAlive, Stream};
use quasar_tests::{Guest, Host, Recipe, wait_for};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// The last event of a migration.
fn completed(events: &[Value]) -> anyhow::Result<&Value> {
    let last = events.last().context("no event")?;
    ensure!(last["event"] == "completed", "{last}");
    ensure!(last["hash"].as_str().is_some_and(|hash| hash.len() == 64), "{last}");
    Ok(last)
}

/// The guest's wall clock agrees with the machine's, and its monotonic one has not stepped back.
fn look_at_clocks(guest: &mut Guest<'_>, uptime: &mut f64) -> anyhow::Result<()> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map(|d| d.as_secs());
    let before = now()?;
    let shown: u64 = guest.console.command("date +%s")?.trim().parse()?;
    let after = now()?;
    ensure!((before - 2..=after + 2).contains(&shown), "the guest says {shown}, it is {before} to {after}");
    let up = guest.console.command("cat /proc/uptime")?;
    let up: f64 = up.split(' ').next().context("uptime")?.parse()?;
    ensure!(up >= *uptime, "the guest's uptime went back from {uptime} to {up}");
    *uptime = up;
    Ok(())
}

/// Nothing of the VM is left on this host; a console that was attached lets its memory go within moments.
fn nothing_remains(host: &Host, vm: &str) -> anyhow::Result<()> {
    let gone = wait_for("the VM's remains to go", || host.remains(vm).is_empty().then_some(()));
    gone.with_context(|| format!("left behind: {:?}", host.remains(vm)))
}

/// No checker in the guest has complained, and each has done something since it was started.
fn look_at_checkers(guest: &mut Guest<'_>, logs: &[&str]) -> anyhow::Result<()> {
    for log in logs {
        let failures = guest.console.command(&format!("grep -c FAIL /tmp/{log} || true"))?;
        ensure!(failures.trim() == "0", "{}", guest.console.command(&format!("grep FAIL /tmp/{log}"))?);
        guest.console.command(&format!("grep -q ' ok ' /tmp/{log}"))?;
    }
    Ok(())
}

#[test]
fn connections_survive_journeys_over_three_hosts() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let (b, c) = (a.neighbour()?, a.neighbour()?);
    let recipe = Recipe::initramfs("web")?.publish(80)?.publish(7000)?.with(&["--harts", "2"]);
    let mut guest = recipe.start(&a)?;
    let journey = (|| {
        guest.boot()?;
        guest.console.command("(/bench/tcpcheck server 7000 > /tmp/tcp 2>&1 &)")?;
        guest.console.command("(/bench/verify 24 > /tmp/memory 2>&1 &)")?;
        get_patiently(guest.port(80)?, "/1k.bin")?;
        let client = KeepAlive::open(guest.port(80)?, "/1k.bin")?;
        let stream = Stream::open(guest.port(7000)?)?;
        let mut uptime = 0.0;
        look_at_clocks(&mut guest, &mut uptime)?;
        for to in [&b, &c, &a, &b, &a] {
            let from = guest.host();
            stream.flows(50)?;
            let events = guest.migrate(to, &["--max-downtime", "30"])?;
            let rounds = events.iter().filter(|e| e["event"] == "round").count();
            ensure!(rounds >= 2 && completed(&events)?["rounds"] == rounds, "{events:?}");
            ensure!(events.iter().any(|e| e["event"] == "handing_over"), "{events:?}");
            ensure!(to.view("web")?["phase"] == "running");
            if from.pid() != a.pid() {
                ensure!(from.view("web").is_err(), "it is still listed where it was");
            }
            nothing_remains(from, "web")?;
            stream.flows(50)?;
            look_at_clocks(&mut guest, &mut uptime)?;
            if to.pid() != a.pid() {
                ensure!(a.view("web")?["phase"] == "away", "{}", a.view("web")?);
            }
        }
        // To itself, to nobody, and where its name is taken.
        let own = a.refusal(&["migrate", "web", "--to", &a.address()?])?;
        ensure!(own.contains("runs on already") && own.contains("goes on as before"), "{own}");
        let nobody = a.refusal(&["migrate", "web", "--to", "127.0.0.1:1"])?;
        ensure!(nobody.contains("no connection to 127.0.0.1:1"), "{nobody}");
        // A client of the published port that comes while the VM is abroad is served as well.
        guest.migrate(&c, &[])?;
        ensure!(get_patiently(guest.port(80)?, "/100k.bin")?.len() == 100 << 10);
        let (requests, longest) = client.finish()?;
        let passed = stream.finish()?;
        eprintln!("{requests} requests, the longest {longest:?}; {passed:?}");
        ensure!(requests > 10 && passed.received > 600 && passed.sent > 600, "{requests} {passed:?}");
        look_at_checkers(&mut guest, &["memory"])
    })();
    guest.explain(journey)?;
    drop(guest);
    // Its own power-off ends it abroad; its network's way out ends when home is told so.
    c.quasar(&["stop", "web", "--force"])?;
    c.quasar(&["rm", "web"])?;
    ensure!(a.refusal(&["rm", "web"])?.contains("--force"));
    a.quasar(&["rm", "--force", "web"])?;
    for host in [a, b, c] {
        host.stop()?;
    }
    Ok(())
}
