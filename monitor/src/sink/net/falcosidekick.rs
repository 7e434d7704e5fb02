//! Falcosidekick, or whatever else takes what Falco's own HTTP output sends: one alert per request, in Falco's shape.

use bytes::Bytes;
use http::Method;
use tokio::runtime::Runtime;

use super::peer::{Peer, Protocol, Url, Verdict};
use super::settings::http_settings;
use super::suspect::Suspect;
use super::{requests, runtime, setting};
use crate::alert::{Shape, Shaper};
use crate::sink::{Deliver, OutputError, Record, Undelivered};

http_settings! {
    /// Settings of a Falcosidekick output.
    pub struct FalcosidekickConfig {
        /// Its address.
        pub url: Option<Url> = None,
    }
}

impl FalcosidekickConfig {
    /// The files that are read while it runs.
    pub fn files(&self) -> Vec<&std::path::Path> {
        self.http().files()
    }
}

/// A Falcosidekick output.
pub struct Falcosidekick {
    runtime: Runtime,
    peer: Peer,
    suspect: Suspect,
}

impl Falcosidekick {
    /// Reads the files that are named. Nothing is connected yet.
    ///
    /// # Errors
    /// A setting does not fit, or a file cannot be used.
    pub fn new(config: &FalcosidekickConfig) -> Result<Self, OutputError> {
        let missing = || setting("url", "where Falcosidekick listens, such as http://127.0.0.1:2801");
        let url = config.url.clone().ok_or_else(missing)?;
        let peer = Peer::new(url, Protocol::One, &config.http())?;
        Ok(Self { runtime: runtime()?, peer, suspect: Suspect::default() })
    }
}

impl Deliver for Falcosidekick {
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered> {
        let Self { runtime, peer, suspect } = self;
        suspect.deliver(batch, |part| {
            let mut unclear = false;
            // It knows no lists: one request each, over the same connection.
            let outcome = requests::deliver(part, 1, falco_shape, |bodies| {
                let [body] = bodies else { return Verdict::Taken };
                let outcome = runtime.block_on(peer.exchange(Method::POST, "application/json", body.clone()));
                Verdict::of(peer, outcome.as_ref()).noted(&mut unclear)
            });
            (outcome, unclear)
        })
    }
}

/// What Falco's `json_output` has: output, priority, rule, time, source, hostname, tags and `output_fields`.
fn falco_shape(record: &Record<'_>) -> Result<Bytes, String> {
    let mut shaped = Vec::new();
    Shaper::new(Shape::Falco).push(record.line, &mut shaped);
    Ok(shaped.into())
}
