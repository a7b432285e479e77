//! What `quasar host` is to other hosts.

use super::args::HostOptions;
use super::client::Client;
use anyhow::bail;
use quasar_abi::control::migrator::Security;
use quasar_abi::note;
use quasar_api::HostView;
use quasar_peer::Neighbours;
use quasar_places::Paths;
use std::net::SocketAddr;

/// Checks the options that concern other hosts.
///
/// # Errors
/// When they do not fit together.
pub fn neighbours(options: &HostOptions) -> anyhow::Result<Neighbours> {
    let HostOptions { listen, switch_listen, link, pki, insecure, .. } = options;
    let security = match pki {
        Some(directory) => Some(quasar_pki::security(&std::path::absolute(directory)?)?),
        None => insecure.then_some(Security::Insecure),
    };
    if listen.or(*switch_listen).is_some() && security.is_none() {
        bail!("--listen needs keys: --pki DIR (see `quasar pki`), or --insecure for hosts on one machine");
    }
    let after = |listen: SocketAddr| Some(SocketAddr::new(listen.ip(), listen.port().checked_add(1)?));
    let switch = switch_listen.or_else(|| listen.and_then(after));
    if switch.is_none() && !link.is_empty() {
        bail!("--link needs --listen as well: the other host's switch may have to call this one's back");
    }
    if *insecure {
        let all = [*listen, switch].into_iter().flatten().chain(link.iter().copied());
        if let Some(far) = all.into_iter().find(|a| !a.ip().is_loopback()) {
            bail!("{far} is reachable from other machines, which --insecure does not allow: use --pki DIR");
        }
        note!(
            "quasar: WARNING: --insecure: whoever can use this machine's loopback interface can take VMs from this \
             host, give it others, and read and write their networks"
        );
    }
    Ok(Neighbours { security, listen: *listen, switch, links: link.clone() })
}

/// Whether the daemon that serves now has no VM and is about to end: somebody's last command may have been a moment
/// ago.
///
/// # Errors
/// When nobody can be asked; that nobody serves is none.
pub fn another_is_idle(paths: &Paths) -> anyhow::Result<bool> {
    let client = Client { paths: paths.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found: Result<HostView, _> = runtime.block_on(client.get("/v1/host"));
    Ok(found.is_ok_and(|host| host.ends_when_idle && host.vms == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn options(listen: Option<&str>) -> HostOptions {
        let listen = listen.map(|address| address.parse().expect("address"));
        HostOptions {
            exit_when_idle: false,
            hang_after: Duration::from_secs(2),
            background: false,
            detach: false,
            stop: false,
            listen,
            switch_listen: None,
            link: vec![],
            pki: None,
            insecure: true,
            exe_for: vec![],
        }
    }

    #[test]
    fn without_keys_nobody_is_let_in_but_over_loopback() {
        let local = neighbours(&options(Some("127.0.0.1:7700"))).expect("loopback");
        assert_eq!(local.switch, Some("127.0.0.1:7701".parse().expect("address")));
        assert!(neighbours(&options(Some("0.0.0.0:7700"))).expect_err("far").to_string().contains("--pki"));
        let far = HostOptions {
            link: vec!["10.0.0.2:7701".parse().expect("address")],
            ..options(Some("127.0.0.1:7700"))
        };
        assert!(neighbours(&far).expect_err("far").to_string().contains("10.0.0.2:7701"));
        let deaf = HostOptions { listen: None, ..far };
        assert!(neighbours(&deaf).expect_err("deaf").to_string().contains("--link needs --listen"));
        let keyless = HostOptions { insecure: false, ..options(Some("127.0.0.1:7700")) };
        assert!(neighbours(&keyless).expect_err("no keys").to_string().contains("--insecure"));
        let missing = HostOptions { pki: Some("/nonexistent".into()), insecure: false, ..options(None) };
        assert!(neighbours(&missing).expect_err("no keys").to_string().contains("/nonexistent"));
        assert!(
            neighbours(&HostOptions { insecure: false, ..options(None) }).expect("alone").security.is_none()
        );
    }
}
