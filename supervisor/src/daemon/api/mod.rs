//! The API: HTTP and JSON. `docs/api.md` describes it for its users.

mod answer;
mod journeys;

use super::console::{self, Attachment};
use super::error::HostError;
use super::host::Host;
use super::lifecycle;
use crate::vm::{Request, stats};
use answer::{Answer, ApiError, Shared, blocking, json, with_body};
use axum::Json;
use axum::Router;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::TokioIo;
use quasar_abi::console::{UART_CONSOLE, VIRTIO_CONSOLE};
use quasar_api::{CONSOLE_PROTOCOL, HostReport, LogPart, WithKilled, WithSwapped};
use quasar_api::{KillSpec, Phase, SwapSpec, VerifySpec, VmSpec};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a log in one answer.
const LOG_CHUNK: u64 = 256 << 10;
const DEFAULT_STOP_SECONDS: u64 = 60;

/// The routes.
pub fn router(host: Arc<Host>) -> Router {
    Router::new()
        .route("/v1/host", get(host_view))
        .route("/v1/vms", get(list).post(create))
        .route("/v1/vms/{name}", get(view).delete(remove))
        .route("/v1/vms/{name}/pause", post(pause))
        .route("/v1/vms/{name}/resume", post(resume))
        .route("/v1/vms/{name}/start", post(start))
        .route("/v1/vms/{name}/stop", post(stop))
        .route("/v1/vms/{name}/kill", post(kill))
        .route("/v1/vms/{name}/power-button", post(power_button))
        .route("/v1/vms/{name}/swap", post(swap))
        .route("/v1/vms/{name}/verify", post(verify))
        .route("/v1/vms/{name}/stats", get(vm_stats))
        .route("/v1/vms/{name}/logs", get(logs))
        .route("/v1/vms/{name}/console", get(console))
        .route(
            "/v1/vms/{name}/migration",
            get(journeys::follow).post(journeys::migrate).delete(journeys::cancel),
        )
        .route("/v1/vms/{name}/suspend", post(journeys::suspend))
        .route("/v1/resume", post(journeys::resume))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "there is no such resource", None) })
        .layer(axum::middleware::map_response(with_body))
        .with_state(host)
}

async fn host_view(State(host): Shared) -> Answer {
    let (view, links) = (host.view(), host.network.links.list());
    // A switch that has died is being replaced: the host is there all the same.
    let stats = blocking(move || Ok(host.network.stats()));
    let (networks, networks_error) = match stats.await? {
        Ok(networks) => (networks, None),
        Err(error) => (None, Some(error)),
    };
    json(HostReport { host: view, links, networks, networks_error })
}

