//! Migrations in awkward moments: two guests in opposite directions, during boot, during a reboot, twenty in a row; to a
//! host without room, or one that fills up; an unclear hand-over; disks that stay. Five boots, about two minutes.

use anyhow::{Context, ensure};
use quasar_tests::stream::Stream;
use quasar_tests::{Guest, Host, Recipe, wait_for};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A migration in the background.
fn begin(from: &Host, vm: &str, to: &str, more: &[&str]) -> anyhow::Result<Child> {
    let mut command = from.command(&[&["migrate", vm, "--to", to, "--json"], more].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().context("quasar migrate")
}

/// How it ended.
fn end(child: Child) -> anyhow::Result<Value> {
    let out = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let last = text.lines().last().with_context(|| String::from_utf8_lossy(&out.stderr).into_owned())?;
    Ok(serde_json::from_str(last)?)
}

fn arrives(to: &Host, vm: &str) -> anyhow::Result<()> {
    wait_for("its arrival", || to.view(vm).ok().filter(|view| view["phase"] == "arriving")).map(drop)
}

fn nothing_remains(host: &Host, vm: &str) -> anyhow::Result<()> {
    let gone = wait_for("the VM's remains to go", || host.remains(vm).is_empty().then_some(()));
    gone.with_context(|| format!("left behind: {:?}", host.remains(vm)))
}

#[test]
fn guests_pass_each_other_boot_and_reboot_on_their_way_and_move_twenty_times() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let b = a.neighbour()?;
    let small = |name| Recipe::initramfs(name)?.with(&["--memory", "192M"]).append("quiet").publish(7000);
    let mut west = small("west")?.start(&a)?;
    let mut east = small("east")?.start(&b)?;
    let mut journeys = || {
        // While the kernel starts.
        west.migrate(&b, &[])?;
        east.migrate(&a, &[])?;
        for guest in [&mut west, &mut east] {
            guest.boot()?;
            guest.check_stream(7000)?;
            guest.console.command("(/bench/verify 4 > /tmp/memory 2>&1 &)")?;
        }
        // At once, in opposite directions.
        let streams = [Stream::open(west.port(7000)?)?, Stream::open(east.port(7000)?)?];
        for (to_west, to_east) in [(&a, &b), (&b, &a)] {
            streams.iter().try_for_each(|stream| stream.flows(20))?;
            let under_way = [
                begin(west.host(), "west", &to_west.address()?, &[])?,
                begin(east.host(), "east", &to_east.address()?, &[])?,
            ];
            for journey in under_way {
                let last = end(journey)?;
                ensure!(last["event"] == "completed", "{last}");
            }
            west.is_at(to_west)?;
            east.is_at(to_east)?;
            streams.iter().try_for_each(|stream| stream.flows(20))?;
        }
        // Twenty in a row.
        let hosts = [&a, &b];
        for hop in 0..20 {
            west.migrate(hosts[hop % 2], &[])?;
            streams[0].flows(10)?;
        }
        for (stream, guest) in streams.into_iter().zip([&mut west, &mut east]) {
            let passed = stream.finish()?;
            eprintln!("{passed:?}");
            ensure!(passed.sent > 100 && passed.received > 100, "{passed:?}");
            guest.no_complaint("memory")?;
        }
        // While it reboots: a slow journey that begins before it and ends after it.
        let journey = begin(&b, "west", &a.address()?, &["--bandwidth", "24M"])?;
        arrives(&a, "west")?;
        west.console.send("reboot\n")?;
        let last = end(journey)?;
        if last["event"] == "completed" {
            west.is_at(&a)?;
        } else {
            ensure!(last.to_string().contains("rebooting right now"), "{last}");
            nothing_remains(&a, "west")?;
        }
        // The console's history may hold the first boot as well.
        let boots = |guest: &Guest<'_>| guest.console.text().matches("GUEST READY").count();
        wait_for("its second boot", || (boots(&west) > 1).then_some(()))?;
        west.console.command("! test -e /tmp/memory").context("it has not rebooted")?;
        Ok(())
    };
    let journeys = journeys();
    let journeys = east.explain(west.explain(journeys));
    drop((west, east));
    journeys?;
    for vm in ["west", "east"] {
        // Each is at one of them, and away from the other or not there.
        let here = |host: &&&Host| host.view(vm).is_ok_and(|view| view["phase"] != "away");
        [&a, &b].iter().find(here).context("it is nowhere")?.quasar(&["rm", "--force", vm])?;
        [&a, &b].into_iter().try_for_each(|host| host.wait_gone(vm, "both hosts to know of its end"))?;
    }
    a.stop()?;
    b.stop()
}

/// What a sparse guest is made of: 256 MiB and a disk of 64 MiB.
fn with_disk(host: &Host, extra: &[&str]) -> anyhow::Result<(Recipe, PathBuf)> {
    let disk = host.directory().join("data.raw");
    std::fs::File::create(&disk)?.set_len(64 << 20)?;
    let recipe = Recipe::initramfs("web")?.append("quiet").publish(7000)?;
    let path = disk.to_str().context("a path")?.to_owned();
    Ok((recipe.with(&["--memory", "256M", "--disk", &path]).with(extra), disk))
}

