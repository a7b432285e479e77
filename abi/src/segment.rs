//! Segments: shared memory with a header that says what it is.
//!
//! The library makes shared memory under a name. The name is gone as soon as it is made: nobody else can open it, and
//! nothing is left of it when its last process has ended, however that was. Others attach by a descriptor that they are
//! given ([`Grant`]).

use crate::eintr::posix_fallocate;
use crate::grants::Grant;
use crate::le::{AtomicLe32, AtomicLe64, ShmLayout};
use crate::random;
use crate::shm_struct;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap, shm_open};
use nix::sys::stat::{Mode, fstat};
use shared_memory::{ShmemConf, ShmemError};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes before the payload: a multiple of every host's page size, so that the payload is page-aligned.
pub const HEADER_BYTES: usize = 64 * 1024;
const MAGIC: u64 = u64::from_le_bytes(*b"QUASARSG");

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SegmentKind {
    /// Guest RAM ([`crate::ram`]).
    Ram = 1,
    /// The VM's control block ([`crate::vm::VmControl`]).
    Control = 2,
    /// Translation caches of all harts ([`crate::tlb`]).
    Tlb = 3,
    /// Dirty and residency maps ([`crate::dirty`]).
    Maps = 4,
    /// Saved device state ([`crate::saved`]).
    Devices = 5,
    /// Console rings ([`crate::console`]).
    Console = 6,
    /// One switch port's packet rings ([`crate::frames`]).
    Port = 7,
}

impl SegmentKind {
    /// Whether most of it is never touched: the guest's memory, and the caches of harts that are not there.
    const fn is_sparse(self) -> bool {
        matches!(self, Self::Ram | Self::Tlb)
    }

    /// The layout's version; a process that knows another one refuses the segment.
    #[must_use]
    pub const fn layout_version(self) -> u32 {
        match self {
            Self::Ram | Self::Maps | Self::Devices | Self::Console | Self::Port => 1,
            // 2: harts mark what they write, and count it; nothing is granted through the cache.
            // 3: twice as many sets.
            Self::Tlb => 3,
            // 3: disks for which the host has no room. 4: the mmu says what a refusal follows from.
            // 5: the clock has two bases. 6: PMP has a block of its own.
            Self::Control => 6,
        }
    }
}

/// What the library reported, with what to look at.
fn explain(error: &ShmemError) -> String {
    let (ShmemError::MapCreateFailed(errno)
    | ShmemError::MapOpenFailed(errno)
    | ShmemError::UnknownOsError(errno)) = error
    else {
        return error.to_string();
    };
    let errno = Errno::from_raw(i32::try_from(*errno).unwrap_or(0));
    let hint = match errno {
        Errno::EMFILE => "this process has all the files open that it may have (`ulimit -n`)",
        Errno::ENFILE => "the host has all the files open that it may have (sysctl fs.file-max)",
        Errno::ENOMEM => {
            "the host has no address space left for it (sysctl vm.max_map_count, vm.overcommit_memory)"
        }
        Errno::EACCES | Errno::EPERM => "it belongs to another user",
        _ => "is /dev/shm mounted, and has it room?",
    };
    format!("{}: {hint}", errno.desc())
}

/// Why a segment could not be made or attached.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The system refused.
    #[error("shared-memory segment {name}: {}", explain(source))]
    System {
        /// The segment's name.
        name: String,
        /// What the library reported.
        source: ShmemError,
    },
    /// Nobody could have guessed its name, if there were randomness to make one of.
    #[error("shared-memory segment {name}: the system has no randomness: {source}")]
    Random {
        /// What the segment is.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is there, and cannot be mapped.
    #[error("shared-memory segment {name} cannot be mapped: {source}")]
    Map {
        /// The segment's name.
        name: String,
        /// What the system said.
        source: Errno,
    },
    /// There is no memory for it.
    #[error("shared-memory segment {name}: /dev/shm has no room for it: {source}")]
    Room {
        /// The segment's name.
        name: String,
        /// What the system said.
        source: Errno,
    },
    /// The header says that this is something else.
    #[error(
        "segment {name} is not what this process expects: {what} is {found:#x}, expected {expected:#x}; it \
         belongs to another version of Quasar or is damaged"
    )]
    Mismatch {
        /// The segment's name.
        name: String,
        /// Which header field disagrees.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The value needed.
        expected: u64,
    },
    /// A structure would reach past the segment's end.
    #[error("segment {name}: {need} bytes at offset {offset} do not fit in {len}")]
    Range {
        /// The segment's name.
        name: String,
        /// Payload offset asked for.
        offset: usize,
        /// Bytes asked for.
        need: usize,
        /// Payload bytes there are.
        len: usize,
    },
}

