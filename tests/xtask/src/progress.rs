//! A bar for what apt does, on a terminal; nothing elsewhere.

use crate::command::shown;
use crate::trouble::{Trouble, trouble};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Makes apt-get tell what [`watched`] reads.
pub const STATUS: [&str; 4] = ["-o", "APT::Status-Fd=1", "-o", "Dpkg::Use-Pty=0"];

/// One that moves, on a terminal.
pub fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::new(100).with_message(what.to_owned());
    let style = ProgressStyle::with_template("  {spinner} [{bar:30}] {percent:>3} %  {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// The steps of making images: a bar on a terminal, a line for each elsewhere.
pub struct Steps(ProgressBar);

impl Steps {
    /// Before the first.
    pub fn new() -> Self {
        Self(bar(""))
    }

    /// After the last.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl quasar_image::Progress for Steps {
    fn step(&self, message: &str) {
        self.0.set_position(0);
        self.0.set_message(message.to_owned());
        if self.0.is_hidden() {
            eprintln!("  {message}");
        }
    }

    fn advance(&self, done: u64, total: u64) {
        if let Some(percent) = (done * 100).checked_div(total) {
            self.0.set_position(percent.min(100));
        }
    }

    fn transfer(&self, done: u64, total: u64) {
        self.advance(done, total);
    }
}

/// Of the lines `dlstatus:NUMBER:PERCENT:TEXT` and `pmstatus:PACKAGE:PERCENT:TEXT`.
fn progress(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.splitn(4, ':');
    fields.next().filter(|kind| ["dlstatus", "pmstatus"].contains(kind))?;
    let percent = fields.nth(1)?.split('.').next()?.parse().ok()?;
    Some((percent, fields.next()?))
}

/// Runs an apt-get with [`STATUS`]: its progress to the bar, its complaints to whoever asked.
pub fn watched(command: &mut Command, bar: &ProgressBar) -> anyhow::Result<Result<(), Trouble>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", shown(command)))?;
    let mut complaints = child.stderr.take().context("standard error is a pipe")?;
    let complaints = std::thread::spawn(move || {
        let mut text = vec![];
        // What could be read is what there is to say.
        drop(complaints.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().context("standard output is a pipe")?).lines() {
        let line = line?;
        match progress(&line) {
            Some((percent, what)) => {
                bar.set_position(percent);
                bar.set_message(what.to_owned());
            }
            None => said = said + &line + "\n",
        }
    }
    let status = child.wait()?;
    let complaints = complaints.join().unwrap_or_default();
    if status.success() {
        return Ok(Ok(()));
    }
    let silent = || Trouble::Failed(format!("{} failed: {status}", shown(command)));
    Ok(Err(trouble(&(complaints + &said)).unwrap_or_else(silent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_move_the_bar_and_others_do_not() {
        assert_eq!(
            progress("pmstatus:make:38.4615:Unpacking make (amd64)"),
            Some((38, "Unpacking make (amd64)"))
        );
        assert_eq!(
            progress("dlstatus:2:15.1072:Retrieving file 2 of 3"),
            Some((15, "Retrieving file 2 of 3"))
        );
        assert_eq!(progress("Setting up make (4.3-4.1) ..."), None);
    }
}
