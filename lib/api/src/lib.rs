//! The types of the daemon's HTTP API, as its server, its command line and programs of others have them: what is asked
//! for, what is shown, and how what fails is told (docs/api.md).
//!
//! Types and the rules that need no host: nothing here opens a file, a socket or a process. [`spec`] and [`machine`] are
//! what a VM is made of, [`vm`], [`host`] and [`process`] what is shown, [`journey`] migrations and files, [`orders`] what is done to
//! processes, [`stats`] what they count, [`error`] what went wrong.

#![forbid(unsafe_code)]

pub mod error;
pub mod host;
pub mod journey;
pub mod machine;
pub mod orders;
pub mod process;
pub mod spec;
pub mod stats;
pub mod vm;

pub use error::{ErrorBody, ErrorCode};
pub use host::{HostReport, HostView, LinkView};
pub use journey::{Departure, JourneyEvent, JourneyView, Return, Suspension};
pub use machine::{Boot, ConfigError, MachineConfig};
pub use orders::{
    KillSpec, Killed, SwapSpec, Swapped, Verified, VerifiedRun, VerifySpec, WithKilled, WithSwapped,
};
pub use process::ProcessInfo;
pub use spec::{Disk, Mac, Net, Protocol, Publish, SpecError, UplinkSpec, VmSpec};
pub use stats::{ProcessStats, VmStats};
pub use vm::{LogPart, Outcome, Phase, VmStatus, VmView};

/// Protocol named in the upgrade of a console's connection.
pub const CONSOLE_PROTOCOL: &str = "quasar-console";
