//! A hart in S-mode with translation on: RAM mapped to itself, and a window of single pages.

use super::Machine;
use quasar_abi::machine::RAM_BASE;

pub const ROOT: u64 = RAM_BASE + 0x10_0000;
pub const MIDDLE: u64 = ROOT + 0x1000;
pub const LEAVES: u64 = ROOT + 0x2000;
pub const SATP: u64 = 8 << 60 | ROOT >> 12;
/// First virtual address of the window that [`LEAVES`] maps, page by page.
pub const WINDOW: u64 = 0x4000_0000;
pub const V: u64 = 1;
pub const RWX: u64 = 0xe;
pub const RW: u64 = 0x6;
pub const USER: u64 = 1 << 4;
pub const AD: u64 = 0xc0;
pub const SUM: u64 = 1 << 18;

/// A machine whose hart starts in S-mode at `RAM_BASE`, which is mapped to itself by one 1 GiB page.
pub fn supervisor(code: &[u32]) -> Machine {
    let machine = Machine::with(code);
    let entry = |gpa: u64, flags: u64| gpa >> 12 << 10 | flags | V;
    let put = |at: u64, value: u64| machine.ram.cell64(at).expect("RAM").set(value);
    put(ROOT + 2 * 8, entry(RAM_BASE, RWX | AD));
    put(ROOT + 8, entry(MIDDLE, 0));
    put(MIDDLE, entry(LEAVES, 0));
    let state = machine.state(0);
    state.privilege.set(1);
    state.satp.set(SATP);
    state.pmpcfg[0].set(0x1f);
    state.pmpaddr[0].set((1 << 54) - 1);
    state.medeleg.set(0xb1ff);
    state.mcounteren.set(7);
    machine
}

/// Maps the window's page `index` to `gpa`.
pub fn map(machine: &Machine, index: u64, gpa: u64, flags: u64) {
    machine.ram.cell64(LEAVES + index * 8).expect("RAM").set(gpa >> 12 << 10 | flags | V);
}

pub fn leaf(gpa: u64, flags: u64) -> u64 {
    gpa >> 12 << 10 | flags | V
}
