//! Segments under the model checker: structures that the threads of one model share.

use crate::le::ShmLayout;
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

/// Why a view was refused.
#[derive(Debug, thiserror::Error)]
#[error("the model's segment does not hold that")]
pub struct SegmentError;

/// A row of structures of one type.
pub struct Segment {
    cells: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Segment")
    }
}

impl Segment {
    /// A segment of `count` zeroed structures.
    #[must_use]
    pub fn of<T: ShmLayout + Send + Sync + 'static>(count: usize) -> Self {
        let cells: Vec<T> = (0..count).map(|_| T::zeroed()).collect();
        Self { cells: Box::new(cells) }
    }

    /// Views one structure; its offset counts bytes as in a real segment.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn view<T: ShmLayout + 'static>(&self, offset: usize) -> Result<&T, SegmentError> {
        self.slice(offset, 1)?.first().ok_or(SegmentError)
    }

    /// Views `count` structures in a row.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn slice<T: ShmLayout + 'static>(&self, offset: usize, count: usize) -> Result<&[T], SegmentError> {
        let cells = self.cells.downcast_ref::<Vec<T>>().ok_or(SegmentError)?;
        let first = offset / T::BYTES;
        cells.get(first..first + count).ok_or(SegmentError)
    }
}

/// A structure in a segment. Derefs to it.
#[derive(Debug)]
pub struct View<T> {
    segment: Arc<Segment>,
    offset: usize,
    what: PhantomData<T>,
}

impl<T: ShmLayout + 'static> View<T> {
    /// The structure at a payload offset.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn new(segment: Arc<Segment>, offset: usize) -> Result<Self, SegmentError> {
        segment.view::<T>(offset)?;
        Ok(Self { segment, offset, what: PhantomData })
    }
}

impl<T: ShmLayout + 'static> std::ops::Deref for View<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.segment.view(self.offset).expect("checked when the view was made")
    }
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { segment: Arc::clone(&self.segment), offset: self.offset, what: PhantomData }
    }
}
