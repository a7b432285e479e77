//! Random instructions of a case. Jumps only go forward, so that every case ends; loads and stores go by
//! registers that nothing else writes, so that they mostly hit the observed windows.

use crate::case::Mode;
use crate::code::{END, Piece};
use crate::layout::WINDOW;
use crate::profile::Profile;
use crate::random::Random;
use quasar_cpu::isa::{Def, Extension, Format, Inst, LIST, Op, Reg, decode, encode};

/// Registers with the address of a window; x2, x8 and x9, which compressed instructions can use.
pub const POINTERS: [u8; 3] = [2, 8, 9];
/// Holds bits for status registers, all even.
pub const STATUS: u8 = 29;
/// Holds an address to jump to, outside the case.
pub const TARGET: u8 = 30;
/// Holds an address that mostly faults.
pub const BAD_POINTER: u8 = 31;

/// What shapes a stream.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What to test most.
    pub profile: Profile,
    /// The mode that the case starts in.
    pub mode: Mode,
    /// mstatus.TSR and TW keep S-mode from `sret` and `wfi`.
    pub traps_wfi: bool,
    /// Distance of each pointer from the page boundary in the middle of its window.
    pub deltas: [i64; 3],
    /// Whether Zicond is there on both sides.
    pub zicond: bool,
}

/// Makes one.
pub struct Stream<'a> {
    /// Where chance comes from.
    pub random: &'a mut Random,
    /// What to make.
    pub shape: Shape,
}

impl Stream<'_> {
    /// A destination: none of the registers that the stream relies on.
    pub fn destination(&mut self) -> u8 {
        loop {
            let register = self.register();
            if !is_kept(register) {
                return register;
            }
        }
    }

    /// Any register.
    pub fn register(&mut self) -> u8 {
        u8::try_from(self.random.below(32)).expect("five bits")
    }

    fn def(&mut self, wanted: impl Fn(&Def) -> bool) -> &'static Def {
        loop {
            let at = usize::try_from(self.random.below(LIST.len() as u64)).expect("an index");
            let def = &LIST[at];
            if wanted(def) && (self.shape.zicond || def.extension != Extension::Zicond) {
                return def;
            }
        }
    }

    /// An instruction that only touches registers.
    pub fn plain(&mut self, wanted: fn(&Def) -> bool) -> Piece {
        let def = self.def(wanted);
        Piece::word(self.operands(def, 0, self.shape.deltas[0], false))
    }

    /// Random operands; of memory accesses the base is given, and the offset if the form has one chosen so that
    /// the access stays in the window.
    fn operands(&mut self, def: &Def, base: u8, delta: i64, memory: bool) -> u32 {
        let layout = def.format.shape();
        let rd = if layout.rd == Reg::X { self.destination() } else { self.register() };
        let rm = match self.random.below(100) {
            0..=39 => 7,
            40..=97 => self.random.below(5),
            _ => 5 + self.random.below(2),
        };
        let imm = if memory { self.offset(delta, 8) } else { self.random.word().cast_signed() };
        let inst = Inst {
            op: def.op,
            rd: if layout.rd == Reg::None { 0 } else { rd },
            rs1: if memory {
                base
            } else if layout.rs1 == Reg::None {
                0
            } else {
                self.register()
            },
            rs2: if layout.rs2 == Reg::None { 0 } else { self.register() },
            rs3: if layout.rs3 == Reg::None { 0 } else { self.register() },
            rm: match layout.mode {
                quasar_cpu::isa::Mode::None => 0,
                quasar_cpu::isa::Mode::Rounding => u8::try_from(rm).expect("three bits"),
                quasar_cpu::isa::Mode::Ordering => u8::try_from(self.random.below(4)).expect("two bits"),
            },
            len: 4,
            imm: immediate(layout.imm, imm),
        };
        encode(&inst).unwrap_or_else(|| panic!("no encoding: {inst:?}"))
    }

    /// An offset for `size` bytes in the window around a pointer.
    fn offset(&mut self, delta: i64, size: i64) -> i64 {
        let window = WINDOW.cast_signed();
        let at = match self.random.below(4) {
            0 => self.random.range(-window, window - size),
            1 => self.random.range(-size, size),
            _ => self.random.range(-window / 8, window / 8 - 1) * 8,
        };
        at - delta
    }

    fn pointer(&mut self) -> (u8, i64) {
        let at = usize::try_from(self.random.below(3)).expect("an index");
        (POINTERS[at], self.shape.deltas[at])
    }

    pub fn memory(&mut self) -> Piece {
        let def = self.def(is_memory);
        if self.random.chance(4) {
            return Piece::word(self.operands(def, BAD_POINTER, 0, true));
        }
        let (base, delta) = self.pointer();
        Piece::word(self.operands(def, base, delta, true))
    }

    /// An AMO, or LR with an SC behind it: alone, whether an SC faults when there is no reservation, and what it
    /// does through another address of the same memory, is an implementation's choice.
    pub fn atomic(&mut self) -> Piece {
        let base = if self.random.chance(3) { BAD_POINTER } else { self.pointer().0 };
        if self.random.chance(70) {
            let def = self.def(|def| def.format == Format::Atomic && !is_store_conditional(def.op));
            return Piece::word(self.operands(def, base, 0, true));
        }
        let (lr, sc) = self.random.pick(&[(Op::LrW, Op::ScW), (Op::LrD, Op::ScD)]);
        let (lr, sc) = (lr.def().expect("listed"), sc.def().expect("listed"));
        let mut words = vec![self.operands(lr, base, 0, true)];
        if self.random.chance(30) {
            let def = self.def(is_integer);
            words.push(self.operands(def, 0, 0, false));
        }
        words.push(self.operands(sc, base, 0, true));
        if self.random.chance(30) {
            words.push(self.operands(sc, base, 0, true));
        }
        Piece::Words(words)
    }

    /// A 16-bit instruction: any bits that don't jump, don't write what must be kept, and stay in the window.
    pub fn compressed(&mut self) -> Piece {
        loop {
            let Ok(half) = u16::try_from(self.random.below(1 << 16)) else { continue };
            if half & 3 == 3 {
                continue;
            }
            let inst = decode(half.into());
            let Some(def) = inst.op.def() else {
                if self.random.chance(5) {
                    return Piece::Half(half);
                }
                continue;
            };
            let layout = def.format.shape();
            let acceptable = match def.format {
                Format::Load | Format::Store | Format::FloatLoad | Format::FloatStore => {
                    self.in_window(&inst)
                }
                Format::Branch | Format::J | Format::Jalr => false,
                Format::Nullary => self.random.chance(5),
                _ => true,
            };
            if acceptable && !(layout.rd == Reg::X && is_kept(inst.rd)) {
                return Piece::Half(half);
            }
        }
    }

    fn in_window(&self, inst: &Inst) -> bool {
        let window = WINDOW.cast_signed();
        POINTERS.iter().zip(self.shape.deltas).any(|(&pointer, delta)| {
            pointer == inst.rs1 && (-window..=window - 8).contains(&(delta + inst.imm))
        })
    }

    pub fn jump(&mut self) -> Piece {
        let skip = usize::try_from(self.random.below(4)).expect("few");
        match self.random.below(20) {
            0..=8 => {
                let op = self.random.pick(&[Op::Beq, Op::Bne, Op::Blt, Op::Bge, Op::Bltu, Op::Bgeu]);
                let (rs1, rs2) = (self.register(), self.register());
                Piece::Jump { op, rd: 0, rs1, rs2, skip }
            }
            9..=10 => Piece::Jump { op: Op::Jal, rd: self.destination(), rs1: 0, rs2: 0, skip },
            11..=15 => {
                let base = self.random.pick(&[0xa001, 0xc001, 0xe001]);
                let register = u8::try_from(8 + self.random.below(8)).expect("x8 to x15");
                Piece::ShortJump { base, register: (base != 0xa001).then_some(register), skip }
            }
            16..=18 => {
                let (rd, link) = (self.address_register(), self.destination());
                // An odd offset loses its lowest bit.
                let imm = self.random.range(0, 1);
                let then = vec![word(Op::Jalr, link, rd, 0, imm)];
                Piece::Through { rd, skip, then }
            }
            _ => self.jump_out(),
        }
    }

    /// A jump out of the case.
    pub fn jump_out(&mut self) -> Piece {
        let link = self.destination();
        match self.random.below(3) {
            0 => Piece::Half(0x8002 | u16::from(TARGET) << 7),
            1 => Piece::Half(0x9002 | u16::from(TARGET) << 7),
            _ => Piece::word(word(Op::Jalr, link, TARGET, 0, 0)),
        }
    }

    /// A destination that keeps what it is given.
    pub fn address_register(&mut self) -> u8 {
        loop {
            let register = self.destination();
            if register != 0 {
                return register;
            }
        }
    }

    /// Bits that are no instruction of either side.
    pub fn illegal(&mut self) -> Piece {
        loop {
            let word = u32::try_from(self.random.word() >> 32).expect("32 bits") | 3;
            // Longer encodings than 32 bits are not in question: their low bits are 11111.
            if word & 0x1f != 0x1f && decode(word).op == Op::Illegal && word != END {
                return Piece::word(word);
            }
        }
    }
}

