//! Suspend: the source's role with a file in the place of the peer.
//!
//! The stream is that of a migration without its dialogue: machine, one round, state, final. The file
//! appears under its name when it is whole and on the disk.

use crate::frame::{FrameWriter, Kind};
use crate::message::{self, Codec, Final, RoundEnd};
use crate::pages::BATCH_PAGES;
use crate::pump::{Guest, Outlet};
use crate::source::AttachedVm;
use crate::state::gather;
use crate::target::Target;
use quasar_abi::control::migrator::{LocalVm, Suspended};
use quasar_abi::hash;
use quasar_abi::ram::PAGE_BYTES;
use quasar_abi::vm::{pause, request};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Zstandard's level for files: they are written once and kept.
const FILE_LEVEL: i32 = 3;

/// Writes the VM to `file` and leaves it paused; on failure it goes on as before and no file is left.
///
/// # Errors
/// When the VM cannot be read or the file cannot be written.
pub fn suspend(local: &LocalVm, file: &Path, cancelled: &Arc<AtomicBool>) -> anyhow::Result<Suspended> {
    let attached = AttachedVm::open(local, false)?;
    attached.vm.pause(pause::MIGRATOR);
    let result = Target::create(file).and_then(|target| {
        let done = write(&attached, local, target.file(), cancelled)?;
        target.appear()?;
        Ok(done)
    });
    if result.is_err() {
        attached.vm.unpause(pause::MIGRATOR);
    }
    result
}

fn write(
    attached: &AttachedVm,
    local: &LocalVm,
    target: &File,
    cancelled: &Arc<AtomicBool>,
) -> anyhow::Result<Suspended> {
    attached.vm.wait_at_rest(Duration::from_secs(5))?;
    if attached.vm.guest_request.load(Ordering::Acquire) != request::NONE {
        anyhow::bail!("the guest is powering off or rebooting right now; try again when it is up");
    }
    let mut out = FrameWriter::new(BufWriter::with_capacity(1 << 20, target));
    out.write(Kind::Machine, &message::encode(&attached.machine(local))?)?;
    let mut outlet = Outlet::new(&attached.areas, vec![Codec::Zstd], 0, Arc::clone(cancelled));
    outlet.zstd_level = FILE_LEVEL;
    outlet.batch_pages = BATCH_PAGES;
    let mut pages = vec![];
    for area in &attached.areas {
        pages.push(area.store.populated()?.into_iter().flatten().collect());
    }
    let sent = outlet.send(&mut out, &pages, Guest::Paused, &mut |_| ())?;
    out.write(Kind::RoundEnd, &message::encode(&RoundEnd { round: 0, pages: sent.pages, last: true })?)?;
    let payloads = gather(&attached.vm, &attached.state_segments())?;
    let encoded: Vec<Vec<u8>> = payloads.iter().map(message::encode).collect::<Result<_, _>>()?;
    for payload in &encoded {
        out.write(Kind::State, payload)?;
    }
    let hash = hash::whole(attached.areas.iter().map(|a| &a.hashes), encoded.iter().map(Vec::as_slice));
    out.write(Kind::Final, &message::encode(&Final { hash, payloads: u32::try_from(encoded.len())? })?)?;
    out.flush()?;
    Ok(Suspended {
        file_bytes: out.bytes(),
        raw_bytes: (sent.pages - sent.zero) * PAGE_BYTES,
        hash: hash.iter().map(|b| format!("{b:02x}")).collect(),
    })
}
