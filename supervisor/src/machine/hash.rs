//! The hash of a machine at rest: the same on every host for the same state.

use super::Machine;
use quasar_abi::hash::{AreaHashes, RAM_AREA, whole};

/// A machine's hash; shown as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineHash([u8; 32]);

impl std::fmt::Display for MachineHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Machine {
    /// The hash of RAM, of the harts' registers and, in deterministic mode, of guest time. The harts are parked or
    /// have ended.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn hash(&self) -> std::io::Result<MachineHash> {
        let (file, offset) = self.ram_file()?;
        let ram = AreaHashes::of_file(RAM_AREA, &file, offset, self.ram.len())?;
        let harts = usize::try_from(self.vm.harts.get()).unwrap_or(0);
        let registers = self.vm.hart_state.iter().take(harts).map(|hart| hart.current().words());
        let mut parts: Vec<Vec<u8>> =
            registers.map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect()).collect();
        if self.vm.clock.is_deterministic() {
            let retired = self.vm.hart_state[0].current().retired.get();
            parts.push(self.vm.clock.ticks(retired).to_le_bytes().to_vec());
        }
        Ok(MachineHash(whole([ram].iter(), parts.iter().map(Vec::as_slice))))
    }
}
