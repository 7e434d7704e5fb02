//! `ringfence rules backtest`: how often rules would have fired over recorded events, on whom, with examples.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::alert::{JsonLines, WallClock};
use crate::cli::Failure;
use crate::cli::recorded::Reader;
use crate::cli::replay::Judge;
use crate::cli::rules::visible;
use crate::cli::rules_command::RuleFiles;
use crate::config::OutputFormat;
use crate::fields::{Field, FieldArg, FieldRef, FieldSource, FieldValues, Value};
use crate::recording::{Recorded, Span};
use crate::rules::Priority;

/// Containers that are counted one by one for a rule; further ones together.
const MOST_CONTAINERS: usize = 1024;
/// Of these, as many are shown.
const SHOWN_CONTAINERS: usize = 5;
/// Examples that are kept of a rule.
const EXAMPLES: usize = 3;

/// What a rule did.
#[derive(Debug, Default)]
struct Fired {
    count: u64,
    first_ns: i64,
    last_ns: i64,
    containers: HashMap<(String, Option<String>), u64>,
    /// Of containers beyond [`MOST_CONTAINERS`].
    others: u64,
    examples: Vec<Example>,
}

#[derive(Debug)]
struct Example {
    output: String,
    /// The whole line.
    alert: String,
}

/// A set of rules, and what it did.
struct Candidate {
    judge: Judge,
    rules: Vec<RuleHead>,
    fired: BTreeMap<String, Fired>,
}

#[derive(Clone, Debug)]
struct RuleHead {
    id: String,
    name: String,
    priority: &'static str,
    enabled: bool,
}

impl Candidate {
    fn load(files: &RuleFiles) -> Result<Self, Failure> {
        let set = files.load()?;
        let head = |rule: &crate::rules::Rule| RuleHead {
            id: rule.id.clone(),
            name: rule.name.clone(),
            priority: rule.priority.as_str(),
            enabled: rule.enabled,
        };
        let judge = Judge::ungrouped(set, Priority::Debug);
        Ok(Candidate {
            rules: judge.rules().rules().iter().map(head).collect(),
            judge,
            fired: BTreeMap::new(),
        })
    }

    fn judge(&mut self, event: &Recorded, lines: &mut JsonLines) -> Result<(), Failure> {
        let fired = &mut self.fired;
        self.judge.raise(event, &mut |rule, alert| {
            let fired = match fired.get_mut(&rule.id) {
                Some(fired) => fired,
                None => fired.entry(rule.id.clone()).or_default(),
            };
            fired.note(event.unix_ns, &event.values);
            if fired.examples.len() < EXAMPLES {
                let mut line = Vec::new();
                lines.write(alert, &mut line);
                let alert_line = String::from_utf8_lossy(&line).trim_end().to_owned();
                fired.examples.push(Example { output: alert.output.to_owned(), alert: alert_line });
            }
        })
    }

    fn never(&self) -> Vec<&RuleHead> {
        self.rules.iter().filter(|rule| rule.enabled && !self.fired.contains_key(&rule.id)).collect()
    }
}

impl Fired {
    fn note(&mut self, unix_ns: i64, values: &FieldValues) {
        (self.first_ns, self.last_ns) = match self.count {
            0 => (unix_ns, unix_ns),
            _ => (self.first_ns.min(unix_ns), self.last_ns.max(unix_ns)),
        };
        self.count += 1;
        let text = |field| match values.value(FieldRef { field, arg: FieldArg::None }) {
            Value::Text(text) => Some(text.into_owned()),
            _ => None,
        };
        let who =
            (text(Field::ContainerId).unwrap_or_else(|| "unknown".to_owned()), text(Field::ContainerName));
        let room = self.containers.len() < MOST_CONTAINERS;
        match self.containers.get_mut(&who) {
            Some(count) => *count += 1,
            None if room => {
                self.containers.insert(who, 1);
            }
            None => self.others += 1,
        }
    }