/// An encoding.
#[must_use]
pub fn word(op: Op, rd: u8, rs1: u8, rs2: u8, imm: i64) -> u32 {
    let inst = Inst { op, rd, rs1, rs2, rs3: 0, rm: 0, len: 4, imm };
    encode(&inst).unwrap_or_else(|| panic!("no encoding: {inst:?}"))
}

/// Cuts a random number to what the form can hold.
fn immediate(form: quasar_cpu::isa::Imm, value: i64) -> i64 {
    use quasar_cpu::isa::Imm;
    match form {
        Imm::None => 0,
        Imm::I | Imm::S => value << 52 >> 52,
        Imm::B => value << 51 >> 52 << 1,
        Imm::U => value << 32 >> 44 << 12,
        Imm::J => value << 43 >> 44 << 1,
        Imm::Shift6 => value & 63,
        Imm::Shift5 => value & 31,
        Imm::Unsigned => value & 0xfff,
    }
}

fn is_kept(register: u8) -> bool {
    POINTERS.contains(&register) || (STATUS..=BAD_POINTER).contains(&register)
}

const fn is_store_conditional(op: Op) -> bool {
    matches!(op, Op::ScW | Op::ScD)
}

pub const fn is_integer(def: &Def) -> bool {
    matches!(def.format, Format::R | Format::Unary | Format::I | Format::Shift6 | Format::Shift5 | Format::U)
}

const fn is_memory(def: &Def) -> bool {
    matches!(def.format, Format::Load | Format::Store | Format::FloatLoad | Format::FloatStore)
}

pub const fn is_float(def: &Def) -> bool {
    matches!(def.extension, Extension::F | Extension::D) && !is_memory(def)
}
