//! A hart's life: attach, run from the published state, come to rest when asked, end.

mod clock;
mod counters;
mod process;
mod rest;
mod safepoint;
mod timer;

pub use process::HartService;

use crate::blocks::BlockCache;
use crate::context::ExecContext;
use crate::engine::{self, Engine, Exit, UnknownEngine};
use crate::hart::{Hart, LoadError};
use crate::mem::Memory;
use counters::Tally;
use quasar_abi::GuestRam;
use quasar_abi::dirty::PageMaps;
use quasar_abi::grants::HartGrants;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::party::{MAX_HARTS, Party, PartyId, status};
use quasar_abi::segment::{Segment, SegmentError, SegmentKind};
use quasar_abi::vm::Vm;
use safepoint::Safepoint;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use timer::TimerThread;

/// Instructions between two looks at clocks and counters: about a millisecond.
const SLICE: u64 = 1 << 18;

/// Why a hart cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A segment is missing or wrong.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The published state is damaged.
    #[error("hart {hart}: {source}")]
    State {
        /// The hart.
        hart: u8,
        /// What is wrong.
        source: LoadError,
    },
    /// No such hart.
    #[error("there is no hart {hart}; this VM has {harts}")]
    NoSuchHart {
        /// Asked for.
        hart: u8,
        /// How many there are.
        harts: u32,
    },
    /// No such engine.
    #[error(transparent)]
    Engine(#[from] UnknownEngine),
    /// The timer's thread could not be started.
    #[error("a thread for the hart's timer could not be started: {0}; raise the limit of processes")]
    Thread(#[from] std::io::Error),
}

/// A hart with everything it needs to run.
#[derive(Debug)]
pub struct HartRunner {
    context: ExecContext,
    blocks: BlockCache,
    engine: Box<dyn Engine>,
    timer: TimerThread,
    me: PartyId,
    stopping: bool,
    tally: Tally,
}

impl HartRunner {
    /// Attaches hart `hart` to what it is given of the VM.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn attach(grants: &HartGrants, hart: u8) -> Result<Self, RunError> {
        let vm = Vm::attach(&grants.control)?;
        let ram = GuestRam::attach(&grants.ram, RAM_BASE)?;
        let maps = PageMaps::attach(&grants.maps, RAM_BASE, ram.len())?;
        let tlb = Arc::new(Segment::attach(&grants.tlb, SegmentKind::Tlb)?);
        Self::new(vm, ram, maps, tlb, hart)
    }

    /// A hart over attached segments.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn new(vm: Vm, ram: GuestRam, maps: PageMaps, tlb: Arc<Segment>, hart: u8) -> Result<Self, RunError> {
        let harts = vm.harts.get();
        if u32::from(hart) >= harts || usize::from(hart) >= MAX_HARTS {
            return Err(RunError::NoSuchHart { hart, harts });
        }
        let memory = Memory::new(vm.clone(), ram, maps, tlb, hart)?;
        let me = PartyId::Hart(hart);
        let timer = TimerThread::start(vm.clone(), me)?;
        let tally = Tally::new();
        let context = ExecContext::new(Hart::new(hart), memory, vm);
        let (engine, blocks) = (engine::by_name(engine::DEFAULT)?, BlockCache::default());
        Ok(Self { context, blocks, engine, timer, me, stopping: false, tally })
    }

    /// Has the hart executed by another engine than [`engine::DEFAULT`].
    #[must_use]
    pub fn with_engine(self, engine: Box<dyn Engine>) -> Self {
        Self { engine, ..self }
    }

    /// The words by which others reach this hart.
    #[must_use]
    pub fn vm(&self) -> &Vm {
        &self.context.vm
    }

    fn party(&self) -> &Party {
        self.context.vm.party(self.me)
    }

    /// Runs until the process is asked to stop. The state is published then.
    ///
    /// # Errors
    /// [`RunError::State`] when the published state is no hart's; nothing was executed from it.
    pub fn run(mut self) -> Result<(), RunError> {
        self.party().pid.set(std::process::id());
        self.party().generation.fetch_add(1, Ordering::Relaxed);
        while self.wait_until_free() {
            if self.context.memory.take_left_over() {
                self.take_up_state()?;
                self.execute();
                self.context.publish();
            }
            self.context.vm.park(self.me);
        }
        self.party().pid.set(0);
        self.party().status.store(status::ABSENT, Ordering::SeqCst);
        Ok(())
    }

    /// Executes until a pause or a stop is seen.
    fn execute(&mut self) {
        self.tally.start(&self.context);
        loop {
            match self.safepoint() {
                Safepoint::Rest => break,
                Safepoint::Again => continue,
                Safepoint::Go => {}
            }
            let stop_at = self.next_stop();
            match self.engine.run(&mut self.context, &mut self.blocks, stop_at) {
                // All of these are what the safepoint looks at.
                Exit::Attention
                | Exit::Limit
                | Exit::Wait
                | Exit::Stopped
                | Exit::Timer
                | Exit::Interrupted => {}
            }
            self.tally.count(&self.context);
            self.throttle();
        }
        self.tally.count(&self.context);
    }
}
