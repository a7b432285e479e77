//! The switch process: started, told everything, heard, replaced.

use super::{Input, Keeper, LinkOptions, SwitchAnswer, port_name};
use crate::children::seat::{Action, Event as SeatEvent, Told};
use crate::children::trouble::{explain, is_momentary};
use crate::children::{Note, Process};
use quasar_abi::control::netswitch::{
    LeaseWish, Netswitch, NetswitchCommand, NetswitchRefusal, NetswitchReply, NetworkEvent,
};
use quasar_abi::control::{Event, ProcessKind};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a switch that cannot listen tries again.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

impl Keeper {
    /// Tells the switch's seat what has happened, and does what it says.
    pub(super) fn step_switch(&mut self, event: SeatEvent) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.seat.step(event, self.born.elapsed()) {
                match action {
                    Action::Start => events.push_back(self.spawn_switch()),
                    Action::Attach => self.tell_newcomer(),
                    Action::ShutDown if self.send(NetswitchCommand::Shutdown).is_some() => {}
                    Action::ShutDown | Action::Kill => {
                        if let Some(switch) = &self.switch {
                            switch.kill();
                        }
                    }
                    Action::Vacate => self.switch = None,
                    Action::Tell(Told::Serving) => {}
                    Action::Tell(Told::Notice(text)) => log::warn!("netswitch {text}"),
                    Action::Tell(Told::Ended) => self.switch_ended("has ended"),
                    Action::Tell(Told::Died { how, .. }) => self.switch_ended(&how),
                }
            }
        }
    }

    fn spawn_switch(&mut self) -> SeatEvent {
        self.generation += 1;
        let (generation, outbox) = (self.generation, self.outbox.clone());
        let notify = move |note| drop(outbox.send(Input::Switch(generation, note)));
        match Process::spawn(&self.launcher, &self.log, notify) {
            Ok(process) => {
                self.switch = Some(process);
                SeatEvent::Started
            }
            Err(error) => {
                let program = self.launcher.program(ProcessKind::Netswitch);
                let why = format!("{}: {}", program.display(), explain(&error));
                SeatEvent::NotStarted { why, passing: is_momentary(&error) }
            }
        }
    }

    /// Tells a switch that takes commands all that shall be. Its answer to one more question says that it has carried
    /// that out.
    fn tell_newcomer(&mut self) {
        self.tell_links();
        self.tell_uplinks();
        let all: Vec<String> = self.ports.keys().cloned().collect();
        for vm in all {
            self.tell_port(&vm);
        }
        for (command, answer) in self.questions.for_successor() {
            self.ask(command, answer);
        }
        let (outbox, generation) = (self.outbox.clone(), self.generation);
        let serves = move |answer: Result<_, _>| {
            if answer.is_ok() {
                drop(outbox.send(Input::Serves(generation)));
            }
        };
        self.ask(NetswitchCommand::Stats, Box::new(serves));
    }

    pub(super) fn hear(&mut self, note: Note<Netswitch>) {
        match note {
            Note::Hello(_, sender) => {
                let Some(switch) = &mut self.switch else { return };
                switch.greeted(sender);
                self.step_switch(SeatEvent::Hello);
            }
            Note::Event(Event::Done { id, reply }) => self.answered(id, Ok(reply)),
            Note::Event(Event::Refused { id, refusal }) => self.answered(id, Err(refusal)),
            Note::Event(Event::Notice(text)) => log::warn!("netswitch: {text}"),
            Note::Event(Event::Fatal(text)) => self.step_switch(SeatEvent::Fatal(text)),
            Note::Event(Event::News(NetworkEvent::Ended { network, mac })) => self.ended(&network, mac),
            Note::Event(Event::News(NetworkEvent::Link { name, up, reason })) => {
                self.board.set(&name, up, &reason);
            }
            Note::Event(Event::News(NetworkEvent::Leased { port, address })) => {
                if let Some(vm) = port.strip_suffix("/0") {
                    self.leased(vm, address.into());
                }
            }
            Note::Event(Event::Hello(_)) => {}
            Note::Garbled(what) => self.step_switch(SeatEvent::Garbled(what)),
            Note::Ended(how) => self.step_switch(SeatEvent::Ended(how)),
        }
    }

    /// There is no switch any more.
    fn switch_ended(&mut self, how: &str) {
        log::error!("netswitch {how}");
        self.board.all_down("the switch here is being replaced");
        for answer in self.questions.died() {
            answer(Err("the switch has died and may have done it; it is being replaced".into()));
        }
        for waiting in &mut self.waiting {
            waiting.command = None;
        }
        if let Some(answer) = self.listening.take() {
            answer(Err(format!("the switch process {how}")));
        }
        if self.swap_ended(how) {
            return;
        }
        if self.seat.is_short() && self.is_switch_wanted() {
            let deaths = self.seat.history().deaths();
            log::error!(
                "netswitch has died {deaths} times in a row: the VMs run on without network until one serves"
            );
            self.answer_nobody(how);
            for waiting in std::mem::take(&mut self.waiting) {
                self.detach(&waiting.vm);
                (waiting.answer)(Err(format!("the switch process {how}, {deaths} times in a row")));
            }
        }
        if !self.is_switch_wanted() {
            self.step_switch(SeatEvent::Unwanted);
            self.answer_nobody(how);
        }
    }

    fn is_switch_wanted(&self) -> bool {
        !self.ports.is_empty() || self.listen.is_some()
    }

    pub(super) fn send(&mut self, command: NetswitchCommand) -> Option<u64> {
        let switch = self.switch.as_mut().filter(|s| s.is_ready())?;
        match switch.send(command) {
            Ok(id) => Some(id),
            Err(error) => {
                log::error!("netswitch: {error}; it is killed and replaced");
                switch.kill();
                None
            }
        }
    }

    /// Asks the switch something whose answer somebody waits for.
    pub(super) fn ask(&mut self, command: NetswitchCommand, answer: SwitchAnswer) {
        match self.send(command.clone()) {
            Some(id) => self.questions.asked(id, command, answer),
            None => answer(Err("the switch is being replaced, ask again".into())),
        }
    }

    /// There is no switch that would answer.
    fn answer_nobody(&mut self, how: &str) {
        for answer in self.questions.give_up() {
            answer(Err(format!("the switch process {how}")));
        }
    }

    pub(super) fn tell_uplinks(&mut self) {
        for command in self.uplink_commands() {
            self.send(command);
        }
    }

    pub(super) fn tell_links(&mut self) {
        self.tell_listen();
        for to in self.links.clone() {
            self.tell_link(to);
        }
    }

    /// Takes links. The first time whoever started the host is told how that went. A switch that comes after one that
    /// died may find the port held by another program: it is told again until it has it.
    pub(super) fn tell_listen(&mut self) {
        let Some(LinkOptions { listen, security }) = self.listen.clone() else { return };
        let command = NetswitchCommand::Listen { address: listen.to_string(), security };
        let Some(id) = self.send(command.clone()) else { return };
        let (outbox, generation) = (self.outbox.clone(), self.generation);
        let first = self.listening.take();
        let answer = move |result: Result<NetswitchReply, String>| match (first, result) {
            (Some(first), result) => first(result.map(|_| serde_json::Value::Null)),
            (None, Err(error)) => drop(outbox.send(Input::Deaf(generation, error))),
            (None, Ok(_)) => {}
        };
        self.questions.asked(id, command, Box::new(answer));
    }

    /// The switch cannot take links.
    pub(super) fn deaf(&mut self, error: &str) {
        if self.deaf_told.as_deref() != Some(error) {
            log::error!(
                "the switch takes no links, and other hosts do not reach this one's networks: {error}; trying again"
            );
            self.deaf_told = Some(error.to_owned());
        }
        self.listen_again = Some(Instant::now() + LISTEN_AGAIN);
    }

    pub(super) fn tell_link(&mut self, to: String) {
        let Some(LinkOptions { security, .. }) = self.listen.clone() else { return };
        self.board.set(&to, false, "it is being connected");
        self.send(NetswitchCommand::AddLink { name: to.clone(), to, security });
    }

    pub(super) fn tell_port(&mut self, vm: &str) {
        let Some(port) = self.ports.get(vm).cloned() else { return };
        if port.held {
            self.send(NetswitchCommand::HoldPort { port: port_name(vm) });
        }
        let served = !port.outer && self.tap_of(&port.network).is_none();
        let lease = served.then(|| LeaseWish {
            name: vm.to_owned(),
            address: port.address.map(|address| address.octets()),
            way_out: port.way_out,
        });
        let id = self.send(NetswitchCommand::AttachPort {
            network: port.network,
            port: port_name(vm),
            rings: port.rings,
            mac: port.mac,
            lease,
        });
        if let Some(waiting) = self.waiting.iter_mut().find(|w| w.vm == vm) {
            waiting.command = id;
        }
    }

    pub(super) fn answered(&mut self, id: u64, result: Result<NetswitchReply, NetswitchRefusal>) {
        let result = result.map_err(|refusal| refusal.to_string());
        if let Some(switch) = &mut self.switch {
            switch.answered();
        }
        if let Err(error) = &result {
            self.newcomer_refused(error);
        }
        if let Some(answer) = self.questions.answered(id) {
            return answer(result);
        }
        let waiting = self.waiting.iter().position(|w| w.command == Some(id));
        match (waiting, result) {
            (Some(index), Ok(_)) => self.waiting[index].attached = true,
            (Some(index), Err(error)) => {
                let waiting = self.waiting.swap_remove(index);
                self.detach(&waiting.vm);
                (waiting.answer)(Err(error));
            }
            (None, Err(error)) => {
                log::error!("netswitch refused a command: {error}");
                // An uplink that cannot be had is told to whoever waits for its network.
                for waiting in std::mem::take(&mut self.waiting) {
                    self.detach(&waiting.vm);
                    (waiting.answer)(Err(error.clone()));
                }
            }
            (None, Ok(_)) => {}
        }
    }
}
