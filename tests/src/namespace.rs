//! Two machines' networks on one: namespaces joined by a cable, each with an address of its own.

use crate::process::output;
use crate::wait_for;
use anyhow::{Context, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The cable's name at both ends.
const CABLE: &str = "cable0";
/// The addresses at its ends, of the range for benchmarks (RFC 2544).
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];

fn ip(words: &[&str]) -> anyhow::Result<String> {
    output(Command::new("ip").args(words)).context("network namespaces need root and iproute2")
}

/// A network namespace; dropping it removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    address: Ipv4Addr,
}

impl Namespace {
    fn new(address: Ipv4Addr) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("quasar-test-{}-{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        let made = Self { name, address };
        ip(&["-n", &made.name, "link", "set", "lo", "up"])?;
        Ok(made)
    }

    /// Two of them, joined.
    ///
    /// # Errors
    /// When this user may not make them.
    pub fn pair() -> anyhow::Result<(Self, Self)> {
        Self::pair_at(ADDRESSES)
    }

    /// Two of them, joined, at addresses in one /24.
    ///
    /// # Errors
    /// As [`Namespace::pair`].
    pub fn pair_at(addresses: [Ipv4Addr; 2]) -> anyhow::Result<(Self, Self)> {
        let (a, b) = (Self::new(addresses[0])?, Self::new(addresses[1])?);
        let words = ["link", "add", CABLE, "netns", &a.name, "type", "veth"];
        ip(&[&words[..], &["peer", "name", CABLE, "netns", &b.name]].concat())?;
        for (this, other) in [(&a, &b), (&b, &a)] {
            let address = format!("{}/24", this.address);
            ip(&["-n", &this.name, "address", "add", &address, "dev", CABLE])?;
            this.plug(true)?;
            // A way out for the guests' uplink, which takes its addresses from the default route's interface.
            ip(&["-n", &this.name, "route", "add", "default", "via", &other.address.to_string()])?;
        }
        Ok((a, b))
    }

    /// Its end of the cable is plugged in, or pulled out.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug(&self, into: bool) -> anyhow::Result<()> {
        ip(&["-n", &self.name, "link", "set", CABLE, if into { "up" } else { "down" }]).map(drop)
    }

    /// Connections from here to this port are let through, or refused here.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn may_call(&self, port: u16, may: bool) -> anyhow::Result<()> {
        let word = if may { "del" } else { "add" };
        let port = port.to_string();
        let rule = ["-n", &self.name, "rule", word, "ipproto", "tcp", "dport", &port, "prohibit"];
        ip(&rule).map(drop)
    }

    /// Waits until packets get through to the other end, some moments after the cable was plugged in.
    ///
    /// # Errors
    /// When they do not.
    pub fn reaches(&self, other: &Self) -> anyhow::Result<()> {
        // Nobody listens at the discard port: that it is refused comes from the other end.
        let answers = |target| match TcpStream::connect_timeout(&target, Duration::from_secs(1)) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error.into()),
        };
        let target = SocketAddr::new(other.address(), 9);
        wait_for("packets to get through", || self.inside(|| answers(target)).ok())
    }

    /// Its address on the cable.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// A program that is to run in it. It keeps its process id.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Does something in it, in a thread that goes there; sockets made by it stay there.
    ///
    /// # Errors
    /// The action's own.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let path = format!("/var/run/netns/{}", self.name);
        let there = File::open(&path).with_context(|| path.clone())?;
        let enter = || {
            setns(&there, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))?;
            action()
        };
        std::thread::scope(|scope| {
            scope.spawn(enter).join().map_err(|_| anyhow!("a thread in {path} panicked"))?
        })
    }

    /// Checks that it is another network than this process's.
    ///
    /// # Errors
    /// When it is not.
    pub fn is_apart(&self) -> anyhow::Result<()> {
        let here = std::fs::read_link("/proc/self/ns/net")?;
        let there = self.inside(|| Ok(std::fs::read_link("/proc/thread-self/ns/net")?))?;
        ensure!(here != there, "{} is the network of this process", self.name);
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("left behind: {error:#}");
        }
    }
}
