//! Ring arithmetic: indices count modulo 2^16, places modulo the ring's size.

/// How many entries lie from `next` to `index`, unless that is more than the ring holds.
#[must_use]
pub fn distance(next: u16, index: u16, size: u16) -> Option<u16> {
    let distance = index.wrapping_sub(next);
    (distance <= size).then_some(distance)
}

/// Where in a ring of `size` entries (a power of two) an index lies.
#[must_use]
pub fn place(index: u16, size: u16) -> u64 {
    u64::from(index & size.wrapping_sub(1))
}

/// Whether moving from `old` to `new` passes the event index (virtio 1.3, 2.7.10): `event` lies in
/// `[old, new)`.
#[must_use]
pub fn crosses(event: u16, old: u16, new: u16) -> bool {
    event.wrapping_sub(old) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_distance_is_what_was_added(next: u16, added in 0..=256u16, log in 0..=8u32) {
            let size = 1 << log;
            let found = distance(next, next.wrapping_add(added), size);
            prop_assert_eq!(found, (added <= size).then_some(added));
        }

        #[test]
        fn consecutive_indices_fill_the_ring(next: u16, log in 0..=8u32) {
            let size = 1u16 << log;
            let mut places: Vec<u64> = (0..size).map(|n| place(next.wrapping_add(n), size)).collect();
            places.sort_unstable();
            prop_assert!(places.into_iter().eq(0..u64::from(size)));
        }

        #[test]
        fn an_event_is_crossed_by_the_step_that_uses_it(old: u16, steps in 0..=256u16, ahead: u16) {
            let passed = crosses(old.wrapping_add(ahead), old, old.wrapping_add(steps));
            prop_assert_eq!(passed, ahead < steps);
        }
    }
}
