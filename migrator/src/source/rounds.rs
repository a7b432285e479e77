//! Rounds: pages are sent while the guest runs and writes them again, until what is left fits into the pause.
//!
//! The acknowledgement rule: what was written is known when an epoch has been closed and everyone who could write under it
//! has let go; only then the pages are read. A round is sent in parts with an epoch of its own for each, because a page that
//! was written before its part came need not be sent again.

use super::{Attempt, SAFEPOINT, micros};
use crate::connection::Peer;
use crate::convergence::{Decision, Measured, decide, stalled_after};
use crate::delta::Copies;
use crate::frame::Kind;
use crate::message::RoundEnd;
use crate::pump::{Area, Guest, Outlet, Sent};
use anyhow::Context;
use quasar_abi::control::migrator::{MigrationEvent, Progress, RoundReport};
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::vm::Vm;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the switch costs beside pages, before it has been measured: state, hash, acknowledgements.
const FIXED_COST: Duration = Duration::from_micros(1500);
/// How often a round that takes long is told of.
const NEWS: Duration = Duration::from_millis(500);
/// Parts of a round. Between two of them what was written meanwhile is looked at, which takes harts their right to write
/// without asking: each part costs the guest time.
const PARTS: u64 = 4;
/// Pages in a part, at least, in a round that has more.
const LEAST_PART: u64 = 4096;
/// Pages of each area, in order.
pub type Pages = Vec<Vec<u64>>;

/// The VM may be paused.
pub struct Converged {
    /// Rounds sent.
    pub rounds: u32,
    /// How long the pause will be.
    pub forecast: Duration,
    /// Pages that must be sent again beside those of the open epoch.
    pub written: Pages,
}

/// A round that was sent and taken.
struct Round {
    sent: Sent,
    written: Pages,
    took: Duration,
}

