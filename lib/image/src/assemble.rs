//! Puts the images together from downloaded and verified packages.

use super::error::{ImageError, IoContext};
use super::keys::Keys;
use super::manifest::{Resolution, names};
use super::modules::{self, Modules};
use super::options::Progress;
use super::tools::{self, DEPMOD};
use super::tree::Tree;
use super::{bench, configure, cpio, deb, disk, initramfs, recipe};
use std::path::Path;

/// What the images are made from.
pub(super) struct Inputs<'a> {
    pub(super) resolution: &'a Resolution,
    pub(super) pool: &'a Path,
    pub(super) keys: &'a Keys,
    pub(super) cache_root: &'a Path,
    pub(super) bench: bool,
    pub(super) size_bytes: u64,
    pub(super) progress: &'a dyn Progress,
}

impl Inputs<'_> {
    /// Makes the four files in `dir`; answers the kernel's release.
    pub(super) fn assemble(&self, dir: &Path) -> Result<String, ImageError> {
        let bench = if self.bench {
            self.progress.step("compiling the benchmark set");
            bench::programs(self.cache_root)?
        } else {
            Tree::default()
        };
        self.progress.step("unpacking packages");
        let mut guest_pool = Tree::with_merged_usr();
        for (done, package) in (1..).zip(&self.resolution.initramfs) {
            deb::read_files(
                &self.pool.join(&package.file),
                &|path| !deb::is_documentation(path),
                &mut guest_pool,
            )?;
            self.progress.advance(done, self.resolution.initramfs.len() as u64);
        }
        let (release, kernel) = kernel(&guest_pool)?;
        let path = dir.join(names::KERNEL);
        std::fs::write(&path, &kernel).at("writing", path)?;
        self.progress.step("assembling the small guest");
        let modules = Modules::new(&guest_pool, &release)?;
        let guest = initramfs::guest(&guest_pool, &modules, &release, &bench, self.keys)?;
        write_cpio(guest, &dir.join(names::INITRD))?;
        let initrd = initramfs::disk_initrd(&guest_pool, &modules, &release)?;
        write_cpio(initrd, &dir.join(names::DISK_INITRD))?;
        self.progress.step("assembling the disk");
        let tree = self.disk_tree(&modules, &release, &bench)?;
        self.progress.step("writing the disk");
        let scratch = tempfile::tempdir_in(self.cache_root).at("making a directory in", self.cache_root)?;
        disk::write_ext4(&tree, &dir.join(names::DISK), self.size_bytes, scratch.path())?;
        Ok(release)
    }

    fn disk_tree(&self, modules: &Modules<'_>, release: &str, bench: &Tree) -> Result<Tree, ImageError> {
        let mut tree = Tree::with_merged_usr();
        let mut lists = Vec::new();
        for (done, package) in (1..).zip(&self.resolution.disk) {
            let mut one = Tree::default();
            deb::read_files(&self.pool.join(&package.file), &|path| !deb::is_documentation(path), &mut one)?;
            lists.push(configure::file_list(&one));
            one.iter().for_each(|(path, node)| tree.insert(path, node.clone()));
            self.progress.advance(done, self.resolution.disk.len() as u64);
        }
        configure::configure(&mut tree, self.keys, bench)?;
        configure::record_packages(&mut tree, self.pool, &self.resolution.disk, &lists)?;
        self.install_modules(&mut tree, modules, release)?;
        let newest =
            tree.iter().map(|(_, node)| node.mtime).filter(|time| *time != u64::MAX).max().unwrap_or(0);
        configure::mark_up_to_date(&mut tree, newest);
        tree.directory("usr", 0o755);
        tree.clamp_times(newest);
        Ok(tree)
    }

    /// Modules on the disk, with the binary indices that the guest's kmod reads, made by the host's depmod.
    fn install_modules(
        &self,
        tree: &mut Tree,
        modules: &Modules<'_>,
        release: &str,
    ) -> Result<(), ImageError> {
        let wanted: Vec<&str> =
            recipe::BOOT_MODULES.iter().chain(recipe::OPTIONAL_MODULES).copied().collect();
        modules::install(&modules.closure(&wanted)?, release, tree);
        let scratch = tempfile::tempdir_in(self.cache_root).at("making a directory in", self.cache_root)?;
        let dir = modules::directory(release);
        for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            tree.file(&format!("{dir}/{name}"), modules.index(name)?, 0o644);
        }
        for (path, _) in tree.below(&dir) {
            if let Some(bytes) = tree.read(path) {
                let place = scratch.path().join(path);
                let parent = place.parent().unwrap_or(&place);
                std::fs::create_dir_all(parent).at("making directory", parent)?;
                std::fs::write(&place, bytes).at("writing", place)?;
            }
        }
        // kmod looks below lib/ or usr/lib/, depending on how it was built.
        std::os::unix::fs::symlink("usr/lib", scratch.path().join("lib")).at("linking", scratch.path())?;
        tools::run(DEPMOD.command()?.arg("-b").arg(scratch.path()).arg(release))?;
        let made = scratch.path().join(&dir);
        for entry in std::fs::read_dir(&made).at("reading", &made)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("modules.") {
                tree.file(
                    &format!("{dir}/{name}"),
                    std::fs::read(entry.path()).at("reading", entry.path())?,
                    0o644,
                );
            }
        }
        Ok(())
    }
}

/// The kernel among the unpacked packages, with its release.
fn kernel(tree: &Tree) -> Result<(String, std::sync::Arc<[u8]>), ImageError> {
    let found = tree.below("boot").find_map(|(path, _)| {
        let release = path.strip_prefix("boot/vmlinux-").or_else(|| path.strip_prefix("boot/vmlinuz-"))?;
        Some((release.to_owned(), tree.read(path)?))
    });
    let (release, image) =
        found.ok_or(ImageError::Missing { what: "kernel", name: "boot/vmlinux-*".into() })?;
    // Linux Documentation/arch/riscv/boot-image-header.rst: "RSC\x05" at 56.
    if image.get(56..60) != Some(b"RSC\x05") {
        return Err(ImageError::Malformed {
            name: release,
            problem: "the kernel isn't a raw RISC-V Image".into(),
        });
    }
    Ok((release, image))
}

fn write_cpio(mut tree: Tree, path: &Path) -> Result<(), ImageError> {
    // No time of its own: equal content, equal archive.
    tree.clamp_times(0);
    let file = std::fs::File::create(path).at("writing", path)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    cpio::write(&tree, &mut out).at("writing", path)?;
    std::io::Write::flush(&mut out).at("writing", path)
}
