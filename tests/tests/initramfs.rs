//! The small guest: boot, console, published port, listings, pause, reboot, power key. Two boots, about 30 s.

use anyhow::ensure;
use quasar_tests::http::{Connection, get_patiently};
use quasar_tests::{Host, Recipe};
use std::time::Duration;

const PAGE: &str = "hello from the riscv64 guest";

#[test]
fn a_day_in_its_life() -> anyhow::Result<()> {
    let host = Host::start()?;
    let mut guest = Recipe::initramfs("web")?.publish(80)?.start(&host)?;
    let day = (|| {
        guest.boot()?;
        let port = guest.port(80)?;
        let page = get_patiently(port, "/")?;
        ensure!(String::from_utf8_lossy(&page).contains(PAGE), "nginx served {page:?}");
        ensure!(get_patiently(port, "/100k.bin")?.len() == 100 << 10);
        Ok(())
    })();
    guest.explain(day)?;

    // Every listing is JSON, and says what is true.
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
    for (table, word) in [("ps", "NAME"), ("stats web", "MIPS"), ("logs web", "")] {
        let text = host.quasar(&table.split(' ').collect::<Vec<_>>())?;
        ensure!(text.contains(word), "{table}: {text}");
    }

    // A paused guest stands still; its connections outlive that.
    let mut kept = Connection::open(guest.port(80)?)?;
    ensure!(kept.get("/")?.0 == 200);
    kept.send(b"GET /1k.bin HTTP/1.1\r\n")?;
    host.quasar(&["pause", "web"])?;
    host.wait_phase("web", "paused")?;
    let retired =
        |host: &Host| host.json(&["stats", "web", "--json"]).map(|s| s["harts"][0]["instructions"].as_u64());
    let before = retired(&host)?;
    kept.send(b"Host: guest\r\n\r\n")?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(before.is_some() && before == retired(&host)?, "a paused guest executed instructions");
    host.quasar(&["resume", "web"])?;
    host.wait_phase("web", "running")?;
    let (status, body) = kept.answer()?;
    ensure!((status, body.len()) == (200, 1024), "after the pause: status {status}, {} bytes", body.len());
    let uptime = guest.console.command("cut -d' ' -f1 /proc/uptime");
    guest.explain(uptime)?;

    // The guest reboots by itself, into a fresh system.
    guest.console.command("echo old > /root/mark")?;
    guest.console.send("reboot\n")?;
    let reborn = guest.boot();
    guest.explain(reborn)?;
    guest.console.command("test ! -e /root/mark")?;
    ensure!(host.view("web")?["reboots"] == 1);
    ensure!(String::from_utf8_lossy(&get_patiently(guest.port(80)?, "/")?).contains(PAGE));

    // The power key shuts it down; it stays listed, with its console, until it is removed.
    let ended = guest.power_key();
    guest.explain(ended)?;
    guest.console.expect("GUEST SHUTDOWN")?;
    host.quasar(&["rm", "web"])?;
    ensure!(host.json(&["ps", "--json"])?.as_array().is_some_and(Vec::is_empty));
    drop(guest);
    host.stop()
}
