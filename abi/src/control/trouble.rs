//! Failures as they are told to the supervisor.

use crate::words::whole;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;

/// Why something failed, in words for people, and whether it may soon succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What happened to what, and what to do.
    pub words: String,
    /// The host lacked something for the moment: descriptors, memory, threads.
    pub passing: bool,
}

/// What a moment later may be there again.
const PASSING: [Errno; 5] = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EAGAIN, Errno::ENOBUFS];

/// The system's error in an error or its causes.
#[must_use]
pub fn errno(error: &(dyn Error + 'static)) -> Option<Errno> {
    let io = error.downcast_ref::<std::io::Error>();
    io.and_then(std::io::Error::raw_os_error)
        .map(Errno::from_raw)
        // One that was made of another error has that one within it, and calls that one's cause its own.
        .or_else(|| errno(io?.get_ref()?))
        .or_else(|| error.downcast_ref::<Errno>().copied())
        .or_else(|| match error.downcast_ref::<crate::SegmentError>() {
            Some(crate::SegmentError::System { source, .. }) => of_library(source),
            Some(crate::SegmentError::Room { source, .. } | crate::SegmentError::Map { source, .. }) => {
                Some(*source)
            }
            _ => None,
        })
        .or_else(|| error.source().and_then(errno))
}

/// The system's error in one of the shared-memory library, which has it as a number.
fn of_library(error: &shared_memory::ShmemError) -> Option<Errno> {
    use shared_memory::ShmemError::{MapCreateFailed, MapOpenFailed, UnknownOsError};
    let (MapCreateFailed(number) | MapOpenFailed(number) | UnknownOsError(number)) = error else {
        return None;
    };
    i32::try_from(*number).ok().map(Errno::from_raw)
}

impl Trouble {
    /// What an error says, with its causes.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let passing = errno(error).is_some_and(|errno| PASSING.contains(&errno));
        Self { words: whole(error), passing }
    }

    /// Something that stays so.
    #[must_use]
    pub fn lasting(words: impl Into<String>) -> Self {
        Self { words: words.into(), passing: false }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_shortage_is_found_behind_other_words_and_nothing_else_is_taken_for_one() {
        for errno in PASSING {
            let trouble = Trouble::of(&Outer(io::Error::from(errno)));
            assert!(trouble.passing, "{errno}");
            assert!(trouble.words.starts_with("the disk: "), "{trouble}");
            let library = shared_memory::ShmemError::MapOpenFailed(errno as u32);
            let segment = crate::SegmentError::System { name: "/q".into(), source: library };
            assert!(Trouble::of(&segment).passing, "{errno}");
            assert!(Trouble::of(&io::Error::other(errno)).passing, "{errno}");
            assert!(Trouble::of(&Outer(io::Error::other(Outer(errno.into())))).passing, "{errno}");
        }
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::EIO] {
            assert!(!Trouble::of(&Outer(io::Error::from(errno))).passing, "{errno}");
        }
        assert!(!Trouble::of(&Outer(io::Error::other("no number"))).passing);
    }
}
