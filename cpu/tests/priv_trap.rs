//! Traps: delegation, status stacks, vectors, priorities, returns.

mod priv_support;

use priv_support::{Env, MODES, write};
use proptest::prelude::*;
use quasar_cpu::hart::{Hart, Privilege};
use quasar_cpu::trap::{Trap, cause};

const SIE: u64 = 1 << 1;
const MIE: u64 = 1 << 3;
const SPIE: u64 = 1 << 5;
const MPIE: u64 = 1 << 7;
const SPP: u64 = 1 << 8;
const MPRV: u64 = 1 << 17;
const TVM: u64 = 1 << 20;
const TW: u64 = 1 << 21;
const TSR: u64 = 1 << 22;
const INTERRUPTS: u64 = 0xaaa;

fn mode() -> impl Strategy<Value = Privilege> {
    prop::sample::select(MODES.to_vec())
}

fn hart() -> impl Strategy<Value = Hart> {
    let registers = prop::array::uniform8(any::<u64>());
    (mode(), registers, any::<u64>()).prop_map(
        |(mode, [status, ie, edeleg, ideleg, mtvec, stvec, mepc, sepc], pc)| {
            let mut hart = Hart::new(0);
            for (number, value) in [
                (0x300, status),
                (0x304, ie),
                (0x302, edeleg),
                (0x303, ideleg),
                (0x305, mtvec),
                (0x105, stvec),
                (0x341, mepc),
                (0x141, sepc),
            ] {
                write(&mut hart, number, value);
            }
            hart.privilege = mode;
            hart.pc = pc & !1;
            hart
        },
    )
}

/// What the previous-mode fields say.
fn mpp(status: u64) -> u64 {
    status >> 11 & 3
}

fn flag(status: u64, bit: u64) -> bool {
    status & bit != 0
}

fn exception() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0u64, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15])
}

