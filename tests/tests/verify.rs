//! `quasar run --icount` and `quasar verify`: a deterministic VM goes on in the same way wherever it is. About a minute.
//! Other architectures are in `foreign.rs`.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use quasar_tests::{Host, Recipe, wait_for};
use serde_json::Value;

fn verify(host: &Host, instructions: &str) -> anyhow::Result<String> {
    let verified = host.json(&["verify", "det", "--instructions", instructions, "--json"])?;
    let run = &verified["runs"][0];
    ensure!(run["outcome"]["kind"] == "limit", "{verified}");
    Ok(run["hash"].as_str().context("a hash")?.to_owned())
}

/// What a copy comes to depends on nothing but the VM's state, which a migration does not change. Copies have disks of
/// their own.
#[test]
fn a_vm_goes_on_in_the_same_way_at_its_source_and_its_destination() -> anyhow::Result<()> {
    const MANY: &str = "60000000";
    let source = Host::listening()?;
    let destination = source.neighbour()?;
    let disk = source.directory().join("disk.img");
    std::fs::File::create(&disk)?.set_len(8 << 20)?;
    let recipe = Recipe::initramfs("det")?.with(&["--icount", "--memory", "256M", "--disk"]);
    let mut guest = recipe.with(&[&disk.display().to_string()]).start(&source)?;
    let result = (|| {
        guest.boot()?;
        // Copied while it runs, at some instruction, with a process at work.
        let write = "dd if=/dev/urandom of=/dev/vda bs=64k count=10 conv=fsync 2> /dev/null";
        guest.console.command(&format!("{{ (while :; do {write}; done) & }}"))?;
        let own = ["--build", std::env::consts::ARCH, "--json"];
        source.json(&[&["verify", "det", "--instructions", "1000000"][..], &own].concat())?;
        source.quasar(&["pause", "det"])?;
        let before = std::fs::read(&disk)?;
        let first = verify(&source, MANY)?;
        ensure!(verify(&source, MANY)? == first, "twice the same");
        ensure!(verify(&source, "60000001")? != first, "another instruction makes a difference");
        ensure!(std::fs::read(&disk)? == before, "a copy wrote to the VM's own disk");
        ensure!(source.view("det")?["phase"] == "paused", "it stays paused");
        guest.migrate(&destination, &[])?;
        ensure!(verify(&destination, MANY)? == first, "the same at the destination");
        destination.quasar(&["resume", "det"])?;
        guest.console.command("kill $! && echo it lives").map(drop)
    })();
    guest.explain(result)?;
    drop(guest);
    destination.quasar(&["rm", "--force", "det"])?;
    wait_for("what it had to go", || destination.remains("det").is_empty().then_some(()))?;
    destination.stop()
}

#[test]
fn what_cannot_be_verified_is_refused_with_the_reason() -> anyhow::Result<()> {
    let host = Host::start()?;
    let recipe =
        |name| Recipe::initramfs(name).map(|recipe| recipe.with(&["--net", "none", "--memory", "192M"]));
    let two = recipe("two")?.with(&["--icount", "--harts", "2"]);
    ensure!(host.refusal(&two.arguments())?.contains("has one hart, not 2"));
    host.quasar(&recipe("real")?.arguments())?;
    ensure!(host.refusal(&["verify", "real", "--instructions", "5"])?.contains("icount"));
    host.quasar(&recipe("det")?.with(&["--icount"]).arguments())?;
    ensure!(host.refusal(&["verify", "det", "--instructions", "0"])?.contains("number of instructions"));
    let missing =
        host.refusal(&["verify", "det", "--instructions", "5", "--exe-for", "cpu=/nonexistent/cpu"])?;
    ensure!(missing.contains("/nonexistent/cpu"), "{missing}");
    // A program that does not serve: the VM is none the worse for it.
    host.refusal(&["verify", "det", "--instructions", "5", "--exe-for", "cpu=/bin/true"])?;
    let views: Vec<Value> =
        ["real", "det"].iter().map(|name| host.view(name)).collect::<anyhow::Result<_>>()?;
    ensure!(views.iter().all(|view| view["phase"] == "running"), "{views:?}");
    host.stop()
}
