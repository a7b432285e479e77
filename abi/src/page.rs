//! Guest pages.

/// Guest page size in bytes, whatever the host's.
pub const PAGE_BYTES: u64 = 4096;
/// [`PAGE_BYTES`] as the length of a buffer.
pub const PAGE_LEN: usize = 4096;
/// log2 of [`PAGE_BYTES`].
pub const PAGE_SHIFT: u32 = 12;
