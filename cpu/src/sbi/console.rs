//! Debug console (SBI 2.0, chapter 12) and the legacy console: bytes go through the UART, like everybody's.

use super::{Answer, SbiError, SbiHost, SbiOutcome};

/// Bytes moved by one call at most: callers go on with the rest, and pauses do not wait for long texts.
const CHUNK: u64 = 256;

pub(super) fn call(host: &mut dyn SbiHost, function: u64, a0: u64, a1: u64, a2: u64) -> Answer {
    match function {
        0 => transfer(host, a0, a1, a2, write_byte),
        1 => transfer(host, a0, a1, a2, read_byte),
        2 => {
            host.uart_write(low_byte(a0));
            Answer::Value(0)
        }
        _ => Answer::Error(SbiError::NotSupported),
    }
}

/// The caller's buffer must be RAM; its address has no upper half on RV64.
fn check(host: &dyn SbiHost, len: u64, low: u64, high: u64) -> Result<u64, SbiError> {
    if high != 0 || len != 0 && !host.is_ram(low, len) {
        return Err(SbiError::InvalidParam);
    }
    Ok(len.min(CHUNK))
}

/// Moves bytes between the buffer and the UART by `step`, which says whether it moved one: as many as there
/// are, and fewer when the hart shall rest. Nothing moved at all by then has the call made again.
fn transfer(
    host: &mut dyn SbiHost,
    len: u64,
    low: u64,
    high: u64,
    step: fn(&mut dyn SbiHost, u64) -> Result<bool, SbiError>,
) -> Answer {
    let count = match check(host, len, low, high) {
        Ok(count) => count,
        Err(error) => return Answer::Error(error),
    };
    for done in 0..count {
        if host.interrupted() {
            return if done == 0 { Answer::Then(SbiOutcome::Again) } else { Answer::Value(done) };
        }
        match step(host, low + done) {
            Ok(true) => {}
            Ok(false) => return Answer::Value(done),
            Err(error) if done == 0 => return Answer::Error(error),
            Err(_) => return Answer::Value(done),
        }
    }
    Answer::Value(count)
}

fn write_byte(host: &mut dyn SbiHost, gpa: u64) -> Result<bool, SbiError> {
    let mut byte = [0];
    if !host.read_ram(gpa, &mut byte) {
        return Err(SbiError::Failed);
    }
    host.uart_write(byte[0]);
    Ok(true)
}

fn read_byte(host: &mut dyn SbiHost, gpa: u64) -> Result<bool, SbiError> {
    // Look whether there is a place for the byte before it is taken from the UART.
    if !host.read_ram(gpa, &mut [0]) {
        return Err(SbiError::Failed);
    }
    let Some(byte) = host.uart_read() else { return Ok(false) };
    if host.write_ram(gpa, &[byte]) { Ok(true) } else { Err(SbiError::Failed) }
}

pub(super) fn putchar(host: &mut dyn SbiHost, a0: u64) -> Answer {
    host.uart_write(low_byte(a0));
    Answer::Legacy(0)
}

/// -1 when no byte waits.
pub(super) fn getchar(host: &mut dyn SbiHost) -> Answer {
    Answer::Legacy(host.uart_read().map_or(u64::MAX, u64::from))
}

const fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}
