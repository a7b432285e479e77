//! The SBI's reach into the rest of the VM, over its segments.

use super::SbiHost;
use crate::mem::HartRam;
use crate::trap::SSIP;
use quasar_abi::hart::{HartControl, hsm};
use quasar_abi::party::{MAX_HARTS, PartyId, attention, status};
use quasar_abi::vm::Vm;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A stopped hart whose start another hart is preparing; shown as START_PENDING, taken up by nobody. So two
/// harts that start the same third one cannot mix up their start addresses.
const CLAIMED: u32 = 1 << 31 | hsm::START_PENDING;

/// Rounds of yielding before a wait for other harts sleeps between looks.
const YIELDS: u32 = 64;
const NAP: Duration = Duration::from_micros(50);

/// What the SBI needs of the engine that calls it.
pub trait EnginePorts {
    /// Serves the fences that other harts ask of this one, and says whether to go on waiting: false when
    /// the process shall stop or a pause is on. Called again and again during a wait for other harts.
    fn serve_while_waiting(&mut self) -> bool;
    /// Stores a byte to the UART's THR as the guest would.
    fn uart_write(&mut self, byte: u8);
    /// Loads a byte from the UART's RBR when LSR says that there is one.
    fn uart_read(&mut self) -> Option<u8>;
}

/// The real [`SbiHost`].
pub struct SharedHost<'a> {
    /// The VM's control block.
    pub vm: &'a Vm,
    /// Its RAM.
    pub ram: &'a HartRam,
    /// The calling hart.
    pub me: u8,
    /// The calling engine.
    pub engine: &'a mut dyn EnginePorts,
}

impl SharedHost<'_> {
    fn control(&self, hart: u8) -> &HartControl {
        &self.vm.hart_control[usize::from(hart)]
    }

    /// Whether a hart executes nothing now, and serves its fences before it does.
    ///
    /// SeqCst here pairs with the hart's way back: it declares itself running (or started) first and looks
    /// for fences then. So either we see it running and wait, or it sees what we asked for.
    fn at_rest(&self, hart: u8) -> bool {
        self.vm.party(PartyId::Hart(hart)).status.load(Ordering::SeqCst) != status::RUNNING
            || matches!(
                self.control(hart).hsm.load(Ordering::SeqCst),
                hsm::STOPPED | hsm::START_PENDING | CLAIMED
            )
    }

    fn set_own_hsm(&self, state: u32) {
        self.control(self.me).hsm.store(state, Ordering::SeqCst);
    }
}

/// What one hart was asked for: numbers that its acknowledgements must reach.
struct Asked {
    hart: u8,
    sfence: u64,
    fencei: u64,
}

impl SbiHost for SharedHost<'_> {
    fn harts(&self) -> u8 {
        let harts = usize::try_from(self.vm.harts.get()).unwrap_or(usize::MAX).min(MAX_HARTS);
        u8::try_from(harts).unwrap_or(u8::MAX)
    }

    fn send_ipi(&mut self, hart: u8) {
        self.control(hart).posted.fetch_or(SSIP, Ordering::SeqCst);
        self.vm.party(PartyId::Hart(hart)).call(attention::INTERRUPT);
    }

    fn remote_fence(&mut self, harts: u64, sfence: bool, fencei: bool) -> bool {
        let ask = |hart: u8| {
            let control = self.control(hart);
            let asked = Asked {
                hart,
                sfence: if sfence { control.sfence_asked.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 },
                fencei: if fencei { control.fencei_asked.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 },
            };
            self.vm.party(PartyId::Hart(hart)).call(attention::FENCE);
            asked
        };
        let mut waiting: Vec<Asked> =
            (0..self.harts()).filter(|hart| harts >> hart & 1 != 0).map(ask).collect();
        let mut rounds = 0;
        loop {
            waiting.retain(|asked| {
                let control = self.control(asked.hart);
                let served = control.sfence_done.load(Ordering::SeqCst) >= asked.sfence
                    && control.fencei_done.load(Ordering::SeqCst) >= asked.fencei;
                !served && !self.at_rest(asked.hart)
            });
            if waiting.is_empty() {
                return true;
            }
            if !self.engine.serve_while_waiting() {
                return false;
            }
            rounds += 1;
            if rounds < YIELDS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(NAP);
            }
        }
    }

    fn hart_status(&self, hart: u8) -> u32 {
        match self.control(hart).hsm.load(Ordering::SeqCst) {
            CLAIMED => hsm::START_PENDING,
            state => state,
        }
    }

    fn start_hart(&mut self, hart: u8, address: u64, opaque: u64) -> bool {
        let control = self.control(hart);
        let claim = control.hsm.compare_exchange(hsm::STOPPED, CLAIMED, Ordering::SeqCst, Ordering::SeqCst);
        if claim.is_err() {
            return false;
        }
        control.start_address.set(address);
        control.start_opaque.set(opaque);
        control.hsm.store(hsm::START_PENDING, Ordering::SeqCst);
        self.vm.party(PartyId::Hart(hart)).call(attention::HSM);
        true
    }

    fn stopped(&mut self) {
        self.set_own_hsm(hsm::STOPPED);
    }

    fn suspended(&mut self) {
        self.set_own_hsm(hsm::SUSPENDED);
    }

    fn resumed(&mut self) {
        self.set_own_hsm(hsm::STARTED);
    }

    fn reset(&mut self, request: u32, code: u64) {
        self.vm.ask(request, code);
    }

    fn is_ram(&self, gpa: u64, len: u64) -> bool {
        self.ram.contains(gpa, len)
    }

    fn read_ram(&mut self, gpa: u64, bytes: &mut [u8]) -> bool {
        self.ram.read_here(gpa, bytes)
    }

    fn write_ram(&mut self, gpa: u64, bytes: &[u8]) -> bool {
        self.ram.write_here(gpa, bytes)
    }

    fn interrupted(&mut self) -> bool {
        // What a call does must not depend on when a pause comes, in deterministic mode.
        !self.vm.clock.is_deterministic() && !self.engine.serve_while_waiting()
    }

    fn uart_write(&mut self, byte: u8) {
        self.engine.uart_write(byte);
    }

    fn uart_read(&mut self) -> Option<u8> {
        self.engine.uart_read()
    }
}

/// A hart's half of HSM start: takes up a pending start. Returns where to start and what to pass; call
/// [`crate::hart::Hart::start`] with it, and serve pending fences before executing.
#[must_use]
pub fn take_start(vm: &Vm, me: u8) -> Option<(u64, u64)> {
    let control = &vm.hart_control[usize::from(me)];
    let pending = control.hsm.load(Ordering::SeqCst) == hsm::START_PENDING;
    pending.then(|| {
        let start = (control.start_address.get(), control.start_opaque.get());
        control.hsm.store(hsm::STARTED, Ordering::SeqCst);
        start
    })
}
