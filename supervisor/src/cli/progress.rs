//! Progress of long work: a bar on a terminal, lines elsewhere.

use crate::image::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Shows steps on standard error.
pub struct Steps {
    bar: ProgressBar,
    terminal: bool,
}

impl Steps {
    /// A display without a step yet.
    #[must_use]
    pub fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, terminal }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// Removes the display.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// One wait, shown on a terminal while it lasts; dropping it takes it off.
pub struct Waiting(ProgressBar);

impl Waiting {
    /// Begins one for something that takes seconds.
    #[must_use]
    pub fn begin(what: String) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Steps {
    fn step(&self, message: &str) {
        if self.terminal {
            self.bar.reset();
            self.style("{spinner} {msg}");
            self.bar.set_message(message.to_owned());
        } else {
            eprintln!("quasar: {message}");
        }
    }

    fn advance(&self, done: u64, total: u64) {
        if total > 0 {
            if self.bar.length() != Some(total) {
                self.bar.set_length(total);
                self.style("{spinner} {msg} {wide_bar} {percent}%");
            }
            self.bar.set_position(done);
        }
    }
}
