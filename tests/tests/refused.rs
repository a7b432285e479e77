//! What the daemon refuses, gives back, and finds of its predecessors. No guest is booted: kernels of a few instructions
//! stand for them.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use quasar_tests::turn::Turn;
use quasar_tests::{Host, PATIENCE, api, leftovers, process, programs, tiny, wait_for};
use serde_json::{Value, json};
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A VM without a network card.
fn vm(name: &str, kernel: &Path) -> Value {
    let machine =
        json!({"memory": 64 << 20, "harts": 1, "boot": {"kernel": {"kernel": kernel, "initrd": null}}});
    json!({"name": name, "machine": machine, "disks": []})
}

/// KiB of a process that only it has, its threads, and its open files.
fn costs(pid: u32) -> anyhow::Result<[u64; 3]> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).context(name.to_owned())
    };
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok([field("RssAnon:")?, field("Threads:")?, files as u64])
}

/// A daemon that a shell has prepared for, in a directory that outlives it.
struct Daemon<'d> {
    child: Child,
    directory: &'d TempDir,
}

impl<'d> Daemon<'d> {
    fn start(directory: &'d TempDir, prepare: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-ec", &format!("{prepare}\nexec \"$0\" host --socket \"$1\"")]);
        command.arg(programs::quasar()?).arg(socket(directory));
        command.env("XDG_DATA_HOME", directory.path().join("data"));
        let log = File::create(directory.path().join("daemon.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let daemon = Self { child, directory };
        wait_for("the daemon", || daemon.ask("GET", "/v1/host", None).ok())?;
        Ok(daemon)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        api::ask(&socket(self.directory), method, path, body)
    }

    fn end(mut self, signal: Signal) -> anyhow::Result<u32> {
        let pid = self.child.id();
        let family = process::descendants(pid);
        process::signal(pid, signal)?;
        process::wait(&mut self.child, PATIENCE)?;
        wait_for("its processes to end", || (!family.iter().any(process::lives)).then_some(()))?;
        Ok(pid)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It has ended as a rule.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("run/host.sock")
}

#[test]
fn no_file_that_a_user_names_harms_or_holds_up_the_daemon() -> anyhow::Result<()> {
    let host = Host::start()?;
    let place = host.directory().join("files");
    std::fs::create_dir(&place)?;
    let good = tiny::idle(&place)?;
    let (status, made) = api::ask(&host.socket(), "POST", "/v1/vms", Some(&vm("bystander", &good)))?;
    ensure!(status == 201, "{made}");

    let path = |name: &str| place.join(name);
    let write = |name: &str, bytes: &[u8]| std::fs::write(path(name), bytes).map(|()| path(name));
    nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU)?;
    let _socket = UnixListener::bind(path("socket"))?;
    let long = |name: &str, head: &[u8]| -> anyhow::Result<_> {
        let file = File::create(path(name))?;
        std::io::Write::write_all(&mut &file, head)?;
        file.set_len(20 << 30)?;
        Ok(path(name))
    };
    let huge = long("huge", &tiny::image(&[0x6f], 4096))?;
    let hole = long("hole", &[])?;
    let gzip = write("gzip", b"\x1f\x8b\x08\0and so on")?;
    let arm64 = {
        let mut bytes = tiny::image(&[0x6f], 4096);
        bytes[56..60].copy_from_slice(b"ARM\x64");
        write("arm64", &bytes)?
    };
    let not_files = [
        (Path::new("/dev/zero").to_owned(), "a character device"),
        (path("fifo"), "a FIFO"),
        (path("socket"), "a socket"),
        (place.clone(), "a directory"),
        (path("missing"), "No such file"),
    ];
    let kernels = [
        (huge.clone(), "memory"),
        (hole.clone(), "neither"),
        (gzip.clone(), "gzip"),
        (arm64, "arm64"),
        (Path::new("/bin/sh").to_owned(), "not for RISC-V"),
        (write("text", b"console=ttyS0\n")?, "a text file"),
        (write("empty", b"")?, "it is empty"),
    ];
    let initrds = [(huge.clone(), "kernel"), (hole, "initial ramdisk"), ("/bin/sh".into(), "ELF")];
    let firmware = [(huge.clone(), "kernel"), (gzip, "gzip"), (write("zero", &[0; 100])?, "does not begin")];
    let qcow2 = write("qcow2", &[&b"QFI\xfb"[..], &[0; 1020]].concat())?;
    let disks = [(qcow2, "qcow2"), (write("disk.xz", &[&b"\xfd7zXZ\0\0\0"[..], &[0; 504]].concat())?, "xz")];

    let refused = |role: &str, change: &dyn Fn(&mut Value, &Path), cases: &[(std::path::PathBuf, &str)]| {
        for (file, words) in not_files.iter().chain(cases) {
            let mut wanted = vm("wrong", &good);
            change(&mut wanted, file);
            let (status, said) = api::ask(&host.socket(), "POST", "/v1/vms", Some(&wanted))?;
            let text = said["error"].as_str().unwrap_or_default();
            ensure!(status == 422 && text.contains(words), "{role} {}: {status} {said}", file.display());
        }
        anyhow::Ok(())
    };
    let boot = "/machine/boot/kernel";
    let set = |key: &'static str| {
        move |vm: &mut Value, file: &Path| {
            if let Some(boot) = vm.pointer_mut(boot) {
                boot[key] = json!(file);
            }
        }
    };
    refused("kernel", &set("kernel"), &kernels)?;
    refused("initrd", &set("initrd"), &initrds)?;
    refused("firmware", &set("firmware"), &firmware)?;
    for read_only in [true, false] {
        let disk = |vm: &mut Value, file: &Path| {
            vm["disks"] = json!([{"path": file, "read_only": read_only}]);
        };
        refused("disk", &disk, &disks)?;
    }
    let elsewhere =
        |vm: &mut Value, file: &Path| vm["net"] = json!({"uplink": format!("tap:{}", file.display())});
    for (words, change) in [
        (
            "this host has",
            &(|vm: &mut Value, _: &Path| vm["machine"]["memory"] = json!(900_u64 << 30))
                as &dyn Fn(&mut Value, &Path),
        ),
        ("quasar-none", &elsewhere),
    ] {
        let mut wanted = vm("wrong", &good);
        change(&mut wanted, Path::new("quasar-none"));
        let (status, said) = api::ask(&host.socket(), "POST", "/v1/vms", Some(&wanted))?;
        ensure!(
            status == 422 && said["error"].as_str().is_some_and(|e| e.contains(words)),
            "{status} {said}"
        );
    }
    let (status, said) = api::ask(&host.socket(), "PATCH", "/v1/vms/bystander", None)?;
    let hint = said["hint"].as_str().unwrap_or_default();
    ensure!(status == 405 && said["error"].is_string() && hint.contains("Allow"), "{status} {said}");
    let (status, said) = api::ask(&host.socket(), "GET", "/v1/vms/nobody", None)?;
    ensure!(
        status == 404 && said["code"] == "unknown-vm" && !said.to_string().contains("quasar ps"),
        "{said}"
    );
    let view = host.view("bystander")?;
    ensure!(view["phase"] == "running", "{view}");
    let [private, ..] = costs(host.pid())?;
    ensure!(private < 30 << 10, "the daemon has {private} KiB of its own");
    ensure!(host.remains("wrong").is_empty(), "{:?}", host.remains("wrong"));

    // Without a daemon the same files are read by the command itself.
    for (file, words) in [(path("fifo"), "a FIFO"), ("/dev/zero".into(), "a character device"), (huge, "ELF")]
    {
        let mut command = Command::new(quasar_tests::programs::quasar()?);
        let out = process::run(command.args(["isa", "run"]).arg(&file))?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(!out.status.success() && said.contains(words), "{}: {said}", file.display());
    }
    host.stop()
}

#[test]
fn what_vms_cost_the_daemon_is_given_back() -> anyhow::Result<()> {
    let host = Host::start()?;
    let brief = tiny::brief(host.directory())?;
    let life = |name: &str| {
        let (status, made) = api::ask(&host.socket(), "POST", "/v1/vms", Some(&vm(name, &brief)))?;
        ensure!(status == 201, "{made}");
        host.wait_phase(name, "stopped")?;
        let (status, said) = api::ask(&host.socket(), "DELETE", &format!("/v1/vms/{name}"), None)?;
        ensure!(status == 200, "{said}");
        Ok(())
    };
    // The first ones fill what is kept for those that follow.
    (0..10).try_for_each(|n| life(&format!("first{n}")))?;
    let before = costs(host.pid())?;
    (0..40).try_for_each(|n| life(&format!("more{n}")))?;
    let settled = || {
        let now = costs(host.pid()).ok()?;
        (now[0] < before[0] + 1024 && now[1] <= before[1] && now[2] <= before[2]).then_some(())
    };
    wait_for(&format!("the daemon to be as it was, {before:?}"), settled)
        .with_context(|| format!("it is {:?}", costs(host.pid())))?;
    host.stop()
}

#[test]
fn the_next_daemon_removes_what_a_killed_one_has_left_and_nothing_else() -> anyhow::Result<()> {
    let other = Host::start()?;
    let directory = tempfile::tempdir()?;
    let idle = tiny::idle(directory.path())?;
    let data = directory.path().join("data/quasar");
    let disk = |vm: &str, name: &str| -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(data.join(vm))?;
        std::fs::write(data.join(vm).join(name), name)?;
        Ok(data.join(vm).join(name))
    };
    let coming = disk("web", "disk0-0.raw")?;
    disk("web", "disk0-0.raw.arriving")?;
    let whole = disk("web", "disk1-0.raw")?;
    let (status, made) = api::ask(&other.socket(), "POST", "/v1/vms", Some(&vm("other", &idle)))?;
    ensure!(status == 201, "{made}");

