//! Control and status registers: numbers and names (Privileged ISA, "CSR Listing"; Sstc).

macro_rules! registers {
    ($($constant:ident = $number:literal $name:literal;)*) => {
        $(#[doc = concat!("`", $name, "`")] pub const $constant: u16 = $number;)*
        /// Every register that has a constant of its own, by number and name.
        const SINGLE: &[(u16, &str)] = &[$(($number, $name),)*];
    };
}

registers! {
    // Unprivileged.
    FFLAGS = 0x001 "fflags";
    FRM = 0x002 "frm";
    FCSR = 0x003 "fcsr";
    CYCLE = 0xc00 "cycle";
    TIME = 0xc01 "time";
    INSTRET = 0xc02 "instret";

    // Supervisor.
    SSTATUS = 0x100 "sstatus";
    SIE = 0x104 "sie";
    STVEC = 0x105 "stvec";
    SCOUNTEREN = 0x106 "scounteren";
    SENVCFG = 0x10a "senvcfg";
    SSCRATCH = 0x140 "sscratch";
    SEPC = 0x141 "sepc";
    SCAUSE = 0x142 "scause";
    STVAL = 0x143 "stval";
    SIP = 0x144 "sip";
    STIMECMP = 0x14d "stimecmp";
    SATP = 0x180 "satp";
    SCONTEXT = 0x5a8 "scontext";

    // Machine.
    MSTATUS = 0x300 "mstatus";
    MISA = 0x301 "misa";
    MEDELEG = 0x302 "medeleg";
    MIDELEG = 0x303 "mideleg";
    MIE = 0x304 "mie";
    MTVEC = 0x305 "mtvec";
    MCOUNTEREN = 0x306 "mcounteren";
    MENVCFG = 0x30a "menvcfg";
    MCOUNTINHIBIT = 0x320 "mcountinhibit";
    MSCRATCH = 0x340 "mscratch";
    MEPC = 0x341 "mepc";
    MCAUSE = 0x342 "mcause";
    MTVAL = 0x343 "mtval";
    MIP = 0x344 "mip";
    PMPCFG0 = 0x3a0 "pmpcfg0";
    PMPCFG2 = 0x3a2 "pmpcfg2";
    MSECCFG = 0x747 "mseccfg";
    TSELECT = 0x7a0 "tselect";
    TDATA1 = 0x7a1 "tdata1";
    TDATA2 = 0x7a2 "tdata2";
    TDATA3 = 0x7a3 "tdata3";
    TINFO = 0x7a4 "tinfo";
    TCONTROL = 0x7a5 "tcontrol";
    MCONTEXT = 0x7a8 "mcontext";
    MCYCLE = 0xb00 "mcycle";
    MINSTRET = 0xb02 "minstret";
    MVENDORID = 0xf11 "mvendorid";
    MARCHID = 0xf12 "marchid";
    MIMPID = 0xf13 "mimpid";
    MHARTID = 0xf14 "mhartid";
    MCONFIGPTR = 0xf15 "mconfigptr";
}

/// `pmpaddr0`; sixteen in a row.
pub const PMPADDR0: u16 = 0x3b0;
/// `pmpaddr15`.
pub const PMPADDR15: u16 = 0x3bf;
/// `hpmcounter3`; the counters' numbers go on to 31.
pub const HPMCOUNTER3: u16 = 0xc03;
/// `hpmcounter31`.
pub const HPMCOUNTER31: u16 = 0xc1f;
/// `mhpmcounter3`.
pub const MHPMCOUNTER3: u16 = 0xb03;
/// `mhpmcounter31`.
pub const MHPMCOUNTER31: u16 = 0xb1f;
/// `mhpmevent3`.
pub const MHPMEVENT3: u16 = 0x323;
/// `mhpmevent31`.
pub const MHPMEVENT31: u16 = 0x33f;

macro_rules! numbered {
    ($prefix:literal: $($number:literal)*) => { [$(concat!($prefix, $number)),*] };
}

macro_rules! counters {
    ($prefix:literal) => {
        numbered!($prefix: 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31)
    };
}

/// Registers that come in rows: the first one's number, and the names.
const ROWS: &[(u16, &[&str])] = &[
    (PMPADDR0, &numbered!("pmpaddr": 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),
    (HPMCOUNTER3, &counters!("hpmcounter")),
    (MHPMCOUNTER3, &counters!("mhpmcounter")),
    (MHPMEVENT3, &counters!("mhpmevent")),
];

/// Every register that has a name here, as (number, name), in no particular order.
pub fn all() -> impl Iterator<Item = (u16, &'static str)> {
    SINGLE.iter().copied().chain(ROWS.iter().flat_map(|(first, names)| (*first..).zip(names.iter().copied())))
}

/// The name of register `number`, if it has one here.
#[must_use]
pub fn name(number: u16) -> Option<&'static str> {
    all().find_map(|(candidate, name)| (candidate == number).then_some(name))
}

/// The register called `name`.
#[must_use]
pub fn by_name(name: &str) -> Option<u16> {
    all().find_map(|(number, candidate)| (candidate == name).then_some(number))
}

/// The lowest privilege that may access register `number`: 0 user, 1 supervisor, 2 hypervisor, 3 machine.
#[must_use]
pub const fn privilege(number: u16) -> u8 {
    (number >> 8 & 3) as u8
}

/// Whether writing register `number` is illegal by its number.
#[must_use]
pub const fn is_read_only(number: u16) -> bool {
    number >> 10 & 3 == 3
}
