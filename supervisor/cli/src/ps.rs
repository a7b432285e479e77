//! `quasar ps`.

use super::args::Listing;
use super::client::{Client, ClientError};
use super::size::Size;
use super::table;
use quasar_abi::{output, say};
use quasar_api::{HostView, LinkView, ProcessInfo, VmView};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Width of a table where there is no terminal.
const COLUMNS: usize = 80;
/// No reason is cut to less, for it would say nothing.
const SHORTEST_REASON: usize = 28;
/// Published ports that are more than this are counted.
const PORTS: usize = 44;

fn age(created: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match now.saturating_sub(created) {
        s @ 0..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

/// A text on one line of at most so many characters.
fn cut(text: &str, most: usize) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= most {
        return line;
    }
    let kept: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

fn ports(publish: &[String]) -> String {
    let mut shown = String::new();
    for (index, port) in publish.iter().enumerate() {
        if index > 0 && shown.len() + port.len() > PORTS {
            return format!("{shown} and {} more", publish.len() - index);
        }
        let space = if index > 0 { " " } else { "" };
        shown.push_str(&format!("{space}{port}"));
    }
    if shown.is_empty() { "-".into() } else { shown }
}

/// What a VM's network does not reach.
fn links_down(vm: &VmView) -> Option<String> {
    let link = |link: &LinkView| format!("down for {}: link to {}", age(link.since), link.to);
    let links: Vec<String> = vm.links_down.iter().map(link).collect();
    (!links.is_empty()).then(|| links.join(", "))
}

const HEADING: [&str; 8] = ["NAME", "STATE", "MEMORY", "HARTS", "NETWORK", "PUBLISHED", "PROCESSES", "AGE"];

fn rows(vms: &[VmView], reasons: impl Fn(&str) -> String) -> Vec<Vec<String>> {
    let row = |vm: &VmView| {
        let degraded = vm.status.degraded.as_ref().map(|why| format!("degraded: {why}"));
        let reason = vm.status.reason.clone().or(degraded).or_else(|| links_down(vm));
        let reason = reason.map(|reason| format!(" ({})", reasons(&reason)));
        vec![
            vm.name.clone(),
            format!("{}{}", vm.status.phase.word(), reason.unwrap_or_default()),
            Size(vm.memory).to_string(),
            vm.harts.to_string(),
            vm.network.clone().unwrap_or_else(|| "-".into()),
            ports(&vm.publish),
            vm.status.processes.len().to_string(),
            age(vm.created),
        ]
    };
    vms.iter().map(row).collect()
}

/// The table, with reasons cut so that it is no wider than `columns` if that can be.
fn list(vms: &[VmView], columns: usize) -> String {
    let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let bare = widest(&table::render(&HEADING, &rows(vms, |_| String::new())));
    let room = columns.saturating_sub(bare).max(SHORTEST_REASON);
    table::render(&HEADING, &rows(vms, |reason| cut(reason, room)))
}

/// The processes of each VM, then those that serve all.
pub(super) fn process_table(vms: &[VmView], host: &HostView) -> String {
    let row = |vm: &str, process: &ProcessInfo| {
        let arch = if process.arch.is_empty() { "-" } else { &process.arch };
        [vm, &process.role, &process.pid.to_string(), arch, &process.restarts.to_string()]
            .map(ToOwned::to_owned)
            .to_vec()
    };
    let mut rows = vec![];
    for vm in vms {
        rows.extend(vm.status.processes.iter().map(|process| row(&vm.name, process)));
        if let Some(pid) = vm.journey.as_ref().and_then(|journey| journey.pid) {
            let migrator = ProcessInfo { role: "migrator".into(), pid, restarts: 0, arch: String::new() };
            rows.push(row(&vm.name, &migrator));
        }
    }
    rows.extend(host.processes.iter().map(|process| row("-", process)));
    let daemon =
        ProcessInfo { role: "supervisor".into(), pid: host.pid, restarts: 0, arch: host.arch.clone() };
    rows.push(row("-", &daemon));
    table::render(&["VM", "PROCESS", "PID", "BUILD", "RESTARTS"], &rows)
}

/// Lists the VMs.
///
/// # Errors
/// With a message for people.
pub async fn ps(client: &Client, listing: &Listing) -> anyhow::Result<ExitCode> {
    let vms: Vec<VmView> = match client.get("/v1/vms").await {
        Ok(vms) => vms,
        // Nobody lists a VM then, and nothing is wrong.
        Err(ClientError::NoDaemon(_)) if listing.processes => return Ok(ExitCode::SUCCESS),
        Err(ClientError::NoDaemon(_)) => vec![],
        Err(error) => return Err(error.into()),
    };
    if listing.json {
        say!("{}", serde_json::to_string_pretty(&vms)?)?;
    } else if listing.quiet {
        vms.iter().try_for_each(|vm| say!("{}", vm.name))?;
    } else if listing.processes {
        let host: HostView = client.get("/v1/host").await?;
        output::print(format_args!("{}", process_table(&vms, &host)))?;
    } else {
        let terminal = console::Term::stdout();
        let columns = terminal.size_checked().map_or(COLUMNS, |(_, columns)| usize::from(columns));
        output::print(format_args!("{}", list(&vms, columns)))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, reason: Option<&str>, publish: &[&str]) -> VmView {
        serde_json::from_value(serde_json::json!({
            "name": name, "phase": "failed", "reason": reason, "processes": [], "reboots": 0,
            "memory": 512 << 20, "harts": 1, "publish": publish, "created": 0,
            "spec": {"name": name, "machine": {"memory": 1 << 28, "harts": 1, "boot": {"kernel": {"kernel": "/k"}}}},
        }))
        .expect("a view")
    }

    #[test]
    fn a_long_reason_is_cut_to_the_terminal() {
        let vms = [vm("a", Some(&"it went wrong ".repeat(40)), &[]), vm("b", None, &["127.0.0.1:8080:80"])];
        for columns in [110, 150, 200] {
            let text = list(&vms, columns);
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(columns), "{widest:?} of {columns}:\n{text}");
            assert!(text.contains("failed (it went wrong") && text.contains('…'), "{text}");
        }
        // However narrow, something is said.
        assert!(list(&vms, 10).contains("failed (it went wrong it"));
        assert!(list(&[vm("a", Some("short"), &[])], 80).contains("failed (short)"));
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(cut("a\nb\tc", 80), "a b c");
        assert_eq!(cut("äöüäöü", 4), "äöü…");
    }

    #[test]
    fn many_ports_are_counted() {
        let many: Vec<String> = (0..30).map(|n| format!("127.0.0.1:80{n:02}:80")).collect();
        assert_eq!(ports(&many), "127.0.0.1:8000:80 127.0.0.1:8001:80 and 28 more");
        assert_eq!(ports(&many[..1]), "127.0.0.1:8000:80");
        assert_eq!(ports(&[]), "-");
    }
}
