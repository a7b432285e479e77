//! Counters in a VM's control block, read.

use crate::hart::HartCounters;
use crate::hart_mmu::MmuCounters;
use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_survive_a_replaced_process() {
        let before = MmuStats { served: 100, sleeps: 5, ..MmuStats::default() };
        let after = MmuStats { served: 30, sleeps: 9, ..MmuStats::default() };
        let since = after.since(&before);
        assert_eq!((since.served, since.sleeps), (30, 4));
    }
}