async fn list(State(host): Shared) -> Answer {
    json(host.list())
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct CreateQuery {
    start: bool,
}

impl Default for CreateQuery {
    fn default() -> Self {
        Self { start: true }
    }
}

async fn create(
    State(host): Shared,
    query: Result<Query<CreateQuery>, QueryRejection>,
    spec: Result<Json<VmSpec>, JsonRejection>,
) -> Result<(StatusCode, Json<serde_json::Value>), ApiError> {
    let (Query(query), Json(spec)) = (query?, spec?);
    let view = blocking(move || if query.start { host.create(spec) } else { host.define(spec) }).await?;
    Ok((StatusCode::CREATED, json(view)?))
}

async fn view(State(host): Shared, Path(name): Path<String>) -> Answer {
    json(host.show(&host.find(&name)?))
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RemoveQuery {
    force: bool,
    keep_disks: bool,
}

async fn remove(
    State(host): Shared,
    Path(name): Path<String>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query?;
    blocking(move || host.remove(&name, query.force, query.keep_disks)).await?;
    json(serde_json::json!({}))
}

/// Asks a VM's controller and shows the VM afterwards.
async fn ask(host: Arc<Host>, name: String, request: Request) -> Answer {
    let entry = host.find(&name)?;
    if entry.handle.status().phase == Phase::Stopped {
        return Err(lifecycle::has_stopped(&name).into());
    }
    let view = blocking(move || {
        entry
            .handle
            .ask_and_wait(request)
            .map_err(|reason| HostError::Refused { name, reason })
            .map(|_| host.show(&entry))
    });
    json(view.await?)
}

async fn pause(State(host): Shared, Path(name): Path<String>) -> Answer {
    let (asked, vm) = (Arc::clone(&host), name.clone());
    if let Some(journey) = blocking(move || Ok(asked.journey(&vm))).await? {
        return Err(HostError::Travelling { name, way: journey.view().way }.into());
    }
    ask(host, name, Request::Pause).await
}

async fn resume(State(host): Shared, Path(name): Path<String>) -> Answer {
    let view = blocking(move || host.resume_vm(&name).map(|entry| host.show(&entry)));
    json(view.await?)
}

async fn power_button(State(host): Shared, Path(name): Path<String>) -> Answer {
    ask(host, name, Request::PowerButton).await
}

/// The VM afterwards, with what was swapped.
async fn swap(
    State(host): Shared,
    Path(name): Path<String>,
    spec: Result<Json<SwapSpec>, JsonRejection>,
) -> Answer {
    let Json(spec) = spec?;
    let entry = host.find(&name)?;
    let asked = Arc::clone(&host);
    let swapped = blocking(move || asked.swap(&name, &spec)).await?;
    json(WithSwapped { vm: host.show(&entry), swapped })
}

async fn verify(
    State(host): Shared,
    Path(name): Path<String>,
    spec: Result<Json<VerifySpec>, JsonRejection>,
) -> Answer {
    let Json(spec) = spec?;
    json(blocking(move || host.verify(&name, &spec)).await?)
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct StopQuery {
    force: bool,
    timeout: u64,
}

impl Default for StopQuery {
    fn default() -> Self {
        Self { force: false, timeout: DEFAULT_STOP_SECONDS }
    }
}

async fn stop(
    State(host): Shared,
    Path(name): Path<String>,
    query: Result<Query<StopQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query?;
    let patience = (!query.force).then(|| Duration::from_secs(query.timeout));
    json(blocking(move || host.stop(&name, patience).map(|entry| host.show(&entry))).await?)
}

async fn start(State(host): Shared, Path(name): Path<String>) -> Answer {
    json(blocking(move || host.start(&name).map(|entry| host.show(&entry))).await?)
}

/// The VM afterwards, with what was sent a signal.
async fn kill(
    State(host): Shared,
    Path(name): Path<String>,
    spec: Result<Json<KillSpec>, JsonRejection>,
) -> Answer {
    let Json(spec) = spec?;
    let entry = host.find(&name)?;
    let asked = Arc::clone(&host);
    let killed = blocking(move || asked.kill(&name, &spec)).await?;
    json(WithKilled { vm: host.show(&entry), killed })
}

async fn vm_stats(State(host): Shared, Path(name): Path<String>) -> Answer {
    let entry = host.find(&name)?;
    let stats = blocking(move || {
        let devices = entry.handle.device_stats().ok();
        let network = host.network.stats().unwrap_or_default();
        Ok(stats::collect(&name, &entry.handle, devices, network, host.network.processes()))
    });
    json(stats.await?)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LogsQuery {
    from: u64,
}

async fn logs(
    State(host): Shared,
    Path(name): Path<String>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query?;
    let entry = host.find(&name)?;
    let (text, next) = blocking(move || {
        entry
            .log
            .read(query.from, LOG_CHUNK)
            .map_err(|source| HostError::Io { what: format!("the log of {name} cannot be read"), source })
    })
    .await?;
    json(LogPart { text: String::from_utf8_lossy(&text).into_owned(), next })
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ConsolePort {
    Uart,
    Virtio,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConsoleQuery {
    port: ConsolePort,
    read_only: bool,
    history: bool,
}

impl Default for ConsoleQuery {
    fn default() -> Self {
        Self { port: ConsolePort::Uart, read_only: false, history: true }
    }
}

/// With an upgrade, the live console; without one, what it has shown.
async fn console(
    State(host): Shared,
    Path(name): Path<String>,
    query: Result<Query<ConsoleQuery>, QueryRejection>,
    mut request: HttpRequest,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let entry = host.find(&name)?;
    let port = match query.port {
        ConsolePort::Uart => UART_CONSOLE,
        ConsolePort::Virtio => VIRTIO_CONSOLE,
    };
    let wanted = request.headers().get(header::UPGRADE);
    if wanted.is_none_or(|protocol| protocol != CONSOLE_PROTOCOL) {
        let text = entry.console_history(port);
        return Ok(([(header::CONTENT_TYPE, "application/octet-stream")], text).into_response());
    }
    let attachment = Attachment { port, read_only: query.read_only, history: query.history };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => console::serve(entry, TokioIo::new(stream), attachment).await,
            Err(error) => log::debug!("a console's client left before it was attached: {error}"),
        }
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, CONSOLE_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
