//! SiFive's test finisher: how a guest without firmware powers off or reboots. It keeps no state.

use crate::access::{Access, low32};
use quasar_abi::vm::{Vm, request};

const FAIL: u32 = 0x3333;
const PASS: u32 = 0x5555;
const RESET: u32 = 0x7777;

/// What a word written to the finisher asks for: a [`request`] and its code.
#[must_use]
pub fn meaning(word: u32) -> Option<(u32, u64)> {
    match word & 0xffff {
        FAIL => Some((request::FAILURE, u64::from(word >> 16))),
        PASS => Some((request::POWEROFF, 0)),
        RESET => Some((request::REBOOT, 0)),
        _ => None,
    }
}

/// A register access of a hart. Repeating one asks for the same again.
pub fn access(vm: &Vm, access: &Access) -> Option<u64> {
    if access.offset != 0 || !(access.is(4) || access.is(2)) {
        return None;
    }
    if let Some((what, code)) = access.store.and_then(|value| meaning(low32(value))) {
        vm.ask(what, code);
    }
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_guests_mean() {
        assert_eq!(meaning(0x5555), Some((request::POWEROFF, 0)));
        assert_eq!(meaning(0x7777), Some((request::REBOOT, 0)));
        assert_eq!(meaning(0x0005_3333), Some((request::FAILURE, 5)));
        assert_eq!(meaning(0), None);
    }
}