/// The host's file system is full when the guest writes where its disk has no block yet: the VM stands still and says
/// why, also when it is told to go on in vain, and what was written is there when there was room again.
fn waits_for_room(guest: &mut Guest<'_>, host: &Host) -> anyhow::Result<()> {
    let data = host.directory().join("data").strip_prefix("/")?.to_owned();
    guest.console.command("dd if=/dev/urandom of=/tmp/r bs=64k count=32")?;
    let filler = fill(&PathBuf::from(format!("/proc/{}/root", host.pid())).join(data))?;
    guest.console.send("dd if=/tmp/r of=/dev/vda bs=64k seek=800 conv=fsync; echo WRIT''TEN\n")?;
    let waits =
        || host.view("web").ok().filter(|vm| vm["reason"].as_str().is_some_and(|r| r.contains("full")));
    let view = wait_for("a pause", waits)?;
    ensure!(view["phase"] == "paused", "{view}");
    let refused = host.refusal(&["stop", "web"])?;
    ensure!(refused.contains("its file system is full"), "{refused}");
    host.quasar(&["resume", "web"])?;
    wait_for("another pause", waits)?;
    std::fs::remove_file(filler)?;
    guest.console.expect("WRITTEN")?;
    let view = host.wait_phase("web", "running")?;
    ensure!(view["reason"].is_null(), "{view}");
    let read = "echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda bs=64k skip=800 count=32 2>/dev/null | cmp - /tmp/r";
    guest.console.command(read).map(drop)
}

/// A file that takes all the room at a place.
fn fill(place: &std::path::Path) -> anyhow::Result<PathBuf> {
    let path = place.join("filler");
    let mut file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
    let full = std::iter::repeat_with(|| file.write_all(&[1; 1 << 16])).find_map(Result::err);
    let full = full.context("there is always room")?;
    ensure!(full.kind() == std::io::ErrorKind::StorageFull, "{full}");
    Ok(path)
}

#[test]
fn a_host_without_room_refuses_and_one_that_fills_up_lets_go() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let no_memory = a.neighbour_with(200, 200)?;
    let no_disk = a.neighbour_with(400, 32)?;
    let tight = a.neighbour_with(400, 70)?;
    let (recipe, _) = with_disk(&a, &[])?;
    let mut guest = recipe.start(&a)?;
    let trials = (|| {
        guest.boot()?;
        guest.check_stream(7000)?;
        guest.console.command("(/bench/verify 8 /dev/vda 48 > /tmp/verify 2>&1 &)")?;
        guest.console.command("while ! grep -q ok /tmp/verify; do sleep 1; done")?;
        let stream = Stream::open(guest.port(7000)?)?;
        let whole = |at: &Host| {
            ensure!(a.view("web")?["phase"] == "running", "{}", a.view("web")?);
            stream.flows(20)?;
            nothing_remains(at, "web")
        };
        for (host, what) in [(&no_memory, "no room for its memory"), (&no_disk, "no room for its disks")] {
            let refused = a.refusal(&["migrate", "web", "--to", &host.address()?])?;
            ensure!(refused.contains(what) && refused.contains("goes on as before"), "{refused}");
            whole(host)?;
        }
        // There was room when it began.
        for place in ["dev/shm".into(), tight.directory().join("data").strip_prefix("/")?.to_owned()] {
            let journey = begin(&a, "web", &tight.address()?, &["--bandwidth", "16M"])?;
            arrives(&tight, "web")?;
            let filler = fill(&PathBuf::from(format!("/proc/{}/root", tight.pid())).join(place))?;
            let last = end(journey)?;
            eprintln!("{last}");
            ensure!(last["event"] == "failed", "{last}");
            std::fs::remove_file(filler)?;
            whole(&tight)?;
        }
        let journey = begin(&a, "web", &tight.address()?, &[])?;
        let last = end(journey)?;
        ensure!(last["event"] == "completed", "{last}");
        guest.is_at(&tight)?;
        stream.flows(50)?;
        stream.finish()?;
        guest.console.command("killall verify; sync")?;
        guest.no_complaint("verify")?;
        guest.console.command("/bench/verify check /dev/vda 48")?;
        waits_for_room(&mut guest, &tight)
    })();
    guest.explain(trials)?;
    drop(guest);
    tight.quasar(&["rm", "--force", "web"])?;
    a.wait_gone("web", "home to hear of its end")?;
    for host in [no_memory, no_disk, tight, a] {
        host.stop()?;
    }
    Ok(())
}

/// Frame headers of the migration stream (docs/migration.md): length, place of the kind and of the payload's length.
const HEADER: usize = 24;
const KIND: std::ops::Range<usize> = 4..6;
const LENGTH: std::ops::Range<usize> = 8..12;
/// The frame that hands the VM over.
const HAND_OVER: u16 = 11;

