//! Metrics and health over HTTP: `/metrics`, `/healthz`, `/readyz`.
//!
//! Meant for loopback. Only GET (and HEAD) is answered; connections, header bytes and time are bounded, so
//! that a client that says nothing or too much costs a slot until somebody else wants it and nothing else.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::config::Listen;
use crate::metrics::Metrics;

/// Connections served at once; one more ends the oldest.
const MAX_CONNECTIONS: usize = 16;

/// A request's head must have arrived within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection ends after this time, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes and lines that a request's head may have.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// Pause after an `accept` that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether attempts are being watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet: why.
    Starting(String),
    /// Every probe is attached.
    Ready,
    /// Attached, but not everything: what is missing.
    Degraded(String),
    /// No longer.
    Stopping,
}

/// How the daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet ready.
    Starting,
    /// Everything is watched, by the rules of the files.
    Ready,
    /// Something is missing, or new rules were refused.
    Degraded,
    /// Something is seen no longer.
    Blind,
    /// It ends.
    Stopping,
}

impl State {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Degraded => "degraded",
            State::Blind => "blind",
            State::Stopping => "stopping",
        }
    }
}

/// What the daemon tells and the HTTP side shows.
#[derive(Debug)]
pub struct Health {
    metrics: Arc<Metrics>,
    readiness: Mutex<Readiness>,
    /// What is seen no longer.
    blind: Mutex<Option<String>>,
    /// Why the rules in force are not those of the files.
    rules_refused: Mutex<Option<String>>,
    /// Until when the watch over the hooks must have looked again; unset while there is none.
    watch_due: Mutex<Option<Instant>>,
    /// See [`Health::prove`].
    proofs: AtomicU64,
    /// See [`Health::set_taking_over`].
    taking_over: AtomicBool,
}

impl Health {
    /// Starting, with these metrics.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let readiness = Mutex::new(Readiness::Starting("probes are not attached yet".to_owned()));
        let (blind, rules_refused, watch_due, proofs, taking_over) = Default::default();
        Arc::new(Self { metrics, readiness, blind, rules_refused, watch_due, proofs, taking_over })
    }

    /// Whether counts of an earlier process are still to be taken over. Meanwhile `/metrics` answers 503: who reads counters
    /// would take a 0 for a new beginning, and what follows for news.
    pub fn set_taking_over(&self, yes: bool) {
        self.taking_over.store(yes, Ordering::Release);
    }

    /// Says what is seen no longer, or with `None` that all is seen again; `/readyz` and the metrics follow.
    pub fn set_blind(&self, blind: Option<String>) {
        *self.blind.lock().unwrap_or_else(PoisonError::into_inner) = blind;
        self.publish();
    }

    /// Says why new rules were refused, or with `None` that those in force are those of the files. What is watched is
    /// watched all the same, so the daemon stays ready.
    pub fn set_rules_refused(&self, why: Option<String>) {
        *self.rules_refused.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// How it is, in a word, and what there is to say about it.
    pub fn state(&self) -> (State, String) {
        let readiness = self.readiness();
        let refused = self.rules_refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (readiness, self.blind(), refused) {
            (Readiness::Starting(why), _, _) => (State::Starting, why),
            (Readiness::Stopping, _, _) => (State::Stopping, String::new()),
            (_, Some(blind), _) => (State::Blind, blind),
            (Readiness::Ready, None, None) => (State::Ready, String::new()),
            (Readiness::Degraded(missing), None, None) => (State::Degraded, missing),
            (Readiness::Ready, None, Some(refused)) => (State::Degraded, refused),
            (Readiness::Degraded(missing), None, Some(refused)) => {
                (State::Degraded, format!("{missing}; {refused}"))
            }
        }
    }

    /// The watch over the hooks looked, and will do so again within this time. If it does not, nobody notices
    /// blindness, which counts as blindness.
    pub fn watch_looked(&self, next_within: Duration) {
        *self.watch_due.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + next_within);
    }

    /// The watch over the hooks looked, and canaries came back, or nothing keeps them back that a start anew might mend.
    pub fn prove(&self) {
        self.proofs.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was proved so far.
    pub fn proofs(&self) -> u64 {
        self.proofs.load(Ordering::Relaxed)
    }

    /// Coverage is degraded where something was missing at the start, and where something is seen no longer.
    fn publish(&self) {
        let blind = self.blind().is_some();
        self.metrics.blind.set(blind.into());
        let degraded = matches!(self.readiness(), Readiness::Degraded(_)) || blind;
        self.metrics.coverage_degraded.set(degraded.into());
    }

    fn blind(&self) -> Option<String> {
        let told = self.blind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let due = *self.watch_due.lock().unwrap_or_else(PoisonError::into_inner);
        let overdue = due.is_some_and(|due| Instant::now() > due);
        told.or_else(|| overdue.then(|| "the watch over the hooks stands still".to_owned()))
    }

    /// Changes what `/readyz` says, and the metric of degraded coverage with it.
    pub fn set(&self, readiness: Readiness) {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner) = readiness;
        self.publish();
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The address cannot be used. The message names cause and remedy.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {}", bind_advice(cause))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub cause: io::Error,
}

