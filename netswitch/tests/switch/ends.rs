//! VMs that end on another host than the one where their network's way out is.

use crate::hosts::{Card, Host, mesh, until};
use parking_lot::Mutex;
use quasar_abi::control::netswitch::{NetswitchCommand, NetworkEvent};
use std::sync::Arc;

/// What a host's switch tells by itself of VMs that have ended.
fn news(host: &Host) -> Arc<Mutex<Vec<NetworkEvent>>> {
    let heard = Arc::<Mutex<Vec<NetworkEvent>>>::default();
    let list = Arc::clone(&heard);
    host.switch.listen_to(Box::new(move |event| {
        if matches!(event, NetworkEvent::Ended { .. }) {
            list.lock().push(event);
        }
    }));
    heard
}

fn end(host: &Host, card: &Card) {
    host.say(NetswitchCommand::EndPort { port: card.name.clone() });
    host.say(NetswitchCommand::EndPort { port: card.name.clone() });
}

/// Comes to B from A, where another card shows that the network stays.
fn away(a: &Host, b: &Host, network: &str) -> Card {
    let vm = Card::attach(a, network, 9);
    mesh(&[a, b], network);
    b.say(NetswitchCommand::HoldPort { port: vm.name.clone() });
    let there = Card::new(network, 9);
    there.attach_to(b);
    a.say(NetswitchCommand::MovePort { port: vm.name });
    b.say(NetswitchCommand::ReleasePort { port: there.name.clone(), addresses: vec![] });
    there
}

#[test]
fn a_vm_that_ends_abroad_is_named_to_its_home_and_one_that_is_detached_is_not() {
    let (a, b) = (Host::default(), Host::default());
    let (_near, _far) = (Card::attach(&a, "ends", 1), Card::attach(&b, "ends", 2));
    let heard = news(&a);
    let vm = away(&a, &b, "ends");
    let other = Card::attach(&b, "ends", 7);
    b.say(NetswitchCommand::DetachPort { port: other.name.clone() });
    end(&b, &vm);
    let ended = NetworkEvent::Ended { network: "ends".into(), mac: vm.mac };
    until("home hears of it", || !heard.lock().is_empty());
    assert_eq!(*heard.lock(), [ended]);
}

#[test]
fn who_had_no_link_in_that_moment_hears_of_it_later() {
    let (a, b) = (Host::default(), Host::default());
    let (_near, _far) = (Card::attach(&a, "later", 1), Card::attach(&b, "later", 2));
    let heard = news(&a);
    end(&b, &Card::attach(&b, "later", 9));
    mesh(&[&a, &b], "later");
    until("home hears of it", || !heard.lock().is_empty());
}

#[test]
fn who_has_a_vm_of_that_address_does_not_believe_that_it_has_ended() {
    let (b, c) = (Host::default(), Host::default());
    let (far, namesake) = (Card::attach(&b, "same", 2), Card::attach(&c, "same", 9));
    let unheard = news(&c);
    end(&b, &Card::attach(&b, "same", 9));
    mesh(&[&b, &c], "same");
    // What was said of the end when the link was new comes before this.
    far.send(namesake.mac, &[1]);
    assert_eq!(namesake.receive(), [1]);
    assert!(unheard.lock().is_empty());
}
