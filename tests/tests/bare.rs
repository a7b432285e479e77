//! Bare programs of our own, `guest/bare/*.S`, under `quasar isa run`; see `quasar_tests::bare`.
#![forbid(unsafe_code)]

use quasar_tests::bare::{PROGRAMS, check};

#[test]
fn all_programs_have_a_test() {
    let here = include_str!("bare.rs");
    assert!(PROGRAMS.iter().all(|name| here.contains(&format!("check(\"{name}\""))));
}

#[test]
fn atomics() {
    check("atomics", &[]);
}

#[test]
fn fencei() {
    check("fencei", &[]);
}

#[test]
fn pagefault() {
    check("pagefault", &[]);
}

#[test]
fn timer() {
    check("timer", &[]);
}

#[test]
fn interrupts() {
    check("interrupts", &[]);
}

#[test]
fn htif() {
    check("htif", &[]);
}

#[test]
fn limit() {
    check("limit", &[]);
}

#[test]
fn wfi() {
    check("wfi", &[]);
}

#[test]
fn float() {
    check("float", &[]);
}

#[test]
fn clockwork() {
    check("clockwork", &[]);
}
