//! OpenTelemetry: alerts as log records, by OTLP over HTTP with protobuf or over gRPC.
//!
//! Of gRPC one call without a stream is needed, which is a request of HTTP/2 with five bytes in front of the message and
//! the outcome in the trailers; a gRPC library would bring more code than the rest of the outputs together.

mod proto;
mod record;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use prost::Message as _;
use serde::Deserialize;
use tokio::runtime::Runtime;

use self::proto::ExportLogsServiceResponse;
use self::record::{Item, request};
use super::peer::{Answer, MAX_RETRY_AFTER, Peer, Protocol, Url, Verdict};
use super::settings::http_settings;
use super::suspect::Suspect;
use super::{requests, runtime, setting};
use crate::alert::{Shape, Shaper};
use crate::sink::{Deliver, Fate, OutputError, Record, Undelivered};

/// Records in one request.
const MAX_RECORDS: usize = 512;

/// The method that every receiver of logs has.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// How records travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// gRPC: usually port 4317.
    Grpc,
    /// HTTP with protobuf: usually port 4318.
    Http,
}

/// What the body of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpBody {
    /// The rule's output, a sentence. All else is in attributes.
    Text,
    /// The alert as JSON, in the output's shape.
    Json,
}

http_settings! {
    /// Settings of an OTLP output.
    pub struct OtlpConfig {
        /// Where the receiver is. For HTTP without a path, `/v1/logs` is meant.
        pub url: Option<Url> = None,
        /// How records travel.
        pub protocol: OtlpProtocol = OtlpProtocol::Grpc,
        /// What the body of a record is.
        pub body: OtlpBody = OtlpBody::Text,
        /// The shape of JSON there.
        pub shape: Shape = Shape::default(),
        /// Further attributes of the resource, such as `deployment.environment.name`.
        pub resource: std::collections::BTreeMap<String, String> = Default::default(),
    }
}

impl OtlpConfig {
    /// The files that are read while it runs.
    pub fn files(&self) -> Vec<&std::path::Path> {
        self.http().files()
    }
}

/// An OTLP output.
pub struct Otlp {
    config: OtlpConfig,
    runtime: Runtime,
    peer: Peer,
    suspect: Suspect,
    /// Records of the request before that its receiver rejected, and that the worker has yet to hear of.
    rejected: (usize, String),
}

impl Otlp {
    /// Reads the files that are named. Nothing is connected yet.
    ///
    /// # Errors
    /// A setting does not fit, or a file cannot be used.
    pub fn new(config: &OtlpConfig) -> Result<Self, OutputError> {
        let missing = || setting("url", "where is the receiver, such as http://127.0.0.1:4317?");
        let url = config.url.clone().ok_or_else(missing)?;
        let rooted = url.path() == "/";
        let path = match config.protocol {
            OtlpProtocol::Grpc if rooted => GRPC_PATH,
            OtlpProtocol::Grpc => return Err(setting("url", "gRPC has no path")),
            OtlpProtocol::Http if rooted => "/v1/logs",
            OtlpProtocol::Http => "",
        };
        let url = if path.is_empty() { Ok(url) } else { url.join(path) };
        let url = url.map_err(|reason| setting("url", reason))?;
        let protocol = match config.protocol {
            OtlpProtocol::Grpc => Protocol::Two,
            OtlpProtocol::Http => Protocol::One,
        };
        let peer = Peer::new(url, protocol, &config.http())?;
        let (suspect, rejected) = (Suspect::default(), (0, String::new()));
        Ok(Self { config: config.clone(), runtime: runtime()?, peer, suspect, rejected })
    }

    fn send(&mut self, items: &[Item]) -> (Verdict, usize) {
        let message = request(&self.config, items).encode_to_vec();
        let grpc = self.config.protocol == OtlpProtocol::Grpc;
        let (media, body) = match grpc {
            true => ("application/grpc", frame(&message)),
            false => ("application/x-protobuf", message),
        };
        let outcome = self.runtime.block_on(self.peer.exchange(Method::POST, media, Bytes::from(body)));
        let verdict = http_verdict(&self.peer, outcome.as_ref(), grpc);
        let Ok(answer) = outcome else { return (verdict, 0) };
        let (verdict, body) = match (verdict, grpc) {
            (Verdict::Taken, true) => (grpc_verdict(&self.peer, &answer), answer.body.get(5..)),
            (verdict, _) => (verdict, Some(answer.body.as_slice())),
        };
        if verdict != Verdict::Taken {
            return (verdict, 0);
        }
        // An answer that cannot be read is a success with something added in a later version.
        let partial = ExportLogsServiceResponse::decode(body.unwrap_or_default())
            .ok()
            .and_then(|response| response.partial_success)
            .unwrap_or_default();
        let rejected = usize::try_from(partial.rejected_log_records).unwrap_or(0).min(items.len());
        if rejected > 0 {
            let said = self.peer.said(partial.error_message.as_bytes());
            self.rejected.1 = format!("{} rejected {rejected} of {}{said}", self.peer.url(), items.len());
        }
        (verdict, rejected)
    }
}

