//! The two machines that run an image: QEMU's and this project's.

use crate::case::Outcome;
use crate::layout::{OUTPUT, RAM, RAM_BYTES, result};
use anyhow::{Context, bail, ensure};
use quasar_tests::programs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The independent emulator.
pub const QEMU: &str = "qemu-system-riscv64";
/// An image that doesn't end is stopped after this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Extensions that this hart has.
const HERE: [&str; 8] = ["zba", "zbb", "zbs", "zicond", "sstc", "svadu", "svinval", "svnapot"];
/// Extensions that it doesn't have and some QEMU turns on.
const NOT_HERE: [&str; 24] = [
    "h", "v", "zbc", "zfa", "zfh", "Zfh", "zfhmin", "Zfhmin", "zawrs", "zicbom", "zicboz", "zicbop", "zcb",
    "zcmop", "zimop", "zacas", "zabha", "zalasr", "svpbmt", "svade", "ssnpm", "smnpm", "zkr", "debug",
];

/// What this QEMU's processor is to be.
#[derive(Clone, Debug)]
pub struct QemuCpu {
    options: String,
    /// Whether it has Zicond.
    pub zicond: bool,
}

impl QemuCpu {
    /// Asks the QEMU that is installed which extensions it knows.
    ///
    /// # Errors
    /// When there is none.
    pub fn detect() -> anyhow::Result<Self> {
        let mut names: Vec<(&str, bool)> = HERE.iter().map(|name| (*name, true)).collect();
        names.extend(NOT_HERE.iter().map(|name| (*name, false)));
        loop {
            let switches: String = names.iter().map(|(name, on)| format!(",{name}={on}")).collect();
            let options = format!("rv64{switches}");
            // It looks at the processor first, and then misses the program.
            let output = Command::new(programs::tool(QEMU))
                .args(["-M", "virt", "-bios", "none", "-nodefaults", "-display", "none", "-cpu", &options])
                .args(["-kernel", "/nonexistent/program"])
                .output()
                .with_context(|| format!("{QEMU} is missing: cargo xtask setup installs it"))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let unknown = said.lines().find_map(|line| {
                let (_, name) = line.split_once("Property 'rv64-riscv-cpu.")?;
                name.split_once("' not found").map(|(name, _)| name.to_owned())
            });
            match unknown {
                None if said.contains("/nonexistent/program") => {
                    let zicond = names.contains(&("zicond", true));
                    ensure!(
                        names.contains(&("svadu", true)),
                        "{QEMU} is too old; cargo xtask setup installs another"
                    );
                    return Ok(Self { options, zicond });
                }
                None => bail!("{QEMU} -cpu {options}: {said}"),
                Some(name) => names.retain(|(known, _)| *known != name),
            }
        }
    }

    /// The `-cpu` option.
    #[must_use]
    pub fn options(&self) -> &str {
        &self.options
    }

    /// Runs an image of `count` cases; its RAM is a file of `directory`.
    ///
    /// # Errors
    /// When it fails or doesn't end.
    pub fn run(&self, image: &Path, directory: &Path, count: usize) -> anyhow::Result<Vec<Outcome>> {
        let ram = directory.join("qemu.ram");
        let backend =
            format!("memory-backend-file,id=ram,size={RAM_BYTES},share=on,mem-path={}", ram.display());
        let mut command = Command::new(programs::tool(QEMU));
        command
            .args(["-M", "virt,memory-backend=ram", "-m", &format!("{}M", RAM_BYTES >> 20)])
            // The second hart sleeps. While there is but one, atomic instructions are a load and a store to QEMU,
            // and fault as a load.
            .args(["-smp", "2", "-object", &backend, "-cpu", &self.options])
            .args(["-bios", "none", "-nodefaults", "-display", "none", "-no-reboot", "-kernel"])
            .arg(image);
        let output = run(&mut command)?;
        ensure!(output.status.success(), "{QEMU}: {}", String::from_utf8_lossy(&output.stderr));
        let mut bytes = vec![0; count * result::WORDS * 8];
        File::open(&ram)?.read_exact_at(&mut bytes, OUTPUT - RAM)?;
        let words: Vec<u64> =
            bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        Ok(words.chunks(result::WORDS).map(Outcome::new).collect())
    }
}

/// Runs an image of `count` cases with the program `quasar`: all processes of a machine, as users have them.
///
/// # Errors
/// When it fails or doesn't end.
pub fn run_quasar(
    quasar: &Path,
    image: &Path,
    directory: &Path,
    count: usize,
) -> anyhow::Result<Vec<Outcome>> {
    let signature = directory.join("quasar.signature");
    let mut command = Command::new(quasar);
    command
        .args(["isa", "run", "--memory", &format!("{}M", RAM_BYTES >> 20), "--signature"])
        .arg(&signature)
        .args(["--signature-granularity", "8"])
        .arg(image);
    let output = run(&mut command)?;
    ensure!(
        output.status.success(),
        "quasar isa run: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = std::fs::read_to_string(&signature)?;
    let words: Vec<u64> = text.lines().map(|line| u64::from_str_radix(line, 16)).collect::<Result<_, _>>()?;
    ensure!(words.len() == count * result::WORDS, "the signature has {} words", words.len());
    Ok(words.chunks(result::WORDS).map(Outcome::new).collect())
}

/// Runs a program to its end, or stops it when its time is over.
fn run(command: &mut Command) -> anyhow::Result<Output> {
    let mut child: Child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} cannot be started", command.get_program().to_string_lossy()))?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > PATIENCE {
            child.kill()?;
            let output = child.wait_with_output()?;
            bail!("{command:?} does not end; it said {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(child.wait_with_output()?)
}
