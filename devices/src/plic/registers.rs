//! The PLIC's registers and its arbitration, without any host.

use super::state::{MAX_PRIORITY, PlicState, SOURCES, WORDS};
use zerocopy::little_endian::U32;

const PENDING: u64 = 0x1000;
const ENABLE: u64 = 0x2000;
const ENABLE_STRIDE: u64 = 0x80;
const CONTEXT: u64 = 0x20_0000;
const CONTEXT_STRIDE: u64 = 0x1000;

/// Which register an offset is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Priority(usize),
    Pending(usize),
    Enable { context: usize, word: usize },
    Threshold(usize),
    Claim(usize),
}

fn register(contexts: u64, offset: u64) -> Option<Register> {
    let word = (offset % ENABLE_STRIDE / 4) as usize;
    match offset {
        0..PENDING => {
            let source = (offset / 4) as usize;
            (1..SOURCES).contains(&source).then_some(Register::Priority(source))
        }
        PENDING..ENABLE => {
            let word = ((offset - PENDING) / 4) as usize;
            (word < WORDS).then_some(Register::Pending(word))
        }
        ENABLE..CONTEXT => {
            let context = (offset - ENABLE) / ENABLE_STRIDE;
            (context < contexts && word < WORDS)
                .then_some(Register::Enable { context: context as usize, word })
        }
        _ => {
            let context = (offset - CONTEXT) / CONTEXT_STRIDE;
            match (offset - CONTEXT) % CONTEXT_STRIDE {
                _ if context >= contexts => None,
                0 => Some(Register::Threshold(context as usize)),
                4 => Some(Register::Claim(context as usize)),
                _ => None,
            }
        }
    }
}

fn bit(words: &[U32; WORDS], source: usize) -> bool {
    words[source / 32].get() >> (source % 32) & 1 != 0
}

fn set(words: &mut [U32; WORDS], source: usize, value: bool) {
    let word = &mut words[source / 32];
    let mask = 1 << (source % 32);
    *word = if value { word.get() | mask } else { word.get() & !mask }.into();
}

impl PlicState {
    /// A device drives its line; returns whether anything changed.
    pub fn set_level(&mut self, source: u32, level: bool) -> bool {
        let source = source as usize;
        if !(1..SOURCES).contains(&source) || bit(&self.level, source) == level {
            return false;
        }
        set(&mut self.level, source, level);
        self.gateway(source);
        true
    }

    /// A level gateway forwards one request, and the next one only after completion. A request once
    /// forwarded stays when the line falls, as the specification says; handlers find nothing to do.
    fn gateway(&mut self, source: usize) {
        if bit(&self.level, source) && !bit(&self.claimed, source) {
            set(&mut self.pending, source, true);
        }
    }

    /// The best request for a context: highest priority, then lowest number.
    fn best(&self, context: usize) -> Option<(u32, usize)> {
        let mut best = None;
        for word in 0..WORDS {
            let mut candidates = self.pending[word].get() & self.enable[context][word].get();
            while candidates != 0 {
                let source = word * 32 + candidates.trailing_zeros() as usize;
                candidates &= candidates - 1;
                let priority = self.priority[source].get();
                if priority > best.map_or(0, |(p, _)| p) {
                    best = Some((priority, source));
                }
            }
        }
        best
    }

    /// Whether the context's interrupt line is up.
    #[must_use]
    pub fn asserted(&self, context: usize) -> bool {
        self.best(context).is_some_and(|(priority, _)| priority > self.threshold[context].get())
    }

    /// Claims the best request for a context; 0 when there is none. The threshold does not matter here.
    pub fn claim(&mut self, context: usize) -> u32 {
        let Some((_, source)) = self.best(context) else { return 0 };
        set(&mut self.pending, source, false);
        set(&mut self.claimed, source, true);
        u32::try_from(source).unwrap_or(0)
    }

    /// Completes a source; ignored unless the context has it enabled.
    pub fn complete(&mut self, context: usize, source: u32) {
        let source = source as usize;
        if (1..SOURCES).contains(&source) && bit(&self.enable[context], source) {
            set(&mut self.claimed, source, false);
            self.gateway(source);
        }
    }

