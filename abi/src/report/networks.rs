//! What the host's switch has counted.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// The switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworksReport {
    /// By name.
    pub networks: Vec<NetworkReport>,
    /// To other hosts' switches.
    pub links: Vec<LinkReport>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkReport {
    /// Its name.
    pub name: String,
    /// What is attached.
    pub ports: Vec<PortReport>,
    /// Who is where.
    pub addresses: Vec<AddressReport>,
}

/// What a port leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortKind {
    /// A VM's card.
    Card,
    /// A TAP interface.
    Tap,
    /// A program of passt's protocol.
    Stream,
    /// Another host's switch.
    Link,
}

/// Whether a VM's port passes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// It does.
    Open,
    /// Its VM is elsewhere still.
    Expecting,
    /// Its VM is on the way: frames are kept.
    Holding,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// Its name.
    pub name: String,
    /// What it leads to.
    pub kind: PortKind,
    /// Whether it passes frames.
    pub state: PortState,
    /// Frames kept.
    pub held: usize,
    /// Its VM's addresses.
    pub ipv4: Vec<Ipv4Addr>,
    /// Frames from it.
    pub frames_in: u64,
    /// Bytes of these.
    pub bytes_in: u64,
    /// Frames to it.
    pub frames_out: u64,
    /// Bytes of these.
    pub bytes_out: u64,
    /// Frames from it that its VM may not send.
    pub refused: u64,
    /// Frames to it that had no room.
    pub dropped: u64,
}

/// Where an address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressReport {
    /// The address, as "52:54:00:12:34:56".
    pub mac: String,
    /// Behind which port.
    pub port: String,
    /// It is a VM's here, and not learnt.
    pub pinned: bool,
}

/// Who has made a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// This host.
    To,
    /// The other one.
    From,
}

/// A link to another host's switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Its name, or the other's.
    pub name: String,
    /// Who has made it.
    pub direction: Direction,
    /// In words.
    pub state: String,
    /// Networks that it carries.
    pub networks: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::codec;

    #[test]
    fn a_report_is_itself_again_and_its_json_is_what_the_api_has_always_shown() {
        let report = NetworksReport {
            networks: vec![NetworkReport {
                name: "lan".into(),
                ports: vec![PortReport {
                    name: "web/0".into(),
                    kind: PortKind::Card,
                    state: PortState::Holding,
                    held: 1,
                    ipv4: vec![Ipv4Addr::new(10, 0, 2, 15)],
                    frames_in: 2,
                    bytes_in: 3,
                    frames_out: 4,
                    bytes_out: 5,
                    refused: 6,
                    dropped: 7,
                }],
                addresses: vec![AddressReport {
                    mac: "52:54:00:12:34:56".into(),
                    port: "web/0".into(),
                    pinned: true,
                }],
            }],
            links: vec![LinkReport {
                name: "b".into(),
                direction: Direction::To,
                state: "connected".into(),
                networks: vec!["lan".into()],
            }],
        };
        let bytes = codec::encode(&report).expect("encode");
        assert_eq!(codec::decode::<NetworksReport>(&bytes).expect("decode"), report);
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(serde_json::from_str::<NetworksReport>(&text).expect("from JSON"), report);
        assert_eq!(
            text,
            concat!(
                r#"{"networks":[{"name":"lan","ports":[{"name":"web/0","kind":"card","state":"holding","held":1,"#,
                r#""ipv4":["10.0.2.15"],"frames_in":2,"bytes_in":3,"frames_out":4,"bytes_out":5,"refused":6,"#,
                r#""dropped":7}],"addresses":[{"mac":"52:54:00:12:34:56","port":"web/0","pinned":true}]}],"#,
                r#""links":[{"name":"b","direction":"to","state":"connected","networks":["lan"]}]}"#,
            )
        );
    }
}
