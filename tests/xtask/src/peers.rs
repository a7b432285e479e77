//! Who is measured: Quasar, and QEMU with the same kernel, initramfs, memory and ports.

use crate::qemu;
use anyhow::Context;
use quasar_tests::guest::APPEND;
use quasar_tests::turn::Turn;
use quasar_tests::{Console, Guest, Host, Recipe, http, images};
use std::process::Stdio;

/// Something that runs the small guest.
pub trait Peer {
    /// Its console.
    fn console(&mut self) -> &mut Console;
    /// The host's port that leads to the guest's web server.
    fn port(&self) -> u16;
    /// How its one hart has waited for somebody who walks tables, where that is another process.
    ///
    /// # Errors
    /// When it does not say.
    fn mmu_waits(&self) -> anyhow::Result<Option<Waits>> {
        Ok(None)
    }
}

/// Since the guest's start, or between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// Times.
    pub requests: u64,
    /// Nanoseconds of them all.
    pub ns: u64,
}

impl Waits {
    /// Those after `before`.
    pub fn since(self, before: Self) -> Self {
        Self { requests: self.requests - before.requests, ns: self.ns - before.ns }
    }
}

/// Quasar.
pub struct Quasar<'h> {
    guest: Guest<'h>,
    port: u16,
}

impl<'h> Quasar<'h> {
    /// A daemon, and what the guest is made of.
    pub fn host() -> anyhow::Result<(Host, Recipe)> {
        Ok((Host::start()?, Recipe::initramfs("bench")?.append("quiet").publish(80)?))
    }

    /// Starts the guest.
    pub fn start(host: &'h Host, recipe: Recipe) -> anyhow::Result<Self> {
        let guest = recipe.start(host)?;
        let port = guest.port(80)?;
        Ok(Self { guest, port })
    }

    /// Adds what the guest said last to an error.
    pub fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        self.guest.explain(result)
    }
}

impl Peer for Quasar<'_> {
    fn console(&mut self) -> &mut Console {
        &mut self.guest.console
    }
    fn port(&self) -> u16 {
        self.port
    }
    fn mmu_waits(&self) -> anyhow::Result<Option<Waits>> {
        let stats = self.guest.host().json(&["stats", &self.guest.name, "--json"])?;
        let count =
            |name: &str| stats["harts"][0][name].as_u64().with_context(|| format!("no {name}: {stats}"));
        Ok(Some(Waits { requests: count("mmu_requests")?, ns: count("mmu_wait_ns")? }))
    }
}

/// QEMU's translator. Dropping it ends the process.
pub struct Qemu {
    console: Console,
    port: u16,
    _turn: Turn,
}

impl Qemu {
    /// Starts it.
    pub fn start() -> anyhow::Result<Self> {
        let turn = Turn::take()?;
        let images = images::images()?;
        let port = http::free_port()?;
        let mut command = qemu::command()?;
        command.args([
            "-M",
            "virt",
            "-smp",
            "1",
            "-m",
            "512M",
            "-nographic",
            "-no-reboot",
            "-monitor",
            "none",
        ]);
        command.args(["-serial", "stdio", "-global", "virtio-mmio.force-legacy=false"]);
        command.arg("-kernel").arg(&images.kernel).arg("-initrd").arg(&images.initrd);
        command.args(["-append", &format!("{APPEND} quiet")]);
        command.args(["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:80")]);
        command.args(["-device", "virtio-net-device,netdev=net", "-device", "virtio-rng-device"]);
        command.stderr(Stdio::inherit());
        let console = Console::attach(&mut command).context("QEMU")?;
        Ok(Self { console, port, _turn: turn })
    }
}

impl Peer for Qemu {
    fn console(&mut self) -> &mut Console {
        &mut self.console
    }
    fn port(&self) -> u16 {
        self.port
    }
}
