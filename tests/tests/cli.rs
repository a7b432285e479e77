//! The command line: what it says when something is wrong, and that nothing is left behind when it is
//! interrupted. One boot, about 20 s.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use quasar_tests::images::images;
use quasar_tests::turn::Turn;
use quasar_tests::{Console, Host, PATIENCE, Recipe, leftovers, process, programs, wait_for};
use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

#[test]
fn errors_say_what_to_do() -> anyhow::Result<()> {
    let host = Host::start()?;
    let kernel = images()?.kernel.display().to_string();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let publish = format!("{}:80", taken.local_addr()?.port());
    let says = |arguments: &[&str], words: &[&str]| {
        let text = host.refusal(arguments)?;
        let missing = words.iter().find(|word| !text.contains(**word));
        ensure!(missing.is_none(), "quasar {}: no {missing:?} in {text}", arguments.join(" "));
        Ok(())
    };
    says(&["run", "a", "--kernel", "/nonexistent/Image", "--detach"], &["/nonexistent/Image"])?;
    says(&["run", "a", "--kernel", &kernel, "--engine", "A Jit", "--detach"], &["\"A Jit\"", "hyphens"])?;
    let lists = ["there is no engine \"jit\"", "this build has interpreter"];
    says(&["run", "a", "--kernel", &kernel, "--engine", "jit", "--detach"], &lists)?;
    says(&["run", "a", "--kernel", &kernel, "--initrd", "/nonexistent/i", "--detach"], &["/nonexistent/i"])?;
    says(&["run", "a", "--kernel", &kernel, "--disk", "/nonexistent/d", "--detach"], &["/nonexistent/d"])?;
    says(
        &["run", "a", "--kernel", &kernel, "--firmware", "/nonexistent/f", "--detach"],
        &["/nonexistent/f"],
    )?;
    says(&["run", "a", "--kernel", "/etc/hostname", "--net", "none", "--detach"], &["/etc/hostname"])?;
    says(&["run", "a", "--kernel", &kernel, "--memory", "12Q", "--detach"], &["12Q", "K, M, G or T"])?;
    says(&["run", "a", "--kernel", &kernel, "--memory", "4097", "--detach"], &["4097", "4K"])?;
    says(&["run", "a", "--kernel", &kernel, "--memory", "4M", "--net", "none", "--detach"], &["memory"])?;
    says(&["run", "a", "--kernel", &kernel, "--harts", "99", "--detach"], &["99", "16"])?;
    says(&["run", "a/b", "--kernel", &kernel, "--detach"], &["a/b"])?;
    says(&["run", "a", "--kernel", &kernel, "--publish", &publish, "--detach"], &["in use"])?;
    let long = "x=".repeat(600);
    says(&["run", "a", "--kernel", &kernel, "--append", &long, "--detach"], &["1200 bytes", "keeps 1023"])?;
    for (name, bytes) in [("odd", 1_000_000), ("empty", 0), ("one", 1 << 20)] {
        std::fs::File::create(host.directory().join(name))?.set_len(bytes)?;
    }
    std::fs::hard_link(host.directory().join("one"), host.directory().join("same"))?;
    let with_disks = |names: &[&str], words: &[&str]| {
        let paths: Vec<String> =
            names.iter().map(|n| host.directory().join(n).display().to_string()).collect();
        let disks: Vec<&str> = paths.iter().flat_map(|path| ["--disk", path]).collect();
        says(&[&["run", "a", "--kernel", &kernel, "--detach"][..], &disks].concat(), words)
    };
    with_disks(&["odd"], &["1000000 bytes", "the last 64", "truncate -s 1000448"])?;
    with_disks(&["empty"], &["it is empty"])?;
    with_disks(&["/dev/zero"], &["/dev/zero", "block device"])?;
    with_disks(&["one", "same"], &["same is the same as disk", "read-only"])?;
    says(&["stop", "nobody"], &["nobody", "quasar ps"])?;
    says(&["ssh", "nobody"], &["nobody"])?;
    says(&["isa", "run", "/nonexistent/elf"], &["/nonexistent/elf"])?;
    ensure!(host.json(&["ps", "--json"])?.as_array().is_some_and(Vec::is_empty), "a refused VM is listed");

    let run = ["run", "a", "--kernel", &kernel, "--net", "none", "--detach"];
    host.quasar(&run)?;
    says(&run, &["a", "already", "quasar rm"])?;
    says(&["rm", "a"], &["running", "--force"])?;
    host.quasar(&["rm", "a", "--force"])?;
    host.stop()
}

