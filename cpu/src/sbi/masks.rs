//! Calls to several harts at once: IPI and RFENCE (SBI 2.0, 3.1 and chapters 7 and 8).

use super::{Answer, SbiError, SbiHost, SbiOutcome};
use crate::hart::Hart;
use crate::trap::SSIP;

/// The harts of a mask and its base as one bit each: base -1 means all of them.
fn harts(host: &dyn SbiHost, mask: u64, base: u64) -> Result<u64, SbiError> {
    let count = u64::from(host.harts());
    let all = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
    if base == u64::MAX {
        return Ok(all);
    }
    if base >= count {
        return Err(SbiError::InvalidParam);
    }
    // No hart beyond the last one: nothing may be shifted out, nothing may lie beyond `all`.
    let chosen = mask << base;
    if chosen >> base != mask || chosen & !all != 0 {
        return Err(SbiError::InvalidParam);
    }
    Ok(chosen)
}

fn each(mut set: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let first = u8::try_from(set.trailing_zeros()).ok().filter(|bit| *bit < 64)?;
        set &= set - 1;
        Some(first)
    })
}

pub(super) fn send_ipi(hart: &mut Hart, host: &mut dyn SbiHost, mask: u64, base: u64) -> Answer {
    let targets = match harts(host, mask, base) {
        Ok(targets) => targets,
        Err(error) => return Answer::Error(error),
    };
    for target in each(targets) {
        if target == hart.index {
            hart.post(SSIP);
        } else {
            host.send_ipi(target);
        }
    }
    Answer::Value(0)
}

/// Ranges and address spaces are not told apart: every translation goes, which is always correct.
pub(super) fn remote_fence(me: u8, host: &mut dyn SbiHost, function: u64, mask: u64, base: u64) -> Answer {
    let (sfence, fencei) = match function {
        0 => (false, true),
        1 | 2 => (true, false),
        // The rest is for the hypervisor extension.
        _ => return Answer::Error(SbiError::NotSupported),
    };
    let targets = match harts(host, mask, base) {
        Ok(targets) => targets,
        Err(error) => return Answer::Error(error),
    };
    let own = 1 << me;
    let others = targets & !own;
    if others != 0 && !host.remote_fence(others, sfence, fencei) {
        return Answer::Then(SbiOutcome::Again);
    }
    if targets & own != 0 {
        Answer::Then(SbiOutcome::ContinueWithFence { sfence, fencei })
    } else {
        Answer::Value(0)
    }
}
