//! Moving pages between stores and frames with several cores: reading, hashing and compressing on one
//! side, decompressing, writing and hashing on the other.

mod inlet;
mod outlet;

use crate::frame::FrameError;
use crate::store::PageStore;
pub use inlet::Inlet;
pub use outlet::{Guest, Outlet, Sent};
use quasar_abi::hash::AreaHashes;

/// How far packing and unpacking give way to harts: to about a tenth of their share of a processor.
const NICE: i32 = 10;

/// Lets this machine's harts run before this thread.
fn give_way() {
    // A machine that does not allow it is only less smooth.
    if let Err(error) = rustix::process::nice(NICE) {
        log::debug!("nice: {error}");
    }
}

/// An area with its hashes.
pub struct Area {
    /// Its pages.
    pub store: Box<dyn PageStore>,
    /// Their hashes as they travelled last.
    pub hashes: AreaHashes,
}

impl Area {
    /// Takes a store, all of it zero so far.
    #[must_use]
    pub fn new(store: Box<dyn PageStore>) -> Self {
        let hashes = AreaHashes::new(store.area(), store.bytes());
        Self { store, hashes }
    }
}

/// Why pages could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// The stream failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A page could not be read or written.
    #[error("page {index} of area {area}: {source}")]
    Store {
        /// Area.
        area: u8,
        /// Page.
        index: u64,
        /// Why.
        source: std::io::Error,
    },
    /// The user gave up.
    #[error("cancelled")]
    Cancelled,
    /// A batch could not be decoded.
    #[error(transparent)]
    Batch(#[from] crate::pages::BatchError),
    /// A batch names an area that is not there.
    #[error("a batch belongs to area {0}, which this VM has not")]
    Area(u8),
    /// One of several connections.
    #[error("a further connection failed: {0}")]
    Lane(String),
}
