//! The process around a hart: commands in, events out.

use super::HartRunner;
use quasar_abi::control::cpu::CpuCommand;
use quasar_abi::control::{ChannelError, Child, Event, EventSender, ProcessKind, Reply, Transport};
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::Vm;
use std::os::fd::RawFd;
use std::thread::JoinHandle;

/// A running hart as the command loop sees it.
struct Running {
    vm: Vm,
    me: PartyId,
    thread: JoinHandle<()>,
}

/// Serves the supervisor on its inherited descriptor until it says shutdown or is gone. Either way the
/// hart's state is published before this returns.
///
/// # Errors
/// [`ChannelError`] when the channel failed otherwise than by the supervisor's end.
pub fn serve(fd: RawFd, transport: Transport) -> Result<(), ChannelError> {
    let child = Child::<CpuCommand>::inherit(fd, ProcessKind::Cpu, env!("CARGO_PKG_VERSION"), transport)?;
    let Child { commands, events } = child;
    report_panics(events.try_clone()?);
    let mut running: Option<Running> = None;
    loop {
        let envelope = match commands.recv(None) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => continue,
            Err(ChannelError::Closed) => {
                end(running);
                return Ok(());
            }
            Err(error) => {
                end(running);
                return Err(error);
            }
        };
        let id = envelope.id;
        match envelope.command {
            CpuCommand::Start { segments, hart } => {
                if running.is_some() {
                    let error = "this process already runs a hart; start another process for another hart";
                    events.send(&Event::Failed { id, error: error.to_owned() })?;
                    continue;
                }
                match HartRunner::attach(&segments, hart).map_err(|e| e.to_string()).and_then(|runner| {
                    let events = events.try_clone().map_err(|e| e.to_string())?;
                    start(runner, hart, events).map_err(|e| e.to_string())
                }) {
                    Ok(started) => {
                        running = Some(started);
                        events.send(&Event::Done { id, reply: Reply::Unit })?;
                    }
                    Err(error) => events.send(&Event::Failed { id, error })?,
                }
            }
            CpuCommand::Shutdown => {
                end(running);
                events.send(&Event::Done { id, reply: Reply::Unit })?;
                return Ok(());
            }
        }
    }
}

fn start(runner: HartRunner, hart: u8, events: EventSender) -> std::io::Result<Running> {
    let vm = runner.vm().clone();
    let thread = std::thread::Builder::new().name(format!("cpu{hart}")).spawn(move || {
        if let Err(error) = runner.run() {
            log::error!("{error}");
            send_fatal(&events, error.to_string());
        }
    })?;
    Ok(Running { vm, me: PartyId::Hart(hart), thread })
}

fn send_fatal(events: &EventSender, message: String) {
    if let Err(error) = events.send(&Event::Fatal(message)) {
        log::error!("the supervisor could not be told: {error}");
    }
}

/// Tells the supervisor of a panic before the process ends by it.
fn report_panics(events: EventSender) {
    let events = std::sync::Mutex::new(events);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(events) = events.lock() {
            send_fatal(&events, info.to_string());
        }
        before(info);
    }));
}

fn end(running: Option<Running>) {
    if let Some(running) = running {
        running.end();
    }
}

impl Running {
    /// Has the hart publish its state and end, and waits for that.
    fn end(self) {
        self.vm.party(self.me).call(attention::STOP);
        if self.thread.join().is_err() {
            log::error!("the hart's thread had panicked");
        }
    }
}
