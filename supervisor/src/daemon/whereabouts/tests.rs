use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Debug, Default)]
struct Trip(AtomicBool);

impl Travel for Trip {
    fn has_ended(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn way(&self) -> String {
        "to there".into()
    }
}

type Names = Registry<u32, Trip>;

fn view(name: &str) -> VmView {
    serde_json::from_value(serde_json::json!({
        "name": name, "phase": "running", "reason": null, "processes": [], "reboots": 0, "memory": 4096, "harts": 1,
        "network": null, "address": null, "publish": [], "created": 0, "journey": null, "links_down": [],
        "spec": {"name": name, "machine": {"memory": 1 << 28, "harts": 1, "boot": {"kernel": {"kernel": "/boot/Image"}}}},
    }))
    .expect("view")
}

fn away(at: &str) -> Away {
    Away { at: at.into(), view: Box::new(view("web")) }
}

/// A registry with a VM of this name.
fn with_vm() -> (Names, Arc<u32>) {
    let (mut names, vm) = (Names::default(), Arc::new(1));
    names.reserve("web", false, vec![]).expect("free");
    names.made("web", Arc::clone(&vm), false).expect("nobody ends");
    (names, vm)
}

fn claim(path: &str) -> Claim {
    let id = crate::daemon::disks::DiskId::File { device: 1, inode: 2 };
    Claim { path: path.into(), id, read_only: false }
}

#[test]
fn a_name_is_one_vms() {
    let mut names = Names::default();
    assert!(matches!(names.find("web"), Err(HostError::Unknown(_))));
    names.reserve("web", false, vec![claim("/a")]).expect("free");
    assert!(matches!(names.reserve("web", false, vec![]), Err(HostError::Exists(_))));
    assert!(matches!(names.find("web"), Err(HostError::Unknown(_))), "it is not there yet");
    assert_eq!(
        names.claims().map(|(name, _)| name).collect::<Vec<_>>(),
        ["web"],
        "its disks are taken already"
    );
    assert_eq!(names.others().count(), 0);
    names.made("web", Arc::new(1), false).expect("nobody ends");
    assert!(matches!(names.reserve("web", true, vec![]), Err(HostError::Exists(_))));
    assert_eq!((*names.find("web").expect("there"), names.len(), names.claims().count()), (1, 1, 0));
}

#[test]
fn what_could_not_be_made_leaves_what_was_there() {
    let mut names = Names::default();
    names.reserve("web", false, vec![]).expect("free");
    assert!(!names.not_made("web"));
    assert!(names.is_empty());
    let (mut names, vm) = with_vm();
    names.restart("web", &vm, view("web"), vec![claim("/a")]).expect("it has stopped");
    assert!(matches!(names.find("web"), Err(HostError::NotNow { .. })));
    assert_eq!((names.others().count(), names.claims().count(), names.len()), (1, 1, 1));
    assert!(names.restart("web", &vm, view("web"), vec![]).is_err(), "one start is enough");
    assert!(names.not_made("web"));
    assert_eq!(*names.find("web").expect("the one before"), 1);
    names.restart("web", &vm, view("web"), vec![]).expect("it has stopped");
    names.made("web", Arc::new(2), false).expect("nobody ends");
    assert_eq!(*names.find("web").expect("the new one"), 2);
    assert!(!names.leave("web", &vm), "the old one is nobody's any more");
    names.left("web", &vm, None);
    assert_eq!(*names.find("web").expect("the new one"), 2);
}

#[test]
fn a_vm_goes_and_comes_home() {
    let (mut names, vm) = with_vm();
    let trip = Arc::new(Trip::default());
    names.set_out("web", &vm, &trip).expect("at home");
    assert!(matches!(names.set_out("web", &vm, &trip), Err(HostError::Travelling { .. })));
    names.handed_over("web", &vm, true);
    trip.0.store(true, Ordering::Relaxed);
    assert!(names.journey("web").is_none() && names.last_journey("web").is_some());
    assert!(names.is_kept("web", &vm));
    assert!(names.leave("web", &vm));
    names.left("web", &vm, Some(away("there")));
    assert!(matches!(names.find("web"), Err(HostError::Away { at, .. }) if at == "there"));
    assert!(
        matches!(names.reserve("web", false, vec![]), Err(HostError::Away { .. })),
        "another one of its name"
    );
    assert_eq!((names.len(), names.is_empty()), (0, false));

    // Once in vain, once well.
    for arrives in [false, true] {
        names.reserve("web", true, vec![]).expect("it comes home");
        assert!(matches!(names.find("web"), Err(HostError::Away { .. })), "it runs there until it runs here");
        assert_eq!(names.others().count(), 1);
        let back = Arc::new(2);
        names.made("web", Arc::clone(&back), true).expect("nobody ends");
        assert!(names.never_arrived("web", &back));
        if arrives {
            names.arrived("web", &back);
            assert!(!names.never_arrived("web", &back));
            names.leave("web", &back);
            names.left("web", &back, None);
            assert!(names.is_empty());
        } else {
            names.leave("web", &back);
            assert!(names.never_arrived("web", &back), "while it goes as well");
            names.left("web", &back, None);
            assert!(matches!(names.find("web"), Err(HostError::Away { .. })), "it is where it was");
        }
    }
}

#[test]
fn one_that_ended_elsewhere_is_not_listed_again() {
    let setups: [fn(&mut Names); 3] = [
        |_| {},
        |names| names.reserve("web", true, vec![]).expect("it comes home"),
        |names| {
            names.reserve("web", true, vec![]).expect("it comes home");
            names.made("web", Arc::new(2), true).expect("nobody ends");
        },
    ];
    for setup in setups {
        let (mut names, vm) = with_vm();
        names.leave("web", &vm);
        names.left("web", &vm, Some(away("there")));
        setup(&mut names);
        names.forget("web");
        if let Ok(vm) = names.find("web") {
            names.leave("web", &vm);
            names.left("web", &vm, None);
        } else {
            names.not_made("web");
        }
        assert!(names.is_empty());
    }
    let (mut names, vm) = with_vm();
    names.forget("web");
    assert!(names.is_here("web", &vm), "one that is here is not forgotten");
}

#[test]
fn a_doubt_keeps_what_is_known_until_somebody_decides() {
    let doubt = Doubt { at: "there".into(), shared_disk: true };
    for kept in [false, true] {
        let (mut names, vm) = with_vm();
        names.handed_over("web", &vm, kept);
        names.in_doubt("web", &vm, doubt.clone());
        assert_eq!((names.doubt("web"), names.is_kept("web", &vm)), (Some(doubt.clone()), kept));
        assert!(matches!(names.restart("web", &vm, view("web"), vec![]), Err(HostError::NotNow { .. })));
        names.stayed("web", &vm);
        assert_eq!((names.doubt("web"), names.is_kept("web", &vm)), (None, false));
    }
    let (mut names, vm) = with_vm();
    names.leave("web", &vm);
    names.in_doubt("web", &vm, doubt);
    assert_eq!(names.doubt("web"), None, "it is going");
    assert!(names.restart("web", &vm, view("web"), vec![]).is_err());
    assert!(names.set_out("web", &vm, &Arc::default()).is_err());
}

#[test]
fn nothing_is_made_on_a_host_that_ends() {
    let (mut names, vm) = with_vm();
    names.reserve("db", false, vec![]).expect("free");
    names.end();
    assert!(matches!(names.reserve("other", false, vec![]), Err(HostError::Ending)));
    assert!(matches!(names.restart("web", &vm, view("web"), vec![]), Err(HostError::Ending)));
    assert_eq!(names.made("db", Arc::new(7), false), Err(Arc::new(7)), "it is to be unmade");
    assert!(matches!(names.find("db"), Err(HostError::Unknown(_))));
    names.clear();
    assert!(names.is_empty() && names.is_ending());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve(bool),
    Made(bool),
    NotMade,
    Restart,
    Arrived,
    HandedOver(bool),
    InDoubt,
    Stayed,
    Leave,
    Left(bool),
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        any::<bool>().prop_map(Reserve),
        any::<bool>().prop_map(Made),
        Just(NotMade),
        Just(Restart),
        Just(Arrived),
        any::<bool>().prop_map(HandedOver),
        Just(InDoubt),
        Just(Stayed),
        Just(Leave),
        any::<bool>().prop_map(Left),
        Just(Forget),
    ]
}

