//! The command line.

mod disk;
mod image;
mod isa;
mod run;
mod tools;
mod values;
mod vms;
mod words;

pub use disk::DiskCommand;
pub use image::{ImageCommand, ImageKind, ImageOptions};
pub use isa::{Granularity, IsaCommand, IsaRun};
pub use run::{Image, Run};
pub use tools::{Completions, Man};
pub use values::{DiskArgument, ExeFor};
pub use vms::{Kill, Listing, Login, Restart, Stop, Vms};
pub use words::parse;

use super::complete::{names, names_or_files};
use super::size::Size;
use clap::{Args, Parser, Subcommand, ValueEnum};
use quasar_abi::control::migrator::Limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// RISC-V virtual machines in which no part is irreplaceable.
#[derive(Debug, Parser)]
#[command(name = "quasar", version, arg_required_else_help = true)]
pub struct Arguments {
    /// Directory of Quasar's programs (default: this executable's own, or $QUASAR_LIBEXEC).
    #[arg(long, global = true, value_name = "DIR")]
    pub exe_dir: Option<PathBuf>,
    /// The daemon's socket (default: quasar/host.sock in $XDG_RUNTIME_DIR or /run).
    #[arg(long, global = true, value_name = "PATH", env = "QUASAR_SOCKET")]
    pub socket: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve this host: keep VMs, their networks, and the API.
    ///
    /// It ends on SIGINT, SIGTERM or SIGHUP, and stops every VM before that.
    #[command(
        alias = "serve",
        alias = "daemon",
        after_help = "Examples:
  quasar host
  quasar host --socket /tmp/q.sock --exit-when-idle
  quasar host --listen 10.0.0.1:7700 --pki ~/pki/a
  quasar host --listen 127.0.0.1:7700 --insecure"
    )]
    Host(HostOptions),
    /// Make a VM, start it and attach to its console.
    ///
    /// Without a daemon, one is started in the background; it ends when the last VM was removed. Ctrl-] detaches from
    /// the console and leaves the VM running, and so does the end of the terminal or of the connection to this machine.
    /// When the input is no terminal, Ctrl-C stops the VM and takes it off the list; disks that were made for it stay.
    #[command(after_help = "Examples:
  quasar run --image debian
  quasar run web --image debian-disk --publish 127.0.0.1:8080:80 --publish 2222:22 --detach
  quasar run --kernel Image --initrd initrd.cpio --append 'console=ttyS0' --harts 2
  quasar run --kernel Image --disk root.img --disk data.img,ro --append 'console=ttyS0 root=/dev/vda'
  quasar run a --image debian --net lan --uplink none --detach")]
    Run(Box<Run>),
    /// Carry a published IPv6 port, the socket at standard input, to a port of IPv4. Started by the daemon.
    #[command(hide = true)]
    Relay {
        /// Where to.
        #[arg(long)]
        to: SocketAddr,
        /// It is a port of UDP.
        #[arg(long)]
        udp: bool,
    },
    /// Make a VM as `quasar run` does, but do not start it.
    #[command(after_help = "Examples:
  quasar create web --image debian-disk --publish 2222:22
  quasar start web")]
    Create(Box<Run>),
    /// Start VMs that have stopped or were only made: with the same memory, disks and ports, from the beginning.
    #[command(after_help = "Examples:
  quasar start web
  quasar start web db")]
    Start(Vms),
    /// Stop VMs and start them again.
    Restart(Restart),
    /// List the VMs.
    #[command(
        visible_alias = "ls",
        alias = "list",
        after_help = "Examples:
  quasar ps
  quasar ps -q | xargs -r quasar stop
  quasar ps --processes
  quasar ps --json | jq '.[] | select(.phase == \"running\") | .name'"
    )]
    Ps(Listing),
    /// Print everything that is known of VMs, as a JSON array.
    #[command(after_help = "Examples:
  quasar inspect web | jq '.[0].processes'
  quasar inspect web db")]
    Inspect(Vms),
    /// Attach to a VM's console; Ctrl-] detaches.
    #[command(
        visible_alias = "attach",
        after_help = "Examples:
  quasar console web
  quasar console web --no-input < /dev/null    (follow the output)"
    )]
    Console {
        /// The VM.
        #[arg(add = names())]
        name: String,
        /// Which console.
        #[arg(long, value_enum, default_value_t = ConsolePort::Uart)]
        port: ConsolePort,
        /// Only watch.
        #[arg(long)]
        no_input: bool,
        /// Do not show what was shown before.
        #[arg(long)]
        no_history: bool,
    },
    /// Show what a VM and its processes count: speed, misses, waits, memory.
    #[command(
        alias = "top",
        after_help = "Examples:
  quasar stats web
  quasar stats web --watch
  quasar stats web --json | jq .mmu"
    )]
    Stats {
        /// The VM.
        #[arg(add = names())]
        name: String,
        /// Again every second.
        #[arg(long)]
        watch: bool,
        /// The counters themselves, as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Pause VMs: their guests stand still until `quasar resume`.
    Pause(Vms),
    /// Let paused VMs go on, or bring back those that `quasar suspend` has put into files.
    #[command(
        alias = "unpause",
        after_help = "Examples:
  quasar resume web
  quasar resume ./web.vm
  quasar resume ./web.vm --name web2"
    )]
    Resume {
        /// The VMs, or the files.
        #[arg(value_name = "VM|FILE", required = true, add = names_or_files())]
        what: Vec<std::ffi::OsString>,
        /// Another name for the VM in the file.
        #[arg(long)]
        name: Option<String>,
    },
    /// Move a running VM to another host.
    ///
    /// Its memory and disks are copied while it runs; then it stands still for as short as possible and goes on
    /// there, with its connections. Published ports stay at the host where they were published, which carries
    /// them to it. Ctrl-C leaves the migration running; --cancel ends it.
    #[command(after_help = "Examples:
  quasar migrate web --to 10.0.0.2:7700
  quasar migrate web --to b.example:7700 --max-downtime 50 --bandwidth 100M --converge abort --json
  quasar migrate web --cancel")]
    Migrate(Migrate),
    /// Write a VM to a file and take it off this host; `quasar resume FILE` brings it back, here or elsewhere.
    Suspend {
        /// The VM.
        #[arg(add = names())]
        name: String,
        /// The file.
        file: PathBuf,
        /// Leave the disks' content out; the VM is resumed where they are.
        #[arg(long)]
        shared_disk: bool,
        /// Events as JSON, one a line.
        #[arg(long)]
        json: bool,
    },
    /// Replace a process of a running VM by another build or version of its program.
    ///
    /// The guest stands still meanwhile; its memory and every other process stay as they are. A program that
    /// does not serve is replaced by the one before. `netswitch` is the switch of this host, and of all of its VMs;
    /// frames wait meanwhile. `migrator` is what moves this VM to other hosts and files from now on.
    #[command(after_help = "Examples:
  quasar swap web cpu --build powerpc64
  quasar swap web mmu --exe /opt/quasar-1.2/quasar-mmu
  quasar swap web cpu1 --build x86_64
  quasar swap web netswitch --build s390x
  quasar swap web migrator --build aarch64")]
    Swap(Swap),
    /// Run copies of a deterministic VM (`quasar run --icount`) for some instructions and show the hash of memory and
    /// registers afterwards.
    ///
    /// The VM itself stands still only while it is copied. The copies have no input: no network, no keys. With --build
    /// or --exe-for another copy runs by those programs, and the two must come to the same. Of a VM that is paused,
    /// moved to another host and verified there, the hash must be the same again.
    #[command(after_help = "Examples:
  quasar verify web --instructions 50000000
  quasar verify web --instructions 50000000 --build powerpc64
  quasar verify web --instructions 50000000 --exe-for cpu=/opt/quasar-1.2/quasar-cpu")]
    Verify(Verify),
    /// Shut VMs down: press their power keys and wait, or end them by force.
    #[command(
        alias = "shutdown",
        alias = "poweroff",
        after_help = "Examples:
  quasar stop web
  quasar stop web db --timeout 120
  quasar stop web --force"
    )]
    Stop(Stop),
    /// Kill processes of a VM, or the whole VM at once.
    ///
    /// A dead mmu, devices, netswitch or passt is replaced under the running guest; without a cpu process a VM cannot
    /// go on; a migration whose migrator dies fails, and the VM stays here. Without a process the VM is ended at once,
    /// as `quasar stop --force` does.
    #[command(after_help = "Examples:
  quasar kill web mmu                  (the guest does not notice; see `quasar logs web`)
  quasar kill web devices netswitch
  quasar kill web mmu --signal STOP
  quasar kill web")]
    Kill(Kill),
    /// Remove VMs, with the disks that were made for them.
    #[command(visible_alias = "remove", alias = "delete")]
    Rm {
        /// The VMs.
        #[arg(required = true, add = names(), value_name = "VM")]
        names: Vec<String>,
        /// Also those that still run.
        #[arg(long, short)]
        force: bool,
    },
    /// Show what a VM's processes said.
    Logs {
        /// The VM.
        #[arg(add = names())]
        name: String,
        /// Go on until the VM is gone.
        #[arg(long, short)]
        follow: bool,
    },
    /// Log in to a guest by ssh, or run a command in it: needs a published port 22.
    #[command(
        visible_alias = "exec",
        after_help = "Examples:
  quasar run db --image debian-disk --publish 2222:22 --detach
  quasar ssh db
  quasar ssh db -- systemctl status nginx"
    )]
    Ssh(Login),
    /// Disks that were made for VMs.
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Guest images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Bare RISC-V programs, without a daemon.
    #[command(subcommand)]
    Isa(IsaCommand),
    /// Keys of the hosts that trust one another.
    #[command(subcommand)]
    Pki(crate::pki::PkiCommand),
    /// Show the daemon: its version, processes and networks.
    Info {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the versions of this program and of the daemon.
    Version {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print a script that completes command lines, the names of VMs included.
    #[command(after_help = "Examples:
  source <(quasar completions bash)                                      (in ~/.bashrc)
  source <(quasar completions zsh)                                       (in ~/.zshrc, behind compinit)
  quasar completions fish > ~/.config/fish/completions/quasar.fish")]
    Completions(Completions),
    /// Write the manual pages into a directory.
    #[command(after_help = "Examples:
  quasar man ~/.local/share/man/man1; man quasar-run")]
    Man(Man),
}

/// Some seconds: less than one is no time on a host with work, and after more than an hour nobody waits.
fn patience(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (1.0..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "give seconds, from 1 to 3600".into())
}

/// `quasar host`.
#[derive(Clone, Debug, Args)]
pub struct HostOptions {
    /// A program that stands in for those of one kind: another version, or a build for another
    /// architecture. Repeatable.
    #[arg(long, value_name = "cpu|mmu|devices|netswitch|migrator=PATH", value_parser = ExeFor::parser())]
    pub exe_for: Vec<ExeFor>,
    /// End when no VM is listed any more (a stopped one is, until `quasar rm`) and no client is connected.
    #[arg(long)]
    pub exit_when_idle: bool,
    /// Serve in the background; the command ends when the daemon serves. Its log is beside its socket (`quasar info`).
    #[arg(long, short, conflicts_with_all = ["background", "stop"])]
    pub detach: bool,
    /// End the daemon that serves, and its VMs by force.
    #[arg(long, conflicts_with_all = ["background", "exit_when_idle", "exe_for", "hang_after", "listen", "switch_listen", "link", "pki", "insecure"])]
    pub stop: bool,
    /// Take a process for dead, and replace it, that has been stopped for so many seconds (SIGSTOP), or was waited for
    /// as long without working. At least 1.
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = patience)]
    pub hang_after: Duration,
    /// Leave the terminal, and stay as long as the other end of the standard input is open.
    #[arg(long, hide = true)]
    pub background: bool,
    /// Take VMs from other hosts here. Needs --pki or --insecure.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Take links from other hosts' switches here (default: the port after --listen's).
    #[arg(long, value_name = "ADDR:PORT")]
    pub switch_listen: Option<SocketAddr>,
    /// Link this host's switch with another host's, which listens there (its port after --listen's): networks of one
    /// name on both are one network. Hosts between which a VM has moved are linked without it. Repeatable.
    #[arg(long, value_name = "ADDR:PORT")]
    pub link: Vec<SocketAddr>,
    /// Directory with ca.pem, host.pem and host.key (`quasar pki`): who has a certificate of the same
    /// authority is a host we trust.
    #[arg(long, value_name = "DIR", conflicts_with = "insecure")]
    pub pki: Option<PathBuf>,
    /// Protect nothing: for hosts on one machine, over loopback.
    #[arg(long)]
    pub insecure: bool,
}