#[test]
fn without_a_daemon() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(programs::quasar()?);
    command.env("QUASAR_SOCKET", directory.path().join("host.sock")).args(["stats", "web"]);
    let out = process::run(&mut command)?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(!out.status.success() && text.contains("quasar host"), "{text}");
    for arguments in [&["ps"][..], &["host"]] {
        let mut command = Command::new(programs::quasar()?);
        command.env("QUASAR_SOCKET", directory.path().join("s".repeat(100))).args(arguments);
        let out = process::run(&mut command)?;
        let text = String::from_utf8_lossy(&out.stderr);
        ensure!(!out.status.success() && text.contains("107") && !text.contains("belongs"), "{text}");
    }
    Ok(())
}

/// Runs it, and expects it to fail for one of the VMs; what it printed.
fn in_part(host: &Host, arguments: &[&str]) -> anyhow::Result<String> {
    let out = process::run(&mut host.command(arguments))?;
    let errors = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(1) && errors.contains("nobody"), "quasar {arguments:?}: {errors}");
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[test]
fn vms_are_made_started_killed_and_started_again() -> anyhow::Result<()> {
    let host = Host::start()?;
    let (kernel, initrd) = (images()?.kernel.display().to_string(), images()?.initrd.display().to_string());
    // A name that is not UTF-8, and ends as an option does.
    let disk = host.directory().join(OsStr::from_bytes(b"disk\xff,ro"));
    std::fs::File::create(&disk)?.set_len(1 << 20)?;
    let guest = ["--kernel", &kernel, "--initrd", &initrd, "--net", "none", "-m", "256MB", "--cpus", "2"];
    for name in [&["--name", "a"][..], &["b"]] {
        let mut command = host.command(&[&["create"], name, &guest].concat());
        process::output(command.arg("--disk").arg(&disk).args(["--append", "console=ttyS0"]))?;
    }
    ensure!(host.view("a")?["phase"] == "stopped" && host.view("a")?["processes"] == serde_json::json!([]));
    ensure!(host.quasar(&["ps", "-q"])? == "a\nb\n");
    // They would write one disk.
    ensure!(host.quasar(&["start", "a"])?.contains("a: running"));
    ensure!(host.refusal(&["start", "b"])?.contains("in use by VM a"));
    // Its kernel has just begun: that nobody hears the key is said, not waited for.
    ensure!(host.refusal(&["stop", "a", "--timeout", "600"])?.contains("power key"));
    ensure!(host.view("a")?["phase"] == "running");
    host.quasar(&["rm", "b"])?;
    host.quasar(&[&["run", "b", "-d"], &guest[..]].concat())?;
    ensure!(host.quasar(&["start", "a", "b"])?.contains("b: running"), "what runs is left as it is");

    let pid = |vm: &str, role: &str| host.pid_of(vm, role);
    let (mmu, other, cpu) = (pid("a", "mmu")?, pid("b", "mmu")?, pid("a", "cpu1")?);
    let list = host.quasar(&["ps", "--processes"])?;
    ensure!(
        list.lines().any(|l| l.starts_with("a ") && l.contains("mmu") && l.contains(&mmu.to_string())),
        "{list}"
    );
    let killed = host.quasar(&["kill", "a", "mmu"])?;
    ensure!(killed.contains("mmu") && killed.contains(&mmu.to_string()), "{killed}");
    wait_for("another mmu", || pid("a", "mmu").ok().filter(|now| *now != mmu))?;
    ensure!((pid("b", "mmu")?, pid("a", "cpu1")?) == (other, cpu), "another process was hit");
    for (arguments, words) in [
        (&["kill", "a", "cpu2"][..], "cpu0 to cpu1"),
        (&["kill", "a", "mmus"], "netswitch"),
        (&["kill", "a", "mmu", "--signal", "NO"], "signal"),
        (&["kill", "a", "migrator"], "no journey"),
        (&["kill", "a", "passt"], "no network card"),
    ] {
        let text = host.refusal(arguments)?;
        ensure!(text.contains(words), "{arguments:?}: {text}");
    }

    let paused = in_part(&host, &["pause", "a", "nobody", "b"])?;
    ensure!(paused == "a: paused\nb: paused\n", "{paused}");
    let text = host.refusal(&["stop", "a"])?;
    ensure!(text.contains("quasar resume a"), "{text}");
    ensure!(host.refusal(&["start", "a"])?.contains("quasar resume a"));
    ensure!(host.view("a")?["phase"] == "paused", "a refused stop let it go on");
    host.quasar(&["resume", "a", "b"])?;

    // A VM that has failed is started again by one command.
    host.quasar(&["kill", "b", "cpu0"])?;
    host.wait_phase("b", "failed")?;
    ensure!(host.refusal(&["start", "b"])?.contains("quasar restart b"));
    host.quasar(&["restart", "b"])?;
    let ended = host.quasar(&["kill", "a", "b"])?;
    ensure!(ended.lines().filter(|line| line.contains("ended at once")).count() == 2, "{ended}");
    ensure!(host.quasar(&["kill", "a"])?.contains("already"));
    host.quasar(&["stop", "a"])?;
    ensure!(host.refusal(&["pause", "a"])?.contains("quasar start a"));
    ensure!(host.refusal(&["resume", "a"])?.contains("quasar start a"));

    let before = host.view("a")?;
    host.quasar(&["start", "a"])?;
    let found: serde_json::Value = serde_json::from_str(&in_part(&host, &["inspect", "a", "nobody"])?)?;
    let [vm] = found.as_array().context("no array")?.as_slice() else { anyhow::bail!("{found}") };
    ensure!((&vm["spec"], &vm["created"]) == (&before["spec"], &before["created"]), "{vm}");
    ensure!(vm["memory"] == 256 << 20 && vm["harts"] == 2 && vm["stats"]["harts"].is_array(), "{vm}");
    ensure!(vm["spec"]["disks"][0]["path"].is_array(), "{vm}");
    host.quasar(&["restart", "a", "--force"])?;
    ensure!(host.json(&["version", "--json"])?["daemon"]["version"].is_string());
    ensure!(host.json(&["info", "--json"])?["pid"] == host.pid());

    let script = "source <(quasar completions bash)
        COMP_WORDS=(quasar stop ''); COMP_CWORD=2; COMP_TYPE=9
        _clap_complete_quasar quasar '' stop; echo \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    let directory = programs::quasar()?.parent().context("no directory")?.to_owned();
    bash.env("PATH", std::env::join_paths([directory, "/usr/bin".into(), "/bin".into()])?);
    bash.env("QUASAR_SOCKET", host.socket()).args(["-c", script]);
    let offered = process::output(&mut bash)?;
    ensure!(offered.contains("a") && offered.split_whitespace().any(|word| word == "b"), "{offered}");
    let man = host.directory().join("man");
    host.quasar(&["man", &man.display().to_string()])?;
    ensure!(std::fs::read_to_string(man.join("quasar-kill.1"))?.contains("migrator"));

    in_part(&host, &["rm", "-f", "a", "nobody", "b"])?;
    ensure!(host.quasar(&["ps", "-q", "-a"])?.is_empty());
    host.stop()
}

