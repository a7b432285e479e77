//! What goes on while guests move: a long download through a published port, and a checked stream from another VM of
//! the same network, which moves as well; wherever the two are, they know each other by name. Two boots at once, about a
//! minute.

use anyhow::{Context, ensure};
use quasar_tests::http::get_patiently;
use quasar_tests::process::output;
use quasar_tests::{Guest, Host, PATIENCE, Recipe};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What is downloaded: more than fits into the sockets on its way.
const MIB: u64 = 24;

/// A download that takes its time until it is told to hurry.
struct Download {
    hurry: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    thread: JoinHandle<anyhow::Result<PathBuf>>,
}

impl Download {
    fn begin(port: u16, path: &str, to: PathBuf) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        write!(socket, "GET {path} HTTP/1.0\r\n\r\n")?;
        let (hurry, taken) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (hurried, count) = (Arc::clone(&hurry), Arc::clone(&taken));
        let take = move || {
            let mut header = vec![];
            while !header.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).context("the answer's header")?;
                header.push(byte[0]);
            }
            let mut file = File::create(&to)?;
            let mut piece = vec![0; 32 << 10];
            loop {
                let taken = count.load(Ordering::Acquire);
                let hurries = hurried.load(Ordering::Acquire);
                // The less is left the smaller pieces, so that it outlasts moves on a machine however slow.
                let left = usize::try_from((MIB << 20).saturating_sub(taken))?;
                let most = if hurries { piece.len() } else { (left / 512).clamp(1, piece.len()) };
                match socket.read(&mut piece[..most]).with_context(|| format!("after {taken} bytes"))? {
                    0 => return Ok(to),
                    got => {
                        file.write_all(&piece[..got])?;
                        count.fetch_add(u64::try_from(got)?, Ordering::AcqRel);
                    }
                }
                if !hurries {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        Ok(Self { hurry, taken, thread: std::thread::spawn(take) })
    }

    /// It still comes, and is not over.
    fn flows(&self) -> anyhow::Result<()> {
        let before = self.taken.load(Ordering::Acquire);
        quasar_tests::wait_for("more of the download", || {
            (self.taken.load(Ordering::Acquire) > before || self.thread.is_finished()).then_some(())
        })?;
        let taken = self.taken.load(Ordering::Acquire);
        ensure!(!self.thread.is_finished() && taken < MIB << 20, "it has ended after {taken} bytes");
        Ok(())
    }

    fn finish(self) -> anyhow::Result<PathBuf> {
        self.hurry.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("the download panicked"))?
    }
}

fn sha256(file: &Path) -> anyhow::Result<String> {
    Ok(output(Command::new("sha256sum").arg(file))?.split(' ').next().context("a hash")?.to_owned())
}

/// The stream from one guest to the other has gone on, whole.
fn stream_flows(client: &mut Guest<'_>) -> anyhow::Result<()> {
    client.no_complaint("client")?;
    client.console.command(": > /tmp/client; until grep -q ' ok ' /tmp/client; do sleep 0.2; done").map(drop)
}

#[test]
fn downloads_and_streams_between_guests_go_on_while_both_move() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let b = a.neighbour()?;
    let lan = ["--net", "lan", "--memory", "256M"];
    let mut left = Recipe::initramfs("left")?.with(&lan).append("quiet").publish(80)?.start(&a)?;
    let right = Recipe::initramfs("right")?.with(&lan).append("quiet gsvc=none");
    let mut right = right.start(&a)?;
    let moves = (|| {
        left.boot()?;
        right.boot()?;
        // The port leads to the one that has it, though neither has said a word yet.
        get_patiently(left.port(80)?, "/1k.bin")?;
        left.check_stream(7000)?;
        let address = a.view("left")?["address"].as_str().context("no address is shown")?.to_owned();
        let client = format!("(/bench/tcpcheck client {address} 7000 0 512 > /tmp/client 2>&1 &)");
        right.console.command(&client)?;
        left.console
            .command(&format!("dd if=/dev/urandom of=/var/www/long bs=1M count={MIB} 2>/dev/null"))?;
        let sent = left.console.command("sha256sum /var/www/long")?;
        let download = Download::begin(left.port(80)?, "/long", a.directory().join("long"))?;
        download.flows()?;
        stream_flows(&mut right)?;
        // Apart, together abroad, apart the other way round, together at home.
        for (who, to) in [(0, &b), (1, &b), (0, &a), (1, &a)] {
            let guest = if who == 0 { &mut left } else { &mut right };
            let events = guest.migrate(to, &["--max-downtime", "100"])?;
            let last = events.last().context("no event")?;
            ensure!(last["event"] == "completed", "{last}");
            download.flows()?;
            stream_flows(&mut right)?;
            right.console.command("ping -c 1 -W 60 left")?;
            left.console.command("kill -USR1 $(pidof udhcpc); ping -c 1 -W 60 right.internal")?;
            let host = if who == 0 { left.host() } else { right.host() };
            let name = if who == 0 { "left" } else { "right" };
            let listed = host.listed("left")?;
            ensure!(
                listed.is_none_or(|left| left["address"] == *address),
                "left has another address since {name} has moved"
            );
        }
        let file = download.finish()?;
        ensure!(file.metadata()?.len() == MIB << 20, "{} bytes came", file.metadata()?.len());
        let received = sha256(&file)?;
        ensure!(sent.starts_with(&received), "{sent:?} was sent, {received} was received");
        right.console.command("killall tcpcheck")?;
        right.no_complaint("client")?;
        left.no_line("tcp", "FAIL.*block")
    })();
    let moves = moves.with_context(|| [&a, &b].map(|host| host.last_words("left")).concat());
    left.explain(right.explain(moves))?;
    drop((left, right));
    for vm in ["left", "right"] {
        a.quasar(&["rm", "--force", vm])?;
    }
    a.stop()?;
    b.stop()
}
