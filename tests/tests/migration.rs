//! Live migration between daemons of one machine, over loopback: real guests under load, connections that notice
//! any loss, and every way to fail that leaves exactly one whole guest. Three boots, about two minutes.

use anyhow::{Context, ensure};
use quasar_tests::http::get_patiently;
use quasar_tests::stream::{KeepAlive, Stream};
use quasar_tests::{Guest, Host, Recipe, step, wait_for};
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Stdio};
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

/// No checker in the guest has complained, and each has done something since this was looked at last.
fn look_at_checkers(guest: &mut Guest<'_>, logs: &[&str]) -> anyhow::Result<()> {
    for log in logs {
        guest.no_complaint(log)?;
        guest
            .console
            .command(&format!("while ! grep -q ' ok ' /tmp/{log}; do sleep 1; done; : > /tmp/{log}"))?;
    }
    Ok(())
}

#[test]
fn connections_survive_journeys_over_three_hosts() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let (b, c) = (a.neighbour()?, a.neighbour()?);
    let recipe = Recipe::initramfs("web")?.publish(80)?.publish(7000)?;
    let mut guest = recipe.start(&a)?;
    let port = guest.port(80)?;
    let journey = (|| {
        guest.boot()?;
        guest.check_stream(7000)?;
        guest.console.command("(/bench/verify 8 > /tmp/memory 2>&1 &)")?;
        get_patiently(guest.port(80)?, "/1k.bin")?;
        let client = KeepAlive::open(guest.port(80)?, "/1k.bin")?;
        let stream = Stream::open(guest.port(7000)?)?;
        let mut uptime = 0.0;
        look_at_clocks(&mut guest, &mut uptime)?;
        for to in [&b, &c, &a, &b, &a] {
            let from = guest.host();
            stream.flows(50)?;
            let events = guest.migrate(to, &["--max-downtime", "30"])?;
            eprintln!("{}", completed(&events)?);
            let rounds = events.iter().filter(|e| e["event"] == "round").count();
            ensure!(rounds >= 2 && completed(&events)?["rounds"] == rounds, "{events:?}");
            ensure!(events.iter().any(|e| e["event"] == "handing_over"), "{events:?}");
            ensure!(to.view("web")?["phase"] == "running");
            if from.pid() != a.pid() {
                from.lacks("web")?;
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
        guest.migrate(&c, &["--max-downtime", "30"])?;
        ensure!(get_patiently(guest.port(80)?, "/100k.bin")?.len() == 100 << 10);
        let (requests, longest) = client.finish()?;
        let passed = stream.finish()?;
        eprintln!("{requests} requests, the longest {longest:?}; {passed:?}");
        ensure!(requests > 10 && passed.received > 600 && passed.sent > 600, "{requests} {passed:?}");
        look_at_checkers(&mut guest, &["memory"])
    })();
    guest.explain(journey)?;
    drop(guest);
    ensure!(a.refusal(&["rm", "web"])?.contains("--force"));
    ensure!(a.view("web")?["phase"] == "away", "{}", a.view("web")?);
    // It ends abroad: home is told so, and lets its network's way out go.
    c.quasar(&["stop", "web", "--force"])?;
    a.wait_gone("web", "home to hear of its end")?;
    // Nobody listens there any more; a server that is only slow is another error.
    wait_for("its way out to go", || {
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).err()?.kind();
        (refused == ErrorKind::ConnectionRefused).then_some(())
    })?;
    c.quasar(&["rm", "web"])?;
    for host in [a, b, c] {
        host.stop()?;
    }
    Ok(())
}

