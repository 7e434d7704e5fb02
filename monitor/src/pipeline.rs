//! The path of one event inside the daemon: decode, enrich, match, alert. One owner, no lock, no `await`.

mod backlog;
mod asked;
mod capabilities;
mod state;
mod tables;
mod waiting;

pub use backlog::Backlog;
pub(crate) use state::boot_now;

use std::sync::Arc;
use std::time::{Duration, Instant};

use monitor_common::call::Call;
use monitor_common::ids::BootNs;
use monitor_common::verdict::Verdict;
use monitor_common::wire::{KIND_NAMES, call_flag, kind};

use self::tables::{TABLES, Table};
use crate::alerting::{Alerting, Moment};
pub use crate::alerting::{Format, Output};
use crate::canary::{Cause, Matcher};
use crate::capabilities::Granted;
use crate::decode::{DecodeError, RawCall, RawEvent, RawTask, boot_of, canary_boot, decode};
use crate::enrich::Host;
use crate::enrich::container::{Cgroups, Container, MAX_CGROUPS};
use crate::enrich::device::{Device, ProcFiles};
use crate::enrich::lineage::Ancestors;
use crate::enrich::names::{MAX_NAMES, Named, Names};
use crate::enrich::namespaces::{At, Facts, MAX_NAMESPACES, Namespaces};
use crate::enrich::process::{MAX_TEXT_BYTES, Processes};
use crate::enrich::users::Users;
use crate::event::{CapFacts, Event, verdict};
use crate::event_type::EventType;
use crate::generation::Handover;
use crate::grouping::MAX_GROUPS;
use crate::held::{Held, ROOM, ROOM_OF_ONE, Room};
use crate::hierarchy::Hierarchy;
use crate::metrics::{Enrichment, Labels, Metrics};
use crate::pins::Carried;
use crate::recording::Recorder;
use crate::rules::{Priority, RuleSet};
use crate::wall_clock::BootOffset;

/// Makes the metrics that the pipeline counts in.
///
/// # Errors
/// As [`Metrics::new`].
pub fn metrics() -> prometheus::Result<Metrics> {
    let decode_errors: Vec<&str> = DecodeError::ALL.iter().map(|error| error.label()).collect();
    Metrics::new(&Labels {
        kinds: &KIND_NAMES,
        decode_errors: &decode_errors,
        causes: &Cause::ALL.map(Cause::name),
        tables: TABLES,
    })
}

/// What a pipeline is made of.
pub struct Parts {
    /// The rules.
    pub rules: RuleSet,
    /// Rules below it raise no alert.
    pub min_priority: Priority,
    /// Whether alerts say why their rule matched.
    pub alert_why: bool,
    /// Bound of the process table.
    pub process_entries: usize,
    /// The hierarchy by which cgroups are known.
    pub hierarchy: Option<Hierarchy>,
    /// Where alerts go.
    pub outputs: Vec<Output>,
    /// The machine's name.
    pub hostname: String,
    /// What is counted; made by [`metrics`].
    pub metrics: Arc<Metrics>,
    /// The containers' names.
    pub names: Names,
    /// The host's users.
    pub users: Users,
    /// How long an alert waits for its container's name; zero: not at all.
    pub metadata_wait: Duration,
    /// Who takes the canaries' records out; without it no record is a canary's, whatever its mark says.
    pub canary: Option<Matcher>,
    /// Who records every event that is judged.
    pub recorder: Option<Recorder>,
}

/// Everything that an event passes.
pub struct Pipeline {
    alerting: Alerting,
    processes: Processes,
    cgroups: Cgroups,
    granted: Granted,
    namespaces: Namespaces,
    host: Host,
    users: Users,
    proc_files: ProcFiles,
    offset: BootOffset,
    metrics: Arc<Metrics>,
    canary: Option<Matcher>,
    recorder: Option<Recorder>,
    names: Names,
    room: Room<Container, Held>,
    metadata_wait: Duration,
    /// What goes from process to process, if probes are pinned, and before when marks were an earlier process's.
    carried: Option<(Arc<Carried>, BootNs)>,
    /// When the wall clock was last compared with the boot clock.
    ticked: Instant,
}

