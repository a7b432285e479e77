//! Every F and D operation against an independent RISC-V: a program of the guest's kind under `qemu-riscv64-static`,
//! whose floating point is Berkeley SoftFloat with the RISC-V choices.

use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use quasar_cpu::fp::*;

#[path = "../src/fp/tests/values.rs"]
mod values;
use values::{Operands, Random};

const COMPILER: &str = "riscv64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-riscv64-static";
const TUPLES: usize = 30_000;

/// One operation, its result as the guest's register holds it (a single: in the low half).
type Operation = (&'static str, fn(&Operands, &mut FpEnv) -> u64);

/// In the order of `operations()` in `guest/fp_oracle.c`.
const OPERATIONS: [Operation; 42] = [
    ("fadd.d", |o, e| f64_add(o.a, o.b, e)),
    ("fsub.d", |o, e| f64_sub(o.a, o.b, e)),
    ("fmul.d", |o, e| f64_mul(o.a, o.b, e)),
    ("fdiv.d", |o, e| f64_div(o.a, o.b, e)),
    ("fsqrt.d", |o, e| f64_sqrt(o.a, e)),
    ("fmadd.d", |o, e| f64_fma(o.a, o.b, o.c, e)),
    ("fmin.d", |o, e| f64_min(o.a, o.b, e)),
    ("fmax.d", |o, e| f64_max(o.a, o.b, e)),
    ("feq.d", |o, e| f64_eq(o.a, o.b, e).into()),
    ("flt.d", |o, e| f64_lt(o.a, o.b, e).into()),
    ("fle.d", |o, e| f64_le(o.a, o.b, e).into()),
    ("fclass.d", |o, _| f64_classify(o.a).into()),
    ("fcvt.w.d", |o, e| extend(f64_to_i32(o.a, e).cast_unsigned())),
    ("fcvt.wu.d", |o, e| extend(f64_to_u32(o.a, e))),
    ("fcvt.l.d", |o, e| f64_to_i64(o.a, e).cast_unsigned()),
    ("fcvt.lu.d", |o, e| f64_to_u64(o.a, e)),
    ("fadd.s", |o, e| f32_add(o.x, o.y, e).into()),
    ("fsub.s", |o, e| f32_sub(o.x, o.y, e).into()),
    ("fmul.s", |o, e| f32_mul(o.x, o.y, e).into()),
    ("fdiv.s", |o, e| f32_div(o.x, o.y, e).into()),
    ("fsqrt.s", |o, e| f32_sqrt(o.x, e).into()),
    ("fmadd.s", |o, e| f32_fma(o.x, o.y, o.z, e).into()),
    ("fmin.s", |o, e| f32_min(o.x, o.y, e).into()),
    ("fmax.s", |o, e| f32_max(o.x, o.y, e).into()),
    ("feq.s", |o, e| f32_eq(o.x, o.y, e).into()),
    ("flt.s", |o, e| f32_lt(o.x, o.y, e).into()),
    ("fle.s", |o, e| f32_le(o.x, o.y, e).into()),
    ("fclass.s", |o, _| f32_classify(o.x).into()),
    ("fcvt.w.s", |o, e| extend(f32_to_i32(o.x, e).cast_unsigned())),
    ("fcvt.wu.s", |o, e| extend(f32_to_u32(o.x, e))),
    ("fcvt.l.s", |o, e| f32_to_i64(o.x, e).cast_unsigned()),
    ("fcvt.lu.s", |o, e| f32_to_u64(o.x, e)),
    ("fcvt.d.s", |o, e| f32_to_f64(o.x, e)),
    ("fcvt.s.d", |o, e| f64_to_f32(o.a, e).into()),
    ("fcvt.d.w", |o, e| i32_to_f64(word(o.a).cast_signed(), e)),
    ("fcvt.d.wu", |o, e| u32_to_f64(word(o.a), e)),
    ("fcvt.d.l", |o, e| i64_to_f64(o.a.cast_signed(), e)),
    ("fcvt.d.lu", |o, e| u64_to_f64(o.a, e)),
    ("fcvt.s.w", |o, e| i32_to_f32(word(o.a).cast_signed(), e).into()),
    ("fcvt.s.wu", |o, e| u32_to_f32(word(o.a), e).into()),
    ("fcvt.s.l", |o, e| i64_to_f32(o.a.cast_signed(), e).into()),
    ("fcvt.s.lu", |o, e| u64_to_f32(o.a, e).into()),
];

#[test]
fn every_operation_answers_as_an_independent_processor() {
    let mut random = Random::from_environment("fp_oracle");
    let tuples: Vec<Operands> = (0..TUPLES).map(|_| Operands::draw(&mut random)).collect();

    let directory = tempfile::tempdir().expect("a directory for the guest program");
    let program = directory.path().join("fp_oracle");
    build(&program);
    let mut guest = Command::new(emulator())
        .arg(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{EMULATOR}: {error}; `cargo xtask setup` fetches it"));
    let mut questions = guest.stdin.take().expect("its input is a pipe");
    let answers = guest.stdout.take().expect("its output is a pipe");

    std::thread::scope(|scope| {
        let bytes: Vec<u8> = tuples.iter().flat_map(encode).collect();
        let writer = scope.spawn(move || questions.write_all(&bytes));
        // Owned in here: when a comparison panics the pipe closes, the guest dies, and the writer isn't stuck.
        let mut answers = BufReader::with_capacity(1 << 20, answers);
        for operands in &tuples {
            for number in 0..=4 {
                let rm = Rounding::try_from(number).expect("0 to 4 are rounding modes");
                for operation in &OPERATIONS {
                    compare(operation, operands, rm, answer(&mut answers));
                }
            }
        }
        let rest = answers.read(&mut [0]).expect("the guest's output");
        assert_eq!(rest, 0, "the guest does more operations than this test");
        writer.join().expect("writing doesn't panic").expect("the guest reads all operands");
    });
    assert!(guest.wait().expect("the guest ends").success(), "the guest program failed");
}

/// The one that set-up put beside the release builds, or else the one on the path.
fn emulator() -> PathBuf {
    let own = std::env::current_exe().expect("this program's own path");
    let profiles = own
        .ancestors()
        .filter(|path| path.file_name().is_some_and(|name| name == "release" || name == "debug"));
    let mut beside = profiles.map(|profile| profile.with_file_name("release").join(EMULATOR));
    beside.find(|program| program.is_file()).unwrap_or_else(|| EMULATOR.into())
}

fn build(program: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/fp_oracle.c");
    let status = Command::new(COMPILER)
        .args(["-O1", "-static", "-march=rv64gc", "-mabi=lp64d", "-o"])
        .args([program, &source])
        .status()
        .unwrap_or_else(|error| {
            panic!("{COMPILER}: {error}; install the Debian packages gcc-riscv64-linux-gnu and libc6-dev-riscv64-cross")
        });
    assert!(status.success(), "{COMPILER} could not build {}", source.display());
}

fn encode(operands: &Operands) -> Vec<u8> {
    let &Operands { a, b, c, x, y, z } = operands;
    let doubles = [a, b, c].into_iter().flat_map(u64::to_le_bytes);
    doubles.chain([x, y, z].into_iter().flat_map(u32::to_le_bytes)).collect()
}

fn answer(answers: &mut impl Read) -> (u64, u8) {
    let (mut result, mut flags) = ([0; 8], [0; 1]);
    answers.read_exact(&mut result).expect("the guest answers every operation");
    answers.read_exact(&mut flags).expect("the guest answers every operation");
    (u64::from_le_bytes(result), flags[0])
}

/// From no flags, and with NX accrued, which lets the host's arithmetic decide.
fn compare(&(name, operation): &Operation, operands: &Operands, rm: Rounding, (result, flags): (u64, u8)) {
    for accrued in [0, flag::NX] {
        let mut env = FpEnv { rm, flags: accrued };
        let got = operation(operands, &mut env);
        assert!(
            got == result && env.flags == flags | accrued,
            "{name} {rm:?} from flags {accrued:#x}: {got:#x} flags {:#x}, the processor says {result:#x} raising \
             {flags:#x}, of {operands:x?}",
            env.flags,
        );
    }
}

/// A 32-bit integer as a register holds it, signed or not.
fn extend(value: u32) -> u64 {
    i64::from(value.cast_signed()).cast_unsigned()
}

/// The low half of a register, as the 32-bit conversions read it.
fn word(register: u64) -> u32 {
    u32::try_from(register & 0xffff_ffff).expect("32 bits")
}
