//! A journey as it is shown: a line that changes on a terminal, lines elsewhere, a table at the end.

use super::progress;
use super::size::short;
use super::table;
use anyhow::bail;
use indicatif::ProgressBar;
use quasar_abi::control::migrator::{Progress, RoundReport};
use quasar_abi::output::OutputError;
use quasar_abi::{note, output, say};
use quasar_api::JourneyEvent;
use std::process::ExitCode;

const PAGE: u64 = 4096;

/// Shows a journey.
pub struct Display {
    name: String,
    json: bool,
    bar: Option<ProgressBar>,
    rounds: Vec<RoundReport>,
    last: Option<JourneyEvent>,
}

fn seconds(us: u64) -> String {
    match us {
        0..1000 => format!("{us} us"),
        1000..1_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

fn rate(bytes: u64, us: u64) -> String {
    let per_second = u128::from(bytes) * 1_000_000 / u128::from(us.max(1));
    format!("{}/s", short(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

fn line(round: &RoundReport) -> String {
    let remaining = round.dirtied.saturating_mul(PAGE);
    let throttle = match round.throttle_permille {
        0 => String::new(),
        held => format!(", harts held back {} %", held / 10),
    };
    format!(
        "round {}: sent {} ({} on the wire) in {}, remaining {}, dirtied {}, forecast downtime {}{throttle}",
        round.round,
        short(round.raw_bytes),
        short(round.wire_bytes),
        seconds(round.took_us),
        short(remaining),
        rate(remaining, round.took_us),
        seconds(round.forecast_us),
    )
}

fn under_way(progress: &Progress) -> String {
    let Progress { round, pages, sent_pages, wire_bytes, connections, took_us, dirtied } = *progress;
    let over = if connections > 1 { format!(" over {connections} connections") } else { String::new() };
    format!(
        "round {round}: sent {} of {} ({} on the wire{over}) in {}, remaining {}, dirtied {}",
        short(sent_pages * PAGE),
        short(pages * PAGE),
        rate(wire_bytes, took_us),
        seconds(took_us),
        short(pages.saturating_sub(sent_pages) * PAGE),
        rate(dirtied * PAGE, took_us),
    )
}

impl Display {
    /// A display of the journey of a VM.
    #[must_use]
    pub fn new(name: &str, json: bool) -> Self {
        let bar = if json { None } else { progress::line("{spinner} {elapsed} {msg}") };
        if let Some(bar) = &bar {
            bar.enable_steady_tick(progress::TICK);
        }
        Self { name: name.to_owned(), json, bar, rounds: vec![], last: None }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("quasar: {text}")),
            None => note!("quasar: {text}"),
        }
    }

    fn say_passing(&self, text: String) {
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => note!("quasar: {}: {text}", self.name),
        }
    }

    /// Shows an event.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn show(&mut self, event: &JourneyEvent) -> Result<(), OutputError> {
        self.last = Some(event.clone());
        if self.json {
            if let Ok(text) = serde_json::to_string(event) {
                say!("{text}")?;
            }
            return Ok(());
        }
        match event {
            JourneyEvent::Phase { phase } => self.say_passing(phase.clone()),
            JourneyEvent::Round { report } => {
                self.rounds.push(*report);
                self.say_passing(line(report));
            }
            // Only what can be taken back is worth saying several times a second.
            JourneyEvent::Progress { progress } if self.bar.is_some() => {
                self.say_passing(under_way(progress))
            }
            JourneyEvent::NotConverging { explanation } => self.say(explanation),
            JourneyEvent::HandingOver => self.say_passing("handing over".into()),
            _ => {}
        }
        Ok(())
    }

    /// Takes what changes off the terminal.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Shows how it ended.
    ///
    /// # Errors
    /// When it failed.
    pub fn conclude(&self) -> anyhow::Result<ExitCode> {
        let name = &self.name;
        match &self.last {
            _ if self.json => Ok(match &self.last {
                Some(JourneyEvent::Completed { .. } | JourneyEvent::Suspended { .. }) => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }),
            Some(JourneyEvent::Completed {
                to,
                total_us,
                downtime_us,
                forecast_us,
                wire_bytes,
                rounds,
                hash,
            }) => {
                let raw: u64 = self.rounds.iter().map(|r| r.raw_bytes).sum();
                let facts = [
                    ("runs at", to.clone()),
                    ("rounds", rounds.to_string()),
                    ("total time", seconds(*total_us)),
                    ("sent", format!("{} for {}", short(*wire_bytes), short(raw))),
                    ("compression", compression(raw, *wire_bytes)),
                    ("downtime forecast", seconds(*forecast_us)),
                    ("downtime", seconds(*downtime_us)),
                    ("hash", hash.get(..16).unwrap_or(hash).to_owned()),
                ];
                let rows: Vec<Vec<String>> =
                    facts.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect();
                output::print(format_args!("{}", table::render(&[name, ""], &rows)))?;
                Ok(ExitCode::SUCCESS)
            }
            Some(JourneyEvent::Suspended { file_bytes, raw_bytes, hash }) => {
                say!(
                    "{name}: suspended: {} for {} (compression {}), hash {}",
                    short(*file_bytes),
                    short(*raw_bytes),
                    compression(*raw_bytes, *file_bytes),
                    hash.get(..16).unwrap_or(hash)
                )?;
                Ok(ExitCode::SUCCESS)
            }
            Some(JourneyEvent::Failed { error }) => bail!("{name} stays here and goes on as before: {error}"),
            Some(JourneyEvent::Unclear { error }) => bail!("{name}: {error}"),
            _ => bail!(
                "the daemon ended before the journey of {name} did; `quasar ps` shows what became of it"
            ),
        }
    }
}

fn compression(raw: u64, wire: u64) -> String {
    let tenths = u128::from(raw) * 10 / u128::from(wire.max(1));
    format!("{}.{}x", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_a_line() {
        let round = RoundReport {
            round: 2,
            raw_bytes: 10 << 20,
            wire_bytes: 2 << 20,
            took_us: 500_000,
            dirtied: 256,
            forecast_us: 1500,
            throttle_permille: 200,
            ..RoundReport::default()
        };
        let text = line(&round);
        for part in ["round 2", "in 500.0 ms", "remaining 1", "forecast downtime 1.5 ms", "held back 20 %"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(compression(100, 40), "2.5x");
        assert_eq!((seconds(999), seconds(12_340_000)), ("999 us".into(), "12.34 s".into()));
    }
}
