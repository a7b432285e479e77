//! The small guest: boot, console, published port, listings, pause, reboot, power key. Two boots, about 30 s.

use anyhow::ensure;
use quasar_tests::http::{Connection, get_patiently};
use quasar_tests::{Guest, Host, Recipe, step};
use std::time::Duration;

const PAGE: &str = "hello from the riscv64 guest";

fn serves(guest: &Guest<'_>) -> anyhow::Result<()> {
    let port = guest.port(80)?;
    let page = get_patiently(port, "/")?;
    ensure!(String::from_utf8_lossy(&page).contains(PAGE), "nginx served {page:?}");
    let long = get_patiently(port, "/100k.bin")?.len();
    ensure!(long == 100 << 10, "of 100 KiB {long} bytes came");
    Ok(())
}

/// Every listing is JSON, and says what is true.
fn listings_for_programs(host: &Host) -> anyhow::Result<()> {
    let view = host.view("web")?;
    ensure!(view["phase"] == "running" && view["harts"] == 1 && view["memory"] == 512 << 20, "{view}");
    ensure!(view["processes"].as_array().is_some_and(|p| p.len() == 3), "{view}");
    let stats = host.json(&["stats", "web", "--json"])?;
    for (counter, value) in [
        ("instructions", &stats["harts"][0]["instructions"]),
        ("run_ns", &stats["harts"][0]["run_ns"]),
        ("served", &stats["mmu"]["served"]),
        ("guest_ns", &stats["guest_ns"]),
    ] {
        ensure!(value.as_u64().is_some_and(|v| v > 0), "{counter} is {value}");
    }
    let roles: Vec<&str> =
        stats["processes"].as_array().into_iter().flatten().filter_map(|p| p["role"].as_str()).collect();
    for role in ["cpu0", "mmu", "devices", "netswitch", "supervisor"] {
        ensure!(roles.contains(&role), "{role} is not in {roles:?}");
    }
    Ok(())
}

/// A table has a heading and a line below it with what is so.
fn listings_for_people(host: &Host) -> anyhow::Result<()> {
    for (command, heading, line) in
        [("ps", "NAME STATE MEMORY", "web running 512M 1"), ("stats web", "HART MIPS", "0 ")]
    {
        let text = host.quasar(&command.split(' ').collect::<Vec<_>>())?;
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let at = lines.iter().position(|l| l.starts_with(heading));
        let below = at.and_then(|at| lines[at + 1..].iter().find(|l| l.starts_with(line)));
        ensure!(below.is_some(), "quasar {command} shows no line {line:?} below {heading:?}:\n{text}");
    }
    // Each process of the VM has said something there.
    let logs = host.quasar(&["logs", "web"])?;
    ensure!(logs.contains("serving the memory of web"), "quasar logs web shows {logs:?}");
    Ok(())
}

/// A paused guest stands still; its connections outlive that.
fn pause(host: &Host, guest: &mut Guest<'_>) -> anyhow::Result<()> {
    let mut kept = Connection::open(guest.port(80)?)?;
    ensure!(kept.get("/")?.0 == 200);
    kept.send(b"GET /1k.bin HTTP/1.1\r\n")?;
    host.quasar(&["pause", "web"])?;
    host.wait_phase("web", "paused")?;
    let retired = || host.json(&["stats", "web", "--json"]).map(|s| s["harts"][0]["instructions"].as_u64());
    let before = retired()?;
    kept.send(b"Host: guest\r\n\r\n")?;
    std::thread::sleep(Duration::from_secs(2));
    let after = retired()?;
    ensure!(before.is_some() && before == after, "a paused guest went on from {before:?} to {after:?}");
    host.quasar(&["resume", "web"])?;
    host.wait_phase("web", "running")?;
    let (status, body) = kept.answer()?;
    ensure!((status, body.len()) == (200, 1024), "after the pause: status {status}, {} bytes", body.len());
    let uptime: f64 = guest.console.command("cut -d' ' -f1 /proc/uptime")?.trim().parse()?;
    ensure!(uptime > 1.0, "the guest has been up for {uptime} s");
    Ok(())
}

/// The guest reboots by itself, into a fresh system.
fn reboot(host: &Host, guest: &mut Guest<'_>) -> anyhow::Result<()> {
    guest.console.command("echo old > /root/mark && test -e /root/mark")?;
    guest.console.send("reboot\n")?;
    guest.boot()?;
    guest.console.command("test ! -e /root/mark")?;
    ensure!(host.view("web")?["reboots"] == 1, "{}", host.view("web")?);
    serves(guest)
}

/// The power key shuts it down; it stays listed, with its console, until it is removed.
fn power_key(host: &Host, guest: &mut Guest<'_>) -> anyhow::Result<()> {
    guest.power_key()?;
    guest.console.expect("GUEST SHUTDOWN")?;
    host.quasar(&["rm", "web"])?;
    host.lacks("web")
}

#[test]
fn a_day_in_its_life() -> anyhow::Result<()> {
    let host = Host::start()?;
    let mut guest = Recipe::initramfs("web")?.publish(80)?.start(&host)?;
    let day = (|| {
        step("it boots", || guest.boot())?;
        step("its web server answers", || serves(&guest))?;
        step("listings for programs", || listings_for_programs(&host))?;
        step("listings for people", || listings_for_people(&host))?;
        step("a pause", || pause(&host, &mut guest))?;
        step("a reboot", || reboot(&host, &mut guest))?;
        step("the power key", || power_key(&host, &mut guest))
    })();
    guest.explain(day)?;
    drop(guest);
    host.stop()
}
