//! `quasar stats`.

use super::client::Client;
use super::size::short;
use super::table;
use quasar_abi::report::{HartStats, MmuStats};
use quasar_abi::{output, say};
use quasar_api::{Phase, VmStats};
use std::process::ExitCode;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(1);

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1}%", ratio(part, whole) * 100.0)
}

/// A hart's row over a span of `ns`.
fn hart_row(name: String, hart: &HartStats, ns: u64) -> Vec<String> {
    let per_second = |count: u64| format!("{:.0}", ratio(count, ns) * 1e9);
    let misses = hart.l2_hits + hart.mmu_requests;
    vec![
        name,
        format!("{:.1}", ratio(hart.instructions, hart.run_ns) * 1e3),
        percent(hart.run_ns, ns),
        percent(hart.wfi_ns, ns),
        per_second(hart.mmu_requests),
        percent(hart.l2_hits, misses),
        percent(hart.mmu_wait_ns, hart.run_ns),
        per_second(hart.mmio_requests),
        percent(hart.mmio_wait_ns, hart.run_ns),
        per_second(hart.exceptions),
        per_second(hart.interrupts),
        per_second(hart.marked),
    ]
}

const HART_HEADING: [&str; 12] = [
    "HART",
    "MIPS",
    "RUN",
    "WFI",
    "MMU/s",
    "L2 HITS",
    "MMU WAIT",
    "MMIO/s",
    "MMIO WAIT",
    "EXC/s",
    "IRQ/s",
    "DIRTIED/s",
];

fn render(before: &VmStats, now: &VmStats) -> String {
    let span = now.at_ns.saturating_sub(before.at_ns);
    let mut rows = vec![];
    for (index, hart) in now.harts.iter().enumerate() {
        // A hart's process lives as long as it has run or waited.
        rows.push(hart_row(format!("{index} all"), hart, hart.run_ns + hart.wfi_ns));
        let earlier = before.harts.get(index).cloned().unwrap_or_default();
        rows.push(hart_row(format!("{index} now"), &hart.since(&earlier), span));
    }
    let mut text = format!("{} is {}\n\n{}", now.name, now.phase.word(), table::render(&HART_HEADING, &rows));

    let mmu = now.mmu.since(&before.mmu);
    let row = |name: &str, m: &MmuStats, ns: u64| {
        vec![
            name.to_owned(),
            m.served.to_string(),
            format!("{:.0}", ratio(m.served, ns) * 1e9),
            percent(m.busy_ns, ns),
            m.neighbours.to_string(),
            m.page_faults.to_string(),
            m.access_faults.to_string(),
            m.ad_updates.to_string(),
            m.sleeps.to_string(),
        ]
    };
    let heading =
        ["MMU", "SERVED", "SERVED/s", "BUSY", "NEIGHBOURS", "PAGE FAULTS", "ACCESS FAULTS", "A/D", "SLEEPS"];
    let rows = [row("all", &now.mmu, now.guest_ns), row("now", &mmu, span)];
    text.push('\n');
    text.push_str(&table::render(&heading, &rows));

    let rows: Vec<Vec<String>> = now
        .processes
        .iter()
        .map(|p| {
            let earlier = before.processes.iter().find(|b| b.process.pid == p.process.pid);
            let cpu_ms = p.cpu_ms.saturating_sub(earlier.map_or(p.cpu_ms, |b| b.cpu_ms));
            vec![
                p.process.role.clone(),
                p.process.pid.to_string(),
                if p.process.arch.is_empty() { "-".into() } else { p.process.arch.clone() },
                short(p.rss_bytes),
                short(p.private_bytes),
                percent(cpu_ms * 1_000_000, span),
                p.process.restarts.to_string(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table::render(&["PROCESS", "PID", "BUILD", "RSS", "PRIVATE", "CPU", "RESTARTS"], &rows));

    let (devices, network) = (serde_json::to_value(&now.devices), serde_json::to_value(&now.network));
    for (title, value) in [("DEVICES", devices), ("NETWORK", network)] {
        if let Ok(value) = value
            && !value.is_null()
        {
            text.push_str(&format!("\n{title}\n"));
            flatten(&mut text, "", &value);
        }
    }
    text
}

/// A JSON value as `path value` lines, zeroes left out.
fn flatten(text: &mut String, path: &str, value: &serde_json::Value) {
    use serde_json::Value;
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(text, &below(key), value)),
        Value::Array(items) => {
            let name = |item: &Value, index: usize| {
                item.get("name").and_then(Value::as_str).map_or_else(|| index.to_string(), ToOwned::to_owned)
            };
            for (index, item) in items.iter().enumerate() {
                flatten(text, &below(&name(item, index)), item);
            }
        }
        Value::Null => {}
        Value::Number(number) if number.as_u64() == Some(0) => {}
        other => text.push_str(&format!("  {path}  {other}\n")),
    }
}

/// `quasar stats`.
///
/// # Errors
/// With a message for people.
pub async fn stats(client: &Client, name: &str, watch: bool, json: bool) -> anyhow::Result<ExitCode> {
    let path = format!("/v1/vms/{name}/stats");
    let mut before: VmStats = client.get(&path).await?;
    if json && !watch {
        say!("{}", serde_json::to_string_pretty(&before)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now: VmStats = client.get(&path).await?;
        if json {
            say!("{}", serde_json::to_string(&now)?)?;
        } else if watch {
            output::print(format_args!("\x1b[H\x1b[2J{}", render(&before, &now)))?;
        } else {
            output::print(format_args!("{}", render(&before, &now)))?;
        }
        if !watch || now.phase == Phase::Stopped {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares() {
        let hart = HartStats {
            instructions: 200_000_000,
            run_ns: 1_000_000_000,
            wfi_ns: 1_000_000_000,
            mmu_requests: 1000,
            l2_hits: 3000,
            mmu_wait_ns: 50_000_000,
            ..HartStats::default()
        };
        let row = hart_row("0".into(), &hart, 2_000_000_000);
        assert_eq!(row[1..7], ["200.0", "50.0%", "50.0%", "500", "75.0%", "5.0%"]);
        assert_eq!(hart_row("0".into(), &HartStats::default(), 0)[1], "0.0");
    }

    #[test]
    fn nested_counters_become_lines() {
        let mut text = String::new();
        flatten(
            &mut text,
            "",
            &serde_json::json!({"disks": [{"name": "vda", "reads": 3, "errors": 0}], "x": null}),
        );
        assert_eq!(text, "  disks.vda.name  \"vda\"\n  disks.vda.reads  3\n");
    }
}
