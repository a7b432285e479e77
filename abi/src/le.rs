//! Little-endian atomics: the only integers that may lie in shared memory.
//!
//! The bytes in memory are little-endian on every host; values handed in and out are native. On a
//! little-endian host each operation is the plain atomic. On a big-endian host bitwise operations work
//! on swapped operands, and additions go through compare-and-swap, because a native `fetch_add` would
//! carry in the wrong direction.

use crate::sync::{self, AtomicU8, AtomicU32, AtomicU64};
use std::sync::atomic::Ordering;

/// A type that may be viewed in place in a shared segment.
///
/// # Safety
/// The type consists of atomics (or arrays and `repr(C)` structs of such types) only, is valid when
/// all bytes are zero, has the same layout on every host architecture, and has no drop glue.
pub unsafe trait ShmLayout: Sized {
    /// Its size in a segment; under the model checker it has another one.
    #[cfg(loom)]
    const BYTES: usize;
    /// All zero, as in a new segment.
    #[cfg(loom)]
    fn zeroed() -> Self;
}

// SAFETY: one byte, interior mutability through atomics, zero is valid, same layout everywhere.
unsafe impl ShmLayout for AtomicU8 {
    #[cfg(loom)]
    const BYTES: usize = 1;
    #[cfg(loom)]
    fn zeroed() -> Self {
        Self::new(0)
    }
}
// SAFETY: an array adds nothing but repetition.
unsafe impl<T: ShmLayout, const N: usize> ShmLayout for [T; N] {
    #[cfg(loom)]
    const BYTES: usize = N * T::BYTES;
    #[cfg(loom)]
    fn zeroed() -> Self {
        std::array::from_fn(|_| T::zeroed())
    }
}

macro_rules! little_endian_atomic {
    ($name:ident, $inner:ty, $int:ty, $doc:literal) => {
        #[doc = $doc]
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name($inner);

        // SAFETY: a transparent atomic of fixed width and natural alignment (8 for u64 on all our 64-bit hosts).
        unsafe impl ShmLayout for $name {
            #[cfg(loom)]
            const BYTES: usize = size_of::<$int>();
            #[cfg(loom)]
            fn zeroed() -> Self {
                Self::new(0)
            }
        }

        impl $name {
            /// A cell that holds `value`.
            #[cfg(not(loom))]
            #[must_use]
            pub const fn new(value: $int) -> Self {
                Self(<$inner>::new(value.to_le()))
            }
            /// A cell that holds `value`.
            #[cfg(loom)]
            #[must_use]
            pub fn new(value: $int) -> Self {
                Self(<$inner>::new(value.to_le()))
            }
            /// Loads the value.
            #[inline]
            #[must_use]
            pub fn load(&self, order: Ordering) -> $int {
                sync::before_load(order);
                <$int>::from_le(self.0.load(order))
            }
            /// Stores the value.
            #[inline]
            pub fn store(&self, value: $int, order: Ordering) {
                self.0.store(value.to_le(), order);
                sync::after_store(order);
            }
            /// Loads without ordering, for words whose order another word carries.
            #[inline]
            #[must_use]
            pub fn get(&self) -> $int {
                self.load(Ordering::Relaxed)
            }
            /// Stores without ordering, for words whose order another word carries.
            #[inline]
            pub fn set(&self, value: $int) {
                self.store(value, Ordering::Relaxed);
            }
            /// Exchanges the value, returning the old one.
            #[inline]
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                sync::before_load(order);
                let old = self.0.swap(value.to_le(), order);
                sync::after_store(order);
                <$int>::from_le(old)
            }
            /// Bitwise or, returning the old value.
            #[inline]
            pub fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                sync::before_load(order);
                let old = self.0.fetch_or(value.to_le(), order);
                sync::after_store(order);
                <$int>::from_le(old)
            }
            /// Bitwise and, returning the old value.
            #[inline]
            pub fn fetch_and(&self, value: $int, order: Ordering) -> $int {
                sync::before_load(order);
                let old = self.0.fetch_and(value.to_le(), order);
                sync::after_store(order);
                <$int>::from_le(old)
            }
            /// Bitwise exclusive or, returning the old value.
            #[inline]
            pub fn fetch_xor(&self, value: $int, order: Ordering) -> $int {
                sync::before_load(order);
                let old = self.0.fetch_xor(value.to_le(), order);
                sync::after_store(order);
                <$int>::from_le(old)
            }
            /// Replaces `current` by `new` if it is there; strong.
            ///
            /// # Errors
            /// The value found instead.
            #[inline]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                sync::before_load(success);
                let done = self.0.compare_exchange(current.to_le(), new.to_le(), success, failure);
                sync::after_store(success);
                done.map(<$int>::from_le).map_err(<$int>::from_le)
            }
            /// Applies `change` atomically, returning the old value.
            #[inline]
            pub fn update(&self, order: Ordering, mut change: impl FnMut($int) -> $int) -> $int {
                let mut seen = self.load(Ordering::Relaxed);
                loop {
                    match self.compare_exchange(seen, change(seen), order, Ordering::Relaxed) {
                        Ok(old) => return old,
                        Err(now) => seen = now,
                    }
                }
            }
            /// Wrapping addition, returning the old value.
            #[inline]
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                if cfg!(target_endian = "little") {
                    sync::before_load(order);
                    let old = self.0.fetch_add(value, order);
                    sync::after_store(order);
                    old
                } else {
                    self.update(order, |old| old.wrapping_add(value))
                }
            }
            /// Wrapping subtraction, returning the old value.
            #[inline]
            pub fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                self.fetch_add(value.wrapping_neg(), order)
            }
            /// Adds to a counter that this process alone writes: no locked instruction.
            #[inline]
            pub fn bump(&self, by: $int) {
                self.set(self.get().wrapping_add(by));
            }
        }
    };
}

