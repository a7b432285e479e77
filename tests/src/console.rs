//! Talking to a guest's console: waiting for what it shows, typing commands.

use crate::PATIENCE;
use anyhow::{Context, bail, ensure};
use parking_lot::{Condvar, Mutex};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
    /// Up to where it has been shown; `None` while it is not.
    shown: Option<usize>,
}

#[derive(Default)]
struct Heard {
    text: Mutex<Text>,
    more: Condvar,
}

impl Text {
    /// Passes on the whole lines that have not been, without what would move the cursor.
    fn show(&mut self, out: &mut impl Write) {
        let Some(from) = self.shown else { return };
        let Some(end) = self.bytes[from..].iter().rposition(|byte| *byte == b'\n') else { return };
        for line in String::from_utf8_lossy(&self.bytes[from..from + end]).lines() {
            let line: String = line.chars().filter(|c| !c.is_control()).collect();
            // Nobody may be looking.
            drop(writeln!(out, "    | {line}"));
        }
        self.shown = Some(from + end + 1);
    }
}

/// A console behind a program's standard input and output (`quasar console`, or QEMU itself).
pub struct Console {
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Heard>,
    /// What has been waited for so far ends here.
    position: usize,
    commands: u32,
}

fn listen(mut from: impl Read, heard: &Heard) {
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        let mut text = heard.text.lock();
        text.bytes.extend_from_slice(&buffer[..count]);
        text.ended |= count == 0;
        text.show(&mut std::io::stderr());
        heard.more.notify_all();
        if count == 0 {
            return;
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

impl Console {
    /// Starts the program.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn attach(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take();
        let heard = Arc::new(Heard::default());
        let stdout = child.stdout.take().context("standard output is a pipe")?;
        let listener = Arc::clone(&heard);
        std::thread::spawn(move || listen(stdout, &listener));
        Ok(Self { child, stdin, heard, position: 0, commands: 0 })
    }

    /// Starts another program in this one's place: the same guest's console elsewhere.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn reattach(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let mut other = Self::attach(command)?;
        // Commands are numbered, so that the history's are not taken for new ones.
        other.commands = self.commands;
        *self = other;
        Ok(())
    }

    /// The program's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// All that was shown, without carriage returns.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.heard.text.lock();
        String::from_utf8_lossy(&text.bytes).replace('\r', "")
    }

    /// Shows all its whole lines on standard error, those to come too, until it is told otherwise.
    pub fn show(&self, on: bool) {
        let mut text = self.heard.text.lock();
        text.shown = on.then_some(0);
        text.show(&mut std::io::stderr());
    }

    /// Waits for `wanted` behind what was waited for before; returns what came until then.
    ///
    /// # Errors
    /// When it did not come within [`PATIENCE`] or the console has ended; with the console's last lines.
    pub fn expect(&mut self, wanted: &str) -> anyhow::Result<String> {
        self.expect_within(wanted, PATIENCE)
    }

    /// [`Console::expect`] with a time of one's own.
    ///
    /// # Errors
    /// As there.
    pub fn expect_within(&mut self, wanted: &str, patience: Duration) -> anyhow::Result<String> {
        let end = Instant::now() + patience;
        let mut text = self.heard.text.lock();
        loop {
            if let Some(at) = find(&text.bytes[self.position..], wanted.as_bytes()) {
                let before =
                    String::from_utf8_lossy(&text.bytes[self.position..self.position + at]).replace('\r', "");
                self.position += at + wanted.len();
                return Ok(before);
            }
            let left = end.saturating_duration_since(Instant::now());
            if text.ended || left.is_zero() {
                let why = if text.ended { "the console ended" } else { "it did not come in time" };
                let shown = String::from_utf8_lossy(&text.bytes[self.position..]).into_owned();
                bail!(
                    "waiting for {wanted:?}: {why}; behind the last match it showed:\n{}",
                    tail(&shown, 40)
                );
            }
            self.heard.more.wait_for(&mut text, left);
        }
    }

    /// Types text.
    ///
    /// # Errors
    /// When the console has ended.
    pub fn send(&mut self, text: &str) -> anyhow::Result<()> {
        let stdin = self.stdin.as_mut().context("the console's input is closed")?;
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).context("the console has ended")
    }

    /// Runs a command in the guest's shell, whose prompt must be there; returns its output.
    ///
    /// # Errors
    /// When it fails, and as [`Console::expect`].
    pub fn command(&mut self, line: &str) -> anyhow::Result<String> {
        let (output, status) = self.run(line)?;
        ensure!(status == "0", "in the guest, {line:?} failed with {status}:\n{output}");
        Ok(output)
    }

    /// Runs a command in the guest's shell that must fail; returns what it says.
    ///
    /// # Errors
    /// When it does not fail, and as [`Console::expect`]: a console that is broken is no failed command.
    pub fn refusal(&mut self, line: &str) -> anyhow::Result<String> {
        let (output, status) = self.run(line)?;
        ensure!(status != "0", "in the guest, {line:?} succeeded:\n{output}");
        Ok(output)
    }

    /// A command's output and exit status.
    fn run(&mut self, line: &str) -> anyhow::Result<(String, String)> {
        self.commands += 1;
        let number = self.commands;
        // The terminal echoes what is typed: the marks are spelt so that only the shell's output has them.
        self.send(&format!("echo 'BEG''IN {number}'; {line}; echo \"END\"\" {number} $?\"\n"))?;
        self.expect(&format!("BEGIN {number}\r\n"))?;
        let output = self.expect(&format!("END {number} "))?;
        Ok((output, self.expect("\r\n")?))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_are_shown_once_and_without_control_characters() {
        let mut text = Text { bytes: b"one\r\n\x1b[2Jtwo\nthr".to_vec(), ended: false, shown: None };
        let mut out = vec![];
        text.show(&mut out);
        assert!(out.is_empty(), "nobody wants to see it");
        text.shown = Some(0);
        text.show(&mut out);
        text.show(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), "    | one\n    | [2Jtwo\n");
        text.bytes.extend_from_slice(b"ee\n");
        text.show(&mut out);
        assert!(out.ends_with(b"    | three\n"));
    }
}
