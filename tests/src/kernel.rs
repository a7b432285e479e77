//! A kernel under `quasar isa run`: no daemon, no devices but the built-in ones.

use crate::bare::hash_in;
use crate::images::images;
use crate::process::run;
use crate::{guest, programs};
use anyhow::{Context, ensure};
use std::process::Command;

/// The hash of the machine when the small guest's kernel has executed so many instructions in deterministic mode,
/// with more arguments of `quasar isa run`; and what the console showed by then.
///
/// # Errors
/// When it ends otherwise.
pub fn hash_after(instructions: u64, arguments: &[String]) -> anyhow::Result<(String, String)> {
    let images = images()?;
    let mut command = Command::new(programs::quasar()?);
    command.args(["isa", "run", "--icount", "--hash", "--memory", "256M", "--append", guest::APPEND]);
    command.arg("--limit").arg(instructions.to_string()).args(arguments);
    command.arg("--initrd").arg(&images.initrd).arg("--kernel").arg(&images.kernel);
    let output = run(&mut command)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let context = format!("{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(124), "{context}");
    let hash = hash_in(&said).with_context(|| context)?;
    Ok((hash, said))
}
