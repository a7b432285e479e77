//! The decoder and disassembler against binutils: every compressed encoding, and thousands of 32-bit words.
//!
//! Needs `riscv64-linux-gnu-as` and `riscv64-linux-gnu-objdump` (Debian: `binutils-riscv64-linux-gnu`).
//! `QUASAR_TEST_SEED` repeats a run.

use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use quasar_cpu::isa::{Extension, Inst, LIST, Op, csr, decode, disassemble};

/// What binutils shall know; Zicond is too new for the oldest supported one (2.40) and has its own test.
const ARCH: &str = "rv64gc_zba_zbb_zbs_svinval_zihintpause_sstc";

/// Instructions of the same opcodes that binutils knows without being asked, and this hart doesn't implement.
const FOREIGN: &[&str] = &["uret", "hret", "dret", "sfence.vm", "hinval.vvma", "hinval.gvma"];

/// Lets the tool run, or says which package it comes from.
fn run(tool: &str, arguments: &[&str], directory: &std::path::Path) -> Output {
    let output = Command::new(tool).args(arguments).current_dir(directory).output().unwrap_or_else(|error| {
        panic!("cannot run {tool}: {error}; install the Debian package binutils-riscv64-linux-gnu")
    });
    assert!(output.status.success(), "{tool} failed: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What objdump makes of `code`: address, mnemonic, operands.
fn objdump(code: &[u8]) -> Vec<(u64, String, String)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    std::fs::write(path.join("code.bin"), code).expect("write code.bin");
    std::fs::write(path.join("code.s"), ".text\n.incbin \"code.bin\"\n").expect("write code.s");
    run("riscv64-linux-gnu-as", &[&format!("-march={ARCH}"), "code.s", "-o", "code.o"], path);
    let arguments = ["-D", "-z", "-j", ".text", "-M", "no-aliases,priv-spec=1.12", "code.o"];
    let listing = run("riscv64-linux-gnu-objdump", &arguments, path).stdout;
    String::from_utf8(listing).expect("objdump writes text").lines().filter_map(parse).collect()
}

/// One line of a listing: `address: encoding <tab> mnemonic <tab> operands`, then perhaps a comment or a symbol.
fn parse(line: &str) -> Option<(u64, String, String)> {
    let mut columns = line.split('\t');
    let address = u64::from_str_radix(columns.next()?.trim().strip_suffix(':')?, 16).ok()?;
    columns.next()?;
    let mnemonic = columns.next()?.trim().to_owned();
    let operands = columns.next().unwrap_or("");
    let operands = operands.split('#').next().unwrap_or("").trim();
    if mnemonic == "unimp" {
        // Binutils has no other text for this one, aliases or not.
        return Some((address, "csrrw".to_owned(), "zero,cycle,zero".to_owned()));
    }
    let Some((plain, _symbol)) = operands.split_once(" <") else {
        return Some((address, mnemonic, operands.to_owned()));
    };
    // With a symbol the target is bare hexadecimal.
    let (before, target) = plain.rsplit_once(',').map_or(("", plain), |(before, target)| (before, target));
    let comma = if before.is_empty() { "" } else { "," };
    Some((address, mnemonic, format!("{before}{comma}0x{}", target.trim_start_matches("0x"))))
}

/// Our text, split as [`parse`] splits, with the spellings that differ made alike.
fn ours(inst: &Inst, address: u64) -> (String, String) {
    let text = disassemble(inst, address);
    let (mnemonic, operands) = text.split_once(' ').unwrap_or((&text, ""));
    let operands = match inst.op {
        Op::Fence => operands
            .split(',')
            .map(|set| if set == "0" { "unknown" } else { set })
            .collect::<Vec<_>>()
            .join(","),
        _ => operands.to_owned(),
    };
    (mnemonic.to_owned(), operands)
}

/// The base instruction that a compressed one abbreviates, by the "expands to" lines of the specification.
fn expand(mnemonic: &str, operands: &str) -> (String, String) {
    let Some(base) = mnemonic.strip_prefix("c.") else {
        return (mnemonic.to_owned(), operands.to_owned());
    };
    let (first, rest) = operands.split_once(',').unwrap_or((operands, ""));
    let (name, text) = match base {
        "unimp" => (".2byte", "0x0".to_owned()),
        "nop" => ("addi", format!("zero,zero,{}", if operands.is_empty() { "0" } else { operands })),
        "addi4spn" => ("addi", operands.to_owned()),
        "addi16sp" => ("addi", format!("sp,{operands}")),
        "li" => ("addi", format!("{first},zero,{rest}")),
        "mv" => ("add", format!("{first},zero,{rest}")),
        "j" => ("jal", format!("zero,{operands}")),
        "beqz" => ("beq", format!("{first},zero,{rest}")),
        "bnez" => ("bne", format!("{first},zero,{rest}")),
        "jr" => ("jalr", format!("zero,0({operands})")),
        "jalr" => ("jalr", format!("ra,0({operands})")),
        "slli64" | "srli64" | "srai64" => (base.trim_end_matches("64"), format!("{first},{first},0x0")),
        "lui" | "ebreak" => (base, operands.to_owned()),
        _ if operands.contains('(') => (base.trim_end_matches("sp"), operands.to_owned()),
        _ => (base, format!("{first},{first},{rest}")),
    };
    (name.to_owned(), text)
}

#[test]
fn all_compressed_encodings_agree_with_binutils() {
    let halves: Vec<u16> = (0..=u16::MAX).filter(|half| half & 3 != 3).collect();
    let code: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    let listing = objdump(&code);
    assert_eq!(listing.len(), halves.len(), "objdump skipped some");
    let mut wrong = Vec::new();
    for ((address, mnemonic, operands), half) in listing.iter().zip(&halves) {
        let inst = decode(u32::from(*half));
        let theirs = expand(mnemonic, operands);
        let ours = ours(&inst, *address);
        // Binutils accepts `c.addi16sp sp,0`; the specification reserves it.
        let reserved = *half == 0x6101 && inst.op == Op::Illegal;
        if inst.len != 2 || ours != theirs && !reserved {
            wrong.push(format!("{half:#06x}: we {ours:?}, binutils {mnemonic} {operands}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

/// Steele, Lea, Flood: `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ mixed >> 31) >> 32).expect("32 bits are left")
    }
}

/// Words of every instruction, words one or two bits from them, and words at random.
fn sample(random: &mut Random) -> Vec<u32> {
    let mut words = Vec::new();
    for def in LIST.iter().filter(|def| def.extension != Extension::Zicond) {
        for round in 0..48 {
            // Half of the time the reserved bits are zero, or binutils would know next to no fence.
            let free = if round % 4 < 2 {
                !def.pattern.mask & !def.format.ignored_bits()
            } else {
                !def.pattern.mask
            };
            let word = def.pattern.bits | random.next() & free;
            words.push(word);
            if round % 2 == 0 {
                words.push(word ^ 4 << (random.next() % 30) ^ 4 << (random.next() % 30));
            }
        }
    }
    words.extend((0..8000).map(|_| random.next() | 3));
    // Longer encodings would shift what follows.
    words.retain(|word| word & 3 == 3 && word & 0x1f != 0x1f);
    words
}

/// Every value of opcode, funct3 and funct7, and of the rs2 field where that chooses an instruction too; the other
/// registers at random.
fn sweep(random: &mut Random) -> Vec<u32> {
    let mut words = Vec::new();
    for opcode in (0..128).filter(|opcode| opcode & 3 == 3 && opcode & 0x1f != 0x1f) {
        let whole = matches!(opcode, 0x13 | 0x1b | 0x2f | 0x3b | 0x53 | 0x73);
        for high in 0..if whole { 1 << 15 } else { 1 << 10 } {
            let (funct3, funct7, rs2) =
                (high & 7, high >> 3 & 127, if whole { high >> 10 } else { random.next() & 31 });
            // Half of the time rd and rs1 are zero, which the privileged instructions want.
            let registers = if random.next() & 1 == 0 { 0 } else { random.next() & 0x000f_8f80 };
            words.push(funct7 << 25 | rs2 << 20 | funct3 << 12 | registers | opcode);
        }
    }
    words
}

fn seed() -> u64 {
    let seed = std::env::var("QUASAR_TEST_SEED").map_or_else(
        |_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
            now.as_secs() << 30 | u64::from(now.subsec_nanos())
        },
        |text| text.parse().expect("QUASAR_TEST_SEED is a decimal number"),
    );
    println!("QUASAR_TEST_SEED={seed}");
    seed
}

/// Compares all of `words`; returns how many are legal and equal.
fn compare(words: &[u32]) -> usize {
    let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let listing = objdump(&code);
    assert_eq!(listing.len(), words.len(), "objdump skipped some");
    let (mut wrong, mut equal) = (Vec::new(), 0);
    for ((address, mnemonic, operands), &word) in listing.iter().zip(words) {
        let inst = decode(word);
        let ours = ours(&inst, *address);
        equal += usize::from(inst.op != Op::Illegal && (&ours.0, &ours.1) == (mnemonic, operands));
        if !same(&inst, word, &ours, (mnemonic, operands)) {
            wrong.push(format!("{word:#010x}: we {ours:?}, binutils {mnemonic} {operands}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
    equal
}

#[test]
fn random_words_agree_with_binutils() {
    let words = sample(&mut Random(seed()));
    let equal = compare(&words);
    // What is excused may not become the rule.
    assert!(equal > words.len() / 3, "only {equal} of {} words are legal and equal", words.len());
}

#[test]
fn every_combination_of_fixed_fields_agrees_with_binutils() {
    let words = sweep(&mut Random(seed()));
    let equal = compare(&words);
    assert!(equal > words.len() / 10, "only {equal} of {} words are legal and equal", words.len());
}

/// Equal, but for what either side is known not to know.
fn same(inst: &Inst, word: u32, ours: &(String, String), theirs: (&String, &String)) -> bool {
    if (&ours.0, &ours.1) == theirs {
        return true;
    }
    let Some(def) = inst.op.def() else {
        return FOREIGN.contains(&theirs.0.as_str());
    };
    if theirs.0 == ".4byte" {
        // Binutils wants reserved fields of fences zero (a reserved fm means a plain fence to a hart), and no
        // rounding mode where none is needed; it isn't told about Zicond.
        let exact = matches!(inst.op, Op::FcvtDS | Op::FcvtDW | Op::FcvtDWu);
        return word & def.format.ignored_bits() != 0
            || inst.op == Op::Fence && word >> 28 != 0
            || exact && inst.rm != 0
            || def.extension == Extension::Zicond;
    }
    if def.op.is_csr() && ours.0 == *theirs.0 {
        // Binutils knows registers that this hart doesn't have.
        let named: Vec<&str> = theirs.1.split(',').collect();
        let expected: Vec<&str> = ours.1.split(',').collect();
        return (named[0], named[2]) == (expected[0], expected[2])
            && expected[1] == format!("{:#x}", inst.imm)
            && csr::by_name(named[1]).is_none();
    }
    false
}
