//! The API of journeys: migrations, suspensions and returns from files. A journey answers as a stream of JSON
//! objects, one a line, that ends with the journey.

use super::answer::{Answer, ApiError, Shared, blocking, json};
use crate::daemon::error::HostError;
use crate::daemon::journey::Journey;
use crate::daemon::journey::incoming::Origin;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame};
use quasar_api::{Departure, JourneyEvent, Return, Suspension};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a quiet journey is looked at for a client that has left.
const LOOK: Duration = Duration::from_millis(500);

/// A body that is still being written.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn stream(journey: Arc<Journey>) -> Result<Response, ApiError> {
    let (send, receive) = mpsc::channel(64);
    let follow = move || {
        let (mut from, mut more) = (0, true);
        while more && !send.is_closed() {
            let (events, goes_on) = journey.follow(from, LOOK);
            from += events.len();
            // What was seen of the end comes before it.
            more = goes_on;
            for event in events {
                let Ok(mut line) = serde_json::to_vec(&event) else { continue };
                line.push(b'\n');
                if send.blocking_send(line.into()).is_err() {
                    return;
                }
            }
        }
    };
    let started = std::thread::Builder::new().name("follow".into()).spawn(follow);
    started.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error, None))?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::new(Lines(receive))).into_response())
}

/// `POST /v1/vms/NAME/migration`.
pub(super) async fn migrate(
    State(host): Shared,
    Path(name): Path<String>,
    departure: Result<Json<Departure>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(departure) = departure?;
    stream(blocking(move || host.migrate(&name, departure)).await?)
}

/// `GET /v1/vms/NAME/migration`.
pub(super) async fn follow(State(host): Shared, Path(name): Path<String>) -> Result<Response, ApiError> {
    host.find(&name)?;
    match host.last_journey(&name) {
        Some(journey) => stream(journey),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, format!("VM {name} was on no journey"), None)),
    }
}

/// `DELETE /v1/vms/NAME/migration`: waits for the end, which may still be its completion.
pub(super) async fn cancel(State(host): Shared, Path(name): Path<String>) -> Answer {
    host.find(&name)?;
    let vm = name.clone();
    let Some(journey) = blocking(move || Ok(host.journey(&vm))).await? else {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("VM {name} is on no journey"), None));
    };
    let last = blocking(move || {
        journey.cancel();
        journey.wait();
        Ok(journey.follow(0, Duration::ZERO).0.pop())
    })
    .await?;
    json(last)
}

/// `POST /v1/vms/NAME/suspend`.
pub(super) async fn suspend(
    State(host): Shared,
    Path(name): Path<String>,
    suspension: Result<Json<Suspension>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(suspension) = suspension?;
    stream(blocking(move || host.suspend(&name, suspension)).await?)
}

/// `POST /v1/resume`: answers when the VM runs.
pub(super) async fn resume(
    State(host): Shared,
    wanted: Result<Json<Return>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(Return { file, name }) = wanted?;
    let shown = file.display().to_string();
    let end = blocking(move || {
        let what = format!("{} cannot be resumed", file.display());
        let journey =
            host.receive(Origin::File { file, name }).map_err(|source| HostError::Io { what, source })?;
        journey.wait();
        Ok(journey.follow(0, Duration::ZERO).0.pop())
    });
    match end.await? {
        Some(JourneyEvent::Arrived { .. }) => Ok(json(serde_json::json!({}))?.into_response()),
        Some(JourneyEvent::Failed { error }) => Err(ApiError::new(StatusCode::CONFLICT, error, None)),
        other => {
            let error = format!("{shown}: the journey ended with {other:?}");
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error, None))
        }
    }
}
