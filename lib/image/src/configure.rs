//! What the packages' maintainer scripts would do on the Debian disk, done without running anything of the guest's.

use super::accounts::Accounts;
use super::apt::Package;
use super::deb;
use super::error::ImageError;
use super::initramfs::{guest_file, web_pages};
use super::keys::Keys;
use super::tree::Tree;
use std::fmt::Write as _;
use std::path::Path;

/// Units that are started at boot, besides those that packages enable by themselves.
const ENABLED: [&str; 5] = ["systemd-networkd", "ssh", "nginx", "guest-ready", "quasar-address"];

/// Timers and jobs that only cost time in a guest that lives for a test.
const MASKED: [&str; 7] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
    "systemd-firstboot.service",
];

/// Turns the unpacked packages into a system that systemd boots.
pub fn configure(tree: &mut Tree, keys: &Keys, bench: &Tree) -> Result<(), ImageError> {
    accounts(tree)?;
    defaults(tree)?;
    login(tree);
    services(tree, keys)?;
    certificates(tree);
    web_pages("var/www/html", tree);
    bench.iter().for_each(|(path, node)| tree.insert(path, node.clone()));
    Ok(())
}

fn accounts(tree: &mut Tree) -> Result<(), ImageError> {
    let mut accounts = Accounts::from_master(
        &tree.need_text("usr/share/base-passwd/passwd.master")?,
        &tree.need_text("usr/share/base-passwd/group.master")?,
    );
    let fragments: Vec<String> = tree
        .below("usr/lib/sysusers.d")
        .filter_map(|(path, _)| tree.read(path))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    fragments.iter().for_each(|fragment| accounts.apply_sysusers(fragment));
    accounts.add_scripted();
    accounts.write(tree);
    // The helper that unprivileged daemons start may only be run by the bus itself.
    if let Some(helper) = tree.resolve("usr/lib/dbus-1.0/dbus-daemon-launch-helper") {
        let (_, gid) = accounts.need_user("messagebus")?;
        tree.chown(&helper, 0, gid);
        if let Some(node) = tree.get(&helper).cloned() {
            tree.insert(&helper, super::tree::Node { mode: 0o4754, ..node });
        }
    }
    let (uid, _) = accounts.need_user("www-data")?;
    let adm = accounts.gid("adm").unwrap_or(0);
    tree.directory("var/log/nginx", 0o755);
    tree.chown("var/log/nginx", uid, adm);
    Ok(())
}

/// Configuration files that are copies of defaults, links that `update-alternatives` would make, names.
fn defaults(tree: &mut Tree) -> Result<(), ImageError> {
    for (from, to) in [
        ("usr/share/libc-bin/nsswitch.conf", "etc/nsswitch.conf"),
        ("usr/share/base-files/profile", "etc/profile"),
        ("usr/share/base-files/motd", "etc/motd"),
        ("usr/share/base-files/dot.profile", "root/.profile"),
        ("usr/share/base-files/dot.bashrc", "root/.bashrc"),
        ("usr/share/openssh/sshd_config", "etc/ssh/sshd_config"),
    ] {
        if tree.get(to).is_none()
            && let Some(bytes) = tree.read(from)
        {
            tree.file(to, bytes, 0o644);
        }
    }
    for (link, name, target) in [
        ("usr/bin/awk", "awk", "/usr/bin/mawk"),
        ("usr/bin/pager", "pager", "/usr/bin/less"),
        ("usr/bin/which", "which", "/usr/bin/which.debianutils"),
    ] {
        if tree.read(target).is_some() && tree.get(link).is_none() {
            let place = format!("etc/alternatives/{name}");
            tree.symlink(&place, target);
            tree.symlink(link, &format!("/{place}"));
        }
    }
    if tree.get("usr/bin/sh").is_none() {
        tree.symlink("usr/bin/sh", "dash");
    }
    if tree.get("etc/localtime").is_none() {
        tree.symlink("etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
    }
    tree.symlink("etc/default/locale", "../locale.conf");
    for (path, text) in [
        ("etc/hostname", "guest\n"),
        ("etc/hosts", "127.0.0.1 localhost guest\n"),
        ("etc/fstab", "/dev/vda / ext4 rw,noatime 0 0\n"),
        ("etc/machine-id", ""),
        ("etc/resolv.conf", "search internal\nnameserver 10.0.2.3\n"),
        ("etc/locale.conf", "LANG=C.UTF-8\n"),
        ("etc/environment", ""),
        ("etc/timezone", "Etc/UTC\n"),
        ("etc/shells", "/bin/sh\n/usr/bin/sh\n/bin/bash\n/usr/bin/bash\n"),
        ("etc/modules-load.d/quasar.conf", "virtio_net\n"),
    ] {
        tree.file(path, text, 0o644);
    }
    for (path, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755)] {
        tree.directory(path, mode);
    }
    Ok(())
}

/// What `pam-auth-update` writes for the profiles in the packages.
fn login(tree: &mut Tree) {
    const END: &str = "requisite pam_deny.so";
    let unix = |kind: &str, control: &str, options: &str| {
        format!("{kind} [{control}] pam_unix.so{options}\n{kind} {END}\n{kind} required pam_permit.so\n")
    };
    let session = format!(
        "session [default=1] pam_permit.so\nsession {END}\nsession required pam_permit.so\nsession required pam_unix.so\n"
    );
    let logind = tree.read("usr/lib/riscv64-linux-gnu/security/pam_systemd.so").is_some();
    let with_logind =
        if logind { format!("{session}session optional pam_systemd.so\n") } else { session.clone() };
    for (name, text) in [
        ("auth", unix("auth", "success=1 default=ignore", " nullok")),
        ("account", unix("account", "success=1 new_authtok_reqd=done default=ignore", "")),
        ("password", unix("password", "success=1 default=ignore", " obscure yescrypt")),
        ("session", with_logind),
        ("session-noninteractive", session),
    ] {
        tree.file(&format!("etc/pam.d/common-{name}"), text, 0o644);
    }
}

