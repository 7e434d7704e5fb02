//! The path of one event inside the daemon: decode, enrich, match, alert. One owner, no lock, no `await`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monitor_common::call::Call;
use monitor_common::wire::{KIND_NAMES, kind};
use prometheus::IntCounter;

use crate::alert::{Alert, AlertForm, AlertRule, JsonLines, TextLines};
use crate::decode::{DecodeError, RawCall, RawEvent, decode};
use crate::enrich::Host;
use crate::enrich::container::{Cgroups, MAX_CGROUPS};
use crate::enrich::device::ProcFiles;
use crate::enrich::process::Processes;
use crate::enrich::users::Users;
use crate::event::{Event, verdict};
use crate::metrics::{Discard, Enrichment, Labels, Metrics};
use crate::rules::{Priority, Rule, RuleSet};
use crate::sink::{Batch, Sink};
use crate::wall_clock::BootOffset;

/// How a sink's lines look.
pub enum Format {
    /// One JSON object a line.
    Json(JsonLines),
    /// For people.
    Text(TextLines),
}

/// A sink, and the lines that are being collected for it.
pub struct Output {
    /// Where the lines go.
    pub sink: Sink,
    /// How they look.
    pub format: Format,
    batch: Batch,
}

impl Output {
    /// An output without lines.
    pub fn new(sink: Sink, format: Format) -> Self {
        Output { sink, format, batch: Batch::default() }
    }

    fn hand_over(&mut self) {
        if self.batch.lines > 0 {
            let fresh = Batch { bytes: self.sink.buffer(), lines: 0 };
            let full = std::mem::replace(&mut self.batch, fresh);
            // What finds no room is counted by the sink under its reason.
            let _ = self.sink.offer(full);
        }
    }
}

/// Bounded tables, as the label `table` names them.
#[derive(Clone, Copy)]
enum Table {
    Processes,
    Cgroups,
}

/// The tables' names, by their number.
const TABLES: &[&str] = &["processes", "cgroups"];

/// Makes the metrics that the pipeline counts in.
///
/// # Errors
/// As [`Metrics::new`].
pub fn metrics(probes: &[&str]) -> prometheus::Result<Metrics> {
    let decode_errors: Vec<&str> = DecodeError::ALL.iter().map(|error| error.label()).collect();
    Metrics::new(&Labels { kinds: &KIND_NAMES, decode_errors: &decode_errors, probes, tables: TABLES })
}

/// What a pipeline is made of.
pub struct Parts {
    /// The rules.
    pub rules: RuleSet,
    /// Rules below it raise no alert.
    pub min_priority: Priority,
    /// Bound of the process table.
    pub process_entries: usize,
    /// Where the cgroup v2 hierarchy is mounted.
    pub cgroup_root: Option<PathBuf>,
    /// Where alerts go.
    pub outputs: Vec<Output>,
    /// The machine's name.
    pub hostname: String,
    /// What is counted; made by [`metrics`].
    pub metrics: Arc<Metrics>,
}

/// Everything that an event passes.
pub struct Pipeline {
    rules: RuleSet,
    forms: Vec<AlertForm>,
    min_priority: Priority,
    processes: Processes,
    cgroups: Cgroups,
    host: Host,
    users: Users,
    proc_files: ProcFiles,
    offset: BootOffset,
    outputs: Vec<Output>,
    metrics: Arc<Metrics>,
    /// Alerts by rule, in the order of the rule set.
    alerts: Vec<IntCounter>,
    /// The rendered template of the alert at hand.
    text: String,
    /// When the wall clock was last compared with the boot clock.
    ticked: Instant,
}

/// The wall clock is looked at so often.
const TICK: Duration = Duration::from_secs(1);

/// A batch is handed over when it has grown to this size, so that sinks write while the ring is drained.
const BATCH_BYTES: usize = 64 << 10;

impl Pipeline {
    /// Puts the parts together; the tables are empty until [`Pipeline::seed`].
    ///
    /// # Errors
    /// The rules' counters cannot be made.
    pub fn new(parts: Parts) -> prometheus::Result<Self> {
        let Parts { rules, min_priority, process_entries, cgroup_root, outputs, hostname, metrics } = parts;
        let form = |rule: &Rule| AlertForm::new(&AlertRule::from(rule), &hostname);
        let host = Host::read();
        for (table, capacity) in [(Table::Processes, process_entries), (Table::Cgroups, MAX_CGROUPS)] {
            metrics.table_capacity[table as usize].set(capacity as i64);
        }
        Ok(Pipeline {
            forms: rules.rules().iter().map(form).collect(),
            alerts: metrics.rules(rules.rules())?,
            min_priority,
            processes: Processes::new(process_entries, host.namespaces[0]),
            cgroups: Cgroups::new(cgroup_root),
            host,
            users: Users::read(),
            proc_files: ProcFiles::read(),
            offset: BootOffset::measure(),
            outputs,
            metrics,
            rules,
            text: String::new(),
            ticked: Instant::now(),
        })
    }

    /// Learns what exists already: cgroups and processes. Called when the programs are attached, so that
    /// nothing falls between.
    pub fn seed(&mut self) {
        self.cgroups.walk();
        self.processes.seed(self.cgroups.root());
        self.publish();
    }

