//! What the mmu process has refused, or allowed for one access alone: none of it is in the translation cache.
//!
//! A program may fault for ever at one place: its handler faults itself, or returns to what faulted. Were each of
//! these faults a question to another process, it would cost two changes of context where the two share a core, fifty
//! times what the trap costs. So the hart keeps the last answers with what they follow from: the page-table entries
//! that were read on the way. It looks at these again, so that a table that was changed without a fence is seen as
//! before. What else an answer follows from changes only with a flush: PMP, menvcfg, and where memory is.

use super::l1::Context;
use super::store::HartRam;
use quasar_abi::hart_mmu::{MOST_STEPS, MmuMailbox};
use std::sync::atomic::Ordering;

/// Answers kept.
const SLOTS: usize = 64;

/// Everything of a request that its answer depends on; the context stands for address space, privilege and mstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub va: u64,
    pub len: u64,
    pub access: u64,
    pub context: Context,
}

impl Question {
    const fn slot(&self) -> usize {
        let mixed = (self.va ^ self.access << 61 ^ self.context.0 << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 58) as usize % SLOTS
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    question: Question,
    /// The flushes before it.
    generation: u64,
    status: u64,
    gpa_flags: u64,
    steps: [(u64, u64); MOST_STEPS],
    count: usize,
}

impl Known {
    fn steps(&self) -> &[(u64, u64)] {
        &self.steps[..self.count]
    }
}

/// The latest answers, one for each slot.
#[derive(Debug)]
pub(super) struct Answers {
    known: Box<[Option<Known>; SLOTS]>,
    generation: u64,
}

impl Answers {
    pub fn new() -> Self {
        Self { known: Box::new([None; SLOTS]), generation: 0 }
    }

    /// The status and `gpa_flags` that the mmu would answer.
    pub fn find(&self, question: &Question, ram: &HartRam) -> Option<(u64, u64)> {
        let known = self.known[question.slot()].as_ref()?;
        let same = known.question == *question && known.generation == self.generation;
        let holds = |(gpa, value): &(u64, u64)| ram.load64(*gpa, Ordering::Acquire) == Ok(*value);
        (same && known.steps().iter().all(holds)).then_some((known.status, known.gpa_flags))
    }

    /// Keeps the answer that lies in the mailbox.
    pub fn keep(&mut self, question: Question, mail: &MmuMailbox) {
        let count = usize::try_from(mail.step_count.get()).unwrap_or(usize::MAX).min(MOST_STEPS);
        let mut steps = [(0, 0); MOST_STEPS];
        for (step, told) in steps.iter_mut().zip(&mail.steps) {
            *step = (told.gpa.get(), told.value.get());
        }
        let (status, gpa_flags) = (mail.status.get(), mail.gpa_flags.get());
        let known = Known { question, generation: self.generation, status, gpa_flags, steps, count };
        self.known[question.slot()] = Some(known);
    }

    /// Forgets all of them.
    pub const fn forget(&mut self) {
        self.generation += 1;
    }
}
