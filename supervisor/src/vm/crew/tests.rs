use super::*;
use crate::children::standin::{self, BROKEN, SILENT, STOPPED};
use crate::machine::Machine;
use crossbeam_channel::{Receiver, unbounded};
use quasar_abi::control::ProcessKind;
use quasar_api::{Boot, MachineConfig};
use std::time::Duration;

const MMU: PartyId = PartyId::Mmu;
const PATIENCE: Duration = Duration::from_secs(60);

struct Scene {
    crew: Crew,
    notes: Receiver<SeatNote>,
    _machine: Machine,
    _programs: tempfile::TempDir,
}

fn scene(name: &str, script: &str) -> Scene {
    let (programs, launcher) = standin::launcher(script, &[ProcessKind::Mmu, ProcessKind::Cpu]);
    let boot = Boot::Bare { elf: "/nonexistent".into(), max_instructions: 0 };
    let config = MachineConfig { memory: 1 << 20, harts: 1, boot, icount: false, engine: None };
    let machine = Machine::create(&format!("crew-{name}"), &config).expect("machine");
    let (send, notes) = unbounded();
    let notify = Arc::new(move |note| drop(send.send(note)));
    let log = Arc::new(standin::log(&programs));
    let crew = Crew::new(launcher, machine.grants.clone(), vec![], machine.vm.clone(), log, notify);
    Scene { crew, notes, _machine: machine, _programs: programs }
}

impl Scene {
    /// Goes on until something has happened that is wanted.
    fn until<T>(&mut self, wanted: impl Fn(&CrewEvent) -> Option<T>) -> T {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let heard = self.notes.recv_timeout(Duration::from_millis(20));
            let heard = heard.map(|note| self.crew.hear(note)).unwrap_or_default();
            let all: Vec<CrewEvent> = heard.into_iter().chain(self.crew.tick()).collect();
            if let Some(found) = all.iter().find_map(&wanted) {
                return found;
            }
        }
        panic!("nothing came within {PATIENCE:?}");
    }

    fn death(&mut self) -> (String, Option<String>) {
        self.until(|event| match event {
            CrewEvent::Died { how, fatal, .. } => Some((how.clone(), fatal.clone())),
            _ => None,
        })
    }
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let mut scene = scene("absent", SILENT);
    scene.crew.start(PartyId::Devices);
    let (how, fatal) = scene.death();
    assert!(how.contains("cannot be started") && how.contains("quasar-devices"), "{how}");
    assert_eq!(fatal, None);
}

#[test]
fn who_dies_again_and_again_is_replaced_ever_later_and_shown() {
    let mut scene = scene("broken", BROKEN);
    scene.crew.start(MMU);
    for n in 1..=6 {
        assert_eq!(scene.death(), ("ended with exit status 3".into(), None));
        assert_eq!(scene.crew.trouble().is_some(), n >= 6, "after {n}");
    }
    assert!(scene.crew.is_short());
    let trouble = scene.crew.trouble().expect("trouble");
    assert!(trouble.contains("mmu has died 6 times"), "{trouble}");
    scene.crew.try_now();
    scene.death();
    scene.crew.end(MMU);
    assert!(scene.crew.is_gone(|_| true) && scene.crew.trouble().is_none(), "none is wanted any more");
}

#[test]
fn a_hart_takes_what_it_had_not_published_with_it() {
    let mut scene = scene("hart", BROKEN);
    scene.crew.start(PartyId::Hart(0));
    let (_, fatal) = scene.death();
    assert!(fatal.is_some_and(|why| why.contains("unpublished")));
    assert!(scene.crew.is_gone(|_| true));
}

#[test]
fn one_that_is_stopped_is_killed_and_replaced() {
    let mut scene = scene("stopped", STOPPED);
    scene.crew.start(MMU);
    let first = scene.crew.reach(MMU).expect("a process").pid;
    let (how, fatal) = scene.death();
    assert!(how.contains("SIGKILL") && how.contains("is stopped"), "{how}");
    assert_eq!(fatal, None);
    let begin = Instant::now();
    while scene.crew.reach(MMU).is_none_or(|reach| reach.pid == first) {
        assert!(begin.elapsed() < PATIENCE, "no successor");
        scene.crew.tick();
    }
    let slot = scene.crew.vm.party(MMU);
    assert_eq!(slot.generation.get(), 2);
}

#[test]
fn one_that_says_nothing_ends_when_it_is_to() {
    let mut scene = scene("silent", SILENT);
    scene.crew.start(MMU);
    assert_eq!(scene.crew.processes().len(), 1);
    scene.crew.end(MMU);
    scene.until(|event| matches!(event, CrewEvent::Ended(MMU)).then_some(()));
    assert!(scene.crew.is_gone(|_| true) && scene.crew.processes().is_empty());
    assert_eq!(scene.crew.vm.party(MMU).pid.get(), 0);
}
