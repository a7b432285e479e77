//! Deterministic mode: the same run gives the same memory and registers. What other architectures make of it is in
//! `foreign.rs`. About 30 s.
#![forbid(unsafe_code)]

use quasar_tests::bare::{DETERMINISTIC, hash};
use quasar_tests::kernel::hash_after;

#[test]
fn bare_programs_end_in_the_same_state() -> anyhow::Result<()> {
    for name in DETERMINISTIC {
        let first = hash(name, &[])?;
        for _ in 0..2 {
            assert_eq!(hash(name, &[])?, first, "{name}");
        }
    }
    Ok(())
}

/// The limit is exact, and one instruction makes a difference.
#[test]
fn a_kernel_can_be_stopped_at_any_instruction() -> anyhow::Result<()> {
    let at = |limit| hash_after(limit, &[]).map(|(hash, _)| hash);
    let hashes = (5000..5006).map(at).collect::<anyhow::Result<Vec<_>>>()?;
    for (index, hash) in hashes.iter().enumerate() {
        assert!(!hashes[..index].contains(hash), "{hashes:?}");
    }
    assert_eq!(at(5003)?, hashes[3]);
    Ok(())
}

#[test]
fn a_kernel_boots_the_same_way_every_time() -> anyhow::Result<()> {
    // Far enough for the console's driver, the first processes and idling.
    let (first, said) = hash_after(1_200_000_000, &[])?;
    assert!(said.contains("Run /init as init process"), "{said}");
    let (second, _) = hash_after(1_200_000_000, &[])?;
    assert_eq!(first, second);
    Ok(())
}