    let first = Daemon::start(&directory, "")?;
    ensure!(!coming.exists() && whole.exists(), "the disks at its start");
    let (status, made) = first.ask("POST", "/v1/vms", Some(&vm("killed", &idle)))?;
    ensure!(status == 201, "{made}");
    let dead = first.end(Signal::SIGKILL)?;
    let runtime = directory.path().join("run/host.d");
    std::fs::write(runtime.join("lan.passt"), "")?;
    ensure!(runtime.join("killed").exists(), "nothing was left");
    ensure!(leftovers::named_segments(dead).is_empty(), "{:?}", leftovers::named_segments(dead));
    // As if it had been killed in the moment in which a segment has a name.
    let half_made = std::path::Path::new("/dev/shm").join(format!("quasar-{dead}-killed.0-ram.half"));
    std::fs::write(&half_made, "")?;

    let second = Daemon::start(&directory, "")?;
    ensure!(!half_made.exists(), "the next one removes it");
    ensure!(!runtime.join("killed").exists() && !runtime.join("lan.passt").exists(), "the directory");
    ensure!(whole.exists(), "a disk that has come is a VM's only state");
    let (status, made) = second.ask("POST", "/v1/vms", Some(&vm("killed", &idle)))?;
    ensure!(status == 201, "{made}");
    second.end(Signal::SIGTERM)?;
    ensure!(leftovers::files(&directory.path().join("run")).is_empty(), "left by one that ended well");
    let view = other.view("other")?;
    ensure!(
        view["phase"] == "running" && !leftovers::segments_of(other.pid(), other.pid()).is_empty(),
        "{view}"
    );
    other.stop()
}

