//! The VM's state beside its memory, as named and versioned payloads.

use crate::message::StatePayload;
use quasar_abi::clock::VmClock;
use quasar_abi::console::{Console, ConsoleSegment};
use quasar_abi::hart::HART_STATE_VERSION;
use quasar_abi::party::{MAX_HARTS, PartyId};
use quasar_abi::saved::{DEVICE_SLOTS, DeviceSlot, SavedDevice};
use quasar_abi::vm::{Vm, VmControl};
use quasar_abi::{AtomicLe64, Segment};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

const VERSION: u32 = 1;
/// Bytes of console history that travel.
const HISTORY_BYTES: u64 = 64 * 1024;

/// A state that this VM cannot take.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A payload is missing.
    #[error("the state has no part {0:?}")]
    Missing(String),
    /// Nobody takes a payload.
    #[error("nobody here takes these parts of the state: {0:?}; the other side is newer")]
    Unconsumed(Vec<String>),
    /// Twice the same.
    #[error("the part {0:?} of the state came twice")]
    Doubled(String),
    /// Another version.
    #[error("part {name:?} of the state has version {found}, this build takes {VERSION}")]
    Version {
        /// Which.
        name: String,
        /// Its version.
        found: u32,
    },
    /// The content is not what it should be.
    #[error("part {name:?} of the state is malformed: {what}")]
    Malformed {
        /// Which.
        name: String,
        /// How.
        what: &'static str,
    },
    /// A device's state does not fit.
    #[error(transparent)]
    Device(#[from] quasar_abi::saved::TooLarge),
}

fn words(bytes: &mut Vec<u8>, words: impl IntoIterator<Item = u64>) {
    bytes.extend(words.into_iter().flat_map(u64::to_le_bytes));
}

/// Segments beside the control block that hold state.
pub struct StateSegments<'a> {
    /// Saved devices.
    pub devices: &'a Segment,
    /// Consoles.
    pub console: &'a Segment,
}

/// Gathers the state of a VM whose parties are all parked. `retired` counts for deterministic time alone.
///
/// # Errors
/// [`StateError::Malformed`] when a segment is too small.
pub fn gather(vm: &Vm, segments: &StateSegments<'_>) -> Result<Vec<StatePayload>, StateError> {
    let mut payloads = vec![];
    let mut add =
        |name: String, bytes: Vec<u8>| payloads.push(StatePayload { name, version: VERSION, bytes });
    for hart in 0..harts(vm) {
        let mut bytes = vec![];
        words(&mut bytes, vm.hart_state[hart].current().words());
        words(&mut bytes, hart_control(vm, hart).map(AtomicLe64::get));
        words(&mut bytes, [vm.hart_control[hart].hsm.get().into()]);
        add(format!("hart{hart}"), bytes);
    }
    let mut bytes = vec![];
    let retired = vm.hart_state[0].current().retired.get();
    let clock = &vm.clock;
    words(&mut bytes, [clock.ticks(retired), clock.mode.get().into(), clock.ns_per_instruction.get()]);
    words(&mut bytes, [clock.wall_offset_ns.get(), retired]);
    add("clock".into(), bytes);
    let mut bytes = vec![];
    words(&mut bytes, vm.notifications.iter().map(AtomicLe64::get));
    words(
        &mut bytes,
        [vm.guest_request.get().into(), vm.guest_request_code.get(), vm.instruction_limit.get()],
    );
    add("control".into(), bytes);
    for (index, slot) in slots(segments.devices)?.iter().enumerate() {
        if let Some(saved) = slot.load() {
            let mut bytes = vec![];
            words(&mut bytes, [saved.version.into(), saved.name.len() as u64]);
            bytes.extend_from_slice(saved.name.as_bytes());
            bytes.extend_from_slice(&saved.bytes);
            add(format!("device{index}"), bytes);
        }
    }
    for (index, console) in consoles(segments.console)?.iter().enumerate() {
        add(format!("console{index}"), gather_console(console));
    }
    Ok(payloads)
}

