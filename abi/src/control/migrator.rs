//! `quasar-migrator`: moves a VM to another host, or to and from a file.

use serde::{Deserialize, Serialize};

/// Commands to the migrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MigratorCommand {
    /// End. Repeatable.
    Shutdown,
}
