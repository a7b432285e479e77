//! `quasar-devices`: the VM's devices. Register accesses come over shared memory.

use crate::machine::{VirtioDevice, VmSegments};
use serde::{Deserialize, Serialize};

/// Commands to the devices process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DevicesCommand {
    /// Attach, take up the saved state of each device that has one, and serve. First and once.
    Start {
        /// The VM.
        segments: VmSegments,
        /// What stands at virtio slot 0, 1, …
        virtio: Vec<VirtioDevice>,
    },
    /// Put every device into its state after power-on. While the VM is paused. Repeatable.
    Reset,
    /// Press the power key. Each is a wish of its own.
    PowerButton,
    /// Which devices there are and what they have counted, as JSON. Repeatable.
    Stats,
    /// Finish what is in flight, write back, publish and end. Repeatable.
    Shutdown,
}
