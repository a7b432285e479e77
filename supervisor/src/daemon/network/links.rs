//! How the links to other hosts' switches are.

use parking_lot::{Condvar, Mutex, MutexGuard};
use quasar_api::LinkView;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// All links that this host keeps.
#[derive(Default)]
pub struct LinkBoard {
    links: Mutex<BTreeMap<String, LinkView>>,
    changed: Condvar,
}

impl LinkBoard {
    fn links(&self) -> MutexGuard<'_, BTreeMap<String, LinkView>> {
        self.links.lock()
    }

    /// Notes how a link is.
    pub fn set(&self, to: &str, up: bool, reason: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut links = self.links();
        let since = links.get(to).filter(|link| link.up == up).map_or(now, |link| link.since);
        let view = LinkView { to: to.to_owned(), up, reason: reason.to_owned(), since };
        links.insert(to.to_owned(), view);
        drop(links);
        self.changed.notify_all();
    }

    /// A link is wanted from now on: until it is heard of, it is not up.
    pub fn want(&self, to: &str) {
        if !self.links().contains_key(to) {
            self.set(to, false, "it has not been made yet");
        }
    }

    /// The switch has gone, and every link with it.
    pub fn all_down(&self, reason: &str) {
        let all: Vec<String> = self.links().keys().cloned().collect();
        for to in all {
            self.set(&to, false, reason);
        }
    }

    /// All of them.
    #[must_use]
    pub fn list(&self) -> Vec<LinkView> {
        self.links().values().cloned().collect()
    }

    /// Those of `wanted` that are down.
    #[must_use]
    pub fn down(&self, wanted: &[String]) -> Vec<LinkView> {
        of(&self.links(), wanted)
    }

    /// Waits until none of `wanted` is down, for so long at most; returns those that are.
    #[must_use]
    pub fn wait(&self, wanted: &[String], patience: Duration) -> Vec<LinkView> {
        let waits = |links: &mut BTreeMap<_, _>| !of(links, wanted).is_empty();
        let mut links = self.links();
        self.changed.wait_while_for(&mut links, waits, patience);
        of(&links, wanted)
    }
}

fn of(links: &BTreeMap<String, LinkView>, wanted: &[String]) -> Vec<LinkView> {
    wanted.iter().filter_map(|to| links.get(to)).filter(|link| !link.up).cloned().collect()
}

/// Why a VM's network does not reach this host, for its user at another one.
#[must_use]
pub fn obstacle(down: &[LinkView]) -> Option<String> {
    let link =
        |link: &LinkView| format!("no link from its new host to the switch at {}: {}", link.to, link.reason);
    let links: Vec<String> = down.iter().map(link).collect();
    let advice =
        "its ports and connections would be dead there; see to it that the hosts' switches reach each other";
    (!links.is_empty()).then(|| format!("its network cannot follow it: {}; {advice}", links.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_down_is_waited_for_and_named() {
        let board = LinkBoard::default();
        let wanted = ["a:1".to_owned(), "b:2".to_owned()];
        board.set("a:1", false, "not yet");
        board.set("b:2", true, "");
        board.set("c:3", false, "of no concern");
        let down = board.wait(&wanted, Duration::ZERO);
        let words = obstacle(&down).expect("one is down");
        assert!(
            words.contains("a:1: not yet") && !words.contains("b:2") && !words.contains("c:3"),
            "{words}"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| board.set("a:1", true, ""));
            assert!(board.wait(&wanted, Duration::from_secs(60)).is_empty());
        });
        assert_eq!(obstacle(&board.down(&wanted)), None);
        // What has just been asked for is not up because nothing is known of it.
        let asked = ["d:4".to_owned()];
        board.want("d:4");
        assert_eq!(board.wait(&asked, Duration::ZERO).len(), 1);
        board.set("d:4", true, "");
        board.want("d:4");
        assert!(board.down(&asked).is_empty());
        board.all_down("the switch is gone");
        assert_eq!((board.down(&wanted).len(), board.list().len()), (2, 4));
    }
}
