//! Processes that are killed under a running guest, and a paste into its console. One boot, about half a minute.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use quasar_tests::http::{Connection, get_patiently};
use quasar_tests::{Guest, Host, Recipe, process, wait_for};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// Kills a process of the VM or host, and waits for its successor.
fn replace(host: &Host, vm: &str, role: &str) -> anyhow::Result<()> {
    let old = host.pid_of(vm, role)?;
    process::signal(old, Signal::SIGKILL)?;
    wait_for("a successor", || host.pid_of(vm, role).ok().filter(|new| *new != old))
        .with_context(|| format!("{role} was killed"))?;
    ensure!(host.view(vm)?["phase"] == "running", "{role} was killed: {}", host.view(vm)?);
    Ok(())
}

/// What `GET /v1/host` answers, which must be something.
fn host_answers(host: &Host) -> anyhow::Result<Value> {
    let mut socket = UnixStream::connect(host.socket())?;
    socket.write_all(b"GET /v1/host HTTP/1.1\r\nHost: quasar\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "{text}");
    Ok(serde_json::from_str(text.split_once("\r\n\r\n").context("no body")?.1)?)
}

fn works(guest: &mut Guest<'_>) -> anyhow::Result<()> {
    ensure!(guest.console.command("/bench/sha256 1")?.contains("sum="));
    ensure!(get_patiently(guest.port(80)?, "/100k.bin")?.len() == 100 << 10);
    Ok(())
}

/// Text that the guest's terminal passes on as it is.
fn paste(len: usize) -> String {
    let mut state = 1_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + u8::try_from(state >> 58).unwrap_or(0))
    };
    (0..len).map(|_| letter()).collect()
}

/// Pastes into a raw terminal while `during` happens; returns how long that took. What comes is what was sent.
fn pasted(
    host: &Host,
    guest: &mut Guest<'_>,
    len: usize,
    during: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let text = paste(len);
    let into =
        format!("stty raw -echo; echo REA''DY; head -c {len} > /tmp/paste; stty sane; echo PAS''TED\n");
    guest.console.send(&into)?;
    guest.console.expect("READY")?;
    let start = Instant::now();
    guest.console.send(&text)?;
    during()?;
    guest.console.expect("PASTED")?;
    let took = start.elapsed();
    let file = host.directory().join("paste");
    std::fs::write(&file, text)?;
    let sum = process::output(Command::new("sha256sum").arg(file))?;
    let sum = sum.split_whitespace().next().context("a sum")?;
    let found = guest.console.command("sha256sum < /tmp/paste")?;
    ensure!(found.contains(sum), "the guest has something else: {found}");
    Ok(took)
}

/// A paste leaves time for everything else, and nothing of it is lost or doubled when the devices are killed meanwhile.
fn lives_on_under_a_paste(host: &Host, guest: &mut Guest<'_>) -> anyhow::Result<()> {
    guest.console.command("(/bench/tick > /tmp/tick &)")?;
    let took = pasted(host, guest, 20_000, || Ok(()))?;
    let ticks = guest.console.command("sleep 2; killall tick; cat /tmp/tick")?;
    let gaps = ticks
        .lines()
        .filter_map(|line| line.split_once("max gap ")?.1.strip_suffix(" ms")?.parse::<f64>().ok());
    let longest = gaps.fold(0.0, f64::max) / 1e3;
    // It stood still for all of it once. A loaded machine has gaps of its own.
    ensure!(longest > 0.0 && longest < took.as_secs_f64() / 2.0, "stood still for {longest} s of {took:?}");
    pasted(host, guest, 5000, || replace(host, "tough", "devices")).map(drop)
}

/// A process that is stopped is dead for everybody: another one takes its place.
fn hangs_are_deaths(host: &Host, guest: &mut Guest<'_>) -> anyhow::Result<()> {
    for role in ["mmu", "devices", "netswitch", "passt tough"] {
        let old = host.pid_of("tough", role)?;
        process::signal(old, Signal::SIGSTOP)?;
        // What asks it meanwhile is answered, with an error at worst.
        drop(host.json(&["stats", "tough", "--json"]));
        wait_for("a successor", || host.pid_of("tough", role).ok().filter(|new| *new != old))
            .with_context(|| format!("{role} was stopped"))?;
        works(guest).with_context(|| format!("{role} was stopped"))?;
    }
    // Its process lives, and the one thread that serves the guest does not go on.
    for role in ["mmu", "devices"] {
        let old = host.pid_of("tough", role)?;
        process::freeze_thread(old, role)?;
        wait_for("a successor", || host.pid_of("tough", role).ok().filter(|new| *new != old))
            .with_context(|| format!("a thread of {role} was stopped"))?;
        works(guest).with_context(|| format!("a thread of {role} was stopped"))?;
    }
    // A hart cannot be replaced: it is told of, and left to who has stopped it.
    let hart = host.pid_of("tough", "cpu0")?;
    process::signal(hart, Signal::SIGSTOP)?;
    let told = |view: &Value| view["degraded"].as_str().is_some_and(|why| why.contains("cpu0 is stopped"));
    wait_for("a word on the hart", || host.view("tough").ok().filter(told))?;
    ensure!(host.quasar(&["ps"])?.contains("cpu0 is stopped"), "{}", host.quasar(&["ps"])?);
    // Who needs it at rest does not wait for that.
    let file = host.directory().join("stopped.vm").display().to_string();
    let begun = Instant::now();
    for words in
        [&["suspend", "tough", &file][..], &["swap", "tough", "cpu", "--build", std::env::consts::ARCH]]
    {
        let refused = host.refusal(words)?;
        ensure!(refused.contains("cpu0 is stopped (SIGSTOP)"), "{words:?}: {refused}");
    }
    ensure!(begun.elapsed() < Duration::from_secs(15), "they waited for {:?}", begun.elapsed());
    process::signal(hart, Signal::SIGCONT)?;
    wait_for("the hart", || host.view("tough").ok().filter(|view| view["degraded"].is_null()))?;
    works(guest).context("a hart was stopped for some time")
}