little_endian_atomic!(AtomicLe32, AtomicU32, u32, "A shared 32-bit integer, little-endian in memory.");
little_endian_atomic!(AtomicLe64, AtomicU64, u64, "A shared 64-bit integer, little-endian in memory.");

/// What precedes a host atomic that stands for one of the guest's (LR, SC, AMO).
///
/// An AMO that acquires and releases is one point of the guest's memory order: nothing before it passes
/// anything after it. A locked instruction of x86-64 and of s390x is such a barrier itself. Elsewhere a
/// sequentially consistent atomic may be a loop of exclusive accesses, which orders what stands around it
/// with itself alone; and LR with both bits set comes after earlier stores, which no acquire load does.
#[inline(always)]
pub fn order_atomic() {
    if cfg!(any(loom, not(any(target_arch = "x86_64", target_arch = "s390x")))) {
        sync::fence(Ordering::SeqCst);
    }
}

impl AtomicLe32 {
    /// The cell as the kernel's futex sees it: the address and nothing of the value's meaning.
    #[cfg(not(loom))]
    pub(crate) fn raw(&self) -> &AtomicU32 {
        &self.0
    }
}

/// Declares a `repr(C)` struct of shared atomics and asserts its size at compile time.
///
/// Every field's type must be [`ShmLayout`], which makes the struct `ShmLayout` too.
#[macro_export]
macro_rules! shm_struct {
    ($(#[$meta:meta])* pub struct $name:ident: $size:expr => {
        $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)*
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }
        const _: () = {
            const fn shm<T: $crate::ShmLayout>() {}
            $(shm::<$ty>();)*
            #[cfg(not(loom))]
            assert!(::core::mem::size_of::<$name>() == $size, concat!("the size of ", stringify!($name)));
        };
        // SAFETY: repr(C) of fields that were just asserted to be ShmLayout; the size is asserted, so
        // that padding cannot differ between hosts.
        unsafe impl $crate::ShmLayout for $name {
            #[cfg(loom)]
            const BYTES: usize = $size;
            #[cfg(loom)]
            fn zeroed() -> Self {
                Self { $($field: $crate::ShmLayout::zeroed(),)* }
            }
        }
    };
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bytes_in_memory_are_little_endian() {
        let cell = AtomicLe64::new(0x0102_0304_0506_0708);
        assert_eq!(cell.0.into_inner().to_ne_bytes(), [8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn arithmetic_carries_in_the_right_direction() {
        let cell = AtomicLe32::new(0xff);
        assert_eq!(cell.fetch_add(1, Ordering::Relaxed), 0xff);
        assert_eq!(cell.get(), 0x100);
        assert_eq!(cell.fetch_sub(0x101, Ordering::Relaxed), 0x100);
        assert_eq!(cell.get(), u32::MAX);
        assert_eq!(cell.update(Ordering::Relaxed, |v| v << 4), u32::MAX);
        assert_eq!(cell.get(), 0xffff_fff0);
    }
}
