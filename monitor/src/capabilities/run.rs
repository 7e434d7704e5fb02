//! What is kept of one container.

use std::collections::BTreeMap;
use std::sync::Arc;

use monitor_common::capability::{CapCount, NO_CALL, cap_flag};
use serde::{Deserialize, Serialize};

use super::calls::Calls;
use super::granted::{Place, Sets};
use crate::enrich::container::Container;
use crate::enrich::namespaces::makers;

/// Bytes of a name that are kept. Kubernetes' may have 253, images' about as many.
const MAX_TEXT: usize = 256;
/// The label by which Docker Compose remembers which service a container is of.
const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// Checks of one kind. Times are boot times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// When the first was made.
    pub first: u64,
    /// When the last was made.
    pub last: u64,
    /// Number of the system call of the last; [`NO_CALL`] outside of one.
    pub nr: u32,
    /// The ABI of that call.
    pub abi: u32,
}

impl Tally {
    /// Nothing yet.
    pub const NONE: Tally = Tally { count: 0, first: u64::MAX, last: 0, nr: NO_CALL, abi: 0 };

    /// Adds so many checks of a row of the kernel's.
    pub fn add(&mut self, more: u64, row: &CapCount) {
        self.join(&Tally {
            count: more,
            // Written by several CPUs without order.
            first: row.first_ns.min(row.last_ns),
            last: row.last_ns.max(row.first_ns),
            nr: row.last_nr,
            abi: row.last_abi.into(),
        });
    }

    /// Adds another tally.
    pub fn join(&mut self, other: &Tally) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        if other.last >= self.last {
            (self.last, self.nr, self.abi) = (other.last, other.nr, other.abi);
        }
    }
}

/// Which container it is, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The whole id that its runtime gave it.
    pub id: String,
    /// Who runs it, as `container.runtime` says.
    pub runtime: String,
    /// Its name.
    pub name: Option<String>,
    /// The image it was made from.
    pub image: Option<String>,
    /// The service of Docker Compose that it is of.
    pub service: Option<String>,
    /// Its pod's name.
    pub pod: Option<String>,
    /// The Kubernetes namespace of the pod.
    pub pod_namespace: Option<String>,
    /// The container's name in the pod.
    pub pod_container: Option<String>,
}

impl Who {
    /// What a place tells of its container.
    pub fn of(container: &Container, place: &Place) -> Self {
        let named = place.named.as_deref();
        let text = |text: Option<&String>| text.map(|text| bounded(text));
        let pod = named.and_then(|named| named.pod.as_ref());
        Who {
            id: bounded(&container.id),
            runtime: container.runtime.name().to_owned(),
            name: text(named.and_then(|named| named.name.as_ref())),
            image: text(named.and_then(|named| named.image.as_ref())),
            service: named.and_then(|named| named.labels.get(COMPOSE_SERVICE)).map(bounded),
            pod: text(pod.and_then(|pod| pod.name.as_ref())),
            pod_namespace: text(pod.and_then(|pod| pod.namespace.as_ref())),
            pod_container: text(pod.and_then(|pod| pod.container_name.as_ref())),
        }
    }

    /// Takes over what is known better now; a name that is no longer told stays. True if that changes anything.
    pub fn update(&mut self, newer: Who) -> bool {
        let Who { id: _, runtime: _, name, image, service, pod, pod_namespace, pod_container } = newer;
        let parts = [
            (&mut self.name, name),
            (&mut self.image, image),
            (&mut self.service, service),
            (&mut self.pod, pod),
            (&mut self.pod_namespace, pod_namespace),
            (&mut self.pod_container, pod_container),
        ];
        let mut changed = false;
        for (known, newer) in parts {
            changed |= newer.is_some() && *known != newer;
            *known = newer.or(known.take());
        }
        changed
    }
}

/// Of the key of a container: others than root on the host may have made its cgroup, and named it.
pub fn is_delegated(key: &str) -> bool {
    let (user, mut inside) = makers(key);
    user.is_some() || inside.next().is_some()
}

