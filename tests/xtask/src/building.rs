//! A build beside other work.

use crate::command::shown;
use crate::progress::bar;
use anyhow::{Context, ensure};
use indicatif::ProgressStyle;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// A build that goes on while we do something else. Dropping it ends it.
pub struct Build {
    child: Child,
    shown: String,
    /// How many crates it has built.
    crates: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Build {
    /// Begins it. What goes wrong is shown as it comes.
    pub fn begin(command: &mut Command) -> anyhow::Result<Self> {
        let shown = shown(command);
        eprintln!("$ {shown}");
        command.args(["--quiet", "--message-format=json-render-diagnostics"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("cannot start {shown}"))?;
        let crates = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&crates);
        let artifacts = child.stdout.take().context("standard output is a pipe")?;
        let count = move || {
            // A message a line; one that cannot be read is not counted.
            let lines = BufReader::new(artifacts).lines().map_while(Result::ok);
            for _ in lines.filter(|line| line.contains(r#""reason":"compiler-artifact""#)) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        };
        let reader = Some(std::thread::spawn(count));
        Ok(Self { child, shown, crates, reader })
    }

    /// Waits for its end, and shows how far it is.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let bar = bar("building");
        bar.set_style(ProgressStyle::with_template("  {spinner} {msg} {elapsed}")?);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            bar.set_message(format!("building: {} crates so far", self.crates.load(Ordering::Relaxed)));
            std::thread::sleep(LOOK);
        };
        bar.finish_and_clear();
        ensure!(status.success(), "{} failed: {status}", self.shown);
        Ok(())
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        // It has ended, mostly.
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}
