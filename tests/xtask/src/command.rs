//! Running other programs, and saying what they were when they fail.

use anyhow::{Context, bail};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::Command;

/// The repository's root.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(&manifest).to_path_buf()
}

/// The directory of what is made or fetched once: `quasar` in `$XDG_CACHE_HOME` or `~/.cache`.
pub fn cache() -> anyhow::Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base.context("HOME is not set")?.join("quasar"))
}

/// The cargo that runs us, with an environment as if it had been called by hand: build scripts that look at what it
/// told us of our own package would run again, and half of the dependencies be built anew.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command with our own standard streams.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs cargo's build, which shows its own bar on a terminal; elsewhere only what goes wrong.
pub fn build(command: &mut Command) -> anyhow::Result<()> {
    run(command.args((!std::io::stderr().is_terminal()).then_some("--quiet")))
}

/// Runs a command and takes what it prints.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let out = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !out.status.success() {
        bail!("{} failed: {}\n{}", shown(command), out.status, String::from_utf8_lossy(&out.stderr));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Whether a program is on the path (the administrator's directories included).
pub fn exists(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|dir| PathBuf::from(dir).join(program).is_file())
}

/// A command as one types it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// An error and its causes as one sentence, nothing of it twice.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(cause.trim()) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_named_once_and_without_a_backtrace() {
        let inner = Err::<(), _>(anyhow::anyhow!("No space left on device"));
        let outer = inner.context("cannot write x: No space left on device").context("set-up");
        let error = outer.expect_err("an error");
        assert_eq!(chain(&error), "set-up: cannot write x: No space left on device");
    }
}
