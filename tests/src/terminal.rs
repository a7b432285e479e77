//! A shell at a terminal, as a user has one.

use crate::console::Console;
use crate::readme::{Key, Step, missing};
use anyhow::{Context, ensure};
use std::process::Command;

/// What no command of ours prints.
const PROMPT: &str = "<prompt ";

/// An interactive shell that waits at its prompt.
pub struct Terminal {
    console: Console,
}

impl Terminal {
    /// Makes a shell of a command that stands before `script`, such as one that goes into another network, and its
    /// environment.
    ///
    /// # Errors
    /// When it does not come to its prompt.
    pub fn open(mut command: Command) -> anyhow::Result<Self> {
        // `script` gives it a terminal.
        command.args(["-qfc", "bash --norc --noprofile --noediting -i", "/dev/null"]);
        command.env("PS1", format!("{PROMPT}$?>")).env("TERM", "xterm");
        let mut terminal = Self { console: Console::attach(&mut command)? };
        terminal.prompt()?;
        // What is typed is not shown: all that is shown is what commands print.
        terminal.console.send("stty -echo cols 160; bind 'set enable-bracketed-paste off' 2>/dev/null\n")?;
        terminal.prompt()?;
        Ok(terminal)
    }

    /// Waits for the prompt; returns what came before it, and the status of the last command.
    fn prompt(&mut self) -> anyhow::Result<(String, String)> {
        let came = self.console.expect(PROMPT)?;
        Ok((came, self.console.expect(">")?))
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&mut self, command: &str) -> anyhow::Result<String> {
        self.console.send(&format!("{command}\n"))?;
        let (came, status) = self.prompt()?;
        ensure!(status == "0", "{command}\nended with status {status}:\n{came}");
        Ok(came)
    }

    /// Takes a step of the README: types the command, sees what is shown, presses the key.
    ///
    /// # Errors
    /// When a line is not shown in its turn, or the command fails that no key ends.
    pub fn take(&mut self, step: &Step) -> anyhow::Result<()> {
        let Some(key) = step.key else {
            let came = self.run(&step.command)?;
            let missing = missing(&step.shown, &came);
            ensure!(missing.is_none(), "{}\ndid not show {missing:?} in its turn:\n{came}", step.command);
            return Ok(());
        };
        self.console.send(&format!("{}\n", step.command))?;
        for line in &step.shown {
            for part in line.split('…').map(str::trim).filter(|part| !part.is_empty()) {
                self.console.expect(part).with_context(|| step.command.clone())?;
            }
        }
        self.console.send(key.text())?;
        let (came, status) = self.prompt().with_context(|| step.command.clone())?;
        let well = key == Key::Interrupt || status == "0";
        ensure!(well, "{}\nended with status {status}:\n{came}", step.command);
        Ok(())
    }

    /// All that was shown.
    #[must_use]
    pub fn text(&self) -> String {
        self.console.text()
    }
}
