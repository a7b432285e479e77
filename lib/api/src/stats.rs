//! What a VM and its processes have counted.

use crate::process::ProcessInfo;
use crate::vm::Phase;
use quasar_abi::hart::HartCounters;
use quasar_abi::vm::MmuCounters;
use serde::{Deserialize, Serialize};

/// Counters of a VM at an instant. Rates come from two of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VmStats {
    /// The VM.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// The host's monotonic clock in nanoseconds.
    pub at_ns: u64,
    /// Guest time in nanoseconds.
    pub guest_ns: u64,
    /// By hart.
    pub harts: Vec<HartStats>,
    /// The mmu process.
    pub mmu: MmuStats,
    /// What the devices process says.
    pub devices: serde_json::Value,
    /// What the switch says, about all networks.
    pub network: serde_json::Value,
    /// The VM's processes and the host's.
    pub processes: Vec<ProcessStats>,
}

macro_rules! counters {
    ($(#[$meta:meta])* $name:ident from $source:ty { $($field:ident)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            $(#[doc = concat!("See [`", stringify!($source), "::", stringify!($field), "`].")] pub $field: u64,)*
        }
        impl From<&$source> for $name {
            fn from(source: &$source) -> Self {
                Self { $($field: source.$field.get(),)* }
            }
        }
        impl $name {
            /// What was counted since `before`; a process that was replaced counts from zero.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self { $($field: self.$field.checked_sub(before.$field).unwrap_or(self.$field),)* }
            }
        }
    };
}

counters! {
    /// A hart's counters since its process started; times in nanoseconds.
    HartStats from HartCounters {
        instructions l2_hits mmu_requests mmu_wait_ns mmio_requests mmio_wait_ns notifications exceptions
        interrupts sbi_calls wfi_ns run_ns blocks_decoded tlb_flushes fence_i marked
    }
}

counters! {
    /// The mmu process's counters; times in nanoseconds.
    MmuStats from MmuCounters {
        served page_faults access_faults neighbours ad_updates busy_ns sleeps
    }
}

/// A process and the memory it has mapped in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStats {
    /// Its role and process id.
    #[serde(flatten)]
    pub process: ProcessInfo,
    /// Resident bytes, the VM's shared memory included.
    pub rss_bytes: u64,
    /// Resident bytes that are its own.
    pub private_bytes: u64,
    /// Processor time used, in milliseconds.
    pub cpu_ms: u64,
}
