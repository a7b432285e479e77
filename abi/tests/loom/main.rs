//! Models of what processes do to each other in shared memory, checked in every interleaving and with every
//! value that release and acquire allow a load to return (docs/memory-ordering.md). Built and run by
//! `cargo xtask check`; without `--cfg loom` there is nothing here.
//!
//! The code of `quasar-abi` is the real one, on `loom`'s atomics. Where a model repeats lines of another
//! process, it says which. Models named `..._fails` get something wrong on purpose: they show that the
//! checker would see it.
#![cfg(loom)]
#![deny(unsafe_code)]

mod clock;
mod epoch;
mod guest;
mod mail;
mod pause;
mod rings;
mod tlb;
