//! A guest whose kernel has panicked says so on its console, and stands there for ever.
//!
//! The words alone prove nothing: anyone in the guest can write them. A guest counts as panicked when its console has
//! said so and then nothing runs in it but its kernel, in a loop: no exception is taken (a system call is one), each time
//! that the harts are looked at none is in user mode, and one of them never waits (a guest that is idle does).

use super::Controller;
use quasar_abi::vm::{VmControl, pause};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What Linux says (kernel/panic.c), before the reason.
const WORDS: &[u8] = b"Kernel panic - not syncing: ";
/// Longest line that is kept.
const LINE: usize = 512;
/// How often a guest that said so is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// How many looks in a row it must stand still.
const LOOKS: u32 = 4;
/// After this time of going on, the words were only words.
const DOUBT: Duration = Duration::from_secs(60);
/// Longest time that the harts take to a safepoint here. A panicked hart is in a loop of few instructions.
const REST: Duration = Duration::from_millis(50);
/// Lines of the console that go into the log.
const LAST_LINES: usize = 20;

/// Finds the words in a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    line: Vec<u8>,
}

impl Scanner {
    /// Takes more of the stream; returns the reason of a panic that it tells of, when that line has ended.
    fn take(&mut self, bytes: &[u8]) -> Option<String> {
        let mut found = None;
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    let at = line.windows(WORDS.len()).position(|words| words == WORDS);
                    // It is said again at the end of the trace.
                    if let Some(reason) = at.filter(|_| !line.windows(6).any(|words| words == b"---[ e")) {
                        found = Some(readable(&line[reason + WORDS.len()..]));
                    }
                }
                _ if self.line.len() < LINE => self.line.push(*byte),
                _ => {}
            }
        }
        found
    }
}

fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned()
}

/// A guest that says it has panicked.
#[derive(Debug)]
struct Suspect {
    reason: String,
    since: Instant,
    next: Instant,
    still: u32,
    last: Look,
}

/// What a look at the harts has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Look {
    /// Exceptions taken so far.
    exceptions: u64,
    /// Whether one of them is in user mode, or is not at rest when it should be.
    in_user_mode: bool,
    /// Nanoseconds that each has waited so far; nothing of one that waits now.
    waited: Vec<Option<u64>>,
}

impl Look {
    /// Whether nothing but a loop of the kernel has run since the look before.
    fn stands_still_since(&self, before: &Self) -> bool {
        let mut both = self.waited.iter().zip(&before.waited);
        let loops = both.any(|(now, then)| now.is_some() && now == then);
        loops && !self.in_user_mode && self.exceptions == before.exceptions
    }
}

/// What is watched of a guest.
#[derive(Debug, Default)]
pub(super) struct PanicWatch {
    scanners: [Scanner; 2],
    positions: [u64; 2],
    suspect: Option<Suspect>,
    /// The reason that this boot has told last.
    told: Option<String>,
}

impl PanicWatch {
    /// The next look at a guest that said so.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.suspect.as_ref().map(|suspect| suspect.next)
    }

    /// What the guest said before it rebooted, if it said so.
    pub(super) fn rebooted(&mut self) -> Option<String> {
        self.suspect = None;
        self.told.take()
    }
}

/// Looks at the harts at rest, for a moment.
fn look(vm: &VmControl) -> Look {
    vm.pause(pause::SUPERVISOR);
    let rested = vm.wait_at_rest(REST).is_ok();
    let harts = usize::try_from(vm.harts.get()).unwrap_or(0);
    let all = || vm.counters.iter().zip(&vm.hart_state).take(harts);
    let look = Look {
        exceptions: all().fold(0, |sum, (counters, _)| sum.wrapping_add(counters.exceptions.get())),
        in_user_mode: !rested || all().any(|(_, hart)| hart.current().privilege.get() == 0),
        waited: all()
            .map(|(counters, hart)| (hart.current().waiting.get() == 0).then(|| counters.wfi_ns.get()))
            .collect(),
    };
    vm.unpause(pause::SUPERVISOR);
    look
}

