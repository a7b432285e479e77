//! Two hosts with networks of their own, joined by a cable, who know one another by certificates: a guest moves there
//! and back under open connections, also when the cable is pulled out on the way. One boot, half a minute.
//! Needs root, for network namespaces.

use anyhow::{Context, bail, ensure};
use quasar_tests::crowd::Crowd;
use quasar_tests::http::get_patiently;
use quasar_tests::images::images;
use quasar_tests::namespace::Namespace;
use quasar_tests::pki::authority;
use quasar_tests::stream::{KeepAlive, Stream};
use quasar_tests::{Host, Recipe, process, step, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Output, Stdio};
use std::time::Duration;

/// A shell in the guest over one ssh connection.
struct Session {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Session {
    fn open(network: &Namespace, port: u16) -> anyhow::Result<Self> {
        let options = [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            "BatchMode=yes",
            "ConnectTimeout=120",
            "IdentitiesOnly=yes",
            // A dead connection ends the session instead of the test's patience.
            "ServerAliveInterval=30",
        ];
        let mut command = network.command("ssh");
        command.args(["-T", "-F", "none", "-p", &port.to_string(), "-i"]).arg(&images()?.ssh_key);
        command.args(options.iter().flat_map(|option| ["-o", option])).args(["root@127.0.0.1", "sh"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("ssh")?;
        let to = child.stdin.take().context("ssh's input")?;
        let from = BufReader::new(child.stdout.take().context("ssh's output")?);
        Ok(Self { child, to, from })
    }

    /// The answer of one line to a line.
    fn ask(&mut self, line: &str) -> anyhow::Result<String> {
        writeln!(self.to, "{line}").context("the ssh session is broken")?;
        let mut answer = String::new();
        ensure!(self.from.read_line(&mut answer)? > 0, "the ssh session has ended");
        Ok(answer.trim_end().to_owned())
    }

    fn close(mut self) -> anyhow::Result<()> {
        drop(self.to);
        ensure!(self.child.wait()?.success(), "ssh failed");
        Ok(())
    }
}

/// A migration in the background that takes some seconds.
fn begin(from: &Host, to: &Host) -> anyhow::Result<Child> {
    let address = to.address()?;
    let mut command = from.command(&["migrate", "web", "--to", &address, "--bandwidth", "16M", "--json"]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("quasar migrate")?;
    let arrives = || to.view("web").is_ok_and(|vm| vm["phase"] == "arriving");
    let ended = wait_for("its arrival", || match child.try_wait() {
        Ok(None) => arrives().then_some(false),
        _ => Some(true),
    })?;
    if ended {
        let out = child.wait_with_output()?;
        bail!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    }
    // Into a round.
    std::thread::sleep(Duration::from_millis(500));
    Ok(child)
}

/// The last event of a migration.
fn last(out: &Output) -> anyhow::Result<Value> {
    let text = String::from_utf8_lossy(&out.stdout);
    Ok(serde_json::from_str(text.lines().last().context("no event")?)?)
}

#[test]
fn a_guest_moves_between_two_networks_under_open_connections() -> anyhow::Result<()> {
    let keys = tempfile::tempdir()?;
    let ours = authority(&keys.path().join("ours"), &["a", "b"])?;
    let others = authority(&keys.path().join("others"), &["b"])?;
    let (left, right) = Namespace::pair()?;
    left.is_apart()?;
    right.is_apart()?;
    let a = Host::on(&left, &ours[0])?;
    let b = a.neighbour_on(&right, &ours[1])?;
    let stranger = a.neighbour_on(&right, &others[0])?;
    let mut guest = Recipe::initramfs("web")?.publish(22)?.publish(80)?.publish(7000)?.start(&a)?;
    let journeys = (|| {
        step("it boots", || guest.boot())?;
        guest.check_stream(7000)?;
        let (ssh, web, check) = (guest.port(22)?, guest.port(80)?, guest.port(7000)?);
        left.inside(|| get_patiently(web, "/1k.bin"))?;
        let client = left.inside(|| KeepAlive::open(web, "/1k.bin"))?;
        let stream = left.inside(|| Stream::open(check))?;
        stream.flows(50)?;
        let mut session = Session::open(&left, ssh)?;
        let shell = session.ask("echo $$")?;

        step("who has another authority's certificate gets nothing", || {
            let refused = a.refusal(&["migrate", "web", "--to", &stranger.address()?])?;
            ensure!(refused.contains("certificate") && refused.contains("goes on as before"), "{refused}");
            stranger.lacks("web")
        })?;

        let (_, switch) = a.doors()?;
        step("nothing goes where the network cannot follow, and the user is told why", || {
            right.may_call(switch.port(), false)?;
            let refused = a.refusal(&["migrate", "web", "--to", &b.address()?])?;
            right.may_call(switch.port(), true)?;
            ensure!(refused.contains("cannot follow") && refused.contains(&switch.to_string()), "{refused}");
            ensure!(a.view("web")?["phase"] == "running", "{}", a.view("web")?);
            b.wait_gone("web", "its remains to go")?;
            stream.flows(50)
        })?;

        step("there and back while strangers crowd both doors of either host", || {
            // From its own network and from the other's.
            let crowds = [&left, &right].map(|network| {
                network.inside(|| {
                    let doors = [a.doors()?, b.doors()?].map(|(vms, links)| [vms, links]).concat();
                    Crowd::at(&doors, 50)
                })
            });
            let _crowds = crowds.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
            let family = || process::descendants(b.pid());
            let movers = || family().iter().filter(|p| p.line.contains("quasar-migrator")).count();
            std::thread::sleep(Duration::from_secs(2));
            ensure!(movers() == 0, "{} processes were started for strangers", movers());
            for to in [&b, &a] {
                let events = guest.migrate(to, &["--max-downtime", "30"])?;
                let end = events.last().context("no event")?;
                ensure!(end["event"] == "completed", "{end}");
                ensure!(to.view("web")?["phase"] == "running", "{}", to.view("web")?);
                stream.flows(50)?;
                ensure!(session.ask("echo $$")? == shell, "another shell");
            }
            Ok(())
        })?;

        step("the cable is out for longer than a migrator waits: the guest goes on at home", || {
            let journey = begin(&a, &b)?;
            right.plug(false)?;
            let out = journey.wait_with_output()?;
            let end = last(&out)?;
            ensure!(!out.status.success() && end["event"] == "failed", "{end}");
            ensure!(a.view("web")?["phase"] == "running", "{}", a.view("web")?);
            stream.flows(50)?;
            right.plug(true)?;
            left.reaches(&right)?;
            b.wait_gone("web", "its remains to go")
        })?;

        step("for a moment: the journey goes on where it was", || {
            let journey = begin(&a, &b)?;
            right.plug(false)?;
            stream.flows(100)?;
            right.plug(true)?;
            let out = journey.wait_with_output()?;
            let end = last(&out)?;
            ensure!(out.status.success() && end["event"] == "completed", "{end}");
            guest.is_at(&b)?;
            ensure!(a.view("web")?["phase"] == "away", "{}", a.view("web")?);
            stream.flows(50)
        })?;

        step("a link that breaks afterwards, whoever had called, is seen, and comes back by itself", || {
            let calls = |may| {
                right.may_call(switch.port(), may)?;
                left.may_call(b.doors()?.1.port(), may)
            };
            calls(false)?;
            let down = wait_for("the link to be seen down", || {
                b.view("web").ok().and_then(|vm| vm["links_down"][0]["to"].as_str().map(ToOwned::to_owned))
            })?;
            let listed = b.quasar(&["ps"])?;
            calls(true)?;
            ensure!(down == switch.to_string() && listed.contains("down for"), "{listed}");
            wait_for("the link", || b.view("web").ok()?["links_down"].is_null().then_some(()))?;
            ensure!(b.view("web")?["phase"] == "running", "{}", b.view("web")?);
            stream.flows(50)?;
            ensure!(session.ask("echo $$")? == shell, "another shell");
            Ok(())
        })?;

        step("home again; its connections end whole", || {
            guest.migrate(&a, &["--max-downtime", "30"])?;
            stream.flows(50)?;
            let name = session.ask("hostname")?;
            ensure!(name == "web", "it is called {name:?}");
            session.close()?;
            let (requests, longest) = client.finish()?;
            let passed = stream.finish()?;
            eprintln!("{requests} requests, the longest {longest:?}; {passed:?}");
            ensure!(requests > 10 && passed.received > 300 && passed.sent > 300, "{requests} {passed:?}");
            Ok(())
        })
    })();
    let journeys = journeys.with_context(|| [&a, &b].map(|host| host.last_words("web")).concat());
    guest.explain(journeys)?;
    drop(guest);
    a.quasar(&["rm", "--force", "web"])?;
    for host in [stranger, b, a] {
        host.stop()?;
    }
    Ok(())
}