    /// The most frequent first.
    fn top(&self) -> Vec<(&str, Option<&str>, u64)> {
        let mut all: Vec<_> = self
            .containers
            .iter()
            .map(|((id, name), count)| (id.as_str(), name.as_deref(), *count))
            .collect();
        all.sort_unstable_by(|a, b| b.2.cmp(&a.2).then_with(|| (a.0, a.1).cmp(&(b.0, b.1))));
        all
    }
}

/// What rules did over recordings.
pub(super) struct Backtest {
    events: u64,
    pending: u64,
    first_ns: Option<i64>,
    last_ns: Option<i64>,
    current: Candidate,
    against: Option<Candidate>,
    /// What there is to say about the recordings; a line each.
    pub(super) report: String,
    pub(super) damaged: bool,
}

/// Judges the events of the files that happened within the span by the rules, and by others to compare with.
pub(super) fn run(
    files: Vec<PathBuf>,
    span: Span,
    rules: &RuleFiles,
    against: Option<&RuleFiles>,
) -> Result<Backtest, Failure> {
    let mut current = Candidate::load(rules)?;
    let mut against = against.map(Candidate::load).transpose()?;
    let (mut lines, mut pending, mut first_ns, mut last_ns) = (JsonLines::default(), 0, None, None);
    let mut reader = Reader::new(files, span);
    reader.read(|event| {
        let metadata = FieldRef { field: Field::ContainerMetadata, arg: FieldArg::None };
        pending += u64::from(event.values.value(metadata) == Value::text("pending"));
        first_ns = Some(first_ns.map_or(event.unix_ns, |first: i64| first.min(event.unix_ns)));
        last_ns = Some(last_ns.map_or(event.unix_ns, |last: i64| last.max(event.unix_ns)));
        current.judge(&event, &mut lines)?;
        against.as_mut().map_or(Ok(()), |candidate| candidate.judge(&event, &mut lines))
    })?;
    let (report, damaged, events) = (reader.report(), reader.is_damaged(), reader.total.events);
    Ok(Backtest { events, pending, first_ns, last_ns, current, against, report, damaged })
}

impl Backtest {
    pub(super) fn show(&self, output: OutputFormat) -> String {
        match output {
            OutputFormat::Json => format!("{:#}\n", self.json()),
            OutputFormat::Text => self.text(),
        }
    }

    fn json(&self) -> Json {
        let fired: Json = self.sorted().into_iter().map(|(rule, fired)| json_of(rule, fired)).collect();
        let ids = |rules: Vec<&RuleHead>| rules.iter().map(|rule| rule.id.clone()).collect::<Json>();
        let mut json = json!({
            "events": self.events,
            "first": self.first_ns.map(time),
            "last": self.last_ns.map(time),
            "events_without_name": self.pending,
            "damaged": self.damaged,
            "notes": self.report.lines().collect::<Vec<_>>(),
            "fired": fired,
            "never_fired": ids(self.current.never()),
        });
        if let (Some(against), Some(object)) = (&self.against, json.as_object_mut()) {
            let differences = self
                .differences(against)
                .into_iter()
                .map(|(id, now, then)| json!({"id": id, "count": now, "count_against": then}));
            object.insert("differences".to_owned(), differences.collect());
        }
        json
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{} events", self.events);
        if let (Some(first), Some(last)) = (self.first_ns, self.last_ns) {
            let _ = write!(text, " from {} to {}", time(first), time(last));
        }
        text.push('\n');
        if self.pending > 0 {
            let pending = self.pending;
            let _ = writeln!(text, "{pending} of them were recorded before the container's name was known");
        }
        for (rule, fired) in self.sorted() {
            let _ = writeln!(text, "\n{:>8}  {:13}  {}", fired.count, rule.priority, visible(&rule.id));
            let (first, last) = (time(fired.first_ns), time(fired.last_ns));
            let _ = writeln!(text, "{:10}first {first}, last {last}", "");
            let top = fired.top();
            for (id, name, count) in top.iter().take(SHOWN_CONTAINERS) {
                let name = name.map_or(String::new(), |name| format!(" ({})", visible(name)));
                let _ = writeln!(text, "{:10}{count:>8} on {}{name}", "", visible(id));
            }
            let rest = top.iter().skip(SHOWN_CONTAINERS).map(|(.., count)| count).sum::<u64>() + fired.others;
            if rest > 0 {
                let _ = writeln!(text, "{:10}{rest:>8} on others", "");
            }
            for example in &fired.examples {
                let _ = writeln!(text, "{:10}e.g. {}", "", visible(&example.output));
            }
        }
        let never = self.current.never();
        let _ = writeln!(text, "\n{} of {} enabled rules fired", self.current.fired.len(), self.enabled());
        for rule in never {
            let _ = writeln!(text, "   never  {:13}  {}", rule.priority, visible(&rule.id));
        }
        if let Some(against) = &self.against {
            let differences = self.differences(against);
            let _ = writeln!(text, "\n{} rules fire differently than in the other set", differences.len());
            for (id, now, then) in differences {
                let count =
                    |count: Option<u64>| count.map_or("no rule".to_owned(), |count| count.to_string());
                let _ = writeln!(text, "{:>8} instead of {:>8}  {}", count(now), count(then), visible(&id));
            }
        }
        text
    }

