//! Completion of command lines: the scripts that shells load, and the names of VMs, for which the daemon is asked.

use super::client::Client;
use anyhow::Context;
use clap_complete::engine::ValueCompleter;
use clap_complete::env::Shells;
use clap_complete::{ArgValueCompleter, CompletionCandidate, PathCompleter};
use quasar_abi::output::{OutputError, Stdout};
use quasar_api::VmView;
use quasar_places::Paths;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Where a shell says that it wants completions, and which.
const VARIABLE: &str = "COMPLETE";
/// Nobody waits longer for a key press to do something.
const PATIENCE: Duration = Duration::from_secs(1);

/// Processes that `quasar kill` knows.
pub const PROCESSES: [&str; 7] = ["cpu", "cpu0", "mmu", "devices", "netswitch", "passt", "migrator"];

/// Answers a shell that asks for completions of this command line, and ends the process then.
pub fn answer_shells(line: impl Fn() -> clap::Command) {
    clap_complete::CompleteEnv::with_factory(line).var(VARIABLE).complete();
}

/// Completes the names of VMs.
#[must_use]
pub fn names() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| beginning_with(typed, vms().into_iter()))
}

/// Completes the names of VMs, and of files.
#[must_use]
pub fn names_or_files() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let mut found = beginning_with(typed, vms().into_iter());
        found.extend(PathCompleter::file().complete(typed));
        found
    })
}

/// Completes the names of processes.
#[must_use]
pub fn processes() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        beginning_with(typed, PROCESSES.into_iter().map(|name| (name.to_owned(), None)))
    })
}

fn beginning_with(
    typed: &OsStr,
    all: impl Iterator<Item = (String, Option<String>)>,
) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    all.filter(|(name, _)| name.starts_with(&*typed))
        .map(|(name, help)| CompletionCandidate::new(name).help(help.map(Into::into)))
        .collect()
}

/// The socket on the line that is being completed, which follows the `--` of the shell's question.
fn socket(words: impl Iterator<Item = std::ffi::OsString>) -> Option<PathBuf> {
    let mut words = words.skip_while(|word| word != "--").skip(1);
    let mut found = None;
    while let Some(word) = words.next() {
        if word == "--socket" {
            found = words.next().map(PathBuf::from);
        } else if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--socket=")) {
            found = Some(path.into());
        }
    }
    found.or_else(|| std::env::var_os("QUASAR_SOCKET").map(PathBuf::from))
}

/// The VMs with their states; none when nobody answers, for a shell has no place for an error.
fn vms() -> Vec<(String, Option<String>)> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return vec![];
    };
    let client = Client { paths: Paths::locate(socket(std::env::args_os())) };
    let asked = runtime
        .block_on(async { tokio::time::timeout(PATIENCE, client.get::<Vec<VmView>>("/v1/vms")).await });
    let vms = asked.ok().and_then(Result::ok).unwrap_or_default();
    vms.into_iter().map(|vm| (vm.name, Some(vm.status.phase.word().to_owned()))).collect()
}

/// `quasar completions`: the script that has the shell ask this program.
///
/// # Errors
/// When it cannot be printed.
pub fn script(shell: &str) -> anyhow::Result<ExitCode> {
    let shells = Shells::builtins();
    let script = shells.completer(shell).context("this shell is not known")?;
    let written = script.write_registration(VARIABLE, "quasar", "quasar", "quasar", &mut Stdout);
    written.map_err(OutputError::from)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_the_line_is_asked() {
        let of = |line: &str| socket(line.split(' ').map(Into::into));
        assert_eq!(of("quasar -- quasar --socket /a stop"), Some("/a".into()));
        assert_eq!(of("quasar -- quasar stop --socket=/b "), Some("/b".into()));
    }

    #[test]
    fn what_begins_as_typed_is_offered() {
        let all = || ["web", "wob", "db"].into_iter().map(|name| (name.to_owned(), None));
        let offered = |typed: &str| {
            let found = beginning_with(OsStr::new(typed), all());
            found.iter().map(|c| c.get_value().to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(offered("w"), ["web", "wob"]);
        assert_eq!(offered(""), ["web", "wob", "db"]);
        assert!(offered("x").is_empty());
    }
}
