//! What is told of a container: times on the wall clock, names instead of numbers. The same over the control socket, from
//! the state directory, and as JSON for programs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use monitor_common::capability::cap_flag;
use serde::{Deserialize, Serialize};

use super::calls::{Calls, CallsInfo};
use super::granted::Sets;
use super::names::{call_name, cap_name, cap_names};
use super::run::{KINDS, Lost, Run, Tally};
use super::table::{Kept, Shortage};
use crate::control::{Pod, rfc3339};
use crate::enrich::container::is_id;
use crate::enrich::namespaces::makers;

/// Checks of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// When the first was made, RFC 3339.
    pub first: String,
    /// When the last was made.
    pub last: String,
    /// The system call of the last; none outside of one, such as a page fault.
    pub last_call: Option<String>,
    /// Of how many the kernel does not say whether it only looked.
    pub perhaps_silent: u64,
}

/// A capability in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapInfo {
    /// `CAP_NET_ADMIN` and so on.
    pub capability: String,
    /// `permitted` (programs began with it), `bounding` (set-uid programs and file capabilities can give it), `no`; none if
    /// no sets are known.
    pub granted: Option<String>,
    /// Checks by the container's own tasks that it passed.
    pub used: Option<Count>,
    /// Those that it failed.
    pub refused: Option<Count>,
    /// Passed in another user namespace than the initial one.
    pub used_in_child: Option<Count>,
    /// Failed there.
    pub refused_in_child: Option<Count>,
    /// Passed when the kernel only looked.
    pub silent_allowed: Option<Count>,
    /// Failed when the kernel only looked: no refusal of what was asked for.
    pub silent_denied: Option<Count>,
    /// Checks by the runtime that builds or enters the container, whatever came of them.
    pub runtime: Option<Count>,
    /// Some of these were passed in a cgroup below the one in which the container's first program began: there they may
    /// be the container's own, such as those of a systemd in it that has moved a child.
    #[serde(default)]
    pub runtime_below: bool,
    /// A program has it of its file with the effective bit, and does not begin where the bounding set is without it.
    #[serde(default)]
    pub needed_by_file: bool,
}

/// What programs of a container were granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedInfo {
    /// What an exec could give at most.
    pub bounding: Vec<String>,
    /// What programs began with.
    pub permitted: Vec<String>,
    /// What passes an exec without file capabilities.
    pub ambient: Vec<String>,
    /// `exec` if programs were seen to begin; `proc` if only running ones were looked at.
    pub from: String,
}

/// What may be missing of a container's checks. The kernel does not say whose they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostInfo {
    /// Checks that found no room in the kernel's map while it ran, of all containers together.
    pub no_room: u64,
    /// The capabilities that the allowed ones of these asked for.
    pub capabilities: Vec<String>,
    /// Runs of the counting probe that the kernel skipped while it ran.
    pub skipped: u64,
}

/// What is known of a container's capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsInfo {
    /// The whole id that its runtime gave it.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// The image it was made from.
    pub image: Option<String>,
    /// Who runs it, as `container.runtime` says.
    pub runtime: String,
    /// The service of Docker Compose that it is of.
    pub compose_service: Option<String>,
    /// Its Kubernetes pod.
    pub pod: Option<Pod>,
    /// The user other than root in whose slice of the host it lies, and who may name it at will.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Ids of the containers that it lies in, the deepest first; they may name it at will.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<String>,
    /// Whether it runs.
    pub running: bool,
    /// When it was first known, RFC 3339.
    pub since: String,
    /// When it was last known to be there.
    pub until: String,
    /// For how long it was watched.
    pub observed_seconds: u64,
    /// Whether one of its starts was seen whole; otherwise it ran already.
    pub start_seen: bool,
    /// How often it went on while no daemon watched.
    pub gaps: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// Whether it has a user namespace of its own.
    pub own_user_namespace: Option<bool>,
    /// What it was granted; none if no program was seen.
    pub granted: Option<GrantedInfo>,
    /// Every capability that it was granted or that was asked for, by number. Left out of answers about all containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<CapInfo>,
    /// How many there are of each kind: in answers about all containers, in place of `granted` and `capabilities`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// Programs ended before it was known which capabilities their files have.
    #[serde(default)]
    pub files_unseen: bool,
    /// What may be missing.
    pub lost: LostInfo,
    /// The system calls that it made, where they were noted. Left out of answers about all containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<CallsInfo>,
}

