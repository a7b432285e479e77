//! What `.ci/run` runs.

use crate::command::{self, cargo, output};

/// Formatting, lints, licences, bans, sources; advisories where their database can be reached.
pub fn run() -> anyhow::Result<()> {
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

/// All tests: first those of each crate, then the end-to-end tests one at a time.
pub fn tests(filter: Option<&str>) -> anyhow::Result<()> {
    // The end-to-end tests start the release builds of all processes.
    command::run(cargo().args(["build", "--release", "--workspace", "--all-targets", "--locked"]))?;
    let mut all = cargo();
    all.args(["test", "--release", "--workspace", "--locked", "--no-fail-fast"]);
    all.args(filter);
    command::run(&mut all)
}

/// Virtual machines with processes of other architectures.
pub fn foreign(filter: Option<&str>) -> anyhow::Result<()> {
    command::run(cargo().args(["build", "--release", "--workspace", "--locked"]))?;
    crate::cross::build(&crate::cross::all(), false)?;
    let mut all = cargo();
    all.args([
        "test",
        "--release",
        "--locked",
        "-p",
        "quasar-tests",
        "--features",
        "foreign",
        "--test",
        "foreign",
    ]);
    all.args(filter);
    command::run(&mut all)
}
