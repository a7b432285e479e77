//! A child with a control channel.

use super::ending::describe;
use super::exec::Executable;
use super::launcher::Launcher;
use super::oom;
use super::spawn::{PidFd, spawn_bound};
use quasar_abi::control::{ChannelError, CommandSender, Event, EventReceiver, Hello, Interface, Parent};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How often a silent child's reader looks whether the process still is.
const LOOK: Duration = Duration::from_millis(200);
/// How long a child may take to end after it has closed its channel.
const LINGER: Duration = Duration::from_secs(2);
/// Commands that may be unanswered: sending more could block on a child that does not read.
const MAX_OUTSTANDING: usize = 64;

/// What is heard of a child.
#[derive(Debug)]
pub enum Note<I: Interface> {
    /// It said hello and takes commands; give the sender to [`Process::greeted`].
    Hello(Hello, CommandSender<I>),
    /// It said something.
    Event(Event<I>),
    /// It said something that is not understood, or is not what it should be.
    Garbled(String),
    /// It has ended: the last note. How, in words ("was killed by SIGKILL").
    Ended(String),
}

/// Why a command was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It has not said hello yet.
    #[error("the process is still starting")]
    NotReady,
    /// It has not answered for long.
    #[error("the process has left {MAX_OUTSTANDING} commands unanswered; it hangs")]
    Silent,
    /// The channel failed.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// A child as others than its owner reach it: a number for people, and a safe address for signals.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Its process id.
    pub pid: u32,
    /// Its descriptor.
    pub pidfd: Arc<PidFd>,
}

/// A running child. Dropping it kills the process.
#[derive(Debug)]
pub struct Process<I: Interface> {
    pid: u32,
    arch: &'static str,
    pidfd: Arc<PidFd>,
    sender: Option<CommandSender<I>>,
    outstanding: usize,
    answers: u64,
}

impl<I: Interface> Process<I> {
    /// Starts a program with its output going to `log`. `notify` hears of it from a thread of its own, up
    /// to [`Note::Ended`]. The child dies with the calling thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        launcher: &Launcher,
        log: &File,
        notify: impl Fn(Note<I>) + Send + 'static,
    ) -> std::io::Result<Self> {
        Self::spawn_with(launcher, None, log, notify)
    }

    /// [`Process::spawn`] with one more descriptor, which the child finds by this option of its command line.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_with(
        launcher: &Launcher,
        more: Option<(&str, BorrowedFd<'_>)>,
        log: &File,
        notify: impl Fn(Note<I>) + Send + 'static,
    ) -> std::io::Result<Self> {
        oom::look();
        let (parent, theirs) = Parent::new().map_err(std::io::Error::other)?;
        let kind = I::KIND;
        let program = Executable::open(&launcher.program(kind))?;
        let mut command = program.command()?;
        command.arg("--control-fd").arg(theirs.as_raw_fd().to_string());
        command.arg("--transport").arg(launcher.transport(kind, &program).to_string());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
        if let Some(scratch) = &launcher.scratch {
            command.env("TMPDIR", scratch);
        }
        let mut inherit = vec![theirs.as_fd()];
        if let Some((option, fd)) = more {
            command.arg(option).arg(fd.as_raw_fd().to_string());
            inherit.push(fd);
        }
        let (child, pidfd) = spawn_bound(&mut command, &inherit)?;
        drop(theirs);
        let pid = child.id();
        let pidfd = Arc::new(pidfd);
        let watched = Arc::clone(&pidfd);
        let reader = move || listen(&parent, child, &watched, &notify);
        let started = std::thread::Builder::new().name(format!("{}-{pid}", kind.program())).spawn(reader);
        if let Err(error) = started {
            pidfd.kill();
            return Err(error);
        }
        Ok(Self { pid, arch: program.arch(), pidfd, sender: None, outstanding: 0, answers: 0 })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Architecture that its program was built for.
    #[must_use]
    pub fn arch(&self) -> &'static str {
        self.arch
    }

    /// Takes the sender that came with [`Note::Hello`].
    pub fn greeted(&mut self, sender: CommandSender<I>) {
        self.sender = Some(sender);
    }

    /// Whether it takes commands.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.sender.is_some()
    }

    /// Sends a command; the answer carries the number returned.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn send(&mut self, command: I::Command) -> Result<u64, SendError> {
        if self.outstanding >= MAX_OUTSTANDING {
            return Err(SendError::Silent);
        }
        let id = self.sender.as_mut().ok_or(SendError::NotReady)?.send(command)?;
        self.outstanding += 1;
        Ok(id)
    }

    /// Counts an answer.
    pub fn answered(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.answers += 1;
    }

    /// Commands that wait for their answers.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.outstanding
    }

    /// Whether a command waits for its answer.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.outstanding > 0
    }

    /// Commands that it has answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// How others reach it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach { pid: self.pid, pidfd: Arc::clone(&self.pidfd) }
    }

    /// Kills it; [`Note::Ended`] follows.
    pub fn kill(&self) {
        self.pidfd.kill();
    }
}

