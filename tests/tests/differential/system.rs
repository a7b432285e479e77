//! CSR accesses, fences, environment calls, trap returns and what is no instruction.

use crate::case::Mode;
use crate::code::Piece;
use crate::stream::{STATUS, Stream, TARGET, word};
use quasar_cpu::isa::{Op, csr as n};

/// What may be done with a register so that both sides must agree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Anything.
    Any,
    /// Read only: the harness lives by its value, or which bits it keeps is an implementation's choice (WARL).
    Read,
    /// Read without looking: its value is an implementation's (counters).
    Touch,
    /// Written from the register of status bits: others select what one side has and the other has not.
    Status,
    /// Written by immediates, from the bits of software interrupts: QEMU has interrupts that this machine has not.
    Interrupts,
}

const REGISTERS: &[(u16, Use)] = &[
    (n::FFLAGS, Use::Any),
    (n::FRM, Use::Any),
    (n::FCSR, Use::Any),
    (n::CYCLE, Use::Touch),
    (n::TIME, Use::Touch),
    (n::INSTRET, Use::Touch),
    (n::SSTATUS, Use::Status),
    (n::SSTATUS, Use::Status),
    (n::SIE, Use::Interrupts),
    (n::SIP, Use::Interrupts),
    (n::STVEC, Use::Read),
    (n::SCOUNTEREN, Use::Read),
    (n::SSCRATCH, Use::Any),
    (n::SEPC, Use::Status),
    (n::SCAUSE, Use::Any),
    (n::STVAL, Use::Any),
    (n::SATP, Use::Read),
    (n::MSTATUS, Use::Status),
    (n::MSTATUS, Use::Status),
    (n::MEDELEG, Use::Read),
    (n::MIDELEG, Use::Read),
    (n::MIE, Use::Interrupts),
    (n::MIP, Use::Interrupts),
    (n::MTVEC, Use::Read),
    (n::MCOUNTEREN, Use::Read),
    (n::MSCRATCH, Use::Read),
    (n::MEPC, Use::Status),
    (n::MCAUSE, Use::Any),
    (n::MTVAL, Use::Any),
    (n::PMPCFG0, Use::Read),
    (n::PMPADDR0, Use::Read),
    (n::MCYCLE, Use::Touch),
    (n::MHARTID, Use::Any),
    // Of extensions that neither side has: reserved, vector, hypervisor, custom.
    (0x005, Use::Any),
    (0x008, Use::Any),
    (0x200, Use::Any),
    (0x5c0, Use::Any),
    (0x600, Use::Any),
    (0x7c0, Use::Any),
    (0xbc0, Use::Any),
    (0xcc0, Use::Any),
    (0xfc0, Use::Any),
];

/// A CSR access.
pub fn csr(stream: &mut Stream<'_>) -> Piece {
    let (number, usage) = loop {
        let (number, usage) = stream.random.pick(REGISTERS);
        // Mostly what the mode may access.
        if n::privilege(number) <= stream.shape.mode as u8 || stream.random.chance(15) {
            break (number, usage);
        }
    };
    let op = stream.random.pick(&[Op::Csrrw, Op::Csrrs, Op::Csrrc, Op::Csrrwi, Op::Csrrsi, Op::Csrrci]);
    let immediate = matches!(op, Op::Csrrwi | Op::Csrrsi | Op::Csrrci);
    let rd = stream.destination();
    let any = stream.register();
    let (op, rd, source) = match usage {
        Use::Any => (op, rd, any),
        Use::Read => (stream.random.pick(&[Op::Csrrs, Op::Csrrci]), rd, 0),
        Use::Touch => (Op::Csrrs, 0, 0),
        Use::Interrupts => {
            let op = stream.random.pick(&[Op::Csrrwi, Op::Csrrsi, Op::Csrrci]);
            (op, rd, any & 0xa)
        }
        // An immediate reaches the interrupt enables only; an odd one would set what an address never has.
        Use::Status if immediate => (op, rd, any & !1),
        Use::Status => (op, rd, STATUS),
    };
    Piece::word(word(op, rd, source, 0, number.into()))
}

/// Fences, calls, returns, and what is no instruction.
pub fn other(stream: &mut Stream<'_>) -> Piece {
    let mode = stream.shape.mode;
    let (rs1, rs2) = (stream.register(), stream.register());
    match stream.random.below(24) {
        0..=3 => Piece::word(word(Op::Fence, 0, 0, 0, stream.random.below(1 << 12).cast_signed())),
        4..=5 => Piece::word(word(Op::FenceI, 0, 0, 0, 0)),
        6..=9 => Piece::word(word(Op::SfenceVma, 0, rs1, rs2, 0)),
        10..=11 => Piece::word(word(Op::SinvalVma, 0, rs1, rs2, 0)),
        12 => Piece::word(word(Op::SfenceWInval, 0, 0, 0, 0)),
        13 => Piece::word(word(Op::SfenceInvalIr, 0, 0, 0, 0)),
        14 => Piece::word(word(Op::Ebreak, 0, 0, 0, 0)),
        15 => Piece::word(word(Op::Ecall, 0, 0, 0, 0)),
        // Where WFI is legal nothing would end it.
        16 if mode == Mode::U || (mode == Mode::S && stream.shape.traps_wfi) => {
            Piece::word(word(Op::Wfi, 0, 0, 0, 0))
        }
        17..=20 => give_back(stream),
        _ => stream.illegal(),
    }
}

/// `mret` or `sret` to a later piece or out of the case; just the instruction where it is illegal anyway.
fn give_back(stream: &mut Stream<'_>) -> Piece {
    let (op, epc, from) = stream.random.pick(&[(Op::Mret, n::MEPC, Mode::M), (Op::Sret, n::SEPC, Mode::S)]);
    let back = word(op, 0, 0, 0, 0);
    if (stream.shape.mode as u8) < from as u8 {
        return Piece::word(back);
    }
    let set = |register| word(Op::Csrrw, 0, register, 0, epc.into());
    if stream.random.chance(30) {
        return Piece::Words(vec![set(TARGET), back]);
    }
    let (rd, skip) = (stream.address_register(), stream.random.below(3));
    Piece::Through { rd, skip: usize::try_from(skip).expect("few"), then: vec![set(rd), back] }
}
