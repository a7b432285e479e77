//! Published IPv6 addresses: a `quasar relay` process each, which carries them to a port of the loopback that passt leads
//! into the guest. This side binds the address, so that one that is taken is said at once.

use crate::children::{PidFd, spawn_bound};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};
use parking_lot::{Mutex, MutexGuard};
use quasar_api::{Protocol, Publish};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Pause before a relay that ended is started again.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Default)]
struct State {
    stopped: bool,
    process: Option<PidFd>,
}

/// A published IPv6 address; it ends when this is dropped.
pub(super) struct Relay {
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock()
}

fn open(address: SocketAddrV6, protocol: Protocol) -> nix::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let fd = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None)?;
    // The same port of IPv4 is somebody else's.
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    if protocol == Protocol::Tcp {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?;
    if protocol == Protocol::Tcp {
        listen(&fd, Backlog::MAXCONN)?;
    }
    Ok(fd)
}

/// A port of the loopback that nobody has now.
fn free_port(protocol: Protocol) -> io::Result<u16> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    Ok(match protocol {
        Protocol::Tcp => TcpListener::bind(any)?.local_addr()?.port(),
        Protocol::Udp => UdpSocket::bind(any)?.local_addr()?.port(),
    })
}

impl Relay {
    /// Takes a published port: what passt is to publish for it, and the relay where it is one of IPv6.
    ///
    /// # Errors
    /// In words for people, when the port cannot be had.
    pub(super) fn take(publish: &Publish) -> Result<(Publish, Option<Self>), String> {
        let IpAddr::V6(address) = publish.address else { return Ok((publish.clone(), None)) };
        let outer = SocketAddrV6::new(address, publish.port, 0, 0);
        let fd = open(outer, publish.protocol).map_err(|error| {
            format!("port {publish} cannot be published: {}; publish another", io::Error::from(error))
        })?;
        let port = free_port(publish.protocol).map_err(|error| error.to_string())?;
        let inner = Publish { address: Ipv4Addr::LOCALHOST.into(), port, ..publish.clone() };
        let relay = Self { state: Arc::default() };
        let state = Arc::clone(&relay.state);
        let (protocol, to) = (publish.protocol, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let keep = move || keep(&state, &fd, to, protocol);
        std::thread::Builder::new().name("relay".into()).spawn(keep).map_err(|error| error.to_string())?;
        Ok((inner, Some(relay)))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        if let Some(process) = &state.process {
            process.kill();
        }
    }
}

/// Starts the process, and again whenever it ends. What calls meanwhile waits at the socket.
fn keep(state: &Mutex<State>, fd: &OwnedFd, to: SocketAddr, protocol: Protocol) {
    loop {
        let started = {
            let mut state = lock(state);
            if state.stopped {
                return;
            }
            start(fd, to, protocol).map(|(child, pidfd)| {
                state.process = Some(pidfd);
                child
            })
        };
        match started {
            Ok(mut child) => {
                let how = child.wait();
                if !lock(state).stopped {
                    log::warn!("the relay to {to} ended ({how:?}); it is started again");
                }
            }
            Err(error) => log::error!("the relay to {to} cannot be started: {error}"),
        }
        if lock(state).stopped {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn start(fd: &OwnedFd, to: SocketAddr, protocol: Protocol) -> io::Result<(std::process::Child, PidFd)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["relay", "--to", &to.to_string()]);
    if protocol == Protocol::Udp {
        command.arg("--udp");
    }
    command.stdin(Stdio::from(fd.try_clone()?)).stdout(Stdio::null());
    spawn_bound(&mut command, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_and_ipv4_is_left_to_passt() {
        let ours: Publish = "127.0.0.1:8080:80".parse().expect("publish");
        let (same, relay) = Relay::take(&ours).expect("nothing to do");
        assert!(same == ours && relay.is_none());
        let taken = TcpListener::bind("[::1]:0").expect("bind");
        let port = taken.local_addr().expect("address").port();
        let publish: Publish = format!("[::1]:{port}:80").parse().expect("publish");
        let error = Relay::take(&publish).map(drop).expect_err("taken");
        assert!(error.contains(&format!("[::1]:{port}:80")) && error.contains("in use"), "{error}");
        // IPv4's port of that number, and UDP's, are others.
        open(SocketAddrV6::new([0; 8].into(), port, 0, 0), Protocol::Udp).expect("another port");
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("another port");
    }
}