/// `quasar migrate`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("order").required(true).args(["to", "cancel"]))]
pub struct Migrate {
    /// The VM.
    #[arg(add = names())]
    pub name: String,
    /// Where the other host listens (`quasar host --listen`).
    #[arg(long, value_name = "HOST:PORT")]
    pub to: Option<String>,
    /// Give a migration up that is under way; the VM goes on here.
    #[arg(long)]
    pub cancel: bool,
    /// Longest forecast downtime, in milliseconds, with which the VM is paused.
    #[arg(long, default_value_t = 10, value_name = "MS")]
    pub max_downtime: u64,
    /// Bytes per second on the link (100M, 1G); without it all that it carries.
    #[arg(long, value_name = "RATE")]
    pub bandwidth: Option<Size>,
    /// Give up after so many seconds (0: never).
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub timeout: u64,
    /// What to do when the guest writes faster than the link carries.
    #[arg(long, value_enum, default_value_t = ConvergeChoice::Throttle)]
    pub converge: ConvergeChoice,
    /// Memory for copies of what was sent, so that pages written again travel as what has changed in them (default:
    /// half of the VM's, if this machine has it to spare; 0: none).
    #[arg(long, value_name = "SIZE")]
    pub delta_memory: Option<Size>,
    /// The most connections to the other host; as many are made as carry more than fewer.
    #[arg(long, default_value_t = Limits::default_connections(), value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// The disks are reachable from there under the same path: their content stays.
    #[arg(long)]
    pub shared_disk: bool,
    /// Events as JSON, one a line.
    #[arg(long)]
    pub json: bool,
}