/// The wall clock is looked at so often.
const TICK: Duration = Duration::from_secs(1);

impl Pipeline {
    /// Puts the parts together; the tables are empty until [`Pipeline::seed`].
    ///
    /// # Errors
    /// The rules' counters cannot be made.
    pub fn new(parts: Parts) -> prometheus::Result<Self> {
        let Parts { rules, min_priority, process_entries, hierarchy, outputs, hostname, .. } = parts;
        let Parts { alert_why, metrics, names, users, metadata_wait, canary, recorder, .. } = parts;
        let host = Host::read();
        for (table, capacity) in [
            (Table::Processes, process_entries),
            (Table::Cgroups, MAX_CGROUPS),
            (Table::Namespaces, MAX_NAMESPACES),
            (Table::Grants, MAX_CGROUPS),
            (Table::Groups, MAX_GROUPS),
            (Table::Names, MAX_NAMES),
            (Table::Waiting, ROOM),
            (Table::ProgramTexts, MAX_TEXT_BYTES),
        ] {
            metrics.table_capacity[table as usize].set(capacity as i64);
        }
        Ok(Pipeline {
            alerting: Alerting::new(rules, min_priority, outputs, &hostname, Arc::clone(&metrics))?
                .with_why(alert_why),
            processes: Processes::new(process_entries, host.namespaces[0]),
            cgroups: Cgroups::new(hierarchy),
            granted: Granted::default(),
            namespaces: Namespaces::new(host.namespaces),
            host,
            users,
            proc_files: ProcFiles::read(),
            offset: BootOffset::measure(),
            metrics,
            canary,
            recorder,
            names,
            room: Room::new(ROOM, ROOM_OF_ONE),
            metadata_wait,
            carried: None,
            ticked: Instant::now(),
        })
    }

    /// Counts for the next process, too. Canaries' records from before `since` are of an earlier one.
    #[must_use]
    pub fn with_carried(self, carried: Option<Arc<Carried>>, since: BootNs) -> Self {
        Pipeline { carried: carried.map(|carried| (carried, since)), ..self }
    }

    /// Learns what exists already: cgroups, processes and namespaces. Called when the programs are attached, so that
    /// nothing falls between.
    pub fn seed(&mut self) {
        self.cgroups.walk();
        self.granted.ran_before(&self.cgroups);
        self.ask_names();
        self.processes.seed(self.cgroups.hierarchy());
        self.seed_namespaces();
        self.publish();
    }

    /// Where new rules are handed over.
    pub fn handover(&self) -> Handover {
        Handover::new(Arc::clone(self.alerting.slot()), self.names.bell())
    }

