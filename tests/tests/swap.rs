//! `quasar swap`: every process of a running guest is exchanged for builds of other architectures and back, while a
//! checked stream, requests over one connection and a verifying writer go on in it. One boot; the emulated processes
//! make the guest slower by an order of magnitude while they serve.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use quasar_tests::http::get_patiently;
use quasar_tests::process::signal;
use quasar_tests::stream::{KeepAlive, Stream};
use quasar_tests::{Guest, Host, Recipe, programs, step, wait_for};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

/// This machine's own architecture: where every tour ends.
const HOME: &str = std::env::consts::ARCH;

/// Blocks of the stream that must come before a step counts as survived.
const BLOCKS: u64 = 20;

/// A process of a VM, or the host's switch, as `quasar stats` lists it.
fn process(host: &Host, role: &str) -> anyhow::Result<Value> {
    let stats = host.json(&["stats", "web", "--json"])?;
    let all = stats["processes"].as_array().context("stats list no processes")?;
    all.iter().find(|p| p["role"] == role).cloned().with_context(|| format!("no process {role}: {all:?}"))
}

/// Nothing in the guest has complained, and the writer has verified something since this was asked last.
fn writer_is_content(guest: &mut Guest<'_>) -> anyhow::Result<()> {
    guest.no_complaint("memory")?;
    guest.console.command("while ! grep -q ' ok ' /tmp/memory; do sleep 1; done; : > /tmp/memory").map(drop)
}

struct Watched<'s> {
    host: &'s Host,
    stream: &'s Stream,
}

impl Watched<'_> {
    /// Swaps, and sees that it was done to this process alone, and that the guest lives.
    fn swap(&self, name: &str, arch: &str) -> anyhow::Result<()> {
        let role = if name == "cpu" { "cpu0" } else { name };
        let others = ["cpu0", "mmu", "devices", "netswitch"].into_iter().filter(|other| *other != role);
        let before: Vec<(&str, Value)> =
            others.map(|other| Ok((other, process(self.host, other)?))).collect::<anyhow::Result<_>>()?;
        let old = process(self.host, role)?;
        let start = Instant::now();
        let said = self.host.quasar(&["swap", "web", name, "--build", arch])?;
        ensure!(said.contains(&format!("a build for {arch}")), "{said}");
        let new = process(self.host, role)?;
        ensure!(new["arch"] == arch && new["pid"] != old["pid"], "{role}: {old}, then {new}");
        ensure!(new["restarts"] == old["restarts"], "a swap is no death: {old}, then {new}");
        for (other, before) in before {
            let now = process(self.host, other)?;
            ensure!(
                now["pid"] == before["pid"] && now["arch"] == before["arch"],
                "{other}: {before}, then {now}"
            );
        }
        self.stream.flows(BLOCKS)?;
        let stood = said.lines().last().unwrap_or_default();
        eprintln!("{name} for {arch}: {stood}; with {BLOCKS} blocks after it {:?}", start.elapsed());
        Ok(())
    }

    /// A program that cannot serve: what failed is said, the old one is in its place, and the guest has lost nothing.
    fn refused(&self, name: &str, program: &Path, why: &str) -> anyhow::Result<()> {
        let program = program.to_str().context("a path")?;
        let before = self.host.json(&["stats", "web", "--json"])?["harts"][0]["instructions"].as_u64();
        let refused = self.host.refusal(&["swap", "web", name, "--exe", program])?;
        ensure!(refused.contains(why), "{name} by {program} should be refused for {why:?}: {refused}");
        // A migrator serves nobody yet.
        let old = "the old program is in its place again";
        ensure!(name == "migrator" || refused.contains(old), "{name}: {refused}");
        ensure!(self.host.view("web")?["phase"] == "running", "{}", self.host.view("web")?);
        self.stream.flows(BLOCKS)?;
        let after = self.host.json(&["stats", "web", "--json"])?["harts"][0]["instructions"].as_u64();
        ensure!(before < after, "{name}: the guest has stood at {before:?} since, now {after:?}");
        Ok(())
    }

    /// The hart: little to big endian, back, and so on.
    fn hart(&self) -> anyhow::Result<()> {
        ["powerpc64", "aarch64", "s390x", "riscv64", HOME].iter().try_for_each(|arch| self.swap("cpu", arch))
    }

    /// The others, each on both byte orders.
    fn others(&self) -> anyhow::Result<()> {
        ["mmu", "devices", "netswitch"]
            .iter()
            .try_for_each(|name| ["s390x", "riscv64", HOME].iter().try_for_each(|arch| self.swap(name, arch)))
    }

    /// All of them at once, of three architectures; one that dies is replaced by its own kind.
    fn mixed(&self, guest: &mut Guest<'_>) -> anyhow::Result<()> {
        let mixed =
            [("cpu", "powerpc64"), ("mmu", "s390x"), ("devices", "aarch64"), ("netswitch", "powerpc64")];
        mixed.iter().try_for_each(|(name, arch)| self.swap(name, arch))?;
        let dead = self.host.pid_of("web", "mmu")?;
        signal(dead, Signal::SIGKILL)?;
        let reborn = wait_for("another mmu", || process(self.host, "mmu").ok().filter(|p| p["pid"] != dead))?;
        ensure!(reborn["arch"] == "s390x" && reborn["restarts"] == 1, "{reborn}");
        self.stream.flows(BLOCKS)?;
        writer_is_content(guest)?;
        mixed.iter().try_for_each(|(name, _)| self.swap(name, HOME))
    }

    /// What cannot serve makes way for what did.
    fn unfit(&self) -> anyhow::Result<()> {
        let broken = self.host.directory().join("broken");
        std::fs::write(&broken, "#!/bin/sh\necho broken by design >&2\nexit 3\n")?;
        std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755))?;
        for name in ["cpu", "mmu", "devices", "netswitch", "migrator"] {
            self.refused(name, &broken, "ended with exit status 3")?;
        }
        // A build of ours that is another process's.
        let sibling = programs::foreign("s390x")?.join("quasar-mmu");
        for name in ["cpu", "devices", "migrator", "netswitch"] {
            self.refused(name, &sibling, "it says it is quasar-mmu")?;
        }
        for (name, program) in [("mmu", "/nonexistent"), ("netswitch", "/nonexistent/too")] {
            let refused = self.host.refusal(&["swap", "web", name, "--exe", program])?;
            ensure!(refused.contains(program), "{name}: {refused}");
        }
        let unknown = self.host.refusal(&["swap", "web", "cpu", "--build", "vax"])?;
        ensure!(unknown.contains("vax") && unknown.contains("powerpc64"), "{unknown}");
        let seventh = self.host.refusal(&["swap", "web", "cpu7", "--build", "s390x"])?;
        ensure!(seventh.contains("cpu0"), "{seventh}");
        Ok(())
    }
}

