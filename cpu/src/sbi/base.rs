//! Base extension (SBI 2.0, chapter 4).

use super::{SbiError, eid};

/// Version 2.0.
const SPEC_VERSION: u64 = 2 << 24;
/// "QSR": none of the numbers that table 4.2 of the specification assigns.
const IMPLEMENTATION: u64 = 0x51_5352;
const IMPLEMENTATION_VERSION: u64 = 1;

pub(super) fn call(function: u64, a0: u64) -> Result<u64, SbiError> {
    match function {
        0 => Ok(SPEC_VERSION),
        1 => Ok(IMPLEMENTATION),
        2 => Ok(IMPLEMENTATION_VERSION),
        3 => Ok(eid::ALL.contains(&a0).into()),
        // mvendorid, marchid and mimpid read zero.
        4..=6 => Ok(0),
        _ => Err(SbiError::NotSupported),
    }
}
