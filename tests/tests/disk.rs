//! Debian with systemd on a virtio disk: login, ssh, nginx, files that last, power-off from inside and by the
//! power key. Two boots, about two and a half minutes.

use anyhow::ensure;
use quasar_tests::http::get_patiently;
use quasar_tests::images::images;
use quasar_tests::process::output;
use quasar_tests::{Guest, Host, Recipe, disk};
use std::path::Path;
use std::process::Command;

fn ssh(guest: &Guest<'_>, line: &str) -> anyhow::Result<String> {
    let options = [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        "BatchMode=yes",
        "ConnectTimeout=120",
        "IdentitiesOnly=yes",
    ];
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-p", &guest.port(22)?.to_string(), "-i"]).arg(&images()?.ssh_key);
    command.args(options.iter().flat_map(|option| ["-o", option])).args(["root@127.0.0.1", line]);
    output(&mut command)
}

fn boot<'h>(host: &'h Host, name: &str, disk: &Path) -> anyhow::Result<Guest<'h>> {
    let mut guest = Recipe::disk(name, disk)?.append("quiet").publish(22)?.publish(80)?.start(host)?;
    let login = guest.console.expect("login: ").map(drop);
    guest.explain(login)?;
    let page = get_patiently(guest.port(80)?, "/");
    guest.explain(page)?;
    Ok(guest)
}

#[test]
fn what_is_written_lasts() -> anyhow::Result<()> {
    let host = Host::start()?;
    let disk = disk::copy(host.directory())?;

    let guest = boot(&host, "first", &disk)?;
    let written = (|| {
        ensure!(ssh(&guest, "uname -m")?.trim() == "riscv64");
        ssh(&guest, "dd if=/dev/urandom of=/root/data bs=64k count=256 2>/dev/null && sync")?;
        let sum = ssh(&guest, "sha256sum /root/data")?;
        ssh(&guest, "echo 3 > /proc/sys/vm/drop_caches")?;
        ensure!(ssh(&guest, "sha256sum /root/data")? == sum, "other bytes came back from the disk");
        // The session may be cut by the power-off itself.
        ssh(&guest, "systemd-run --on-active=1 systemctl poweroff 2>/dev/null")?;
        guest.powered_off()?;
        Ok(sum)
    })();
    let sum = guest.explain(written)?;
    drop(guest);

    let guest = boot(&host, "second", &disk)?;
    let read = (|| {
        ensure!(ssh(&guest, "sha256sum /root/data")? == sum, "other bytes after a boot");
        let recovered = ssh(&guest, "dmesg | grep -ci 'recovery\\|ext4.*error' || true")?;
        ensure!(recovered.trim() == "0", "the file system was not left clean");
        // As users do; nothing is asked, the second time neither.
        for words in [["ssh", "second", "uname", "-m"], ["exec", "second", "--", "arch"]] {
            ensure!(host.quasar(&words)?.trim() == "riscv64", "{words:?}");
        }
        guest.power_key()
    })();
    guest.explain(read)?;
    drop(guest);
    host.stop()
}
