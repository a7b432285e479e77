//! The daemon's API as a program other than ours uses it: HTTP over its socket.

use crate::PATIENCE;
use anyhow::Context;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Asks and returns the status and the JSON of the answer.
///
/// # Errors
/// When the daemon does not answer, or with something that is no JSON.
pub fn ask(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = body.map(ToString::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: quasar\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let context = || format!("{method} {path}: {answer}");
    let (head, body) = answer.split_once("\r\n\r\n").with_context(context)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).with_context(context)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    anyhow::ensure!(!chunked, "{answer}");
    Ok((status, serde_json::from_str(body).with_context(context)?))
}
