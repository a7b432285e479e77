//! What a VM is made of, as the API is asked for it, and the small languages in it.

use crate::machine::{Boot, ConfigError, MachineConfig};
use quasar_abi::address_plan;
use quasar_abi::machine::{OnEnospc, VIRTIO_SLOTS};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Longest name of a VM or network.
const MAX_NAME: usize = 32;
/// Longest name of a network interface (IFNAMSIZ - 1).
const MAX_INTERFACE: usize = 15;

/// A VM to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// Its name, unique on the host.
    pub name: String,
    /// Memory, harts and what is started.
    pub machine: MachineConfig,
    /// Its disks, in order.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Its network card.
    #[serde(default)]
    pub net: Option<Net>,
    /// What becomes of a write for which this host has no room.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_enospc: OnEnospc,
}

fn is_default(on_enospc: &OnEnospc) -> bool {
    *on_enospc == OnEnospc::default()
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// A raw image or block device.
    #[serde(with = "quasar_abi::os_path")]
    pub path: PathBuf,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
    /// The file was made for this VM and is removed with it.
    #[serde(default)]
    pub owned: bool,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// The network's name; without one the VM has a network of its own.
    #[serde(default)]
    pub network: Option<String>,
    /// The card's address; derived from the VM's name by default.
    #[serde(default)]
    pub mac: Option<Mac>,
    /// Its IPv4 address on the network: what it shall have if nobody else has it. Without one the switch chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The way out.
    #[serde(default)]
    pub uplink: UplinkSpec,
    /// Ports of the host that lead into the guest.
    #[serde(default)]
    pub publish: Vec<Publish>,
}

/// A way out of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UplinkSpec {
    /// None.
    #[default]
    None,
    /// A `passt` process: address translation without privileges.
    Passt,
    /// A TAP interface.
    Tap(String),
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publish {
    /// The host's address.
    pub address: IpAddr,
    /// The host's port.
    pub port: u16,
    /// The guest's port.
    pub guest_port: u16,
    /// Whose ports these are.
    pub protocol: Protocol,
}

/// What a published port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A specification that no host could carry out.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// A bad name.
    #[error(
        "{0:?} is no name for a {1}: use 1 to {MAX_NAME} of a-z, 0-9 and -, beginning with a letter or digit"
    )]
    Name(String, &'static str),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] ConfigError),
    /// A path that depends on where the daemon was started.
    #[error("{0}: the path must be absolute")]
    Relative(PathBuf),
    /// An address that no VM can have.
    #[error(
        "{0} is no address for a VM: its network is 10.0.2.0/24, of which 10.0.2.4 to 10.0.2.254 are the VMs'"
    )]
    Address(Ipv4Addr),
    /// Published ports need an uplink that forwards.
    #[error("published ports need the uplink passt, which {0} has not; give it that uplink")]
    Publish(String),
}

fn check_name(name: &str, what: &'static str) -> Result<(), SpecError> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good =
        name.starts_with(letter) && name.len() <= MAX_NAME && name.chars().all(|c| letter(c) || c == '-');
    if good { Ok(()) } else { Err(SpecError::Name(name.to_owned(), what)) }
}

impl VmSpec {
    /// Checks all that depends on no host.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn check(&self) -> Result<(), SpecError> {
        check_name(&self.name, "VM")?;
        self.machine.check()?;
        let mut paths: Vec<&Path> = self.disks.iter().map(|d| d.path.as_path()).collect();
        match &self.machine.boot {
            Boot::Kernel { kernel, initrd, firmware, .. } => {
                paths.push(kernel);
                paths.extend(initrd.iter().chain(firmware).map(PathBuf::as_path));
            }
            Boot::Bare { elf, .. } => paths.push(elf),
        }
        if let Some(path) = paths.into_iter().find(|path| !path.is_absolute()) {
            return Err(SpecError::Relative(path.to_owned()));
        }
        if let Some(net) = &self.net {
            let network = self.network_name(net);
            check_name(network, "network")?;
            if !net.publish.is_empty() && net.uplink != UplinkSpec::Passt {
                return Err(SpecError::Publish(network.to_owned()));
            }
            if let Some(address) = net.address.filter(|address| !address_plan::is_assignable(*address)) {
                return Err(SpecError::Address(address));
            }
        }
        let slots = self.slots();
        if slots > VIRTIO_SLOTS {
            return Err(ConfigError::Slots(slots).into());
        }
        Ok(())
    }

    /// How many virtio slots hold a device.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.disks.len() + 3 + usize::from(self.net.is_some())
    }

    /// The address that its card shall have: the one that was asked for, and on a network of its own always the same.
    #[must_use]
    pub fn wished_address(&self, net: &Net) -> Option<Ipv4Addr> {
        let own = self.network_name(net) == self.name;
        net.address.or(own.then_some(address_plan::ALONE))
    }

    /// The network of its card.
    #[must_use]
    pub fn network_name<'a>(&'a self, net: &'a Net) -> &'a str {
        net.network.as_deref().unwrap_or(&self.name)
    }
}

impl Mac {
    /// The same address for the same name everywhere: FNV-1a, in QEMU's locally used range.
    #[must_use]
    pub fn derived(name: &str) -> Self {
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let [a, b, c, _] = hash.to_le_bytes();
        Self([0x52, 0x54, 0x00, a, b, c])
    }
}

