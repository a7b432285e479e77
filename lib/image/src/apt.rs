//! An apt of our own: its lists, cache and configuration lie in one directory, for another architecture and suite than the
//! machine's. Only the machine's `Acquire` settings (proxies, timeouts) and credentials are taken over. Works without root.

use super::error::{ImageError, IoContext};
use super::options::Progress;
use super::sources::SignedBy;
use super::tools::{self, APT_CONFIG, APT_GET};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A package version that apt chose, and what the signed index says about its file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture (`riscv64` or `all`).
    pub architecture: String,
    /// Name of the file in the archive cache.
    pub file: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// What an isolated apt works on.
pub struct Source<'a> {
    /// Root of the archive.
    pub uri: &'a str,
    /// Suite.
    pub suite: &'a str,
    /// Architecture to install for.
    pub architecture: &'a str,
    /// Keys to verify the index with.
    pub signed_by: &'a SignedBy,
}

/// An isolated apt below one directory.
pub struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Sets the directory up; what it has downloaded before is kept.
    pub fn new(dir: &Path, source: &Source<'_>) -> Result<Apt, ImageError> {
        for part in ["etc", "state/lists/partial", "cache/archives/partial"] {
            let path = dir.join(part);
            std::fs::create_dir_all(&path).at("making directory", path)?;
        }
        let keyring = match source.signed_by {
            SignedBy::File(file) if file.is_file() => file.clone(),
            SignedBy::File(_) => return Err(ImageError::NoKeyring),
            SignedBy::Inline(armoured) => {
                let file = dir.join("etc/archive-key.asc");
                std::fs::write(&file, armoured).at("writing", &file)?;
                file
            }
        };
        let apt = Apt { dir: dir.to_owned() };
        let line = format!(
            "deb [arch={} signed-by={}] {} {} main\n",
            source.architecture,
            keyring.display(),
            source.uri,
            source.suite
        );
        apt.write("etc/sources.list", &line)?;
        // Nothing is installed as far as this apt knows, so that it resolves whole sets.
        apt.write("state/status", "")?;
        apt.write("etc/apt.conf", &apt.configuration(source.architecture)?)?;
        Ok(apt)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), ImageError> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.dir.join(name);
        // Proxy settings may hold a password: for the owner only.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .at("writing", &path)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).at("writing", path)
    }

    fn configuration(&self, architecture: &str) -> Result<String, ImageError> {
        let machine = tools::run(APT_CONFIG.command()?.arg("dump"))?;
        let mut text = machine_settings(&String::from_utf8_lossy(&machine));
        let dir = self.dir.display();
        for (name, value) in [
            ("Dir::State", format!("{dir}/state")),
            ("Dir::State::status", format!("{dir}/state/status")),
            ("Dir::Cache", format!("{dir}/cache")),
            ("Dir::Etc::SourceList", format!("{dir}/etc/sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::Etc::Main", "/dev/null".into()),
            ("Dir::Etc::Parts", "/dev/null".into()),
            ("Dir::Etc::Preferences", "/dev/null".into()),
            ("Dir::Etc::PreferencesParts", "/dev/null".into()),
            ("APT::Architecture", architecture.into()),
            ("APT::Architectures", architecture.into()),
            ("APT::Install-Recommends", "false".into()),
            ("APT::Default-Release", String::new()),
            // As root, apt would download as the user _apt, who may not enter a private cache directory.
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::ForceHash", "SHA256".into()),
            ("Acquire::Retries", "3".into()),
            ("Acquire::AllowInsecureRepositories", "false".into()),
        ] {
            writeln!(text, "{name} \"{value}\";").expect("writing to a string never fails");
        }
        Ok(text)
    }

    fn apt_get(&self) -> Result<Command, ImageError> {
        let mut command = APT_GET.command()?;
        command.env("APT_CONFIG", self.dir.join("etc/apt.conf")).env("LC_ALL", "C").stdin(Stdio::null());
        Ok(command)
    }

    /// Downloads the package index and verifies its signature.
    pub fn update(&self) -> Result<(), ImageError> {
        // Without the option a failed download is a warning, and an old index would be used.
        tools::run(self.apt_get()?.args(["-qq", "update", "-o", "APT::Update::Error-Mode=any"]))?;
        Ok(())
    }

    /// The packages that installing `wanted` (names or apt patterns) into an empty system takes.
    pub fn resolve(&self, wanted: &[&str]) -> Result<Vec<Package>, ImageError> {
        // apt leaves out what lies in its cache already: let it look into an empty one.
        let empty = self.dir.join("cache/none");
        let partial = empty.join("partial");
        std::fs::create_dir_all(&partial).at("making directory", partial)?;
        let elsewhere = format!("Dir::Cache::archives={}", empty.display());
        let args = ["-qq", "install", "--print-uris", "-o", &elsewhere];
        let answer = tools::run(self.apt_get()?.args(args).args(wanted))?;
        let mut packages: Vec<Package> = String::from_utf8_lossy(&answer)
            .lines()
            .filter(|line| line.starts_with('\''))
            .map(parse_uri_line)
            .collect::<Result<_, _>>()?;
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(packages)
    }

    /// Downloads what installing `wanted` takes and moves the files into `pool`.
    pub fn download(
        &self,
        wanted: &[&str],
        packages: &[Package],
        pool: &Path,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let archives = self.dir.join("cache/archives");
        std::fs::create_dir_all(pool).at("making directory", pool)?;
        for package in packages {
            // What an interrupted build left in the pool needn't be downloaded again.
            let (kept, place) = (pool.join(&package.file), archives.join(&package.file));
            if kept.is_file() && !place.exists() {
                std::fs::rename(&kept, &place).at("moving", &kept)?;
            }
        }
        let total = packages.iter().map(|package| package.size_bytes).sum();
        let mut command = self.apt_get()?;
        command.args(["-qq", "install", "--download-only", "--yes"]).args(wanted);
        let log = self.dir.join("download.log");
        let log_file = std::fs::File::create(&log).at("writing", &log)?;
        let log_clone = log_file.try_clone().at("writing", &log)?;
        let mut child =
            command.stdout(log_file).stderr(log_clone).spawn().at("starting", command.get_program())?;
        let status = loop {
            if let Some(status) = child.try_wait().at("waiting for", command.get_program())? {
                break status;
            }
            progress.transfer(directory_bytes(&archives) + directory_bytes(&archives.join("partial")), total);
            std::thread::sleep(Duration::from_millis(200));
        };
        if !status.success() {
            let text = std::fs::read(&log).unwrap_or_default();
            return Err(tools::failed(&command, status, &text));
        }
        progress.transfer(total, total);
        for package in packages {
            let (from, to) = (archives.join(&package.file), pool.join(&package.file));
            std::fs::rename(&from, &to).at("moving", &from)?;
        }
        Ok(())
    }
}