    /// Takes one record. New rules that wait are in force from it on.
    pub fn handle(&mut self, bytes: &[u8]) {
        self.alerting.turn();
        let event = match decode(bytes) {
            Ok(event) => event,
            Err(error) => {
                let reason = DecodeError::ALL.iter().position(|known| *known == error).unwrap_or(0);
                return self.metrics.decode_errors[reason].inc();
            }
        };
        if let Some(boot) = canary_boot(bytes) {
            self.received(kind::CANARY);
            if self.carried.as_ref().is_some_and(|(_, since)| boot < *since) {
                return self.forget_directory(&event, boot);
            }
            if self.canary.as_mut().is_some_and(|canary| canary.knows(&event)) {
                return self.canary(&event, boot);
            }
        }
        match event {
            RawEvent::Call(call) => {
                self.received(kind::CALL);
                self.call(&call, false);
            }
            RawEvent::Exec(exec) => {
                self.received(kind::EXEC);
                self.execed(&exec, boot_of(bytes));
            }
            RawEvent::Fork { task, caller } => {
                self.received(kind::FORK);
                let from = self.processes.get(caller).map(|process| process.cgroup);
                let enters = self.enters(caller, task.cgroup);
                self.processes.forked(&task, caller, enters);
                self.settle_unknown(task.process);
                if from.is_some_and(|from| from != task.cgroup) {
                    self.moved(task.process, task.cgroup, Some(&task), boot_of(bytes));
                }
            }
            RawEvent::Exit { boot, process } => {
                self.received(kind::EXIT);
                if let Some(process) = self.processes.get(process) {
                    self.namespaces.exited(process.key, &process.standing);
                }
                self.processes.exited(process, boot);
            }
            RawEvent::Cgroup { made: true, id, path, .. } => {
                self.received(kind::CGROUP_MKDIR);
                self.cgroups.made(id, path);
                self.namespaces.cgroup_made(path);
                self.ask_names();
            }
            RawEvent::Cgroup { boot, id, path, .. } => {
                self.received(kind::CGROUP_RMDIR);
                self.cgroup_removed(id, boot);
                self.namespaces.cgroup_removed(path, boot);
            }
            RawEvent::Attach { process, cgroup } => {
                self.received(kind::CGROUP_ATTACH);
                let enters = self.enters(process, cgroup);
                self.processes.attached(process, cgroup, enters, boot_of(bytes));
                self.settle_unknown(process);
                self.moved(process, cgroup, None, boot_of(bytes));
            }
            RawEvent::Nsproxy { boot, task, ns } => {
                self.received(kind::NSPROXY);
                self.switched(&task, &ns, boot);
            }
            RawEvent::Capability { boot, task, ns, check } => {
                self.received(kind::CAPABILITY);
                self.told_of_caps(CapFacts::Check(check), boot, task, ns);
            }
            RawEvent::Gained { boot, task, ns, gain } => {
                self.received(if gain.unseen { kind::GAINED_UNSEEN } else { kind::GAINED });
                self.told_of_caps(CapFacts::Gain(gain), boot, task, ns);
            }
        }
    }

    /// Takes a record of a canary: it passes what others pass, and ends at its matcher.
    fn canary(&mut self, event: &RawEvent<'_>, boot: BootNs) {
        match event {
            RawEvent::Call(call) => self.call(call, true),
            other => {
                self.forget_directory(other, boot);
                if let Some(canary) = &self.canary {
                    canary.life_cycle(other, boot);
                }
            }
        }
    }

    /// A walk of the tree may have found a canary's directory.
    fn forget_directory(&mut self, event: &RawEvent<'_>, boot: BootNs) {
        if let RawEvent::Cgroup { made: false, id, .. } = event {
            self.cgroups.removed(*id, boot);
        }
    }

    fn received(&self, kind: u16) {
        self.carried.iter().for_each(|(carried, _)| carried.received(kind));
        self.metrics.events_received[usize::from(kind)].inc();
    }

    /// Learns of a process that the table misses.
    fn meet(&mut self, task: &RawTask) {
        if self.processes.get(task.process).is_none() {
            self.processes.learn(task);
            self.settle_unknown(task.process);
        }
    }

    fn call(&mut self, raw: &RawCall<'_>, is_canary: bool) {
        let device = if is_open(raw.call) {
            match self.proc_files.of(raw) {
                Ok(device) => Some(device),
                // What a refused handle stands for nobody knows; the attempt itself counts.
                Err(_) if raw.call == Call::OpenByHandleAt => None,
                Err(_) if is_canary => None,
                Err(why) => return self.alerting.discarded(why),
            }
        } else {
            None
        };
        self.meet(&raw.task);
        if is_canary {
            return self.event(raw.call.into(), raw, Facts::default(), device, None, true);
        }
        let key = raw.task.process;
        let ns = if raw.ns_before[0].0 == 0 { &raw.ns_after } else { &raw.ns_before };
        self.end_start(key, ns, Some(&raw.task), raw.boot);
        let cgroup = self.cgroups.get(raw.task.cgroup, raw.boot);
        let starting = self.processes.get(key).is_some_and(|process| process.starting);
        let at = At { process: key, cgroup: cgroup.as_deref(), starting, boot: raw.boot };
        let before = self.processes.standing(key);
        let mut standing = before.clone();
        let allowed = verdict(raw) == Verdict::Allowed;
        let (facts, found) = self.namespaces.called(at, raw, allowed, &mut standing);
        if standing != before {
            self.processes.set_standing(key, standing);
        }
        self.event(raw.call.into(), raw, facts, device, None, false);
        if let Some(found) = found {
            let ns = if raw.has(call_flag::CHILD) { raw.ns_before } else { raw.ns_after };
            self.found(found, raw.boot, raw.task, ns);
        }
    }

