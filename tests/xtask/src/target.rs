//! The architectures that Quasar is built for besides the machine's own.

use anyhow::Context;

/// A target and what building and running for it takes.
#[derive(Debug)]
pub struct Target {
    /// The compiler's name of it.
    pub triple: &'static str,
    /// Prefix of its C compiler and name of its Debian packages.
    pub gnu: &'static str,
    /// What Debian calls its C library's package.
    pub libc: &'static str,
    /// The emulator of its programs.
    pub emulator: &'static str,
}

/// The architectures of hosts other than x86_64.
pub const TARGETS: &[Target] = &[
    Target {
        triple: "aarch64-unknown-linux-gnu",
        gnu: "aarch64-linux-gnu",
        libc: "libc6-dev-arm64-cross",
        emulator: "qemu-aarch64-static",
    },
    Target {
        triple: "powerpc64-unknown-linux-gnu",
        gnu: "powerpc64-linux-gnu",
        libc: "libc6-dev-ppc64-cross",
        emulator: "qemu-ppc64-static",
    },
    Target {
        triple: "s390x-unknown-linux-gnu",
        gnu: "s390x-linux-gnu",
        libc: "libc6-dev-s390x-cross",
        emulator: "qemu-s390x-static",
    },
    Target {
        triple: "riscv64gc-unknown-linux-gnu",
        gnu: "riscv64-linux-gnu",
        libc: "libc6-dev-riscv64-cross",
        emulator: "qemu-riscv64-static",
    },
];

impl Target {
    /// The target of that name, or of that architecture.
    pub fn named(name: &str) -> anyhow::Result<&'static Self> {
        let found = TARGETS.iter().find(|t| t.triple == name || t.triple.split('-').next() == Some(name));
        found.with_context(|| {
            let known: Vec<&str> = TARGETS.iter().map(|t| t.triple).collect();
            format!("{name} is none of the targets that Quasar is built for: {}", known.join(", "))
        })
    }
}
