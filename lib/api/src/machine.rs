//! What a machine consists of.

use quasar_abi::machine::{RAM_BASE, VIRTIO_SLOTS};
use quasar_abi::party::MAX_HARTS;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest name of an engine.
const MAX_ENGINE_NAME: usize = 32;
/// Least RAM that is accepted.
pub const MIN_MEMORY: u64 = 1 << 20;
/// Largest RAM that is accepted: what lies above [`RAM_BASE`] in 56 bits is far more, a host's is not.
pub const MAX_MEMORY: u64 = 1 << 40;

/// What the harts execute first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// A kernel (Linux `Image` or ELF), with the built-in SBI or with firmware in M-mode.
    Kernel {
        /// The kernel.
        #[serde(with = "quasar_abi::os_path")]
        kernel: PathBuf,
        /// An initial ramdisk.
        #[serde(default, with = "quasar_abi::os_path::optional")]
        initrd: Option<PathBuf>,
        /// The kernel's command line.
        #[serde(default)]
        append: String,
        /// OpenSBI `fw_dynamic` or the like, started in M-mode; without it the built-in SBI serves.
        #[serde(default, with = "quasar_abi::os_path::optional")]
        firmware: Option<PathBuf>,
    },
    /// A bare program: every hart starts in M-mode at its entry.
    Bare {
        /// An ELF file.
        #[serde(with = "quasar_abi::os_path")]
        elf: PathBuf,
        /// Instructions per hart after which the machine is stopped; 0 for no limit.
        #[serde(default)]
        max_instructions: u64,
    },
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Bytes of RAM.
    pub memory: u64,
    /// Harts.
    pub harts: u8,
    /// What is started.
    pub boot: Boot,
    /// Deterministic mode: time goes with the instructions of its one hart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub icount: bool,
    /// What executes its harts, by name; nothing for each build's own choice. It stays so wherever the VM goes, and a
    /// build that has no such engine refuses to run its harts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

/// A configuration that no machine can have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Memory out of range.
    #[error("memory of {0} bytes: it must be between 1M and 1T and a multiple of 4K")]
    Memory(u64),
    /// Harts out of range.
    #[error("{0} harts: a machine has 1 to {MAX_HARTS}")]
    Harts(u8),
    /// Deterministic mode with several harts.
    #[error("deterministic mode (icount) has one hart, not {0}: their order would depend on the host")]
    OneHart(u8),
    /// No name.
    #[error("engine {0:?}: a name has 1 to {MAX_ENGINE_NAME} lower-case letters, digits and hyphens")]
    Engine(String),
    /// Too many devices.
    #[error("{0} virtio devices: there are {VIRTIO_SLOTS} slots; use fewer disks")]
    Slots(usize),
}

impl MachineConfig {
    /// Checks what can be checked without the host.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&self.memory) || !self.memory.is_multiple_of(4096) {
            return Err(ConfigError::Memory(self.memory));
        }
        if self.harts == 0 || usize::from(self.harts) > MAX_HARTS {
            return Err(ConfigError::Harts(self.harts));
        }
        if self.icount && self.harts != 1 {
            return Err(ConfigError::OneHart(self.harts));
        }
        let is_letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
        match &self.engine {
            Some(name) if !(1..=MAX_ENGINE_NAME).contains(&name.len()) || !name.bytes().all(is_letter) => {
                Err(ConfigError::Engine(name.clone()))
            }
            _ => Ok(()),
        }
    }

    /// First guest-physical address behind RAM.
    #[must_use]
    pub const fn ram_end(&self) -> u64 {
        RAM_BASE + self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_has_a_name_or_is_not_said() {
        let config = |engine: Option<&str>| MachineConfig {
            memory: MIN_MEMORY,
            harts: 1,
            boot: Boot::Bare { elf: "x".into(), max_instructions: 0 },
            icount: false,
            engine: engine.map(str::to_owned),
        };
        for name in [None, Some("interpreter"), Some("jit-2"), Some(&*"x".repeat(32))] {
            assert_eq!(config(name).check(), Ok(()), "{name:?}");
        }
        for name in ["", "Jit", "a b", "x\n", "é", &"x".repeat(33)] {
            assert_eq!(config(Some(name)).check(), Err(ConfigError::Engine(name.to_owned())));
        }
        // What was written before there were engines to choose from is read, and written, as it was.
        let plain = serde_json::to_value(config(None)).expect("json");
        assert!(plain.get("engine").is_none());
        assert_eq!(serde_json::from_value::<MachineConfig>(plain).expect("config"), config(None));
        let named = serde_json::to_value(config(Some("jit"))).expect("json");
        assert_eq!(named["engine"], "jit");
        assert_eq!(serde_json::from_value::<MachineConfig>(named).expect("config"), config(Some("jit")));
    }
}
