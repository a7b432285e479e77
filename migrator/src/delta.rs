//! Pages that were sent before travel as what has changed in them.
//!
//! The source keeps copies of pages as it sent them last, within a budget. A page that is sent again goes as the exclusive
//! or with its copy when most of it is unchanged: that compresses to little, and the destination still has the
//! other half. A guest that changes a few words on many pages is then moved over a link that its pages would not fit.
//!
//! Fresh memory for copies of everything is a fifth of what the first round costs, for nothing when the guest is idle, and
//! for more than they save when the link has room. So copies are taken from when they are asked for ([`Copies::begin`]).

use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::MmapMut;
use quasar_abi::ram::PAGE_LEN;

/// Locks in all; neighbouring pages share one, as batches do.
const SHARDS: usize = 16;
/// Pages in a row that share a lock.
const RUN: u64 = 256;
/// Copies that are allocated together, in huge pages where the system has them.
const SLAB_PAGES: usize = 1024;

/// How a page is sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Whole,
    /// The buffer holds what has changed since it was sent last.
    Difference,
    /// Nothing has changed since then.
    Unchanged,
}

/// Some of the copies.
#[derive(Default)]
struct Shard {
    places: HashMap<u64, usize>,
    free: Vec<usize>,
    slabs: Vec<MmapMut>,
}

impl Shard {
    /// The copy in a place.
    fn at(&mut self, place: usize) -> &mut [u8] {
        let from = place % SLAB_PAGES * PAGE_LEN;
        &mut self.slabs[place / SLAB_PAGES][from..from + PAGE_LEN]
    }

    /// A place for one more; nothing when there is no memory.
    fn place(&mut self) -> Option<usize> {
        if let Some(place) = self.free.pop() {
            return Some(place);
        }
        let slab = MmapMut::map_anon(SLAB_PAGES * PAGE_LEN).ok()?;
        // Small pages do as well, only slower.
        drop(slab.advise(memmap2::Advice::HugePage));
        let first = self.slabs.len() * SLAB_PAGES;
        self.slabs.push(slab);
        self.free.extend((first + 1..first + SLAB_PAGES).rev());
        Some(first)
    }

    fn forget(&mut self, index: u64) -> bool {
        let place = self.places.remove(&index);
        self.free.extend(place);
        place.is_some()
    }
}

/// What one area's pages held when they were sent last.
pub struct Copies {
    shards: Vec<Mutex<Shard>>,
    /// Pages that may still be taken in.
    room: AtomicU64,
    /// They pay.
    wanted: AtomicBool,
}

impl Copies {
    /// Nothing, with room for so many bytes of pages, and nothing to be taken in before [`Self::begin`].
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let room = AtomicU64::new(bytes / PAGE_LEN as u64);
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), room, wanted: AtomicBool::new(false) }
    }

    /// From now on pages that are sent may come again.
    pub fn begin(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// From now on none is taken any more: those there are still serve. What is sent in the pause does not come again.
    pub fn end(&self) {
        self.wanted.store(false, Ordering::Relaxed);
    }

    fn shard(&self, index: u64) -> MutexGuard<'_, Shard> {
        let number = (index / RUN % SHARDS as u64) as usize;
        self.shards[number].lock()
    }

    fn take_room(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
            && self.room.try_update(Ordering::Relaxed, Ordering::Relaxed, |room| room.checked_sub(1)).is_ok()
    }

    /// Notes that this page is sent now, and says how. For [`Form::Difference`] the page's bytes are replaced by the
    /// difference. A page must not be noted by two threads at once.
    pub fn note(&self, index: u64, page: &mut [u8]) -> Form {
        let mut shard = self.shard(index);
        let Some(&place) = shard.places.get(&index) else {
            if self.take_room()
                && let Some(place) = shard.place()
            {
                shard.at(place).copy_from_slice(page);
                shard.places.insert(index, place);
            }
            return Form::Whole;
        };
        let copy = shard.at(place);
        let (words, before) = (page.as_chunks_mut::<8>().0, copy.as_chunks_mut::<8>().0);
        let same = words.iter().zip(&*before).filter(|(now, before)| now == before).count();
        if same == words.len() {
            return Form::Unchanged;
        }
        if same < words.len() / 2 {
            before.copy_from_slice(words);
            return Form::Whole;
        }
        for (now, before) in words.iter_mut().zip(before) {
            let difference = u64::from_ne_bytes(*now) ^ u64::from_ne_bytes(*before);
            *before = *now;
            *now = difference.to_ne_bytes();
        }
        Form::Difference
    }

    /// Notes that this page is sent as zeroes.
    pub fn forget(&self, index: u64) {
        if self.shard(index).forget(index) {
            self.room.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Before a round of these pages: when there is not room for all of them, pages that the guest does not write any more
    /// make some.
    pub fn make_room(&self, pages: &[u64]) {
        let new =
            pages.iter().filter(|&&index| !self.shard(index).places.contains_key(&index)).count() as u64;
        let room = self.room.load(Ordering::Relaxed);
        if new <= room {
            return;
        }
        let mut wanted = new - room;
        let hot: HashSet<u64> = pages.iter().copied().collect();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { places, free, .. } = &mut *shard;
            places.retain(|index, place| {
                let stays = wanted == 0 || hot.contains(index);
                if !stays {
                    wanted -= 1;
                    free.push(*place);
                    self.room.fetch_add(1, Ordering::Relaxed);
                }
                stays
            });
        }
    }
}

