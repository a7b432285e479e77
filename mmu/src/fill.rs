//! What a request is answered with, and what goes into the hart's cache beside it.

use crate::pmp::Pmp;
use crate::request::{AccessKind, Request, Translation};
use crate::tables::{Place, Recorded, Tables, Trail, place};
use crate::walk::{Leaf, PteMemory, Walk, WalkError, decode_leaf, walk};
use quasar_abi::GuestRam;
use quasar_abi::dirty::PageMaps;
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::tlb::{HartTlb, flag, level_shift};
use quasar_abi::vm::VmControl;
use std::sync::atomic::Ordering;

/// PTEs looked at per walk: the asked one and its neighbours, two cache lines.
pub const BATCH: u64 = 16;

/// Largest level that the cache has entries of.
const LARGEST: u32 = 3;

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Allowed and cached: `gpa_flags` of the 4 KiB page.
    Ok(u64),
    /// Allowed for this access alone: `gpa_flags` of the 4 KiB page.
    Once(u64),
    /// Page fault.
    PageFault,
    /// Access fault.
    AccessFault,
    /// Not yet: a page is absent, or a PTE contended. Serve the request again.
    Later,
}

/// What serving one request did beside answering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Neighbours filled.
    pub neighbours: u64,
    /// PTEs whose A or D was set.
    pub ad_updates: u64,
    /// The PTEs that the answer follows from.
    pub trail: Trail,
}

/// Everything that a request of one hart is answered from.
#[derive(Clone, Copy, Debug)]
pub struct TlbFiller<'a> {
    /// RAM.
    pub ram: &'a GuestRam,
    /// Dirty and residency maps.
    pub maps: &'a PageMaps,
    /// The VM's control block.
    pub control: &'a VmControl,
    /// The hart's cache.
    pub tlb: &'a HartTlb,
    /// The hart's PMP.
    pub pmp: &'a Pmp,
}

/// A page that may be used.
#[derive(Clone, Copy, Debug)]
struct Target {
    va: u64,
    /// Its 4 KiB page.
    page: u64,
    place: Place,
    /// Level of the leaf, or the largest that an identity mapping may have.
    level: u32,
    /// R, W, X, U, G, A, D.
    flags: u64,
    machine: bool,
}

/// What was true when serving began. All of it is read after the cache's generations, so that a hart that has
/// flushed since has outdated what is filled from this.
#[derive(Clone, Copy, Debug)]
struct Moment {
    generation: u64,
    global_generation: u64,
    residency: bool,
}

