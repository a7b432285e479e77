//! The small guest: Debian's kernel and modules, busybox, nginx, dropbear, iperf3; and the initrd of the Debian disk.

use super::closure;
use super::error::ImageError;
use super::keys::{self, Keys};
use super::modules::{self, Module, Modules};
use super::recipe;
use super::tree::{Content, Node, Tree};

macro_rules! guest_file {
    ($name:literal) => {
        include_str!(concat!("../../../tests/guest/", $name))
    };
}
pub(super) use guest_file;

const PASSWD: &str = "root::0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
                      nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n";
const SHADOW: &str = "root::20000:0:99999:7:::\nwww-data:*:20000:0:99999:7:::\nnobody:*:20000:0:99999:7:::\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n";

/// The small guest. `pool` holds the unpacked packages, `bench` the compiled programs (or nothing).
pub fn guest(
    pool: &Tree,
    modules: &Modules<'_>,
    release: &str,
    bench: &Tree,
    keys: &Keys,
) -> Result<Tree, ImageError> {
    let mut tree = skeleton(pool, recipe::INITRAMFS_PROGRAMS)?;
    install_modules(&mut tree, modules, release, recipe::BOOT_MODULES, recipe::OPTIONAL_MODULES)?;
    for path in recipe::INITRAMFS_FILES.iter().chain(recipe::INITRAMFS_PROGRAMS) {
        copy(pool, path, &mut tree)?;
    }
    for path in closure::libraries(pool, recipe::INITRAMFS_PROGRAMS)? {
        copy(pool, &path, &mut tree)?;
    }
    for (path, text, mode) in [
        ("init", guest_file!("initramfs/init"), 0o755),
        ("etc/inittab", guest_file!("initramfs/inittab"), 0o644),
        ("etc/shutdown", guest_file!("initramfs/shutdown"), 0o755),
        // busybox' acpid looks for this name when KEY_POWER is pressed.
        ("etc/acpi/PWRF/00000080", guest_file!("initramfs/power-button"), 0o755),
        ("etc/udhcpc.script", guest_file!("initramfs/udhcpc.script"), 0o755),
        ("etc/nginx/nginx.conf", guest_file!("initramfs/nginx.conf"), 0o644),
        ("etc/profile", guest_file!("initramfs/profile"), 0o644),
        ("etc/passwd", PASSWD, 0o644),
        ("etc/group", GROUP, 0o644),
        ("etc/shadow", SHADOW, 0o600),
        ("etc/shells", "/bin/sh\n", 0o644),
        ("etc/hostname", "guest\n", 0o644),
        ("etc/hosts", "127.0.0.1 localhost\n", 0o644),
        ("etc/nsswitch.conf", NSSWITCH, 0o644),
        ("etc/resolv.conf", "nameserver 10.0.2.3\n", 0o644),
        ("root/.ssh/authorized_keys", &keys.user_public, 0o600),
    ] {
        tree.file(path, text, mode);
    }
    for dir in ["var/log/nginx", "var/lib/nginx", "var/run", "srv"] {
        tree.directory(dir, 0o755);
    }
    tree.directory("root", 0o700);
    tree.directory("root/.ssh", 0o700);
    tree.file("etc/dropbear/dropbear_ed25519_host_key", keys::to_dropbear(&keys.host_private)?, 0o600);
    web_pages("var/www", &mut tree);
    bench.iter().for_each(|(path, node)| tree.insert(path, node.clone()));
    Ok(tree)
}

/// The initrd that loads the disk's drivers and goes over to its init.
pub fn disk_initrd(pool: &Tree, modules: &Modules<'_>, release: &str) -> Result<Tree, ImageError> {
    let mut tree = skeleton(pool, &[])?;
    install_modules(&mut tree, modules, release, recipe::DISK_INITRD_MODULES, &[])?;
    tree.file("init", guest_file!("disk/initrd-init"), 0o755);
    Ok(tree)
}

