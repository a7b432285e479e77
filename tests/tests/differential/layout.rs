//! Where everything of a test image lies: shared by the generator, the harness (as preprocessor symbols) and the
//! readers of results.

/// Start of RAM, of the harness, and its entry.
pub const RAM: u64 = 0x8000_0000;
/// Bytes of RAM of both machines.
pub const RAM_BYTES: u64 = 128 << 20;
/// Page tables: root of Sv39, the table below it, the lowest one, root of Sv48, root of Sv57; a page each.
pub const TABLES: u64 = 0x8010_0000;
/// Data pages; the start of a 2 MiB page.
pub const DATA: u64 = 0x8020_0000;
/// How many data pages have observed windows.
pub const DATA_PAGES: u64 = 4;
/// The first and the last bytes of each data page are set before and read after each case.
pub const WINDOW: u64 = 64;
/// Offset in a data page of code that is never written: zeros, which are an illegal instruction.
pub const LANDING: u64 = 0x800;
/// Number of cases, then the cases.
pub const CASES: u64 = 0x8040_0000;
/// Bytes before the first case.
pub const CASES_HEADER: u64 = 64;
/// What the cases left: `begin_signature`.
pub const OUTPUT: u64 = 0x8400_0000;

/// Where pages of 4 KiB, then of 2 MiB, are mapped when paging is on. Neither machine has anything there physically,
/// so that both fault when such an address is used untranslated.
pub const VIRTUAL: u64 = 0x1_0000_0000;
/// What is added to a physical address for its alias that U-mode may use.
pub const USER_ALIAS: u64 = 0x4000_0000;
/// [`VIRTUAL`] once more, at the top of the address space.
pub const VIRTUAL_HIGH: u64 = 0xffff_ffff_c000_0000;

/// 4 KiB entries of a case's page table.
pub const SMALL_PTES: usize = 32;
/// 2 MiB entries, the first of which points to the table of the small ones.
pub const LARGE_PTES: usize = 8;
/// 1 GiB entries, of which three are fixed.
pub const HUGE_PTES: usize = 8;
/// All entries.
pub const PTES: usize = SMALL_PTES + LARGE_PTES + HUGE_PTES;
/// Doublewords of data windows.
pub const DATA_WORDS: usize = (DATA_PAGES * 2 * WINDOW / 8) as usize;
/// Bytes of code of a case, the final `ecall` included.
pub const CODE_BYTES: usize = 160;

macro_rules! fields {
    ($(#[$outer:meta])* $vis:vis mod $name:ident; $prefix:literal; $($(#[$doc:meta])* $field:ident: $words:expr;)*) => {
        $(#[$outer])*
        $vis mod $name {
            use super::*;
            #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "the fields' names, as indices")]
            enum Order { $($field,)* }
            const SIZES: &[usize] = &[$($words,)*];
            const fn start(of: usize) -> usize {
                let (mut at, mut sum) = (0, 0);
                while at < of {
                    sum += SIZES[at];
                    at += 1;
                }
                sum
            }
            $($(#[$doc])* pub const $field: usize = start(Order::$field as usize);)*
            /// Doublewords of the whole record.
            pub const WORDS: usize = start(SIZES.len());
            /// Byte offsets for the harness.
            pub fn symbols() -> Vec<(String, u64)> {
                let mut symbols = vec![(concat!($prefix, "_BYTES").to_owned(), 8 * WORDS as u64)];
                $(symbols.push((concat!($prefix, "_", stringify!($field)).to_owned(), 8 * $field as u64));)*
                symbols
            }
        }
    };
}

fields! {
    /// What a case starts from, in doublewords.
    pub mod case; "CASE";
    /// First instruction's address.
    ENTRY: 1;
    /// mstatus before the `mret` into the case.
    MSTATUS: 1;
    /// medeleg.
    MEDELEG: 1;
    /// mideleg.
    MIDELEG: 1;
    /// mie.
    MIE: 1;
    /// mip.
    MIP: 1;
    /// satp.
    SATP: 1;
    /// fcsr.
    FCSR: 1;
    /// mcounteren.
    MCOUNTEREN: 1;
    /// scounteren.
    SCOUNTEREN: 1;
    /// pmpcfg0.
    PMPCFG: 1;
    /// pmpaddr0 to 7.
    PMPADDR: 8;
    /// Integer registers.
    X: 32;
    /// Floating-point registers.
    F: 32;
    /// Data windows.
    DATA: DATA_WORDS;
    /// Page table entries.
    PTE: PTES;
    /// Instructions.
    CODE: CODE_BYTES / 8;
}

fields! {
    /// What a case leaves, in doublewords.
    pub mod result; "OUT";
    /// mcause of the trap that ended the case.
    MCAUSE: 1;
    /// mepc.
    MEPC: 1;
    /// mtval.
    MTVAL: 1;
    /// mstatus.
    MSTATUS: 1;
    /// scause.
    SCAUSE: 1;
    /// sepc.
    SEPC: 1;
    /// stval.
    STVAL: 1;
    /// sscratch.
    SSCRATCH: 1;
    /// fcsr.
    FCSR: 1;
    /// satp.
    SATP: 1;
    /// Integer registers.
    X: 32;
    /// Floating-point registers.
    F: 32;
    /// Data windows.
    DATA: DATA_WORDS;
    /// Page table entries.
    PTE: PTES;
}

/// Everything that the harness and the linker script need to know.
#[must_use]
pub fn symbols(cases: u64) -> Vec<(String, u64)> {
    let mut all = case::symbols();
    all.extend(result::symbols());
    let single = [
        ("RAM_END", RAM + RAM_BYTES),
        ("TABLES", TABLES),
        ("DATA", DATA),
        ("DATA_PAGES", DATA_PAGES),
        ("WINDOW", WINDOW),
        ("CASES", CASES),
        ("CASES_HEADER", CASES_HEADER),
        ("OUTPUT", OUTPUT),
        ("OUTPUT_BYTES", cases * 8 * result::WORDS as u64),
        ("SMALL_PTES", SMALL_PTES as u64),
        ("LARGE_PTES", LARGE_PTES as u64),
        ("HUGE_PTES", HUGE_PTES as u64),
    ];
    all.extend(single.map(|(name, value)| (name.to_owned(), value)));
    all
}
