//! The thread that carries out a disk's requests, one after the other.

use super::request::{Disk, Outcome};
use super::room;
use crate::virtio::shared::Shared;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const REQUESTS: usize = 0;
/// How often it is looked whether the host that the VM left has let the file go.
const LOOK: Duration = Duration::from_millis(5);
/// After this long that is said.
const LONG: Duration = Duration::from_secs(10);

/// Waits until the file is this VM's alone; `false` when it shall go home.
fn wait_for_file(card: &Shared, disk: &Disk) -> bool {
    let (mut since, mut told) = (None, false);
    loop {
        match disk.backing().own() {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) => log::error!("{}: {error}", disk.backing().path().display()),
        }
        if card.stopped() {
            return false;
        }
        let since: &mut Instant = since.get_or_insert_with(Instant::now);
        if card.host.arriving() {
            *since = Instant::now();
        } else if since.elapsed() > LONG && !told {
            told = true;
            log::error!(
                "disk {} is in use by another VM; requests wait for it",
                disk.backing().path().display()
            );
        }
        std::thread::sleep(LOOK);
    }
}

/// Works until the card sends it home.
///
/// The pass covers a request whole, the file's part included: a VM that is parked writes to no disk.
pub fn run(card: &Shared, disk: &Disk) {
    if !wait_for_file(card, disk) {
        return;
    }
    room::resume(card);
    while card.wait_for_work() {
        while let Some(pass) = card.host.gate.enter() {
            let Some((chain, features)) = card.begin_request(REQUESTS) else { break };
            let written = match disk.execute(&card.host.dma, &chain, features) {
                Outcome::Done(written) => written,
                Outcome::NoRoom(what) => {
                    card.put_back();
                    drop(pass);
                    room::wait(card, disk.backing(), what);
                    continue;
                }
            };
            card.counted.fetch_add(1, Ordering::Relaxed);
            card.bytes.fetch_add(chain.readable_len() + chain.writable_len(), Ordering::Relaxed);
            card.finish_request(REQUESTS, &chain, written);
        }
    }
}
