//! Hosts, their cards and their links.

use quasar_abi::control::migrator::Security;
use quasar_abi::control::netswitch::{LeaseWish, NetswitchCommand, NetswitchReply};
use quasar_abi::frames::{PortSegment, PushError};
use quasar_abi::{Segment, SegmentKind};
use quasar_netswitch::serve::carry_out;
use quasar_netswitch::switch::Switch;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for anything that must happen.
pub const SURELY: Duration = Duration::from_secs(20);

/// Waits until something is so.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let by = Instant::now() + SURELY;
    while !is() {
        assert!(Instant::now() < by, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A host's switch; it ends with the test.
#[derive(Default)]
pub struct Host {
    pub switch: Arc<Switch>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.switch.close();
    }
}

impl Host {
    pub fn try_say(&self, command: NetswitchCommand) -> Result<NetswitchReply, String> {
        carry_out(&self.switch, command).map_err(|e| e.to_string())
    }

    pub fn say(&self, command: NetswitchCommand) -> NetswitchReply {
        self.try_say(command).expect("the command is carried out")
    }

    /// As the API shows them.
    pub fn stats(&self) -> serde_json::Value {
        let NetswitchReply::Stats(report) = self.say(NetswitchCommand::Stats) else { panic!("no report") };
        serde_json::to_value(report).expect("JSON")
    }

    /// Takes links at a free port of the loopback.
    pub fn listen(&self, security: &Security) -> String {
        let listen = NetswitchCommand::Listen { address: "127.0.0.1:0".into(), security: security.clone() };
        let NetswitchReply::Listening { address } = self.say(listen) else { panic!("no address") };
        assert_ne!(address.rsplit(':').next(), Some("0"));
        address
    }

    pub fn link(&self, name: &str, to: &str, security: &Security) {
        let add =
            || NetswitchCommand::AddLink { name: name.into(), to: to.into(), security: security.clone() };
        self.say(add());
        assert_eq!(self.say(add()), NetswitchReply::Done, "a repeated AddLink changes nothing");
    }

    /// Links that carry a network.
    pub fn carried(&self, network: &str) -> usize {
        let stats = self.stats();
        let links = stats["links"].as_array().expect("links");
        links
            .iter()
            .filter(|l| l["networks"].as_array().is_some_and(|n| n.iter().any(|n| n == network)))
            .count()
    }

    pub fn spans(&self, network: &str, links: usize) {
        until(&format!("{links} links carry {network}"), || self.carried(network) == links);
    }

    /// State of a link that this host keeps.
    pub fn link_state(&self, name: &str) -> String {
        let stats = self.stats();
        let links = stats["links"].as_array().expect("links");
        let link = links.iter().find(|l| l["name"] == name).expect("the link");
        link["state"].as_str().expect("a state").to_owned()
    }

    pub fn port(&self, name: &str) -> serde_json::Value {
        let stats = self.stats();
        let networks = stats["networks"].as_array().expect("networks").clone();
        let ports = networks.iter().flat_map(|n| n["ports"].as_array().expect("ports").clone());
        ports.into_iter().find(|p| p["name"] == name).expect("the port")
    }
}

/// Hosts that are all linked with one another without TLS, once each has a card on the network.
pub fn mesh(hosts: &[&Host], network: &str) {
    for (n, host) in hosts.iter().enumerate() {
        let address = host.listen(&Security::Insecure);
        for (m, other) in hosts.iter().enumerate().skip(n + 1) {
            other.link(&format!("{m} to {n}"), &address, &Security::Insecure);
        }
    }
    for host in hosts {
        host.spans(network, hosts.len() - 1);
    }
}

/// A VM's card as the devices process has it.
pub struct Card {
    pub segment: Segment,
    pub name: String,
    pub network: String,
    pub mac: [u8; 6],
}

impl Card {
    /// A card that is attached nowhere yet.
    pub fn new(network: &str, n: u8) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("/quasar-test-{}-{network}-{unique}", std::process::id());
        let segment =
            Segment::create(&name, SegmentKind::Port, size_of::<PortSegment>(), 1).expect("segment");
        let card = Self {
            segment,
            name: format!("{network}/{n}"),
            network: network.into(),
            mac: [2, 0, 0, 0, 0, n],
        };
        card.rings().card_up.store(1, Ordering::Release);
        card
    }

    pub fn attach(host: &Host, network: &str, n: u8) -> Self {
        let card = Self::new(network, n);
        card.attach_to(host);
        card
    }

    /// A card of a VM of this name that the switch serves.
    pub fn served(host: &Host, network: &str, n: u8, name: &str, address: Option<[u8; 4]>) -> Self {
        let card = Self::new(network, n);
        card.serve_at(host, name, address);
        card
    }

    /// Attaches it as a VM that the switch serves.
    pub fn serve_at(&self, host: &Host, name: &str, address: Option<[u8; 4]>) {
        let lease = Some(LeaseWish { name: name.into(), address, way_out: false });
        host.say(NetswitchCommand::AttachPort {
            network: self.network.clone(),
            port: self.name.clone(),
            rings: self.segment.grant(),
            mac: self.mac,
            lease,
        });
    }

    pub fn attach_to(&self, host: &Host) {
        let attach = NetswitchCommand::AttachPort {
            network: self.network.clone(),
            port: self.name.clone(),
            rings: self.segment.grant(),
            mac: self.mac,
            lease: None,
        };
        assert_eq!(host.say(attach.clone()), NetswitchReply::Done);
        assert_eq!(host.say(attach), NetswitchReply::Done, "a repeated attach changes nothing");
    }

    pub fn rings(&self) -> &PortSegment {
        self.segment.view(0).expect("rings")
    }

    pub fn send(&self, to: [u8; 6], payload: &[u8]) {
        self.send_frame(&[&to[..], &self.mac, &[0x88, 0xb5], payload].concat());
    }

    pub fn send_frame(&self, frame: &[u8]) {
        while self.rings().to_switch.push(frame) == Err(PushError::Full) {
            std::thread::yield_now();
        }
    }

    /// The next frame, if there is one within the time.
    pub fn frame_within(&self, time: Duration) -> Option<Vec<u8>> {
        let (ring, by) = (&self.rings().to_card, Instant::now() + time);
        let mut frame = vec![];
        loop {
            let seen = ring.data_bell.seen();
            if ring.pop(&mut frame).expect("whole ring") {
                return Some(frame);
            }
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            ring.data_bell.wait(seen, Some(left));
        }
    }

    /// The payload of the next frame that is the tests' own.
    pub fn receive(&self) -> Vec<u8> {
        loop {
            let mut frame = self.frame_within(SURELY).expect("a frame comes");
            if frame[12..14] == [0x88, 0xb5] {
                return frame.split_off(14);
            }
        }
    }
}

pub const BROADCAST: [u8; 6] = [0xff; 6];

/// An authority and certificates of its hosts.
pub struct Authority {
    dir: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = params.self_signed(&key).expect("certificate");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("write");
        Self { dir, issuer: rcgen::Issuer::new(params, key) }
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A host's certificate; it shows `dns` as its name.
    pub fn issue(&self, host: &str, dns: &str) -> Security {
        let params = rcgen::CertificateParams::new(vec![dns.into(), host.into()]).expect("parameters");
        let key = rcgen::KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate");
        let at = |kind: &str| self.dir.path().join(format!("{host}.{kind}"));
        std::fs::write(at("pem"), certificate.pem()).expect("write");
        std::fs::write(at("key"), key.serialize_pem()).expect("write");
        Security::MutualTls { authority: self.certificate(), certificate: at("pem"), key: at("key") }
    }
}