/// A text that somebody may have made long.
fn bounded(text: &str) -> String {
    if text.len() <= MAX_TEXT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_TEXT);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// What may have gone uncounted while the container ran. The kernel does not say whose checks those were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lost {
    /// Checks that found no room in the kernel's map.
    pub no_room: u64,
    /// The capabilities that the allowed ones of these asked for.
    pub allowed: u64,
    /// Runs of the probe that the kernel skipped.
    pub skipped: u64,
}

impl Lost {
    /// Whether anything is missing.
    pub fn is_any(self) -> bool {
        self.no_room > 0 || self.skipped > 0
    }

    /// The capabilities that may have been used without being counted. What a skipped run would have counted is not known.
    pub fn perhaps_used(self) -> u64 {
        if self.skipped > 0 { u64::MAX } else { self.allowed }
    }

    /// Adds what is missing of another time.
    pub fn join(&mut self, other: Lost) {
        self.no_room = self.no_room.saturating_add(other.no_room);
        self.allowed |= other.allowed;
        self.skipped = self.skipped.saturating_add(other.skipped);
    }
}

/// How much of what this daemon lost a container was told of, or cannot have lost. Another daemon counts anew, so it is
/// in no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Of checks.
    pub checks: Lost,
    /// Of system calls that could not be noted, which count as without room.
    pub calls: Lost,
}

/// What is kept of a container: all that it did since its first cgroup was seen, through restarts if its id is unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The container's whole identity ([`crate::enrich::namespaces::container_key`]).
    pub key: Arc<str>,
    /// Id of its own directory when it was first seen.
    pub cgroup: u64,
    /// What it is called.
    pub who: Who,
    /// Whether it has a user namespace of its own; `None` if that was not seen.
    pub own_user_ns: Option<bool>,
    /// What its programs were granted; `None` if none was seen.
    pub sets: Option<Sets>,
    /// Whether `sets` rests on programs that were seen to begin, and not only on `/proc`.
    pub sets_from_exec: bool,
    /// Whether one of its starts was seen whole.
    pub start_seen: bool,
    /// When it was first known, in boot time.
    pub since: u64,
    /// When it was last known to be there.
    pub until: u64,
    /// For how long it was watched, in nanoseconds; the time when the machine was suspended or no daemon ran is not in it.
    pub observed: u64,
    /// How often nobody watched while it ran: restarts of the daemon.
    pub gaps: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// Checks by capability and [`cap_flag`].
    pub rows: BTreeMap<(u16, u16), Tally>,
    /// Capabilities of passed checks by visitors in cgroups below the one in which its first program began. There its
    /// own tasks may be visitors: a systemd in it makes such cgroups and moves itself and its children there.
    pub below: u64,
    /// What programs have of their files with the effective bit: without it in the bounding set they do not begin.
    pub required: u64,
    /// Programs began and were gone before it was known what their files have.
    pub unlooked: bool,
    /// Programs began of which it is not known yet. Not a part of the record, which has them with the others.
    pub pending: bool,
    /// What may be missing.
    pub lost: Lost,
    /// Up to where it was told what was lost.
    pub heard: Heard,
    /// The system calls that it made; `None` if they were never noted.
    pub calls: Option<Calls>,
    /// Something changed since it was last written.
    pub dirty: bool,
}

/// Bits of [`cap_flag`] by which kinds of checks are told apart.
pub(super) const KINDS: u16 = cap_flag::VISITOR | cap_flag::SILENT | cap_flag::CHILD_NS | cap_flag::DENIED;
/// Bits of [`cap_flag`] that are known.
pub(super) const KNOWN_FLAGS: u16 =
    cap_flag::DENIED | cap_flag::CHILD_NS | cap_flag::SILENT | cap_flag::MAYBE_SILENT | cap_flag::VISITOR;

impl Run {
    /// A container that is seen for the first time.
    pub fn new(key: Arc<str>, cgroup: u64, who: Who, now: u64) -> Self {
        Run {
            key,
            cgroup,
            who,
            own_user_ns: None,
            sets: None,
            sets_from_exec: false,
            start_seen: false,
            since: now,
            until: now,
            observed: 0,
            gaps: 0,
            restarts: 0,
            rows: BTreeMap::new(),
            below: 0,
            required: 0,
            unlooked: false,
            pending: false,
            lost: Lost::default(),
            heard: Heard::default(),
            calls: None,
            dirty: true,
        }
    }

