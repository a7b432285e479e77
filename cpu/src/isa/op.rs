//! Operations: the enumeration, the table of definitions, and what a block builder asks about them.

use super::encoding::{self, Pattern};
use super::{Format, for_each_instruction};

/// The extension that an instruction belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the specification's")]
pub enum Extension {
    I,
    M,
    A,
    F,
    D,
    Zicsr,
    Zifencei,
    Zba,
    Zbb,
    Zbs,
    Zicond,
    Svinval,
    Privileged,
}

/// One instruction of the list.
#[derive(Clone, Copy, Debug)]
pub struct Def {
    /// The operation.
    pub op: Op,
    /// The mnemonic, without `.aq`/`.rl`.
    pub name: &'static str,
    /// The fixed bits of the 32-bit encoding.
    pub pattern: Pattern,
    /// The operands.
    pub format: Format,
    /// Where it is specified.
    pub extension: Extension,
}

macro_rules! define {
    ($($op:ident $name:literal $format:ident $extension:ident $encoding:ident($($arg:expr),*);)*) => {
        /// What an instruction does. Compressed instructions have the operation that they expand to.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Op {
            /// Not an instruction that this hart implements.
            Illegal = 0,
            $(#[doc = concat!("`", $name, "`")] $op,)*
        }

        /// Every instruction, in the order of [`Op`] (which starts at 1 here: `Illegal` isn't listed).
        pub const LIST: &[Def] = &[$(Def {
            op: Op::$op,
            name: $name,
            pattern: encoding::$encoding($($arg),*),
            format: Format::$format,
            extension: Extension::$extension,
        },)*];
    };
}
for_each_instruction!(define);

impl Op {
    /// How many values there are, `Illegal` included; for tables indexed by `op as usize`.
    pub const COUNT: usize = LIST.len() + 1;

    /// The definition; `None` for `Illegal`.
    #[must_use]
    pub fn def(self) -> Option<&'static Def> {
        (self as usize).checked_sub(1).map(|index| &LIST[index])
    }

    /// The mnemonic, as binutils writes it; ordering suffixes of atomics aren't part of it.
    #[must_use]
    pub fn mnemonic(self) -> &'static str {
        self.def().map_or("illegal", |def| def.name)
    }

    /// A CSR access, writing or not.
    #[must_use]
    pub const fn is_csr(self) -> bool {
        matches!(self.format(), Some(Format::Csr | Format::CsrImm))
    }

    const fn format(self) -> Option<Format> {
        match (self as usize).checked_sub(1) {
            Some(index) => Some(LIST[index].format),
            None => None,
        }
    }

    /// Whether execution may not simply go on with the next instruction afterwards: control flow, traps, and
    /// whatever may change privilege, translation or the instructions in memory. CSR accesses count here even if
    /// they only read; [`super::Inst::ends_block`] looks closer.
    #[must_use]
    pub const fn ends_block(self) -> bool {
        match self.format() {
            None => true,
            Some(format) => format.ends_block(),
        }
    }
}
