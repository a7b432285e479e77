//! The build as a whole: resolve, look in the cache, download, unpack, assemble, keep.

use super::apt::{self, Apt, Package};
use super::assemble::Inputs;
use super::cache::{self, Hasher};
use super::error::{ImageError, IoContext};
use super::keys::{self, Keys};
use super::manifest::{self, Manifest, Resolution, SavedResolution, names};
use super::options::{BuildOptions, BuiltImages, Progress};
use super::sources::{self, Archive, SignedBy};
use super::tree::Tree;
use super::{bench, deb, initramfs, recipe};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What decides an image's content apart from packages and options. Hashing the sources themselves spares a version number
/// that someone forgets to raise.
const RECIPE_SOURCES: &[&str] = &[
    include_str!("accounts.rs"),
    include_str!("assemble.rs"),
    include_str!("closure.rs"),
    include_str!("configure.rs"),
    include_str!("cpio.rs"),
    include_str!("deb.rs"),
    include_str!("disk.rs"),
    include_str!("initramfs.rs"),
    include_str!("modules.rs"),
    include_str!("recipe.rs"),
    include_str!("tree.rs"),
    initramfs::guest_file!("disk/80-eth0.network"),
    initramfs::guest_file!("disk/address"),
    initramfs::guest_file!("disk/guest-ready.service"),
    initramfs::guest_file!("disk/initrd-init"),
    initramfs::guest_file!("disk/nginx-site"),
    initramfs::guest_file!("disk/quasar-address.service"),
    initramfs::guest_file!("disk/sshd.conf"),
    initramfs::guest_file!("disk/timeouts.conf"),
    initramfs::guest_file!("index.html"),
    initramfs::guest_file!("initramfs/init"),
    initramfs::guest_file!("initramfs/inittab"),
    initramfs::guest_file!("initramfs/nginx.conf"),
    initramfs::guest_file!("initramfs/power-button"),
    initramfs::guest_file!("initramfs/profile"),
    initramfs::guest_file!("initramfs/shutdown"),
    initramfs::guest_file!("initramfs/udhcpc.script"),
];

/// Builds the images, or finds them in the cache. Takes a few minutes the first time, seconds afterwards.
///
/// Several processes may call it at once: they take turns. Needs the network only if apt's last answer is older than a day,
/// something has to be downloaded, or [`BuildOptions::refresh`] is set.
pub fn build(options: &BuildOptions, progress: &dyn Progress) -> Result<BuiltImages, ImageError> {
    let root = options.cache.clone().unwrap_or_else(cache::default_root);
    let _lock = cache::lock(&root, progress)?;
    cache::remove_drafts(&root);
    let keys = keys::keys(&root.join("keys"))?;
    let archive = archive(options)?;
    let mut builder = Builder { options, progress, root, keys, archive };
    let (resolution, fresh) = builder.resolution(options.refresh)?;
    let built = match builder.image(&resolution) {
        // The archive may have replaced packages since it was asked: ask again, once.
        Err(ImageError::ToolFailed { tool, .. }) if tool == "apt-get" && !fresh => {
            let (resolution, _) = builder.resolution(true)?;
            builder.image(&resolution)
        }
        other => other,
    }?;
    match &options.out {
        Some(out) => copy_out(&built, out, progress),
        None => Ok(built),
    }
}

fn archive(options: &BuildOptions) -> Result<Archive, ImageError> {
    let machine_root = Path::new("/etc/apt");
    let machine = sources::debian_archive(&sources::read(machine_root)?);
    let mut archive = match (machine, &options.mirror) {
        (Some(archive), _) => archive,
        (None, Some(uri)) => Archive {
            uri: uri.clone(),
            machine_suite: None,
            signed_by: SignedBy::File("/usr/share/keyrings/debian-archive-keyring.gpg".into()),
        },
        (None, None) => return Err(ImageError::NoMirror { root: machine_root.into() }),
    };
    if let Some(uri) = &options.mirror {
        archive.uri.clone_from(uri);
    }
    if let Some(keyring) = &options.keyring {
        archive.signed_by = SignedBy::File(keyring.clone());
    }
    Ok(archive)
}

struct Builder<'a> {
    options: &'a BuildOptions,
    progress: &'a dyn Progress,
    root: PathBuf,
    keys: Keys,
    archive: Archive,
}

