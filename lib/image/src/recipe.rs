//! What goes into the images: packages, modules, programs. A change here changes the cache key.

/// Architecture of the guests.
pub const ARCHITECTURE: &str = "riscv64";

/// Packages of the disk (apt patterns included).
pub const DISK_PACKAGES: &[&str] = &[
    "?essential",
    "?priority(required)",
    "apt",
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "login",
    "netbase",
    "nginx-light",
    "openssh-server",
    "passwd",
    "procps",
    "systemd",
    "systemd-sysv",
    "udev",
];

/// Packages that only the small guest draws from, and the kernel.
pub const INITRAMFS_PACKAGES: &[&str] =
    &["busybox-static", "dropbear-bin", "iperf3", "linux-image-riscv64", "nginx-light"];

/// Modules that both guests load as they boot.
pub const BOOT_MODULES: &[&str] =
    &["virtio_mmio", "virtio_blk", "virtio_net", "virtio-rng", "virtio_input", "evdev"];

/// Modules of the initrd that mounts the disk. The checksum is asked for by name at mount time only.
pub const DISK_INITRD_MODULES: &[&str] = &["virtio_mmio", "virtio_blk", "crc32c_generic", "ext4"];

/// Modules that the guests can load when asked.
pub const OPTIONAL_MODULES: &[&str] =
    &["autofs4", "virtio_balloon", "crc32c_generic", "ext4", "overlay", "loop", "tun", "vfat", "nls_ascii"];

/// Programs of the small guest besides busybox.
pub const INITRAMFS_PROGRAMS: &[&str] =
    &["usr/sbin/dropbear", "usr/bin/dropbearkey", "usr/sbin/nginx", "usr/bin/iperf3"];

/// Files of the small guest taken as packaged.
pub const INITRAMFS_FILES: &[&str] = &["etc/nginx/mime.types", "usr/lib/riscv64-linux-gnu/libnss_files.so.2"];
