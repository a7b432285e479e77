use super::*;
use crate::children::standin::{self, BROKEN, STOPPED};
use crate::machine::segments;
use quasar_abi::Segment;
use quasar_abi::control::ProcessKind;

struct Scene {
    network: NetworkHandle,
    port: Segment,
    _programs: tempfile::TempDir,
}

fn scene(name: &str, script: &str) -> Scene {
    let (programs, launcher) = standin::launcher(script, &[ProcessKind::Netswitch]);
    let log = Arc::new(standin::log(&programs));
    let (ended, _) = crossbeam_channel::unbounded();
    let network = NetworkHandle::start(launcher, programs.path().to_owned(), log, ended).expect("thread");
    let port = segments::create_port(&format!("keeper-{name}")).expect("port");
    Scene { network, port, _programs: programs }
}

impl Scene {
    fn attach(&self) -> Result<(), String> {
        self.network.attach(Attachment {
            vm: "web".into(),
            network: "lan".into(),
            rings: self.port.grant(),
            mac: [2, 0, 0, 0, 0, 1],
            uplink: UplinkSpec::None,
            publish: vec![],
            way_out: false,
            outer: false,
            address: None,
            held: false,
        })
    }
}

#[test]
fn a_switch_that_dies_again_and_again_is_told_to_who_waits() {
    let scene = scene("broken", BROKEN);
    let refused = scene.attach().expect_err("no switch");
    assert!(refused.contains("ended with exit status 3, 6 times in a row"), "{refused}");
    // Nobody wants one any more.
    assert_eq!(scene.network.stats().map(|report| report.is_none()), Ok(true));
    assert!(scene.network.processes().is_empty());
    assert!(!scene.network.depart("web"), "it has no port");
    let refused = scene.network.signal(None, 9).expect_err("no switch");
    assert!(refused.contains("no switch"), "{refused}");
    scene.network.stop();
    assert!(scene.attach().expect_err("it has ended").contains("ending"));
}

#[test]
fn one_that_is_stopped_keeps_nobody_waiting() {
    let scene = scene("stopped", STOPPED);
    let refused = scene.attach().expect_err("no switch");
    // Each of them is found to hang; the port's own time is over before they were that many.
    assert!(refused.contains("is stopped") || refused.contains("did not come up"), "{refused}");
    scene.network.stop();
}