    /// Reads a register of a machine with so many contexts; what is not there reads zero.
    pub fn read(&mut self, contexts: u64, offset: u64) -> u32 {
        match register(contexts, offset) {
            Some(Register::Priority(source)) => self.priority[source].get(),
            Some(Register::Pending(word)) => self.pending[word].get(),
            Some(Register::Enable { context, word }) => self.enable[context][word].get(),
            Some(Register::Threshold(context)) => self.threshold[context].get(),
            Some(Register::Claim(context)) => self.claim(context),
            None => 0,
        }
    }

    /// Writes a register; priorities and thresholds keep their three low bits, the rest is ignored.
    pub fn write(&mut self, contexts: u64, offset: u64, value: u32) {
        match register(contexts, offset) {
            Some(Register::Priority(source)) => self.priority[source] = (value & MAX_PRIORITY).into(),
            Some(Register::Enable { context, word }) => {
                self.enable[context][word] = (if word == 0 { value & !1 } else { value }).into();
            }
            Some(Register::Threshold(context)) => self.threshold[context] = (value & MAX_PRIORITY).into(),
            Some(Register::Claim(context)) => self.complete(context, value),
            Some(Register::Pending(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXTS: u64 = 4;

    fn with_enabled(sources: &[usize], context: u64) -> PlicState {
        let mut plic = PlicState::default();
        for source in sources {
            plic.write(CONTEXTS, *source as u64 * 4, 3);
            let at = ENABLE + ENABLE_STRIDE * context + *source as u64 / 32 * 4;
            let old = plic.read(CONTEXTS, at);
            plic.write(CONTEXTS, at, old | 1 << (source % 32));
        }
        plic
    }

    #[test]
    fn a_claimed_source_stays_silent_until_completed() {
        let mut plic = with_enabled(&[10], 1);
        assert!(plic.set_level(10, true));
        assert!(!plic.set_level(10, true), "nothing changed");
        assert!(plic.asserted(1) && !plic.asserted(0) && !plic.asserted(3));
        let claim = CONTEXT + CONTEXT_STRIDE + 4;
        assert_eq!(plic.read(CONTEXTS, claim), 10);
        assert!(!plic.asserted(1));
        assert_eq!(plic.read(CONTEXTS, claim), 0);
        plic.set_level(10, false);
        plic.set_level(10, true);
        assert!(!plic.asserted(1), "the gateway is shut until completion");
        plic.write(CONTEXTS, claim, 10);
        assert!(plic.asserted(1), "the line is still high");
        assert_eq!(plic.read(CONTEXTS, claim), 10);
        plic.set_level(10, false);
        plic.write(CONTEXTS, claim, 10);
        assert!(!plic.asserted(1));
    }

    #[test]
    fn completion_by_a_context_that_has_it_disabled_is_ignored() {
        let mut plic = with_enabled(&[10], 1);
        plic.set_level(10, true);
        assert_eq!(plic.claim(1), 10);
        plic.complete(2, 10);
        assert!(!plic.asserted(1));
        plic.complete(1, 10);
        assert!(plic.asserted(1));
    }

    #[test]
    fn the_highest_priority_then_the_lowest_number_wins() {
        let mut plic = with_enabled(&[5, 40, 95], 0);
        plic.write(CONTEXTS, 40 * 4, 7);
        for source in [5, 40, 95] {
            plic.set_level(source, true);
        }
        assert_eq!([plic.claim(0), plic.claim(0), plic.claim(0), plic.claim(0)], [40, 5, 95, 0]);
    }

    #[test]
    fn the_threshold_masks_the_line_and_not_the_claim() {
        let mut plic = with_enabled(&[5], 0);
        plic.set_level(5, true);
        plic.write(CONTEXTS, CONTEXT, 3);
        assert!(!plic.asserted(0));
        assert_eq!(plic.claim(0), 5);
    }

    #[test]
    fn contexts_of_absent_harts_and_source_0_do_not_exist() {
        let mut plic = PlicState::default();
        plic.write(CONTEXTS, ENABLE + ENABLE_STRIDE * 4, u32::MAX);
        plic.write(CONTEXTS, CONTEXT + CONTEXT_STRIDE * 4, 7);
        plic.write(CONTEXTS, 0, 7);
        plic.write(CONTEXTS, SOURCES as u64 * 4, 7);
        assert_eq!(plic, PlicState::default());
        plic.write(CONTEXTS, ENABLE, u32::MAX);
        assert_eq!(plic.read(CONTEXTS, ENABLE), u32::MAX - 1);
    }
}