proptest! {
    #[test]
    fn exceptions_go_where_delegation_says(before in hart(), code in exception(), tval: u64, at: u64) {
        let mut hart = before.clone();
        hart.take_exception(Trap { cause: code, tval }, at);
        let delegated = before.privilege != Privilege::M && before.csr.medeleg >> code & 1 != 0;
        let (old, new) = (before.csr.mstatus, hart.csr.mstatus);
        if delegated {
            prop_assert_eq!(hart.privilege, Privilege::S);
            prop_assert_eq!((hart.csr.sepc, hart.csr.scause, hart.csr.stval), (at, code, tval));
            prop_assert_eq!(hart.pc, before.csr.stvec & !3);
            prop_assert_eq!(flag(new, SPIE), flag(old, SIE));
            prop_assert!(!flag(new, SIE));
            prop_assert_eq!(flag(new, SPP), before.privilege == Privilege::S);
            prop_assert_eq!(new & !(SIE | SPIE | SPP), old & !(SIE | SPIE | SPP));
            prop_assert_eq!((hart.csr.mepc, hart.csr.mcause), (before.csr.mepc, before.csr.mcause));
        } else {
            prop_assert_eq!(hart.privilege, Privilege::M);
            prop_assert_eq!((hart.csr.mepc, hart.csr.mcause, hart.csr.mtval), (at, code, tval));
            prop_assert_eq!(hart.pc, before.csr.mtvec & !3);
            prop_assert_eq!(flag(new, MPIE), flag(old, MIE));
            prop_assert!(!flag(new, MIE));
            prop_assert_eq!(mpp(new), before.privilege as u64);
            prop_assert_eq!(new & !(MIE | MPIE | 3 << 11), old & !(MIE | MPIE | 3 << 11));
            prop_assert_eq!((hart.csr.sepc, hart.csr.scause), (before.csr.sepc, before.csr.scause));
        }
        prop_assert_eq!(hart.x, before.x);
    }

    #[test]
    fn a_handler_that_returns_restores_mode_and_enable(before in hart(), code in exception()) {
        let mut hart = before.clone();
        hart.csr.mstatus &= !TSR;
        hart.take_exception(Trap { cause: code, tval: 0 }, before.pc);
        let machine = hart.privilege == Privilege::M;
        if machine { hart.mret() } else { hart.sret() }.expect("a return in the handler's mode");
        prop_assert_eq!(hart.privilege, before.privilege);
        prop_assert_eq!(hart.pc, before.pc);
        let bit = if machine { MIE } else { SIE };
        prop_assert_eq!(flag(hart.csr.mstatus, bit), flag(before.csr.mstatus, bit));
        let kept_mprv = machine && before.privilege == Privilege::M;
        prop_assert_eq!(flag(hart.csr.mstatus, MPRV), flag(before.csr.mstatus, MPRV) && kept_mprv);
    }

    #[test]
    fn mret_only_in_machine_mode(before in hart()) {
        let mut hart = before.clone();
        let result = hart.mret();
        if before.privilege != Privilege::M {
            prop_assert_eq!(result, Err(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: 0x3020_0073 }));
            prop_assert_eq!(hart, before);
            return Ok(());
        }
        let (old, new) = (before.csr.mstatus, hart.csr.mstatus);
        prop_assert_eq!(hart.privilege as u64, mpp(old));
        prop_assert_eq!(mpp(new), 0);
        prop_assert_eq!(flag(new, MIE), flag(old, MPIE));
        prop_assert!(flag(new, MPIE));
        prop_assert_eq!(flag(new, MPRV), flag(old, MPRV) && mpp(old) == 3);
        prop_assert_eq!(hart.pc, before.csr.mepc);
    }

    #[test]
    fn sret_obeys_tsr(before in hart()) {
        let mut hart = before.clone();
        let result = hart.sret();
        let old = before.csr.mstatus;
        let refused = before.privilege == Privilege::U || before.privilege == Privilege::S && flag(old, TSR);
        if refused {
            prop_assert_eq!(result, Err(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval: 0x1020_0073 }));
            prop_assert_eq!(hart, before);
            return Ok(());
        }
        let new = hart.csr.mstatus;
        prop_assert_eq!(hart.privilege, if flag(old, SPP) { Privilege::S } else { Privilege::U });
        prop_assert_eq!(flag(new, SIE), flag(old, SPIE));
        prop_assert!(flag(new, SPIE) && !flag(new, SPP) && !flag(new, MPRV));
        prop_assert_eq!(hart.pc, before.csr.sepc);
    }

    /// Against the rules of 3.1.9 and 12.1.3 written down one interrupt at a time.
    #[test]
    fn interrupts_by_enable_delegation_and_priority(hart in hart(), mip: u64) {
        let mip = mip & INTERRUPTS;
        let mut expected = None;
        let order = [11, 3, 7, 9, 1, 5];
        for to_machine in [true, false] {
            for code in order {
                let is_delegated = hart.csr.mideleg >> code & 1 != 0;
                let enabled = match (hart.privilege, to_machine) {
                    (Privilege::M, true) => flag(hart.csr.mstatus, MIE),
                    (Privilege::M, false) => false,
                    (Privilege::S, false) => flag(hart.csr.mstatus, SIE),
                    (Privilege::S | Privilege::U, true) | (Privilege::U, false) => true,
                };
                let pending = mip >> code & 1 != 0 && hart.csr.mie >> code & 1 != 0;
                if expected.is_none() && pending && enabled && is_delegated != to_machine {
                    expected = Some(1 << 63 | code);
                }
            }
        }
        prop_assert_eq!(hart.pending_interrupt(mip), expected);
        prop_assert_eq!(hart.wakes(mip), hart.csr.mie & mip != 0);
        if let Some(taken) = expected {
            let mut after = hart.clone();
            after.waiting = true;
            after.take_interrupt(taken);
            let code = taken & 63;
            let to_supervisor = hart.csr.mideleg >> code & 1 != 0;
            let tvec = if to_supervisor { after.csr.stvec } else { after.csr.mtvec };
            let vector = if tvec & 3 == 1 { (tvec & !3).wrapping_add(4 * code) } else { tvec & !3 };
            prop_assert_eq!(after.pc, vector);
            prop_assert_eq!(after.privilege, if to_supervisor { Privilege::S } else { Privilege::M });
            let epc = if to_supervisor { after.csr.sepc } else { after.csr.mepc };
            let told = if to_supervisor { after.csr.scause } else { after.csr.mcause };
            prop_assert_eq!((epc, told), (hart.pc, taken));
            prop_assert!(!after.waiting);
            prop_assert_eq!(after.pending_interrupt(mip & !(1 << code) & hart.csr.mideleg), if to_supervisor {
                None
            } else {
                after.pending_interrupt(mip & hart.csr.mideleg)
            }, "S-mode takes no second one before it enables them again");
        }
    }

    #[test]
    fn wait_and_fence_checks(hart in hart()) {
        let illegal = |tval| Err(Trap { cause: cause::ILLEGAL_INSTRUCTION, tval });
        let status = hart.csr.mstatus;
        let (user, supervisor) = (hart.privilege == Privilege::U, hart.privilege == Privilege::S);
        let wfi = if user || supervisor && flag(status, TW) { illegal(0x1050_0073) } else { Ok(()) };
        let vma = if user || supervisor && flag(status, TVM) { illegal(0x1200_0073) } else { Ok(()) };
        let order = if user { illegal(0x1800_0073) } else { Ok(()) };
        prop_assert_eq!(hart.check_wfi(), wfi);
        prop_assert_eq!(hart.check_sfence(0x1200_0073), vma);
        prop_assert_eq!(hart.check_sfence_order(0x1800_0073), order);
        let data = if flag(status, MPRV) { mpp(status) } else { hart.privilege as u64 };
        prop_assert_eq!(hart.data_privilege() as u64, data);
    }
}

#[test]
fn environment_calls_name_their_mode() {
    for (mode, code) in [(Privilege::U, 8), (Privilege::S, 9), (Privilege::M, 11)] {
        let mut hart = Hart::new(0);
        hart.privilege = mode;
        assert_eq!(hart.ecall(), Trap { cause: code, tval: 0 });
    }
}

#[test]
fn only_supervisor_software_interrupts_can_be_posted() {
    let mut hart = Hart::new(0);
    hart.post(u64::MAX);
    assert_eq!(hart.mip(&Env::default()), 2);
}