/// Puts a state into a VM whose parties are all parked; they take it up when they go on. The clock is set
/// to the moment of the pause and goes on from there when [`restart_clock`] is called.
///
/// # Errors
/// [`StateError`]; the VM must not run then.
pub fn apply(
    vm: &Vm,
    segments: &StateSegments<'_>,
    payloads: Vec<StatePayload>,
) -> Result<Ticks, StateError> {
    let mut parts = Parts::new(payloads)?;
    for hart in 0..harts(vm) {
        let mut part = parts.take(&format!("hart{hart}"))?;
        let next = vm.hart_state[hart].next();
        for cell in next.cells() {
            cell.set(part.word()?);
        }
        if next.version.get() != HART_STATE_VERSION {
            return Err(part.malformed("version of the registers"));
        }
        for cell in hart_control(vm, hart) {
            cell.set(part.word()?);
        }
        vm.hart_control[hart].hsm.set(part.word32()?);
        part.end()?;
        vm.hart_state[hart].publish();
    }
    let mut part = parts.take("clock")?;
    let at_pause = part.word()?;
    vm.clock.mode.set(part.word32()?);
    vm.clock.ns_per_instruction.set(part.word()?);
    vm.clock.wall_offset_ns.set(part.word()?);
    let ticks = Ticks { at_pause, retired: part.word()? };
    part.end()?;
    let mut part = parts.take("control")?;
    for cell in &vm.notifications {
        cell.set(part.word()?);
    }
    vm.guest_request.set(part.word32()?);
    vm.guest_request_code.set(part.word()?);
    vm.instruction_limit.set(part.word()?);
    part.end()?;
    for (index, slot) in slots(segments.devices)?.iter().enumerate() {
        match parts.take(&format!("device{index}")) {
            Ok(part) => {
                let saved = part.device()?;
                slot.publish(&saved.name, saved.version, &saved.bytes)?;
            }
            Err(StateError::Missing(_)) => slot.clear(),
            Err(other) => return Err(other),
        }
    }
    for (index, console) in consoles(segments.console)?.iter().enumerate() {
        apply_console(console, parts.take(&format!("console{index}"))?)?;
    }
    parts.end()?;
    Ok(ticks)
}

/// Guest time at the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// In ticks of the time base.
    pub at_pause: u64,
    /// Instructions that hart 0 had retired by then: what deterministic time goes with.
    pub retired: u64,
}

/// Lets the clock go on: by the time that passed since the pause, which in deterministic mode is none.
pub fn restart_clock(clock: &VmClock, ticks: Ticks, passed_ns: u64) {
    let per_tick = 1_000_000_000 / quasar_abi::machine::TIMEBASE_HZ;
    let passed = if clock.is_deterministic() { 0 } else { passed_ns / per_tick };
    clock.start(ticks.at_pause.wrapping_add(passed), ticks.retired);
}

fn harts(vm: &VmControl) -> usize {
    vm.actors().filter(|id| matches!(id, PartyId::Hart(_))).count().min(MAX_HARTS)
}

/// The words of a hart's control block that are state; the rest concerns processes of one host.
fn hart_control(vm: &VmControl, hart: usize) -> impl Iterator<Item = &AtomicLe64> {
    let control = &vm.hart_control[hart];
    [&control.lines, &control.posted, &control.mtimecmp, &control.start_address, &control.start_opaque]
        .into_iter()
}

fn slots(devices: &Segment) -> Result<&[DeviceSlot], StateError> {
    let too_small = |_| StateError::Malformed { name: "devices".into(), what: "the segment is too small" };
    devices.slice(0, DEVICE_SLOTS).map_err(too_small)
}

fn consoles(segment: &Segment) -> Result<&[Console; 2], StateError> {
    let too_small = |_| StateError::Malformed { name: "console".into(), what: "the segment is too small" };
    segment.view::<ConsoleSegment>(0).map(|c| &c.consoles).map_err(too_small)
}

