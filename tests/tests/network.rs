//! Two guests on one network: they know each other by name, also when the switch is another one, a file crosses whole,
//! each has its own published ports and its own way out. Two boots at once, about 40 s.

use anyhow::{Context, bail, ensure};
use quasar_tests::{Guest, Host, Recipe, http, process, step, wait_for};
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

/// The address that a guest is listed with.
fn address(host: &Host, name: &str) -> anyhow::Result<String> {
    Ok(host.view(name)?["address"].as_str().context("no address is shown")?.to_owned())
}

/// Each is called as its VM, knows the other, and nobody who is not there.
fn names(host: &Host, left: &mut Guest<'_>, right: &mut Guest<'_>) -> anyhow::Result<()> {
    let shown = address(host, "left")?;
    ensure!(shown != address(host, "right")?, "both are {shown}");
    let called = left.console.command("hostname")?;
    ensure!(called.trim() == "left", "left is called {called:?}");
    reach_each_other(left, right)?;
    let seen = right.console.command("nslookup left")?;
    ensure!(seen.contains(&shown), "left is {shown}, and right was told {seen}");
    // Not that it does not answer: there is no such name, and no such address is asked.
    let nobody = right.console.refusal("ping -c 1 -W 2 nobody")?;
    ensure!(nobody.contains("bad address 'nobody'"), "nobody was found: {nobody}");
    // An address that is given to nobody.
    let gone = right.console.refusal("ping -c 1 -W 2 10.0.2.9")?;
    ensure!(gone.contains("100% packet loss"), "nobody answered: {gone}");
    Ok(())
}

/// A file crosses whole.
fn file(left: &mut Guest<'_>, right: &mut Guest<'_>) -> anyhow::Result<()> {
    left.console.command("dd if=/dev/urandom of=/var/www/file bs=64k count=64 2>/dev/null")?;
    let sent = left.console.command("sha256sum < /var/www/file")?;
    right.console.command("wget -q -O /tmp-file http://left/file")?;
    let received = right.console.command("sha256sum < /tmp-file")?;
    ensure!(sent == received && sent.len() > 64, "sent {sent:?}, received {received:?}");
    Ok(())
}

/// A published port leads to the guest that publishes it, whoever spoke last.
fn ports<'h>(left: &mut Guest<'h>, right: &mut Guest<'h>, six: u16) -> anyhow::Result<()> {
    for guest in [&mut *left, &mut *right] {
        let name = guest.name.clone();
        guest.console.command(&format!("echo {name} > /var/www/name"))?;
    }
    for guest in [&*left, right, right, left, left, right] {
        let body = http::get_patiently(guest.port(80)?, "/name")?;
        let shown = String::from_utf8_lossy(&body);
        ensure!(shown == format!("{}\n", guest.name), "{shown} answered for {}", guest.name);
    }
    // Port 8081's server listens on IPv4 alone.
    for _ in 0..3 {
        let answer = page(six, "/name")?;
        ensure!(answer.ends_with("\r\n\r\nleft\n"), "[::1]:{six} answered {answer:?}");
    }
    Ok(())
}

/// Datagrams of any length, by IPv4 and IPv6.
fn datagrams(left: &mut Guest<'_>, six: u16) -> anyhow::Result<()> {
    for port in [5353, 5354] {
        left.console.command(&format!("(/bench/udpecho {port} > /tmp/udp 2>&1 &)"))?;
    }
    for length in [1, 100, 1200] {
        echoed(Ipv4Addr::LOCALHOST.into(), left.port(5353)?, &vec![b'u'; length])?;
        echoed(Ipv6Addr::LOCALHOST.into(), six, &vec![b'6'; length])?;
    }
    Ok(())
}

/// Another switch in its place: nobody notices, whether they renew or ask for names.
fn another_switch(host: &Host, left: &mut Guest<'_>, right: &mut Guest<'_>) -> anyhow::Result<()> {
    let before = [address(host, "left")?, address(host, "right")?];
    let old = host.pid_of("left", "netswitch")?;
    process::signal(old, nix::sys::signal::Signal::SIGKILL)?;
    wait_for("another switch", || host.pid_of("left", "netswitch").ok().filter(|new| *new != old))?;
    reach_each_other(left, right)?;
    right.console.command("kill -USR1 $(pidof udhcpc); sleep 1")?;
    reach_each_other(left, right)?;
    let now = [address(host, "left")?, address(host, "right")?];
    ensure!(now == before, "addresses have changed from {before:?} to {now:?}");
    let name = http::get_patiently(right.port(80)?, "/name")?;
    ensure!(name == b"right\n", "{} answered for right", String::from_utf8_lossy(&name));
    Ok(())
}

#[test]
fn two_guests_reach_each_other_by_name() -> anyhow::Result<()> {
    let host = Host::start()?;
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?.local_addr()?.port();
    let v6 = [format!("[::1]:{six}:8081"), format!("[::1]:{six}:5354/udp")];
    let left = recipe("left")?.publish_udp(5353)?.with(&["--publish", &v6[0], "--publish", &v6[1]]);
    let mut left = left.start(&host)?;
    let mut right = recipe("right")?.start(&host)?;
    let crossed = (|| {
        step("left boots", || left.boot())?;
        step("right boots", || right.boot())?;
        step("names", || names(&host, &mut left, &mut right))?;
        step("a file", || file(&mut left, &mut right))?;
        step("published ports", || ports(&mut left, &mut right, six))?;
        step("datagrams", || datagrams(&mut left, six))?;
        step("another switch", || another_switch(&host, &mut left, &mut right))
    })();
    left.explain(right.explain(crossed))?;
    drop((left, right));
    host.stop()
}
