//! QEMU's machine protocol (QMP): JSON commands over a unix socket, an answer a line.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for QEMU to make its socket.
const START: Duration = Duration::from_secs(20);

/// A connection.
pub struct Qmp {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Qmp {
    /// Connects, as soon as the socket is there.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > START => return Err(error).context("QEMU makes no socket"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut this = Self { input: BufReader::new(stream.try_clone()?), output: stream };
        this.line()?;
        this.execute("qmp_capabilities", &json!({}))?;
        Ok(this)
    }

    fn line(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            bail!("QEMU has ended");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Executes a command and returns its answer; events in between are passed over.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        writeln!(self.output, "{}", json!({"execute": command, "arguments": arguments}))?;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU's {command}: {error}");
            }
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
        }
    }
}
