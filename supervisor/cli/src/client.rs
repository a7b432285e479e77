//! The API's client.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use quasar_abi::note;
use quasar_abi::output::OutputError;
use quasar_api::{CONSOLE_PROTOCOL, ErrorBody, ErrorCode, HostView};
use quasar_places::{Paths, SocketTooLong, check_socket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;

/// Why the daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon serves {0}; start one with `quasar host`, or a VM with `quasar run`, which starts one"
    )]
    NoDaemon(PathBuf),
    /// Something else is there.
    #[error("{0} is no socket; give the daemon's, or a path where nothing is (--socket, QUASAR_SOCKET)")]
    NoSocket(PathBuf),
    /// The user may not.
    #[error("{0} cannot be opened: {1}; it belongs to another user")]
    Denied(PathBuf, std::io::Error),
    /// The system does not let us.
    #[error("{0} cannot be opened: {1}")]
    Unreachable(PathBuf, std::io::Error),
    /// No socket can be there.
    #[error(transparent)]
    TooLong(#[from] SocketTooLong),
    /// Another user answers.
    #[error("{0} is served by {user}, whose word counts for nothing here: nothing was asked; be that user, or give another --socket", user = quasar_places::user(*.1))]
    Stranger(PathBuf, u32),
    /// It took the question and is silent.
    #[error(
        "the daemon{} does not answer: is it stopped (SIGSTOP), or out of descriptors? nothing was changed",
        process(*.0)
    )]
    Silent(Option<i32>),
    /// The connection broke.
    #[error("the connection to the daemon failed: {0}")]
    Connection(#[from] hyper::Error),
    /// The daemon answered with an error.
    #[error("{error}{}", hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
    Refused {
        /// Its status.
        status: StatusCode,
        /// What happened.
        error: String,
        /// What to do.
        hint: Option<String>,
    },
    /// What is asked cannot be written.
    #[error("the daemon cannot be asked that: {0}")]
    Request(String),
    /// The answer is not understood.
    #[error("the daemon's answer is not understood: {0}; is it of another version?")]
    Answer(String),
}

fn process(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

/// How long a question waits for its answer until the user is told, and until it is given up.
const UNEASY: Duration = Duration::from_secs(3);
const SILENCE: Duration = Duration::from_secs(15);

/// How often a question is asked of daemons that were just ending, and the time between.
const ATTEMPTS: u32 = 3;
const BREATH: Duration = Duration::from_millis(20);

/// Waits for the answer to a question that changes nothing.
async fn answered<T>(
    daemon: Option<i32>,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let mut answer = std::pin::pin!(answer);
    if let Ok(answer) = tokio::time::timeout(UNEASY, &mut answer).await {
        return answer;
    }
    note!("quasar: the daemon{} has not answered yet", process(daemon));
    tokio::time::timeout(SILENCE - UNEASY, answer).await.unwrap_or(Err(ClientError::Silent(daemon)))
}

/// Talks to the daemon of one socket.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it is.
    pub paths: Paths,
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// A connection that has been answered once: the daemon does not end for idleness while it stands.
#[derive(Debug)]
pub struct Hold {
    /// Who answered.
    pub host: HostView,
    _connection: Sender,
}

impl ClientError {
    /// Whether no daemon serves, or one that was just ending: then another one may.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoDaemon(_) | Self::Connection(_))
    }
}