    /// Takes an event to the rules, or a canary's to its matcher.
    fn event(
        &mut self,
        ty: EventType,
        raw: &RawCall<'_>,
        namespaces: Facts,
        device: Option<Device>,
        caps: Option<CapFacts>,
        is_canary: bool,
    ) {
        let cgroup = self.cgroups.get(raw.task.cgroup, raw.boot);
        self.ask_names();
        let container = cgroup.as_ref().and_then(|cgroup| cgroup.container());
        if let Some(container) = container {
            self.heard_of(container);
        }
        let process = self.processes.get(raw.task.process);
        let enrichment = match (process.is_some(), cgroup.is_some()) {
            (_, false) => Enrichment::ContainerUnknown,
            (false, true) => Enrichment::ProcessUnknown,
            (true, true) => Enrichment::Complete,
        };
        if !is_canary {
            self.metrics.enrichment[enrichment as usize].inc();
        }
        let event = Event {
            ty,
            raw,
            verdict: caps.map_or_else(|| verdict(raw), |caps| caps.verdict()),
            process,
            ancestors: Ancestors::Table(&self.processes),
            cgroup: cgroup.as_deref(),
            named: self.names.of(container),
            device,
            namespaces,
            caps,
            host: &self.host,
            users: &self.users,
        };
        if is_canary {
            if let Some(canary) = &self.canary {
                canary.call(&event);
            }
            return;
        }
        if let EventType::Call(call) = ty {
            self.metrics.attempts.count(call, event.verdict);
        }
        let unix_ns = self.offset.unix_ns(raw.boot);
        // An event that raises no alert whatever the name is goes on, past others of its container that wait.
        let waits = || {
            self.alerting.may_alert(&event) || self.recorder.as_ref().is_some_and(Recorder::waits_for_names)
        };
        if event.named == Named::Pending && !self.metadata_wait.is_zero() && waits() {
            let held = Held::of(&event, &self.processes, cgroup.clone(), unix_ns);
            return self.put_by(held);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.record(&event, unix_ns);
        }
        self.alerting.judge(ty, &event, Moment { unix_ns, boot_ns: raw.boot.0 });
    }

    /// Hands what was collected to the sinks; called when the ring is empty, and now and then while it is not.
    pub fn hand_over(&mut self) {
        // Under load the reader never comes to rest, so its timer alone would not do.
        if self.ticked.elapsed() >= TICK {
            self.tick();
        }
        self.end_waits();
        self.alerting.hand_over();
        self.recorder.iter_mut().for_each(Recorder::tend);
        self.publish();
    }

    /// Once a second: notices a changed wall clock, and forgets what has been gone for long.
    pub fn tick(&mut self) {
        self.ticked = Instant::now();
        self.recorder.iter_mut().for_each(Recorder::tend);
        self.offset.refresh();
        self.names.tick(self.ticked);
        self.end_starts(boot_now());
        self.tell_untold();
        self.expire(boot_now());
        self.alerting.tick(boot_now().0);
    }

    /// Ends the pipeline; the sinks still hold lines.
    pub fn into_outputs(self) -> Vec<Output> {
        self.alerting.into_outputs()
    }
}

const fn is_open(call: Call) -> bool {
    matches!(call, Call::Open | Call::Creat | Call::Openat | Call::Openat2 | Call::OpenByHandleAt)
}

#[cfg(test)]
mod page;
#[cfg(test)]
#[path = "pipeline/recording_tests.rs"]
mod recording_tests;
