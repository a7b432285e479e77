//! One VM through its life: [`controller`] is a thread that owns its processes ([`crew`]) and never waits on
//! any of them; [`stats`] reads what they count; [`status`] is what others see of it;
//! [`swap`] replaces its processes by those of another build.

pub mod controller;
pub mod crew;
pub mod handle;
mod member;
pub mod stats;

pub mod status;
pub mod swap;

pub use controller::{Controller, Input, Loader, Request, Setup};
pub use handle::VmHandle;
pub use status::StatusBoard;
pub use swap::SwapRequest;