#[test]
fn open_files_are_as_many_as_may_be_and_a_lack_of_them_is_named() -> anyhow::Result<()> {
    let _turn = Turn::take()?;
    let directory = tempfile::tempdir()?;
    let idle = tiny::idle(directory.path())?;
    let daemon = Daemon::start(&directory, "ulimit -Sn 64")?;
    for name in ["one", "two", "three", "four"] {
        let (status, made) = daemon.ask("POST", "/v1/vms", Some(&vm(name, &idle)))?;
        ensure!(status == 201, "{name}: {made}");
    }
    daemon.end(Signal::SIGTERM)?;

    let daemon = Daemon::start(&directory, "ulimit -n 48")?;
    let mut refusal = None;
    for name in ["one", "two", "three", "four"] {
        let (status, said) = daemon.ask("POST", "/v1/vms", Some(&vm(name, &idle)))?;
        if status != 201 {
            refusal = Some(said.to_string());
            break;
        }
    }
    let refusal = refusal.context("48 files are enough for four VMs")?;
    ensure!(refusal.contains("ulimit -n") && !refusal.contains("QUASAR_LIBEXEC"), "{refusal}");
    daemon.end(Signal::SIGTERM)?;
    Ok(())
}

#[test]
fn a_guest_that_has_panicked_is_shown_and_one_that_only_says_so_is_not() -> anyhow::Result<()> {
    let host = Host::start()?;
    let words = "[    1.5] Kernel panic - not syncing: VFS: no root\r\n[    1.6] ---[ end ]---\r\n";
    let place = host.directory();
    for (name, waits) in [("idle", true), ("panicked", false)] {
        let kernel = tiny::says(place, &format!("says-{name}"), words, waits)?;
        let (status, made) = api::ask(&host.socket(), "POST", "/v1/vms", Some(&vm(name, &kernel)))?;
        ensure!(status == 201, "{made}");
    }
    let view = host.wait_phase("panicked", "failed")?;
    ensure!(view["reason"].as_str().is_some_and(|r| r.contains("panicked: VFS: no root")), "{view}");
    ensure!(host.quasar(&["logs", "panicked"])?.contains("---[ end ]---"), "no last lines");
    // It said the same at least as long ago.
    ensure!(host.view("idle")?["phase"] == "running", "{}", host.view("idle")?);
    host.stop()
}