/// A VM's journeys, made by a big-endian migrator from here, and by another from there.
fn journeys<'h>(a: &'h Host, b: &'h Host, guest: &mut Guest<'h>, stream: &Stream) -> anyhow::Result<()> {
    for (from, to, arch) in [(a, b, "powerpc64"), (b, a, "s390x"), (a, b, "aarch64"), (b, a, "riscv64")] {
        let said = from.quasar(&["swap", "web", "migrator", "--build", arch])?;
        ensure!(said.contains(&format!("a build for {arch}")), "{said}");
        let start = Instant::now();
        let events = guest.migrate(to, &["--max-downtime", "300"])?;
        let last = events.last().context("no event")?;
        ensure!(
            last["event"] == "completed" && last["hash"].as_str().is_some_and(|h| h.len() == 64),
            "{last}"
        );
        stream.flows(BLOCKS)?;
        eprintln!("moved by a migrator for {arch}: {:?}; {last}", start.elapsed());
    }
    Ok(())
}

#[test]
fn every_process_of_a_running_guest_is_swapped_over_four_architectures() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let b = a.neighbour()?;
    let recipe = Recipe::initramfs("web")?.with(&["--memory", "192M"]).append("quiet");
    let mut guest = recipe.publish(80)?.publish(7000)?.start(&a)?;
    let tour = (|| {
        let (client, stream) = step("boot and connections", || {
            guest.boot()?;
            guest.check_stream(7000)?;
            guest.console.command("(/bench/verify 2 > /tmp/memory 2>&1 &)")?;
            get_patiently(guest.port(80)?, "/1k.bin")?;
            Ok((KeepAlive::open(guest.port(80)?, "/1k.bin")?, Stream::open(guest.port(7000)?)?))
        })?;
        step("the stream flows", || stream.flows(BLOCKS))?;
        let watched = Watched { host: &a, stream: &stream };
        step("the hart", || watched.hart())?;
        step("its writer is content", || writer_is_content(&mut guest))?;
        step("mmu, devices and switch", || watched.others())?;
        step("its writer is content", || writer_is_content(&mut guest))?;
        step("all of them mixed", || watched.mixed(&mut guest))?;
        step("what cannot serve", || watched.unfit())?;
        step("journeys", || journeys(&a, &b, &mut guest, &stream))?;
        step("its writer is content", || writer_is_content(&mut guest))?;
        step("the connections end whole", || {
            let (requests, longest) = client.finish()?;
            let passed = stream.finish()?;
            eprintln!("{requests} requests, the longest {longest:?}; {passed:?}");
            ensure!(requests > 10 && passed.sent > 500 && passed.received > 500, "{requests} {passed:?}");
            Ok(())
        })
    })();
    guest.explain(tour)?;
    drop(guest);
    a.quasar(&["rm", "--force", "web"])?;
    a.stop()?;
    b.stop()
}
