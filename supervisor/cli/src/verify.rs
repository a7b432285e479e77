//! `quasar verify`.

use super::args::Verify;
use super::client::Client;
use super::table;
use hyper::Method;
use quasar_abi::{output, say};
use quasar_api::{Outcome, Verified, VerifiedRun, VerifySpec};
use std::process::ExitCode;

/// The architectures of a run's processes: one word when they are the same.
fn builds(run: &VerifiedRun) -> String {
    let mut archs: Vec<&String> = run.programs.values().collect();
    archs.dedup();
    match archs.as_slice() {
        [one] => (*one).clone(),
        _ => run.programs.iter().map(|(role, arch)| format!("{role} {arch}")).collect::<Vec<_>>().join(", "),
    }
}

/// Carries `quasar verify` out.
///
/// # Errors
/// With a message for people.
pub async fn verify(client: &Client, order: &Verify) -> anyhow::Result<ExitCode> {
    let mut spec = VerifySpec {
        instructions: order.instructions,
        build: order.build.clone(),
        exe_for: std::collections::BTreeMap::new(),
    };
    for exe in &order.exe_for {
        let kind = exe.kind.program().trim_start_matches("quasar-").to_owned();
        spec.exe_for.insert(kind, std::path::absolute(&exe.path)?);
    }
    let path = format!("/v1/vms/{}/verify", order.name);
    let verified: Verified = client.call(Method::POST, &path, Some(&spec)).await?;
    let code = if verified.same { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if order.json {
        say!("{}", serde_json::to_string_pretty(&verified)?)?;
        return Ok(code);
    }
    say!("{}: copied after {} instructions", order.name, verified.from)?;
    let row = |run: &VerifiedRun| {
        let end = match run.outcome {
            Outcome::Limit if run.retired == 0 => "nothing to do".to_owned(),
            Outcome::Limit => "went on".to_owned(),
            other => format!("{other:?}"),
        };
        vec![builds(run), run.retired.to_string(), end, run.hash.clone()]
    };
    let rows: Vec<Vec<String>> = verified.runs.iter().map(row).collect();
    output::print(format_args!("{}", table::render(&["BUILD", "RETIRED", "END", "HASH"], &rows)))?;
    match (verified.runs.len(), verified.same) {
        (1, _) => {}
        (_, true) => say!("the same")?,
        (_, false) => say!("DIFFERENT: these builds do not execute the guest in the same way")?,
    }
    Ok(code)
}
