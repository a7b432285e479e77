//! What every process of Quasar's is between its `main` and its end: arguments, log, the report of a panic, hello,
//! commands, news, an orderly end. Whatever a process shall have or do besides (a sandbox, a trace) is entered here.
//!
//! A program has a [`Service`] and says [`Control::serve`]. It ends when the supervisor says so, when the supervisor is
//! gone (nobody is left to end or to replace it), or when the service is over; each time the service is ended first.

use super::channel::inherited;
use super::seqpacket::SeqPacket;
use super::{ChannelError, Child, Command, Envelope, Event, EventSender, Interface, Transport};
use crate::{logging, note, words};
use clap::{Args, Parser};
use std::os::fd::{OwnedFd, RawFd};
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a silent channel is left for a look at the service.
const LOOK: Duration = Duration::from_secs(1);
/// Characters of a death's reason that are told: what is longer would not fit the channel, and be lost.
const TOLD: usize = 4096;

/// What the supervisor passes to each of its programs; part of the program's own arguments.
#[derive(Clone, Debug, Args)]
pub struct Control {
    /// Inherited descriptor of the socket to the supervisor.
    #[arg(long)]
    control_fd: Option<RawFd>,
    /// What carries the commands: ipc or socket.
    #[arg(long, default_value_t = Transport::Ipc)]
    transport: Transport,
    /// Panic after hello, on a thread of its own: so a test sees that this process reports it.
    #[arg(long, hide = true)]
    panic: bool,
}

/// The work of one kind of process.
pub trait Service {
    /// What it understands.
    type Interface: Interface;

    /// Carries out a command other than the last one, and answers the call: at once, or later from another thread. The
    /// next command waits until this returns.
    fn carry_out(&mut self, command: <Self::Interface as Interface>::Command, call: Call<Self::Interface>);

    /// Whether there is nothing left to serve although nobody said so: its thread has ended.
    fn is_over(&self) -> bool;

    /// Ends the work in order: what must be published or written is, when this returns.
    ///
    /// # Errors
    /// When that could not be done.
    fn end(self) -> Result<(), <Self::Interface as Interface>::Refusal>;
}

/// Why a process did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It was started by hand.
    #[error("--control-fd is missing; {0} is started by `quasar`, not by hand")]
    NotAChild(&'static str),
    /// The channel failed in another way than by the supervisor's end.
    #[error("the channel to the supervisor: {0}")]
    Channel(#[from] ChannelError),
    /// The work could not be ended in order.
    #[error("{0}")]
    End(String),
}

/// What a process tells its supervisor by itself. Cheap to clone.
#[derive(Debug)]
pub struct News<I: Interface>(Arc<Sending<I>>);

#[derive(Debug)]
struct Sending<I: Interface> {
    events: EventSender<I>,
    /// An answer did not reach the supervisor, which therefore cannot be served any more.
    broken: AtomicBool,
}

impl<I: Interface> Clone for News<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<I: Interface> News<I> {
    /// News over these events.
    #[must_use]
    pub fn new(events: EventSender<I>) -> Self {
        Self(Arc::new(Sending { events, broken: AtomicBool::new(false) }))
    }

    /// A supervisor that does not listen misses it; the work does not depend on it.
    fn send(&self, event: &Event<I>) {
        if let Err(error) = self.0.events.send(event) {
            log::warn!("the supervisor could not be told: {error}");
        }
    }

    /// Tells what only this kind of process tells.
    pub fn tell(&self, news: I::News) {
        self.send(&Event::News(news));
    }

    /// Tells something that people should know.
    pub fn notice(&self, text: impl Into<String>) {
        self.send(&Event::Notice(text.into()));
    }

    /// Tells that this process cannot go on, and why. It is to end then.
    pub fn fatal(&self, text: &str) {
        self.send(&Event::Fatal(text.chars().take(TOLD).collect()));
    }
}

/// A command that waits for its answer. One that is dropped without is refused by the supervisor's deadline alone, so
/// do not.
#[derive(Debug)]
#[must_use = "the supervisor waits for the answer"]
pub struct Call<I: Interface> {
    id: u64,
    news: News<I>,
}

impl<I: Interface> Call<I> {
    /// Answers.
    pub fn answer(self, result: Result<I::Reply, I::Refusal>) {
        let id = self.id;
        let event = match result {
            Ok(reply) => Event::Done { id, reply },
            Err(refusal) => Event::Refused { id, refusal },
        };
        if let Err(error) = self.news.0.events.send(&event) {
            log::error!("the supervisor could not be answered ({event:?}): {error}");
            self.news.0.broken.store(true, Ordering::Release);
        }
    }
}

/// Runs a program: its log, its arguments, and then `run`.
pub fn main<A: Parser>(run: impl FnOnce(A) -> ExitCode) -> ExitCode {
    let _log = logging::start("info");
    run(A::parse())
}

/// What a panic says, where that is, and on which thread.
fn last_words(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    format!("thread {:?} {info}", thread.name().unwrap_or("without a name"))
}

/// From now on a panic of any thread is told to the supervisor before the process ends by it.
fn report_panics<I: Interface>(news: News<I>) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The log first: the supervisor kills who has said this.
        before(info);
        log::logger().flush();
        news.fatal(&last_words(info));
        // A process without one of its threads is no process: the successor takes up what is in shared memory.
        std::process::abort();
    }));
}

