//! Progress of long work: a line that moves, on a terminal; elsewhere a line for each stage and nothing that moves.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quasar_abi::note;
use quasar_image::Progress;
use std::io::IsTerminal;
use std::time::Duration;

/// How often what moves is drawn.
pub const TICK: Duration = Duration::from_millis(120);

/// Whether the standard error is a terminal that can take a line back.
#[must_use]
pub fn moves() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|kind| kind != "dumb")
}

/// A line that moves on standard error, where that can be.
#[must_use]
pub fn line(template: &str) -> Option<ProgressBar> {
    moves().then(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        style(&bar, template);
        bar
    })
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

/// A wait for something that tells nothing about itself, shown on a terminal until this is dropped.
#[derive(Debug)]
pub struct Waiting(Option<ProgressBar>);

impl Waiting {
    /// Begins it; what is being done, as in "resuming web".
    #[must_use]
    pub fn begin(what: String) -> Self {
        let bar = line(STAGE);
        if let Some(bar) = &bar {
            bar.set_message(what);
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Shows the stages of a build on standard error.
#[derive(Debug)]
pub struct Steps(Option<ProgressBar>);

const STAGE: &str = "{spinner} {msg} {elapsed}";
const ITEMS: &str = "{spinner} {msg} {wide_bar} {pos}/{len}";
const BYTES: &str = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";

impl Steps {
    /// A display without a step yet.
    #[must_use]
    pub fn new() -> Self {
        Self(line(STAGE))
    }

    /// Removes the display.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }

    fn show(&self, template: &str, done: u64, total: u64) {
        if let Some(bar) = self.0.as_ref().filter(|_| total > 0) {
            if bar.length() != Some(total) {
                bar.set_length(total);
                style(bar, template);
            }
            // A directory that is being filled may hold more than what was asked for.
            bar.set_position(done.min(total));
        }
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Steps {
    fn step(&self, message: &str) {
        match &self.0 {
            Some(bar) => {
                bar.reset();
                bar.unset_length();
                style(bar, STAGE);
                bar.set_message(message.to_owned());
                // Nothing is shown before the first step: mostly there is none.
                bar.enable_steady_tick(TICK);
            }
            None => note!("quasar: {message}"),
        }
    }

    fn advance(&self, done: u64, total: u64) {
        self.show(ITEMS, done, total);
    }

    fn transfer(&self, done: u64, total: u64) {
        self.show(BYTES, done, total);
    }
}