impl Builder<'_> {
    /// What apt chooses now, or chose within the last day; and whether it was asked just now.
    fn resolution(&mut self, refresh: bool) -> Result<(Resolution, bool), ImageError> {
        let suite = &self.options.suite;
        let mut inputs = Hasher::default();
        inputs.add(self.archive.uri.as_bytes());
        recipe::DISK_PACKAGES.iter().for_each(|name| inputs.add(name.as_bytes()));
        inputs.add(b"|");
        recipe::INITRAMFS_PACKAGES.iter().for_each(|name| inputs.add(name.as_bytes()));
        let inputs = inputs.hex();
        let path = self.root.join(format!("resolution-{suite}.json"));
        let now = SystemTime::now();
        if !refresh
            && let Some(saved) = manifest::load::<SavedResolution>(&path)
            && saved.is_fresh(&inputs, now)
        {
            return Ok((saved.resolution, false));
        }
        self.progress.step(&format!("asking the archive for the packages of {suite}"));
        let apt = self.updated_apt()?;
        let resolution = Resolution {
            disk: apt.resolve(recipe::DISK_PACKAGES)?,
            initramfs: apt.resolve(recipe::INITRAMFS_PACKAGES)?,
        };
        let time_s = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        manifest::store(&path, &SavedResolution { time_s, inputs, resolution: resolution.clone() })?;
        Ok((resolution, true))
    }

    fn apt(&self) -> Result<Apt, ImageError> {
        let source = apt::Source {
            uri: &self.archive.uri,
            suite: &self.options.suite,
            architecture: recipe::ARCHITECTURE,
            signed_by: &self.archive.signed_by,
        };
        Apt::new(&self.root.join(format!("apt-{}", self.options.suite)), &source)
    }

    /// An apt with a verified index. If the machine's keyring doesn't know the suite's keys yet, the newest keyring that
    /// the machine's own suite offers is taken: a package signed by keys that the machine trusts already.
    fn updated_apt(&mut self) -> Result<Apt, ImageError> {
        let apt = self.apt()?;
        let refused = match apt.update() {
            Ok(()) => return Ok(apt),
            Err(error) => error,
        };
        let unknown_key = refused.to_string().contains("NO_PUBKEY");
        let Some(suite) =
            self.archive.machine_suite.clone().filter(|suite| unknown_key && *suite != self.options.suite)
        else {
            return Err(refused);
        };
        self.progress.step(&format!("fetching the archive's newer keys through {suite}"));
        self.archive.signed_by = SignedBy::File(self.newer_keyring(&suite)?);
        let apt = self.apt()?;
        apt.update()?;
        Ok(apt)
    }

    fn newer_keyring(&self, suite: &str) -> Result<PathBuf, ImageError> {
        const PACKAGE: &[&str] = &["debian-archive-keyring"];
        let source = apt::Source {
            uri: &self.archive.uri,
            suite,
            // An architecture that every suite has; the package itself is for all of them.
            architecture: "amd64",
            signed_by: &self.archive.signed_by,
        };
        let apt = Apt::new(&self.root.join(format!("apt-{suite}-keyring")), &source)?;
        apt.update()?;
        let pool = self.root.join("pool");
        let packages: Vec<Package> = apt.resolve(PACKAGE)?;
        apt.download(PACKAGE, &packages, &pool, self.progress)?;
        let mut tree = Tree::default();
        for package in packages.iter().filter(|package| PACKAGE.contains(&package.name.as_str())) {
            verify(&pool, package)?;
            deb::read_files(
                &pool.join(&package.file),
                &|path| path.starts_with("usr/share/keyrings"),
                &mut tree,
            )?;
        }
        let path = self.root.join("keys/debian-archive-keyring.gpg");
        std::fs::write(&path, tree.need("usr/share/keyrings/debian-archive-keyring.gpg")?)
            .at("writing", &path)?;
        Ok(path)
    }

    /// The images for a resolution, from the cache or built.
    fn image(&self, resolution: &Resolution) -> Result<BuiltImages, ImageError> {
        let key = self.key(resolution);
        let dir = self.root.join("images").join(format!("{}-{}", self.options.suite, &key[..16]));
        if let Some(manifest) = manifest::load::<Manifest>(&dir.join(names::MANIFEST))
            && manifest.files.iter().all(|(name, record)| {
                std::fs::metadata(dir.join(name)).is_ok_and(|file| file.len() == record.size_bytes)
            })
        {
            return Ok(built(&dir, &manifest.kernel_version, true));
        }
        let pool = self.fetch(resolution)?;
        let parent = self.root.join("images");
        std::fs::create_dir_all(&parent).at("making directory", &parent)?;
        let draft = tempfile::tempdir_in(&parent).at("making a directory in", &parent)?;
        let inputs = Inputs {
            resolution,
            pool: &pool,
            keys: &self.keys,
            cache_root: &self.root,
            bench: self.options.bench,
            size_bytes: self.options.size_bytes,
            progress: self.progress,
        };
        let kernel_version = inputs.assemble(draft.path())?;
        copy_keys(&self.keys, draft.path())?;
        let files = [names::KERNEL, names::INITRD, names::DISK, names::DISK_INITRD];
        let manifest = Manifest {
            suite: self.options.suite.clone(),
            architecture: recipe::ARCHITECTURE.into(),
            kernel_version,
            key,
            packages: resolution.clone(),
            files: files.iter().map(|name| manifest::record(draft.path(), name)).collect::<Result<_, _>>()?,
        };
        manifest::store(&draft.path().join(names::MANIFEST), &manifest)?;
        std::fs::remove_dir_all(&dir).ok();
        std::fs::rename(draft.keep(), &dir).at("moving to", &dir)?;
        Ok(built(&dir, &manifest.kernel_version, false))
    }

    fn key(&self, resolution: &Resolution) -> String {
        let mut hash = Hasher::default();
        RECIPE_SOURCES.iter().for_each(|source| hash.add(source.as_bytes()));
        hash.add(self.options.suite.as_bytes());
        hash.add(&self.options.size_bytes.to_le_bytes());
        hash.add(&[u8::from(self.options.bench)]);
        if self.options.bench {
            bench::SOURCES.iter().for_each(|(_, source)| hash.add(source.as_bytes()));
        }
        hash.add(self.keys.user_public.as_bytes());
        hash.add(self.keys.host_public.as_bytes());
        for package in resolution.disk.iter().chain(&resolution.initramfs) {
            hash.add(package.file.as_bytes());
            hash.add(package.sha256.as_bytes());
        }
        hash.hex()
    }

    /// Downloads what isn't in the pool yet and verifies all of it.
    fn fetch(&self, resolution: &Resolution) -> Result<PathBuf, ImageError> {
        let pool = self.root.join("pool");
        let there = |package: &Package| {
            std::fs::metadata(pool.join(&package.file)).is_ok_and(|file| file.len() == package.size_bytes)
        };
        for (wanted, packages) in
            [(recipe::DISK_PACKAGES, &resolution.disk), (recipe::INITRAMFS_PACKAGES, &resolution.initramfs)]
        {
            if !packages.iter().all(there) {
                self.progress.step(&format!("downloading {} packages", packages.len()));
                self.apt()?.download(wanted, packages, &pool, self.progress)?;
            }
        }
        self.progress.step("verifying packages");
        let all: Vec<&Package> = resolution.disk.iter().chain(&resolution.initramfs).collect();
        for (done, package) in (1..).zip(&all) {
            verify(&pool, package)?;
            self.progress.advance(done, all.len() as u64);
        }
        Ok(pool)
    }
}

