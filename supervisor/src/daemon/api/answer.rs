//! How the API answers: JSON, and errors with a code and a hint.

use crate::daemon::error::HostError;
use crate::daemon::host::Host;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use quasar_abi::SegmentError;
use quasar_api::{ErrorBody, ErrorCode};
use serde::Serialize;
use std::sync::Arc;

pub(super) type Shared = State<Arc<Host>>;
pub(super) type Answer = Result<Json<serde_json::Value>, ApiError>;

pub(super) struct ApiError(StatusCode, ErrorBody);

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl std::fmt::Display, hint: Option<&str>) -> Self {
        Self(status, ErrorBody { error: error.to_string(), code: None, hint: hint.map(ToOwned::to_owned) })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

/// Gives every error the body that the API's users are promised, whoever in the server made it.
pub(super) async fn with_body(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().starts_with(b"application/json")
            || kind.as_bytes().starts_with(b"application/x-ndjson")
    });
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let allow = response.headers().get(header::ALLOW).cloned();
    let hint = match status {
        StatusCode::METHOD_NOT_ALLOWED => "the header Allow names the methods that this resource has",
        _ => "docs/api.md describes what is expected",
    };
    let error = status.canonical_reason().unwrap_or("the request cannot be served");
    let mut answer = ApiError::new(status, error, Some(hint)).into_response();
    answer.headers_mut().extend(allow.map(|methods| (header::ALLOW, methods)));
    answer
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let (status, code, hint) = match &error {
            HostError::Unknown(_) => {
                (StatusCode::NOT_FOUND, ErrorCode::UnknownVm, Some("GET /v1/vms lists the VMs"))
            }
            HostError::Exists(_) => {
                (StatusCode::CONFLICT, ErrorCode::NameTaken, Some("choose another name, or DELETE that VM"))
            }
            HostError::DiskInUse { .. } => (
                StatusCode::CONFLICT,
                ErrorCode::DiskInUse,
                Some("give each VM a copy, or attach it to both as read_only"),
            ),
            HostError::Spec(_) => (StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::Invalid, None),
            HostError::State { .. } => (
                StatusCode::CONFLICT,
                ErrorCode::WrongState,
                Some("POST /v1/vms/NAME/stop first, or give the parameter force=true"),
            ),
            HostError::Travelling { .. } => (
                StatusCode::CONFLICT,
                ErrorCode::Travelling,
                Some("wait for it, or DELETE /v1/vms/NAME/migration"),
            ),
            HostError::Away { .. } => (
                StatusCode::CONFLICT,
                ErrorCode::Away,
                Some("ask that host; DELETE with force=true gives its network up here"),
            ),
            HostError::NotNow { hint, .. } => (StatusCode::CONFLICT, ErrorCode::NotNow, Some(hint.as_str())),
            HostError::Refused { .. } => {
                (StatusCode::CONFLICT, ErrorCode::Refused, Some("GET /v1/vms/NAME/logs may tell more"))
            }
            HostError::Ending => {
                (StatusCode::SERVICE_UNAVAILABLE, ErrorCode::Ending, Some("try again in a moment"))
            }
            HostError::Segment(segment) if !matches!(segment, SegmentError::Room { .. }) => {
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Failed, None)
            }
            HostError::Segment(_) => (
                StatusCode::INSUFFICIENT_STORAGE,
                ErrorCode::NoMemory,
                Some("`df /dev/shm` shows how much room there is"),
            ),
            HostError::Io { .. } | HostError::Network(_) | HostError::Start { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Failed, None)
            }
        };
        let mut answer = Self::new(status, &error, hint);
        answer.1.code = Some(code);
        answer
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text(), Some("docs/api.md describes what is expected"))
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text(), Some("docs/api.md describes what is expected"))
    }
}

/// Runs what may wait for a while where waiting is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HostError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the daemon failed to carry this out; its log says more",
            None,
        )),
    }
}

pub(super) fn json(value: impl Serialize) -> Answer {
    serde_json::to_value(value)
        .map(Json)
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error, None))
}