/// Who may have named a container, the most trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Maker {
    /// Root on the host.
    Root,
    /// The user in whose slice it lies.
    User,
    /// A container that it lies in.
    Container,
}

/// Numbers of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// That it was granted; none if no sets are known.
    pub granted: Option<usize>,
    /// That its own tasks used.
    pub used: usize,
    /// That they were refused.
    pub refused: usize,
    /// That it was granted and did not use nor need; none if no sets are known.
    pub unused: Option<usize>,
}

impl CapInfo {
    /// Whether programs had it or could get it.
    pub fn is_granted(&self) -> bool {
        matches!(self.granted.as_deref(), Some("permitted" | "bounding"))
    }
}

impl CapsInfo {
    /// Who may have named it.
    pub fn maker(&self) -> Maker {
        match (self.inside.is_empty(), self.user) {
            (true, None) => Maker::Root,
            (true, Some(_)) => Maker::User,
            (false, _) => Maker::Container,
        }
    }

    /// The checks that count as use of a capability of the container's. In a container with a user namespace of its own
    /// those are the ones asked in it.
    pub fn used<'i>(&self, cap: &'i CapInfo) -> Option<&'i Count> {
        let own = self.own_user_namespace == Some(true);
        cap.used.as_ref().or(cap.used_in_child.as_ref().filter(|_| own))
    }

    /// Whether it may have used a capability without being counted: while it ran passed checks for it found no room, or the
    /// kernel skipped checks, and nobody knows what for.
    pub fn may_be_uncounted(&self, cap: &CapInfo) -> bool {
        self.lost.skipped > 0 || self.lost.capabilities.contains(&cap.capability)
    }

    /// Whether a capability was granted, never used, and no program's file has it, as far as that can be known.
    pub fn is_unused(&self, cap: &CapInfo) -> bool {
        let is_needed = cap.runtime_below || cap.needed_by_file;
        cap.is_granted() && self.used(cap).is_none() && !is_needed && !self.may_be_uncounted(cap)
    }

    /// The numbers of its capabilities.
    pub fn summary(&self) -> Summary {
        self.summary.unwrap_or_else(|| {
            let count =
                |is: &dyn Fn(&CapInfo) -> bool| self.capabilities.iter().filter(|cap| is(cap)).count();
            let known = self.granted.is_some();
            Summary {
                granted: known.then(|| count(&CapInfo::is_granted)),
                used: count(&|cap| self.used(cap).is_some()),
                refused: count(&|cap| cap.refused.is_some()),
                unused: known.then(|| count(&|cap| self.is_unused(cap))),
            }
        })
    }

    /// Leaves of what would take kilobytes only the numbers, for a list of many.
    pub fn shorten(&mut self) {
        self.summary = Some(self.summary());
        (self.granted, self.capabilities, self.calls) = (None, Vec::new(), None);
    }
}

/// What `caps` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsListing {
    /// Those first that others than root on the host cannot have made; of these and of the others the running ones first,
    /// each group the latest first.
    pub containers: Vec<CapsInfo>,
    /// How many more there are, for which the answer had no room.
    pub omitted: u64,
    /// Ended containers that were forgotten for newer ones, since the daemon's start.
    pub forgotten: u64,
    /// Containers that found no room, or whose names are too long to be kept, since the daemon's start.
    pub refused: u64,
    /// Checks by cgroups that nobody could name, since the daemon's start.
    pub unattributed: u64,
}

/// Everything that is kept, with times on the wall clock: `runs` of the boot `boot`, which began at `offset`, and the
/// `kept` ones.
pub(super) fn listing<'r>(
    runs: impl Iterator<Item = (&'r Run, bool)>,
    kept: impl Iterator<Item = &'r Kept>,
    boot: &str,
    offset: i64,
    shortage: Shortage,
) -> CapsListing {
    let mut told: HashMap<Arc<str>, Told> = HashMap::new();
    let mut others: Vec<Told> = Vec::new();
    let all = kept
        // The offset of this boot is known better now.
        .map(|kept| Told::new(&kept.run, if *kept.boot == *boot { offset } else { kept.offset }, false))
        .chain(runs.map(|(run, running)| Told::new(run, offset, running)));
    for one in all {
        match told.get_mut(&one.run.key) {
            // The same container, before and after a restart of the machine.
            Some(known) if one.is_unique() => known.join(one),
            // A name that was given again.
            Some(known) => others.push(std::mem::replace(known, one)),
            None => {
                told.insert(Arc::clone(&one.run.key), one);
            }
        }
    }
    let mut told: Vec<Told> = told.into_values().chain(others).collect();
    // Whoever makes many pushes nobody else out of an answer.
    told.sort_by_cached_key(|one| {
        let Told { run, running } = one;
        (run.is_delegated(), Reverse((*running, run.until)), Arc::clone(&run.key))
    });
    CapsListing {
        containers: told.into_iter().map(Told::info).collect(),
        omitted: 0,
        forgotten: shortage.forgotten,
        refused: shortage.refused.saturating_add(shortage.overlong),
        unattributed: shortage.unattributed,
    }
}

