//! Runs the host's own programs, and names the package to install when one is missing.

use super::error::{ImageError, IoContext};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A program of the host and the Debian package it comes from.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    pub(super) hint: &'static str,
}

pub(super) const APT_GET: Tool = tool("apt-get", "apt");
pub(super) const APT_CONFIG: Tool = tool("apt-config", "apt");
pub(super) const DPKG_DEB: Tool = tool("dpkg-deb", "dpkg");
pub(super) const XZ: Tool = tool("xz", "xz-utils");
pub(super) const DEPMOD: Tool = tool("depmod", "kmod");
pub(super) const MKE2FS: Tool = tool("mke2fs", "e2fsprogs");
pub(super) const DEBUGFS: Tool = tool("debugfs", "e2fsprogs");
pub(super) const SSH_KEYGEN: Tool = tool("ssh-keygen", "openssh-client");
pub(super) const CROSS_CC: Tool = Tool {
    name: "riscv64-linux-gnu-gcc",
    package: "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    hint: ", or leave the benchmark set out with --no-bench",
};

const fn tool(name: &'static str, package: &'static str) -> Tool {
    Tool { name, package, hint: "" }
}

impl Tool {
    /// A command for it; directories for administrators are searched too, as a normal user's `PATH` lacks them.
    pub(super) fn command(&self) -> Result<Command, ImageError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let beyond = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
        std::env::split_paths(&path)
            .chain(beyond)
            .map(|dir| dir.join(self.name))
            .find(|candidate| candidate.is_file())
            .map(Command::new)
            .ok_or(ImageError::ToolMissing { tool: self.name.into(), package: self.package, hint: self.hint })
    }
}

/// Runs a command to its end with nothing on its standard input; its output if it succeeded.
pub(super) fn run(command: &mut Command) -> Result<Vec<u8>, ImageError> {
    let output = command.stdin(Stdio::null()).output().at("starting", command.get_program())?;
    check(command, output)
}

/// Runs a command to its end with `input` on its standard input; its output if it succeeded.
pub(super) fn run_with_input(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .at("starting", command.get_program())?;
    let mut stdin = child.stdin.take().expect("piped above");
    let output = std::thread::scope(|scope| {
        // A program that ends early closes the pipe; its exit status then tells more than EPIPE.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output()
    })
    .at("waiting for", command.get_program())?;
    check(command, output)
}

fn check(command: &Command, output: Output) -> Result<Vec<u8>, ImageError> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failed(command, output.status, &output.stderr))
}

/// The error for a command that ended with `status` and wrote `stderr`.
pub(super) fn failed(command: &Command, status: std::process::ExitStatus, stderr: &[u8]) -> ImageError {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n");
    let name = PathBuf::from(command.get_program());
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ImageError::ToolFailed { tool: name, status, stderr: last }
}
