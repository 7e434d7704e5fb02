//! Alertmanager, by version 2 of its API.
//!
//! What it groups by must not be unique to each alert, so labels are of few values: which rule, how bad, where. What
//! happened stands in annotations. Something that happened has no end; its alert ends by itself after `resolve_after_s`
//! without another, counted from the moment of delivery, so that one that waited in a spool is not born ended.
//!
//! Alertmanagers of a cluster do not tell each other of alerts: each must be told. A record counts as taken when one of
//! them took it, as with Prometheus; one that is away is left alone for a growing while and costs the others nothing.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::alert::Alert;
use super::peer::{Peer, Protocol, Url, Verdict};
use super::settings::http_settings;
use super::suspect::Suspect;
use super::{requests, runtime, setting};
use crate::rules::Priority;
use crate::sink::{Deliver, OutputError, Record, Undelivered};

/// Alertmanagers of one output.
const MAX_PEERS: usize = 16;

/// Alerts in one request.
const MAX_ALERTS: usize = 256;

/// How long the others may take once one took the alerts. They go on to get each of them, if they are not slower.
const GRACE: Duration = Duration::from_secs(1);

/// How long one that did not answer is left alone while another takes the alerts, at first and at most.
const LEFT_ALONE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

http_settings! {
    /// Settings of an Alertmanager output.
    pub struct AlertmanagerConfig {
        /// Addresses of all Alertmanagers of the cluster, without `/api/v2`.
        pub urls: Vec<Url> = Vec::new(),
        /// Seconds after which an alert that does not come again has ended.
        pub resolve_after_s: u64 = 300,
        /// Labels that every alert gets, such as the cluster's name.
        pub labels: std::collections::BTreeMap<String, String> = Default::default(),
        /// Where a link in a notification leads.
        pub generator_url: Option<String> = None,
    }
}

impl AlertmanagerConfig {
    /// The files that are read while it runs.
    pub fn files(&self) -> Vec<&std::path::Path> {
        self.http().files()
    }
}

/// An Alertmanager output.
pub struct Alertmanager {
    config: AlertmanagerConfig,
    runtime: Runtime,
    peers: Vec<Member>,
    suspect: Suspect,
}

struct Member {
    peer: Peer,
    /// How long it is left alone the next time.
    pause: Duration,
    until: Option<Instant>,
    told: bool,
}

impl Alertmanager {
    /// Reads the files that are named. Nothing is connected yet.
    ///
    /// # Errors
    /// A setting does not fit, or a file cannot be used.
    pub fn new(config: &AlertmanagerConfig) -> Result<Self, OutputError> {
        if !(1..=MAX_PEERS).contains(&config.urls.len()) {
            return Err(setting("urls", format!("1 to {MAX_PEERS} addresses")));
        }
        if config.labels.keys().any(|name| !is_label(name)) {
            return Err(setting("labels", "a name has letters, digits and underscores"));
        }
        if !(1..=86_400).contains(&config.resolve_after_s) {
            return Err(setting("resolve_after_s", "1 to 86400"));
        }
        let peers = config.urls.iter().map(|url| {
            let url = url.join("/api/v2/alerts").map_err(|reason| setting("urls", reason))?;
            let peer = Peer::new(url, Protocol::One, &config.http())?;
            Ok(Member { peer, pause: LEFT_ALONE.0, until: None, told: false })
        });
        let peers: Result<_, OutputError> = peers.collect();
        let suspect = Suspect::default();
        Ok(Self { config: config.clone(), runtime: runtime()?, peers: peers?, suspect })
    }
}

impl Member {
    fn judged(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Later { cause, .. } | Verdict::Unclear { cause, .. } => {
                self.until = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(LEFT_ALONE.1);
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(peer = %self.peer.url(), cause, "this Alertmanager is left alone for now");
                }
            }
            Verdict::Taken | Verdict::Never { .. } => {
                if std::mem::take(&mut self.told) {
                    tracing::info!(peer = %self.peer.url(), "this Alertmanager takes alerts again");
                }
                (self.pause, self.until) = (LEFT_ALONE.0, None);
            }
        }
    }
}

/// Of two answers the one that counts: taken by one is taken; else the hope that one will.
fn better(one: Verdict, other: Verdict) -> Verdict {
    match (&one, &other) {
        (Verdict::Taken, _) | (_, Verdict::Never { .. }) => one,
        (_, Verdict::Taken) | (Verdict::Never { .. }, _) => other,
        // Who answered knows more than who did not.
        (Verdict::Unclear { .. }, Verdict::Later { .. }) => one,
        (Verdict::Later { .. }, Verdict::Unclear { .. }) => other,
        (Verdict::Unclear { after: a, .. }, Verdict::Unclear { after: b, .. })
        | (Verdict::Later { after: a, .. }, Verdict::Later { after: b, .. }) => {
            if b < a {
                other
            } else {
                one
            }
        }
    }
}

