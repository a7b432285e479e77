//! Where this crate's atomics come from: the standard library, or the model checker `loom`.
//!
//! Built with `--cfg loom` the same protocols run on `loom`'s atomics, which try every interleaving and every
//! value that C11's release and acquire allow a load to return. Nothing is shared between processes then:
//! structures are made by [`crate::ShmLayout::zeroed`], tables and rings have a few entries, and a futex is
//! a mutex with a condition variable per word.
//!
//! `loom` takes `SeqCst` accesses for acquire and release ones and knows the total order of fences alone.
//! So each model is checked twice, with the two translations of such accesses into fences that compilers
//! use: a fence before each `SeqCst` load, or one after each `SeqCst` store. A pair of "store mine, load
//! yours" in which one access is not `SeqCst` fails in one of the two.

#[cfg(not(loom))]
mod backend {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, fence};

    use std::sync::atomic::Ordering;

    #[inline(always)]
    pub(crate) const fn before_load(_order: Ordering) {}
    #[inline(always)]
    pub(crate) const fn after_store(_order: Ordering) {}
}

#[cfg(loom)]
mod backend {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, fence};

    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    // No loom's: part of how the model is run, and not of what is modelled.
    static FENCE_BEFORE_LOADS: AtomicBool = AtomicBool::new(false);
    static ONE_MODEL: Mutex<()> = Mutex::new(());

    pub(crate) fn before_load(order: Ordering) {
        if order == Ordering::SeqCst && FENCE_BEFORE_LOADS.load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn after_store(order: Ordering) {
        if order == Ordering::SeqCst && !FENCE_BEFORE_LOADS.load(Ordering::Relaxed) {
            fence(Ordering::SeqCst);
        }
    }

    /// Checks a model with both translations of `SeqCst`, in every interleaving with at most `preemptions`
    /// threads taken off where they need not wait.
    ///
    /// # Panics
    /// When an interleaving panics or leaves all threads waiting.
    pub fn model(preemptions: usize, check: impl Fn() + Copy + Send + Sync + 'static) {
        let _one = ONE_MODEL.lock();
        for before_loads in [true, false] {
            FENCE_BEFORE_LOADS.store(before_loads, Ordering::Relaxed);
            let mut builder = loom::model::Builder::new();
            builder.preemption_bound = Some(preemptions);
            builder.check(check);
        }
    }
}

pub use backend::*;