fn directory_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|file| file.len())
        .sum()
}

/// The machine's settings for downloads, out of `apt-config dump`. Hooks, defaults and other index kinds stay behind.
fn machine_settings(dump: &str) -> String {
    let foreign =
        ["Acquire::IndexTargets", "Acquire::Languages", "Acquire::Changelogs", "Acquire::CompressionTypes"];
    dump.lines()
        .filter(|line| line.starts_with("Acquire::") && !line.ends_with(" \"\";"))
        .filter(|line| !foreign.iter().any(|prefix| line.starts_with(prefix)))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Parses a line of `--print-uris`: `'URI' FILE SIZE SHA256:HASH`.
fn parse_uri_line(line: &str) -> Result<Package, ImageError> {
    let bad = || ImageError::AptAnswer { line: line.into() };
    let (_, rest) = line.rsplit_once("' ").ok_or_else(bad)?;
    let mut words = rest.split(' ');
    let (file, size, hash) =
        (words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?);
    let mut parts = file.strip_suffix(".deb").ok_or_else(bad)?.split('_');
    let (name, version, architecture) =
        (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
    if file.contains('/') {
        return Err(bad());
    }
    Ok(Package {
        name: name.into(),
        version: version.replace("%3a", ":"),
        architecture: architecture.into(),
        file: file.into(),
        size_bytes: size.parse().map_err(|_| bad())?,
        sha256: hash.strip_prefix("SHA256:").filter(|hex| hex.len() == 64).ok_or_else(bad)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_line_becomes_a_package() {
        let hash = "a".repeat(64);
        let line = format!(
            "'http://a.example/d/libcap2_2.75%2bb3_riscv64.deb' libcap2_1%3a2.75+b3_riscv64.deb 29544 SHA256:{hash}"
        );
        let package = parse_uri_line(&line).expect("well formed");
        assert_eq!((package.name.as_str(), package.version.as_str()), ("libcap2", "1:2.75+b3"));
        assert_eq!((package.architecture.as_str(), package.size_bytes), ("riscv64", 29544));
        assert_eq!(package.sha256, hash);
    }

    #[test]
    fn other_hashes_and_paths_are_refused() {
        let hash = "a".repeat(64);
        for line in [
            "'http://a.example/x_1_all.deb' x_1_all.deb 5 MD5Sum:00".to_owned(),
            format!("'http://a.example/x_1_all.deb' ../x_1_all.deb 5 SHA256:{hash}"),
            format!("'http://a.example/x_1_all.deb' x_1_all.deb five SHA256:{hash}"),
            "nonsense".to_owned(),
        ] {
            assert!(parse_uri_line(&line).is_err(), "{line}");
        }
    }

    #[test]
    fn only_download_settings_are_taken_over() {
        let dump = "APT::Update::Post-Invoke:: \"rm -rf /\";\nAcquire::http::Proxy \"http://proxy.example:3128\";\n\
                    Acquire::IndexTargets::deb::DEP-11::MetaKey \"x\";\nAcquire \"\";\nAcquire::http \"\";\n";
        assert_eq!(machine_settings(dump), "Acquire::http::Proxy \"http://proxy.example:3128\";\n");
    }
}
