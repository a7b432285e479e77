//! What several test programs share; each uses its part.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod pte;
pub mod vm;
