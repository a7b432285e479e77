//! Channels: who may say what to whom, whatever carries it.

use super::codec;
use super::seqpacket::{SeqPacket, SocketError};
use super::{Event, Hello, Interface, PROTOCOL_VERSION};
use crate::eintr::{Interruptible, left_of, retry};
use crate::grants;
use ipc_channel::IpcError;
use ipc_channel::TryRecvError;
use ipc_channel::ipc::{IpcOneShotServer, IpcReceiver, IpcSender};
use nix::sys::signal::{SigSet, SigmaskHow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

const KIND_COMMAND: u32 = 1;
const KIND_EVENT: u32 = 2;

/// A command with the number by which it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<C> {
    /// Unique for the channel's life.
    pub id: u64,
    /// The command.
    pub command: C,
}

/// What ipc-channel carries. It cannot give segments: a command that does comes over the socket, in its turn.
#[derive(Serialize, Deserialize)]
enum Posted<C> {
    Here(Envelope<C>),
    OnSocket,
}

/// Time for what is announced to be on the socket: it was sent before.
const ANNOUNCED: Duration = Duration::from_secs(10);

/// What carries the commands. Events always go over the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// `ipc-channel`: both ends trusted, of one byte order.
    Ipc,
    /// SEQPACKET socket: any byte order.
    Socket,
}

impl std::str::FromStr for Transport {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "ipc" => Ok(Self::Ipc),
            "socket" => Ok(Self::Socket),
            other => Err(format!("unknown transport {other:?}; it is ipc or socket")),
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ipc => "ipc",
            Self::Socket => "socket",
        })
    }
}

/// Why a channel failed.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer is gone: an ordinary end.
    #[error("the other process has gone")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Socket(SocketError),
    /// ipc-channel failed.
    #[error("ipc-channel: {0}")]
    Ipc(String),
    /// The child has said that it ends, and why, instead of hello.
    #[error("it gave up before it had started: {0}")]
    Stillborn(String),
    /// The child speaks another version.
    #[error("{program} speaks version {found} of the control messages, this program {PROTOCOL_VERSION}")]
    Version {
        /// Its program.
        program: &'static str,
        /// Its version.
        found: u32,
    },
}

impl From<SocketError> for ChannelError {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Closed => Self::Closed,
            other => Self::Socket(other),
        }
    }
}

fn ipc(error: impl std::fmt::Display) -> ChannelError {
    ChannelError::Ipc(error.to_string())
}

impl Interruptible for IpcError {
    fn is_interrupted(&self) -> bool {
        matches!(self, Self::Io(error) if error.is_interrupted())
    }
}

impl Interruptible for TryRecvError {
    fn is_interrupted(&self) -> bool {
        matches!(self, Self::IpcError(error) if error.is_interrupted())
    }
}

/// Takes the one connection and its first message, with this thread's signals held back: what a signal interrupted
/// could not be called again, because the server is gone then.
fn accept<C: Serialize + DeserializeOwned>(
    server: IpcOneShotServer<Posted<C>>,
) -> Result<(IpcReceiver<Posted<C>>, Posted<C>), ChannelError> {
    let system = |errno| ChannelError::Socket(SocketError::System(errno));
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(system)?;
    let accepted = server.accept().map_err(ipc);
    before.thread_set_mask().map_err(system)?;
    accepted
}

/// A child's hello, and the supervisor's two halves of its channel.
pub type Greeting<I> = (Hello, CommandSender<I>, EventReceiver<I>);

/// Supervisor's end of a child that has not said hello yet.
#[derive(Debug)]
pub struct Parent {
    socket: SeqPacket,
}

impl Parent {
    /// A channel: our end and the descriptor that the child inherits (clear its close-on-exec there).
    ///
    /// # Errors
    /// [`ChannelError::Socket`].
    pub fn new() -> Result<(Self, OwnedFd), ChannelError> {
        let (ours, theirs) = SeqPacket::pair()?;
        Ok((Self { socket: ours }, theirs.into_fd()))
    }

    /// Waits for the child's hello; `None` when `timeout` passed (call again).
    ///
    /// # Errors
    /// [`ChannelError`]; the child is of no use then.
    pub fn greet<I: Interface>(
        &self,
        timeout: Option<Duration>,
    ) -> Result<Option<Greeting<I>>, ChannelError> {
        let Some(event) = self.socket.recv::<Event<I>>(KIND_EVENT, timeout)? else { return Ok(None) };
        let hello = match event {
            Event::Hello(hello) => hello,
            Event::Fatal(why) => return Err(ChannelError::Stillborn(why)),
            _ => {
                return Err(ChannelError::Socket(SocketError::Malformed(
                    "the first event is no hello".into(),
                )));
            }
        };
        if hello.protocol != PROTOCOL_VERSION {
            return Err(ChannelError::Version { program: hello.kind.program(), found: hello.protocol });
        }
        let ipc = match &hello.ipc_server {
            Some(name) => Some(retry(|| IpcSender::connect(name.clone())).map_err(ipc)?),
            None => None,
        };
        let socket = Arc::new(self.socket.try_clone()?);
        let events = EventReceiver { socket: Arc::clone(&socket), interface: PhantomData };
        Ok(Some((hello, CommandSender { ipc, socket, next: 1 }, events)))
    }
}