impl Deliver for Alertmanager {
    fn deliver(&mut self, batch: &[Record<'_>]) -> Result<(), Undelivered> {
        let Self { config, runtime, peers, suspect } = self;
        suspect.deliver(batch, |part| {
            let mut unclear = false;
            let outcome = requests::deliver(
                part,
                MAX_ALERTS,
                |record| alert(config, record, SystemTime::now()),
                |alerts| post(runtime, peers, &Value::from(alerts).to_string().into()).noted(&mut unclear),
            );
            (outcome, unclear)
        })
    }
}

/// Sends one body to all at once and judges: the best answer counts.
fn post(runtime: &Runtime, members: &mut [Member], body: &Bytes) -> Verdict {
    let now = Instant::now();
    // If nobody is left to ask, all are.
    let all = members.iter().all(|member| member.until.is_some_and(|until| until > now));
    let asked = members.iter_mut().filter(|m| all || m.until.is_none_or(|until| until <= now));
    runtime.block_on(async {
        // Once one has taken it, the others have a moment more, and are left alone if they do not use it.
        let taken = Notify::new();
        let all = join_all(asked.map(|member| async {
            let exchange = member.peer.exchange(Method::POST, "application/json", body.clone());
            let late = async {
                taken.notified().await;
                tokio::time::sleep(GRACE).await;
            };
            let outcome = tokio::select! {
                biased;
                outcome = exchange => outcome,
                () = late => Err(format!("no answer within {} ms after another took it", GRACE.as_millis())),
            };
            let verdict = Verdict::of(&member.peer, outcome.as_ref());
            member.judged(&verdict);
            if verdict == Verdict::Taken {
                taken.notify_waiters();
            }
            verdict
        }));
        all.await.into_iter().reduce(better).unwrap_or(Verdict::Taken)
    })
}

fn is_label(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What routes of Alertmanager know: three levels.
const fn level(priority: Priority) -> &'static str {
    match priority {
        Priority::Emergency | Priority::Alert | Priority::Critical => "critical",
        Priority::Error | Priority::Warning => "warning",
        Priority::Notice | Priority::Informational | Priority::Debug => "info",
    }
}

fn alert(config: &AlertmanagerConfig, record: &Record<'_>, now: SystemTime) -> Result<Value, String> {
    let alert = Alert::read(record.line)?;
    let mut labels = Map::new();
    let mut label = |name: &str, value: &str| {
        // An empty label is none.
        if !value.is_empty() {
            labels.insert(name.to_owned(), value.into());
        }
    };
    for (name, value) in &config.labels {
        label(name, value);
    }
    label("alertname", if alert.rule_id.is_empty() { &alert.rule } else { &alert.rule_id });
    label("severity", level(record.priority));
    label("priority", record.priority.as_str());
    label("source", "ringfence");
    label("node", &alert.hostname);
    // A container without a known name is told from others by its id.
    let container = alert.text("k8s.container.name").or_else(|| alert.text("container.name"));
    label("container", &container.or_else(|| alert.text("container.id")).unwrap_or_default());
    label("pod", &alert.text("k8s.pod.name").unwrap_or_default());
    label("namespace", &alert.text("k8s.ns.name").unwrap_or_default());
    let mut annotations = Map::new();
    annotations.insert("summary".to_owned(), (*alert.rule).into());
    annotations.insert("description".to_owned(), (*alert.sentence()).into());
    annotations.insert("time".to_owned(), (*alert.time).into());
    for (name, value) in [
        ("tags", Some(alert.tags.join(" ").into())),
        ("attack", Some(alert.attack.join(" ").into())),
        ("container_id", alert.text("container.id")),
        ("image", alert.text("container.image")),
        ("process", alert.text("proc.exepath")),
        ("command_line", alert.text("proc.cmdline")),
        ("verdict", alert.text("evt.verdict")),
        ("group_count", alert.text("group.count")),
        ("group_first", alert.text("group.first")),
        ("group_last", alert.text("group.last")),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            annotations.insert(name.to_owned(), value.into());
        }
    }
    // A clock that was set back must not make it end before it began.
    let began = humantime::parse_rfc3339(&alert.time).map_or(now, |began| began);
    let ends = now.max(began) + Duration::from_secs(config.resolve_after_s);
    let mut alert = json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": humantime::format_rfc3339_nanos(began).to_string(),
        "endsAt": humantime::format_rfc3339_nanos(ends).to_string(),
    });
    if let (Some(url), Some(alert)) = (&config.generator_url, alert.as_object_mut()) {
        alert.insert("generatorURL".to_owned(), url.as_str().into());
    }
    Ok(alert)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::net::testing::line;

    fn made(priority: Priority, now: &str) -> Value {
        made_of(&line(), priority, now)
    }

    fn made_of(line: &str, priority: Priority, now: &str) -> Value {
        let config = AlertmanagerConfig {
            labels: [("cluster".to_owned(), "lab".to_owned())].into(),
            ..AlertmanagerConfig::default()
        };
        let now = humantime::parse_rfc3339(now).unwrap();
        alert(&config, &Record { line: line.as_bytes(), priority }, now).unwrap()
    }

    #[test]
    fn an_alert_as_alertmanager_has_it() {
        let alert = made(Priority::Warning, "2026-11-23T19:46:00Z");
        assert_eq!(
            alert["labels"],
            json!({"cluster": "lab", "alertname": "userns-in-container", "severity": "warning",
                "priority": "Warning", "source": "ringfence", "node": "node-1",
                "container": "shop \"front\"]", "pod": "shop-7d9c", "namespace": "web"})
        );
        assert_eq!(alert["startsAt"], "2026-11-23T19:45:46.123456789Z");
        assert_eq!(alert["endsAt"], "2026-11-23T19:51:00.000000000Z");
        assert_eq!(alert["annotations"]["summary"], "User namespace made in a container");
        assert_eq!(alert["annotations"]["tags"], "container T1611");
        assert_eq!(alert["annotations"]["process"], "/usr/bin/ev]il");
    }

    #[test]
    fn a_summary_has_its_count() {
        let alert = made_of(&crate::sink::net::testing::summary(), Priority::Warning, "2026-11-23T19:47:00Z");
        assert_eq!(alert["annotations"]["group_count"], "12");
        assert_eq!(alert["annotations"]["group_first"], "2026-11-23T19:45:46.123456789Z");
        assert_eq!(alert["annotations"]["group_last"], "2026-11-23T19:46:40.000000000Z");
        assert!(alert["annotations"]["description"].as_str().unwrap().contains("(for 12 alike, from "));
        assert_eq!(
            made(Priority::Warning, "2026-11-23T19:46:00Z")["annotations"]["group_count"],
            Value::Null
        );
    }

    #[test]
    fn a_clock_that_was_set_back_ends_nothing_early() {
        let alert = made(Priority::Warning, "2020-01-01T00:00:00Z");
        assert_eq!(alert["endsAt"], "2026-11-23T19:50:46.123456789Z");
        assert_eq!(made(Priority::Critical, "2026-11-23T19:46:00Z")["labels"]["severity"], "critical");
        assert_eq!(made(Priority::Debug, "2026-11-23T19:46:00Z")["labels"]["severity"], "info");
    }

    #[test]
    fn one_that_took_it_is_enough() {
        let later = |after| Verdict::Later { after, cause: String::new() };
        let never = || Verdict::Never { cause: String::new() };
        let unclear = || Verdict::Unclear { after: None, cause: String::new() };
        for (one, other, both) in [
            (Verdict::Taken, later(None), Verdict::Taken),
            (never(), Verdict::Taken, Verdict::Taken),
            (never(), later(None), later(None)),
            (unclear(), later(None), unclear()),
            (unclear(), Verdict::Taken, Verdict::Taken),
            (never(), never(), never()),
        ] {
            assert_eq!(better(one.clone(), other.clone()), both);
            assert_eq!(better(other, one), both);
        }
        let (soon, late) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(9)));
        assert_eq!(better(later(late), later(soon)), later(soon));
    }

    #[test]
    fn one_that_hangs_costs_a_moment_once() {
        use crate::sink::net::testing::{Server, answer, deliver};
        let ok = answer("200 OK", "", "");
        // One answer more than there are requests, so that the connection stays.
        let (hung, well) = (Server::new(&["", "end"]), Server::new(&[&ok, &ok]));
        let urls = [&hung, &well].map(|server| server.url("").parse().unwrap()).to_vec();
        let config = AlertmanagerConfig { urls, ..AlertmanagerConfig::default() };
        let mut sink = Alertmanager::new(&config).unwrap();
        let started = Instant::now();
        deliver(&mut sink, Priority::Error, &[line()]).unwrap();
        assert!(started.elapsed() < Duration::from_millis(config.timeout_ms) / 2);
        // It is left alone now.
        assert!(sink.peers[0].until.is_some() && sink.peers[1].until.is_none());
        deliver(&mut sink, Priority::Error, &[line()]).unwrap();
        assert_eq!(well.requests().len(), 2);
    }

    #[test]
    fn settings_that_do_not_fit() {
        let config = AlertmanagerConfig::default();
        assert!(Alertmanager::new(&config).map(drop).unwrap_err().to_string().starts_with("`urls`"));
        let urls = vec!["http://127.0.0.1:9093".parse().unwrap()];
        let labels = [("a-b".to_owned(), String::new())].into();
        let config = AlertmanagerConfig { urls, labels, ..AlertmanagerConfig::default() };
        assert!(Alertmanager::new(&config).map(drop).unwrap_err().to_string().starts_with("`labels`"));
    }
}
