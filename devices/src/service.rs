//! The process around the server.

use crate::{DevicesError, Server, ServerHandle};
use quasar_abi::control::Trouble;
use quasar_abi::control::child::{Call, Service};
use quasar_abi::control::devices::{Devices, DevicesCommand, DevicesRefusal, DevicesReply};
use quasar_abi::grants::DevicesGrants;
use quasar_abi::machine::VirtioDevice;
use std::thread::JoinHandle;

/// A server at work.
#[derive(Debug)]
struct Working {
    handle: ServerHandle,
    thread: JoinHandle<()>,
}

/// A VM's devices, once they were started.
#[derive(Debug, Default)]
pub struct DevicesService {
    working: Option<Working>,
}

impl From<DevicesError> for DevicesRefusal {
    fn from(error: DevicesError) -> Self {
        match error {
            DevicesError::NobodyListens => Self::NobodyListens,
            DevicesError::NoPowerKey => Self::NoPowerKey,
            DevicesError::Ended => Self::Ended,
            other => Self::Failed(Trouble::of(&other)),
        }
    }
}

impl DevicesService {
    fn start(&mut self, grants: &DevicesGrants, virtio: &[VirtioDevice]) -> Result<(), DevicesRefusal> {
        if self.working.is_some() {
            return Err(DevicesRefusal::Serving);
        }
        let (server, handle) = Server::attach(grants, virtio)?;
        let thread = std::thread::Builder::new().name("devices".into()).spawn(move || server.run());
        let thread = thread.map_err(|source| DevicesError::System { what: "starting a thread", source })?;
        self.working = Some(Working { handle, thread });
        Ok(())
    }

    fn handle(&self) -> Result<&ServerHandle, DevicesRefusal> {
        self.working.as_ref().map(|working| &working.handle).ok_or(DevicesRefusal::Ended)
    }

    fn try_carry_out(&mut self, command: DevicesCommand) -> Result<DevicesReply, DevicesRefusal> {
        match command {
            DevicesCommand::Start { grants, virtio } => self.start(&grants, &virtio)?,
            DevicesCommand::Reset => self.handle()?.reset()?,
            DevicesCommand::PowerButton => self.handle()?.power_button()?,
            DevicesCommand::Stats => return Ok(DevicesReply::Stats(self.handle()?.stats()?)),
            // Comes to `end`.
            DevicesCommand::Shutdown => {}
        }
        Ok(DevicesReply::Done)
    }
}

impl Service for DevicesService {
    type Interface = Devices;

    fn carry_out(&mut self, command: DevicesCommand, call: Call<Devices>) {
        call.answer(self.try_carry_out(command));
    }

    fn is_over(&self) -> bool {
        self.working.as_ref().is_some_and(|working| working.thread.is_finished())
    }

    fn end(self) -> Result<(), DevicesRefusal> {
        let Some(Working { handle, thread }) = self.working else { return Ok(()) };
        let result = handle.shutdown();
        if thread.join().is_err() {
            log::error!("the serving thread panicked; its message is above");
        }
        Ok(result?)
    }
}
