//! The process around a hart.

use super::HartRunner;
use crate::engine;
use quasar_abi::control::Trouble;
use quasar_abi::control::child::{Call, News, Service};
use quasar_abi::control::cpu::{Cpu, CpuCommand, CpuRefusal, CpuReply};
use quasar_abi::grants::HartGrants;
use quasar_abi::party::{PartyId, attention};
use quasar_abi::vm::Vm;
use std::thread::JoinHandle;

/// A running hart.
#[derive(Debug)]
struct Running {
    vm: Vm,
    me: PartyId,
    thread: JoinHandle<Result<(), CpuRefusal>>,
}

/// A hart, once it was started.
#[derive(Debug)]
pub struct HartService {
    news: News<Cpu>,
    running: Option<Running>,
}

impl HartService {
    /// A process without a hart yet.
    #[must_use]
    pub fn new(news: News<Cpu>) -> Self {
        Self { news, running: None }
    }

    fn start(&mut self, grants: &HartGrants, hart: u8, engine: Option<&str>) -> Result<CpuReply, CpuRefusal> {
        if self.running.is_some() {
            return Err(CpuRefusal::Running);
        }
        let failed = |error: &(dyn std::error::Error + 'static)| CpuRefusal::Failed(Trouble::of(error));
        let engine = engine::by_name(engine.unwrap_or(engine::DEFAULT)).map_err(|error| failed(&error))?;
        let runner = HartRunner::attach(grants, hart).map_err(|error| failed(&error))?.with_engine(engine);
        let (vm, news) = (runner.vm().clone(), self.news.clone());
        let run = move || {
            runner.run().map_err(|error| {
                log::error!("{error}");
                news.fatal(&error.to_string());
                CpuRefusal::Failed(Trouble::of(&error))
            })
        };
        let thread = std::thread::Builder::new().name(format!("cpu{hart}")).spawn(run);
        let thread = thread.map_err(|error| failed(&error))?;
        self.running = Some(Running { vm, me: PartyId::Hart(hart), thread });
        Ok(CpuReply::Done)
    }
}

impl Service for HartService {
    type Interface = Cpu;

    fn carry_out(&mut self, command: CpuCommand, call: Call<Cpu>) {
        call.answer(match command {
            CpuCommand::Start { grants, hart, engine } => self.start(&grants, hart, engine.as_deref()),
            // Comes to `end`.
            CpuCommand::Shutdown => Ok(CpuReply::Done),
        });
    }

    fn is_over(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.thread.is_finished())
    }

    /// Has the hart publish its state and end, and waits for that.
    fn end(self) -> Result<(), CpuRefusal> {
        let Some(Running { vm, me, thread }) = self.running else { return Ok(()) };
        vm.party(me).call(attention::STOP);
        let panicked = |_| CpuRefusal::Failed(Trouble::lasting("the hart's thread had panicked"));
        thread.join().map_err(panicked)?
    }
}