    /// Takes one record.
    pub fn handle(&mut self, bytes: &[u8]) {
        let event = match decode(bytes) {
            Ok(event) => event,
            Err(error) => {
                let reason = DecodeError::ALL.iter().position(|known| *known == error).unwrap_or(0);
                return self.metrics.decode_errors[reason].inc();
            }
        };
        match event {
            RawEvent::Call(call) => {
                self.received(kind::CALL);
                self.call(&call);
            }
            RawEvent::Exec(exec) => {
                self.received(kind::EXEC);
                self.processes.execed(&exec);
            }
            RawEvent::Fork { task, caller } => {
                self.received(kind::FORK);
                let from = self.processes.get(caller).map(|process| process.cgroup);
                let enters = self.cgroups.enters_container(from, task.cgroup);
                self.processes.forked(&task, caller, enters);
            }
            RawEvent::Exit { boot, process } => {
                self.received(kind::EXIT);
                self.processes.exited(process, boot);
            }
            RawEvent::Cgroup { made: true, id, path, .. } => {
                self.received(kind::CGROUP_MKDIR);
                self.cgroups.made(id, path);
            }
            RawEvent::Cgroup { boot, id, .. } => {
                self.received(kind::CGROUP_RMDIR);
                self.cgroups.removed(id, boot);
            }
            RawEvent::Attach { process, cgroup } => {
                self.received(kind::CGROUP_ATTACH);
                let from = self.processes.get(process).map(|known| known.cgroup);
                let enters = self.cgroups.enters_container(from, cgroup);
                self.processes.attached(process, cgroup, enters);
            }
        }
    }

    fn received(&self, kind: u16) {
        self.metrics.events_received[usize::from(kind)].inc();
    }

    fn discarded(&self, why: Discard) {
        self.metrics.events_discarded[why as usize].inc();
    }

    fn call(&mut self, raw: &RawCall<'_>) {
        let device = if is_open(raw.call) {
            match self.proc_files.of(raw) {
                Ok(device) => Some(device),
                // What a refused handle stands for nobody knows; the attempt itself counts.
                Err(_) if raw.call == Call::OpenByHandleAt => None,
                Err(why) => return self.discarded(why),
            }
        } else {
            None
        };
        let cgroup = self.cgroups.get(raw.task.cgroup, raw.boot);
        if self.processes.get(raw.task.process).is_none() {
            self.processes.learn(&raw.task);
        }
        let process = self.processes.get(raw.task.process);
        let enrichment = match (process.is_some(), cgroup.is_some()) {
            (_, false) => Enrichment::ContainerUnknown,
            (false, true) => Enrichment::ProcessUnknown,
            (true, true) => Enrichment::Complete,
        };
        self.metrics.enrichment[enrichment as usize].inc();
        let event = Event {
            raw,
            verdict: verdict(raw),
            process,
            processes: &self.processes,
            cgroup: cgroup.as_deref(),
            device,
            host: &self.host,
            users: &self.users,
        };
        let unix_ns = self.offset.unix_ns(raw.boot);
        let (forms, alerts, outputs, text) = (&self.forms, &self.alerts, &mut self.outputs, &mut self.text);
        let (mut matched, mut raised) = (false, false);
        self.rules.matches(raw.call, &event, |rule| {
            matched = true;
            if rule.priority < self.min_priority {
                return;
            }
            let (Some(form), Some(count)) = (forms.get(rule.position), alerts.get(rule.position)) else {
                return;
            };
            raised = true;
            count.inc();
            text.clear();
            rule.output.render(&event, text);
            let alert = Alert { form, event: &event, output: text, unix_ns };
            for output in outputs.iter_mut() {
                match &mut output.format {
                    Format::Json(lines) => lines.write(&alert, &mut output.batch.bytes),
                    Format::Text(lines) => lines.write(&alert, &mut output.batch.bytes),
                }
                output.batch.lines += 1;
                if output.batch.bytes.len() >= BATCH_BYTES {
                    output.hand_over();
                }
            }
        });
        match (matched, raised) {
            (false, _) => self.discarded(Discard::NoRule),
            (true, false) => self.discarded(Discard::BelowPriority),
            (true, true) => {}
        }
    }

    /// Hands what was collected to the sinks; called when the ring is empty, and now and then while it is not.
    pub fn hand_over(&mut self) {
        // Under load the reader never comes to rest, so its timer alone would not do.
        if self.ticked.elapsed() >= TICK {
            self.tick();
        }
        for output in &mut self.outputs {
            output.hand_over();
        }
        self.publish();
    }

    fn publish(&mut self) {
        let evicted =
            [(Table::Processes, &mut self.processes.evicted), (Table::Cgroups, &mut self.cgroups.refused)];
        for (table, count) in evicted {
            self.metrics.table_evictions[table as usize].inc_by(std::mem::take(count));
        }
        self.metrics.table_entries[Table::Processes as usize].set(self.processes.len() as i64);
        self.metrics.table_entries[Table::Cgroups as usize].set(self.cgroups.len() as i64);
    }

    /// Once a second: notices a changed wall clock.
    pub fn tick(&mut self) {
        self.ticked = Instant::now();
        self.offset.refresh();
    }

    /// Ends the pipeline; the sinks still hold lines.
    pub fn into_outputs(self) -> Vec<Output> {
        self.outputs
    }
}

const fn is_open(call: Call) -> bool {
    matches!(call, Call::Open | Call::Creat | Call::Openat | Call::Openat2 | Call::OpenByHandleAt)
}
