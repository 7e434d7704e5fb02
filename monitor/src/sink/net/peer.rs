//! One peer that is spoken to over HTTP: its address, its one connection, and what its answers mean.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;

use super::connect::Stream;
pub use super::settings::HeaderSource;
use super::settings::{Headers, HttpSettings};
use super::tls::Tls;
use super::{check_timeout, setting};
use crate::sink::{Fate, OutputError, Undelivered};

/// Of an answer's body so much is read.
pub(super) const MAX_ANSWER_BYTES: usize = 64 << 10;

/// Of an answer's body so many characters are shown in a message.
const SHOWN_CHARACTERS: usize = 160;

/// A part of an address with so many characters may be a key.
const KEY_CHARACTERS: usize = 8;

/// No peer's wish to be left alone is followed for longer.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

const AGENT: &str = concat!("ringfence/", env!("CARGO_PKG_VERSION"));

/// An address of HTTP. Texts show no path: with many services that is where the secret is.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    /// The port, that of the scheme if none is named.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    /// Whether TLS is spoken.
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// The address with this path behind its own.
    pub(super) fn join(&self, path: &str) -> Result<Url, String> {
        let (authority, base) = (self.authority(), self.0.path().trim_end_matches('/'));
        let scheme = if self.is_https() { "https" } else { "http" };
        format!("{scheme}://{authority}{base}{path}").parse()
    }

    fn authority(&self) -> &str {
        self.0.authority().map(http::uri::Authority::as_str).unwrap_or_default()
    }

    pub(super) fn path(&self) -> &str {
        self.0.path()
    }

    /// Whether a text repeats what may be secret in the address: the path, or a part of it or of the query that is long
    /// enough for a key.
    fn repeated_in(&self, text: &str) -> bool {
        let (path, query) = (self.0.path(), self.0.query().unwrap_or_default());
        let whole = [path, query].into_iter().filter(|whole| whole.len() > 1);
        let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let parts = path.split('/').chain(values).filter(|part| part.len() >= KEY_CHARACTERS);
        whole.chain(parts).any(|part| text.contains(part))
    }
}

impl std::str::FromStr for Url {
    type Err = String;

    /// # Errors
    /// A sentence that does not repeat the text: it may hold a secret.
    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "this is no URL such as https://host:port/path")?;
        if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err("a URL here begins with http:// or https://".to_owned());
        }
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err("no user or password may stand in the URL; see `user` and `password_file`".to_owned());
        }
        if uri.host().is_none_or(str::is_empty) || authority.ends_with(':') {
            return Err("the URL names no host, or no port behind the colon".to_owned());
        }
        Ok(Url(uri))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.is_https() { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/…")
    }
}

/// Which HTTP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    One,
    /// HTTP/2 from the first byte on, as gRPC does.
    Two,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// What gRPC says behind the body.
    pub(super) trailers: Option<HeaderMap>,
    /// At most [`MAX_ANSWER_BYTES`].
    pub(super) body: Vec<u8>,
}

/// A peer.
pub(super) struct Peer {
    url: Url,
    protocol: Protocol,
    headers: Headers,
    tls: Option<Tls>,
    limit: Duration,
    connection: Option<Connection>,
}

enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<http::Response<Incoming>> {
        match self {
            Connection::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Connection::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

impl Peer {
    pub(super) fn new(
        url: Url,
        protocol: Protocol,
        settings: &HttpSettings<'_>,
    ) -> Result<Self, OutputError> {
        let alpn: &[&[u8]] = match protocol {
            Protocol::One => &[b"http/1.1"],
            Protocol::Two => &[b"h2"],
        };
        let tls = url.is_https().then(|| Tls::new(settings.tls, url.host(), alpn)).transpose()?;
        if tls.is_none() && *settings.tls != super::TlsConfig::default() {
            return Err(setting("tls", "the address begins with http://, so TLS is not spoken"));
        }
        let (headers, limit) = (Headers::new(settings)?, check_timeout(settings.timeout_ms)?);
        Ok(Self { url, protocol, headers, tls, limit, connection: None })
    }

    /// Where it is, for messages.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The beginning of what the peer said, made harmless, for a message; nothing if it repeats a secret of ours.
    pub(super) fn said(&self, body: &[u8]) -> String {
        let text = String::from_utf8_lossy(body);
        let line: String = text.trim().chars().take(SHOWN_CHARACTERS).collect();
        // A page for people says nothing that the status does not.
        if line.is_empty() || line.starts_with('<') {
            return String::new();
        }
        if self.headers.repeated_in(&text) || self.url.repeated_in(&text) {
            return String::new();
        }
        let mut visible = Vec::new();
        crate::alert::push_visible(&line, &mut visible);
        format!(": {}", String::from_utf8_lossy(&visible))
    }

    /// Sends a request and reads the whole answer, over the kept connection if there is one. That may be dead without
    /// anyone having noticed; then a new one is made, once.
    pub(super) async fn exchange(
        &mut self,
        method: Method,
        media: &'static str,
        body: Bytes,
    ) -> Result<Answer, String> {
        let request = self.request(method, media, body)?;
        let kept = self.connection.take();
        let reused = kept.is_some();
        match self.attempt(kept, request.clone()).await {
            Err(Fault::BeforeAnswer(_)) if reused => self.attempt(None, request).await,
            outcome => outcome,
        }
        .map_err(|fault| match fault {
            Fault::Other(cause) | Fault::BeforeAnswer(cause) => cause,
        })
    }

    fn request(
        &mut self,
        method: Method,
        media: &'static str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        match self.protocol {
            Protocol::One => {
                let path = self.url.0.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
                *request.uri_mut() = path.parse().map_err(|_| "the path of the URL is none")?;
                let host = HeaderValue::from_str(self.url.authority());
                request.headers_mut().insert(HOST, host.map_err(|_| "the host of the URL is none")?);
            }
            Protocol::Two => {
                *request.uri_mut() = self.url.0.clone();
                *request.version_mut() = Version::HTTP_2;
                request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
            }
        }
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
        self.headers.add_to(request.headers_mut())?;
        Ok(request)
    }

    async fn attempt(
        &mut self,
        kept: Option<Connection>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Fault> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await.map_err(Fault::Other)?,
        };
        let place = &self.url;
        let steps = async {
            let response = connection.send(request).await;
            let response = response
                .map_err(|error| Fault::BeforeAnswer(format!("no answer from {place}: {}", chain(&error))))?;
            let status = response.status();
            let (answer, whole) = read(response).await.map_err(|error| {
                Fault::Other(format!("{place} broke off in its answer {status}: {}", chain(&error)))
            })?;
            Ok((answer, whole))
        };
        let (answer, whole) = match tokio::time::timeout(self.limit, steps).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                return Err(Fault::Other(format!(
                    "{place} gave no answer within {} ms",
                    self.limit.as_millis()
                )));
            }
        };
        // What is left of an answer that is too long would be taken for the next one's beginning.
        self.connection = whole.then_some(connection);
        Ok(answer)
    }

    async fn connect(&mut self) -> Result<Connection, String> {
        let stream = Stream::open(self.url.host(), self.url.port(), self.tls.as_mut(), self.limit).await?;
        let io = TokioIo::new(stream);
        let place = &self.url;
        // The task drives the connection whenever the output waits, and ends with it.
        let hands = async {
            Ok(match self.protocol {
                Protocol::One => {
                    let (sender, driver) = http1::handshake(io).await?;
                    tokio::spawn(driver);
                    Connection::One(sender)
                }
                Protocol::Two => {
                    let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
                    tokio::spawn(driver);
                    Connection::Two(sender)
                }
            })
        };
        match tokio::time::timeout(self.limit, hands).await {
            Ok(outcome) => outcome
                .map_err(|error: hyper::Error| format!("{place} speaks no such HTTP: {}", chain(&error))),
            Err(_) => Err(format!("{place} did not begin within {} ms", self.limit.as_millis())),
        }
    }
}