/// Passes a migration on and breaks the connection instead of the hand-over, or right after it. Returns where it
/// listens.
fn cutter(to: String, passes_hand_over: bool, cut: Arc<AtomicBool>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || -> anyhow::Result<()> {
        let (mut from, _) = listener.accept()?;
        let mut on = TcpStream::connect(to)?;
        let (mut answers, mut back) = (on.try_clone()?, from.try_clone()?);
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let mut frame = vec![0; HEADER];
        loop {
            frame.truncate(HEADER);
            from.read_exact(&mut frame)?;
            let length = u32::from_le_bytes(frame[LENGTH].try_into()?);
            frame.resize(HEADER + usize::try_from(length)?, 0);
            from.read_exact(&mut frame[HEADER..])?;
            let hand_over = frame[KIND] == HAND_OVER.to_le_bytes();
            if hand_over {
                cut.store(true, Ordering::Release);
                from.shutdown(Shutdown::Both)?;
            }
            if !hand_over || passes_hand_over {
                on.write_all(&frame)?;
            }
            if hand_over {
                return Ok(on.shutdown(Shutdown::Write)?);
            }
        }
    });
    Ok(address)
}

#[test]
fn unclear_hand_overs_wait_for_their_user_and_shared_disks_stay() -> anyhow::Result<()> {
    let a = Host::listening()?;
    let b = a.neighbour()?;
    let (recipe, disk) = with_disk(&a, &["--harts", "2"])?;
    let mut guest = recipe.start(&a)?;
    let check = |guest: &mut Guest<'_>| {
        guest.no_complaint("verify")?;
        guest.console.command("while ! grep -q ' ok ' /tmp/verify; do sleep 1; done; : > /tmp/verify")
    };
    let trials = (|| {
        guest.boot()?;
        guest.check_stream(7000)?;
        guest.console.command("(/bench/verify 8 /dev/vda 64 > /tmp/verify 2>&1 &)")?;
        check(&mut guest)?;
        let stream = Stream::open(guest.port(7000)?)?;

        let unclear = |passes_hand_over, more: &[&str]| {
            let cut = Arc::<AtomicBool>::default();
            let through = cutter(b.address()?, passes_hand_over, Arc::clone(&cut))?;
            let last = end(begin(&a, "web", &through, more)?)?;
            ensure!(cut.load(Ordering::Acquire), "it was never handed over: {last}");
            ensure!(last["event"] == "unclear", "{last}");
            let view = a.view("web")?;
            ensure!(view["phase"] == "paused" && view["reason"].is_string(), "{view}");
            // Nothing but its user's word makes it run here again.
            let (to, file) = (b.address()?, a.directory().join("web.vm"));
            let file = file.to_str().context("a path")?;
            for words in [&["migrate", "web", "--to", &to][..], &["suspend", "web", file]] {
                let refused = a.refusal(words)?;
                ensure!(refused.contains("may run at") && refused.contains("quasar resume web"), "{refused}");
            }
            ensure!(a.view("web")?["phase"] == "paused", "{}", a.view("web")?);
            Ok(())
        };
        unclear(false, &[])?;
        // Its user looks at the other host: it does not run there, and has left nothing.
        nothing_remains(&b, "web")?;
        b.lacks("web")?;
        a.quasar(&["resume", "web"])?;
        ensure!(a.view("web")?["phase"] == "running", "{}", a.view("web")?);
        stream.flows(50)?;
        check(&mut guest)?;

        // The disk is the same file on both sides.
        for to in [&b, &a] {
            guest.migrate(to, &["--shared-disk"])?;
            let at = to.view("web")?["spec"]["disks"][0]["path"].as_str().map(PathBuf::from);
            ensure!(at.as_ref() == Some(&disk), "the disk is {at:?}");
            stream.flows(50)?;
            check(&mut guest)?;
        }

        // This time it does run there: what its user does not want here any more goes, and its way out stays.
        unclear(true, &["--shared-disk"])?;
        b.wait_phase("web", "running")?;
        a.quasar(&["rm", "--force", "web"])?;
        ensure!(a.view("web")?["phase"] == "away", "{}", a.view("web")?);
        guest.is_at(&b)?;
        stream.flows(50)?;
        check(&mut guest)?;
        guest.migrate(&a, &["--shared-disk"])?;
        stream.flows(50)?;
        check(&mut guest)?;
        let passed = stream.finish()?;
        ensure!(passed.sent > 150 && passed.received > 150, "{passed:?}");
        guest.console.command("killall verify; sync; /bench/verify check /dev/vda")
    })();
    guest.explain(trials)?;
    drop(guest);
    a.quasar(&["rm", "--force", "web"])?;
    ensure!(disk.exists(), "a disk that its user gave is the user's");
    a.stop()?;
    b.stop()
}
