//! What the tests of the privileged architecture share.
#![allow(dead_code, reason = "each test program uses its own part")]

use quasar_cpu::csr::{CsrEffects, CsrEnv, CsrOp};
use quasar_cpu::hart::{Hart, Privilege};

/// A machine around the hart that stands still.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    pub time: u64,
    pub lines: u64,
    pub mtimecmp: u64,
}

impl Default for Env {
    fn default() -> Self {
        Self { time: 1000, lines: 0, mtimecmp: u64::MAX }
    }
}

impl CsrEnv for Env {
    fn time(&self) -> u64 {
        self.time
    }
    fn lines(&self) -> u64 {
        self.lines
    }
    fn mtimecmp(&self) -> u64 {
        self.mtimecmp
    }
}

pub const MODES: [Privilege; 3] = [Privilege::U, Privilege::S, Privilege::M];

/// `csrr`, in machine mode.
pub fn read(hart: &mut Hart, number: u16) -> u64 {
    read_in(hart, number, &Env::default())
}

/// `csrr`, in machine mode, with this machine around.
pub fn read_in(hart: &mut Hart, number: u16, env: &Env) -> u64 {
    let mode = std::mem::replace(&mut hart.privilege, Privilege::M);
    let saved = hart.x[5];
    hart.csr_access(number, CsrOp::Set, 5, None, env).expect("a register that M-mode reads");
    hart.privilege = mode;
    std::mem::replace(&mut hart.x[5], saved)
}

/// `csrw`, in machine mode.
pub fn write(hart: &mut Hart, number: u16, value: u64) -> CsrEffects {
    let mode = std::mem::replace(&mut hart.privilege, Privilege::M);
    let effects = hart.csr_access(number, CsrOp::Write, 0, Some(value), &Env::default());
    hart.privilege = mode;
    effects.expect("a register that M-mode writes")
}