impl FromStr for Mac {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no Ethernet address like 52:54:00:12:34:56");
        let parts: Vec<&str> = text.split(':').collect();
        let mut bytes = [0; 6];
        if parts.len() != bytes.len() {
            return Err(bad());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            if part.len() != 2 {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(format!("{text} is no address that a card can have: it is a group's or zero"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for UplinkSpec {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "passt" => Ok(Self::Passt),
            _ => match text.strip_prefix("tap:") {
                Some(name)
                    if !name.is_empty()
                        && name.len() <= MAX_INTERFACE
                        && !name.contains(|c: char| c == '/' || c.is_whitespace()) =>
                {
                    Ok(Self::Tap(name.to_owned()))
                }
                _ => Err(format!("{text:?} is no uplink; it is passt, tap:INTERFACE or none")),
            },
        }
    }
}

impl fmt::Display for UplinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Passt => f.write_str("passt"),
            Self::Tap(name) => write!(f, "tap:{name}"),
        }
    }
}

impl FromStr for Publish {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is no published port; write [HOSTADDR:]PORT:GUESTPORT[/udp], for example \
                 127.0.0.1:8080:80 or 5353:53/udp"
            )
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(bad);
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(bad()),
        };
        let (rest, guest) = ports.rsplit_once(':').ok_or_else(bad)?;
        let (address, host) = match rest.rsplit_once(':') {
            Some((address, host)) => {
                let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
                (bare.parse().map_err(|_| bad())?, host)
            }
            None => (IpAddr::from([127, 0, 0, 1]), rest),
        };
        Ok(Self { address, port: port(host)?, guest_port: port(guest)?, protocol })
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = std::net::SocketAddr::new(self.address, self.port);
        let protocol = match self.protocol {
            Protocol::Tcp => "",
            Protocol::Udp => "/udp",
        };
        write!(f, "{host}:{}{protocol}", self.guest_port)
    }
}

macro_rules! as_string {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}
as_string!(Mac, UplinkSpec, Publish);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_ports() {
        let publish: Publish = "8080:80".parse().expect("short");
        assert_eq!(publish.to_string(), "127.0.0.1:8080:80");
        let publish: Publish = "0.0.0.0:2222:22".parse().expect("long");
        assert_eq!(
            (publish.address.to_string().as_str(), publish.port, publish.guest_port),
            ("0.0.0.0", 2222, 22)
        );
        assert_eq!("[::1]:8080:80".parse::<Publish>().expect("v6").to_string(), "[::1]:8080:80");
        assert_eq!("8080:80/tcp".parse::<Publish>().expect("tcp").to_string(), "127.0.0.1:8080:80");
        assert_eq!("[::1]:5353:53/udp".parse::<Publish>().expect("udp").to_string(), "[::1]:5353:53/udp");
        for bad in ["80:80/sctp", "80:80/", "/udp", "80/udp", "80:80/udp/udp", "80/udp:80"] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
        for bad in ["80", "a:80", "1.2.3:80:80", "0:80", "80:0", "70000:80", "localhost:80:80", ""] {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_uplinks() {
        let mac: Mac = "52:54:00:12:34:56".parse().expect("mac");
        assert_eq!(mac.to_string(), "52:54:00:12:34:56");
        for bad in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "52:54:00:12:34", "52:54:00:12:34:5", "x"] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert_eq!(Mac::derived("web"), Mac::derived("web"));
        assert_ne!(Mac::derived("web"), Mac::derived("db"));
        assert_eq!("tap:tap0".parse(), Ok(UplinkSpec::Tap("tap0".into())));
        for bad in ["tap:", "tap:a/b", "tap:aaaaaaaaaaaaaaaa", "nat"] {
            assert!(bad.parse::<UplinkSpec>().is_err(), "{bad}");
        }
    }

    fn spec() -> VmSpec {
        serde_json::from_value(serde_json::json!({
            "name": "web",
            "machine": {"memory": 1 << 28, "harts": 1, "boot": {"kernel": {"kernel": "/boot/Image"}}},
            "net": {"uplink": "passt", "publish": ["8080:80"]},
        }))
        .expect("spec")
    }

    #[test]
    fn a_spec_is_checked_before_a_host_sees_it() {
        spec().check().expect("good");
        let bad = |change: fn(&mut VmSpec)| {
            let mut changed = spec();
            change(&mut changed);
            changed.check().expect_err("bad").to_string()
        };
        assert!(bad(|s| s.name = "../x".into()).contains("no name for a VM"));
        assert!(bad(|s| s.machine.harts = 17).contains("1 to 16"));
        assert!(bad(|s| s.machine.memory = 5).contains("multiple of 4K"));
        let disk = |path: &str| Disk { path: path.into(), read_only: true, owned: false };
        let mut relative = spec();
        relative.disks.push(disk("d"));
        assert!(relative.check().expect_err("relative").to_string().contains("absolute"));
        assert!(bad(|s| s.net.as_mut().expect("net").uplink = UplinkSpec::None).contains("the uplink passt"));
        let mut many = spec();
        many.disks = vec![disk("/dev/null"); 5];
        assert!(many.check().expect_err("many").to_string().contains("8 slots"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let text =
            r#"{"name":"a","machine":{"memory":1,"harts":1,"boot":{"kernel":{"kernel":"k"}}},"color":"red"}"#;
        assert!(serde_json::from_str::<VmSpec>(text).is_err());
    }
}
