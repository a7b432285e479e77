//! Program files: which architecture each was built for, and how this machine runs it.
//!
//! A process of a VM may be a build for another architecture than the supervisor's. The file says which one
//! (its ELF header, never its name); a machine that cannot execute it itself runs it in QEMU's user mode.

use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use quasar_abi::files::{self, Access};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Most of a file's beginning that is looked at: its header and its program headers.
const HEAD_BYTES: u64 = 4096;
/// A program that is of the machine's own architecture wherever there is one at all.
const MACHINES_OWN: &str = "/bin/sh";

/// An architecture that Quasar is built for.
#[derive(Debug, PartialEq, Eq)]
pub struct Arch {
    /// Its name, that of [`std::env::consts::ARCH`].
    pub name: &'static str,
    /// The compiler's name of the target.
    pub triple: &'static str,
    /// `e_machine` of its programs.
    machine: u16,
    big_endian: bool,
    /// What QEMU calls it.
    qemu: &'static str,
    /// Where Debian's cross packages put its libraries.
    libraries: &'static str,
}

/// All of them.
pub const ARCHS: &[Arch] = &[
    Arch {
        name: "x86_64",
        triple: "x86_64-unknown-linux-gnu",
        machine: 62,
        big_endian: false,
        qemu: "x86_64",
        libraries: "/usr/x86_64-linux-gnu",
    },
    Arch {
        name: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        machine: 183,
        big_endian: false,
        qemu: "aarch64",
        libraries: "/usr/aarch64-linux-gnu",
    },
    Arch {
        name: "powerpc64",
        triple: "powerpc64-unknown-linux-gnu",
        machine: 21,
        big_endian: true,
        qemu: "ppc64",
        libraries: "/usr/powerpc64-linux-gnu",
    },
    Arch {
        name: "s390x",
        triple: "s390x-unknown-linux-gnu",
        machine: 22,
        big_endian: true,
        qemu: "s390x",
        libraries: "/usr/s390x-linux-gnu",
    },
    Arch {
        name: "riscv64",
        triple: "riscv64gc-unknown-linux-gnu",
        machine: 243,
        big_endian: false,
        qemu: "riscv64",
        libraries: "/usr/riscv64-linux-gnu",
    },
];

impl Arch {
    /// The architecture of that name or target triple.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ARCHS.iter().find(|arch| arch.name == name || arch.triple == name)
    }
}

/// A program's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    path: PathBuf,
    /// `None` for what is no ELF file (a script).
    arch: Option<&'static Arch>,
    dynamic: bool,
}

impl Executable {
    /// Looks at a file.
    ///
    /// # Errors
    /// When it cannot be read, or is a program for an architecture that Quasar is not built for.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut head = vec![];
        files::open(path, Access::Read)?.file.take(HEAD_BYTES).read_to_end(&mut head)?;
        if !head.starts_with(b"\x7fELF") {
            return Ok(Self { path: path.to_owned(), arch: None, dynamic: false });
        }
        let malformed = |error: object::Error| {
            io::Error::other(format!("it is no 64-bit program, or it is damaged: {error}"))
        };
        let header = FileHeader64::<Endianness>::parse(head.as_slice()).map_err(malformed)?;
        let endian = header.endian().map_err(malformed)?;
        let machine = header.e_machine.get(endian).0;
        let arch = ARCHS
            .iter()
            .find(|arch| arch.machine == machine && arch.big_endian == (endian == Endianness::Big))
            .ok_or_else(|| {
                let known: Vec<&str> = ARCHS.iter().map(|arch| arch.name).collect();
                io::Error::other(format!(
                    "it is a {endian:?}-endian program for ELF machine {machine}; Quasar runs on {}",
                    known.join(", ")
                ))
            })?;
        let programs = header.program_headers(endian, head.as_slice()).map_err(malformed)?;
        let dynamic = programs.iter().any(|program| program.p_type(endian) == PT_INTERP);
        Ok(Self { path: path.to_owned(), arch: Some(arch), dynamic })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name of the architecture it was built for; a script is of the supervisor's own.
    #[must_use]
    pub fn arch(&self) -> &'static str {
        self.arch.map_or(std::env::consts::ARCH, |arch| arch.name)
    }

    /// Whether it was built for another architecture than this program.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.arch() != std::env::consts::ARCH
    }

    /// A command that runs it: directly where the kernel can, through QEMU's user mode otherwise. An emulator beside
    /// Quasar's programs was put there for them and goes before the kernel's.
    ///
    /// # Errors
    /// When it needs an emulator that is not there.
    pub fn command(&self) -> io::Result<Command> {
        let Some(arch) = self.arch.filter(|arch| arch.name != machine_arch()) else {
            return Ok(Command::new(&self.path));
        };
        let beside = emulator_beside(arch);
        if beside.is_none() && kernel_runs(arch) {
            return Ok(Command::new(&self.path));
        }
        let emulator = beside.or_else(|| emulator_on_path(arch)).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "{} is a program for {}, and this machine is of {}: install qemu-{}-static (Debian package \
                     qemu-user-static), or put it beside Quasar's programs",
                    self.path.display(),
                    arch.name,
                    machine_arch(),
                    arch.qemu
                ),
            )
        })?;
        let mut command = Command::new(emulator);
        if self.dynamic && Path::new(arch.libraries).is_dir() {
            command.arg("-L").arg(arch.libraries);
        }
        command.arg(&self.path);
        Ok(command)
    }
}

