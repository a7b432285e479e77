//! The program itself, started as the supervisor starts it.

use super::Machine;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use quasar_abi::control::devices::{Devices, DevicesCommand, DevicesReply};
use quasar_abi::control::{CommandSender, Event, EventReceiver, Parent, ProcessKind, Transport};
use quasar_abi::machine::VirtioDevice;
use std::os::fd::AsRawFd;
use std::process::{Child, Command};
use std::time::Duration;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

/// Killed when dropped.
pub struct Guard(pub Child);

/// A running program and the supervisor's end of its channel.
pub struct Program {
    pub child: Guard,
    pub commands: CommandSender<Devices>,
    pub events: EventReceiver<Devices>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Program {
    pub fn start(transport: Transport) -> Self {
        Self::start_by(&[], transport)
    }

    /// Started by a command that executes what follows it in its own process.
    pub fn start_by(by: &[&str], transport: Transport) -> Self {
        let (parent, theirs) = Parent::new().expect("channel");
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).expect("fcntl");
        let line = [by, &[env!("CARGO_BIN_EXE_quasar-devices")]].concat();
        let child = Command::new(line[0])
            .args(&line[1..])
            .args(["--control-fd", &theirs.as_raw_fd().to_string(), "--transport", &transport.to_string()])
            .spawn()
            .expect("spawn");
        drop(theirs);
        let (hello, commands, events) = parent.greet(PATIENCE).expect("greet").expect("hello in time");
        assert_eq!(hello.kind, ProcessKind::Devices);
        Self { child: Guard(child), commands, events }
    }

    pub fn answer(&mut self, command: DevicesCommand) -> Result<DevicesReply, String> {
        let sent = self.commands.send(command).expect("send");
        match self.events.recv(PATIENCE).expect("recv").expect("answer in time") {
            Event::Done { id, reply } if id == sent => Ok(reply),
            Event::Refused { id, refusal } if id == sent => Err(refusal.to_string()),
            other => panic!("{other:?}"),
        }
    }

    pub fn serve(machine: &Machine, virtio: &[VirtioDevice]) -> Self {
        Self::serve_by(&[], machine, virtio)
    }

    pub fn serve_by(by: &[&str], machine: &Machine, virtio: &[VirtioDevice]) -> Self {
        let mut program = Self::start_by(by, Transport::Socket);
        let start = DevicesCommand::Start { grants: machine.grants.clone(), virtio: virtio.to_vec() };
        assert_eq!(program.answer(start), Ok(DevicesReply::Done));
        program
    }
}
