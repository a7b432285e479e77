//! Two guests on one network: they know each other by name, also when the switch is another one, a file crosses whole,
//! each has its own published ports and its own way out. Two boots at once, about 40 s.

use anyhow::{Context, bail, ensure};
use quasar_tests::{Guest, Host, Recipe, http, process, wait_for};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

fn recipe(name: &str) -> anyhow::Result<Recipe> {
    Recipe::initramfs(name)?.with(&["--net", "lan", "--memory", "256M"]).publish(80)
}

/// What a guest that echoes datagrams sends back through a port of the host.
fn echoed(host: IpAddr, port: u16, text: &[u8]) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((host, 0))?;
    socket.connect((host, port))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut space = [0; 2000];
    // A datagram may be lost.
    for _ in 0..60 {
        socket.send(text)?;
        if let Ok(got) = socket.recv(&mut space) {
            ensure!(&space[..got] == text, "{got} other bytes came back");
            return Ok(());
        }
    }
    bail!("no datagram came back through port {port}")
}

/// The page at a published port of the IPv6 loopback.
fn page(port: u16, path: &str) -> anyhow::Result<String> {
    let mut client = TcpStream::connect((Ipv6Addr::LOCALHOST, port))?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(client, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

fn reach_each_other(left: &mut Guest<'_>, right: &mut Guest<'_>) -> anyhow::Result<()> {
    for name in ["right", "right.internal", "right.lan"] {
        left.console.command(&format!("ping -c 3 -W 60 {name}"))?;
    }
    right.console.command("ping -c 3 -W 60 left").map(drop)
}

#[test]
fn two_guests_reach_each_other_by_name() -> anyhow::Result<()> {
    let host = Host::start()?;
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?.local_addr()?.port();
    let v6 = [format!("[::1]:{six}:8081"), format!("[::1]:{six}:5354/udp")];
    let left = recipe("left")?.publish_udp(5353)?.with(&["--publish", &v6[0], "--publish", &v6[1]]);
    let mut left = left.start(&host)?;
    let mut right = recipe("right")?.start(&host)?;
    let booted = left.boot();
    left.explain(booted)?;
    let booted = right.boot();
    right.explain(booted)?;
    let crossed = (|| {
        let address = |name: &str| -> anyhow::Result<String> {
            Ok(host.view(name)?["address"].as_str().context("no address is shown")?.to_owned())
        };
        ensure!(address("left")? != address("right")?, "both are {}", address("left")?);
        ensure!(left.console.command("hostname")?.trim() == "left", "left is called otherwise");
        reach_each_other(&mut left, &mut right)?;
        let seen = right.console.command("nslookup left")?;
        ensure!(seen.contains(&address("left")?), "left is {}, and right was told {seen}", address("left")?);
        ensure!(right.console.command("ping -c 1 -W 2 nobody").is_err(), "nobody answered");

        left.console.command("dd if=/dev/urandom of=/var/www/file bs=64k count=64 2>/dev/null")?;
        let sent = left.console.command("sha256sum < /var/www/file")?;
        right.console.command("wget -q -O /tmp-file http://left/file")?;
        let received = right.console.command("sha256sum < /tmp-file")?;
        ensure!(sent == received && sent.len() > 64, "sent {sent:?}, received {received:?}");

        // A published port leads to the guest that publishes it, whoever spoke last.
        for guest in [&mut left, &mut right] {
            let name = guest.name.clone();
            guest.console.command(&format!("echo {name} > /var/www/name"))?;
        }
        for (guest, other) in [(&left, &right), (&right, &left), (&left, &right)] {
            for (guest, port) in [(guest, guest.port(80)?), (other, other.port(80)?)] {
                let body = http::get_patiently(port, "/name")?;
                ensure!(
                    body == format!("{}\n", guest.name).into_bytes(),
                    "{} answered for {}",
                    String::from_utf8_lossy(&body),
                    guest.name
                );
            }
        }
        // Port 8081's server listens on IPv4 alone.
        for _ in 0..3 {
            let answer = page(six, "/name")?;
            ensure!(answer.ends_with("\r\n\r\nleft\n"), "[::1]:{six} answered {answer:?}");
        }
        for port in [5353, 5354] {
            left.console.command(&format!("(/bench/udpecho {port} > /tmp/udp 2>&1 &)"))?;
        }
        for length in [1, 100, 1200] {
            echoed(Ipv4Addr::LOCALHOST.into(), left.port(5353)?, &vec![b'u'; length])?;
            echoed(Ipv6Addr::LOCALHOST.into(), six, &vec![b'6'; length])?;
        }

        // Another switch in its place: nobody notices, whether they renew or ask for names.
        process::signal(host.pid_of("left", "netswitch")?, nix::sys::signal::Signal::SIGKILL)?;
        wait_for("another switch", || host.pid_of("left", "netswitch").ok())?;
        let before = [address("left")?, address("right")?];
        reach_each_other(&mut left, &mut right)?;
        right.console.command("kill -USR1 $(pidof udhcpc); sleep 1")?;
        reach_each_other(&mut left, &mut right)?;
        ensure!([address("left")?, address("right")?] == before, "addresses have changed");
        ensure!(http::get_patiently(right.port(80)?, "/name")? == b"right\n");
        Ok(())
    })();
    left.explain(right.explain(crossed))?;
    drop((left, right));
    host.stop()
}