/// What to do when a migration does not converge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConvergeChoice {
    /// Slow the guest down, step by step.
    Throttle,
    /// Pause it and accept the downtime.
    Pause,
    /// Give up; the VM goes on here.
    Abort,
}

/// A console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConsolePort {
    /// The serial port.
    Uart,
    /// The virtio console.
    Virtio,
}

/// `quasar swap`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("with").required(true).args(["build", "exe"]))]
pub struct Swap {
    /// The VM.
    #[arg(add = names())]
    pub name: String,
    /// The process: cpu (all harts), cpu0, cpu1, …, mmu, devices, netswitch or migrator.
    pub process: String,
    /// The build for this architecture: x86_64, aarch64, powerpc64, s390x or riscv64.
    #[arg(long, value_name = "ARCH")]
    pub build: Option<String>,
    /// This program.
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
}

/// `quasar verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The VM.
    #[arg(add = names())]
    pub name: String,
    /// How many instructions the copies execute, those that trap included.
    #[arg(long, value_name = "N")]
    pub instructions: u64,
    /// Another copy by builds for this architecture: x86_64, aarch64, powerpc64, s390x or riscv64.
    #[arg(long, value_name = "ARCH")]
    pub build: Option<String>,
    /// Another copy by this program. Repeatable.
    #[arg(long, value_name = "cpu|mmu|devices=PATH", value_parser = ExeFor::parser())]
    pub exe_for: Vec<ExeFor>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(line: &str) -> Result<Run, clap::Error> {
        let words = ["quasar", "run"].into_iter().chain(line.split_whitespace());
        Arguments::try_parse_from(words).map(|arguments| match arguments.command {
            Command::Run(run) => *run,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn run_is_parsed() {
        let parsed = run(
            "web --kernel K --initrd I --append console=ttyS0 --disk a.img --disk b,ro --publish 8080:80 \
                          --memory 1G --harts 2 --uplink passt --mac 52:54:00:00:00:01 --detach --rm",
        )
        .expect("parse");
        assert_eq!(parsed.name.as_deref(), Some("web"));
        assert_eq!((parsed.memory, parsed.harts), (Size(1 << 30), 2));
        assert_eq!(parsed.disks[1], DiskArgument { path: "b".into(), read_only: true });
        assert_eq!(parsed.publish[0].to_string(), "127.0.0.1:8080:80");
        assert!(parsed.detach && parsed.rm);
    }

    #[test]
    fn a_guest_is_needed_and_only_one() {
        assert!(run("web").is_err());
        assert!(run("--image debian --kernel K").is_err());
        assert!(run("--image debian --initrd I").is_err());
        assert!(run("--image fedora").is_err());
        assert!(run("--image debian-disk --memory 1X").is_err());
        assert_eq!(run("--image debian-disk").expect("parse").image, Some(Image::DebianDisk));
    }
}
