//! Resume: the destination's role with a file in the place of the peer; and a look into such a file.

use crate::connection::decode;
use crate::destination::{keep_disks, put_in_force, take_stream};
use crate::frame::{FrameReader, Kind};
use crate::message::{self, Final, Machine, RoundEnd, StatePayload};
use crate::pages::Unpacker;
use crate::pump::Inlet;
use crate::source::AttachedVm;
use crate::state::restart_clock;
use anyhow::{Context, bail};
use quasar_abi::control::migrator::LocalVm;
use quasar_abi::eintr::retry;
use quasar_abi::files::{self, Access};
use quasar_abi::machine::TIMEBASE_HZ;
use quasar_abi::vm::pause;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn open(file: &Path) -> anyhow::Result<FrameReader<BufReader<File>>> {
    let input =
        files::open(file, Access::Read).with_context(|| format!("cannot open {}", file.display()))?.file;
    Ok(FrameReader::new(BufReader::with_capacity(1 << 20, input)))
}

fn machine<R: Read>(input: &mut FrameReader<R>) -> anyhow::Result<Machine> {
    let (kind, payload) = input.read()?;
    Ok(decode(kind, Kind::Machine, &payload)?)
}

fn end<R: Read>(input: &mut FrameReader<R>) -> anyhow::Result<()> {
    match retry(|| input.get_mut().read(&mut [0]))? {
        0 => Ok(()),
        _ => bail!("there is something behind the end of the stream"),
    }
}

/// Reads a VM from a file and lets it go on. `prepare` has the supervisor make it.
///
/// # Errors
/// When the file is damaged (naming what is), or not for this build; nothing of the VM may be kept.
pub fn resume(file: &Path, prepare: impl FnOnce(&Machine) -> anyhow::Result<LocalVm>) -> anyhow::Result<()> {
    let damaged = || format!("{} cannot be resumed", file.display());
    let mut input = open(file)?;
    let machine = machine(&mut input).with_context(damaged)?;
    let local = prepare(&machine)?;
    let mut attached = AttachedVm::open(&local, true)?;
    let ours = Machine { description: machine.description.clone(), ..attached.machine(&local) };
    if ours != machine {
        bail!("the VM made here ({ours:?}) is not the one in the file");
    }
    let areas = Arc::new(std::mem::take(&mut attached.areas));
    let stream =
        take_stream(&mut input, &Inlet::new(Arc::clone(&areas)), |_| Ok(())).with_context(damaged)?;
    end(&mut input).with_context(damaged)?;
    let (_, ticks) = put_in_force(&attached, &areas, stream).with_context(damaged)?;
    keep_disks(&local)?;
    // Guest time is wall-clock time minus a constant, so that it goes on by the time that passed.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    let guest_now = now.wrapping_sub(attached.vm.clock.wall_offset_ns.get());
    let at_pause = ticks.at_pause.saturating_mul(1_000_000_000 / TIMEBASE_HZ);
    restart_clock(&attached.vm.clock, ticks, guest_now.saturating_sub(at_pause));
    attached.vm.unpause(pause::MIGRATOR);
    Ok(())
}

/// What is in a file.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Inspection {
    /// The supervisors' description of the VM (JSON).
    pub description: String,
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// Harts.
    pub harts: u32,
    /// Bytes of each disk inside, by slot.
    pub disks: Vec<(u8, u64)>,
    /// Pages that are not zero.
    pub pages: u64,
    /// Zero pages named explicitly.
    pub zero_pages: u64,
    /// Bytes of pages as compressed.
    pub compressed_bytes: u64,
    /// Parts of the state: name, version, bytes.
    pub state: Vec<(String, u32, usize)>,
    /// Hash over RAM and state, hexadecimal.
    pub hash: String,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// Reads a whole file, checking every frame and batch, without making a VM.
///
/// # Errors
/// When it is damaged, naming what is.
pub fn inspect(file: &Path) -> anyhow::Result<Inspection> {
    let damaged = || format!("{} is damaged", file.display());
    let mut input = open(file)?;
    let machine = machine(&mut input).with_context(damaged)?;
    let mut found = Inspection {
        description: machine.description,
        ram_bytes: machine.ram_bytes,
        harts: machine.harts,
        disks: machine.disks,
        ..Inspection::default()
    };
    let mut unpacker = Unpacker::default();
    loop {
        let (kind, payload) = input.read().with_context(damaged)?;
        match kind {
            Kind::Pages => {
                let batch = unpacker.unpack(&payload).with_context(damaged)?;
                let zero = batch.pages.iter().filter(|(_, zero)| *zero).count() as u64;
                found.zero_pages += zero;
                found.pages += batch.pages.len() as u64 - zero;
                found.compressed_bytes += payload.len() as u64;
            }
            Kind::RoundEnd => drop(message::decode::<RoundEnd>(&payload).with_context(damaged)?),
            Kind::State => {
                let state: StatePayload = message::decode(&payload).with_context(damaged)?;
                found.state.push((state.name, state.version, state.bytes.len()));
            }
            other => {
                let last: Final = decode(other, Kind::Final, &payload).with_context(damaged)?;
                end(&mut input).with_context(damaged)?;
                found.hash = last.hash.iter().map(|b| format!("{b:02x}")).collect();
                found.file_bytes = input.bytes();
                return Ok(found);
            }
        }
    }
}
