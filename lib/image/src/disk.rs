//! Makes an ext4 image from a tree without mounting anything and without root: `mke2fs -d` copies the content, `debugfs`
//! then sets the owners and modes that the host's user couldn't give the copies.

use super::error::{ImageError, IoContext};
use super::tools::{self, DEBUGFS, MKE2FS};
use super::tree::{Content, Node, Tree};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// All features by name, as the defaults of different versions of e2fsprogs differ and older kernels refuse the newest.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// Writes `tree` as an ext4 file system of `size_bytes` to `image`, using `scratch` (an empty directory) for copies.
pub fn write_ext4(tree: &Tree, image: &Path, size_bytes: u64, scratch: &Path) -> Result<(), ImageError> {
    // Inodes, journal and block round-up come to about a sixth; mke2fs' own message would name neither size.
    let needed = tree.content_bytes() + tree.content_bytes() / 6 + (32 << 20);
    if size_bytes < needed {
        return Err(ImageError::DiskTooSmall { size: size_bytes, needed });
    }
    let fixes = materialise(tree, scratch)?;
    let mut command = MKE2FS.command()?;
    command.args([
        "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-L", "rootfs", "-O", FEATURES,
    ]);
    command.args(["-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", "-d"]).arg(scratch);
    tools::run(command.arg(image).arg(format!("{}k", size_bytes / 1024)))?;
    apply(&fixes, image)
}

/// Copies the tree to `root`; answers the debugfs commands that give the copies their true owners and modes.
fn materialise(tree: &Tree, root: &Path) -> Result<String, ImageError> {
    let mut fixes = String::new();
    for (path, node) in tree.iter() {
        let place = root.join(path);
        match &node.content {
            Content::Directory => std::fs::create_dir_all(&place).at("making directory", &place)?,
            Content::File(bytes) => std::fs::write(&place, bytes).at("writing", &place)?,
            Content::Symlink(target) => std::os::unix::fs::symlink(target, &place).at("linking", &place)?,
            // systemd mounts devtmpfs before it needs a device.
            Content::CharDevice { .. } => continue,
        }
        if !matches!(node.content, Content::Symlink(_)) {
            // The copy stays readable and removable for the host's user.
            let extra = if node.content == Content::Directory { 0o700 } else { 0o600 };
            let mode = std::fs::Permissions::from_mode(node.mode & 0o777 | extra);
            std::fs::set_permissions(&place, mode).at("setting the mode of", &place)?;
        }
        fix(path, node, &place, &mut fixes)?;
    }
    // Directories last and deepest first: writing into one changes its time.
    for (path, node) in tree.iter().collect::<Vec<_>>().into_iter().rev() {
        if matches!(node.content, Content::Directory | Content::File(_)) {
            let place = root.join(path);
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(node.mtime);
            File::open(&place).and_then(|file| file.set_modified(time)).at("setting the time of", place)?;
        }
    }
    Ok(fixes)
}

fn fix(path: &str, node: &Node, place: &Path, fixes: &mut String) -> Result<(), ImageError> {
    if path.contains(['"', '\n', '\\']) {
        return Err(ImageError::Malformed {
            name: path.into(),
            problem: "debugfs can't be given such a name".into(),
        });
    }
    let copy = std::fs::symlink_metadata(place).at("reading", place)?;
    let kind = copy.mode() & !0o7777;
    let symlink = matches!(node.content, Content::Symlink(_));
    let mode = if symlink { copy.mode() } else { kind | node.mode };
    for (field, is, should) in [("uid", copy.uid(), node.uid), ("gid", copy.gid(), node.gid)] {
        if is != should {
            writeln!(fixes, "set_inode_field \"/{path}\" {field} {should}")
                .expect("writing to a string never fails");
        }
    }
    if copy.mode() != mode {
        writeln!(fixes, "set_inode_field \"/{path}\" mode 0{mode:o}")
            .expect("writing to a string never fails");
    }
    Ok(())
}

fn apply(fixes: &str, image: &Path) -> Result<(), ImageError> {
    if fixes.is_empty() {
        return Ok(());
    }
    let mut script = tempfile::NamedTempFile::new().at("writing", std::env::temp_dir())?;
    script.write_all(fixes.as_bytes()).at("writing", script.path())?;
    // debugfs ends with success even if a command failed; it then says so after the command, on either stream.
    let mut command = DEBUGFS.command()?;
    command.args(["-w", "-f"]).arg(script.path()).arg(image).stdin(std::process::Stdio::null());
    let output = command.output().at("starting", command.get_program())?;
    let complaint = [&output.stdout[..], &output.stderr[..]]
        .iter()
        .flat_map(|stream| String::from_utf8_lossy(stream).lines().map(str::to_owned).collect::<Vec<_>>())
        .find(|line| !line.starts_with("debugfs") && !line.trim().is_empty());
    match complaint {
        Some(problem) => Err(ImageError::Malformed { name: image.display().to_string(), problem }),
        None if output.status.success() => Ok(()),
        None => Err(tools::failed(&command, output.status, &output.stderr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_modes_are_set_in_the_image() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut tree = Tree::default();
        tree.file("etc/with blank", b"secret", 0o640);
        tree.chown("etc/with blank", 7, 70_000);
        tree.file("usr/bin/su", b"elf", 0o4755);
        tree.directory("tmp", 0o1777);
        tree.symlink("link", "usr/bin/su");
        tree.clamp_times(1_000_000_000);
        let (image, scratch) = (dir.path().join("disk"), dir.path().join("tree"));
        std::fs::create_dir(&scratch).expect("writable");
        write_ext4(&tree, &image, 64 << 20, &scratch).expect("made");
        let stat = |path: &str| {
            let request = format!("stat \"{path}\"");
            let output = tools::run(DEBUGFS.command().expect("installed").args(["-R", &request]).arg(&image));
            String::from_utf8(output.expect("readable")).expect("text")
        };
        let file = stat("/etc/with blank");
        assert!(file.contains("Mode:  0640") && file.contains("User:     7   Group: 70000"), "{file}");
        assert!(stat("/usr/bin/su").contains("Mode:  04755"));
        assert!(stat("/tmp").contains("Mode:  01777"));
        assert!(stat("/link").contains("User:     0   Group:     0"));
        assert!(stat("/").contains("User:     0   Group:     0"));
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let result = write_ext4(&Tree::default(), &dir.path().join("disk"), 1 << 20, dir.path());
        assert!(matches!(result, Err(ImageError::DiskTooSmall { .. })));
    }
}
