//! `passt`: a program (Debian package `passt`) that translates between a network and the host's sockets
//! without privileges. One process per VM that has a way out. What it would answer of DHCP never reaches it: the switch
//! answers that.

use crate::children::{CappedLog, PidFd, Reach, describe, spawn_bound, trouble};
use quasar_abi::address_plan::{GATEWAY, PREFIX_LEN, RESOLVER, gateway_mac};
use quasar_api::{Mac, Protocol, Publish};
use quasar_places::SocketTooLong;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Bytes of what it said that are looked at for its last words.
const WORDS: u64 = 1 << 20;

/// Why passt cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PasstError {
    /// It is not installed.
    #[error("it is not installed (apt-get install passt); or use the uplink none or tap:INTERFACE")]
    Missing,
    /// It cannot be started.
    #[error("{}", trouble::explain(.0))]
    Start(#[from] std::io::Error),
    /// Its socket cannot be there.
    #[error(transparent)]
    Socket(#[from] SocketTooLong),
}

/// A running passt. Dropping it ends the process and removes its socket.
pub struct Passt {
    /// Where it listens.
    pub socket: PathBuf,
    /// Its process id.
    pub pid: u32,
    pidfd: Arc<PidFd>,
    output: CappedLog,
}

fn log_path(socket: &Path) -> PathBuf {
    socket.with_added_extension("log")
}

/// All but the socket, whose path may be any bytes.
fn arguments((address, mac): (Ipv4Addr, [u8; 6]), publish: &[Publish], root: bool) -> Vec<String> {
    let mut arguments: Vec<String> = ["--foreground", "--quiet", "--stderr"].map(String::from).into();
    for (option, value) in [
        ("-a", address.to_string()),
        ("-n", PREFIX_LEN.to_string()),
        ("-g", GATEWAY.to_string()),
        ("-M", Mac(gateway_mac(mac)).to_string()),
        // Names that the switch does not know are asked for there.
        ("--dns-forward", RESOLVER.to_string()),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    // What is published of IPv6 comes over a relay.
    arguments.push("--ipv4-only".into());
    for forward in publish {
        arguments.push(match forward.protocol {
            Protocol::Tcp => "-t".into(),
            Protocol::Udp => "-u".into(),
        });
        arguments.push(format!("{}/{}:{}", forward.address, forward.port, forward.guest_port));
    }
    if root {
        // Another user would lose the bond that ends it with this process.
        arguments.extend(["--runas", "0"].map(String::from));
    }
    arguments
}

impl Passt {
    /// Starts one for the guest with this address and card that listens on `socket`: the program in the directory `beside`, that of Quasar's own, or else
    /// the one on the path. `ended` hears how it ended, from a thread of its own.
    ///
    /// # Errors
    /// [`PasstError`].
    pub fn spawn(
        beside: &Path,
        socket: &Path,
        guest: (Ipv4Addr, [u8; 6]),
        publish: &[Publish],
        ended: impl FnOnce(String) + Send + 'static,
    ) -> Result<Self, PasstError> {
        if socket.exists() {
            std::fs::remove_file(socket)?;
        }
        let said = log_path(socket);
        CappedLog::remove(&said);
        let output = CappedLog::open(&said)?;
        let own = beside.join("passt");
        let mut command = Command::new(if own.is_file() { &own } else { Path::new("passt") });
        command.arg("--socket").arg(socket).args(arguments(guest, publish, nix::unistd::geteuid().is_root()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output.writer()?);
        let (mut child, pidfd) = spawn_bound(&mut command, &[]).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => PasstError::Missing,
            _ => PasstError::Start(error),
        })?;
        let (pid, pidfd) = (child.id(), Arc::new(pidfd));
        let watched = Arc::clone(&pidfd);
        let wait = move || {
            let how =
                child.wait().map_or_else(|e| e.to_string(), |status| describe(status, watched.killed()));
            ended(how);
        };
        if let Err(error) = std::thread::Builder::new().name("passt".into()).spawn(wait) {
            pidfd.kill();
            return Err(error.into());
        }
        Ok(Self { socket: socket.to_owned(), pid, pidfd, output })
    }

    /// How others reach it.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach { pid: self.pid, pidfd: Arc::clone(&self.pidfd) }
    }

    /// Whether it listens. It binds the published ports before that.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.socket.exists()
    }

    /// The last thing it said.
    #[must_use]
    pub fn last_words(&self) -> String {
        // What cannot be read was not said.
        let text = self.output.read(0, WORDS).unwrap_or_default().0;
        let text = String::from_utf8_lossy(&text);
        let line = |line: &&str| {
            !line.trim().is_empty()
                && !["syslog", "AVX2", "qrap", "You can now start qemu", "or qrap"]
                    .iter()
                    .any(|noise| line.contains(noise))
        };
        explain(text.lines().rev().find(line).unwrap_or_default().trim())
    }
}

/// Not every version of passt says why it cannot bind a port.
fn explain(words: &str) -> String {
    let hint = "; a published port is in use, or one below 1024 is not permitted: publish another";
    format!("{words}{}", if words.contains("Failed to bind") { hint } else { "" })
}

impl Drop for Passt {
    fn drop(&mut self) {
        self.pidfd.kill();
        // Not there, or already gone with its directory.
        drop(std::fs::remove_file(&self.socket));
        CappedLog::remove(&log_path(&self.socket));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_cannot_be_bound_is_explained() {
        assert!(explain("Failed to bind any port for '-t 80', exiting").contains("in use"));
        assert_eq!(explain("No external interface"), "No external interface");
    }

    #[test]
    fn forwards_are_spelt_as_passt_reads_them() {
        let publish =
            ["8080:80", "0.0.0.0:2222:22", "5353:53/udp"].map(|text| text.parse().expect("publish"));
        let guest = (Ipv4Addr::new(10, 0, 2, 15), [0x52, 0x54, 0, 1, 2, 3]);
        let line = arguments(guest, &publish, true).join(" ");
        let addresses =
            "-a 10.0.2.15 -n 24 -g 10.0.2.2 -M 5a:54:00:01:02:03 --dns-forward 10.0.2.3 --ipv4-only";
        assert!(line.contains(addresses), "{line}");
        assert!(
            line.contains("-t 127.0.0.1/8080:80 -t 0.0.0.0/2222:22 -u 127.0.0.1/5353:53 --runas 0"),
            "{line}"
        );
    }
}