impl Client {
    /// Holds the daemon.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn hold(&self) -> Result<Hold, ClientError> {
        let (mut sender, daemon) = self.connect().await?;
        let request = Self::request(Method::GET, "/v1/host").body(Full::default());
        let request = request.map_err(|error| ClientError::Answer(error.to_string()))?;
        let host = answered(daemon, async { answer(sender.send_request(request).await?).await }).await?;
        Ok(Hold { host, _connection: sender })
    }

    /// Opens a connection; says whose process the daemon is.
    async fn connect(&self) -> Result<(Sender, Option<i32>), ClientError> {
        let socket = &self.paths.socket;
        check_socket(socket)?;
        if let Ok(found) = socket.symlink_metadata()
            && !found.file_type().is_socket()
        {
            return Err(ClientError::NoSocket(socket.clone()));
        }
        let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon(socket.clone())
            }
            std::io::ErrorKind::PermissionDenied => ClientError::Denied(socket.clone(), error),
            _ => ClientError::Unreachable(socket.clone(), error),
        })?;
        // Whoever could make a file of this name could wait for us there. Root's word is as good as our own: it could
        // do all that we can.
        let peer = stream.peer_cred().map_err(|error| ClientError::Denied(socket.clone(), error))?;
        let served_by = peer.uid();
        if served_by != 0 && served_by != nix::unistd::geteuid().as_raw() {
            return Err(ClientError::Stranger(socket.clone(), served_by));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                log::debug!("the connection ended: {error}");
            }
        });
        Ok((sender, peer.pid()))
    }

    fn request(method: Method, path: &str) -> hyper::http::request::Builder {
        Request::builder().method(method).uri(path).header(HOST, "quasar")
    }

    /// Makes a request.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let is_question = method == Method::GET;
        let (mut sender, daemon) = self.connect().await?;
        let bytes = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| unasked(&e))?,
            None => vec![],
        };
        let request = Self::request(method, path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|e| unasked(&e))?;
        let asked = async { answer(sender.send_request(request).await?).await };
        if is_question { answered(daemon, asked).await } else { asked.await }
    }

    /// Makes a request that is answered by JSON objects, one a line, and hands each on as it comes.
    ///
    /// # Errors
    /// [`ClientError`], and what `take` answers.
    pub async fn stream<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        mut take: impl FnMut(T) -> Result<(), OutputError>,
    ) -> anyhow::Result<()> {
        let (mut sender, _) = self.connect().await?;
        let broken = |error: &dyn std::fmt::Display| ClientError::Answer(error.to_string());
        let bytes = body.map(serde_json::to_vec).transpose().map_err(|e| unasked(&e))?.unwrap_or_default();
        let request = Self::request(method, path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|e| unasked(&e))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            return Err(refusal(status, &body.collect().await?.to_bytes()).into());
        }
        let mut pending = vec![];
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                take(serde_json::from_slice(&line).map_err(|e| broken(&e))?)?;
            }
        }
        Ok(())
    }

    /// A GET; asked again when the daemon that took the connection was just ending.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        retry(async || self.call(Method::GET, path, None::<&()>).await).await
    }

    /// A POST without a body.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::POST, path, None::<&()>).await
    }

    /// A DELETE.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<serde_json::Value, ClientError> {
        self.call(Method::DELETE, path, None::<&()>).await
    }

    /// Attaches to a console.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn console(&self, path: &str) -> Result<TokioIo<Upgraded>, ClientError> {
        let (mut sender, _) = self.connect().await?;
        let request = Self::request(Method::GET, path)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, CONSOLE_PROTOCOL)
            .body(Full::default())
            .map_err(|error| unasked(&error))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = response.into_body().collect().await?.to_bytes();
            return Err(refusal(status, &body));
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }
}

/// Tries again what a daemon that was just ending did not answer.
async fn retry<T>(mut ask: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    for _ in 1..ATTEMPTS {
        match ask().await {
            Err(ClientError::Connection(error)) => log::debug!("asked again after: {error}"),
            other => return other,
        }
        tokio::time::sleep(BREATH).await;
    }
    ask().await
}

fn unasked(error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Request(error.to_string())
}

/// What to do about an error, in terms of commands; the daemon's hint is in terms of its API.
fn command_hint(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownVm => "`quasar ps` lists the VMs",
        ErrorCode::NameTaken => {
            "choose another name; `quasar start NAME` boots that one again when it has stopped, `quasar rm NAME` removes it"
        }
        ErrorCode::DiskInUse => "give each VM a copy, or attach it read-only to both (`,ro`)",
        ErrorCode::WrongState => "stop it first (`quasar stop NAME`), or use --force",
        ErrorCode::Travelling => "wait for it, or `quasar migrate NAME --cancel`",
        ErrorCode::Away => "ask that host; `quasar rm --force NAME` gives its network up here",
        ErrorCode::Refused => "`quasar logs NAME` may tell more",
        _ => return None,
    })
}

async fn answer<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, ClientError> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        return Err(refusal(status, &body));
    }
    serde_json::from_slice(&body).map_err(|error| ClientError::Answer(error.to_string()))
}

fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(ErrorBody { error, code, hint }) => {
            let ours = code.and_then(command_hint).map(ToOwned::to_owned);
            ClientError::Refused { status, error, hint: ours.or(hint) }
        }
        Err(_) => ClientError::Answer(format!("{status}: {}", String::from_utf8_lossy(body))),
    }
}
