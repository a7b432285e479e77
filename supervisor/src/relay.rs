//! `quasar relay`: from a published IPv6 address to the IPv4 port that leads into the guest.
//!
//! passt forwards IPv6 as IPv6, which reaches nobody in a guest that has no such address or listens on IPv4 alone. So
//! IPv6 ends at the host: this process takes connections and datagrams there, and carries their bytes.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections, or senders of datagrams, that are served at the same time; others wait or are not heard.
const MOST: usize = 400;
/// How long a sender of datagrams that is silent is remembered.
const IDLE: Duration = Duration::from_secs(120);

/// Serves the socket that is this process's standard input until it is ended.
///
/// # Errors
/// When that is no such socket.
pub fn serve(to: SocketAddr, udp: bool) -> io::Result<()> {
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if udp {
        let socket = std::net::UdpSocket::from(socket);
        socket.set_nonblocking(true)?;
        runtime.block_on(async { datagrams(UdpSocket::from_std(socket)?, to).await })
    } else {
        let socket = std::net::TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        runtime.block_on(async { connections(&TcpListener::from_std(socket)?, to).await })
    }
}

async fn connections(listener: &TcpListener, to: SocketAddr) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MOST));
    let mut under_way = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(()) };
        while under_way.try_join_next().is_some() {}
        let Ok((mut outer, _)) = listener.accept().await else {
            // For want of descriptors, or the caller has gone already.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        under_way.spawn(async move {
            let _place = place;
            let Ok(mut inner) = TcpStream::connect(to).await else { return };
            for socket in [&outer, &inner] {
                // Where it cannot be had, small pieces come later.
                drop(socket.set_nodelay(true));
            }
            // Either side may break it off; both ends are closed then.
            drop(tokio::io::copy_bidirectional(&mut outer, &mut inner).await);
        });
    }
}

/// A sender of datagrams.
struct Peer {
    socket: UdpSocket,
    /// Seconds since the start when it was heard last.
    heard: AtomicU64,
}

async fn datagrams(outer: UdpSocket, to: SocketAddr) -> io::Result<()> {
    let (outer, begun) = (Arc::new(outer), Instant::now());
    let peers = Arc::new(Mutex::new(HashMap::<SocketAddr, Arc<Peer>>::new()));
    let known = || peers.lock();
    let mut under_way = JoinSet::new();
    let mut space = vec![0; 65_536];
    loop {
        while under_way.try_join_next().is_some() {}
        // A datagram that nobody took is told at the next call.
        let Ok((length, from)) = outer.recv_from(&mut space).await else { continue };
        let found = known().get(&from).cloned();
        let peer = match found {
            Some(peer) => peer,
            None if known().len() >= MOST => continue,
            None => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
                socket.connect(to).await?;
                let peer = Arc::new(Peer { socket, heard: AtomicU64::new(0) });
                known().insert(from, Arc::clone(&peer));
                let (peers, outer, ours) = (Arc::clone(&peers), Arc::clone(&outer), Arc::clone(&peer));
                under_way.spawn(async move {
                    answers(&ours, &outer, from, begun).await;
                    peers.lock().remove(&from);
                });
                peer
            }
        };
        peer.heard.store(begun.elapsed().as_secs(), Ordering::Relaxed);
        // One that cannot be sent is lost, as any may be.
        drop(peer.socket.send(&space[..length]).await);
    }
}

/// Carries what comes back to a sender, until both have been silent for a while.
async fn answers(peer: &Peer, outer: &UdpSocket, to: SocketAddr, begun: Instant) {
    let mut space = vec![0; 65_536];
    loop {
        match tokio::time::timeout(IDLE, peer.socket.recv(&mut space)).await {
            Ok(Ok(length)) => drop(outer.send_to(&space[..length], to).await),
            // Nobody listens yet.
            Ok(Err(_)) => {}
            Err(_) => {
                let heard = Duration::from_secs(peer.heard.load(Ordering::Relaxed));
                if begun.elapsed().saturating_sub(heard) >= IDLE {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn run(test: impl Future<Output = io::Result<()>>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(test).expect("the relay carries");
    }

    #[test]
    fn bytes_and_ends_of_connections_pass_both_ways() {
        run(async {
            let inner = TcpListener::bind("127.0.0.1:0").await?;
            let outer = TcpListener::bind("[::1]:0").await?;
            let (to, from) = (inner.local_addr()?, outer.local_addr()?);
            tokio::spawn(async move { connections(&outer, to).await });
            for round in 0..3u8 {
                let mut client = TcpStream::connect(from).await?;
                client.write_all(&[round; 100_000]).await?;
                client.shutdown().await?;
                let (mut server, _) = inner.accept().await?;
                let mut got = vec![];
                server.read_to_end(&mut got).await?;
                assert_eq!(got, [round; 100_000]);
                server.write_all(b"answer").await?;
                drop(server);
                let mut got = vec![];
                client.read_to_end(&mut got).await?;
                assert_eq!(got, b"answer");
            }
            Ok(())
        });
    }

    #[test]
    fn datagrams_pass_both_ways_and_each_sender_gets_its_own() {
        run(async {
            let inner = UdpSocket::bind("127.0.0.1:0").await?;
            let outer = UdpSocket::bind("[::1]:0").await?;
            let (to, from) = (inner.local_addr()?, outer.local_addr()?);
            tokio::spawn(datagrams(outer, to));
            tokio::spawn(async move {
                let mut space = [0; 2000];
                while let Ok((length, peer)) = inner.recv_from(&mut space).await {
                    drop(inner.send_to(&space[..length], peer).await);
                }
            });
            let clients = [UdpSocket::bind("[::1]:0").await?, UdpSocket::bind("[::1]:0").await?];
            for n in 0..3u8 {
                for (which, client) in (0u8..).zip(&clients) {
                    client.send_to(&[n, which], from).await?;
                }
                for (which, client) in (0u8..).zip(&clients) {
                    let mut space = [0; 10];
                    let (length, peer) = client.recv_from(&mut space).await?;
                    assert_eq!((&space[..length], peer), (&[n, which][..], from));
                }
            }
            Ok(())
        });
    }
}
