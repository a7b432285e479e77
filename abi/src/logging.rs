//! The log of each process: standard error, where a message that comes in masses is counted instead of repeated.
//!
//! What a guest, a peer or a client does can make a process say the same thing without end: 42,000 refused writes to a
//! read-only disk were 5 MB of log in ten seconds. So each place in the source that logs has a budget, and no place can
//! be forgotten. What was held back is told as a number.

use env_logger::fmt::Formatter;
use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Messages of one kind that may come at once.
const BURST: u32 = 20;
/// In this time one more may come.
const REFILL: Duration = Duration::from_secs(5);
/// How often the number of those held back is told.
const TELL: Duration = Duration::from_secs(10);
/// Characters of a message that are shown with the number.
const SHOWN: usize = 200;

/// Messages are of one kind when they come from one place in the source.
type Kind = (Option<&'static str>, Option<u32>);

#[derive(Debug)]
struct Budget {
    left: u32,
    /// When `left` last was what it says.
    at: Duration,
    held: Option<Held>,
}

/// Messages that were held back.
#[derive(Debug)]
struct Held {
    count: u64,
    level: Level,
    target: String,
    /// The first of them.
    text: String,
}

impl Budget {
    /// Whether a message may come at `now`, a time since some instant.
    fn allows(&mut self, now: Duration) -> bool {
        let steps = now.saturating_sub(self.at).as_millis() / REFILL.as_millis();
        let earned = u32::try_from(steps).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(earned).min(BURST);
        self.at = if self.left == BURST { now } else { self.at + REFILL * earned };
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[derive(Debug, Default)]
struct Kinds {
    budgets: HashMap<Kind, Budget>,
    /// A thread tells the numbers.
    teller: bool,
}

/// A logger in front of another: see the module.
struct Limited<L> {
    inner: L,
    start: Instant,
    kinds: Mutex<Kinds>,
}

/// A number as people write it: 41,990.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl<L: Log> Limited<L> {
    fn new(inner: L) -> Self {
        Self { inner, start: Instant::now(), kinds: Mutex::default() }
    }

    fn kinds(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock()
    }

    /// Whether this message comes; if not, it is counted, and the second value says whether somebody has to be found
    /// who tells the number.
    fn admit(&self, record: &Record<'_>) -> (bool, bool) {
        let now = self.start.elapsed();
        let mut kinds = self.kinds();
        let fresh = || Budget { left: BURST, at: now, held: None };
        let budget = kinds.budgets.entry((record.file_static(), record.line())).or_insert_with(fresh);
        // While a number waits to be told, a message before it would be out of order.
        if budget.held.is_none() && budget.allows(now) {
            return (true, false);
        }
        let first = || Held {
            count: 0,
            level: record.level(),
            target: record.target().to_owned(),
            text: record.args().to_string().chars().take(SHOWN).collect(),
        };
        budget.held.get_or_insert_with(first).count += 1;
        (false, !std::mem::replace(&mut kinds.teller, true))
    }

    /// Tells how many messages of each kind were held back; returns whether there were any.
    fn tell(&self) -> bool {
        let held: Vec<Held> = self.kinds().budgets.values_mut().filter_map(|b| b.held.take()).collect();
        for Held { count, level, target, text } in &held {
            let mut record = Record::builder();
            record.level(*level).target(target);
            let count = grouped(*count);
            self.inner.log(&record.args(format_args!("… {count} more like this: {text}")).build());
        }
        !held.is_empty()
    }

    /// Tells now and then, as long as there is something to tell.
    fn tell_on(&self) {
        loop {
            std::thread::sleep(TELL);
            if !self.tell() {
                let mut kinds = self.kinds();
                if kinds.budgets.values().all(|budget| budget.held.is_none()) {
                    kinds.teller = false;
                    return;
                }
            }
        }
    }
}

/// The logger as the `log` crate holds it.
struct Shared<L>(Arc<Limited<L>>);

impl<L: Log + 'static> Log for Shared<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (comes, teller_wanted) = self.0.admit(record);
        if comes {
            self.0.inner.log(record);
        }
        if teller_wanted {
            let limited = Arc::clone(&self.0);
            let started = std::thread::Builder::new().name("log".into()).spawn(move || limited.tell_on());
            if started.is_err() {
                self.0.kinds().teller = false;
            }
        }
    }

    fn flush(&self) {
        self.0.tell();
        self.0.inner.flush();
    }
}

/// Tells what was held back when the process ends.
#[derive(Debug)]
#[must_use = "dropping it says that the process ends"]
pub struct Logging(());