/// A command that runs this very program, also when its file has been replaced or removed meanwhile.
///
/// # Errors
/// When it cannot be found, or needs an emulator that is not there.
pub fn own() -> io::Result<Command> {
    if machine_arch() == std::env::consts::ARCH {
        return Ok(Command::new("/proc/self/exe"));
    }
    // That link would be the emulator's.
    Executable::open(&std::env::current_exe()?)?.command()
}

/// Architecture of the machine's own programs. This program may itself be run by an emulator; what it is
/// built for then says nothing about what the kernel can execute.
fn machine_arch() -> &'static str {
    static ARCH: OnceLock<&'static str> = OnceLock::new();
    ARCH.get_or_init(|| {
        Executable::open(Path::new(MACHINES_OWN)).map_or(std::env::consts::ARCH, |own| own.arch())
    })
}

/// Whether the kernel hands such programs to an emulator by itself (binfmt_misc).
fn kernel_runs(arch: &Arch) -> bool {
    let entry = format!("/proc/sys/fs/binfmt_misc/qemu-{}", arch.qemu);
    std::fs::read_to_string(entry).is_ok_and(|text| text.starts_with("enabled"))
}

/// The emulator of an architecture's programs that is beside Quasar's own.
fn emulator_beside(arch: &Arch) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    emulator_in(arch, &[own.parent()?.to_owned()])
}

fn emulator_on_path(arch: &Arch) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    emulator_in(arch, &std::env::split_paths(&path).collect::<Vec<_>>())
}

fn emulator_in(arch: &Arch, directories: &[PathBuf]) -> Option<PathBuf> {
    let names = [format!("qemu-{}-static", arch.qemu), format!("qemu-{}", arch.qemu)];
    let mut places = names.iter().flat_map(|name| directories.iter().map(move |dir| dir.join(name)));
    places.find(|place| place.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("write");
        file
    }

    /// An ELF header with no program headers.
    fn elf(machine: u16, big_endian: bool) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1 + u8::from(big_endian), 1]);
        let half = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        bytes[16..18].copy_from_slice(&half(2));
        bytes[18..20].copy_from_slice(&half(machine));
        bytes[52..54].copy_from_slice(&half(64));
        bytes
    }

    #[test]
    fn each_architecture_is_recognised_by_machine_and_byte_order() {
        for arch in ARCHS {
            let program = file(&elf(arch.machine, arch.big_endian));
            let found = Executable::open(program.path()).expect(arch.name);
            assert_eq!((found.arch(), found.dynamic), (arch.name, false));
            let other = file(&elf(arch.machine, !arch.big_endian));
            assert!(Executable::open(other.path()).is_err(), "{} of the other byte order", arch.name);
        }
    }

    #[test]
    fn what_cannot_be_run_is_an_error_that_says_what_it_is() {
        let error = Executable::open(file(&elf(8, false)).path()).expect_err("MIPS").to_string();
        assert!(error.contains("machine 8") && error.contains("powerpc64"), "{error}");
        assert!(Executable::open(file(b"\x7fELF").path()).is_err());
        let missing = Executable::open(Path::new("/nonexistent/quasar-cpu")).expect_err("missing");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn our_own_programs_and_scripts_are_run_directly() {
        let own = Executable::open(&std::env::current_exe().expect("a path")).expect("this test");
        assert!(!own.is_foreign());
        let script = Executable::open(file(b"#!/bin/sh\n").path()).expect("a script");
        assert_eq!(script.command().expect("a command").get_program(), script.path());
    }

    #[test]
    fn the_static_emulator_goes_before_the_other_and_the_first_directory_before_the_next() {
        let (first, second) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        let directories = [first.path().to_owned(), second.path().to_owned()];
        let arch = Arch::named("powerpc64").expect("known");
        assert_eq!(emulator_in(arch, &directories), None);
        let steps = [(&first, "qemu-ppc64"), (&second, "qemu-ppc64-static"), (&first, "qemu-ppc64-static")];
        for (directory, name) in steps {
            let program = directory.path().join(name);
            std::fs::write(&program, "").expect("write");
            assert_eq!(emulator_in(arch, &directories), Some(program));
        }
    }

    #[test]
    fn names_and_triples_lead_to_the_same() {
        assert_eq!(Arch::named("riscv64"), Arch::named("riscv64gc-unknown-linux-gnu"));
        assert_eq!(Arch::named("mips"), None);
        assert!(Arch::named(std::env::consts::ARCH).is_some(), "the architecture of this build");
    }
}