/// A run whose times are Unix times in nanoseconds.
struct Told {
    run: Run,
    running: bool,
}

impl Told {
    fn new(run: &Run, offset: i64, running: bool) -> Self {
        let mut run = run.clone();
        let wall = |boot: u64| {
            let unix = i128::from(boot) + i128::from(offset);
            u64::try_from(unix.clamp(0, i128::from(i64::MAX))).unwrap_or(0)
        };
        (run.since, run.until) = (wall(run.since), wall(run.until));
        for tally in run.rows.values_mut() {
            (tally.first, tally.last) = (wall(tally.first), wall(tally.last));
        }
        if let Some(calls) = &mut run.calls {
            calls.last_new = if calls.last_new == 0 { 0 } else { wall(calls.last_new) };
        }
        Told { run, running }
    }

    fn is_unique(&self) -> bool {
        is_id(self.run.who.id.as_bytes())
    }

    fn join(&mut self, newer: Told) {
        let Told { run: newer, running } = newer;
        self.running |= running;
        let run = &mut self.run;
        run.who.update(newer.who);
        run.own_user_ns = newer.own_user_ns.or(run.own_user_ns);
        if let Some(sets) = newer.sets {
            run.grant(sets, newer.sets_from_exec);
        }
        run.start_seen |= newer.start_seen;
        run.since = run.since.min(newer.since);
        run.until = run.until.max(newer.until);
        run.observed = run.observed.saturating_add(newer.observed);
        run.gaps = run.gaps.saturating_add(newer.gaps);
        run.restarts = run.restarts.saturating_add(newer.restarts).saturating_add(1);
        run.below |= newer.below;
        run.require(newer.required, newer.unlooked);
        run.pending |= newer.pending;
        run.lost.join(newer.lost);
        if let Some(newer) = &newer.calls {
            run.calls.get_or_insert_default().join(newer);
        }
        for (kind, tally) in &newer.rows {
            run.rows.entry(*kind).or_insert(Tally::NONE).join(tally);
        }
    }

    fn info(self) -> CapsInfo {
        let Told { run, running } = self;
        let who = run.who;
        let (user, inside) = makers(&run.key);
        let granted = run.sets.map(|sets| GrantedInfo {
            bounding: cap_names(sets.bounding),
            permitted: cap_names(sets.permitted),
            ambient: cap_names(sets.ambient),
            from: if run.sets_from_exec { "exec" } else { "proc" }.to_owned(),
        });
        let mut rows: BTreeMap<u16, Vec<(u16, Tally)>> = BTreeMap::new();
        let all = run.sets.map_or(run.required, Sets::all);
        for cap in (0..64).filter(|cap| all & (1 << cap) != 0) {
            rows.entry(cap).or_default();
        }
        for ((cap, flags), tally) in &run.rows {
            rows.entry(*cap).or_default().push((*flags, *tally));
        }
        let grant_of = |cap: u16| {
            let bit = 1u64.checked_shl(cap.into()).unwrap_or(0);
            run.sets.map(|sets| {
                let word = match (sets.permitted & bit != 0, sets.all() & bit != 0) {
                    (true, _) => "permitted",
                    (false, true) => "bounding",
                    (false, false) => "no",
                };
                word.to_owned()
            })
        };
        CapsInfo {
            id: who.id,
            name: who.name,
            image: who.image,
            runtime: who.runtime,
            compose_service: who.service,
            pod: who.pod.map(|pod| Pod {
                uid: None,
                name: Some(pod),
                namespace: who.pod_namespace,
                container_name: who.pod_container,
            }),
            user,
            inside: inside.map(str::to_owned).collect(),
            running,
            since: time(run.since),
            until: time(run.until),
            observed_seconds: run.observed / 1_000_000_000,
            start_seen: run.start_seen,
            gaps: run.gaps,
            restarts: run.restarts,
            own_user_namespace: run.own_user_ns,
            files_unseen: run.unlooked || run.pending,
            granted,
            capabilities: rows
                .into_iter()
                .map(|(cap, rows)| {
                    let is_in = |mask| 1u64.checked_shl(cap.into()).is_some_and(|bit| mask & bit != 0);
                    CapInfo {
                        runtime_below: is_in(run.below),
                        needed_by_file: is_in(run.required),
                        ..cap_info(cap, &rows, grant_of(cap))
                    }
                })
                .collect(),
            summary: None,
            lost: lost(run.lost),
            calls: run.calls.map(|calls: Calls| calls.info(time)),
        }
    }
}