impl Controller {
    fn hear_consoles(&mut self) -> Option<String> {
        let mut found = None;
        let mut text = [0; 4096];
        for (index, console) in self.machine.consoles().consoles.iter().enumerate() {
            loop {
                let (count, next) = console.read(self.panic.positions[index], &mut text);
                self.panic.positions[index] = next;
                if count == 0 {
                    break;
                }
                found = self.panic.scanners[index].take(&text[..count]).or(found);
            }
        }
        found
    }

    /// Looks whether the guest has panicked; only while it runs.
    pub(super) fn look_at_panic(&mut self) {
        let now = Instant::now();
        if let Some(reason) = self.hear_consoles() {
            self.panic.told = Some(reason.clone());
            self.panic.suspect =
                Some(Suspect { reason, since: now, next: now + EVERY, still: 0, last: Look::default() });
        }
        let vm = &self.machine.vm;
        let Some(suspect) = self.panic.suspect.as_mut().filter(|suspect| suspect.next <= now) else { return };
        suspect.next = now + EVERY;
        if vm.pause_mask.load(Ordering::SeqCst) != 0 {
            return;
        }
        let look = look(vm);
        let still = look.stands_still_since(&suspect.last);
        suspect.last = look;
        suspect.still = if still { suspect.still + 1 } else { 0 };
        if suspect.still >= LOOKS {
            let reason = std::mem::take(&mut suspect.reason);
            self.panic.suspect = None;
            self.note_last_lines();
            self.fail(format!("the guest's kernel has panicked: {reason}"));
        } else if suspect.since + DOUBT <= now {
            self.panic.suspect = None;
        }
    }

    fn note_last_lines(&self) {
        for console in &self.machine.consoles().consoles {
            let mut text = [0; 4096];
            let from = console.written.load(Ordering::Acquire).saturating_sub(text.len() as u64);
            let (count, _) = console.read(from, &mut text);
            let text = String::from_utf8_lossy(&text[..count]).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            if !last.is_empty() {
                self.note(&format!("the guest's last lines:\n{}", last.join("\n")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_guest_and_one_at_work_do_not_stand_still() {
        let before = Look { exceptions: 7, in_user_mode: false, waited: vec![Some(10), None] };
        assert!(before.stands_still_since(&before));
        let idle = Look { waited: vec![None, None], ..before.clone() };
        assert!(!idle.stands_still_since(&before) && !idle.stands_still_since(&idle));
        let woken = Look { waited: vec![Some(11), None], ..before.clone() };
        assert!(!woken.stands_still_since(&before));
        let served = Look { exceptions: 8, ..before.clone() };
        assert!(!served.stands_still_since(&before));
        let user = Look { in_user_mode: true, ..before.clone() };
        assert!(!user.stands_still_since(&before));
        assert!(!before.stands_still_since(&Look::default()), "the first look shows nothing");
    }

    #[test]
    fn the_reason_is_found_however_the_bytes_come() {
        let text = b"[    1.2] VFS: cannot open\r\n[    1.3] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n\
                     [    1.4] CPU: 0\r\n[    1.5] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs ]---\r\n";
        for piece in [1, 3, 64, text.len()] {
            let mut scanner = Scanner::default();
            let found: Vec<String> = text.chunks(piece).filter_map(|bytes| scanner.take(bytes)).collect();
            assert_eq!(found, ["VFS: Unable to mount root fs"], "{piece}");
        }
        let mut scanner = Scanner::default();
        assert_eq!(scanner.take(b"Kernel panic - not syncing"), None);
        assert_eq!(scanner.take(b" is what it would say\n"), None);
        assert_eq!(scanner.take(&[b'x'; 5000]), None);
        assert!(scanner.line.len() <= LINE);
    }
}
