//! Migrators that are killed: at either side in every phase, then at the destination at ten times in a row. Whatever
//! comes of it, one whole guest runs, under a connection that never breaks. One boot, about a minute.

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use quasar_tests::process::{descendants, signal};
use quasar_tests::stream::Stream;
use quasar_tests::{Guest, Host, Recipe, leftovers, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Instant;

/// A migration in the background, event by event.
struct Journey {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    last: Value,
}

impl Journey {
    fn begin(from: &Host, to: &Host) -> anyhow::Result<Self> {
        let address = to.address()?;
        let mut command = from.command(&["migrate", "web", "--to", &address, "--bandwidth", "32M", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().context("quasar migrate")?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        Ok(Self { child, lines, last: Value::Null })
    }

    fn next(&mut self) -> anyhow::Result<bool> {
        let Some(line) = self.lines.next() else { return Ok(false) };
        self.last = serde_json::from_str(&line?)?;
        Ok(true)
    }

    /// Waits for a phase, the end of a round or another event.
    fn until(&mut self, moment: &str) -> anyhow::Result<()> {
        while self.next()? {
            if self.last["event"] == moment || self.last["phase"] == moment {
                return Ok(());
            }
        }
        bail!("it ended before {moment:?}: {}", self.last)
    }

    /// Its last event.
    fn end(mut self) -> anyhow::Result<Value> {
        while self.next()? {}
        self.child.wait()?;
        Ok(self.last)
    }
}

fn migrator(host: &Host) -> Option<u32> {
    let family = descendants(host.pid());
    family.iter().find(|process| process.line.contains("quasar-migrator")).map(|process| process.pid)
}

/// Sends the migrator of a host a signal, if there is one still.
fn to_migrator(host: &Host, what: Signal) {
    if let Some(pid) = migrator(host) {
        // An error says that it has ended by itself.
        drop(signal(pid, what));
    }
}

fn kill_migrator(host: &Host) {
    to_migrator(host, Signal::SIGKILL);
}

/// Migrators that are stopped and never go on: nobody waits for them, and the guest does not stand still with them.
fn stopped<'h>(guest: &mut Guest<'h>, (a, b): (&'h Host, &'h Host), stream: &Stream) -> anyhow::Result<()> {
    for (moment, victim) in [("rounds", b), ("pause", a), ("handing_over", b)] {
        let mut journey = Journey::begin(a, b)?;
        journey.until(moment)?;
        to_migrator(victim, Signal::SIGSTOP);
        let last = journey.end()?;
        eprintln!("{moment}, stopped: {}", settle(guest, (a, b), stream, &last)?);
    }
    let mut journey = Journey::begin(a, b)?;
    journey.until("rounds")?;
    to_migrator(a, Signal::SIGSTOP);
    let cancelled = a.command(&["migrate", "web", "--cancel"]).output()?;
    let said = String::from_utf8_lossy(&cancelled.stderr).into_owned();
    let last = journey.end()?;
    ensure!(
        last["event"] == "failed" && last["error"].as_str().is_some_and(|why| why.contains("stopped")),
        "{last} {said}"
    );
    settle(guest, (a, b), stream, &last).map(drop)
}

/// A destination whose hart dies or is stopped before the VM has come: the VM stays where it is.
fn unfit<'h>(guest: &mut Guest<'h>, (a, b): (&'h Host, &'h Host), stream: &Stream) -> anyhow::Result<()> {
    for what in [Signal::SIGKILL, Signal::SIGSTOP] {
        let mut journey = Journey::begin(a, b)?;
        journey.until("rounds")?;
        let family = descendants(b.pid());
        let hart = family.iter().find(|process| process.line.contains("quasar-cpu")).context("no hart")?.pid;
        signal(hart, what)?;
        let last = journey.end()?;
        ensure!(
            last["event"] == "failed" && last["error"].as_str().is_some_and(|why| why.contains("cpu0")),
            "{what}: {last}"
        );
        settle(guest, (a, b), stream, &last)?;
    }
    Ok(())
}

/// A migrator has what travels, and nothing else of a VM.
fn has_its_own(host: &Host) -> anyhow::Result<()> {
    let pid = migrator(host).context("no migrator")?;
    let mapped = leftovers::kinds_of(pid, host.pid(), "web")?;
    ensure!(mapped == "console control devices maps ram", "the migrator has {mapped}");
    Ok(())
}

/// Decides what its user would decide, and sees the guest at `home`, whole, with nothing left at `abroad`. Returns how
/// the journey ended.
fn settle<'h>(
    guest: &mut Guest<'h>,
    (home, abroad): (&'h Host, &'h Host),
    stream: &Stream,
    last: &Value,
) -> anyhow::Result<String> {
    let runs_at = |host: &Host| host.view("web").is_ok_and(|view| view["phase"] == "running");
    let arriving = || abroad.view("web").is_ok_and(|view| view["phase"] == "arriving");
    wait_for("an end at the other side", || (!arriving()).then_some(()))?;
    let end = last["event"].as_str().context("no event")?;
    match end {
        "failed" => ensure!(!runs_at(abroad), "it runs at both: {last}"),
        "completed" => {}
        "unclear" => {
            ensure!(home.view("web")?["phase"] == "paused", "{}", home.view("web")?);
            let word = if runs_at(abroad) { &["rm", "--force", "web"][..] } else { &["resume", "web"] };
            home.quasar(word)?;
        }
        _ => bail!("{last}"),
    }
    if runs_at(abroad) {
        ensure!(home.view("web")?["phase"] == "away", "{}", home.view("web")?);
        guest.is_at(abroad)?;
        stream.flows(20)?;
        guest.migrate(home, &[])?;
    }
    ensure!(runs_at(home), "{}", home.view("web")?);
    stream.flows(20)?;
    let gone = wait_for("its remains to go", || abroad.remains("web").is_empty().then_some(()));
    gone.with_context(|| format!("left behind: {:?}", abroad.remains("web")))?;
    Ok(end.to_owned())
}