/// Supervisor's half for commands.
pub struct CommandSender<I: Interface> {
    ipc: Option<IpcSender<Posted<I::Command>>>,
    socket: Arc<SeqPacket>,
    next: u64,
}

impl<I: Interface> CommandSender<I> {
    /// Sends a command; the answer comes as [`Event::Done`] or [`Event::Refused`] with the number returned.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send(&mut self, command: I::Command) -> Result<u64, ChannelError> {
        let id = self.next;
        self.next += 1;
        let envelope = Envelope { id, command };
        let Some(ipc) = &self.ipc else {
            self.socket.send(KIND_COMMAND, &envelope)?;
            return Ok(id);
        };
        let (encoded, given) = grants::beside(|| codec::encode(&envelope));
        let on_socket = !given.is_empty();
        if on_socket {
            self.socket.send_encoded(KIND_COMMAND, &encoded.map_err(SocketError::from)?, &given)?;
        }
        let posted = || if on_socket { Posted::OnSocket } else { Posted::Here(envelope.clone()) };
        retry(|| ipc.send(posted())).map_err(|_| ChannelError::Closed)?;
        Ok(id)
    }
}

impl<I: Interface> std::fmt::Debug for CommandSender<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandSender").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Supervisor's half for events.
#[derive(Debug)]
pub struct EventReceiver<I: Interface> {
    socket: Arc<SeqPacket>,
    interface: PhantomData<I>,
}

impl<I: Interface> EventReceiver<I> {
    /// The next event; `None` when `timeout` passed.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the child is gone; a malformed event is an error of that record alone.
    pub fn recv(&self, timeout: Option<Duration>) -> Result<Option<Event<I>>, ChannelError> {
        Ok(self.socket.recv(KIND_EVENT, timeout)?)
    }
}

impl<I: Interface> AsFd for EventReceiver<I> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A child's two halves.
#[derive(Debug)]
pub struct Child<I: Interface> {
    /// Commands from the supervisor.
    pub commands: CommandReceiver<I>,
    /// Events to it.
    pub events: EventSender<I>,
}

impl<I: Interface> Child<I> {
    /// Takes the inherited descriptor, says hello and opens the way for commands.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn connect(fd: OwnedFd, version: &str, transport: Transport) -> Result<Self, ChannelError> {
        let socket = SeqPacket::from_fd(fd);
        let hello = |ipc_server| Hello {
            protocol: PROTOCOL_VERSION,
            kind: I::KIND,
            version: version.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            ipc_server,
        };
        let events = EventSender::new(socket.try_clone()?);
        let ipc = match transport {
            Transport::Socket => {
                events.send(&Event::Hello(hello(None)))?;
                None
            }
            Transport::Ipc => {
                // The sender's end that comes first over the one-shot server is the supervisor's connection
                // itself: it connects and sends, and is never sent anything, so that it need not trust us.
                let (server, name) = IpcOneShotServer::<Posted<I::Command>>::new().map_err(ipc)?;
                events.send(&Event::Hello(hello(Some(name))))?;
                let (receiver, first) = accept(server)?;
                Some(FromIpc { receiver, first: RefCell::new(Some(first)) })
            }
        };
        Ok(Self { commands: CommandReceiver { ipc, socket }, events })
    }
}

struct FromIpc<C> {
    receiver: IpcReceiver<Posted<C>>,
    first: RefCell<Option<Posted<C>>>,
}

impl<C: Serialize + DeserializeOwned> FromIpc<C> {
    fn recv(&self, timeout: Option<Duration>) -> Result<Option<Posted<C>>, ChannelError> {
        if let Some(posted) = self.first.borrow_mut().take() {
            return Ok(Some(posted));
        }
        let received = match timeout {
            None => retry(|| self.receiver.recv()).map_err(TryRecvError::IpcError),
            Some(timeout) => {
                let start = Instant::now();
                retry(|| self.receiver.try_recv_timeout(left_of(timeout, start)))
            }
        };
        match received {
            Ok(posted) => Ok(Some(posted)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::IpcError(IpcError::Disconnected)) => Err(ChannelError::Closed),
            Err(TryRecvError::IpcError(error)) => Err(ipc(error)),
        }
    }
}

