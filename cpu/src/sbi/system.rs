//! System reset (SBI 2.0, chapter 10) and the legacy shutdown.

use super::{Answer, SbiError, SbiHost, SbiOutcome};
use quasar_abi::vm::request;

const SHUTDOWN: u32 = 0;
const COLD_REBOOT: u32 = 1;
const WARM_REBOOT: u32 = 2;
const NO_REASON: u32 = 0;
const SYSTEM_FAILURE: u32 = 1;

/// Type and reason are 32 bits wide.
pub(super) fn reset(host: &mut dyn SbiHost, kind: u64, reason: u64) -> Answer {
    let (kind, reason) = ((kind & 0xffff_ffff) as u32, (reason & 0xffff_ffff) as u32);
    let what = match (kind, reason) {
        (SHUTDOWN, NO_REASON) => request::POWEROFF,
        (SHUTDOWN, SYSTEM_FAILURE) => request::FAILURE,
        (COLD_REBOOT | WARM_REBOOT, NO_REASON | SYSTEM_FAILURE) => request::REBOOT,
        _ => return Answer::Error(SbiError::InvalidParam),
    };
    host.reset(what, reason.into());
    Answer::Gone(SbiOutcome::Reset)
}

pub(super) fn shutdown(host: &mut dyn SbiHost) -> Answer {
    host.reset(request::POWEROFF, 0);
    Answer::Gone(SbiOutcome::Reset)
}
