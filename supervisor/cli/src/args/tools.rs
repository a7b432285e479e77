//! `quasar completions`, `quasar man`.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `quasar completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Completions {
    /// For which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that command lines can be completed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// bash 4.4 or later.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

/// `quasar man`.
#[derive(Clone, Debug, Args)]
pub struct Man {
    /// The directory; made when it is not there.
    pub directory: PathBuf,
}
