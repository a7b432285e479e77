//! Hart state management (SBI 2.0, chapter 9).

use super::{Answer, SbiError, SbiHost, SbiOutcome};

const DEFAULT_RETENTIVE: u32 = 0;
const DEFAULT_NON_RETENTIVE: u32 = 0x8000_0000;

pub(super) fn call(host: &mut dyn SbiHost, function: u64, a0: u64, a1: u64, a2: u64) -> Answer {
    match function {
        0 => start(host, a0, a1, a2).into(),
        1 => {
            host.stopped();
            Answer::Gone(SbiOutcome::Stopped)
        }
        2 => known(host, a0).map(|hart| host.hart_status(hart).into()).into(),
        // The type is 32 bits wide.
        3 => suspend(host, (a0 & 0xffff_ffff) as u32),
        _ => Answer::Error(SbiError::NotSupported),
    }
}

fn known(host: &dyn SbiHost, hart: u64) -> Result<u8, SbiError> {
    u8::try_from(hart).ok().filter(|hart| *hart < host.harts()).ok_or(SbiError::InvalidParam)
}

fn start(host: &mut dyn SbiHost, hart: u64, address: u64, opaque: u64) -> Result<u64, SbiError> {
    let hart = known(host, hart)?;
    if !address.is_multiple_of(2) || !host.is_ram(address, 2) {
        return Err(SbiError::InvalidAddress);
    }
    if host.start_hart(hart, address, opaque) { Ok(0) } else { Err(SbiError::AlreadyAvailable) }
}

fn suspend(host: &mut dyn SbiHost, kind: u32) -> Answer {
    match kind {
        DEFAULT_RETENTIVE => {
            host.suspended();
            Answer::Then(SbiOutcome::Wait)
        }
        DEFAULT_NON_RETENTIVE | 0x1000_0000..=0x7fff_ffff | 0x9000_0000.. => {
            Answer::Error(SbiError::NotSupported)
        }
        _ => Answer::Error(SbiError::InvalidParam),
    }
}