impl<I: Interface> Drop for Process<I> {
    fn drop(&mut self) {
        self.pidfd.kill();
    }
}

fn listen<I: Interface>(parent: &Parent, mut child: Child, pidfd: &PidFd, notify: &dyn Fn(Note<I>)) {
    if let Some(events) = hello(parent, pidfd, notify) {
        relay(&events, pidfd, notify);
    }
    // The channel is closed or of no use: the process has ended or is to end.
    if !pidfd.ended(LINGER) {
        pidfd.kill();
    }
    let how = match child.wait() {
        Ok(status) => describe(status, pidfd.killed()),
        Err(error) => format!("ended unseen ({error})"),
    };
    notify(Note::Ended(how));
}

fn hello<I: Interface>(parent: &Parent, pidfd: &PidFd, notify: &dyn Fn(Note<I>)) -> Option<EventReceiver<I>> {
    loop {
        match parent.greet(Some(LOOK)) {
            Ok(Some((hello, sender, events))) if hello.kind == I::KIND => {
                notify(Note::Hello(hello, sender));
                return Some(events);
            }
            Ok(Some((hello, ..))) => {
                notify(Note::Garbled(format!("it says it is {}", hello.kind.program())));
                pidfd.kill();
                return None;
            }
            Ok(None) if pidfd.ended(Duration::ZERO) => return None,
            Ok(None) => {}
            Err(ChannelError::Closed) => return None,
            Err(ChannelError::Stillborn(why)) => {
                notify(Note::Event(Event::Fatal(why)));
                return None;
            }
            Err(error) => {
                notify(Note::Garbled(error.to_string()));
                pidfd.kill();
                return None;
            }
        }
    }
}

fn relay<I: Interface>(events: &EventReceiver<I>, pidfd: &PidFd, notify: &dyn Fn(Note<I>)) {
    loop {
        oom::look();
        match events.recv(Some(LOOK)) {
            Ok(Some(event)) => notify(Note::Event(event)),
            Ok(None) if pidfd.ended(Duration::ZERO) => return,
            Ok(None) => {}
            Err(ChannelError::Closed) => return,
            Err(error) => notify(Note::Garbled(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::children::standin;
    use quasar_abi::control::cpu::Cpu;
    use quasar_abi::control::mmu::{Mmu, MmuCommand};
    use quasar_abi::control::{ProcessKind, Transport};

    fn notes_of(script: &str) -> (tempfile::TempDir, crossbeam_channel::Receiver<Note<Mmu>>, Process<Mmu>) {
        let (dir, launcher) = standin::launcher(script, &[ProcessKind::Mmu]);
        let (send, notes) = crossbeam_channel::unbounded();
        let notify = move |note| drop(send.send(note));
        let process = Process::spawn(&launcher, &standin::log(&dir), notify).expect("spawn");
        (dir, notes, process)
    }

    #[test]
    fn a_child_that_ends_at_once_is_a_note_and_its_words_are_in_the_log() {
        let (dir, notes, mut process) = notes_of("#!/bin/sh\necho cannot >&2\nexit 3\n");
        let Ok(Note::Ended(how)) = notes.recv_timeout(Duration::from_secs(20)) else { panic!("no end") };
        assert_eq!(how, "ended with exit status 3");
        assert_eq!(std::fs::read_to_string(dir.path().join("log")).expect("log"), "cannot\n");
        assert!(matches!(process.send(MmuCommand::Shutdown), Err(SendError::NotReady)));
    }

    #[test]
    fn a_child_that_says_nothing_can_be_killed() {
        let (_dir, notes, process) = notes_of("#!/bin/sh\nexec sleep 1000\n");
        process.kill();
        let Ok(Note::Ended(how)) = notes.recv_timeout(Duration::from_secs(20)) else { panic!("no end") };
        assert_eq!(how, "was killed by SIGKILL");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let launcher = Launcher::new("/nonexistent".into(), Transport::Socket);
        let log = tempfile::tempfile().expect("log");
        let error = Process::<Cpu>::spawn(&launcher, &log, |_| ()).expect_err("no program");
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
