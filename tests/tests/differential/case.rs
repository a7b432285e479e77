//! One case: the state to start from and the instructions to run; and what is left afterwards.

use crate::layout::{CASES, CASES_HEADER, CODE_BYTES, DATA_WORDS, PTES, USER_ALIAS, case, result};

/// Number of mstatus.MPP for each mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    U = 0,
    S = 1,
    M = 3,
}

/// What a case starts from.
#[derive(Clone, Debug)]
pub struct Case {
    /// The mode that the instructions run in.
    pub mode: Mode,
    /// The doublewords of [`case`], but for the code and its address.
    words: Vec<u64>,
    /// The instructions.
    pub code: Vec<u8>,
}

impl Case {
    /// All zero.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let mut case = Self { mode, words: vec![0; case::WORDS], code: vec![] };
        case.set(case::MSTATUS, (mode as u64) << 11);
        case
    }

    /// Sets a doubleword, by the names in [`case`].
    pub fn set(&mut self, field: usize, value: u64) {
        self.words[field] = value;
    }

    /// A doubleword.
    #[must_use]
    pub fn get(&self, field: usize) -> u64 {
        self.words[field]
    }

    /// Where the instructions of the case at `slot` of an image are, as the case sees them.
    #[must_use]
    pub fn entry(&self, slot: usize) -> u64 {
        let record = CASES + CASES_HEADER + 8 * (slot * case::WORDS) as u64;
        let alias = if self.get(case::SATP) != 0 && self.mode == Mode::U { USER_ALIAS } else { 0 };
        record + 8 * case::CODE as u64 + alias
    }

    /// The record in the image.
    #[must_use]
    pub fn record(&self, slot: usize) -> Vec<u8> {
        let mut words = self.words.clone();
        words[case::ENTRY] = self.entry(slot);
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let start = case::CODE * 8;
        assert!(self.code.len() <= CODE_BYTES, "the code fits its place");
        bytes[start..start + self.code.len()].copy_from_slice(&self.code);
        bytes
    }
}

/// What a case left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome(Vec<u64>);

impl Outcome {
    /// Takes the words of one result.
    #[must_use]
    pub fn new(words: &[u64]) -> Self {
        assert_eq!(words.len(), result::WORDS);
        Self(words.to_vec())
    }

    /// A doubleword, by the names in [`result`].
    #[must_use]
    pub fn get(&self, field: usize) -> u64 {
        self.0[field]
    }

    /// Changes a doubleword: for what is not compared.
    pub fn set(&mut self, field: usize, value: u64) {
        self.0[field] = value;
    }
}

/// The name of a doubleword of a result.
#[must_use]
pub fn name(field: usize) -> String {
    let single = [
        (result::MCAUSE, "mcause"),
        (result::MEPC, "mepc"),
        (result::MTVAL, "mtval"),
        (result::MSTATUS, "mstatus"),
        (result::SCAUSE, "scause"),
        (result::SEPC, "sepc"),
        (result::STVAL, "stval"),
        (result::SSCRATCH, "sscratch"),
        (result::FCSR, "fcsr"),
        (result::SATP, "satp"),
    ];
    if let Some((_, name)) = single.iter().find(|(at, _)| *at == field) {
        return (*name).to_owned();
    }
    let rows = [(result::X, 32, "x"), (result::F, 32, "f"), (result::DATA, DATA_WORDS, "data")];
    for (start, count, name) in rows {
        if (start..start + count).contains(&field) {
            return format!("{name}{}", field - start);
        }
    }
    format!("pte{} of {PTES}", field - result::PTE)
}
