//! Contexts: the short numbers under which L1 keeps translations of different address spaces apart.

use super::l1::Context;
use quasar_abi::tlb::space;

/// Under which rules an access is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// satp, or a value of [`space`].
    pub space: u64,
    /// Effective privilege (0 U, 1 S, 3 M).
    pub privilege: u64,
    /// mstatus.SUM and MXR where they matter, zero elsewhere.
    pub mstatus: u64,
}

impl View {
    pub const MACHINE: Self = Self { space: space::MACHINE, privilege: 3, mstatus: 0 };
}

/// How many views are remembered.
const RECENT: usize = 16;

/// Hands out contexts; forgetting all of them is a flush.
#[derive(Debug)]
pub(super) struct Contexts {
    recent: [Option<(View, Context)>; RECENT],
    replace: usize,
    next: u64,
}

impl Contexts {
    pub const fn new() -> Self {
        Self { recent: [None; RECENT], replace: 0, next: 1 }
    }

    /// The context of a view. The second value says that the numbers ran out: every table that holds
    /// contexts must be wiped before the new one is used.
    pub fn of(&mut self, view: View) -> (Context, bool) {
        if let Some((_, context)) = self.recent.iter().flatten().find(|(known, _)| *known == view) {
            return (*context, false);
        }
        let exhausted = self.next >= Context::COUNT;
        if exhausted {
            *self = Self::new();
        }
        let context = Context::number(self.next);
        self.next += 1;
        self.recent[self.replace] = Some((view, context));
        self.replace = (self.replace + 1) % RECENT;
        (context, exhausted)
    }

    /// Forgets every view: what L1 holds under their contexts can never match again.
    pub fn forget(&mut self) {
        self.recent = [None; RECENT];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_keep_their_context_until_forgotten() {
        let mut contexts = Contexts::new();
        let user = View { space: 8 << 60, privilege: 0, mstatus: 0 };
        let (a, _) = contexts.of(View::MACHINE);
        let (b, _) = contexts.of(user);
        assert_ne!(a, b);
        assert_eq!(contexts.of(View::MACHINE), (a, false));
        contexts.forget();
        assert_ne!(contexts.of(View::MACHINE).0, a);
    }

    #[test]
    fn running_out_asks_for_a_wipe() {
        let mut contexts = Contexts::new();
        let mut wipes = 0;
        for asid in 0..2000 {
            let (context, wipe) = contexts.of(View { space: asid, privilege: 1, mstatus: 0 });
            assert!(context.0 != 0 && context.0 < 4096);
            wipes += u32::from(wipe);
        }
        assert_eq!(wipes, 3);
    }
}
