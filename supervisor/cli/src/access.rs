//! How people get into a guest: its console, its published ports, ssh.

use super::args::Login;
use super::client::Client;
use anyhow::{Context, bail};
use quasar_api::{Boot, Phase, Publish, VmView};
use quasar_image::manifest::names::SSH_KEY;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The port of ssh in a guest.
const SSH: u16 = 22;
/// Where the keys of guests are remembered, beside the images, which all have one: other VMs may have had the port.
const KNOWN_HOSTS: &str = "known_hosts";
/// The name under which it is.
const HOST_KEY_ALIAS: &str = "quasar-guest";

/// An address to connect to: a port published at every address is at this machine's own, too.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// Where its ssh is reached.
fn ssh_port(publish: &[String]) -> Option<(IpAddr, u16)> {
    let mut ports = publish.iter().filter_map(|text| text.parse::<Publish>().ok());
    let ssh = ports.find(|publish| publish.guest_port == SSH)?;
    Some((reachable(ssh.address), ssh.port))
}

/// The key that a guest of ours takes; it lies beside its kernel.
fn key(vm: &VmView) -> Option<PathBuf> {
    let Boot::Kernel { kernel, .. } = &vm.spec.machine.boot else { return None };
    Some(kernel.parent()?.join(SSH_KEY)).filter(|key| key.is_file())
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%:,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What a user is told about a VM that has just been made or started, a sentence a line. `attached`: its console follows.
#[must_use]
pub fn ways_in(vm: &VmView, attached: bool) -> String {
    let name = &vm.name;
    let mut text = String::new();
    let mut say = |line: String| text.push_str(&format!("quasar: {name}: {line}\n"));
    for port in &vm.publish {
        say(format!("published {port}"));
    }
    if let Some((address, port)) = ssh_port(&vm.publish) {
        let key = key(vm).map(|key| format!("-i {} ", quoted(&key))).unwrap_or_default();
        say(format!("`quasar ssh {name}` logs in when it is up, as does ssh {key}-p {port} root@{address}"));
    }
    match (vm.status.phase, attached) {
        (Phase::Stopped, _) => say(format!("made; `quasar start {name}` starts it")),
        (_, true) => say("its console follows; Ctrl-] leaves it and lets the VM run on".to_owned()),
        (_, false) => say(format!("`quasar console {name}` attaches to its console (Ctrl-] leaves it)")),
    }
    text
}

fn ssh(login: &Login, key: Option<&Path>, (address, port): (IpAddr, u16)) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-p", &port.to_string(), "-l", &login.user]);
    if let Some(key) = key {
        let mut known = OsString::from("UserKnownHostsFile=");
        // ssh splits the value at spaces.
        known.push(quoted_for_ssh(&key.with_file_name(KNOWN_HOSTS)));
        command.arg("-i").arg(key).arg("-o").arg(known);
        command.args(["-o", &format!("HostKeyAlias={HOST_KEY_ALIAS}")]);
        command.args([
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "LogLevel=ERROR",
        ]);
    }
    command.arg(address.to_string()).args(&login.command);
    command
}

fn quoted_for_ssh(path: &Path) -> OsString {
    let mut quoted = OsString::from("\"");
    quoted.push(path);
    quoted.push("\"");
    quoted
}

/// `quasar ssh`: becomes ssh.
///
/// # Errors
/// When the VM does not run, publishes no port of ssh, or there is no ssh.
pub async fn log_in(client: &Client, login: &Login) -> anyhow::Result<ExitCode> {
    let name = &login.name;
    let vm: VmView = client.get(&format!("/v1/vms/{name}")).await?;
    match vm.status.phase {
        Phase::Running | Phase::Stopping => {}
        Phase::Stopped => bail!("VM {name} has stopped; `quasar start {name}` boots it again"),
        Phase::Paused => bail!("VM {name} is paused; `quasar resume {name}` lets it go on"),
        phase => bail!("VM {name} is {}", phase.word()),
    }
    let port = ssh_port(&vm.publish).with_context(|| {
        format!(
            "VM {name} publishes no port of its ssh: `quasar console {name}` attaches to its console; with ssh it is \
             run as `quasar run … --publish 2222:{SSH}`"
        )
    })?;
    let error = ssh(login, key(&vm).as_deref(), port).exec();
    Err(error).context("ssh cannot be started (Debian's package openssh-client)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(directory: &Path, phase: &str, publish: &[&str]) -> VmView {
        let kernel = directory.join("Image");
        serde_json::from_value(serde_json::json!({
            "name": "web", "phase": phase, "processes": [], "reboots": 0,
            "memory": 512 << 20, "harts": 1, "publish": publish, "created": 0,
            "spec": {"name": "web", "machine": {"memory": 1 << 28, "harts": 1, "boot": {"kernel": {"kernel": kernel}}}},
        }))
        .expect("a view")
    }

    #[test]
    fn users_are_told_how_to_get_in() {
        let directory = tempfile::Builder::new().prefix("with space").tempdir().expect("tempdir");
        let ports = ["127.0.0.1:8080:80", "0.0.0.0:2222:22"];
        let text = ways_in(&vm(directory.path(), "running", &ports), false);
        for words in ["published 127.0.0.1:8080:80", "quasar console web", "ssh -p 2222 root@127.0.0.1"] {
            assert!(text.contains(words), "{words} in {text}");
        }
        let key = directory.path().join(SSH_KEY);
        std::fs::write(&key, "").expect("a key");
        let text = ways_in(&vm(directory.path(), "running", &ports), true);
        let quoted = format!("ssh -i '{}' -p 2222", key.display());
        assert!(text.contains(&quoted) && text.contains("Ctrl-]"), "{text}");
        let text = ways_in(&vm(directory.path(), "stopped", &[]), false);
        assert!(text.contains("quasar start web") && !text.contains("ssh"), "{text}");
    }

    #[test]
    fn ssh_is_found_among_the_ports() {
        let port = |ports: &[&str]| ssh_port(&ports.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(port(&["8080:80", "[::]:2222:22"]), Some((Ipv6Addr::LOCALHOST.into(), 2222)));
        assert_eq!(port(&["10.0.0.1:22:22"]), Some(([10, 0, 0, 1].into(), 22)));
        assert_eq!(port(&["22:80"]), None);
    }
}
