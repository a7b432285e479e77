//! Guest memory as the walk sees it: page tables in RAM, behind PMP, residency and the dirty log.

use crate::pmp::Pmp;
use crate::walk::{PteError, PteMemory};
use quasar_abi::dirty::PageMaps;
use quasar_abi::hart_mmu::{MOST_STEPS, MmuMailbox};
use quasar_abi::machine::{self, Region};
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::tlb::flag;
use quasar_abi::vm::VmControl;
use quasar_abi::{AtomicLe64, GuestRam};
use std::cell::Cell;
use std::sync::atomic::Ordering;

/// Regions served by the devices process.
const DEVICES: [Region; 6] =
    [machine::SYSCON, machine::RTC, machine::ACLINT, machine::PLIC, machine::UART, machine::VIRTIO];

/// What stands at a guest-physical page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// RAM.
    Ram,
    /// Device registers, in some of its bytes at least.
    Device,
}

/// What stands at `page`; `None` when nothing does.
#[must_use]
pub fn place(ram: &GuestRam, page: u64) -> Option<Place> {
    if ram.contains(page, PAGE_BYTES) {
        return Some(Place::Ram);
    }
    let overlaps = |region: &Region| page < region.base + region.len && region.base < page + PAGE_BYTES;
    (page < 1 << 56 && DEVICES.iter().any(overlaps)).then_some(Place::Device)
}

/// Page tables in a VM's RAM.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// RAM.
    pub ram: &'a GuestRam,
    /// Dirty and residency maps.
    pub maps: &'a PageMaps,
    /// Says what is logged.
    pub control: &'a VmControl,
    /// The asking hart's PMP; walks are checked as S-mode accesses (3.7.2).
    pub pmp: &'a Pmp,
    /// Pages may be absent.
    pub residency: bool,
}

impl Tables<'_> {
    fn cell(&self, gpa: u64, right: u64) -> Result<&AtomicLe64, PteError> {
        if self.pmp.rights(gpa, 8, false) & right == 0 {
            return Err(PteError::Denied);
        }
        let cell = self.ram.cell64(gpa).map_err(|_| PteError::Denied)?;
        if self.residency && !self.maps.is_resident(gpa) {
            return Err(PteError::Absent);
        }
        Ok(cell)
    }
}

impl PteMemory for Tables<'_> {
    fn load(&self, gpa: u64) -> Result<u64, PteError> {
        Ok(self.cell(gpa, flag::PMP_R)?.load(Ordering::Acquire))
    }

    fn compare_exchange(&self, gpa: u64, old: u64, new: u64) -> Result<bool, PteError> {
        let cell = self.cell(gpa, flag::PMP_W)?;
        let done = cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok();
        // After the write, as every party that does not write through granted entries: marked before, the
        // collector could take the mark, copy the page, and miss the write.
        if done && self.control.log_active.load(Ordering::SeqCst) != 0 {
            self.maps.mark(self.control.epoch.load(Ordering::SeqCst), gpa, 8);
        }
        Ok(done)
    }
}

/// The page-table entries that a walk has read since it began, or began again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    steps: [(u64, u64); MOST_STEPS],
    count: usize,
}

impl Trail {
    fn add(&mut self, gpa: u64, value: u64) {
        if let Some(step) = self.steps.get_mut(self.count) {
            *step = (gpa, value);
            self.count += 1;
        }
    }

    /// The entries in the order in which they were read: where, and what was there.
    #[must_use]
    pub fn steps(&self) -> &[(u64, u64)] {
        &self.steps[..self.count]
    }

    /// Puts it into a reply.
    pub fn tell(&self, mail: &MmuMailbox) {
        mail.step_count.set(self.count as u64);
        for (step, (gpa, value)) in mail.steps.iter().zip(self.steps()) {
            step.gpa.set(*gpa);
            step.value.set(*value);
        }
    }
}

/// Page tables that remember what was read of them.
#[derive(Debug)]
pub struct Recorded<'a, M> {
    tables: &'a M,
    trail: Cell<Trail>,
}

impl<'a, M> Recorded<'a, M> {
    /// Nothing has been read yet.
    pub fn new(tables: &'a M) -> Self {
        Self { tables, trail: Cell::default() }
    }

    /// What has been read.
    pub fn trail(&self) -> Trail {
        self.trail.get()
    }
}

impl<M: PteMemory> PteMemory for Recorded<'_, M> {
    fn load(&self, gpa: u64) -> Result<u64, PteError> {
        let value = self.tables.load(gpa)?;
        let mut trail = self.trail.get();
        trail.add(gpa, value);
        self.trail.set(trail);
        Ok(value)
    }

    /// Whether it succeeds or not, the walk begins again.
    fn compare_exchange(&self, gpa: u64, old: u64, new: u64) -> Result<bool, PteError> {
        self.trail.set(Trail::default());
        self.tables.compare_exchange(gpa, old, new)
    }
}