shm_struct! {
    /// The first bytes of every segment.
    pub struct SegmentHeader: 64 => {
        /// `QUASARSG`; written last by the creator.
        pub magic: AtomicLe64,
        /// [`SegmentKind`] as a number.
        pub kind: AtomicLe32,
        /// Version of the payload's layout.
        pub layout_version: AtomicLe32,
        /// Payload bytes.
        pub len: AtomicLe64,
        /// How often the segment was made anew under this name.
        pub generation: AtomicLe64,
        /// Zero.
        pub reserved: [AtomicLe64; 4],
    }
}

fn mismatch(grant: &Grant, what: &'static str, found: u64, expected: u64) -> SegmentError {
    SegmentError::Mismatch { name: grant.name().to_owned(), what, found, expected }
}

/// A mapped segment.
pub struct Segment {
    at: NonNull<u8>,
    mapped: usize,
    grant: Grant,
}

// SAFETY: the mapping is plain shared memory that lives as long as the handle; all access goes through
// atomics (ShmLayout, and `ram`), which are made for concurrent access.
unsafe impl Send for Segment {}
// SAFETY: see Send.
unsafe impl Sync for Segment {}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("name", &self.name()).field("len", &self.len()).finish()
    }
}

impl Segment {
    /// Makes a segment with `len` zeroed payload bytes. `name` says in messages what it is.
    ///
    /// # Errors
    /// [`SegmentError::System`], [`SegmentError::Map`], [`SegmentError::Room`] when memory is short.
    pub fn create(name: &str, kind: SegmentKind, len: usize, generation: u64) -> Result<Self, SegmentError> {
        let random = |source| SegmentError::Random { name: name.to_owned(), source };
        let name = format!("{name}.{:032x}", u128::from_le_bytes(random::bytes().map_err(random)?));
        let all = HEADER_BYTES + len;
        let system = |source| SegmentError::System { name: name.clone(), source };
        let made = ShmemConf::new().os_id(&name).size(all).create().map_err(system)?;
        let file = shm_open(name.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        // Removes the name.
        drop(made);
        let file = file.map_err(|source| SegmentError::Map { name: name.clone(), source })?;
        let segment = Self::map(&Grant::new(name, file))?;
        segment.allocate(if kind.is_sparse() { size_of::<SegmentHeader>() } else { all })?;
        let header = segment.header();
        header.kind.set(kind as u32);
        header.layout_version.set(kind.layout_version());
        header.len.set(len as u64);
        header.generation.set(generation);
        header.magic.store(MAGIC, Ordering::Release);
        Ok(segment)
    }

    /// Takes memory for the first so many bytes now: a lack of it at the first touch would be a signal, SIGBUS,
    /// to whoever touches, and that may be the daemon.
    fn allocate(&self, bytes: usize) -> Result<(), SegmentError> {
        let room = |source| SegmentError::Room { name: self.name().to_owned(), source };
        let bytes = libc::off_t::try_from(bytes).map_err(|_| room(Errno::EFBIG))?;
        posix_fallocate(&self.grant, 0, bytes).map_err(room)
    }

    /// Maps all of a segment's file.
    fn map(grant: &Grant) -> Result<Self, SegmentError> {
        let refused = |source| SegmentError::Map { name: grant.name().to_owned(), source };
        let mapped = usize::try_from(fstat(grant).map_err(refused)?.st_size).unwrap_or(0);
        let length =
            NonZeroUsize::new(mapped).ok_or_else(|| mismatch(grant, "length", 0, HEADER_BYTES as u64))?;
        // SAFETY: a new mapping at a place of the system's choice.
        let at = unsafe {
            mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, grant, 0)
        };
        Ok(Self { at: at.map_err(refused)?.cast(), mapped, grant: grant.clone() })
    }

    /// Attaches to a segment that another process made and has given to this one, and checks its header.
    ///
    /// # Errors
    /// [`SegmentError::Map`], [`SegmentError::Mismatch`] when it is not of this kind, version or length.
    pub fn attach(grant: &Grant, kind: SegmentKind) -> Result<Self, SegmentError> {
        let segment = Self::map(grant)?;
        let check = |what, found: u64, expected: u64| {
            if found == expected { Ok(()) } else { Err(mismatch(grant, what, found, expected)) }
        };
        check("mapped length over the header", u64::from(segment.mapped > HEADER_BYTES), 1)?;
        let header = segment.header();
        check("magic", header.magic.load(Ordering::Acquire), MAGIC)?;
        check("kind", header.kind.get().into(), (kind as u32).into())?;
        check("layout version", header.layout_version.get().into(), kind.layout_version().into())?;
        check("length beyond the mapping", u64::from(header.len.get() <= segment.len() as u64), 1)?;
        Ok(segment)
    }

