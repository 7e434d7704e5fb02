//! What the attached probes can see, and what that means for each rule: covered, degraded or blind.
//!
//! Every way in which an attempt can end (call, system call table, outcome), and each event that is no call, is a
//! [`Situation`]. The probes see a situation, see it weakly, or do not see it. A rule is judged by the situations in which it could fire, and by
//! the fields that its condition reads.

use std::collections::BTreeSet;

use monitor_common::call::{Abi, Call, I386_CALLS, X86_64_CALLS};
use monitor_common::verdict::{RefusedBy, Verdict};

use crate::attach::{AttachMode, Probe, watched_by};
use crate::enrich::names::NAME_FIELDS;
use crate::event::category;
use crate::event_type::{EventType, TypeSet};
use crate::fields::{Field, FieldRef, Value};
use crate::rules::{Maybe, Rule};

/// What a rule can do with what the probes see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every situation in which it could fire is seen, with every fact that it reads.
    Covered,
    /// It can fire, but not in each situation or not on each fact: the reasons.
    Degraded(Vec<String>),
    /// It cannot fire here: the reasons.
    Blind(Vec<String>),
}

impl Coverage {
    /// The word in tables.
    pub const fn name(&self) -> &'static str {
        match self {
            Coverage::Covered => "covered",
            Coverage::Degraded(_) => "degraded",
            Coverage::Blind(_) => "blind",
        }
    }

    /// Why it is not covered.
    pub fn reasons(&self) -> &[String] {
        match self {
            Coverage::Covered => &[],
            Coverage::Degraded(reasons) | Coverage::Blind(reasons) => reasons,
        }
    }
}

/// One way in which an attempt can end, or an event that is no call.
#[derive(Clone, Copy, Debug)]
struct Situation {
    ty: EventType,
    /// Which table, if it is a call.
    abi: Option<Abi>,
    verdict: Verdict,
}