fn gather_console(console: &Console) -> Vec<u8> {
    let written = console.written.load(Ordering::Acquire);
    let mut history = vec![0; usize::try_from(HISTORY_BYTES.min(written)).unwrap_or(0)];
    console.read(written.saturating_sub(HISTORY_BYTES), &mut history);
    let mut input = vec![];
    let (head, tail) =
        (console.input_head.load(Ordering::Acquire), console.input_tail.load(Ordering::Acquire));
    for position in tail..head.min(tail + console.input.len() as u64) {
        let at = usize::try_from(position).unwrap_or(0) % console.input.len();
        input.push(console.input[at].load(Ordering::Relaxed));
    }
    let mut bytes = vec![];
    words(&mut bytes, [written, history.len() as u64, input.len() as u64]);
    bytes.extend(history);
    bytes.extend(input);
    bytes
}

fn apply_console(console: &Console, mut part: Part) -> Result<(), StateError> {
    let (written, history, input) = (part.word()?, part.word()?, part.word()?);
    let rest = part.rest();
    let history = usize::try_from(history).unwrap_or(usize::MAX);
    let Some((history, waiting)) = rest.split_at_checked(history) else {
        return Err(part.malformed("history is shorter than announced"));
    };
    if waiting.len() as u64 != input || history.len() as u64 > written {
        return Err(part.malformed("input has another length than announced"));
    }
    console.written.store(written - history.len() as u64, Ordering::Release);
    console.write(history);
    console.input_tail.store(0, Ordering::Release);
    console.input_head.store(0, Ordering::Release);
    console.push_input(waiting);
    Ok(())
}

/// Payloads by name, each taken once.
struct Parts(BTreeMap<String, StatePayload>);

impl Parts {
    fn new(payloads: Vec<StatePayload>) -> Result<Self, StateError> {
        let mut parts = BTreeMap::new();
        for payload in payloads {
            let name = payload.name.clone();
            if parts.insert(name.clone(), payload).is_some() {
                return Err(StateError::Doubled(name));
            }
        }
        Ok(Self(parts))
    }

    fn take(&mut self, name: &str) -> Result<Part, StateError> {
        let payload = self.0.remove(name).ok_or_else(|| StateError::Missing(name.to_owned()))?;
        if payload.version != VERSION {
            return Err(StateError::Version { name: payload.name, found: payload.version });
        }
        Ok(Part { payload, at: 0 })
    }

    fn end(self) -> Result<(), StateError> {
        if self.0.is_empty() { Ok(()) } else { Err(StateError::Unconsumed(self.0.into_keys().collect())) }
    }
}

struct Part {
    payload: StatePayload,
    at: usize,
}

impl Part {
    fn malformed(&self, what: &'static str) -> StateError {
        StateError::Malformed { name: self.payload.name.clone(), what }
    }

    fn word(&mut self) -> Result<u64, StateError> {
        let word = self.payload.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>());
        let word = u64::from_le_bytes(*word.ok_or_else(|| self.malformed("too short"))?);
        self.at += 8;
        Ok(word)
    }

    fn word32(&mut self) -> Result<u32, StateError> {
        let word = self.word()?;
        u32::try_from(word).map_err(|_| self.malformed("a 32-bit value is larger"))
    }

    fn rest(&self) -> &[u8] {
        self.payload.bytes.get(self.at..).unwrap_or(&[])
    }

    fn end(self) -> Result<(), StateError> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.malformed("too long")) }
    }

    fn device(mut self) -> Result<SavedDevice, StateError> {
        let version = self.word32()?;
        let name = usize::try_from(self.word()?).unwrap_or(usize::MAX);
        let split = self.rest().split_at_checked(name).map(|(n, b)| (n.to_vec(), b.to_vec()));
        let (name, bytes) = split.ok_or_else(|| self.malformed("the name is longer than the part"))?;
        let name = String::from_utf8(name).map_err(|_| self.malformed("the name is no UTF-8"))?;
        Ok(SavedDevice { name, version, bytes })
    }
}
