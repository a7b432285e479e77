//! Two guests on one network: they reach each other and a file crosses whole. Two boots at once, about 30 s.

use anyhow::ensure;
use quasar_tests::{Guest, Host, Recipe};

fn start<'h>(host: &'h Host, name: &str, address: &str) -> anyhow::Result<Guest<'h>> {
    Recipe::initramfs(name)?
        .with(&["--net", "lan", "--memory", "256M"])
        .append(&format!("gip={address}/24"))
        .start(host)
}

#[test]
fn two_guests_reach_each_other() -> anyhow::Result<()> {
    let host = Host::start()?;
    let mut left = start(&host, "left", "10.9.0.1")?;
    let mut right = start(&host, "right", "10.9.0.2")?;
    let booted = left.boot();
    left.explain(booted)?;
    let booted = right.boot();
    right.explain(booted)?;
    let crossed = (|| {
        left.console.command("ping -c 3 -W 60 10.9.0.2")?;
        right.console.command("ping -c 3 -W 60 10.9.0.1")?;
        left.console.command("dd if=/dev/urandom of=/var/www/file bs=64k count=64 2>/dev/null")?;
        let sent = left.console.command("sha256sum < /var/www/file")?;
        right.console.command("wget -q -O /tmp-file http://10.9.0.1/file")?;
        let received = right.console.command("sha256sum < /tmp-file")?;
        ensure!(sent == received && sent.len() > 64, "sent {sent:?}, received {received:?}");
        // Who is not on the network is not reached.
        ensure!(
            right.console.command("ping -c 1 -W 2 10.9.0.3").is_err(),
            "10.9.0.3 answered, which is nobody"
        );
        Ok(())
    })();
    left.explain(right.explain(crossed))?;
    drop((left, right));
    host.stop()
}
