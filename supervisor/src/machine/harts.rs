//! The harts' first state.

use quasar_abi::hart::{HART_STATE_VERSION, HartState, hsm};
use quasar_abi::vm::VmControl;

/// Exceptions delegated to S-mode by the built-in firmware (RISC-V Privileged 1.13, 3.1.8): all that S-mode
/// may be given, but not `ecall` from S-mode (9), which is the SBI call.
pub const MEDELEG: u64 = 0xb3ff & !(1 << 9);
/// Interrupts delegated to S-mode: SSI, STI, SEI.
pub const MIDELEG: u64 = 1 << 1 | 1 << 5 | 1 << 9;
/// menvcfg.ADUE (Svadu), PBMTE (Svpbmt), STCE (Sstc).
pub const MENVCFG: u64 = 1 << 61 | 1 << 62 | 1 << 63;
/// cycle, time and instret are readable from S-mode.
pub const COUNTEREN: u64 = 7;
/// One NAPOT entry, RWX, over all addresses (RISC-V Privileged 1.13, 3.7.1).
pub const PMP_ALL_CFG: u64 = 0x1f;
/// Its address register: 54 ones.
pub const PMP_ALL_ADDR: u64 = (1 << 54) - 1;

/// Where the harts start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Hart 0 in S-mode at `entry` with the built-in SBI; the others stopped until the kernel starts them.
    Supervisor {
        /// The kernel's first instruction.
        entry: u64,
        /// The device tree.
        dtb: u64,
    },
    /// Every hart in M-mode at `entry`.
    Machine {
        /// First instruction.
        entry: u64,
        /// The device tree, in a1.
        dtb: u64,
        /// What a2 holds (`fw_dynamic_info`).
        a2: u64,
    },
}

impl Start {
    /// Fills a hart's state as it is after reset and, with the built-in SBI, after firmware.
    fn fill(self, hart: u64, state: &HartState) {
        for cell in state.cells() {
            cell.set(0);
        }
        state.version.set(HART_STATE_VERSION);
        state.stimecmp.set(u64::MAX);
        state.x[10].set(hart);
        match self {
            Self::Supervisor { entry, dtb } => {
                state.pc.set(entry);
                state.x[11].set(dtb);
                state.privilege.set(1);
                state.medeleg.set(MEDELEG);
                state.mideleg.set(MIDELEG);
                state.menvcfg.set(MENVCFG);
                state.mcounteren.set(COUNTEREN);
                // Linux reads the time from U-mode (its vDSO) and leaves scounteren as firmware set it.
                state.scounteren.set(COUNTEREN);
                state.pmpcfg[0].set(PMP_ALL_CFG);
                state.pmpaddr[0].set(PMP_ALL_ADDR);
                state.builtin_sbi.set(1);
            }
            Self::Machine { entry, dtb, a2 } => {
                state.pc.set(entry);
                state.x[11].set(dtb);
                state.x[12].set(a2);
                state.privilege.set(3);
            }
        }
    }

    const fn first_hsm(self, hart: u64) -> u32 {
        match self {
            Self::Supervisor { .. } if hart != 0 => hsm::STOPPED,
            Self::Supervisor { .. } | Self::Machine { .. } => hsm::STARTED,
        }
    }

    /// Puts every hart into its first state. Only while no cpu process runs.
    pub fn apply(self, vm: &VmControl) {
        let harts = usize::try_from(vm.harts.get()).unwrap_or(0);
        for (index, (published, control)) in
            vm.hart_state.iter().zip(&vm.hart_control).take(harts).enumerate()
        {
            let hart = index as u64;
            let retired = published.current().retired.get();
            self.fill(hart, published.next());
            published.next().retired.set(retired);
            published.publish();
            for cell in [&control.lines, &control.posted, &control.throttle_permille] {
                cell.set(0);
            }
            control.mtimecmp.set(u64::MAX);
            control.sfence_done.set(control.sfence_asked.get());
            control.fencei_done.set(control.fencei_asked.get());
            control.start_address.set(0);
            control.start_opaque.set(0);
            control.hsm.set(self.first_hsm(hart));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use quasar_api::{Boot, MachineConfig};

    #[test]
    fn a_reset_starts_hart_0_alone_and_keeps_the_count_of_instructions() {
        let config = MachineConfig {
            memory: 1 << 20,
            harts: 2,
            boot: Boot::Bare { elf: "none".into(), max_instructions: 0 },
            icount: false,
            engine: None,
        };
        let machine = Machine::create("harts-test", &config).expect("machine");
        let vm = &machine.vm;
        vm.hart_state[0].next().retired.set(77);
        vm.hart_state[0].next().satp.set(1 << 63);
        vm.hart_state[0].publish();
        vm.hart_control[1].posted.set(2);
        Start::Supervisor { entry: 0x8020_0000, dtb: 0x8100_0000 }.apply(vm);
        let first = vm.hart_state[0].current();
        assert_eq!((first.pc.get(), first.satp.get(), first.retired.get()), (0x8020_0000, 0, 77));
        assert_eq!((first.x[10].get(), first.x[11].get(), first.privilege.get()), (0, 0x8100_0000, 1));
        assert_eq!(vm.hart_control[0].hsm.get(), hsm::STARTED);
        assert_eq!(vm.hart_control[1].hsm.get(), hsm::STOPPED);
        assert_eq!(vm.hart_control[1].posted.get(), 0);
        Start::Machine { entry: 0x8000_0000, dtb: 0, a2: 5 }.apply(vm);
        let second = vm.hart_state[1].current();
        assert_eq!((second.x[10].get(), second.x[12].get(), second.privilege.get()), (1, 5, 3));
        assert_eq!((second.builtin_sbi.get(), second.pmpcfg[0].get()), (0, 0));
        assert_eq!(vm.hart_control[1].hsm.get(), hsm::STARTED);
    }
}
