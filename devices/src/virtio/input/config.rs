//! The power key's configuration space (virtio 1.3, 5.8.4): the driver selects, the device shows.

/// `KEY_POWER` of Linux's input event codes.
pub const KEY_POWER: u16 = 116;
/// `EV_KEY`.
pub const EV_KEY: u16 = 1;
/// Bytes of the space.
pub const BYTES: usize = 8 + 128;

const ID_NAME: u8 = 0x01;
const ID_DEVIDS: u8 = 0x03;
const EV_BITS: u8 = 0x11;
const BUS_VIRTUAL: u16 = 6;
const NAME: &[u8] = b"Quasar power button";

/// What the driver reads for a selection; nothing for what the device has not.
#[must_use]
pub fn shown(select: u8, subsel: u8) -> Vec<u8> {
    match (select, subsel) {
        (ID_NAME, 0) => NAME.to_vec(),
        (ID_DEVIDS, 0) => [BUS_VIRTUAL, 0, 1, 1].into_iter().flat_map(u16::to_le_bytes).collect(),
        (EV_BITS, subsel) if u16::from(subsel) == EV_KEY => {
            let mut keys = vec![0; usize::from(KEY_POWER) / 8 + 1];
            keys[usize::from(KEY_POWER) / 8] = 1 << (KEY_POWER % 8);
            keys
        }
        _ => vec![],
    }
}

/// The whole space for a selection.
#[must_use]
pub fn space(select: u8, subsel: u8) -> Vec<u8> {
    let shown = shown(select, subsel);
    let mut space = vec![0; BYTES];
    space[0] = select;
    space[1] = subsel;
    space[2] = u8::try_from(shown.len()).unwrap_or(0);
    space[8..8 + shown.len()].copy_from_slice(&shown);
    space
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_and_nothing_else() {
        assert_eq!(space(EV_BITS, 1)[2], 15);
        assert_eq!(space(EV_BITS, 1)[8 + 14], 0x10);
        assert_eq!(&space(ID_NAME, 0)[8..8 + NAME.len()], NAME);
        for (select, subsel) in [(EV_BITS, 0), (EV_BITS, 2), (0x10, 0), (0x12, 0), (0xff, 0xff), (ID_NAME, 1)]
        {
            assert_eq!(space(select, subsel)[2], 0);
        }
    }
}
