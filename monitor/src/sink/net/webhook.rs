//! Webhooks: each alert, or some together, as JSON of the receiver's choice.

mod slack;
mod template;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Runtime;

use self::template::Template;
use super::alert::Alert;
use super::peer::{Peer, Protocol, Url, Verdict};
use super::secret::Secret;
use super::settings::http_settings;
use super::suspect::Suspect;
use super::{requests, runtime, setting};
use crate::alert::{Shape, Shaper};
use crate::sink::{Deliver, OutputError, Record, Undelivered};

/// Alerts in one request, at most.
const BATCH: std::ops::RangeInclusive<usize> = 1..=1000;

/// Which method a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the methods of HTTP")]
pub enum HookMethod {
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
}

/// What a request says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookTemplate {
    /// The alert in the output's shape.
    Generic,
    /// A message for Slack, Mattermost or Rocket.Chat.
    Slack,
}

http_settings! {
    /// Settings of a webhook.
    pub struct WebhookConfig {
        /// Where requests go.
        pub url: Option<Url> = None,
        /// A file with that address, if it is a secret, as Slack's are.
        pub url_file: Option<PathBuf> = None,
        /// An environment variable with it.
        pub url_env: Option<String> = None,
        /// POST or PUT.
        pub method: HookMethod = HookMethod::Post,
        /// What a request says.
        pub template: HookTemplate = HookTemplate::Generic,
        /// The shape of a generic one.
        pub shape: Shape = Shape::default(),
        /// A file with a template of one's own, instead.
        pub template_file: Option<PathBuf> = None,
        /// Whether values in that template are written for Slack, with `&amp;`, `&lt;` and `&gt;`.
        pub escape_slack: bool = false,
        /// Alerts in one request. With more than one, a request is a list of JSON.
        pub batch: usize = 1,
    }
}

impl WebhookConfig {
    /// The files that are read while it runs.
    pub fn files(&self) -> Vec<&Path> {
        self.http().files().into_iter().chain(self.url_file.as_deref()).collect()
    }
}

/// A webhook.
pub struct Webhook {
    config: WebhookConfig,
    runtime: Runtime,
    body: Body,
    secret: Option<(Secret, String)>,
    peer: Peer,
    suspect: Suspect,
}

enum Body {
    Generic,
    Slack,
    Own(Template),
}

impl Webhook {
    /// Reads the files that are named. Nothing is connected yet.
    ///
    /// # Errors
    /// A setting does not fit, or a file cannot be used.
    pub fn new(config: &WebhookConfig) -> Result<Self, OutputError> {
        let secret =
            Secret::find(["url_file", "url_env"], config.url_file.as_deref(), config.url_env.as_deref())?;
        let (url, secret) = match (&config.url, secret) {
            (Some(url), None) => (url.clone(), None),
            (None, Some(mut secret)) => {
                let text = secret.current().map_err(|reason| setting("url_file", reason))?.to_owned();
                let url = text.parse().map_err(|reason: String| setting("url_file", reason))?;
                (url, Some((secret, text)))
            }
            (Some(_), Some(_)) => return Err(setting("url", "give this or `url_file`, not both")),
            (None, None) => return Err(setting("url", "where do requests go?")),
        };
        if !BATCH.contains(&config.batch) {
            return Err(setting("batch", format!("1 to {}", BATCH.end())));
        }
        let body = match (&config.template_file, config.template) {
            (Some(path), HookTemplate::Generic) => Body::Own(Template::read(path, config.escape_slack)?),
            (Some(_), HookTemplate::Slack) => {
                return Err(setting("template_file", "give this or `template`, not both"));
            }
            (None, HookTemplate::Generic) => Body::Generic,
            (None, HookTemplate::Slack) => Body::Slack,
        };
        let peer = Peer::new(url, Protocol::One, &config.http())?;
        let suspect = Suspect::default();
        Ok(Self { config: config.clone(), runtime: runtime()?, body, secret, peer, suspect })
    }

    /// Turns to the address that its file has now, if it changed.
    fn turn(&mut self) -> Result<(), String> {
        let Some((secret, known)) = &mut self.secret else { return Ok(()) };
        let now = secret.current()?;
        if now != known {
            let url = now.parse()?;
            self.peer =
                Peer::new(url, Protocol::One, &self.config.http()).map_err(|error| error.to_string())?;
            now.clone_into(known);
        }
        Ok(())
    }
}

impl Deliver for Webhook {
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered> {
        self.turn().map_err(|cause| Undelivered::retry(0, cause))?;
        let Self { config, runtime, body, peer, suspect, .. } = self;
        let body = &*body;
        let method = match config.method {
            HookMethod::Post => Method::POST,
            HookMethod::Put => Method::PUT,
        };
        let (most, shaper) = (config.batch, Shaper::new(config.shape));
        let shape = |record: &Record<'_>| -> Result<Vec<u8>, String> {
            let text = match body {
                Body::Generic => {
                    let mut shaped = Vec::new();
                    shaper.push(record.line, &mut shaped);
                    return Ok(shaped);
                }
                Body::Slack => slack::message(&Alert::read(record.line)?, record.priority).to_string(),
                Body::Own(template) => {
                    let whole: Value = serde_json::from_slice(record.line)
                        .map_err(|error| format!("the alert is no line of ours: {error}"))?;
                    template.fill(&whole).to_string()
                }
            };
            Ok(text.into_bytes())
        };
        suspect.deliver(batch, |part| {
            let mut unclear = false;
            let outcome = requests::deliver(part, most, shape, |alerts| {
                let body = match alerts {
                    [alert] if most == 1 => alert.clone(),
                    alerts => [&b"["[..], &alerts.join(&b","[..]), b"]"].concat(),
                };
                let exchange = peer.exchange(method.clone(), "application/json", Bytes::from(body));
                let outcome = runtime.block_on(exchange);
                Verdict::of(peer, outcome.as_ref()).noted(&mut unclear)
            });
            (outcome, unclear)
        })
    }
}

#[cfg(test)]
mod tests;
