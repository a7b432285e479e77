//! Which program stands for each kind of process, and where other builds of it are found.

use super::exec::{Arch, Executable};
use super::watch::PATIENCE;
use quasar_abi::control::{ProcessKind, Transport};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the programs are and how commands reach them.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Directory of the sibling programs.
    pub directory: PathBuf,
    /// What carries commands, when a program is of this one's architecture and directory.
    pub transport: Transport,
    /// Programs that stand in for a sibling of that kind.
    pub programs: HashMap<ProcessKind, PathBuf>,
    /// Where builds for other architectures are looked for first, as `TRIPLE/release/`, `TRIPLE/` or `ARCH/`.
    pub builds: Option<PathBuf>,
    /// Where programs put what is for a moment, and what is left there when one is killed: the system's directory
    /// for that, unless said otherwise.
    pub scratch: Option<PathBuf>,
    /// For how long a process may be stopped, or be waited for without working ([`crate::children::watch`]).
    pub patience: Duration,
}

/// A program of another kind of build that is not there.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No such architecture.
    #[error("{0:?} is no architecture that Quasar is built for; these are: {known}", known = known())]
    Unknown(String),
    /// Not built.
    #[error(
        "there is no {arch} build of {program}: it is not at {looked}; make one with `cargo xtask build --target \
         {triple}`, or name the program with --exe PATH"
    )]
    Missing {
        /// The architecture.
        arch: &'static str,
        /// Its compiler target.
        triple: &'static str,
        /// The program.
        program: &'static str,
        /// Where it was looked for.
        looked: String,
    },
}

fn known() -> String {
    super::exec::ARCHS.iter().map(|arch| arch.name).collect::<Vec<_>>().join(", ")
}

impl Launcher {
    /// Programs in one directory.
    #[must_use]
    pub fn new(directory: PathBuf, transport: Transport) -> Self {
        Self {
            directory,
            transport,
            programs: HashMap::new(),
            builds: None,
            scratch: None,
            patience: PATIENCE,
        }
    }

    /// The directory given, or `QUASAR_LIBEXEC`, or the running executable's own; builds for other
    /// architectures in `QUASAR_BUILDS` if that is set.
    ///
    /// # Errors
    /// When the running executable cannot be found.
    pub fn locate(directory: Option<PathBuf>) -> io::Result<Self> {
        let directory = match directory.or_else(|| std::env::var_os("QUASAR_LIBEXEC").map(PathBuf::from)) {
            Some(directory) => directory,
            None => std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default(),
        };
        let builds = std::env::var_os("QUASAR_BUILDS").map(PathBuf::from);
        Ok(Self { builds, ..Self::new(directory, Transport::Ipc) })
    }

    /// Path of a program.
    #[must_use]
    pub fn program(&self, kind: ProcessKind) -> PathBuf {
        self.programs.get(&kind).cloned().unwrap_or_else(|| self.directory.join(kind.program()))
    }

    /// The same, with another program for one kind.
    #[must_use]
    pub fn with_program(&self, kind: ProcessKind, program: PathBuf) -> Self {
        let mut launcher = self.clone();
        launcher.programs.insert(kind, program);
        launcher
    }

    /// What carries commands to a program: ipc-channel's messages are of the machine's byte order and of its
    /// version, so that a program from elsewhere gets them over the socket.
    #[must_use]
    pub fn transport(&self, kind: ProcessKind, program: &Executable) -> Transport {
        if program.is_foreign() || self.programs.contains_key(&kind) {
            Transport::Socket
        } else {
            self.transport
        }
    }

    /// The program of a build for another architecture: in `builds`, or in the layout of cargo's `target`
    /// around this launcher's directory.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(&self, kind: ProcessKind, arch: &str) -> Result<PathBuf, BuildError> {
        let arch = Arch::named(arch).ok_or_else(|| BuildError::Unknown(arch.to_owned()))?;
        let places = self.places(arch);
        let found = places.iter().map(|dir| dir.join(kind.program())).find(|program| {
            // Where it lies is a hint; what it was built for is what counts.
            Executable::open(program).is_ok_and(|found| found.arch() == arch.name)
        });
        found.ok_or_else(|| {
            let looked: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
            let looked = looked.join(", ");
            BuildError::Missing { arch: arch.name, triple: arch.triple, program: kind.program(), looked }
        })
    }

    fn places(&self, arch: &Arch) -> Vec<PathBuf> {
        let mut places = vec![];
        let mut below = |base: &Path| {
            places.extend([
                base.join(arch.triple).join("release"),
                base.join(arch.triple),
                base.join(arch.name),
            ]);
        };
        if let Some(builds) = &self.builds {
            below(builds);
        }
        // target/release, or target/TRIPLE/release.
        let above: Vec<&Path> = self.directory.ancestors().skip(1).take(2).collect();
        above.iter().for_each(|base| below(base));
        places.push(self.directory.clone());
        places.extend(above.iter().map(|base| base.join("release")));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_found_by_what_they_are() {
        let dir = tempfile::tempdir().expect("a directory");
        let native = dir.path().join("target/release");
        std::fs::create_dir_all(&native).expect("mkdir");
        std::fs::copy(std::env::current_exe().expect("path"), native.join("quasar-cpu")).expect("copy");
        let foreign =
            Arch::named(if cfg!(target_arch = "s390x") { "x86_64" } else { "s390x" }).expect("known");
        let wrong = dir.path().join("target").join(foreign.triple).join("release");
        std::fs::create_dir_all(&wrong).expect("mkdir");
        // A file at the right place that is a build for another architecture is not taken.
        std::fs::copy(native.join("quasar-cpu"), wrong.join("quasar-cpu")).expect("copy");

        let launcher = Launcher::new(native.clone(), Transport::Ipc);
        let own = launcher.build(ProcessKind::Cpu, std::env::consts::ARCH).expect("our own build");
        assert_eq!(own, native.join("quasar-cpu"));
        let error = launcher.build(ProcessKind::Cpu, foreign.name).expect_err("none").to_string();
        assert!(error.contains(&format!("cargo xtask build --target {}", foreign.triple)), "{error}");
        let error = launcher.build(ProcessKind::Cpu, "vax").expect_err("none").to_string();
        assert!(error.contains("vax") && error.contains("powerpc64"), "{error}");

        // From a build below target/TRIPLE the native one is two directories up.
        let launcher = Launcher::new(wrong, Transport::Ipc);
        assert!(launcher.build(ProcessKind::Cpu, std::env::consts::ARCH).is_ok());
    }

    #[test]
    fn a_program_from_elsewhere_is_spoken_to_over_the_socket() {
        let own = std::env::current_exe().expect("path");
        let program = Executable::open(&own).expect("this test");
        let launcher = Launcher::new("/x".into(), Transport::Ipc);
        assert_eq!(launcher.transport(ProcessKind::Cpu, &program), Transport::Ipc);
        let other = launcher.with_program(ProcessKind::Cpu, own.clone());
        assert_eq!(other.transport(ProcessKind::Cpu, &program), Transport::Socket);
        assert_eq!(
            (other.program(ProcessKind::Cpu), other.program(ProcessKind::Mmu)),
            (own, "/x/quasar-mmu".into())
        );
    }
}