    fn enabled(&self) -> usize {
        self.current.rules.iter().filter(|rule| rule.enabled).count()
    }

    /// Rules that fired, the most frequent first.
    fn sorted(&self) -> Vec<(&RuleHead, &Fired)> {
        let mut fired: Vec<(&RuleHead, &Fired)> = self
            .current
            .rules
            .iter()
            .filter_map(|rule| Some((rule, self.current.fired.get(&rule.id)?)))
            .collect();
        fired.sort_by_key(|(_, fired)| std::cmp::Reverse(fired.count));
        fired
    }

    /// Rules that only one of the sets has, or that fired another number of times: id, count here, count there. No
    /// count: no such rule, or a disabled one.
    fn differences(&self, against: &Candidate) -> Vec<(String, Option<u64>, Option<u64>)> {
        let counts = |candidate: &Candidate| -> BTreeMap<String, u64> {
            let enabled = candidate.rules.iter().filter(|rule| rule.enabled);
            enabled
                .map(|rule| (rule.id.clone(), candidate.fired.get(&rule.id).map_or(0, |fired| fired.count)))
                .collect()
        };
        let (now, then) = (counts(&self.current), counts(against));
        let ids: std::collections::BTreeSet<&String> = now.keys().chain(then.keys()).collect();
        ids.into_iter()
            .map(|id| (id.clone(), now.get(id).copied(), then.get(id).copied()))
            .filter(|(_, now, then)| now != then)
            .collect()
    }
}

fn json_of(rule: &RuleHead, fired: &Fired) -> Json {
    let containers: Json = fired
        .top()
        .into_iter()
        .map(|(id, name, count)| json!({"container.id": id, "container.name": name, "count": count}))
        .collect();
    // An alert's line is JSON; should one not be, it is shown as it is.
    let example = |example: &Example| {
        serde_json::from_str(&example.alert).unwrap_or_else(|_| Json::String(example.alert.clone()))
    };
    json!({
        "id": rule.id,
        "name": rule.name,
        "priority": rule.priority,
        "count": fired.count,
        "first": time(fired.first_ns),
        "last": time(fired.last_ns),
        "containers": containers,
        "other_containers": fired.others,
        "examples": fired.examples.iter().map(example).collect::<Json>(),
    })
}

fn time(unix_ns: i64) -> String {
    let mut out = Vec::new();
    WallClock::default().push_rfc3339(unix_ns, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