/// With another user's own processes: needs root.
#[test]
fn what_another_user_has_made_is_neither_used_nor_believed() -> anyhow::Result<()> {
    let quasar = programs::quasar()?;
    let other = |program: &std::ffi::OsStr| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        command.env_remove("HOME").env_remove("XDG_RUNTIME_DIR");
        command
    };
    let says = |command: &mut Command, words: &[&str]| {
        let out = process::run(command)?;
        let text = String::from_utf8_lossy(&out.stderr);
        ensure!(!out.status.success() && words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
        Ok(())
    };
    let shared = tempfile::tempdir()?;
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o1777))?;
    let theirs = shared.path().join("theirs");
    process::output(other("mkdir".as_ref()).arg(&theirs))?;
    let socket = theirs.join("host.sock");

    // We do not work in their directory, nor by way of their link.
    says(Command::new(&quasar).args(["host", "--socket"]).arg(&socket), &["belongs to", "65534"])?;
    let link = shared.path().join("link");
    process::output(other("ln".as_ref()).args(["-s", "/root"]).arg(&link))?;
    for place in [&theirs, &link] {
        let mut command = Command::new(&quasar);
        command.env("XDG_CACHE_HOME", place).args(["image", "build", "debian"]);
        says(&mut command, &["belongs to", "65534"])?;
        let mut command = Command::new(&quasar);
        says(command.env("XDG_CONFIG_HOME", place).args(["pki", "init"]), &["belongs to", "65534"])?;
    }
    ensure!(!theirs.join("quasar").exists(), "something was made in another user's directory");

    // We do not believe their daemon, and they do not believe one that is neither theirs nor root's.
    let mut daemon = other(quasar.as_os_str());
    let mut daemon = daemon.args(["host", "--socket"]).arg(&socket).stderr(Stdio::null()).spawn()?;
    let met = wait_for("their daemon", || socket.exists().then_some(())).and_then(|()| {
        says(Command::new(&quasar).args(["ps", "--socket"]).arg(&socket), &["is served by", "65534"])
    });
    process::signal(daemon.id(), Signal::SIGTERM)?;
    process::wait(&mut daemon, PATIENCE)?;
    met?;

    // Without HOME a user is where the passwd entry says.
    says(other(quasar.as_os_str()).args(["pki", "issue", "x"]), &["/nonexistent/.config/quasar/pki"])
}