/// Puts the difference into the page that the other side has: [`Form::Difference`]'s other end.
pub fn apply(page: &mut [u8], difference: &[u8]) {
    for (byte, change) in page.iter_mut().zip(difference) {
        *byte ^= change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_leads_from_the_old_page_to_the_new_one() {
        let copies = Copies::new(1 << 20);
        assert_eq!(copies.note(3, &mut [7; PAGE_LEN]), Form::Whole);
        assert_eq!(copies.note(3, &mut [7; PAGE_LEN]), Form::Whole, "none is taken before it is asked for");
        copies.begin();
        let mut old = vec![7; PAGE_LEN];
        assert_eq!(copies.note(3, &mut old.clone()), Form::Whole);
        assert_eq!(copies.note(3, &mut old.clone()), Form::Unchanged);
        let mut new = old.clone();
        new[100] = 9;
        let mut sent = new.clone();
        assert_eq!(copies.note(3, &mut sent), Form::Difference);
        assert_eq!(sent.iter().filter(|b| **b != 0).count(), 1);
        apply(&mut old, &sent);
        assert_eq!(old, new);
        assert_eq!(copies.note(3, &mut new.clone()), Form::Unchanged, "the copy follows");
        let mut other: Vec<u8> = (8..=250).cycle().take(PAGE_LEN).collect();
        let kept = other.clone();
        assert_eq!(copies.note(3, &mut other), Form::Whole, "a difference would be as long");
        assert_eq!(other, kept);
        copies.forget(3);
        copies.end();
        assert_eq!(copies.note(3, &mut other), Form::Whole);
        assert_eq!(copies.note(3, &mut other), Form::Whole, "none is taken any more");
    }

    #[test]
    fn what_is_not_written_any_more_makes_room() {
        let copies = Copies::new(2 * PAGE_LEN as u64);
        copies.begin();
        let mut page = vec![1; PAGE_LEN];
        for index in 0..3 {
            assert_eq!(copies.note(index, &mut page), Form::Whole);
        }
        assert_eq!(copies.note(2, &mut page), Form::Whole, "there was room for two");
        copies.make_room(&[0, 1]);
        assert_eq!(copies.note(0, &mut page), Form::Unchanged, "there is a copy of each");
        copies.make_room(&[1, 2]);
        assert_eq!(copies.note(2, &mut page), Form::Whole);
        assert_eq!(copies.note(2, &mut page), Form::Unchanged);
        assert_eq!(copies.note(1, &mut page), Form::Unchanged);
        assert_eq!(copies.note(0, &mut page), Form::Whole);
    }
}