    /// The segment as a file, in which the payload begins at [`HEADER_BYTES`]. It shares its position with everybody who
    /// has the segment: name places in it.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn file(&self) -> std::io::Result<File> {
        self.grant.as_fd().try_clone_to_owned().map(File::from)
    }

    /// What another process is given, so that it can attach.
    #[must_use]
    pub fn grant(&self) -> Grant {
        self.grant.clone()
    }

    /// Its name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.grant.name()
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &SegmentHeader {
        // SAFETY: create and attach guarantee a mapping longer than the header, page-aligned, and
        // SegmentHeader is ShmLayout.
        unsafe { self.at.cast::<SegmentHeader>().as_ref() }
    }

    /// Payload bytes, from the mapping and not from the header, which another process could change.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapped.saturating_sub(HEADER_BYTES)
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload's first byte.
    pub(crate) fn payload(&self) -> *mut u8 {
        // SAFETY: the mapping is longer than the header.
        unsafe { self.at.as_ptr().add(HEADER_BYTES) }
    }

    /// Views a shared structure at a payload offset.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when it would reach past the end or is misaligned.
    pub fn view<T: ShmLayout>(&self, offset: usize) -> Result<&T, SegmentError> {
        Ok(&self.slice::<T>(offset, 1)?[0])
    }

    /// Views `count` structures in a row at a payload offset.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when they would reach past the end or are misaligned.
    pub fn slice<T: ShmLayout>(&self, offset: usize, count: usize) -> Result<&[T], SegmentError> {
        let need = size_of::<T>().saturating_mul(count);
        if !offset.is_multiple_of(align_of::<T>())
            || offset.checked_add(need).is_none_or(|end| end > self.len())
        {
            return Err(SegmentError::Range { name: self.name().to_owned(), offset, need, len: self.len() });
        }
        // SAFETY: in range and aligned (the payload is page-aligned); T is ShmLayout: atomics, valid for any
        // bytes, so that a shared reference is sound while other processes write.
        Ok(unsafe { std::slice::from_raw_parts(self.payload().add(offset).cast::<T>(), count) })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by us, whole, and nothing borrowed from us is left.
        if let Err(errno) = unsafe { munmap(self.at.cast(), self.mapped) } {
            log::error!("segment {} stays mapped: {errno}", self.name());
        }
    }
}

/// A structure in a segment, checked once and kept with it. Cheap to clone; derefs to the structure.
pub struct View<T> {
    segment: Arc<Segment>,
    at: NonNull<T>,
}

// SAFETY: a view is a shared reference to a structure of atomics (ShmLayout) with what keeps it mapped.
unsafe impl<T: ShmLayout> Send for View<T> {}
// SAFETY: see Send.
unsafe impl<T: ShmLayout> Sync for View<T> {}

impl<T: ShmLayout> View<T> {
    /// The structure at a payload offset.
    ///
    /// # Errors
    /// [`SegmentError::Range`] when it would reach past the end or is misaligned.
    pub fn new(segment: Arc<Segment>, offset: usize) -> Result<Self, SegmentError> {
        let at = NonNull::from(segment.view::<T>(offset)?);
        Ok(Self { segment, at })
    }
}

impl<T> View<T> {
    /// The segment that it lies in.
    #[must_use]
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }
}

impl<T: ShmLayout> std::ops::Deref for View<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: made from a reference into the segment, which stays mapped at its place as long as we hold it.
        unsafe { self.at.as_ref() }
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { segment: Arc::clone(&self.segment), at: self.at }
    }
}

