//! What each process of a VM is given of it: its own segments, and no others.
//!
//! One type per role. A segment has no name that a process could say: a [`Grant`] is a descriptor of it, made by who
//! holds the segment, and goes with the message in which it stands. So a process attaches to what it was given, and to
//! nothing else.
//!
//! A descriptor is no part of a message's bytes, which have its place among the descriptors beside them:
//! [`beside`] collects these while a message is encoded, [`among`] has them ready while it is decoded.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A segment, as it is given to another process. Equal grants are of one segment.
#[derive(Clone, Debug)]
pub struct Grant(Arc<Given>);

#[derive(Debug)]
struct Given {
    name: String,
    file: OwnedFd,
}

impl PartialEq for Grant {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Grant {}

impl Grant {
    /// A segment to be given. Its name is for messages, and unique.
    pub(crate) fn new(name: String, file: OwnedFd) -> Self {
        Self(Arc::new(Given { name, file }))
    }

    /// The segment's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

impl AsFd for Grant {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

thread_local! {
    /// What the message that this thread encodes gives.
    static GIVEN: RefCell<Option<Vec<Grant>>> = const { RefCell::new(None) };
    /// What came with the message that this thread decodes, as far as it was not taken.
    static CAME: RefCell<Vec<Option<OwnedFd>>> = const { RefCell::new(Vec::new()) };
}

/// Runs what encodes a message; returns what the message gives too, in order.
pub fn beside<T>(encode: impl FnOnce() -> T) -> (T, Vec<Grant>) {
    GIVEN.set(Some(vec![]));
    let encoded = encode();
    (encoded, GIVEN.take().unwrap_or_default())
}

/// Runs what decodes a message with which these descriptors came; returns too how many it has not taken.
pub fn among<T>(files: Vec<OwnedFd>, decode: impl FnOnce() -> T) -> (T, usize) {
    CAME.set(files.into_iter().map(Some).collect());
    let decoded = decode();
    (decoded, CAME.take().into_iter().flatten().count())
}

impl Serialize for Grant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let index = GIVEN.with_borrow_mut(|given| {
            let given = given.as_mut()?;
            given.push(self.clone());
            u32::try_from(given.len() - 1).ok()
        });
        let index = index.ok_or_else(|| S::Error::custom("a segment goes with a message alone"))?;
        (self.name(), index).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (name, index) = <(String, u32)>::deserialize(deserializer)?;
        let take = |came: &mut Vec<Option<OwnedFd>>| came.get_mut(usize::try_from(index).ok()?)?.take();
        let file = CAME.with_borrow_mut(take);
        let file =
            file.ok_or_else(|| D::Error::custom(format!("segment {name} did not come with the message")))?;
        Ok(Self::new(name, file))
    }
}

/// What executes a hart: memory and its maps, the hart's state and its cache of translations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HartGrants {
    /// The VM's id, for messages.
    pub vm: String,
    /// [`crate::vm::VmControl`].
    pub control: Grant,
    /// Guest RAM, starting at [`crate::machine::RAM_BASE`].
    pub ram: Grant,
    /// Dirty and residency maps: a hart marks what it writes.
    pub maps: Grant,
    /// Translation caches.
    pub tlb: Grant,
}

/// What walks tables for the harts: memory, for the tables and their accessed and dirty bits, and the caches to fill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmuGrants {
    /// The VM's id, for messages.
    pub vm: String,
    /// [`crate::vm::VmControl`].
    pub control: Grant,
    /// Guest RAM.
    pub ram: Grant,
    /// Dirty and residency maps: a bit set in a table is a write.
    pub maps: Grant,
    /// Translation caches.
    pub tlb: Grant,
}

/// What the devices are, beside the files and segments of each ([`crate::machine::VirtioDevice`]): no caches of harts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesGrants {
    /// The VM's id, for messages.
    pub vm: String,
    /// [`crate::vm::VmControl`].
    pub control: Grant,
    /// Guest RAM, for DMA.
    pub ram: Grant,
    /// Dirty and residency maps: DMA marks what it writes.
    pub maps: Grant,
    /// Saved device state.
    pub devices: Grant,
    /// Console rings.
    pub console: Grant,
}

/// What travels: all but the caches of translations, which are made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigratorGrants {
    /// The VM's id, for messages.
    pub vm: String,
    /// [`crate::vm::VmControl`].
    pub control: Grant,
    /// Guest RAM.
    pub ram: Grant,
    /// Dirty and residency maps.
    pub maps: Grant,
    /// Saved device state.
    pub devices: Grant,
    /// Console rings.
    pub console: Grant,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::codec::{decode, encode};
    use crate::{AtomicLe64, Segment, SegmentKind};

    fn segment(what: &str) -> Segment {
        let name = format!("/quasar-test-{}-grants-{what}", std::process::id());
        Segment::create(&name, SegmentKind::Ram, 4096, 1).expect("segment")
    }

    /// As the kernel hands them over: other numbers of the same files.
    fn on_their_way(grants: &[Grant]) -> Vec<OwnedFd> {
        grants.iter().map(|grant| grant.as_fd().try_clone_to_owned().expect("a descriptor")).collect()
    }

    #[test]
    fn what_is_given_comes_and_nothing_else_does() {
        let [ram, maps] = ["ram", "maps"].map(segment);
        ram.view::<AtomicLe64>(0).expect("a word").set(5);
        let message = vec![maps.grant(), ram.grant(), ram.grant()];
        let (bytes, files) = beside(|| encode(&message).expect("encode"));
        assert_eq!(files.len(), 3);
        let (came, left) = among(on_their_way(&files), || decode::<Vec<Grant>>(&bytes));
        let came = came.expect("decode");
        assert_eq!((&came, left), (&message, 0));
        assert_ne!(came[0], came[1]);
        let attached = Segment::attach(&came[1], SegmentKind::Ram).expect("attach");
        assert_eq!(attached.view::<AtomicLe64>(0).expect("a word").get(), 5);

        let (short, _) = among(on_their_way(&files[..2]), || decode::<Vec<Grant>>(&bytes));
        assert!(short.expect_err("one is missing").to_string().contains("did not come with the message"));
        let (one, left) = among(on_their_way(&files), || decode::<Grant>(&bytes[1..3 + maps.name().len()]));
        assert_eq!((one.expect("the first").name(), left), (maps.name(), 2));
        // Without descriptors, in the bytes alone, nothing can be given or taken.
        assert!(encode(&message).is_err());
        assert!(decode::<Vec<Grant>>(&bytes).is_err());
    }

    #[test]
    fn a_descriptor_is_taken_once() {
        let ram = segment("once");
        let (mut bytes, files) = beside(|| encode(&vec![ram.grant(), ram.grant()]).expect("encode"));
        let last = bytes.len() - 1;
        assert_eq!(std::mem::replace(&mut bytes[last], 0), 1);
        let (came, left) = among(on_their_way(&files), || decode::<Vec<Grant>>(&bytes));
        assert!(came.is_err() && left == 1);
    }
}