#[test]
fn a_migrator_that_is_killed_at_any_time_leaves_one_whole_guest() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let b = a.neighbour()?;
    let recipe = Recipe::initramfs("web")?.with(&["--memory", "192M"]).append("quiet gsvc=none");
    let mut guest = recipe.publish(7000)?.start(&a)?;
    let trials = (|| {
        guest.boot()?;
        guest.check_stream(7000)?;
        guest.console.command("(/bench/verify 8 > /tmp/memory 2>&1 &)")?;
        let stream = Stream::open(guest.port(7000)?)?;
        for moment in ["negotiate", "rounds", "round", "pause", "handing_over"] {
            for victim in [&b, &a] {
                let mut journey = Journey::begin(&a, &b)?;
                journey.until(moment)?;
                if moment == "rounds" {
                    has_its_own(victim)?;
                }
                kill_migrator(victim);
                let last = journey.end()?;
                let end = settle(&mut guest, (&a, &b), &stream, &last)?;
                eprintln!(
                    "{moment}, {}: {end}",
                    if victim.pid() == a.pid() { "source" } else { "destination" }
                );
            }
        }
        stopped(&mut guest, (&a, &b), &stream).context("stopped migrators")?;
        unfit(&mut guest, (&a, &b), &stream).context("the destination's hart")?;
        let begun = Instant::now();
        let last = Journey::begin(&a, &b)?.end()?;
        let usual = begun.elapsed();
        settle(&mut guest, (&a, &b), &stream, &last)?;
        // Ten times spread over a journey, each at another place in its tenth.
        for tenth in 0..10 {
            let journey = Journey::begin(&a, &b)?;
            std::thread::sleep(usual * (tenth * 10 + tenth * 7 % 10) / 100);
            kill_migrator(&b);
            let last = journey.end()?;
            eprintln!("{tenth} tenths: {}", settle(&mut guest, (&a, &b), &stream, &last)?);
        }
        let last = Journey::begin(&a, &b)?.end()?;
        ensure!(last["event"] == "completed", "{last}");
        guest.is_at(&b)?;
        stream.flows(50)?;
        let passed = stream.finish()?;
        ensure!(passed.sent > 300 && passed.received > 300, "{passed:?}");
        guest.no_complaint("memory")
    })();
    let trials = trials.with_context(|| b.last_words("web"));
    guest.explain(trials)?;
    drop(guest);
    b.quasar(&["rm", "--force", "web"])?;
    a.wait_gone("web", "home to hear of its end")?;
    a.stop()?;
    b.stop()
}