fn bind_advice(cause: &io::Error) -> String {
    let remedy = match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "another program, perhaps a second ringfence, has the port; stop it, or choose another with \
             --listen ADDRESS:PORT (or --listen off)"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no network interface of this machine has the address; choose another with --listen ADDRESS:PORT"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose another with --listen ADDRESS:PORT"
        }
        _ => "choose another address with --listen ADDRESS:PORT, or --listen off",
    };
    format!("{cause}: {remedy}")
}

/// Takes the address, if any is wanted, or in place of it the socket that somebody else listens on already, and logs
/// `listening address=…`. Needs a runtime of tokio.
///
/// # Errors
/// [`BindError`] names cause and remedy.
pub async fn bind(
    listen: Listen,
    handed: Option<std::net::TcpListener>,
) -> Result<Option<TcpListener>, BindError> {
    let Listen::On(address) = listen else { return Ok(None) };
    let fail = |cause| BindError { address, cause };
    let listener = match handed {
        Some(handed) => TcpListener::from_std(handed),
        None => TcpListener::bind(address).await,
    };
    let listener = listener.map_err(fail)?;
    let local = listener.local_addr().map_err(fail)?;
    tracing::info!(address = %local, "listening");
    Ok(Some(listener))
}

/// Serves until the future is dropped. Never fails: what goes wrong with a connection ends that one.
pub async fn serve(listener: TcpListener, health: Arc<Health>) {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .layer(from_fn(only_reads))
        .with_state(health);
    // The oldest first. Who connects and says nothing makes room for who comes: anybody on the machine may connect.
    let mut connections: VecDeque<AbortHandle> = VecDeque::with_capacity(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= MAX_CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                connections.push_back(tokio::spawn(connection(stream, app.clone())).abort_handle());
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the metrics was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Nothing can be changed here: whatever else is asked is refused before it is looked at, on every path.
async fn only_reads(request: Request, next: Next) -> Response {
    match *request.method() {
        Method::GET | Method::HEAD => next.run(request).await,
        _ => {
            let allow = [(header::ALLOW, "GET, HEAD"), (header::CONNECTION, "close")];
            (StatusCode::METHOD_NOT_ALLOWED, allow, "nothing can be changed here: GET and HEAD\n")
                .into_response()
        }
    }
}

async fn connection(stream: TcpStream, app: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    match tokio::time::timeout(CONNECTION_TIMEOUT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the metrics ended"),
        Err(_) => tracing::debug!("a connection to the metrics took too long"),
    }
}

async fn metrics(Shared(health): Shared<Arc<Health>>) -> Response {
    // A watch that stands still cannot say so itself.
    health.publish();
    if health.taking_over.load(Ordering::Acquire) {
        let why = "what an earlier process counted is being taken over: ask again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    match health.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(Shared(health): Shared<Arc<Health>>) -> Response {
    let (state, detail) = health.state();
    match state {
        State::Ready => "ready\n".into_response(),
        State::Degraded => format!("ready, degraded: {detail}\n").into_response(),
        State::Blind => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: blind: {detail}\n")).into_response()
        }
        State::Starting => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {detail}\n")).into_response()
        }
        State::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "not ready: stopping\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::metrics::Labels;

    fn health() -> Arc<Health> {
        let labels = Labels { kinds: &["exec"], decode_errors: &[], causes: &[], tables: &[] };
        Health::new(Arc::new(Metrics::new(&labels).unwrap()))
    }

    async fn start() -> (SocketAddr, Arc<Health>) {
        let listener = bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap().unwrap();
        let (address, health) = (listener.local_addr().unwrap(), health());
        tokio::spawn(serve(listener, Arc::clone(&health)));
        (address, health)
    }

    async fn send(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may answer and close before it has taken everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = send(address, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn what_it_answers() {
        let (address, health) = start().await;
        let (status, body) = ask(address, "GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("ringfence_events_received_total{kind=\"exec\"} 0"), "{body}");
        assert_eq!(ask(address, "GET", "/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(ask(address, "GET", "/nothing").await.0, 404);
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(ask(address, method, "/metrics").await.0, 405, "{method}");
        }

        health.set_taking_over(true);
        let (status, body) = ask(address, "GET", "/metrics").await;
        assert!(status == 503 && body.contains("taken over") && !body.contains("_total"), "{body}");
        health.set_taking_over(false);
        assert_eq!(ask(address, "GET", "/metrics").await.0, 200);

        let (status, body) = ask(address, "GET", "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("not attached yet"), "{body}");
        health.set(Readiness::Ready);
        assert_eq!(ask(address, "GET", "/readyz").await, (200, "ready\n".to_owned()));
        health.set(Readiness::Degraded("no seccomp probe".to_owned()));
        assert_eq!(
            ask(address, "GET", "/readyz").await,
            (200, "ready, degraded: no seccomp probe\n".to_owned())
        );
        assert!(ask(address, "GET", "/metrics").await.1.contains("\nringfence_coverage_degraded 1\n"));
        health.set(Readiness::Ready);
        health.set_blind(Some("fexit/x".to_owned()));
        assert_eq!(ask(address, "GET", "/readyz").await, (503, "not ready: blind: fexit/x\n".to_owned()));
        let metrics = ask(address, "GET", "/metrics").await.1;
        assert!(metrics.contains("\nringfence_blind 1\n"), "{metrics}");
        assert!(metrics.contains("\nringfence_coverage_degraded 1\n"), "{metrics}");
        health.set_blind(None);
        assert_eq!(ask(address, "GET", "/readyz").await.0, 200);
        health.watch_looked(Duration::from_secs(60));
        assert_eq!(ask(address, "GET", "/readyz").await.0, 200);
        health.watch_looked(Duration::ZERO);
        let (status, body) = ask(address, "GET", "/readyz").await;
        assert!(status == 503 && body.contains("the watch over the hooks stands still"), "{body}");
        assert!(ask(address, "GET", "/metrics").await.1.contains("\nringfence_blind 1\n"));
        health.watch_looked(Duration::from_secs(60));
        assert!(ask(address, "GET", "/metrics").await.1.contains("\nringfence_blind 0\n"));
        health.set_rules_refused(Some("new rules were refused: x".to_owned()));
        assert_eq!(
            ask(address, "GET", "/readyz").await,
            (200, "ready, degraded: new rules were refused: x\n".to_owned())
        );
        health.set(Readiness::Degraded("y".to_owned()));
        let (status, body) = ask(address, "GET", "/readyz").await;
        assert!(status == 200 && body.contains("y; new rules were refused: x"), "{body}");
        health.set_rules_refused(None);
        assert_eq!(health.state(), (State::Degraded, "y".to_owned()));
        health.set(Readiness::Stopping);
        assert_eq!(ask(address, "GET", "/readyz").await.0, 503);
    }

    #[tokio::test]
    async fn heads_are_bounded() {
        let (address, _health) = start().await;
        let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(4 * MAX_HEAD_BYTES));
        let answer = send(address, long.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(MAX_HEADERS + 1));
        let answer = send(address, many.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn silent_clients_are_hung_up_on() {
        let (address, _health) = start().await;
        let mut silent = Vec::new();
        for _ in 0..20 * MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // At once, and not when they have been silent for too long.
        let answered = tokio::time::timeout(HEADER_TIMEOUT / 2, ask(address, "GET", "/healthz")).await;
        assert_eq!(answered.expect("silent clients kept others out").0, 200);
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_remedy() {
        let (address, _health) = start().await;
        let error = bind(Listen::On(address), None).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
        assert!(bind(Listen::Off, None).await.unwrap().is_none());
    }
}

#[cfg(test)]
mod refusal_tests;
