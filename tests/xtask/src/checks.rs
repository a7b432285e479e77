//! What `.ci/run` runs.

use crate::command::{self, cargo, output};
use crate::cross;
use crate::rules;
use crate::stage::stage;
use std::time::Instant;

/// The rules of the house, formatting, lints, models, licences, bans, sources; advisories where their database can be reached.
pub fn run() -> anyhow::Result<()> {
    rules::run()?;
    command::run(cargo().args(["fmt", "--all", "--check"]))?;
    command::run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    models()?;
    command::run(cargo().args(["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]))?;
    match output(cargo().args(["deny", "--log-level", "error", "fetch", "db"])) {
        Ok(_) => command::run(cargo().args([
            "deny",
            "--log-level",
            "error",
            "check",
            "--disable-fetch",
            "advisories",
        ])),
        Err(error) => {
            eprintln!("advisories not checked, their database cannot be reached: {error:#}");
            Ok(())
        }
    }
}

/// The protocols of shared memory in every interleaving (docs/memory-ordering.md). A target directory of its own,
/// because the flag concerns every crate.
fn models() -> anyhow::Result<()> {
    let mut models = cargo();
    models.args(["test", "--release", "--locked", "-p", "quasar-abi", "--test", "loom"]);
    models.args(["--target-dir", "target/loom"]).env("RUSTFLAGS", "--cfg loom");
    command::run(&mut models)
}

/// The big-endian architecture whose builds of the contract, the instructions and floating point are tested as well.
const OTHER_ORDER: &str = "s390x-unknown-linux-gnu";

/// All tests: first those that depend on the architecture as a big-endian build, then those of each crate, then the
/// end-to-end tests one at a time.
pub fn tests(filter: Option<&str>) -> anyhow::Result<()> {
    // The end-to-end tests start the release builds of all processes, for this machine and for the others.
    timed("builds", || {
        command::build(cargo().args(["build", "--release", "--workspace", "--all-targets", "--locked"]))
    })?;
    timed("builds for other architectures", || cross::build(&cross::all(), false))?;
    timed("tests as big-endian builds", || cross::test(&[OTHER_ORDER.to_owned()], filter))?;
    let mut all = cargo();
    all.args(["test", "--release", "--workspace", "--locked", "--no-fail-fast"]);
    all.args(filter);
    timed("tests", || command::run(&mut all))
}

/// Does a part of the work and says how long it took.
fn timed(what: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    stage(what);
    let start = Instant::now();
    work()?;
    eprintln!("{what}: {} s", start.elapsed().as_secs());
    Ok(())
}