proptest! {
    /// Whatever order steps come in: a VM that is here goes by being ended alone, never into thin air; who is in doubt
    /// is here; and one name is at most one VM.
    #[test]
    fn no_vm_is_lost(steps in prop::collection::vec(step(), 1..60)) {
        let (mut names, mut vms) = (Names::default(), vec![Arc::new(0)]);
        let mut left = BTreeSet::new();
        for step in steps {
            let last = Arc::clone(vms.last().expect("one"));
            let before = names.find("web").ok();
            let making = matches!(names.places.get("web"), Some(Whereabouts::Making { .. } | Whereabouts::Restarting { .. }));
            let restarting = matches!(names.places.get("web"), Some(Whereabouts::Restarting { .. }));
            match step {
                Step::Reserve(home) => drop(names.reserve("web", home, vec![])),
                // Whoever makes one has kept the name.
                Step::Made(arrives) if making => {
                    let vm = Arc::new(u32::try_from(vms.len()).expect("few"));
                    vms.push(Arc::clone(&vm));
                    prop_assert!(names.made("web", Arc::clone(&vm), arrives && !restarting).is_ok());
                    prop_assert!(names.is_here("web", &vm));
                }
                Step::Made(_) => {}
                Step::NotMade if making => drop(names.not_made("web")),
                Step::NotMade => {}
                Step::Restart => drop(names.restart("web", &last, view("web"), vec![])),
                Step::Arrived => names.arrived("web", &last),
                Step::HandedOver(kept) => names.handed_over("web", &last, kept),
                Step::InDoubt => names.in_doubt("web", &last, Doubt { at: "there".into(), shared_disk: false }),
                Step::Stayed => names.stayed("web", &last),
                Step::Leave => drop(names.leave("web", &last)),
                Step::Left(is_away) => {
                    if names.leave("web", &last) {
                        left.insert(*last);
                        names.left("web", &last, is_away.then(|| away("there")));
                    }
                }
                Step::Forget => names.forget("web"),
            }
            if let Some(before) = before {
                let restarts = matches!(names.places.get("web"), Some(Whereabouts::Restarting { .. }));
                prop_assert!(names.is_here("web", &before) || restarts || left.contains(&*before), "{step:?}");
            }
            prop_assert!(names.doubt("web").is_none() || names.find("web").is_ok());
            prop_assert!(names.places.len() <= 1);
        }
    }
}
