//! The same stream in a file.

use crate::guest::{Guest, Manners, PAGES, RAM, differences, while_writing};
use parking_lot::Mutex;
use quasar_abi::machine::RAM_BASE;
use quasar_abi::vm::pause;
use quasar_migrator::{resume, suspend};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[test]
fn a_suspended_guest_resumes_and_a_damaged_file_is_refused() {
    let (from, to) = (Guest::new("file"), Guest::new("file"));
    let directory = tempfile::tempdir().expect("directory");
    let file: PathBuf = directory.path().join("vm.quasar");
    let written = while_writing(&from, Manners::Right, PAGES / 4, || {
        suspend::suspend(&from.local, &file, &Arc::default()).expect("suspend")
    });
    assert!(written.file_bytes < written.raw_bytes / 4, "{written:?}");
    let inspection = resume::inspect(&file).expect("inspect");
    assert_eq!((inspection.ram_bytes, inspection.harts, &inspection.hash), (RAM, 1, &written.hash));
    assert!(inspection.state.iter().any(|(name, ..)| name == "hart0"));

    to.vm.pause(pause::MIGRATOR);
    let bytes = std::fs::read(&file).expect("file");
    let damaged = directory.path().join("damaged.quasar");
    let untouched = Mutex::new(0);
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut copy = bytes.clone();
        copy[at] ^= 1;
        std::fs::write(&damaged, copy).expect("write");
        let error = resume::resume(&damaged, |_| Ok(to.local.clone())).expect_err("damage");
        assert!(format!("{error:#}").contains("damaged.quasar"), "{error:#}");
        assert!(resume::inspect(&damaged).is_err());
        assert_ne!(to.vm.pause_mask.load(Ordering::SeqCst), 0);
        *untouched.lock() += 1;
    }
    for end in (0..bytes.len()).step_by(bytes.len() / 40).chain([1, 23, 24, bytes.len() - 1]) {
        std::fs::write(&damaged, &bytes[..end]).expect("write");
        let resumed = resume::resume(&damaged, |_| Ok(to.local.clone())).expect_err("cut");
        for error in [resumed, resume::inspect(&damaged).expect_err("cut")] {
            let words = quasar_abi::words::whole(error.as_ref());
            assert!(words.contains("damaged.quasar") && words.contains("is cut"), "{words}");
            assert!(words.contains(&format!("at byte {end},")), "{end}: {words}");
            assert_eq!(words.matches("cut").count(), 1, "{words}");
        }
    }

    to.ram.fill(RAM_BASE, 0, RAM).expect("RAM");
    resume::resume(&file, |_| Ok(to.local.clone())).expect("resume");
    assert_eq!(differences(&from, &to), Vec::<u64>::new());
    assert_eq!(to.vm.pause_mask.load(Ordering::SeqCst), 0);
}
