//! Guest images made from Debian packages.
