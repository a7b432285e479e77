//! A guest under test: how it is made, and its console.

use crate::console::{self, Console};
use crate::images::images;
use crate::{Host, http};
use anyhow::Context;
use serde_json::Value;
use std::path::Path;

/// Command line of the kernel in all guests.
pub const APPEND: &str = "console=ttyS0 cryptomgr.notests";
/// The shell of the small guest is there.
pub const PROMPT: &str = "guest:~# ";

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    name: String,
    arguments: Vec<String>,
    append: String,
    ports: Vec<(u16, u16)>,
}

impl Recipe {
    fn new(name: &str, initrd: &Path) -> anyhow::Result<Self> {
        let kernel = images()?.kernel.display().to_string();
        let words = ["run", name, "--detach", "--kernel", &kernel, "--initrd", &initrd.display().to_string()];
        let arguments = words.map(String::from).to_vec();
        Ok(Self { name: name.to_owned(), arguments, append: APPEND.to_owned(), ports: vec![] })
    }

    /// The small guest.
    ///
    /// # Errors
    /// When the images cannot be built.
    pub fn initramfs(name: &str) -> anyhow::Result<Self> {
        Self::new(name, &images()?.initrd)
    }

    /// Debian on a disk.
    ///
    /// # Errors
    /// When the images cannot be built.
    pub fn disk(name: &str, disk: &Path) -> anyhow::Result<Self> {
        Ok(Self::new(name, &images()?.disk_initrd)?.with(&["--disk", &disk.display().to_string()]))
    }

    /// More arguments of `quasar run`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// More words on the kernel's command line.
    #[must_use]
    pub fn append(mut self, words: &str) -> Self {
        self.append = format!("{} {words}", self.append);
        self
    }

    /// Leads a free port of the host into the guest; see [`Guest::port`].
    ///
    /// # Errors
    /// When there is no free port.
    pub fn publish(mut self, guest_port: u16) -> anyhow::Result<Self> {
        let port = http::free_port()?;
        self.ports.push((guest_port, port));
        Ok(self.with(&["--publish", &format!("127.0.0.1:{port}:{guest_port}")]))
    }

    /// The same for datagrams.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn publish_udp(mut self, guest_port: u16) -> anyhow::Result<Self> {
        let port = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        self.ports.push((guest_port, port));
        Ok(self.with(&["--publish", &format!("127.0.0.1:{port}:{guest_port}/udp")]))
    }

    /// The command line that runs it.
    #[must_use]
    pub fn arguments(&self) -> Vec<&str> {
        let words = self.arguments.iter().map(String::as_str);
        words.chain(["--append", self.append.as_str()]).collect()
    }

    /// Starts it and attaches to its console.
    ///
    /// # Errors
    /// When `quasar run` fails.
    pub fn start(self, host: &Host) -> anyhow::Result<Guest<'_>> {
        host.quasar(&self.arguments())?;
        let console = Console::attach(&mut host.command(&["console", &self.name]))?;
        Ok(Guest { host, name: self.name, ports: self.ports, console })
    }
}

/// A guest that was started. When its test fails, its console and logs are printed.
pub struct Guest<'h> {
    host: &'h Host,
    /// The VM's name.
    pub name: String,
    /// Its console.
    pub console: Console,
    ports: Vec<(u16, u16)>,
}

impl<'h> Guest<'h> {
    /// Moves it to another host by `quasar migrate` and attaches to its console there. Returns the events.
    ///
    /// # Errors
    /// When it fails.
    pub fn migrate(&mut self, to: &'h Host, more: &[&str]) -> anyhow::Result<Vec<Value>> {
        let address = to.address()?;
        let words = ["migrate", &self.name, "--to", &address, "--json"];
        let text = self.host.quasar(&[&words, more].concat())?;
        self.is_at(to)?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Attaches to its console on the host where it is now.
    ///
    /// # Errors
    /// When it is not there.
    pub fn is_at(&mut self, host: &'h Host) -> anyhow::Result<()> {
        self.host = host;
        self.console.reattach(&mut host.command(&["console", &self.name]))
    }

    /// The host where it is.
    #[must_use]
    pub fn host(&self) -> &'h Host {
        self.host
    }
}

impl Guest<'_> {
    /// The host's port that leads to this port of the guest.
    ///
    /// # Errors
    /// When none was published.
    pub fn port(&self, guest_port: u16) -> anyhow::Result<u16> {
        let found = self.ports.iter().find(|(inside, _)| *inside == guest_port);
        Ok(found.with_context(|| format!("port {guest_port} was not published"))?.1)
    }

    /// Waits until the small guest's shell is there.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn boot(&mut self) -> anyhow::Result<()> {
        self.console.expect("GUEST READY ")?;
        self.console.expect(PROMPT)?;
        Ok(())
    }

    /// Starts the other end of a [`Stream`](crate::stream::Stream) at this port of the small guest, and waits until
    /// it listens: the uplink takes connections before the guest does, and resets those that the guest refuses.
    /// What it finds is in the guest's `/tmp/tcp`.
    ///
    /// # Errors
    /// When the console is broken.
    pub fn check_stream(&mut self, port: u16) -> anyhow::Result<()> {
        self.console.command(&format!("(/bench/tcpcheck server {port} > /tmp/tcp 2>&1 &)"))?;
        // Hexadecimal port, state 0A: listening.
        let listens = format!("grep -qs ':{port:04X} .* 0A ' /proc/net/tcp /proc/net/tcp6");
        self.console.command(&format!("until {listens}; do sleep 0.05; done")).map(drop)
    }

    /// Sees that a checker in the guest has complained of nothing in `/tmp/LOG`, which must be there.
    ///
    /// # Errors
    /// What it has complained of.
    pub fn no_complaint(&mut self, log: &str) -> anyhow::Result<()> {
        self.no_line(log, "FAIL")
    }

    /// Sees that no line of `/tmp/LOG` in the guest, which must be there, has this in it, a regular expression.
    ///
    /// # Errors
    /// Those that have.
    pub fn no_line(&mut self, log: &str, pattern: &str) -> anyhow::Result<()> {
        // Where the file is missing, sed fails; that grep finds nothing there would look well.
        let lines = self.console.command(&format!("sed -n '/{pattern}/p' /tmp/{log}"))?;
        anyhow::ensure!(lines.is_empty(), "in the guest's /tmp/{log}: {lines}");
        Ok(())
    }

    /// Presses the power key and sees the VM end by the guest's own power-off.
    ///
    /// # Errors
    /// When it ends in another way or not at all.
    pub fn power_key(&self) -> anyhow::Result<()> {
        self.host.quasar(&["stop", &self.name, "--timeout", "240"])?;
        self.powered_off()
    }

    /// Sees the VM end by the guest's own power-off.
    ///
    /// # Errors
    /// When it ends in another way or not at all.
    pub fn powered_off(&self) -> anyhow::Result<()> {
        let view = self.host.wait_phase(&self.name, "stopped")?;
        anyhow::ensure!(view["outcome"]["kind"] == "poweroff", "{} ended by {}", self.name, view["outcome"]);
        Ok(())
    }

    /// What is printed when a test fails.
    #[must_use]
    pub fn last_words(&self) -> String {
        let shown = console::tail(&self.console.text(), 60);
        format!("--- console of {}\n{shown}\n{}", self.name, self.host.last_words(&self.name))
    }

    /// Adds what the guest and its processes said last to an error.
    ///
    /// # Errors
    /// The result's own.
    pub fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        result.with_context(|| self.last_words())
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}