impl<T> std::fmt::Debug for View<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("segment", &self.segment).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn name(test: &str) -> String {
        format!("/quasar-test-{}-{test}", std::process::id())
    }

    #[test]
    fn attach_refuses_another_kind_and_bad_ranges() {
        let made = Segment::create(&name("kind"), SegmentKind::Ram, 4096, 1).expect("create");
        let attached = Segment::attach(&made.grant(), SegmentKind::Ram).expect("attach");
        assert!(matches!(
            Segment::attach(&made.grant(), SegmentKind::Control),
            Err(SegmentError::Mismatch { what: "kind", .. })
        ));
        made.view::<AtomicLe64>(8).expect("view").set(7);
        assert_eq!(attached.view::<AtomicLe64>(8).expect("view").get(), 7);
        assert!(attached.view::<AtomicLe64>(attached.len()).is_err());
        assert!(attached.view::<AtomicLe64>(4).is_err());
        assert!(attached.slice::<AtomicLe64>(8, usize::MAX).is_err());
    }

    /// Both ends see the same length, to the byte, although each kernel maps whole pages of its own size: of 4, 16 or
    /// 64 KiB. The payload begins where a page of any of these does.
    #[test]
    fn lengths_and_places_are_the_same_for_every_page_size() {
        for page in [4 << 10, 16 << 10, 64 << 10] {
            assert!(HEADER_BYTES.is_multiple_of(page));
            for len in [8, page - 8, page, page + 8, 5 * page + 24] {
                let made = Segment::create(&name(&format!("{page}-{len}")), SegmentKind::Ram, len, 1)
                    .expect("create");
                let attached = Segment::attach(&made.grant(), SegmentKind::Ram).expect("attach");
                assert_eq!((made.len(), attached.len()), (len, len));
                made.view::<AtomicLe64>(len - 8).expect("the last word").set(len as u64);
                assert_eq!(attached.view::<AtomicLe64>(len - 8).expect("the last word").get(), len as u64);
                assert!(attached.view::<AtomicLe64>(len).is_err());
            }
        }
    }

    #[test]
    fn a_view_keeps_its_segment_mapped_and_is_refused_out_of_range() {
        let made = Arc::new(Segment::create(&name("view"), SegmentKind::Console, 4096, 1).expect("create"));
        let view = View::<AtomicLe64>::new(Arc::clone(&made), 4088).expect("the last word");
        assert!(View::<AtomicLe64>::new(Arc::clone(&made), 4096).is_err());
        assert!(View::<AtomicLe64>::new(Arc::clone(&made), 4).is_err());
        drop(made);
        let other = view.clone();
        drop(view.segment().view::<AtomicLe64>(0));
        drop(view);
        other.set(7);
        assert_eq!(other.segment().view::<AtomicLe64>(4088).expect("the last word").get(), 7);
    }

    #[test]
    fn memory_is_taken_at_once_for_what_is_not_sparse() {
        let taken = |kind, what| {
            let made = Segment::create(&name(what), kind, 64 << 20, 1).expect("create");
            let file = made.file().and_then(|file| file.metadata()).expect("a file");
            file.blocks() * 512
        };
        assert!(taken(SegmentKind::Console, "taken") >= 64 << 20);
        assert!(taken(SegmentKind::Ram, "sparse") < 16 << 20);
    }

    #[test]
    fn a_lack_of_room_is_said() {
        // More than any file may have: the system's answer to a lack of memory, without taking it from others.
        let made = Segment::create(&name("room"), SegmentKind::Ram, 4096, 1).expect("create");
        assert!(matches!(made.allocate(usize::MAX >> 1), Err(SegmentError::Room { .. })));
    }

    /// By nobody: not by who knows how others are called, and not by who guesses.
    #[test]
    fn a_segment_has_no_name_by_which_it_could_be_opened() {
        let made = Segment::create(&name("unnamed"), SegmentKind::Ram, 4096, 1).expect("create");
        assert!(made.name().starts_with(&name("unnamed")));
        assert_eq!(shm_open(made.name(), OFlag::O_RDWR, Mode::empty()).err(), Some(Errno::ENOENT));
        let again =
            Segment::create(&name("unnamed"), SegmentKind::Ram, 4096, 1).expect("another of that name");
        assert_ne!(made.grant(), again.grant());
        made.view::<AtomicLe64>(0).expect("a word").set(3);
        let grant = made.grant();
        drop(made);
        let attached = Segment::attach(&grant, SegmentKind::Ram).expect("a grant outlives its maker");
        assert_eq!(attached.view::<AtomicLe64>(0).expect("a word").get(), 3);
        assert_eq!(again.view::<AtomicLe64>(0).expect("a word").get(), 0);
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        for bytes in [0, 8, HEADER_BYTES, HEADER_BYTES + 8] {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(bytes as u64).expect("its length");
            let grant = Grant::new("/other".into(), file.into());
            let error = Segment::attach(&grant, SegmentKind::Ram).expect_err("no segment");
            assert!(matches!(error, SegmentError::Mismatch { .. }), "{bytes}: {error}");
        }
        let file = File::open("/dev/null").expect("a file");
        let grant = Grant::new("/other".into(), file.into());
        assert!(Segment::attach(&grant, SegmentKind::Ram).is_err());
    }
}
