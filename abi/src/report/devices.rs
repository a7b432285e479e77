//! What a VM's devices have counted.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;

/// The devices process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevicesReport {
    /// Register accesses answered.
    pub mmio_served: u64,
    /// Register accesses that nothing answers.
    pub mmio_unanswerable: u64,
    /// By virtio slot.
    pub virtio: Vec<CardReport>,
}

/// A virtio device with its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardReport {
    /// Slot and kind: "virtio0.blk".
    pub name: String,
    /// A driver uses it.
    pub live: bool,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Times its driver broke a queue.
    pub broken: u64,
    /// Requests or frames of its worker.
    pub requests: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The device's own.
    pub device: DeviceReport,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockReport {
    /// Its file.
    #[serde(with = "crate::os_path")]
    pub path: PathBuf,
    /// The guest cannot write it.
    pub read_only: bool,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// Requests.
    pub counters: DiskCounters,
}

/// Requests to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCounters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// A network card: frames.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetReport {
    /// From the guest.
    pub sent: u64,
    /// To the guest.
    pub received: u64,
    /// Lost, for want of room or because they were none.
    pub dropped: u64,
}

/// The power key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerKeyReport {
    /// Times it was pressed with a driver listening.
    pub pressed: u64,
}

/// The virtio console: positions since the VM was made, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleReport {
    /// Written by the guest.
    pub written: u64,
    /// Read by the guest.
    pub read: u64,
}

/// The entropy device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RngReport {
    /// Bytes given.
    pub bytes_given: u64,
}

macro_rules! device_report {
    ($($(#[$meta:meta])* $kind:ident($report:ident),)*) => {
        /// What a kind of device counts. As JSON it is the fields alone; the card's name says which they are.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum DeviceReport {
            $($(#[$meta])* $kind($report),)*
        }

        /// With its kind, for an encoding that has no names.
        #[derive(Serialize, Deserialize)]
        enum Tagged<$($kind),*> { $($kind($kind),)* }

        /// Without, for people.
        #[derive(Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged<$($kind),*> { $($kind($kind),)* }

        impl Serialize for DeviceReport {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                type Text<'a> = Untagged<$(&'a $report),*>;
                type Wire<'a> = Tagged<$(&'a $report),*>;
                match self {
                    $(Self::$kind(report) if serializer.is_human_readable() => {
                        Text::$kind(report).serialize(serializer)
                    })*
                    $(Self::$kind(report) => Wire::$kind(report).serialize(serializer),)*
                }
            }
        }

        impl<'de> Deserialize<'de> for DeviceReport {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(if deserializer.is_human_readable() {
                    match Untagged::<$($report),*>::deserialize(deserializer)? {
                        $(Untagged::$kind(report) => Self::$kind(report),)*
                    }
                } else {
                    match Tagged::<$($report),*>::deserialize(deserializer)? {
                        $(Tagged::$kind(report) => Self::$kind(report),)*
                    }
                })
            }
        }
    };
}

device_report! {
    /// A disk.
    Block(BlockReport),
    /// A network card.
    Net(NetReport),
    /// The power key.
    PowerKey(PowerKeyReport),
    /// The console.
    Console(ConsoleReport),
    /// The entropy device.
    Rng(RngReport),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::codec;

    fn all() -> Vec<DeviceReport> {
        let counters = DiskCounters { reads: 1, writes: 2, flushes: 3, errors: 4 };
        vec![
            DeviceReport::Block(BlockReport { path: "/d".into(), read_only: true, sectors: 5, counters }),
            DeviceReport::Net(NetReport { sent: 1, received: 2, dropped: 3 }),
            DeviceReport::PowerKey(PowerKeyReport { pressed: 1 }),
            DeviceReport::Console(ConsoleReport { written: 1, read: 2 }),
            DeviceReport::Rng(RngReport { bytes_given: 1 }),
        ]
    }

    #[test]
    fn each_device_is_itself_again_on_the_wire_and_in_json() {
        for report in all() {
            let bytes = codec::encode(&report).expect("encode");
            assert_eq!(codec::decode::<DeviceReport>(&bytes).expect("decode"), report);
            let text = serde_json::to_string(&report).expect("JSON");
            assert_eq!(serde_json::from_str::<DeviceReport>(&text).expect("from JSON"), report, "{text}");
        }
    }

    #[test]
    fn the_json_is_what_the_api_has_always_shown() {
        let shown: Vec<String> = all().iter().map(|r| serde_json::to_string(r).expect("JSON")).collect();
        assert_eq!(
            shown,
            [
                r#"{"path":"/d","read_only":true,"sectors":5,"counters":{"reads":1,"writes":2,"flushes":3,"errors":4}}"#,
                r#"{"sent":1,"received":2,"dropped":3}"#,
                r#"{"pressed":1}"#,
                r#"{"written":1,"read":2}"#,
                r#"{"bytes_given":1}"#,
            ]
        );
    }
}
