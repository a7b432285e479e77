//! What apt says that it would do, and what of that set-up does not let it do.

use std::collections::BTreeMap;

/// A package whose version would become another.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub package: String,
    /// The version that is installed.
    pub from: String,
    /// The one that apt would put in its place.
    pub to: String,
}

/// The outcome of `apt-get --simulate install`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Simulation {
    /// Packages that are not there yet, with their versions.
    pub new: Vec<(String, String)>,
    /// Packages that are there in another version.
    pub changed: Vec<Change>,
    /// Packages that would go.
    pub removed: Vec<String>,
}

impl Simulation {
    /// Reads the lines `Inst`, `Remv` and `Purg`; the others repeat these.
    pub fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(action), Some(package)) = (words.next(), words.next()) else { continue };
            let package = package.to_owned();
            let version =
                |word: &str, open| word.strip_prefix(open).map(|v| v.trim_end_matches([']', ')']).to_owned());
            match action {
                "Remv" | "Purg" => this.removed.push(package),
                "Inst" => {
                    let next = words.next().unwrap_or_default();
                    match version(next, '[') {
                        Some(from) => {
                            let to = version(words.next().unwrap_or_default(), '(').unwrap_or_default();
                            this.changed.push(Change { package, from, to });
                        }
                        None => this.new.push((package, version(next, '(').unwrap_or_default())),
                    }
                }
                _ => {}
            }
        }
        this
    }

    /// What would happen to packages that are installed: nothing, or a sentence's part for each.
    pub fn objections(&self) -> Vec<String> {
        let removed = self.removed.iter().map(|package| format!("remove {package}"));
        let changed = self.changed.iter();
        let changed = changed.map(|c| format!("replace {} {} by {}", c.package, c.from, c.to));
        removed.chain(changed).collect()
    }
}

/// How much packages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes to download.
    pub download: u64,
    /// Bytes on the disk afterwards.
    pub disk: u64,
}

impl Amount {
    /// Adds up what `apt-cache show` says of each version of a package, once.
    pub fn parse(text: &str) -> Self {
        let mut packages = BTreeMap::new();
        for record in text.split("\n\n") {
            let field = |name: &str| {
                record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
            };
            let number = |name| field(name).and_then(|value| value.parse().ok()).unwrap_or(0_u64);
            if let Some(package) = field("Package") {
                let amount = Self { download: number("Size"), disk: number("Installed-Size") * 1024 };
                packages.insert((package, field("Version"), field("Architecture")), amount);
            }
        }
        packages.values().fold(Self::default(), |sum, one| Self {
            download: sum.download + one.download,
            disk: sum.disk + one.disk,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Debian 12 without its security updates, which had been installed before they were known: apt takes the library
    /// along.
    const UPGRADES: &str = "\
Inst liblzma5 [5.4.1-1+deb12u1] (5.4.1-1+deb12u2 Debian-Security:12/oldstable-security [amd64])
Conf liblzma5 (5.4.1-1+deb12u2 Debian-Security:12/oldstable-security [amd64])
Inst xz-utils (5.4.1-1+deb12u2 Debian-Security:12/oldstable-security [amd64])
Conf xz-utils (5.4.1-1+deb12u2 Debian-Security:12/oldstable-security [amd64])
";
    /// Of a machine with qemu-user-static that was asked for qemu-user-binfmt (shortened).
    const REMOVES: &str = "\
Remv qemu-user-static [1:7.2+dfsg-7+deb12u18+b3]
Inst dmsetup (2:1.02.185-2 Debian:12.15/oldstable [amd64]) []
Inst qemu-user (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])
Inst qemu-user-binfmt (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])
Conf dmsetup (2:1.02.185-2 Debian:12.15/oldstable [amd64])
Conf qemu-user (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])
Conf qemu-user-binfmt (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])
";
    /// Of one that has neither.
    const ADDS: &str = "\
NOTE: This is only a simulation!
      apt-get needs root privileges for real execution.
      Keep also in mind that locking is deactivated,
      so don't depend on the relevance to the real current situation!
Inst libkmod2 (30+20221128-1 Debian:12.15/oldstable [amd64])
Inst kmod (30+20221128-1 Debian:12.15/oldstable [amd64])
Conf libkmod2 (30+20221128-1 Debian:12.15/oldstable [amd64])
Conf kmod (30+20221128-1 Debian:12.15/oldstable [amd64])
";

    #[test]
    fn what_only_adds_is_let_through() {
        let found = Simulation::parse(ADDS);
        let version = "30+20221128-1".to_owned();
        assert_eq!(found.new, [("libkmod2".to_owned(), version.clone()), ("kmod".to_owned(), version)]);
        assert_eq!(found.objections(), [""; 0]);
        assert_eq!(Simulation::parse(""), Simulation::default());
    }

    #[test]
    fn an_upgrade_of_what_is_installed_is_an_objection() {
        let found = Simulation::parse(UPGRADES);
        assert_eq!(found.new.len(), 1);
        assert_eq!(found.objections(), ["replace liblzma5 5.4.1-1+deb12u1 by 5.4.1-1+deb12u2"]);
    }

    #[test]
    fn a_removal_is_an_objection_whatever_else_is_added() {
        assert_eq!(Simulation::parse(REMOVES).objections(), ["remove qemu-user-static"]);
        assert_eq!(Simulation::parse("Purg nano [7.2-1]\n").objections(), ["remove nano"]);
    }

    #[test]
    fn amounts_count_each_package_once() {
        let kmod = "Package: kmod\nVersion: 30\nArchitecture: amd64\nInstalled-Size: 251\nSize: 95180\nDescription: x\n Size: 5\n";
        let make = "Package: make\nVersion: 4.3\nArchitecture: amd64\nInstalled-Size: 1592\nSize: 395632\n";
        let text = format!("{kmod}\n{make}\n{kmod}\n");
        let whole = Amount { download: 95_180 + 395_632, disk: (251 + 1592) * 1024 };
        assert_eq!(Amount::parse(&text), whole);
        assert_eq!(Amount::parse(""), Amount::default());
    }
}