impl Deliver for Otlp {
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered> {
        // A receiver says how many it rejected, not which, and wants none of them again. So many at the end of what
        // was sent are told as refused, one each time that the worker comes with what it takes to be left.
        if let Some(left) = self.rejected.0.checked_sub(1) {
            self.rejected.0 = left;
            return Err(Undelivered::refused(0, self.rejected.1.clone()));
        }
        let mut suspect = std::mem::take(&mut self.suspect);
        let outcome = suspect.deliver(batch, |part| {
            let mut unclear = false;
            (self.deliver_part(part, &mut unclear), unclear)
        });
        self.suspect = suspect;
        outcome
    }
}

impl Otlp {
    fn deliver_part(&mut self, batch: &[Record<'_>], unclear: &mut bool) -> Result<(), Undelivered> {
        let (mut rejected, mut sent) = (0, 0);
        let json = (self.config.body == OtlpBody::Json).then_some(Shaper::new(self.config.shape));
        let outcome = requests::deliver(
            batch,
            MAX_RECORDS,
            |record| Item::read(record, json),
            |items| {
                if rejected > 0 {
                    return Verdict::Later { after: None, cause: String::new() };
                }
                let (verdict, of_these) = self.send(items);
                rejected = of_these;
                if verdict == Verdict::Taken {
                    sent += items.len();
                }
                verdict.noted(unclear)
            },
        );
        match rejected {
            0 => outcome,
            _ => {
                self.rejected.0 = rejected - 1;
                let cause = self.rejected.1.clone();
                Err(Undelivered { taken: sent - rejected, fate: Fate::Refused, cause })
            }
        }
    }
}

/// gRPC's prefix: not compressed, and the length.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(message.len() + 5);
    framed.push(0);
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

/// What a status of HTTP means: of 5xx, OTLP has 502, 503 and 504 sent again, and no other.
fn http_verdict(peer: &Peer, outcome: Result<&Answer, &String>, grpc: bool) -> Verdict {
    let again = outcome.is_ok_and(|answer| matches!(answer.status.as_u16(), 502..=504));
    match Verdict::of(peer, outcome) {
        Verdict::Unclear { cause, .. }
            if !grpc && !again && outcome.is_ok_and(|answer| answer.status.is_server_error()) =>
        {
            Verdict::Never { cause }
        }
        verdict => verdict,
    }
}

/// What gRPC's status means: OTLP says which of them pass. That we are not known, or that there is no such service, it
/// would not have tried again, either; as over HTTP, the alerts wait until somebody puts that right.
fn grpc_verdict(peer: &Peer, answer: &Answer) -> Verdict {
    // An answer without a message has its status in front.
    let of = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let find =
        |name| answer.trailers.as_ref().and_then(|all| of(all, name)).or_else(|| of(&answer.headers, name));
    let Some(status) = find("grpc-status").and_then(|status| status.parse::<u8>().ok()) else {
        return Verdict::Later { after: None, cause: format!("{} does not speak gRPC", peer.url()) };
    };
    let cause = || {
        let said = peer.said(find("grpc-message").unwrap_or_default().as_bytes());
        format!("{} answers with gRPC's status {status}{said}", peer.url())
    };
    let after = find("grpc-status-details-bin").and_then(|details| retry_delay(&details));
    match status {
        0 => Verdict::Taken,
        // Resource exhausted, which passes only if the receiver says so; unavailable; unauthenticated.
        8 if after.is_some() => Verdict::Later { after, cause: cause() },
        14 | 16 => Verdict::Later { after, cause: cause() },
        // Cancelled, deadline exceeded, aborted, out of range, data loss; permission denied, unimplemented.
        1 | 4 | 10 | 11 | 15 | 7 | 12 => Verdict::Unclear { after, cause: cause() },
        _ => Verdict::Never { cause: cause() },
    }
}

/// How long to wait, of a status with `RetryInfo` in its details.
fn retry_delay(details: &str) -> Option<Duration> {
    use base64::Engine as _;
    // gRPC takes it with padding and without.
    let bytes =
        base64::engine::general_purpose::STANDARD_NO_PAD.decode(details.trim_end_matches('=')).ok()?;
    let status = proto::Status::decode(bytes.as_slice()).ok()?;
    let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = proto::RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests;