fn lost(lost: Lost) -> LostInfo {
    LostInfo { no_room: lost.no_room, capabilities: cap_names(lost.allowed), skipped: lost.skipped }
}

fn time(unix_ns: u64) -> String {
    rfc3339(i64::try_from(unix_ns).unwrap_or(i64::MAX))
}

fn cap_info(cap: u16, rows: &[(u16, Tally)], granted: Option<String>) -> CapInfo {
    use cap_flag::{CHILD_NS, DENIED, MAYBE_SILENT, SILENT, VISITOR};
    let count = |fits: &dyn Fn(u16) -> bool| {
        let mut sum = Tally::NONE;
        let mut perhaps_silent: u64 = 0;
        for (flags, tally) in rows.iter().filter(|(flags, _)| fits(*flags)) {
            sum.join(tally);
            if flags & MAYBE_SILENT != 0 {
                perhaps_silent = perhaps_silent.saturating_add(tally.count);
            }
        }
        (sum.count > 0).then(|| Count {
            count: sum.count,
            first: time(sum.first),
            last: time(sum.last),
            last_call: call_name(sum.nr, sum.abi),
            perhaps_silent,
        })
    };
    // Each row is in exactly one of the seven: what the runtime did, then what was only looked at, then by namespace.
    let own = |wanted: u16| count(&move |flags| flags & KINDS == wanted);
    let silent = |denied: u16| {
        count(&move |flags| flags & VISITOR == 0 && flags & SILENT != 0 && flags & DENIED == denied)
    };
    CapInfo {
        capability: cap_name(cap).into_owned(),
        granted,
        used: own(0),
        refused: own(DENIED),
        used_in_child: own(CHILD_NS),
        refused_in_child: own(CHILD_NS | DENIED),
        silent_allowed: silent(0),
        silent_denied: silent(DENIED),
        runtime: count(&|flags| flags & VISITOR != 0),
        runtime_below: false,
        needed_by_file: false,
    }
}

/// Those that are meant by an id, the beginning of one, or a name. A name stands for its latest container. More than one
/// if the beginning fits several ids, or if several have the id. What others than root may have named never stands in for
/// a container that only root can have named.
pub fn select<'c>(containers: &'c [CapsInfo], wanted: &str) -> Vec<&'c CapsInfo> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let of = |maker: Maker, is: &dyn Fn(&CapsInfo) -> bool| -> Vec<&'c CapsInfo> {
        containers.iter().filter(|info| info.maker() == maker && is(info)).collect()
    };
    let is_long = |id: &str| is_id(id.as_bytes());
    let makers = [Maker::Root, Maker::User, Maker::Container];
    for maker in makers {
        let same = of(maker, &|info| info.id == wanted);
        let named = of(maker, &|info| info.name.as_deref() == Some(wanted));
        match (same.first(), named.first()) {
            (Some(_), _) if is_long(wanted) => return same,
            // A name, too: of LXC and systemd-nspawn.
            (Some(latest), _) | (None, Some(latest)) => return vec![latest],
            (None, None) => {}
        }
        let begun = of(maker, &|info| is_long(&info.id) && info.id.starts_with(wanted));
        if !begun.is_empty() {
            return begun;
        }
    }
    let begun = makers.map(|maker| of(maker, &|info| info.id.starts_with(wanted)));
    begun.into_iter().find(|begun| !begun.is_empty()).unwrap_or_default()
}
