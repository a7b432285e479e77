//! Which process of a VM is given what of it.

use quasar_abi::Grant;
use quasar_abi::grants::{DevicesGrants, HartGrants, MigratorGrants, MmuGrants};
use serde::{Deserialize, Serialize};

/// All that there is to give. It stays here: each process gets what its role needs.
#[derive(Clone, Debug)]
pub struct VmGrants {
    /// The VM's id, for messages.
    pub vm: String,
    /// The control block.
    pub control: Grant,
    /// Guest RAM.
    pub ram: Grant,
    /// Translation caches.
    pub tlb: Grant,
    /// Dirty and residency maps.
    pub maps: Grant,
    /// Saved device state.
    pub devices: Grant,
    /// Console rings.
    pub console: Grant,
}

/// What the errand that fills a machine's memory is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BootGrants {
    /// The control block, for the harts' first state.
    pub control: Grant,
    /// Guest RAM.
    pub ram: Grant,
    /// Translation caches, to be emptied.
    pub tlb: Grant,
}

impl VmGrants {
    /// A hart's.
    #[must_use]
    pub fn hart(&self) -> HartGrants {
        let Self { vm, control, ram, tlb, maps, .. } = self.clone();
        HartGrants { vm, control, ram, maps, tlb }
    }

    /// The mmu's.
    #[must_use]
    pub fn mmu(&self) -> MmuGrants {
        let Self { vm, control, ram, tlb, maps, .. } = self.clone();
        MmuGrants { vm, control, ram, maps, tlb }
    }

    /// The devices'.
    #[must_use]
    pub fn devices(&self) -> DevicesGrants {
        let Self { vm, control, ram, maps, devices, console, .. } = self.clone();
        DevicesGrants { vm, control, ram, maps, devices, console }
    }

    /// A migrator's.
    #[must_use]
    pub fn migrator(&self) -> MigratorGrants {
        let Self { vm, control, ram, maps, devices, console, .. } = self.clone();
        MigratorGrants { vm, control, ram, maps, devices, console }
    }

    /// The errand's that fills the memory.
    #[must_use]
    pub fn boot(&self) -> BootGrants {
        let Self { control, ram, tlb, .. } = self.clone();
        BootGrants { control, ram, tlb }
    }
}
