//! Debug console (SBI 2.0, chapter 12) and the legacy console: bytes go through the UART, like everybody's.

use super::{Answer, SbiError, SbiHost};

/// Bytes moved by one call at most: callers go on with the rest, and pauses do not wait for long texts.
const CHUNK: u64 = 256;

pub(super) fn call(
    host: &mut dyn SbiHost,
    function: u64,
    a0: u64,
    a1: u64,
    a2: u64,
) -> Result<u64, SbiError> {
    match function {
        0 => write(host, a0, a1, a2),
        1 => read(host, a0, a1, a2),
        2 => {
            host.uart_write(low_byte(a0));
            Ok(0)
        }
        _ => Err(SbiError::NotSupported),
    }
}

/// The caller's buffer must be RAM; its address has no upper half on RV64.
fn check(host: &dyn SbiHost, len: u64, low: u64, high: u64) -> Result<u64, SbiError> {
    if high != 0 || len != 0 && !host.is_ram(low, len) {
        return Err(SbiError::InvalidParam);
    }
    Ok(len.min(CHUNK))
}

fn write(host: &mut dyn SbiHost, len: u64, low: u64, high: u64) -> Result<u64, SbiError> {
    let count = check(host, len, low, high)?;
    for gpa in low..low + count {
        let mut byte = [0];
        if !host.read_ram(gpa, &mut byte) {
            return if gpa == low { Err(SbiError::Failed) } else { Ok(gpa - low) };
        }
        host.uart_write(byte[0]);
    }
    Ok(count)
}

fn read(host: &mut dyn SbiHost, len: u64, low: u64, high: u64) -> Result<u64, SbiError> {
    let count = check(host, len, low, high)?;
    for gpa in low..low + count {
        // Look whether the byte can be stored before it is taken from the UART.
        let mut old = [0];
        if !host.read_ram(gpa, &mut old) {
            return if gpa == low { Err(SbiError::Failed) } else { Ok(gpa - low) };
        }
        let Some(byte) = host.uart_read() else { return Ok(gpa - low) };
        if !host.write_ram(gpa, &[byte]) {
            return Err(SbiError::Failed);
        }
    }
    Ok(count)
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