#[test]
fn disks_and_pauses_travel_and_files_bring_them_back() -> anyhow::Result<()> {
    const DISK: u64 = 16 << 20;
    let a = Host::listening()?;
    let b = a.neighbour()?;
    let disk = a.directory().join("data.raw");
    std::fs::File::create(&disk)?.set_len(DISK)?;
    let file = a.directory().join("web.vm");
    let file = file.to_str().context("a path")?;
    let recipe = Recipe::initramfs("web")?;
    let recipe = recipe.with(&["--net", "none", "--harts", "2", "--disk", disk.to_str().context("a path")?]);
    let mut guest = recipe.start(&a)?;
    let journey = (|| {
        guest.boot()?;
        guest.console.command("(/bench/verify 8 /dev/vda 16 > /tmp/verify 2>&1 &)")?;
        guest.console.command("while ! grep -q ok /tmp/verify; do sleep 1; done")?;
        let mut uptime = 0.0;
        look_at_clocks(&mut guest, &mut uptime)?;
        completed(&guest.migrate(&b, &["--max-downtime", "100"])?)?;
        let there = b.view("web")?["spec"]["disks"][0]["path"].as_str().context("a disk")?.to_owned();
        ensure!(there.starts_with(&b.directory().display().to_string()), "the disk there is {there}");
        ensure!(disk.exists(), "a disk that was not made for the VM is the user's");
        look_at_clocks(&mut guest, &mut uptime)?;
        look_at_checkers(&mut guest, &["verify"])?;

        // A paused guest arrives paused.
        b.quasar(&["pause", "web"])?;
        guest.migrate(&a, &[])?;
        ensure!(a.view("web")?["phase"] == "paused", "{}", a.view("web")?);
        nothing_remains(&b, "web")?;
        a.quasar(&["resume", "web"])?;
        look_at_clocks(&mut guest, &mut uptime)?;
        look_at_checkers(&mut guest, &["verify"])?;

        // Into a file, and back under another name on the other host.
        a.quasar(&["suspend", "web", file])?;
        a.lacks("web")?;
        nothing_remains(&a, "web")?;
        let inside = a.json(&["image", "inspect", file])?;
        ensure!(inside["disks"][0][1] == DISK && inside["ram_bytes"] == 512 << 20, "{inside}");
        let mut bytes = std::fs::read(file)?;
        let middle = bytes.len() / 2;
        for (what, damaged) in [
            ("damaged", {
                bytes[middle] ^= 1;
                &bytes[..]
            }),
            ("cannot be resumed", &bytes[..middle]),
        ] {
            let copy = a.directory().join("damaged.vm");
            std::fs::write(&copy, damaged)?;
            let refused = b.refusal(&["resume", copy.to_str().context("a path")?])?;
            ensure!(refused.contains(what) && refused.contains("damaged.vm"), "{refused}");
            nothing_remains(&b, "web")?;
        }
        let cut = a.directory().join("damaged.vm");
        let refused = a.refusal(&["image", "inspect", cut.to_str().context("a path")?])?;
        ensure!(refused.contains("damaged.vm is damaged: the stream is cut"), "{refused}");
        b.quasar(&["resume", file, "--name", "again"])?;
        guest.name = "again".into();
        guest.is_at(&b)?;
        look_at_clocks(&mut guest, &mut uptime)?;
        guest.console.command("sleep 2")?;
        look_at_checkers(&mut guest, &["verify"])?;
        guest.console.command("killall verify; sync; /bench/verify check /dev/vda")?;
        Ok(())
    })();
    guest.explain(journey)?;
    drop(guest);
    b.quasar(&["rm", "--force", "again"])?;
    nothing_remains(&b, "again")?;
    a.stop()?;
    b.stop()
}