    /// Adds so many checks of a row. What carries bits that nobody knows is kept under them; which calls it was about
    /// only parts events.
    pub fn add(&mut self, cap: u16, flags: u16, more: u64, row: &CapCount) {
        let flags = flags & !cap_flag::GROUP;
        self.rows.entry((cap, flags)).or_insert(Tally::NONE).add(more, row);
        self.until = self.until.max(row.last_ns);
        self.dirty = true;
    }

    /// A row of a cgroup below the one in which the container's first program began.
    pub fn add_below(&mut self, cap: u16, flags: u16) {
        if flags & cap_flag::VISITOR != 0 && self.is_use(flags & !cap_flag::VISITOR) {
            self.below |= 1u64.checked_shl(cap.into()).unwrap_or(0);
        }
    }

    /// Adds what its programs were granted.
    pub fn grant(&mut self, sets: Sets, from_exec: bool) {
        let before = (self.sets, self.sets_from_exec);
        self.sets.get_or_insert_default().join(sets);
        self.sets_from_exec |= from_exec;
        self.dirty |= before != (self.sets, self.sets_from_exec);
    }

    /// Adds what programs have of their files.
    pub fn require(&mut self, caps: u64, unlooked: bool) {
        let before = (self.required, self.unlooked);
        self.required |= caps;
        self.unlooked |= unlooked;
        self.dirty |= before != (self.required, self.unlooked);
    }

    /// The capabilities that its own tasks used: checks that were passed where the container's rights count, and by which
    /// the kernel did more than look.
    pub fn used(&self) -> u64 {
        let used = self.rows.keys().filter(|(_, flags)| self.is_use(*flags));
        used.fold(0, |mask, (cap, _)| mask | 1u64.checked_shl((*cap).into()).unwrap_or(0))
    }

    /// Whether checks of this kind are use: its own tasks passed them where the container's rights count, and the kernel did
    /// more than look.
    fn is_use(&self, flags: u16) -> bool {
        match flags & KINDS {
            0 => true,
            cap_flag::CHILD_NS => self.own_user_ns == Some(true),
            _ => false,
        }
    }

    /// See [`is_delegated`].
    pub fn is_delegated(&self) -> bool {
        is_delegated(&self.key)
    }

    /// Checks that were counted, all together.
    pub fn checks(&self) -> u64 {
        self.rows.values().fold(0, |sum, tally| sum.saturating_add(tally.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_calls_a_row_was_about_parts_no_counts() {
        let mut run = Run::new(Arc::from("key"), 7, Who::default(), 1);
        let row = CapCount::default();
        for group in [0, 1, 5] {
            run.add(21, cap_flag::DENIED | group << cap_flag::GROUP_SHIFT, 2, &row);
        }
        assert_eq!(run.rows.len(), 1);
        assert_eq!(run.checks(), 6);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let cut = bounded(&"ä".repeat(300));
        assert!(cut.len() <= MAX_TEXT + 3 && cut.ends_with('…'), "{cut}");
        assert_eq!(bounded("web"), "web");
    }

    #[test]
    fn a_tally_keeps_the_outer_times_and_the_last_call() {
        let mut tally = Tally::NONE;
        let row = |first_ns, last_ns, last_nr| CapCount {
            count: 9,
            first_ns,
            last_ns,
            last_nr,
            last_abi: 0,
            last_tick: 0,
        };
        tally.add(2, &row(50, 60, 1));
        tally.add(3, &row(10, 20, 2));
        assert_eq!(tally, Tally { count: 5, first: 10, last: 60, nr: 1, abi: 0 });
        tally.add(u64::MAX, &row(70, 80, 3));
        assert_eq!((tally.count, tally.nr), (u64::MAX, 3));
    }

    #[test]
    fn a_name_that_is_no_longer_told_stays() {
        let mut who = Who { name: Some("web".into()), ..Who::default() };
        assert!(who.update(Who { image: Some("nginx".into()), ..Who::default() }));
        assert!(!who.update(Who { image: Some("nginx".into()), ..Who::default() }));
        assert_eq!((who.name.as_deref(), who.image.as_deref()), (Some("web"), Some("nginx")));
        who.update(Who { name: Some("www".into()), ..Who::default() });
        assert_eq!(who.name.as_deref(), Some("www"));
    }
}