/// Pages of known size and content, to measure and compare with.
pub fn web_pages(dir: &str, tree: &mut Tree) {
    tree.file(&format!("{dir}/index.html"), guest_file!("index.html"), 0o644);
    tree.file(&format!("{dir}/1k.bin"), pattern(1024, 7, 256), 0o644);
    tree.file(&format!("{dir}/100k.bin"), pattern(100 * 1024, 13, 251), 0o644);
}

fn pattern(length: u32, factor: u32, stride: u32) -> Vec<u8> {
    (0..length).map(|index| (index * factor + index / stride).to_le_bytes()[0]).collect()
}

/// Directories, the console and busybox with a link for each of its applets that no program in `instead` replaces.
fn skeleton(pool: &Tree, instead: &[&str]) -> Result<Tree, ImageError> {
    let mut tree = Tree::with_merged_usr();
    for dir in ["dev", "proc", "sys", "run", "mnt", "etc", "root", "var", "usr/bin", "usr/sbin"] {
        tree.directory(dir, 0o755);
    }
    tree.directory("tmp", 0o1777);
    // The kernel opens it for PID 1 before anything is mounted.
    tree.insert("dev/console", Node::new(0o600, Content::CharDevice { major: 5, minor: 1 }));
    copy(pool, "usr/bin/busybox", &mut tree)?;
    for name in applets(&pool.need("usr/bin/busybox")?)? {
        let replaced = instead.iter().any(|program| program.rsplit('/').next() == Some(&name));
        if name != "busybox" && !replaced {
            tree.symlink(&format!("usr/bin/{name}"), "busybox");
        }
    }
    Ok(tree)
}

/// Names of the applets in a busybox: the table within the program that begins with `[` and `[[`.
fn applets(busybox: &[u8]) -> Result<Vec<String>, ImageError> {
    let start = busybox.windows(5).position(|window| window == b"[\0[[\0");
    let table = start.map(|start| &busybox[start..]).ok_or_else(|| ImageError::Malformed {
        name: "busybox".into(),
        problem: "its table of applets is not where it is expected".into(),
    })?;
    let names = table.split(|byte| *byte == 0).take_while(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

fn install_modules(
    tree: &mut Tree,
    modules: &Modules<'_>,
    release: &str,
    boot: &[&str],
    optional: &[&str],
) -> Result<(), ImageError> {
    let wanted: Vec<&str> = boot.iter().chain(optional).copied().collect();
    let closure: Vec<Module> = modules.closure(&wanted)?;
    modules::install(&closure, release, tree);
    tree.file("etc/modules", boot.join("\n") + "\n", 0o644);
    Ok(())
}

/// Copies a file (links followed) to the same path, executable if it was.
fn copy(pool: &Tree, path: &str, into: &mut Tree) -> Result<(), ImageError> {
    let source = pool.resolve(path).and_then(|real| pool.get(&real));
    let Some(Node { mode, content: Content::File(bytes), .. }) = source else {
        return Err(ImageError::Missing { what: "file", name: path.into() });
    };
    into.file(path, bytes, if mode & 0o111 == 0 { 0o644 } else { 0o755 });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_read_from_their_table() {
        let program = b"\x7fELF junk\0[\0[[\0acpid\0ash\0\0more\0";
        assert_eq!(applets(program).expect("there is a table"), ["[", "[[", "acpid", "ash"]);
        assert!(applets(b"\x7fELF").is_err());
    }

    #[test]
    fn page_sizes_are_what_their_names_say() {
        let mut tree = Tree::default();
        web_pages("w", &mut tree);
        assert_eq!(tree.get("w/1k.bin").map(Node::len), Some(1024));
        assert_eq!(tree.get("w/100k.bin").map(Node::len), Some(102_400));
    }

    #[test]
    fn programs_take_the_place_of_applets() {
        let mut pool = Tree::with_merged_usr();
        pool.file("usr/bin/busybox", b"\x7fELF\0[\0[[\0ash\0httpd\0\0", 0o755);
        let tree = skeleton(&pool, &["usr/sbin/httpd"]).expect("complete");
        assert!(tree.get("usr/bin/ash").is_some());
        assert!(tree.get("usr/bin/httpd").is_none());
        assert_eq!(tree.get("dev/console").map(|node| node.mode), Some(0o600));
    }
}