/// A host that has no descriptors left for a moment loses nothing but time.
fn a_failed_start_is_no_death(host: &Host, guest: &mut Guest<'_>) -> anyhow::Result<()> {
    let daemon = host.pid();
    for role in ["mmu", "devices", "netswitch", "passt tough"] {
        let old = host.pid_of("tough", role)?;
        let before = process::limit_files(daemon, None)?;
        // Whatever is free below that was taken when the daemon was started.
        process::limit_files(daemon, Some(3))?;
        process::signal(old, Signal::SIGKILL)?;
        // A start takes several: it fails, and is tried again.
        std::thread::sleep(Duration::from_secs(1));
        process::limit_files(daemon, before)?;
        wait_for("a successor", || host.pid_of("tough", role).ok().filter(|new| *new != old))
            .with_context(|| format!("there was no room for {role}"))?;
        works(guest).with_context(|| format!("there was no room for {role}"))?;
    }
    let log = host.quasar(&["logs", "tough"])?;
    for role in ["mmu", "devices"] {
        let told = log.lines().any(|line| line.contains(&format!("{role}: cannot be started now")));
        ensure!(told, "{role} was started without descriptors: {log}");
    }
    ensure!(host.view("tough")?["phase"] == "running", "{}", host.view("tough")?);
    Ok(())
}

/// Who kills one process again and again makes its VM wait, and loses nothing of it.
fn giving_up_is_not_final(host: &Host, guest: &mut Guest<'_>) -> anyhow::Result<()> {
    let mut killed = 0;
    let degraded = wait_for("somebody who gives up", || {
        if let Ok(pid) = host.pid_of("tough", "mmu") {
            process::signal(pid, Signal::SIGKILL).ok()?;
            killed += 1;
        }
        let view = host.view("tough").ok()?;
        view["degraded"].as_str().filter(|why| why.contains("mmu has died") && killed > 6).map(str::to_owned)
    })?;
    ensure!(host.view("tough")?["phase"] == "running", "{degraded}: {}", host.view("tough")?);
    host.quasar(&["resume", "tough"])?;
    wait_for("an mmu", || host.view("tough").ok().filter(|view| view["degraded"].is_null()))?;
    works(guest).context("the mmu was killed again and again")
}

#[test]
fn killed_processes_are_replaced_under_the_guest() -> anyhow::Result<()> {
    let host = Host::start()?;
    let mut guest = Recipe::initramfs("tough")?.publish(80)?.start(&host)?;
    let survived = (|| {
        guest.boot()?;
        get_patiently(guest.port(80)?, "/")?;
        for role in ["mmu", "devices", "mmu"] {
            let mut kept = Connection::open(guest.port(80)?)?;
            ensure!(kept.get("/")?.0 == 200);
            replace(&host, "tough", role)?;
            works(&mut guest).with_context(|| format!("{role} was killed"))?;
            let (status, body) =
                kept.get("/1k.bin").with_context(|| format!("{role} was killed; the old connection"))?;
            ensure!((status, body.len()) == (200, 1024));
        }
        // A switch that hangs, or has just died, hides nothing of the host.
        ensure!(host_answers(&host)?["networks"]["networks"].is_array(), "{}", host_answers(&host)?);
        process::signal(host.pid_of("tough", "netswitch")?, Signal::SIGSTOP)?;
        let seen = host_answers(&host)?;
        // Its successor may have come in time to answer.
        ensure!(seen["networks"].is_null() == seen["networks_error"].is_string(), "{seen}");
        host_answers(&host)?;
        wait_for("a switch that answers", || {
            host_answers(&host).ok().filter(|seen| seen["networks"]["networks"].is_array())
        })?;
        replace(&host, "tough", "netswitch")?;
        works(&mut guest).context("netswitch was killed")?;
        hangs_are_deaths(&host, &mut guest)?;
        a_failed_start_is_no_death(&host, &mut guest)?;
        giving_up_is_not_final(&host, &mut guest)?;
        lives_on_under_a_paste(&host, &mut guest).context("a paste")
    })();
    guest.explain(survived)?;

    // A hart cannot be replaced yet: the VM is reported as failed, kept for inspection, and can be removed.
    let hart = host.pid_of("tough", "cpu0")?;
    process::signal(hart, Signal::SIGKILL)?;
    let view = host.wait_phase("tough", "failed")?;
    ensure!(view["reason"].as_str().is_some_and(|why| why.contains("cpu0")), "{view}");
    ensure!(host.refusal(&["resume", "tough"])?.contains("failed"));
    host.quasar(&["rm", "tough"])?;
    drop(guest);
    host.stop()
}