/// Every process of a VM has its own role's segments mapped, and no others: none of another VM, above all.
fn each_has_its_own(host: &Host) -> anyhow::Result<()> {
    for vm in ["one", "two"] {
        for (role, wanted) in [
            ("cpu0", "control maps ram tlb"),
            ("cpu1", "control maps ram tlb"),
            ("mmu", "control maps ram tlb"),
            ("devices", "console control devices maps port0 ram"),
        ] {
            let kinds = || leftovers::kinds_of(host.pid_of(vm, role)?, host.pid(), vm);
            // It is listed before it is attached.
            let found = wait_for("its segments", || kinds().ok().filter(|found| found == wanted).map(|_| ()));
            found.with_context(|| format!("{vm}'s {role} has {:?}, not {wanted}", kinds()))?;
        }
    }
    let switch = host.pid_of("one", "netswitch")?;
    let rings: Vec<String> = leftovers::segments_of(switch, host.pid()).into_iter().collect();
    ensure!(
        rings.len() == 2 && rings.iter().all(|name| name.ends_with("-port0")),
        "the switch has {rings:?}"
    );
    Ok(())
}

#[test]
fn sigterm_ends_the_daemon_and_everything_of_it() -> anyhow::Result<()> {
    let host = Host::start()?;
    let kernel = images()?.kernel.display().to_string();
    for name in ["one", "two"] {
        let small = ["run", name, "--kernel", &kernel, "--memory", "128M", "--harts", "2", "--detach"];
        host.quasar(
            &[small.as_slice(), if name == "two" { &["--engine", "interpreter"] } else { &[] }].concat(),
        )?;
    }
    let says_engine = |vm| anyhow::Ok(host.quasar(&["inspect", vm])?.contains("\"engine\": \"interpreter\""));
    ensure!(!says_engine("one")? && says_engine("two")?, "{}", host.quasar(&["inspect", "two"])?);
    let mapped = leftovers::segments_of(host.pid(), host.pid());
    ensure!(mapped.iter().any(|name| name.ends_with("-ram")), "the VMs' segments are not found: {mapped:?}");
    ensure!(leftovers::named_segments(host.pid()).is_empty(), "somebody could open them");
    each_has_its_own(&host)?;
    ensure!(process::descendants(host.pid()).len() > 2 * 4, "the VMs' processes are not found");
    host.stop()
}

#[test]
fn ctrl_c_of_an_attached_run_leaves_nothing() -> anyhow::Result<()> {
    let _turn = Turn::take()?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("run/host.sock");
    let recipe = Recipe::initramfs("brief")?;
    let mut command = Command::new(programs::quasar()?);
    // Attached: the recipe's arguments but for --detach.
    command.args(recipe.arguments().into_iter().filter(|word| *word != "--detach"));
    command.env("QUASAR_SOCKET", &socket);
    let mut console = Console::attach(&mut command)?;
    console.expect("GUEST READY ")?;
    let mark = socket.display().to_string();
    let daemon = process::list().into_iter().find(|p| p.line.contains(&mark) && p.line.contains(" host "));
    let daemon = daemon.context("the daemon in the background is not found")?;
    let mut family = process::descendants(daemon.pid);
    ensure!(family.len() >= 4, "{family:?}");
    family.push(daemon.clone());

    process::signal(console.pid(), Signal::SIGINT)?;
    let status = process::wait(console.child(), PATIENCE)?;
    ensure!(status.code() == Some(130), "an interrupted run ended with {status}");
    // The daemon was started for this VM, and goes when it is idle.
    wait_for("the daemon's end", || (!process::lives(&daemon)).then_some(()))?;
    let left = leftovers::of(daemon.pid, &family, &[]);
    ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    ensure!(!socket.exists(), "the daemon's socket is left behind");
    Ok(())
}
