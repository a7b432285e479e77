//! Commands that a child has not answered yet, and what becomes of them when it dies.

use quasar_abi::control::{Command, Interface, Repeat};
use std::collections::BTreeMap;

/// Who waits (`A`) for the answers of one child and of those that take its place. Without processes: its owner sends.
#[derive(Debug)]
pub struct Questions<I: Interface, A> {
    /// By the command's number.
    asked: BTreeMap<u64, (I::Command, A)>,
    /// For the successor, in the order in which they were given.
    again: Vec<(I::Command, A)>,
}

impl<I: Interface, A> Default for Questions<I, A> {
    fn default() -> Self {
        Self { asked: BTreeMap::new(), again: vec![] }
    }
}

impl<I: Interface, A> Questions<I, A> {
    /// A command was sent under this number.
    pub fn asked(&mut self, id: u64, command: I::Command, who: A) {
        self.asked.insert(id, (command, who));
    }

    /// It was answered: who waits for that.
    pub fn answered(&mut self, id: u64) -> Option<A> {
        self.asked.remove(&id).map(|(_, who)| who)
    }

    /// The child is dead. What may be carried out twice waits for its successor; of the rest it is not known whether it
    /// was carried out, and whoever waits for it is returned.
    #[must_use]
    pub fn died(&mut self) -> Vec<A> {
        let mut lost = vec![];
        for (command, who) in std::mem::take(&mut self.asked).into_values() {
            match command.repeat() {
                Repeat::Freely => self.again.push((command, who)),
                Repeat::Never => lost.push(who),
            }
        }
        lost
    }

    /// A successor serves: what it is to be asked.
    #[must_use]
    pub fn for_successor(&mut self) -> Vec<(I::Command, A)> {
        std::mem::take(&mut self.again)
    }

    /// Everyone who waits: there will be no answers.
    #[must_use]
    pub fn give_up(&mut self) -> Vec<A> {
        let again = std::mem::take(&mut self.again).into_iter();
        let asked = std::mem::take(&mut self.asked).into_values();
        again.chain(asked).map(|(_, who)| who).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quasar_abi::control::devices::{Devices, DevicesCommand};

    #[test]
    fn a_successor_is_asked_what_may_be_asked_twice_and_nothing_else() {
        let mut questions = Questions::<Devices, &str>::default();
        questions.asked(1, DevicesCommand::Stats, "answered before");
        questions.asked(2, DevicesCommand::PowerButton, "pressed");
        questions.asked(3, DevicesCommand::Stats, "looks");
        questions.asked(4, DevicesCommand::Reset, "reboots");
        assert_eq!(questions.answered(1), Some("answered before"));
        assert_eq!(questions.died(), ["pressed"]);
        assert_eq!(questions.answered(3), None, "numbers of a dead process mean nothing");
        let again = questions.for_successor();
        assert_eq!(again, [(DevicesCommand::Stats, "looks"), (DevicesCommand::Reset, "reboots")]);
        // It dies as well, before and after it was asked.
        assert!(questions.died().is_empty());
        questions.asked(1, DevicesCommand::Stats, "looks");
        assert!(questions.died().is_empty());
        assert_eq!(questions.give_up(), ["looks"]);
        assert!(questions.for_successor().is_empty());
    }
}