/// Takes a descriptor number that the parent passed to this program, and keeps it from children of ours.
/// Once per number.
///
/// # Errors
/// [`ChannelError::Socket`] when there is no such descriptor.
pub fn inherited(fd: RawFd) -> Result<OwnedFd, ChannelError> {
    // SAFETY: borrowed for one call that reports a closed descriptor as an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd.max(0)) };
    nix::fcntl::fcntl(borrowed, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
        .map_err(|errno| ChannelError::Socket(SocketError::System(errno)))?;
    // SAFETY: open, as was just seen, and passed by the parent for one purpose.
    Ok(unsafe { OwnedFd::from_raw_fd(fd.max(0)) })
}

/// A child's half for commands.
pub struct CommandReceiver<I: Interface> {
    ipc: Option<FromIpc<I::Command>>,
    socket: SeqPacket,
}

impl<I: Interface> std::fmt::Debug for CommandReceiver<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandReceiver").finish_non_exhaustive()
    }
}

impl<I: Interface> CommandReceiver<I> {
    /// The next command; `None` when `timeout` passed.
    ///
    /// # Errors
    /// [`ChannelError::Closed`] when the supervisor is gone.
    pub fn recv(&self, timeout: Option<Duration>) -> Result<Option<Envelope<I::Command>>, ChannelError> {
        let Some(ipc) = &self.ipc else { return Ok(self.socket.recv_given(KIND_COMMAND, timeout)?) };
        match ipc.recv(timeout)? {
            None => Ok(None),
            Some(Posted::Here(envelope)) => Ok(Some(envelope)),
            Some(Posted::OnSocket) => match self.socket.recv_given(KIND_COMMAND, Some(ANNOUNCED))? {
                Some(envelope) => Ok(Some(envelope)),
                None => Err(SocketError::Malformed("a command was announced and is not there".into()).into()),
            },
        }
    }
}

/// A child's half for events.
#[derive(Debug)]
pub struct EventSender<I: Interface> {
    socket: SeqPacket,
    interface: PhantomData<I>,
}

impl<I: Interface> EventSender<I> {
    /// Events over this end of the supervisor's socket.
    #[must_use]
    pub fn new(socket: SeqPacket) -> Self {
        Self { socket, interface: PhantomData }
    }

    /// Sends an event without waiting.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn send(&self, event: &Event<I>) -> Result<(), ChannelError> {
        Ok(self.socket.send(KIND_EVENT, event)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::netswitch::{Netswitch, NetswitchCommand as Command};
    use nix::libc::{SIGUSR2, c_int, pthread_kill, pthread_self};
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, Signal, sigaction};
    use std::sync::mpsc;

    extern "C" fn ignore(_: c_int) {}

    /// Runs `child` on a thread that a handled signal interrupts every half millisecond.
    fn interrupted(child: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
        let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, and nobody else in this program's tests takes this signal.
        unsafe { sigaction(Signal::SIGUSR2, &action) }.expect("sigaction");
        let (ready, started) = mpsc::channel();
        let (done, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let thread = started.recv().expect("it starts");
            while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_micros(500)) {
                // SAFETY: the thread lives until it says that it is done, and a while longer.
                assert_eq!(unsafe { pthread_kill(thread, SIGUSR2) }, 0);
            }
        });
        std::thread::spawn(move || {
            // SAFETY: asks for nothing and changes nothing.
            ready.send(unsafe { pthread_self() }).expect("the other thread waits");
            child();
            drop(done);
            // The other thread has stopped by then: it looks every half millisecond.
            std::thread::sleep(Duration::from_millis(200));
        })
    }

    #[test]
    fn signals_end_no_wait_of_a_child() {
        for transport in [Transport::Ipc, Transport::Socket] {
            let (parent, fd) = Parent::new().expect("channel");
            let child = interrupted(move || {
                let child = Child::<Netswitch>::connect(fd, "1", transport)
                    .expect("signals do not disturb the greeting");
                let first = child.commands.recv(None).expect("no error").expect("a command, not a pause");
                let start = Instant::now();
                let pause = Duration::from_millis(100);
                assert_eq!(child.commands.recv(Some(pause)).expect("no error"), None);
                assert!(start.elapsed() >= pause, "{transport}: only {:?}", start.elapsed());
                child.events.send(&Event::Notice("waited".into())).expect("event");
                let second = child.commands.recv(None).expect("no error").expect("a command, not a pause");
                assert_eq!((first.command, second.command), (Command::Stats, Command::Shutdown));
            });
            // Each wait of the child's is long enough to be interrupted a hundred times.
            let wait = || std::thread::sleep(Duration::from_millis(50));
            let soon = Some(Duration::from_secs(20));
            wait();
            let greeted = parent.greet::<Netswitch>(soon).expect("greet").expect("in time");
            let (_, mut commands, events) = greeted;
            wait();
            commands.send(Command::Stats).expect("send");
            let event = events.recv(soon).expect("event").expect("in time");
            assert_eq!(event, Event::Notice("waited".into()));
            wait();
            commands.send(Command::Shutdown).expect("send");
            child.join().expect("the child's assertions");
        }
    }
}
