//! The thread that waits for frames from the switch.

use super::RECEIVE;
use super::port::Port;
use crate::virtio::shared::Shared;

/// Works until the card sends it home. Whoever sends it home rings the port's bell.
pub fn run(card: &Shared, port: &Port) {
    let bell = &port.ring().to_card.data_bell;
    loop {
        let seen = bell.seen();
        let Some(pass) = card.host.gate.enter() else { return };
        if card.stopped() {
            return;
        }
        if port.ring().to_card.has_frames() {
            card.run_queue(RECEIVE);
        }
        drop(pass);
        // Frames that found no buffer wait; the driver's next notification brings them in.
        bell.wait(seen, None);
    }
}