/// Whether a situation is seen.
enum Seen {
    Yes,
    /// Reported, but perhaps as something else.
    Weakly(&'static str),
    /// Not always reported.
    Partly(&'static str),
    /// Reported, but perhaps only at the next record of the same process.
    Late(&'static str),
    No(String),
}

/// What the probes see, reduced to what coverage rests on.
#[derive(Clone, Debug)]
pub struct Sight {
    mode: AttachMode,
    /// Calls seen through the 64-bit table (x32 included), and through the 32-bit one.
    tables: [TypeSet; 2],
    /// Capability checks are seen.
    caps: bool,
    /// Fields whose facts a missing probe would bring, with the types of event that are concerned and the reason.
    gaps: Vec<Gap>,
    /// A witness tells refused opens by the device's own number.
    device_witness: bool,
    /// Why no entry into a container from outside is seen, if none is.
    no_entries: Option<String>,
    /// Each change of a task's namespaces is seen, whichever door it took.
    every_move: bool,
    /// Why credentials that grow are not seen at once, or not at all, if so.
    no_gains: Option<String>,
}

#[derive(Clone, Debug)]
struct Gap {
    fields: &'static [Field],
    types: TypeSet,
    reason: String,
}

const OPENS: [Call; 5] = [Call::Open, Call::Creat, Call::Openat, Call::Openat2, Call::OpenByHandleAt];
const ANCESTRY: &[Field] = &[
    Field::ProcPname,
    Field::ProcPexepath,
    Field::ProcPcmdline,
    Field::ProcAname,
    Field::ProcApid,
    Field::ProcAexepath,
    Field::ProcAcmdline,
];
const BEFORE: &[Field] = &[
    Field::CapBefore,
    Field::CapGained,
    Field::CapDropped,
    Field::CapDenied,
    Field::CapUsed,
    Field::NsBefore,
    Field::NsChanged,
    Field::NsEnteredHost,
];
const NAMESPACES: &[Field] = &[
    Field::NsBefore,
    Field::NsAfter,
    Field::NsChanged,
    Field::NsHost,
    Field::NsEnteredHost,
    Field::NsDirection,
    Field::NsFrom,
    Field::NsTo,
    Field::NsOwner,
];
const CONTAINER: &[Field] = &[
    Field::ContainerId,
    Field::ContainerFullId,
    Field::ContainerRuntime,
    Field::ContainerType,
    Field::K8sPodUid,
    Field::CgroupPath,
];
const EXECUTABLE: &[Field] = &[
    Field::ProcExepath,
    Field::ProcExeIno,
    Field::ProcExeDev,
    Field::ProcIsExeUpperLayer,
    Field::ProcIsExeFromMemfd,
    Field::ProcCmdline,
    Field::ProcArgs,
    Field::ProcExe,
    Field::ProcCwd,
    Field::ProcTty,
    Field::ProcPexepath,
    Field::ProcPcmdline,
    Field::ProcAexepath,
    Field::ProcAcmdline,
    Field::ProcEntry,
    Field::ProcEscaped,
    Field::EvtPhase,
    Field::NsDirection,
    Field::NsFrom,
    Field::NsTo,
    Field::NsOwner,
];

/// The kernel's function through which every change of a task's namespaces goes.
const NAMESPACE_SWITCH: &str = "switch_task_namespaces";

/// Fields that rest on a probe of the life cycle, by the program's name.
const LIFE_CYCLE_FIELDS: &[(&str, &[Field])] = &[
    ("process_exec", EXECUTABLE),
    ("process_fork", ANCESTRY),
    ("cgroup_mkdir", CONTAINER),
    ("cgroup_mkdir", NAME_FIELDS),
    ("cgroup_attach", &[Field::EvtPhase, Field::ProcEntry, Field::ProcEscaped]),
];

impl Sight {
    /// What these probes see in this mode; `cgroups`: whether cgroups are known at all.
    pub fn new(mode: AttachMode, probes: &[Probe], cgroups: bool) -> Sight {
        let missing = |name: &str| probes.iter().find(|p| p.name == name && p.missing.is_some());
        let attached = |probe: &&Probe| probe.missing.is_none();
        let caps = probes.iter().filter(attached).any(|probe| probe.name.starts_with("cap_capable"));
        let every = TypeSet::of(EventType::all());
        let tables = match mode {
            AttachMode::Tracepoint => [every; 2],
            AttachMode::Trampoline => [false, true].map(|compat| {
                let watched = probes.iter().filter(attached).filter_map(|probe| watched_by(&probe.name));
                TypeSet::of(watched.filter(|(_, is_compat)| *is_compat == compat).map(|(call, _)| call))
            }),
        };
        let mut gaps = Vec::new();
        for (name, fields) in LIFE_CYCLE_FIELDS {
            if let Some(probe) = missing(name) {
                let reason = format!("{} is missing: {}", probe.hook, probe.cost);
                gaps.push(Gap { fields, types: every, reason });
            }
        }
        if let Some(probe) = missing("process_fork") {
            let reason = format!("{} is missing: {}", probe.hook, probe.cost);
            gaps.push(Gap { fields: NAMESPACES, types: TypeSet::of([Call::Clone, Call::Clone3]), reason });
        }
        if !cgroups {
            let reason = "no cgroup hierarchy can be used: every container is `unknown`".to_owned();
            gaps.extend([CONTAINER, NAME_FIELDS].map(|fields| Gap {
                fields,
                types: every,
                reason: reason.clone(),
            }));
        }
        if !caps {
            let reason = "capability checks cannot be seen: the state before a call is not known".to_owned();
            gaps.push(Gap { fields: BEFORE, types: TypeSet::of(Call::ALL.iter().copied()), reason });
        }
        let doors = ["credentials_committed", "process_exec"].into_iter().find_map(missing);
        let needed = ["process_exec", "cgroup_attach"].into_iter().find_map(missing);
        Sight {
            mode,
            tables,
            caps,
            gaps,
            device_witness: missing("device_asked").is_none(),
            no_entries: needed.map(|probe| format!("{} is missing: {}", probe.hook, probe.cost)),
            every_move: probes.iter().filter(attached).any(|probe| probe.hook.contains(NAMESPACE_SWITCH)),
            no_gains: doors.map(|probe| format!("{} is missing: {}", probe.hook, probe.cost)),
        }
    }

    /// How the watched calls are hooked.
    pub const fn mode(&self) -> AttachMode {
        self.mode
    }

    /// What a rule can do with it.
    pub fn of_rule(&self, rule: &Rule) -> Coverage {
        let mut reasons = BTreeSet::new();
        let mut seen = 0;
        let mut reads_who_refused = false;
        rule.each_field(|read| reads_who_refused |= read.field == Field::EvtRefusedBy);
        for situation in situations().filter(|situation| situation.may_fire(rule)) {
            match self.sees(&situation) {
                Seen::Yes => seen += 1,
                Seen::Weakly(reason) => {
                    seen += 1;
                    if reads_who_refused {
                        reasons.insert(reason.to_owned());
                    }
                }
                Seen::Partly(reason) | Seen::Late(reason) => {
                    seen += 1;
                    reasons.insert(reason.to_owned());
                }
                Seen::No(reason) => {
                    reasons.insert(reason);
                }
            }
        }
        for gap in &self.gaps {
            let mut touched = false;
            rule.each_field(|read| touched |= gap.fields.contains(&read.field));
            if touched && rule.types().meets(gap.types) {
                reasons.insert(gap.reason.clone());
            }
        }
        let reasons: Vec<String> = reasons.into_iter().collect();
        match (seen, reasons.is_empty()) {
            (0, true) => Coverage::Blind(vec!["its condition can hold for no event".to_owned()]),
            (0, false) => Coverage::Blind(reasons),
            (_, true) => Coverage::Covered,
            (_, false) => Coverage::Degraded(reasons),
        }
    }

    /// Events that are no calls are found in records of other kinds.
    fn sees_state(&self, ty: EventType) -> Seen {
        match (ty, &self.no_entries, &self.no_gains) {
            (EventType::Entered, Some(reason), _) => Seen::No(reason.clone()),
            (EventType::Escaped, _, _) if !self.every_move => Seen::Late(
                "an escape by a door that is no watched call is seen at the next exec or watched call only",
            ),
            (EventType::Capability, _, _) if !self.caps => {
                Seen::No("capability checks cannot be seen".to_owned())
            }
            (EventType::Gained, _, Some(reason)) => Seen::No(reason.clone()),
            _ => Seen::Yes,
        }
    }

    fn sees(&self, situation: &Situation) -> Seen {
        let Situation { ty, abi, verdict } = *situation;
        let Some(call) = ty.call() else { return self.sees_state(ty) };
        let compat = abi == Some(Abi::I386);
        if !self.tables[usize::from(compat)].has(call) {
            let table = if compat { "32-bit" } else { "64-bit" };
            return Seen::No(format!("no probe on {} in the {table} table", call.name()));
        }
        let refused_by = verdict.refused_by();
        let is_open = OPENS.contains(&call);
        if is_open && call != Call::OpenByHandleAt && refused_by == Some(RefusedBy::Seccomp) {
            return if self.mode == AttachMode::Trampoline || self.caps {
                Seen::Partly(
                    "an open that a seccomp filter refuses is known by the caller's path only, and missed if that is gone",
                )
            } else {
                Seen::No(
                    "an open that a seccomp filter refuses is not seen: capability checks are not".into(),
                )
            };
        }
        match refused_by {
            None if matches!(call, Call::Openat | Call::Openat2) => {
                Seen::Partly("opens through io_uring are not seen, on any kernel")
            }
            Some(RefusedBy::Other) | None => Seen::Yes,
            Some(_) if is_open && !self.device_witness => Seen::Partly(
                "refused opens are told by the path that the caller claims, and missed if that is gone",
            ),
            Some(RefusedBy::Seccomp) if self.mode == AttachMode::Trampoline => Seen::Yes,
            Some(_) if !self.caps => Seen::Weakly("who refused is not told apart: it is reported as `other`"),
            Some(RefusedBy::Seccomp) => {
                Seen::Weakly("refusals by seccomp are inferred: this machine allows no hook on seccomp")
            }
            Some(_) => Seen::Yes,
        }
    }
}

/// Every way in which an attempt on a watched call can end, and every event that is no call.
fn situations() -> impl Iterator<Item = Situation> {
    let tables = [(Abi::X86_64, X86_64_CALLS), (Abi::I386, I386_CALLS)];
    let calls = tables.into_iter().flat_map(|(abi, calls)| {
        // Some calls have two numbers in a table.
        let calls: BTreeSet<Call> = calls.iter().map(|(_, call)| *call).collect();
        calls.into_iter().map(move |call| (abi, call))
    });
    let calls = calls.flat_map(|(abi, call)| {
        let refusals = [
            RefusedBy::Seccomp,
            RefusedBy::Capability,
            RefusedBy::Lsm,
            RefusedBy::DeviceCgroup,
            RefusedBy::Other,
        ];
        let possible = move |by: &RefusedBy| *by != RefusedBy::DeviceCgroup || OPENS.contains(&call);
        let verdicts = refusals.into_iter().filter(possible).map(Verdict::Refused);
        let verdicts = [Verdict::Allowed, Verdict::Failed].into_iter().chain(verdicts);
        verdicts.map(move |verdict| Situation { ty: call.into(), abi: Some(abi), verdict })
    });
    let states = EventType::NO_CALLS.map(|ty| Situation { ty, abi: None, verdict: Verdict::Allowed });
    let refused = Verdict::Refused(RefusedBy::Capability);
    calls.chain(states).chain([Situation { ty: EventType::Capability, abi: None, verdict: refused }])
}

impl Situation {
    /// Whether the rule could fire, whatever the event's other fields are.
    fn may_fire(&self, rule: &Rule) -> bool {
        let situation = *self;
        rule.partly(move |field| situation.known(field)) != Maybe::Fails
    }

    /// The fields that the situation decides.
    fn known(&self, read: FieldRef) -> Option<Value<'static>> {
        let refused_by = self.verdict.refused_by();
        Some(match read.field {
            Field::EvtType => Value::text(self.ty.name()),
            Field::EvtCategory if !self.ty.call().is_some_and(|call| OPENS.contains(&call)) => {
                Value::text(category(self.ty))
            }
            Field::EvtAbi => self.abi.map_or(Value::Absent, |abi| Value::text(abi.name())),
            Field::EvtVerdict => Value::text(self.verdict.name()),
            Field::EvtRefusedBy => refused_by.map_or(Value::Absent, |by| Value::text(by.name())),
            Field::EvtFailed => Value::Bool(self.verdict != Verdict::Allowed),
            _ => return None,
        })
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