/// A slow migration in the background.
fn begin(from: &Host, to: &Host) -> anyhow::Result<Child> {
    let address = to.address()?;
    let mut command = from.command(&["migrate", "web", "--to", &address, "--bandwidth", "16M", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("quasar migrate")
}

/// Waits until a VM arrives at a host.
fn arrives(host: &Host) -> anyhow::Result<()> {
    wait_for("its arrival", || host.view("web").ok().filter(|vm| vm["phase"] == "arriving")).map(drop)
}

/// What it said when it failed.
fn failed(child: Child) -> anyhow::Result<String> {
    let out = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let last: Value = serde_json::from_str(text.lines().last().context("no event")?)?;
    ensure!(!out.status.success() && last["event"] == "failed", "{text}");
    Ok(last["error"].as_str().context("no reason")?.to_owned())
}

#[test]
fn whatever_fails_leaves_exactly_one_whole_guest() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let (b, mut doomed) = (a.neighbour()?, a.neighbour()?);
    let mut guest = Recipe::initramfs("web")?.publish(7000)?.start(&a)?;
    let trials = (|| {
        let stream = step("boot, checkers and a stream", || {
            guest.boot()?;
            guest.check_stream(7000)?;
            guest.console.command("(/bench/verify 8 > /tmp/memory 2>&1 &)")?;
            guest.console.command("sleep 1")?;
            Stream::open(guest.port(7000)?)
        })?;
        let whole = |host: &Host| {
            ensure!(host.view("web")?["phase"] == "running", "{}", host.view("web")?);
            stream.flows(20)?;
            nothing_remains(&b, "web")
        };
        step("given up by its user, and neither paused nor sent elsewhere meanwhile", || {
            let journey = begin(&a, &b)?;
            arrives(&b)?;
            let busy = a.refusal(&["migrate", "web", "--to", &doomed.address()?])?;
            ensure!(busy.contains("on its way to"), "{busy}");
            let busy = a.refusal(&["pause", "web"])?;
            ensure!(busy.contains("on its way to"), "{busy}");
            let arriving = b.refusal(&["rm", "web"])?;
            ensure!(arriving.contains("arriving"), "{arriving}");
            let given_up = a.quasar(&["migrate", "web", "--cancel"])?;
            ensure!(given_up.contains("runs on here"), "{given_up}");
            let why = failed(journey)?;
            ensure!(why.contains("cancelled"), "{why}");
            whole(&a)
        })?;
        step("thrown out by the receiving host", || {
            let journey = begin(&a, &b)?;
            arrives(&b)?;
            b.quasar(&["rm", "--force", "web"])?;
            failed(journey)?;
            whole(&a)
        })?;
        step("the receiving host dies", || {
            let journey = begin(&a, &doomed)?;
            arrives(&doomed)?;
            doomed.kill()?;
            failed(journey)?;
            whole(&a)
        })?;
        step("strangers are turned away and change nothing", || {
            for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b""] {
                let mut stranger = TcpStream::connect(b.address()?)?;
                stranger.write_all(words)?;
            }
            whole(&a)
        })?;
        step("where its name is taken, it is told so", || {
            let kernel = quasar_tests::images::images()?.kernel.display().to_string();
            b.quasar(&["run", "web", "--detach", "--net", "none", "--kernel", &kernel])?;
            let taken = a.refusal(&["migrate", "web", "--to", &b.address()?])?;
            ensure!(taken.contains("there is a VM web already"), "{taken}");
            b.quasar(&["rm", "--force", "web"])?;
            whole(&a)
        })?;
        step("what does not converge is given up when its user wants that, with an explanation", || {
            let address = b.address()?;
            let hopeless = ["migrate", "web", "--to", &address, "--bandwidth", "2M", "--timeout", "5"];
            let late = a.refusal(&hopeless)?;
            ensure!(late.contains("5 s that were allowed"), "{late}");
            whole(&a)
        })?;
        step("after all that it moves, whole", || {
            completed(&guest.migrate(&b, &["--max-downtime", "100"])?)?;
            stream.flows(50)?;
            let passed = stream.finish()?;
            eprintln!("{passed:?}");
            look_at_checkers(&mut guest, &["memory"])
        })
    })();
    guest.explain(trials)?;
    drop(guest);
    b.quasar(&["rm", "--force", "web"])?;
    a.stop()?;
    b.stop()
}