/// Why there is no answer.
enum Fault {
    /// The peer had not begun to answer: a kept connection may have been dead.
    BeforeAnswer(String),
    Other(String),
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

/// Reads an answer, and whether all of it.
async fn read(response: http::Response<Incoming>) -> hyper::Result<(Answer, bool)> {
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut trailers, mut whole) = (Vec::new(), None, true);
    while let Some(frame) = incoming.frame().await {
        match frame?.into_data() {
            Ok(data) if body.len() + data.len() > MAX_ANSWER_BYTES => {
                body.extend_from_slice(data.get(..MAX_ANSWER_BYTES - body.len()).unwrap_or_default());
                whole = false;
                break;
            }
            Ok(data) => body.extend_from_slice(&data),
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    Ok((Answer { status: head.status, headers: head.headers, trailers, body }, whole))
}

/// What an answer, or none, means for the records that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All were taken.
    Taken,
    /// Something is wrong with the peer or with us, not with the records.
    Later { after: Option<Duration>, cause: String },
    /// Something is wrong with the peer, with us, or with one of the records: see [`Suspect`](super::suspect::Suspect).
    Unclear { after: Option<Duration>, cause: String },
    /// Something is wrong with the records.
    Never { cause: String },
}

impl Verdict {
    /// Judges by the status alone.
    ///
    /// Success is taken. 429, 408, 425 and all of 5xx pass by themselves. 401, 403 and 407 say that we are not known,
    /// 3xx, 404, 405 and 410 that the address is wrong: somebody will put that right, and the alerts are worth to wait
    /// for it. Every other 4xx is the peer's word about what it was sent. What a firewall, or a receiver with a fault,
    /// may say to one record and not to others is unclear.
    pub(super) fn of(peer: &Peer, outcome: Result<&Answer, &String>) -> Verdict {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(cause) => return Verdict::Later { after: None, cause: cause.clone() },
        };
        let status = answer.status;
        let cause = || format!("{} answers {status}{}", peer.url, peer.said(&answer.body));
        let after = retry_after(&answer.headers, SystemTime::now());
        match status.as_u16() {
            200..=299 => Verdict::Taken,
            503 if answer.headers.contains_key(RETRY_AFTER) => Verdict::Later { after, cause: cause() },
            401 | 407 | 408 | 425 | 429 | 300..=399 => Verdict::Later { after, cause: cause() },
            403 | 404 | 405 | 410 | 500..=599 => Verdict::Unclear { after, cause: cause() },
            _ => Verdict::Never { cause: cause() },
        }
    }

    /// Notes whether the answer may have been about a record.
    pub(super) fn noted(self, unclear: &mut bool) -> Self {
        *unclear = matches!(self, Verdict::Unclear { .. });
        self
    }

    /// The same for the worker: `taken` records went before.
    pub(super) fn undelivered(self, taken: usize) -> Option<Undelivered> {
        match self {
            Verdict::Taken => None,
            Verdict::Later { after, cause } | Verdict::Unclear { after, cause } => {
                Some(Undelivered { taken, fate: Fate::Retry { after }, cause })
            }
            Verdict::Never { cause } => Some(Undelivered { taken, fate: Fate::Refused, cause }),
        }
    }
}

/// `Retry-After`: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}