impl Drop for Logging {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

/// Starts the log of this process: levels as `RUST_LOG` says, or `default`. First of all, and once.
pub fn start(default: &str) -> Logging {
    let env = env_logger::Env::default().default_filter_or(default);
    let logger = env_logger::Builder::from_env(env).format(write_line).build();
    let level = logger.filter();
    install(logger, level);
    Logging(())
}

/// A record as a line: time, level, where it is from, text. Further lines of a text stand apart from the next record's
/// first. env_logger's own would take a library of calendars for the time.
fn write_line(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let style = out.default_level_style(record.level());
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let text = record.args().to_string().replace('\n', "\n    ");
    writeln!(out, "[{time} {style}{:<5}{style:#} {}] {text}", record.level(), record.target())
}

fn install(logger: impl Log + 'static, level: LevelFilter) {
    if log::set_boxed_logger(Box::new(Shared(Arc::new(Limited::new(logger))))).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Log for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Info
        }
        fn log(&self, record: &Record<'_>) {
            let line = format!("{} {}", record.level(), record.args());
            self.0.lock().push(line);
        }
        fn flush(&self) {}
    }

    fn say(logger: &impl Log, level: Level, line: u32, text: &str) {
        let mut record = Record::builder();
        record.level(level).target("t").file_static(Some("here.rs")).line(Some(line));
        logger.log(&record.args(format_args!("{text}")).build());
    }

    #[test]
    fn masses_are_counted_and_other_kinds_come_through() {
        let logger = Shared(Arc::new(Limited::new(Lines::default())));
        for n in 0..42_000 {
            say(&logger, Level::Error, 1, &format!("write {n} refused"));
            say(&logger, Level::Debug, 3, "nobody asked for this");
        }
        say(&logger, Level::Info, 2, "something else");
        logger.flush();
        let lines = logger.0.inner.0.lock().clone();
        let (said, told) = (&lines[..lines.len() - 2], &lines[lines.len() - 2..]);
        assert_eq!(said.first().map(String::as_str), Some("ERROR write 0 refused"));
        // One more for each of the seconds that a slow machine may take.
        let burst = BURST as usize;
        assert!((burst..burst + 10).contains(&said.len()), "{} lines", said.len());
        assert_eq!(told[0], "INFO something else");
        let more = grouped(42_000 - said.len() as u64);
        assert_eq!(told[1], format!("ERROR … {more} more like this: write {} refused", said.len()));
        logger.flush();
        assert_eq!(logger.0.inner.0.lock().len(), lines.len(), "told once");
    }

    #[test]
    fn a_budget_grows_again_up_to_a_burst() {
        let mut budget = Budget { left: BURST, at: Duration::ZERO, held: None };
        let mut taken = |now, most: u32| (0..most).filter(|_| budget.allows(now)).count();
        assert_eq!(taken(Duration::ZERO, 100), BURST as usize);
        assert_eq!(taken(REFILL / 2, 1), 0);
        assert_eq!(taken(REFILL * 2, 100), 2);
        // Half a step that was waited counts for the next one.
        assert_eq!(taken(REFILL * 7 / 2, 100), 1);
        assert_eq!(taken(REFILL * 4, 100), 1);
        assert_eq!(taken(REFILL * 1000, 100), BURST as usize);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [7, 999, 1000, 41_990, 1_234_567].map(grouped),
            ["7", "999", "1,000", "41,990", "1,234,567"]
        );
    }

    /// What was written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_says_when_how_bad_and_from_where() {
        let page = Page::default();
        let target = env_logger::Target::Pipe(Box::new(page.clone()));
        let logger = env_logger::Builder::new().format(write_line).target(target).build();
        let record = |level, text: &str| {
            logger.log(
                &Record::builder().level(level).target("quasar_mmu").args(format_args!("{text}")).build(),
            );
        };
        record(Level::Error, "one\n[2026-01-01T00:00:00Z ERROR x] forged");
        let text = String::from_utf8(page.0.lock().clone()).expect("text");
        let (time, rest) = text.split_once(' ').expect("a time");
        assert_eq!(rest, "ERROR quasar_mmu] one\n    [2026-01-01T00:00:00Z ERROR x] forged\n");
        let written = humantime::parse_rfc3339(time.trim_start_matches('[')).expect("RFC 3339");
        let age = SystemTime::now().duration_since(written).expect("of the past");
        assert!(time.len() == "[2026-01-01T00:00:00Z".len() && age < Duration::from_secs(60), "{time}");
    }
}
