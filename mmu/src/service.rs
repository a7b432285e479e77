//! The process around the server.

use crate::Server;
use quasar_abi::control::Trouble;
use quasar_abi::control::child::{Call, Service};
use quasar_abi::control::mmu::{Mmu, MmuCommand, MmuRefusal, MmuReply};
use quasar_abi::grants::MmuGrants;
use quasar_abi::party::PartyId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A server at work.
#[derive(Debug)]
struct Working {
    server: Arc<Server>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// A VM's memory, once it was started.
#[derive(Debug, Default)]
pub struct MmuService {
    working: Option<Working>,
}

impl MmuService {
    fn start(&mut self, grants: &MmuGrants) -> Result<MmuReply, MmuRefusal> {
        if self.working.is_some() {
            return Err(MmuRefusal::Serving);
        }
        let server = Server::attach(grants).map_err(|error| MmuRefusal::Failed(Trouble::of(&error)))?;
        let (server, stop) = (Arc::new(server), Arc::new(AtomicBool::new(false)));
        let (at_work, told) = (Arc::clone(&server), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("mmu".into()).spawn(move || at_work.run(&told));
        let thread = thread.map_err(|error| MmuRefusal::Failed(Trouble::of(&error)))?;
        self.working = Some(Working { server, stop, thread });
        log::info!("serving the memory of {}", grants.vm);
        Ok(MmuReply::Done)
    }
}

impl Service for MmuService {
    type Interface = Mmu;

    fn carry_out(&mut self, command: MmuCommand, call: Call<Mmu>) {
        call.answer(match command {
            MmuCommand::Start { grants } => self.start(&grants),
            // Comes to `end`.
            MmuCommand::Shutdown => Ok(MmuReply::Done),
        });
    }

    /// The serving thread has ended: told so through shared memory.
    fn is_over(&self) -> bool {
        self.working.as_ref().is_some_and(|working| working.thread.is_finished())
    }

    fn end(self) -> Result<(), MmuRefusal> {
        let Some(Working { server, stop, thread }) = self.working else { return Ok(()) };
        stop.store(true, Ordering::Relaxed);
        server.vm().party(PartyId::Mmu).doorbell.ring();
        let panicked = |_| MmuRefusal::Failed(Trouble::lasting("the serving thread panicked"));
        thread.join().map_err(panicked)
    }
}