fn services(tree: &mut Tree, keys: &Keys) -> Result<(), ImageError> {
    for (path, text, mode) in [
        ("etc/systemd/network/80-eth0.network", guest_file!("disk/80-eth0.network"), 0o644),
        ("usr/lib/quasar/address", guest_file!("disk/address"), 0o755),
        ("etc/systemd/system/quasar-address.service", guest_file!("disk/quasar-address.service"), 0o644),
        ("etc/systemd/system/guest-ready.service", guest_file!("disk/guest-ready.service"), 0o644),
        ("etc/systemd/system.conf.d/quasar.conf", guest_file!("disk/timeouts.conf"), 0o644),
        ("etc/ssh/sshd_config.d/quasar.conf", guest_file!("disk/sshd.conf"), 0o644),
        ("etc/nginx/sites-available/default", guest_file!("disk/nginx-site"), 0o644),
        ("root/.ssh/authorized_keys", &keys.user_public, 0o600),
        ("etc/ssh/ssh_host_ed25519_key", &keys.host_private, 0o600),
        ("etc/ssh/ssh_host_ed25519_key.pub", &keys.host_public, 0o644),
    ] {
        tree.file(path, text, mode);
    }
    tree.directory("root/.ssh", 0o700);
    tree.symlink("etc/nginx/sites-enabled/default", "/etc/nginx/sites-available/default");
    tree.symlink("etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target");
    for unit in ENABLED {
        let local = format!("etc/systemd/system/{unit}.service");
        let vendor = format!("usr/lib/systemd/system/{unit}.service");
        let place = if tree.get(&local).is_some() { local } else { vendor };
        tree.need(&place)?;
        tree.symlink(
            &format!("etc/systemd/system/multi-user.target.wants/{unit}.service"),
            &format!("/{place}"),
        );
    }
    for unit in MASKED {
        tree.symlink(&format!("etc/systemd/system/{unit}"), "/dev/null");
    }
    Ok(())
}

/// The bundle of certificate authorities, as `update-ca-certificates` writes it.
fn certificates(tree: &mut Tree) {
    let mut bundle = Vec::new();
    for (path, _) in tree.below("usr/share/ca-certificates").filter(|(path, _)| path.ends_with(".crt")) {
        bundle.extend(tree.read(path).iter().flat_map(|bytes| bytes.to_vec()));
    }
    tree.file("etc/ssl/certs/ca-certificates.crt", bundle, 0o644);
}

/// Says to systemd that `/etc` and `/var` fit `/usr`, which spares the work of a first boot. `time` must be `/usr`'s.
pub fn mark_up_to_date(tree: &mut Tree, time: u64) {
    for dir in ["etc", "var"] {
        tree.file(&format!("{dir}/.updated"), format!("TIMESTAMP_NSEC={time}000000000\n"), 0o644);
    }
}

/// Records the packages as installed, so that apt and dpkg work in the guest.
pub fn record_packages(
    tree: &mut Tree,
    pool: &Path,
    packages: &[Package],
    lists: &[Vec<String>],
) -> Result<(), ImageError> {
    let mut status = String::new();
    for (package, files) in packages.iter().zip(lists) {
        let control = deb::read_control(&pool.join(&package.file))?;
        let text =
            String::from_utf8_lossy(control.get("control").map_or(&[][..], |bytes| bytes)).into_owned();
        let mut lines = text.lines();
        // dpkg wants the status near the name; the order of the rest doesn't matter to it.
        writeln!(status, "{}\nStatus: install ok installed", lines.next().unwrap_or_default())
            .expect("writing to a string never fails");
        lines.for_each(|line| writeln!(status, "{line}").expect("writing to a string never fails"));
        status.push('\n');
        let same = text.lines().any(|line| line.trim_end() == "Multi-Arch: same");
        let stem =
            if same { format!("{}:{}", package.name, package.architecture) } else { package.name.clone() };
        let info = |suffix: &str| format!("var/lib/dpkg/info/{stem}.{suffix}");
        tree.file(&info("list"), files.iter().map(|file| format!("/{file}\n")).collect::<String>(), 0o644);
        for (name, bytes) in control.iter().filter(|(name, _)| *name != "control") {
            let script = matches!(name.as_str(), "preinst" | "postinst" | "prerm" | "postrm" | "config");
            tree.file(&info(name), bytes, if script { 0o755 } else { 0o644 });
        }
    }
    tree.file("var/lib/dpkg/status", status, 0o644);
    for (path, text) in [("available", ""), ("diversions", ""), ("statoverride", ""), ("info/format", "1\n")]
    {
        tree.file(&format!("var/lib/dpkg/{path}"), text, 0o644);
    }
    tree.directory("var/lib/dpkg/updates", 0o755);
    Ok(())
}

/// Names of what is in a tree, as dpkg's file lists have them.
pub fn file_list(tree: &Tree) -> Vec<String> {
    let root = [".".to_owned()];
    root.into_iter().chain(tree.iter().map(|(path, _)| path.to_owned())).collect()
}