impl TlbFiller<'_> {
    /// Answers a request and fills the hart's cache.
    pub fn answer(&self, request: &Request) -> (Answer, Effects) {
        let mut effects = Effects::default();
        let now = self.moment(request.space);
        let answer = match request.translation {
            Translation::Identity { machine } => self.identity(request, machine, &now),
            Translation::Paged { root, mode, sum, mxr, adue, pbmte } => {
                let how = Walk { root, va: request.va, kind: request.kind, mode, sum, mxr, adue, pbmte };
                self.paged(request, &how, &now, &mut effects)
            }
        };
        (answer, effects)
    }

    fn moment(&self, space: u64) -> Moment {
        let generation = self.tlb.generation_word(space, 0);
        let global_generation = self.tlb.generation_word(space, flag::G);
        std::sync::atomic::fence(Ordering::SeqCst);
        Moment {
            generation,
            global_generation,
            residency: self.control.residency_active.load(Ordering::SeqCst) != 0,
        }
    }

    /// Bare and M-mode. All of R, W, X, U, A and D are set: only PMP limits such an access, and whoever
    /// probes without translation looks at the PMP flags alone, whatever its privilege.
    fn identity(&self, request: &Request, machine: bool, now: &Moment) -> Answer {
        let page = request.va & !(PAGE_BYTES - 1);
        let Some(place) = place(self.ram, page) else { return Answer::AccessFault };
        let flags = flag::R | flag::W | flag::X | flag::U | flag::A | flag::D;
        let target = Target { va: request.va, page, place, level: 2, flags, machine };
        self.grant(request, &target, now)
    }

    fn paged(&self, request: &Request, how: &Walk, now: &Moment, effects: &mut Effects) -> Answer {
        let tables = self.tables(now);
        let recorded = Recorded::new(&tables);
        let walked = walk(&recorded, how);
        effects.trail = recorded.trail();
        let leaf = match walked {
            Ok(leaf) => leaf,
            Err(WalkError::PageFault) => return Answer::PageFault,
            Err(WalkError::AccessFault) => return Answer::AccessFault,
            Err(WalkError::Absent | WalkError::Contended) => return Answer::Later,
        };
        effects.ad_updates += u64::from(leaf.updated);
        let Some(place) = place(self.ram, leaf.page) else { return Answer::AccessFault };
        let target = Target {
            va: request.va,
            page: leaf.page,
            place,
            level: leaf.level,
            flags: leaf.flags,
            machine: false,
        };
        let answer = self.grant(request, &target, now);
        if matches!(answer, Answer::Ok(_)) && leaf.level == 0 {
            self.neighbours(request, &leaf, how.pbmte, now, effects);
        }
        answer
    }

    fn tables(&self, now: &Moment) -> Tables<'_> {
        Tables {
            ram: self.ram,
            maps: self.maps,
            control: self.control,
            pmp: self.pmp,
            residency: now.residency,
        }
    }

    /// Protection and residency of a page that translation allows; fills the cache.
    fn grant(&self, request: &Request, target: &Target, now: &Moment) -> Answer {
        if target.place == Place::Device && request.kind == AccessKind::Fetch {
            return Answer::AccessFault;
        }
        let shared = self.largest(target, now);
        let access = target.page + target.va % PAGE_BYTES;
        let rights = match shared {
            Some((_, rights)) => rights,
            None => self.pmp.rights(access, request.len, target.machine),
        };
        if rights & request.kind.pmp_flag() == 0 {
            return Answer::AccessFault;
        }
        if now.residency && target.place == Place::Ram && !self.maps.is_resident(target.page) {
            return Answer::Later;
        }
        let flags = describe(target, rights);
        // The hart has asked for this access and may do it; nothing else follows from the answer.
        let Some((level, _)) = shared else { return Answer::Once(target.page | flags) };
        self.put(request, target, level, flags, now);
        Answer::Ok(target.page | flags)
    }

    /// The largest level up to the leaf's at which one entry tells the truth about all its pages.
    fn largest(&self, target: &Target, now: &Moment) -> Option<(u32, u64)> {
        // Devices, and pages while some are absent, are kept as 4 KiB entries.
        let by_page = target.place == Place::Device || now.residency;
        let top = if by_page { 0 } else { target.level.min(LARGEST) };
        (0..=top).rev().find_map(|level| {
            let size = 1 << level_shift(level);
            let start = target.page & !(size - 1);
            let whole = level == 0 || self.ram.contains(start, size);
            let rights = if whole { self.pmp.uniform(start, size, target.machine) } else { None };
            rights.map(|rights| (level, rights))
        })
    }

    fn put(&self, request: &Request, target: &Target, level: u32, flags: u64, now: &Moment) {
        let base = target.page & !((1 << level_shift(level)) - 1);
        let generation = if flags & flag::G != 0 { now.global_generation } else { now.generation };
        let translated = matches!(request.translation, Translation::Paged { .. });
        if translated && level < target.level {
            self.tlb.note_fractured();
        }
        self.tlb.fill(target.va, level, request.space, base | flags, generation);
    }

    /// Fills what the rest of the leaf's 16 PTEs says. Sets no A or D: the guest has not touched
    /// those pages.
    fn neighbours(&self, request: &Request, leaf: &Leaf, pbmte: bool, now: &Moment, effects: &mut Effects) {
        let tables = self.tables(now);
        let group = leaf.pte_gpa & !(BATCH * 8 - 1);
        let first_va = request.va & !(BATCH * PAGE_BYTES - 1);
        for index in 0..BATCH {
            let (va, pte_gpa) = (first_va + index * PAGE_BYTES, group + index * 8);
            if pte_gpa == leaf.pte_gpa {
                continue;
            }
            let Ok(value) = tables.load(pte_gpa) else { continue };
            let Some((page, flags)) = decode_leaf(value, va, 0, pbmte) else { continue };
            if flags & flag::A == 0 {
                continue;
            }
            let Some(place) = place(self.ram, page) else { continue };
            let Some(rights) = self.pmp.uniform(page, PAGE_BYTES, false) else { continue };
            if now.residency && place == Place::Ram && !self.maps.is_resident(page) {
                continue;
            }
            let flags = flags | leaf.inherited;
            let target = Target { va, page, place, level: 0, flags, machine: false };
            self.put(request, &target, 0, describe(&target, rights), now);
            effects.neighbours += 1;
        }
    }
}

/// The flags of an entry.
fn describe(target: &Target, rights: u64) -> u64 {
    match target.place {
        Place::Ram => target.flags | rights,
        // Nothing executes from device registers.
        Place::Device => target.flags | (rights & !flag::PMP_X) | flag::IO,
    }
}