fn verify(pool: &Path, package: &Package) -> Result<(), ImageError> {
    let path = pool.join(&package.file);
    let found = cache::sha256_file(&path)?;
    if found == package.sha256 {
        return Ok(());
    }
    Err(ImageError::HashMismatch { path, expected: package.sha256.clone(), found })
}

fn copy_keys(keys: &Keys, dir: &Path) -> Result<(), ImageError> {
    let private = dir.join(names::SSH_KEY);
    std::fs::copy(&keys.user_private, &private).at("copying to", &private)?;
    let public = private.with_extension("pub");
    std::fs::write(&public, &keys.user_public).at("writing", public)
}

fn built(dir: &Path, kernel_version: &str, from_cache: bool) -> BuiltImages {
    BuiltImages {
        kernel: dir.join(names::KERNEL),
        initrd: dir.join(names::INITRD),
        disk: dir.join(names::DISK),
        disk_initrd: dir.join(names::DISK_INITRD),
        ssh_key: dir.join(names::SSH_KEY),
        kernel_version: kernel_version.into(),
        manifest: dir.join(names::MANIFEST),
        from_cache,
    }
}

/// Copies finished images to where the user wants them.
fn copy_out(images: &BuiltImages, out: &Path, progress: &dyn Progress) -> Result<BuiltImages, ImageError> {
    progress.step(&format!("copying to {}", out.display()));
    std::fs::create_dir_all(out).at("making directory", out)?;
    let public = images.ssh_key.with_extension("pub");
    for from in [
        &images.kernel,
        &images.initrd,
        &images.disk,
        &images.disk_initrd,
        &images.ssh_key,
        &public,
        &images.manifest,
    ] {
        let to = out.join(from.file_name().unwrap_or_default());
        quasar_places::copy_sparse(from, &to).at("copying to", &to)?;
        let mode = std::fs::metadata(from).at("reading", from)?.permissions();
        std::fs::set_permissions(&to, mode).at("setting the mode of", to)?;
    }
    Ok(built(out, &images.kernel_version, images.from_cache))
}
