//! The least of HTTP: one request per connection, or a connection that is kept.

use crate::PATIENCE;
use anyhow::{Context, ensure};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A port of the loopback interface that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A connection that stays open between requests.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Connects to a port of the loopback interface.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("connecting to the guest")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.0.get_mut().write_all(bytes).context("sending to the guest")
    }

    /// Reads an answer; returns its status and body.
    ///
    /// # Errors
    /// When the connection is broken or the answer is none.
    pub fn answer(&mut self) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut line = String::new();
        self.0.read_line(&mut line).context("reading the answer")?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.with_context(|| format!("{line:?} begins no HTTP answer"))?;
        let mut length = 0;
        loop {
            let mut field = String::new();
            self.0.read_line(&mut field).context("reading the answer's fields")?;
            let field = field.trim_end().to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse().context("content-length")?;
            }
        }
        ensure!(length < 1 << 30, "an answer of {length} bytes");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).context("reading the answer's body")?;
        Ok((status, body))
    }

    /// Makes a request and keeps the connection.
    ///
    /// # Errors
    /// As [`Connection::answer`].
    pub fn get(&mut self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n").as_bytes())?;
        self.answer()
    }
}

/// Makes one request.
///
/// # Errors
/// When the answer is not 200.
pub fn get(port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
    let (status, body) = Connection::open(port)?.get(path)?;
    ensure!(status == 200, "GET {path}: status {status}");
    Ok(body)
}

/// Makes a request again until it is answered: the server may not listen yet.
///
/// # Errors
/// The last one, after [`PATIENCE`].
pub fn get_patiently(port: u16, path: &str) -> anyhow::Result<Vec<u8>> {
    let start = Instant::now();
    loop {
        match get(port, path) {
            Ok(body) => return Ok(body),
            Err(error) if start.elapsed() > PATIENCE => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
