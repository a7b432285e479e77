//! What processes have counted, as metrics, the API and the command line read it.
//!
//! On the wire between processes and as JSON these are the same types. Names of fields are part of the API
//! (`docs/api.md`): new ones may come, and none may be left out of one form only, because the processes' encoding has no
//! names.

mod counters;
mod devices;
mod networks;

pub use counters::{HartStats, MmuStats};
pub use devices::{
    BlockReport, CardReport, ConsoleReport, DeviceReport, DevicesReport, DiskCounters, NetReport,
    PowerKeyReport, RngReport,
};
pub use networks::{
    AddressReport, Direction, LinkReport, NetworkReport, NetworksReport, PortKind, PortReport, PortState,
};
