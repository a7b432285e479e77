//! What the supervisors of two hosts tell each other about a VM, beside what the migrators carry.

use quasar_api::VmSpec;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

/// Version of this document. A later one is refused. It is 3 where its card has an address, and 2 where `silent` says
/// something; then a host that does not know that refuses it.
pub const VERSION: u32 = 3;

/// A VM that comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// [`VERSION`].
    pub version: u32,
    /// What it was made from, with its card's address and its network's name spelt out.
    pub spec: VmSpec,
    /// A user has paused it.
    pub paused: bool,
    /// The host that sends it.
    pub from: HostSwitch,
    /// The host that its network's way out is at.
    pub home: String,
    /// Hosts where it was before, the home included.
    pub trail: Vec<Place>,
    /// Ids of those that the sending host itself has no link to: what the VM does not reach now it need not reach
    /// afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
}

/// The sending host and its switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostSwitch {
    /// The host's id.
    pub id: String,
    /// Where its switch listens; without an address, at the one that the migration comes from.
    pub switch: Option<(Option<IpAddr>, u16)>,
}

/// A host whose switch the VM's network spans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The host's id.
    pub id: String,
    /// Its switch.
    pub switch: SocketAddr,
}

impl Description {
    /// Reads a document from another host or a file.
    ///
    /// # Errors
    /// In words for the user at the other end.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let malformed = |error| format!("the VM's description is malformed: {error}");
        let Versioned { version } = serde_json::from_str(text).map_err(malformed)?;
        if !(1..=VERSION).contains(&version) {
            return Err(format!(
                "the VM is described in version {version}, this host understands {VERSION}; bring both hosts to one \
                 version of Quasar"
            ));
        }
        serde_json::from_str(text).map_err(malformed)
    }

    /// The switches without which the VM's network would not reach the host `own`. At home is what it has to reach.
    #[must_use]
    pub fn needs(&self, own: &str, peer: Option<IpAddr>) -> Vec<String> {
        if self.spec.net.is_none() || self.home == own {
            return vec![];
        }
        let places = self.places(own, peer).into_iter();
        places
            .filter(|place| !self.silent.contains(&place.id))
            .map(|place| place.switch.to_string())
            .collect()
    }

    /// Gives the VM another name, and its own network with it.
    pub fn rename(&mut self, name: &str) {
        let old = std::mem::replace(&mut self.spec.name, name.to_owned());
        if let Some(net) = &mut self.spec.net
            && net.network.as_ref() == Some(&old)
        {
            net.network = Some(name.to_owned());
        }
    }

    /// The switches that the VM's network spans, from the point of view of the host `own`: where it was before,
    /// and where it comes from.
    #[must_use]
    pub fn places(&self, own: &str, peer: Option<IpAddr>) -> Vec<Place> {
        let from = self.from.switch.and_then(|(address, port)| {
            let address = address.or(peer)?;
            Some(Place { id: self.from.id.clone(), switch: SocketAddr::new(address, port) })
        });
        let mut places: Vec<Place> = vec![];
        for place in from.into_iter().chain(self.trail.iter().cloned()) {
            if place.id != own && !places.iter().any(|p| p.id == place.id) {
                places.push(place);
            }
        }
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        let place = |id: &str, port| Place { id: id.into(), switch: SocketAddr::from(([10, 0, 0, 1], port)) };
        Description {
            version: VERSION,
            spec: serde_json::from_value(serde_json::json!({
                "name": "web",
                "machine": {"memory": 1 << 28, "harts": 1, "boot": {"kernel": {"kernel": "/boot/Image"}}},
            }))
            .expect("spec"),
            paused: false,
            from: HostSwitch { id: "b".into(), switch: Some((None, 7)) },
            home: "a".into(),
            trail: vec![place("a", 1), place("b", 2), place("c", 3)],
            silent: vec![],
        }
    }

    #[test]
    fn another_version_is_named_before_its_fields_are_looked_at() {
        let text = serde_json::to_string(&description()).expect("text");
        assert_eq!(Description::parse(&text), Ok(description()));
        let first = Description { version: 1, ..description() };
        let text = serde_json::to_string(&first).expect("text");
        assert!(!text.contains("silent"), "an older host would not understand it");
        assert_eq!(Description::parse(&text), Ok(first));
        let error = Description::parse(r#"{"version":4,"news":1}"#).expect_err("version");
        assert!(error.contains("version 4") && error.contains("understands 3"), "{error}");
        assert!(Description::parse(r#"{"version":1}"#).expect_err("fields").contains("malformed"));
        assert!(Description::parse("").is_err());
    }

    #[test]
    fn what_it_reaches_now_it_must_reach_there() {
        let peer = Some(IpAddr::from([10, 0, 0, 9]));
        let mut comes = description();
        assert_eq!(comes.needs("d", peer), Vec::<String>::new(), "it has no card");
        comes.spec.net = Some(serde_json::from_value(serde_json::json!({})).expect("a card"));
        assert_eq!(comes.needs("d", peer), ["10.0.0.9:7", "10.0.0.1:1", "10.0.0.1:3"]);
        comes.silent = vec!["c".into()];
        assert_eq!(comes.needs("d", peer), ["10.0.0.9:7", "10.0.0.1:1"]);
        assert_eq!(comes.needs("a", peer), Vec::<String>::new(), "it comes home");
    }

    #[test]
    fn each_place_is_linked_once_and_never_oneself() {
        let ids = |own: &str, peer| -> Vec<String> {
            description().places(own, peer).into_iter().map(|p| format!("{} {}", p.id, p.switch)).collect()
        };
        let peer = Some(IpAddr::from([10, 0, 0, 9]));
        assert_eq!(ids("c", peer), ["b 10.0.0.9:7", "a 10.0.0.1:1"]);
        assert_eq!(ids("a", peer), ["b 10.0.0.9:7", "c 10.0.0.1:3"]);
        assert_eq!(ids("d", None), ["a 10.0.0.1:1", "b 10.0.0.1:2", "c 10.0.0.1:3"]);
    }
}
