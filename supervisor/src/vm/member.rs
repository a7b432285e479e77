//! A process of a VM, of whichever kind: what its seat in the crew asks of it.

use crate::children::{Launcher, Note, Process, Reach, SendError};
use crate::machine::grants::VmGrants;
use quasar_abi::control::cpu::{Cpu, CpuCommand};
use quasar_abi::control::devices::{Devices, DevicesCommand, DevicesReply};
use quasar_abi::control::mmu::{Mmu, MmuCommand};
use quasar_abi::control::{Event, Interface, ProcessKind, Refusal};
use quasar_abi::machine::VirtioDevice;
use quasar_abi::party::PartyId;
use std::fs::File;
use std::io;

/// A process.
#[derive(Debug)]
pub enum Member {
    /// A hart.
    Cpu(u8, Process<Cpu>),
    /// The mmu.
    Mmu(Process<Mmu>),
    /// The devices.
    Devices(Process<Devices>),
}

/// What a process's reader has heard.
#[derive(Debug)]
pub enum MemberNote {
    /// From a hart.
    Cpu(Note<Cpu>),
    /// From the mmu.
    Mmu(Note<Mmu>),
    /// From the devices.
    Devices(Note<Devices>),
}

/// A note, as far as seats differ from one another in nothing.
#[derive(Debug)]
pub enum Heard {
    /// It takes commands now.
    Hello,
    /// It has answered a command.
    Answer {
        /// The command's number.
        id: u64,
        /// What.
        result: Result<Answered, Refused>,
    },
    /// It has something to tell people.
    Notice(String),
    /// It says that it ends.
    Fatal(String),
    /// It said something that is not understood.
    Garbled(String),
    /// It has ended, and how.
    Ended(String),
}

/// What a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Done.
    Done,
    /// The devices' answer to a command of their own.
    Devices(DevicesReply),
}

/// Why a member did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In words for people.
    pub words: String,
    /// [`Refusal::is_passing`].
    pub passing: bool,
}

impl<R: Refusal> From<R> for Refused {
    fn from(refusal: R) -> Self {
        Self { words: refusal.to_string(), passing: refusal.is_passing() }
    }
}

/// Which program sits in a seat.
#[must_use]
pub const fn kind(party: PartyId) -> ProcessKind {
    match party {
        PartyId::Hart(_) => ProcessKind::Cpu,
        PartyId::Mmu => ProcessKind::Mmu,
        PartyId::Devices => ProcessKind::Devices,
        PartyId::Migrator | PartyId::Supervisor => ProcessKind::Migrator,
    }
}

macro_rules! of_each {
    ($member:expr, $process:ident => $body:expr) => {
        match $member {
            Member::Cpu(_, $process) => $body,
            Member::Mmu($process) => $body,
            Member::Devices($process) => $body,
        }
    };
}

fn heard<I: Interface>(
    process: &mut Process<I>,
    note: Note<I>,
    answered: impl Fn(I::Reply) -> Answered,
) -> Option<Heard> {
    Some(match note {
        Note::Hello(_, sender) => {
            process.greeted(sender);
            Heard::Hello
        }
        Note::Event(Event::Done { id, reply }) => {
            process.answered();
            Heard::Answer { id, result: Ok(answered(reply)) }
        }
        Note::Event(Event::Refused { id, refusal }) => {
            process.answered();
            Heard::Answer { id, result: Err(refusal.into()) }
        }
        Note::Event(Event::Notice(text)) => Heard::Notice(text),
        Note::Event(Event::Fatal(text)) => Heard::Fatal(text),
        // A second hello changes nothing, and none of these has news.
        Note::Event(Event::Hello(_) | Event::News(_)) => return None,
        Note::Garbled(what) => Heard::Garbled(what),
        Note::Ended(how) => Heard::Ended(how),
    })
}

impl Member {
    /// Starts the program of a seat. `notify` is called from a thread of its own; hand what it gets to [`Member::hear`].
    ///
    /// # Errors
    /// When it cannot be started, or there is no such seat in a crew.
    pub fn spawn(
        launcher: &Launcher,
        party: PartyId,
        log: &File,
        notify: impl Fn(MemberNote) + Send + 'static,
    ) -> io::Result<Self> {
        Ok(match party {
            PartyId::Hart(hart) => {
                Self::Cpu(hart, Process::spawn(launcher, log, move |note| notify(MemberNote::Cpu(note)))?)
            }
            PartyId::Mmu => {
                Self::Mmu(Process::spawn(launcher, log, move |note| notify(MemberNote::Mmu(note)))?)
            }
            PartyId::Devices => {
                Self::Devices(Process::spawn(launcher, log, move |note| notify(MemberNote::Devices(note)))?)
            }
            PartyId::Migrator | PartyId::Supervisor => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    /// Takes what its reader has heard; nothing for what does not concern its seat.
    pub fn hear(&mut self, note: MemberNote) -> Option<Heard> {
        match (self, note) {
            (Self::Cpu(_, process), MemberNote::Cpu(note)) => heard(process, note, |_| Answered::Done),
            (Self::Mmu(process), MemberNote::Mmu(note)) => heard(process, note, |_| Answered::Done),
            (Self::Devices(process), MemberNote::Devices(note)) => heard(process, note, Answered::Devices),
            // Of one that sat here before.
            _ => None,
        }
    }

    /// Has it attach and serve. Returns the command's number.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn start(
        &mut self,
        grants: &VmGrants,
        virtio: &[VirtioDevice],
        engine: Option<&str>,
    ) -> Result<u64, SendError> {
        match self {
            Self::Cpu(hart, process) => process.send(CpuCommand::Start {
                grants: grants.hart(),
                hart: *hart,
                engine: engine.map(str::to_owned),
            }),
            Self::Mmu(process) => process.send(MmuCommand::Start { grants: grants.mmu() }),
            Self::Devices(process) => {
                process.send(DevicesCommand::Start { grants: grants.devices(), virtio: virtio.to_vec() })
            }
        }
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn shut_down(&mut self) -> Result<u64, SendError> {
        match self {
            Self::Cpu(_, process) => process.send(CpuCommand::Shutdown),
            Self::Mmu(process) => process.send(MmuCommand::Shutdown),
            Self::Devices(process) => process.send(DevicesCommand::Shutdown),
        }
    }

    /// The devices' process, if this is it.
    pub fn devices(&mut self) -> Option<&mut Process<Devices>> {
        match self {
            Self::Devices(process) => Some(process),
            Self::Cpu(..) | Self::Mmu(_) => None,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        of_each!(self, process => process.pid())
    }

    /// Whether a command waits for its answer.
    #[must_use]
    pub fn owes(&self) -> bool {
        of_each!(self, process => process.owes())
    }

    /// Commands that it has answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        of_each!(self, process => process.answers())
    }

    /// Architecture that its program was built for.
    #[must_use]
    pub fn arch(&self) -> &'static str {
        of_each!(self, process => process.arch())
    }

    /// How others reach it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        of_each!(self, process => process.reach())
    }

    /// Kills it.
    pub fn kill(&self) {
        of_each!(self, process => process.kill());
    }
}
