//! Bare programs of our own, `guest/bare/*.S`, under `quasar isa run`. Each says in its header comment how it is to
//! be run and what must come of it:
//!
//! ```text
//! # run: --harts 2          further options (none by default)
//! # exit: 0                 exit status
//! # output: text            what it prints, without the final newline (nothing by default)
//! # signature: 0000002a     its only line
//! ```

use crate::programs;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

const COMPILER: &str = "riscv64-linux-gnu-gcc";

/// What a program's header says.
#[derive(Debug)]
struct Expectation {
    options: Vec<String>,
    exit: i32,
    output: String,
    signature: Option<String>,
}

impl Expectation {
    fn of(source: &str) -> Self {
        let field = |name: &str| {
            let prefix = format!("# {name}: ");
            source.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        };
        Self {
            options: field("run").iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect(),
            exit: field("exit").expect("a header says how the program exits").parse().expect("a number"),
            output: field("output").unwrap_or_default(),
            signature: field("signature"),
        }
    }
}

/// All programs.
pub const PROGRAMS: &[&str] =
    &["atomics", "clockwork", "fencei", "float", "htif", "interrupts", "limit", "pagefault", "timer", "wfi"];

/// Those with one hart, which can run in deterministic mode.
pub const DETERMINISTIC: &[&str] =
    &["clockwork", "fencei", "float", "htif", "interrupts", "limit", "pagefault", "timer"];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/bare").join(name).with_extension("S")
}

/// The hash of the machine after a program has run in deterministic mode, with more arguments of `quasar isa run`.
///
/// # Errors
/// When it ends otherwise than its header says, or there is no hash.
pub fn hash(name: &str, arguments: &[String]) -> anyhow::Result<String> {
    let source = source(name);
    let expectation = Expectation::of(&std::fs::read_to_string(&source)?);
    let directory = tempfile::tempdir()?;
    let program = assemble(&source, directory.path());
    let mut command = Command::new(programs::quasar()?);
    command
        .args(["isa", "run", "--icount", "--hash"])
        .args(&expectation.options)
        .args(arguments)
        .arg(&program);
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let context = format!("{name} {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.code() == Some(expectation.exit), "{context}");
    hash_in(&said).with_context(|| context)
}

/// The hash that `quasar isa run --hash` printed.
#[must_use]
pub fn hash_in(said: &str) -> Option<String> {
    let (_, hash) = said.trim_end().rsplit_once("hash: ")?;
    (hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())).then(|| hash.to_owned())
}

/// Runs a program, with more arguments of `quasar isa run`, and compares what comes of it with its header.
///
/// # Panics
/// When anything else comes of it.
pub fn check(name: &str, arguments: &[String]) {
    let source = source(name);
    let text = std::fs::read_to_string(&source).expect("the program's source");
    let expectation = Expectation::of(&text);
    let directory = tempfile::tempdir().expect("a directory");
    let program = assemble(&source, directory.path());
    let signature = directory.path().join("signature");

    let mut command = Command::new(programs::quasar().expect("the programs under test"));
    command.args(["isa", "run"]).args(&expectation.options).args(arguments);
    if expectation.signature.is_some() {
        command.arg("--signature").arg(&signature);
    }
    let output = command.arg(&program).output().expect("quasar starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let context = format!("{name} {arguments:?}: {}{}", said, String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(expectation.exit), "{context}");
    assert_eq!(said.trim_end_matches('\n'), expectation.output, "{context}");
    if let Some(expected) = expectation.signature {
        let found = std::fs::read_to_string(&signature).expect("a signature");
        assert_eq!(found.trim_end(), expected, "{context}");
    }
}

/// A program, made in a directory.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn program(name: &str, directory: &Path) -> PathBuf {
    assemble(&source(name), directory)
}

fn assemble(source: &Path, directory: &Path) -> PathBuf {
    let program = directory.join("program.elf");
    let output = Command::new(COMPILER)
        .args([
            "-nostdlib",
            "-static",
            "-no-pie",
            "-march=rv64gc",
            "-mabi=lp64d",
            "-Wl,--build-id=none",
            "-T",
        ])
        .arg(source.with_file_name("bare.ld"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap_or_else(|error| panic!("{COMPILER}: {error}; install the package gcc-riscv64-linux-gnu"));
    assert!(output.status.success(), "{COMPILER}: {}", String::from_utf8_lossy(&output.stderr));
    program
}
