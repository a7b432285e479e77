//! Whole hosts of other architectures: a daemon, its processes and its switch, all builds for one architecture and
//! emulated, in a network of their own. A guest moves there from this machine's own host and back, under a checked
//! stream and with a verifying writer in it; the migrators compare the hashes of its memory and state. Needs root, for
//! network namespaces. A minute for each tour's first hop and half a one for each more.

use anyhow::{Context, ensure};
use quasar_tests::namespace::Namespace;
use quasar_tests::pki::authority;
use quasar_tests::stream::Stream;
use quasar_tests::{Guest, Host, Recipe};
use std::time::Instant;

/// Blocks of the stream that must come before a step counts as survived.
const BLOCKS: u64 = 20;

/// All processes of the VM and of the host's network are builds for this architecture.
fn is_all(host: &Host, arch: &str) -> anyhow::Result<()> {
    let stats = host.json(&["stats", "web", "--json"])?;
    let all = stats["processes"].as_array().context("stats list no processes")?;
    for role in ["cpu0", "mmu", "devices", "netswitch"] {
        let found =
            all.iter().find(|p| p["role"] == role).with_context(|| format!("no {role} in {all:?}"))?;
        ensure!(found["arch"] == arch, "{found}");
    }
    Ok(())
}

/// One migration: alive, whole, and of the same hash at both ends, or it would have failed.
fn hop<'h>(guest: &mut Guest<'h>, stream: &Stream, to: &'h Host, arch: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let events = guest.migrate(to, &["--max-downtime", "1000"])?;
    let took = start.elapsed();
    let end = events.last().context("no event")?;
    ensure!(end["event"] == "completed" && end["hash"].as_str().is_some_and(|h| h.len() == 64), "{end}");
    is_all(to, arch)?;
    stream.flows(BLOCKS)?;
    let flowed = start.elapsed();
    guest.no_complaint("memory")?;
    guest.console.command(": > /tmp/memory; while ! grep -q ' ok ' /tmp/memory; do sleep 1; done")?;
    eprintln!(
        "to {arch}: {took:?}; {BLOCKS} blocks and a verified page later {flowed:?}, {:?}: {end}",
        start.elapsed()
    );
    Ok(())
}

/// From home to a host of each of these architectures, one after another, and back.
fn tour(archs: &[&str]) -> anyhow::Result<()> {
    let keys = tempfile::tempdir()?;
    let names = ["home", "abroad", "further"];
    let keys = authority(keys.path(), &names)?;
    let (left, right) = Namespace::pair()?;
    let home = Host::on(&left, &keys[0])?;
    // Two that take turns: those abroad talk to one another as well.
    let mut hosts = vec![];
    for (arch, place) in archs.iter().zip([(&right, &keys[1]), (&left, &keys[2])].into_iter().cycle()) {
        hosts.push(home.foreign_neighbour_on(place.0, place.1, arch)?);
    }
    let recipe = Recipe::initramfs("web")?.with(&["--memory", "192M"]).append("quiet").publish(7000)?;
    let mut guest = recipe.start(&home)?;
    let journeys = (|| {
        guest.boot()?;
        guest.check_stream(7000)?;
        guest.console.command("(/bench/verify 2 > /tmp/memory 2>&1 &)")?;
        let check = guest.port(7000)?;
        let stream = left.inside(|| Stream::open(check))?;
        stream.flows(BLOCKS)?;
        for (host, arch) in hosts.iter().zip(archs) {
            hop(&mut guest, &stream, host, arch)?;
            ensure!(home.view("web")?["phase"] == "away", "{}", home.view("web")?);
        }
        hop(&mut guest, &stream, &home, std::env::consts::ARCH)?;
        let passed = stream.finish()?;
        eprintln!("{passed:?}");
        ensure!(passed.sent > 40 && passed.received > 40, "{passed:?}");
        Ok(())
    })();
    let all = std::iter::once(&home).chain(&hosts);
    let journeys = journeys.with_context(|| all.map(|host| host.last_words("web")).collect::<String>());
    guest.explain(journeys)?;
    drop(guest);
    home.quasar(&["rm", "--force", "web"])?;
    hosts.into_iter().try_for_each(Host::stop)?;
    home.stop()
}

#[test]
fn a_guest_moves_to_a_big_endian_host_and_back() -> anyhow::Result<()> {
    tour(&["powerpc64"])
}

#[test]
fn a_guest_tours_hosts_of_three_architectures() -> anyhow::Result<()> {
    tour(&["powerpc64", "aarch64", "s390x"])
}

/// What a copy of a deterministic VM comes to, by the programs of the host where it is.
fn verify(host: &Host, arch: &str) -> anyhow::Result<String> {
    let verified = host.json(&["verify", "det", "--instructions", "10000000", "--json"])?;
    let run = &verified["runs"][0];
    ensure!(run["outcome"]["kind"] == "limit" && run["programs"]["cpu0"] == arch, "{verified}");
    Ok(run["hash"].as_str().context("a hash")?.to_owned())
}

#[test]
fn a_vm_goes_on_in_the_same_way_at_a_big_endian_host() -> anyhow::Result<()> {
    const HOME: &str = std::env::consts::ARCH;
    let home = Host::listening()?;
    let abroad = home.foreign_neighbour("powerpc64")?;
    let recipe = Recipe::initramfs("det")?.with(&["--icount", "--memory", "192M", "--net", "none"]);
    let mut guest = recipe.start(&home)?;
    let journeys = (|| {
        guest.console.expect("Linux version")?;
        home.quasar(&["pause", "det"])?;
        let first = verify(&home, HOME)?;
        guest.migrate(&abroad, &["--max-downtime", "1000"])?;
        ensure!(verify(&abroad, "powerpc64")? == first, "it goes on otherwise abroad");
        // Somewhat further, there, and home again.
        abroad.quasar(&["resume", "det"])?;
        guest.console.expect("Memory:")?;
        abroad.quasar(&["pause", "det"])?;
        let further = verify(&abroad, "powerpc64")?;
        ensure!(further != first, "it has not gone on");
        guest.migrate(&home, &["--max-downtime", "1000"])?;
        ensure!(verify(&home, HOME)? == further, "it goes on otherwise at home");
        Ok(())
    })();
    guest.explain(journeys)?;
    drop(guest);
    home.quasar(&["rm", "--force", "det"])?;
    abroad.stop()?;
    home.stop()
}
