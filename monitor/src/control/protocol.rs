//! What is said over the control socket.
//!
//! The names of requests and members stay; new ones may come. A daemon refuses a request with members that it does
//! not know, since it would answer another question; a client skips what it does not know in an answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capabilities::CapsListing;
use crate::control::{Status, TopListing};
use crate::watchers::Sight;

/// Bytes that a request may have, its line feed included.
pub(super) const MAX_REQUEST: usize = 4096;

/// A question, such as `{"request":"containers"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    // With braces, because serde lets unknown members of a bare variant pass.
    /// Every container that is known.
    Containers {},
    /// How the daemon is.
    Status {},
    /// What containers were granted of capabilities, and what they did with them.
    Caps {
        /// Only those that this id, beginning of an id, or name stands for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
    /// What containers try, what is refused, lost and alerted.
    Top {
        /// Only this one, by its whole id, with its counts by call and rule.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<String>,
    },
    /// Events or alerts as they come. After the answer, a line of JSON each, with [`Notice`]s between them.
    Watch {
        /// Which of both.
        #[serde(default)]
        sight: Sight,
        /// A condition as in rules, whose macros and lists it may use: only those whose event fits it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
    },
}

/// An answer, such as `{"containers":{"known":[…],"omitted":0}}` or `{"error":{…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Containers`].
    Containers(Listing),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Caps`].
    Caps(Box<CapsListing>),
    /// To [`Request::Top`].
    Top(Box<TopListing>),
    /// To [`Request::Watch`]: what follows is seen from here on.
    Watching(WatchStart),
    /// There is no answer.
    Error(Refusal),
}

/// What is being watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStart {
    /// Events or alerts.
    pub sight: Sight,
    /// The condition that they must fit.
    pub filter: Option<String>,
}

/// What is said between events or alerts, such as `{"missed":12}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// So many were not sent here: the client was slower than they came, or too many came to look at each.
    Missed(u64),
    /// That was all, and why.
    End(String),
}

/// The known containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// In the order of the cgroup tree; those in users' own slices come last.
    pub known: Vec<ContainerInfo>,
    /// How many more are known, for which the answer had no room.
    pub omitted: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A word for programs: `denied`, `malformed`, `too_long`, `slow`, `unavailable`.
    pub reason: String,
    /// A sentence for people with the remedy.
    pub message: String,
}

/// A container, as the daemon knows it. What is not known is `null` or missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// The whole id that its runtime gave it.
    pub id: String,
    /// Its name; a very long one is cut and ends with `…`, as all names here.
    pub name: Option<String>,
    /// The image it was made from, as its runtime's files name it.
    pub image: Option<String>,
    /// Whether what its runtime wrote about it was read: `complete`, `pending` or `missing`.
    pub metadata: String,
    /// Why it is missing, as the label `reason` of the metrics has it.
    pub metadata_miss: Option<String>,
    /// Who runs it, as `container.runtime` says.
    pub runtime: String,
    /// Its Kubernetes pod.
    pub pod: Option<Pod>,
    /// How far it is.
    pub phase: Phase,
    /// Processes that are in it, those of containers inside it not counted.
    pub processes: u32,
    /// Inode numbers of its namespaces by kind (`mnt`, `pid`, …).
    pub namespaces: BTreeMap<String, u32>,
    /// The kinds of those that are the host's own.
    pub host_namespaces: Vec<String>,
    /// Id of its directory in the cgroup hierarchy by which containers are known.
    pub cgroup_id: u64,
    /// That directory below the hierarchy's root, with bytes that are not UTF-8 as `\xHH` and backslashes doubled.
    pub cgroup_path: String,
    /// Ids of the containers it is nested in, itself first.
    pub chain: Vec<String>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its UID.
    pub uid: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The namespace it is in.
    pub namespace: Option<String>,
    /// The container's name in it; none for the pod's sandbox.
    pub container_name: Option<String>,
}

/// How far a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Its cgroup exists, and no process in it is known.
    Empty,
    /// Its runtime still builds it.
    Starting,
    /// It runs a program of its own.
    Running,
    /// Its cgroup is gone; it is forgotten a minute later.
    Ended,
}

impl Phase {
    /// The word in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Empty => "empty",
            Phase::Starting => "starting",
            Phase::Running => "running",
            Phase::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let read = |text| serde_json::from_str::<Request>(text).ok();
        assert_eq!(read(r#"{"request":"containers"}"#), Some(Request::Containers {}));
        let caps = |container: Option<&str>| Request::Caps { container: container.map(str::to_owned) };
        assert_eq!(read(r#"{"request":"caps"}"#), Some(caps(None)));
        assert_eq!(read(r#"{"request":"caps","container":"web"}"#), Some(caps(Some("web"))));
        assert_eq!(serde_json::to_string(&caps(None)).unwrap(), r#"{"request":"caps"}"#);
        assert_eq!(read(" {\"request\" : \"containers\"}\r\n"), Some(Request::Containers {}));
        assert_eq!(read(r#"{"request":"status"}"#), Some(Request::Status {}));
        let wrong = [
            "",
            r#"{"request":"status","all":true}"#,
            r#"{"request":"caps","containers":"web"}"#,
            r#"{"request":"caps","container":1}"#,
            "containers",
            "\"containers\"",
            "[]",
            "{}",
            r#"{"request":"stop"}"#,
            r#"{"request":"Containers"}"#,
            r#"{"request":"containers","all":true}"#,
            r#"{"request":"containers","request":"containers"}"#,
            r#"{"request":["containers"]}"#,
            r#"{"request":"containers"}{"request":"containers"}"#,
        ];
        for text in wrong {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn words_of_phases_are_those_of_json() {
        for phase in [Phase::Empty, Phase::Starting, Phase::Running, Phase::Ended] {
            assert_eq!(serde_json::to_value(phase).unwrap(), phase.name());
        }
    }
}