/// Closes the current epoch: returns it once everyone who could still write under it has let go.
///
/// # Errors
/// When a party does not answer.
pub fn close_epoch(vm: &Vm) -> anyhow::Result<u64> {
    let closed = vm.next_epoch();
    let start = Instant::now();
    while !vm.epoch_acknowledged() {
        if start.elapsed() > SAFEPOINT {
            anyhow::bail!(
                "a process of the VM does not acknowledge the end of a round; is it hung? (`quasar ps`)"
            );
        }
        if start.elapsed() < Duration::from_micros(200) {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(closed)
}

/// What was marked in a closed epoch, per area.
pub fn drain(areas: &[Area], epoch: u64) -> Vec<Vec<u64>> {
    let pages = |area: &Area| {
        let mut pages = vec![];
        area.store.drain(epoch, &mut |index| pages.push(index));
        pages
    };
    areas.iter().map(pages).collect()
}

fn populated(areas: &[Area]) -> std::io::Result<Vec<Vec<u64>>> {
    areas.iter().map(|area| Ok(area.store.populated()?.into_iter().flatten().collect())).collect()
}

fn count(pages: &[Vec<u64>]) -> u64 {
    pages.iter().map(Vec::len).sum::<usize>() as u64
}

/// Takes the first so many pages out.
fn cut(pages: &mut [Vec<u64>], mut many: u64) -> Vec<Vec<u64>> {
    let first = |pages: &mut Vec<u64>| {
        let taken = usize::try_from(many).map_or(pages.len(), |many| many.min(pages.len()));
        many -= taken as u64;
        let behind = pages.split_off(taken);
        std::mem::replace(pages, behind)
    };
    pages.iter_mut().map(first).collect()
}

/// Whether copies of what is sent pay: enough of the pages sent so far have been written again (a guest that idles writes
/// some dozens, whatever its size), and most of the time it was the link that was waited for. Fresh memory for copies takes
/// longer than sending some pages whole over a link that has room.
fn copies_pay(dirtied: u64, sent: u64, waited: Duration, took: Duration) -> bool {
    dirtied > 64 + sent / 64 && waited > took / 2
}

/// Pages that are in one or the other.
pub fn both(mut pages: Pages, others: Pages) -> Pages {
    for (pages, others) in pages.iter_mut().zip(others) {
        pages.extend(others);
        pages.sort_unstable();
        pages.dedup();
    }
    pages
}

impl Attempt<'_> {
    /// Pages that would have to be sent again now.
    fn dirty(&self, written: &Pages) -> u64 {
        let epoch = self.attached.vm.epoch.load(Ordering::SeqCst);
        count(written) + self.attached.areas.iter().map(|area| area.store.dirty(epoch)).sum::<u64>()
    }

    /// Sends these pages.
    fn round(
        &self,
        round: u32,
        mut rest: Pages,
        peer: &mut Peer,
        outlet: &Outlet<'_>,
        tell: &mut dyn FnMut(MigrationEvent),
    ) -> anyhow::Result<Round> {
        let (vm, areas, begun) = (&self.attached.vm, &self.attached.areas, Instant::now());
        let (pages, mut sent, mut told) = (count(&rest), Sent::default(), begun);
        let mut written = vec![vec![]; areas.len()];
        while count(&rest) > 0 {
            let part = cut(&mut rest, (pages / PARTS).max(LEAST_PART));
            let now = outlet.send(&mut peer.out, &part, Guest::Running, &mut |now: Sent| {
                let (sent, took, dirtied) = (sent.and(now), begun.elapsed(), self.dirty(&written));
                let connections = outlet.lanes.connections();
                if copies_pay(dirtied, sent.pages, sent.waited / u32::from(connections), took) {
                    outlet.copies.iter().for_each(Copies::begin);
                }
                if told.elapsed() >= NEWS {
                    told = Instant::now();
                    let (sent_pages, wire_bytes, took_us) = (sent.pages, sent.wire_bytes, micros(took));
                    let progress =
                        Progress { round, pages, sent_pages, wire_bytes, connections, took_us, dirtied };
                    tell(MigrationEvent::Progress(progress));
                }
            })?;
            sent = sent.and(now);
            if count(&rest) > 0 {
                self.check()?;
                let mut marked = drain(areas, close_epoch(vm)?);
                for (marked, rest) in marked.iter_mut().zip(&rest) {
                    marked.retain(|page| rest.binary_search(page).is_err());
                }
                written = both(written, marked);
            }
        }
        peer.tell(Kind::RoundEnd, &RoundEnd { round, pages: sent.pages, last: false })?;
        let () = peer.expect(Kind::RoundTaken)?;
        Ok(Round { sent, written, took: begun.elapsed() })
    }

    /// Rounds until it may be paused.
    pub(super) fn rounds(
        &self,
        peer: &mut Peer,
        outlet: &Outlet<'_>,
        tell: &mut dyn FnMut(MigrationEvent),
    ) -> anyhow::Result<Converged> {
        let (vm, areas) = (&self.attached.vm, &self.attached.areas);
        // Logging first, then an acknowledged epoch: from here on every write is marked, and whatever was
        // granted before is gone. Only then the first page is read.
        vm.log_active.store(1, Ordering::SeqCst);
        drain(areas, close_epoch(vm)?);
        let mut pages = populated(areas).context("the VM's memory cannot be listed")?;
        let (mut round, mut stalled, mut throttle, mut previous, mut moved) = (0, 0, 0, None, (0.0, 0.0));
        loop {
            self.check()?;
            let before = peer.out.bytes() + outlet.lanes.bytes();
            let Round { sent, written, took } = self.round(round, pages, peer, outlet, tell)?;
            let dirty = self.dirty(&written);
            let sent_bytes = (sent.pages - sent.zero) * PAGE_BYTES;
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let bytes = sent_bytes as f64;
            // What a round weighs halves with each one after it: differences make later rounds faster.
            moved = (moved.0 / 2.0 + bytes, moved.1 / 2.0 + took.as_secs_f64());
            let measured = Measured {
                rounds: round + 1,
                sent_bytes,
                took,
                dirty_bytes: dirty * PAGE_BYTES,
                previous_dirty_bytes: previous,
                throttle_permille: throttle,
                fixed: FIXED_COST,
                rate: moved.0 / f64::max(moved.1, 1e-6),
            };
            tell(MigrationEvent::Round(RoundReport {
                round,
                pages: sent.pages,
                zero_pages: sent.zero,
                raw_bytes: sent_bytes,
                wire_bytes: peer.out.bytes() + outlet.lanes.bytes() - before,
                connections: outlet.lanes.connections(),
                took_us: micros(took),
                dirtied: dirty,
                forecast_us: micros(measured.forecast()),
                throttle_permille: throttle,
            }));
            round += 1;
            // What is sent now has been written twice.
            if round > 1 {
                outlet.copies.iter().for_each(Copies::begin);
            }
            stalled = stalled_after(&measured, stalled);
            match decide(&measured, self.limits, stalled) {
                Decision::Round => {}
                Decision::Pause => {
                    return Ok(Converged { rounds: round, forecast: measured.forecast(), written });
                }
                Decision::Throttle(to) => {
                    let explanation = measured.explanation(self.limits);
                    let percent = to / 10;
                    tell(MigrationEvent::NotConverging {
                        explanation: format!(
                            "{explanation}; the harts are held back {percent} % of the time from now on"
                        ),
                    });
                    throttle = to;
                    stalled = 0;
                    self.throttle(to);
                }
                Decision::GiveUp(why) => anyhow::bail!("the migration does not converge: {why}"),
            }
            previous = Some(measured.dirty_bytes);
            pages = both(drain(areas, close_epoch(vm)?), written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_in_one_part() {
        let pages = vec![(0..10).collect(), vec![], vec![3, 5, 7, 9]];
        let (mut rest, mut parts) = (pages.clone(), vec![]);
        while count(&rest) > 0 {
            parts.push(cut(&mut rest, 4));
        }
        assert_eq!(parts.iter().map(|part| count(part)).collect::<Vec<_>>(), [4, 4, 4, 2]);
        let all = parts.into_iter().fold(vec![vec![]; 3], both);
        assert_eq!(all, pages);
    }

    #[test]
    fn a_page_that_was_written_twice_is_sent_once() {
        assert_eq!(both(vec![vec![1, 5], vec![2]], vec![vec![0, 5, 9], vec![]]), [vec![0, 1, 5, 9], vec![2]]);
    }
}