impl Control {
    /// Serves the supervisor to the end. `version` is the program's; `service` makes its work.
    pub fn serve<S: Service>(
        &self,
        version: &str,
        service: impl FnOnce(News<S::Interface>) -> S,
    ) -> ExitCode {
        match self.try_serve(version, service) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                note!("{}: {}", S::Interface::KIND.program(), words::whole(&error));
                ExitCode::FAILURE
            }
        }
    }

    fn try_serve<S: Service>(
        &self,
        version: &str,
        service: impl FnOnce(News<S::Interface>) -> S,
    ) -> Result<(), ChildError> {
        let fd = self.control_fd.ok_or(ChildError::NotAChild(S::Interface::KIND.program()))?;
        let socket = SeqPacket::from_fd(inherited(fd)?);
        let news = News::new(EventSender::new(socket.try_clone().map_err(ChannelError::from)?));
        report_panics::<S::Interface>(news);
        serve(socket.into_fd(), self.transport, version, |news| {
            if self.panic {
                let thread = std::thread::Builder::new().name("victim".into());
                drop(thread.spawn(|| panic!("as the command line has asked for")));
            }
            service(news)
        })
    }
}

/// Says hello and carries out commands to the end.
///
/// # Errors
/// [`ChildError`].
pub fn serve<S: Service>(
    fd: OwnedFd,
    transport: Transport,
    version: &str,
    service: impl FnOnce(News<S::Interface>) -> S,
) -> Result<(), ChildError> {
    let Child { commands, events } = Child::<S::Interface>::connect(fd, version, transport)?;
    let news = News::new(events);
    let mut service = service(news.clone());
    let ended = loop {
        if service.is_over() || news.0.broken.load(Ordering::Acquire) {
            break Ok(());
        }
        let Envelope { id, command } = match commands.recv(Some(LOOK)) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => continue,
            Err(ChannelError::Closed) => break Ok(()),
            Err(error) => break Err(error),
        };
        let call = Call { id, news: news.clone() };
        if command.is_last() {
            let ended = service.end();
            let words = ended.as_ref().err().map(ToString::to_string);
            call.answer(ended.map(|()| Default::default()));
            return words.map_or(Ok(()), |words| Err(ChildError::End(words)));
        }
        service.carry_out(command, call);
    };
    service.end().map_err(|error| ChildError::End(error.to_string()))?;
    Ok(ended?)
}
