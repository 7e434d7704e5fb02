//! Events that wait, under test: what goes to the output, when, and in which order.

use std::time::Duration;

use monitor_common::call::Call;
use monitor_common::ids::{BootNs, CgroupId, Tgid};
use prometheus::IntCounter;
use proptest::prelude::*;

use super::*;
use crate::alert::JsonLines;
use crate::decode::{ProcessKey, RawCall, RawTask};
use crate::enrich::metadata::Miss;
use crate::enrich::names::tests::{Hand, container, metrics, named};
use crate::enrich::users::Users;
use crate::generation::Maker;
use crate::metrics::{Discard, Metrics};
use crate::pipeline::page::Page;
use crate::pipeline::{Format, Output, Parts};
use crate::rules::{Priority, RuleSet};
use crate::sink::Sink;

const RULES: &str = "\
- rule: Enter
  id: enter
  desc: d
  condition: evt.type = setns
  output: o
  priority: WARNING
- rule: By name
  id: by-name
  desc: d
  condition: evt.type = unshare and container.name = web
  output: o
  priority: WARNING
- rule: Not asked for
  id: not-asked-for
  desc: d
  condition: evt.type = capset
  output: o
  priority: DEBUG
- rule: Twice
  id: twice
  desc: d
  condition: evt.type = stime
  output: o
  priority: WARNING
  threshold: {count: 2, within: 10s, by: [container.name]}
";

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);
const HOST: CgroupId = CgroupId(1);
const CONTAINERS: [&str; 3] = ["a", "b", "c"];

/// A pipeline between a test that makes the records and answers the questions, and a page.
struct Bench {
    pipeline: Pipeline,
    hand: Hand,
    page: Page,
    metrics: Arc<Metrics>,
    /// The counters of the rules.
    alerts: Vec<IntCounter>,
    calls: u32,
}

/// What a line says: the number of the call, and what it knows of the name.
type Line = (u64, Option<String>, Option<String>);

impl Bench {
    fn new(wait: Duration) -> Self {
        let metrics = metrics();
        let rules = RuleSet::from_sources(&[("r.yaml", RULES)]).unwrap();
        let alerts = metrics.rule_alerts(rules.rules()).unwrap();
        let (names, hand) = Hand::with_names(Arc::clone(&metrics), 64);
        let page = Page::default();
        let sink = Sink::start("test", page.clone(), 64 << 20).unwrap();
        let pipeline = Pipeline::new(Parts {
            rules,
            min_priority: Priority::Notice,
            alert_why: false,
            process_entries: 100,
            hierarchy: None,
            outputs: vec![Output::new(sink, Format::Json(JsonLines::default()))],
            hostname: "h".to_owned(),
            names,
            users: Users::default(),
            metadata_wait: wait,
            metrics: Arc::clone(&metrics),
            canary: None,
            recorder: None,
        });
        let mut bench = Bench { pipeline: pipeline.unwrap(), hand, page, metrics, alerts, calls: 0 };
        bench.made(HOST, "/system.slice/ssh.service");
        bench
    }

    /// A record tells that a cgroup was made.
    fn made(&mut self, id: CgroupId, path: &str) {
        self.pipeline.cgroups.made(id, path.as_bytes());
        self.pipeline.ask_names();
    }

    /// The cgroup of one of the containers, made.
    fn start(&mut self, which: usize) {
        let path = format!("/docker/{}", CONTAINERS[which].repeat(64));
        self.made(cgroup(which), &path);
    }

    /// A record tells of a call; gives its number.
    fn call(&mut self, call: Call, cgroup: CgroupId) -> u32 {
        self.calls += 1;
        self.pipeline.call(&raw(call, cgroup, self.calls), false);
        self.calls
    }

    fn answer(&mut self, which: usize, outcome: Result<&str, Miss>) -> bool {
        let answered = self.hand.answer(&container(CONTAINERS[which]), outcome.map(named));
        self.pipeline.tend();
        answered
    }

    fn waited(&self, end: WaitEnd) -> u64 {
        self.metrics.events_waited[end as usize].get()
    }

    /// Calls that raised an alert; the rules at work raise one each.
    fn alerts(&self) -> u64 {
        self.alerts.iter().map(IntCounter::get).sum()
    }

    fn discarded(&self, why: Discard) -> u64 {
        self.metrics.events_discarded[why as usize].get()
    }

    /// Ends the pipeline, and gives what it wrote.
    fn end(self) -> Vec<Line> {
        self.text().lines().map(line).collect()
    }

    fn text(mut self) -> String {
        self.pipeline.finish();
        for output in self.pipeline.into_outputs() {
            output.sink.flush(Instant::now() + LONG);
        }
        let page = self.page.0.lock().unwrap().clone();
        String::from_utf8(page).unwrap()
    }
}

fn cgroup(which: usize) -> CgroupId {
    CgroupId(100 + which as u64)
}

/// A call with a number that shows in its line.
fn raw(call: Call, cgroup: CgroupId, number: u32) -> RawCall<'static> {
    let process = ProcessKey { tgid: Tgid(number), start: BootNs(1) };
    RawCall { task: RawTask { process, cgroup, ..RawTask::default() }, ..RawCall::made_up(call) }
}

fn line(text: &str) -> Line {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let fields = &value["output_fields"];
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    (fields["proc.pid"].as_u64().unwrap(), text("container.metadata"), text("container.name"))
}

/// What [`line`] gives for the call with this number.
fn is(number: u32, metadata: &str, name: &str) -> Line {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (number.into(), text(metadata), text(name))
}

#[test]
fn an_alert_waits_for_the_name_and_others_pass_by() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    bench.start(1);
    assert_eq!(bench.hand.take(), 2, "asked before the first process runs");
    assert!(bench.answer(1, Ok("other")));
    let first = bench.call(Call::Setns, cgroup(0));
    let second = bench.call(Call::Setns, cgroup(0));
    let host = bench.call(Call::Setns, HOST);
    let other = bench.call(Call::Setns, cgroup(1));
    assert_eq!((bench.pipeline.room.len(), bench.alerts()), (2, 2));
    assert!(bench.answer(0, Ok("web")));
    assert_eq!((bench.pipeline.room.len(), bench.alerts(), bench.waited(WaitEnd::Named)), (0, 4, 2));
    let third = bench.call(Call::Setns, cgroup(0));
    assert_eq!(
        bench.end(),
        [
            is(host, "", ""),
            is(other, "complete", "other"),
            is(first, "complete", "web"),
            is(second, "complete", "web"),
            is(third, "complete", "web"),
        ]
    );
}

/// New rules are in force from the next record on, and for those that wait; each event raises one alert.
#[test]
fn who_waits_is_judged_by_the_rules_in_force_then() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    let waits = bench.call(Call::Setns, cgroup(0));
    let before = bench.call(Call::Setns, HOST);
    let rules = RULES.replace("id: enter", "id: enter-2");
    let rules = RuleSet::from_sources(&[("r.yaml", &rules)]).unwrap();
    let next = Maker::new("h", Arc::clone(&bench.metrics)).make(2, rules).unwrap();
    let handover = bench.pipeline.handover();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let old = runtime.block_on(async {
        let offering = tokio::spawn(async move { handover.offer(next).await });
        tokio::task::yield_now().await;
        // A record that is none counts as one that lies between two events.
        bench.pipeline.handle(&[]);
        offering.await.unwrap()
    });
    assert_eq!(old.map(|old| old.number), Some(1));
    assert_eq!(bench.metrics.rules_generation.get(), 2);
    let after = bench.call(Call::Setns, HOST);
    assert!(bench.answer(0, Ok("web")));
    let judged = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let number = value["output_fields"]["proc.pid"].as_u64().unwrap() as u32;
        (number, value["rule_id"].as_str().unwrap().to_owned(), value["rules_generation"].as_u64().unwrap())
    };
    let lines: Vec<_> = bench.text().lines().map(judged).collect();
    let wanted = [(before, "enter", 1), (after, "enter-2", 2), (waits, "enter-2", 2)];
    assert_eq!(lines, wanted.map(|(number, id, generation)| (number, id.to_owned(), generation)));
}

#[test]
fn an_event_that_a_threshold_counts_by_name_waits_for_it() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    bench.start(1);
    assert!(bench.answer(1, Ok("web")));
    bench.call(Call::Stime, cgroup(1));
    assert_eq!(bench.discarded(Discard::BelowThreshold), 1);
    let held = bench.call(Call::Stime, cgroup(0));
    assert_eq!((bench.pipeline.room.len(), bench.alerts()), (1, 0));
    assert!(bench.answer(0, Ok("web")));
    assert_eq!((bench.alerts(), bench.discarded(Discard::BelowThreshold)), (1, 1));
    assert_eq!(bench.end(), [is(held, "complete", "web")]);
}

#[test]
fn a_name_that_cannot_be_had_ends_the_wait() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    let early = bench.call(Call::Setns, cgroup(0));
    assert!(bench.answer(0, Err(Miss::TooLarge)));
    let late = bench.call(Call::Setns, cgroup(0));
    assert_eq!((bench.waited(WaitEnd::Missing), bench.pipeline.room.len()), (1, 0));
    assert_eq!(bench.end(), [is(early, "missing", ""), is(late, "missing", "")]);
}

#[test]
fn an_alert_goes_out_at_the_deadline_and_a_later_name_helps_the_next() {
    let wait = Duration::from_millis(30);
    let mut bench = Bench::new(wait);
    bench.start(0);
    let start = Instant::now();
    let early = bench.call(Call::Setns, cgroup(0));
    let deadline = bench.pipeline.deadline().expect("somebody waits");
    assert!(deadline >= start + wait && deadline <= Instant::now() + wait);
    if start.elapsed() < wait / 2 {
        bench.pipeline.tend();
        assert_eq!(bench.pipeline.room.len(), 1, "before the deadline");
    }
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    // Records that come without a pause do not put it off.
    bench.pipeline.hand_over();
    assert_eq!((bench.waited(WaitEnd::TimedOut), bench.pipeline.deadline()), (1, None));
    assert!(bench.answer(0, Ok("web")));
    let late = bench.call(Call::Setns, cgroup(0));
    assert_eq!(bench.end(), [is(early, "pending", ""), is(late, "complete", "web")]);
}

#[test]
fn the_end_of_the_daemon_lets_all_go() {
    let mut bench = Bench::new(LONG);
    for which in 0..CONTAINERS.len() {
        bench.start(which);
    }
    let first = bench.call(Call::Setns, cgroup(1));
    let second = bench.call(Call::Setns, cgroup(0));
    let third = bench.call(Call::Setns, cgroup(2));
    // An answer that is there already still counts.
    assert!(bench.hand.answer(&container("c"), Ok(named("web"))));
    let metrics = Arc::clone(&bench.metrics);
    assert_eq!(
        bench.end(),
        [is(third, "complete", "web"), is(first, "pending", ""), is(second, "pending", "")]
    );
    assert_eq!(metrics.events_waited[WaitEnd::Shutdown as usize].get(), 2);
}

#[test]
fn only_what_may_raise_an_alert_waits() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    // (call, whether it waits)
    for (call, waits) in
        [(Call::Syslog, false), (Call::Capset, false), (Call::Setns, true), (Call::Unshare, true)]
    {
        let before = bench.pipeline.room.len();
        bench.call(call, cgroup(0));
        assert_eq!(bench.pipeline.room.len() > before, waits, "{call:?}");
    }
    assert_eq!((bench.discarded(Discard::NoRule), bench.discarded(Discard::BelowPriority)), (1, 1));
    // The rule that asks for the name is judged by the name.
    assert!(bench.answer(0, Ok("web")));
    assert_eq!((bench.discarded(Discard::NoRule), bench.alerts()), (1, 2));
    bench.start(1);
    bench.call(Call::Unshare, cgroup(1));
    assert!(bench.answer(1, Ok("other")));
    assert_eq!((bench.discarded(Discard::NoRule), bench.alerts()), (2, 2));
}

#[test]
fn without_a_wait_nothing_waits() {
    let mut bench = Bench::new(Duration::ZERO);
    bench.start(0);
    let call = bench.call(Call::Setns, cgroup(0));
    assert_eq!(bench.pipeline.room.len(), 0);
    assert_eq!(bench.end(), [is(call, "pending", "")]);
}

#[test]
fn canaries_do_not_wait() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    bench.pipeline.call(&raw(Call::Setns, cgroup(0), 1), true);
    assert_eq!(bench.pipeline.room.len(), 0);
    assert_eq!(bench.end(), []);
}

#[test]
fn a_full_room_lets_the_oldest_go() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    for _ in 0..crate::held::ROOM_OF_ONE + 2 {
        bench.call(Call::Setns, cgroup(0));
    }
    assert_eq!((bench.waited(WaitEnd::NoRoom), bench.alerts()), (2, 2));
    assert!(bench.answer(0, Ok("web")));
    let lines = bench.end();
    assert!(lines.is_sorted_by_key(|line| line.0));
    let pending = lines.iter().filter(|line| line.1.as_deref() == Some("pending")).count();
    assert_eq!((pending, lines.len()), (2, crate::held::ROOM_OF_ONE + 2));
}

#[test]
fn a_container_is_named_for_a_while_after_its_end() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    assert!(bench.answer(0, Ok("web")));
    bench.pipeline.cgroup_removed(cgroup(0), BootNs(5));
    bench.pipeline.names.tick(Instant::now() + Duration::from_secs(59));
    assert_eq!(bench.pipeline.names.len(), 1);
    let call = bench.call(Call::Setns, cgroup(0));
    assert_eq!(bench.end(), [is(call, "complete", "web")]);
}

#[test]
fn a_wait_for_a_name_that_nobody_reads_any_more_ends_before_the_next_event() {
    let mut bench = Bench::new(LONG);
    bench.start(0);
    let early = bench.call(Call::Setns, cgroup(0));
    // The container's place in the table is given up.
    bench.pipeline.cgroup_removed(cgroup(0), BootNs(5));
    bench.pipeline.names.tick(Instant::now() + Duration::from_secs(61));
    let late = bench.call(Call::Setns, cgroup(0));
    assert_eq!((bench.pipeline.room.len(), bench.waited(WaitEnd::NoRoom)), (0, 1));
    assert_eq!(bench.end(), [is(early, "missing", ""), is(late, "missing", "")]);
}

/// What happens to a pipeline.
#[derive(Clone, Copy, Debug)]
enum Step {
    Call(Option<usize>),
    Nothing(Option<usize>),
    Start(usize),
    Answer(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let place = proptest::option::weighted(0.7, 0..CONTAINERS.len());
    prop_oneof![
        6 => place.clone().prop_map(Step::Call),
        1 => place.prop_map(Step::Nothing),
        2 => (0..CONTAINERS.len()).prop_map(Step::Start),
        2 => (0..CONTAINERS.len(), any::<bool>()).prop_map(|(which, named)| Step::Answer(which, named)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn order_is_kept_nobody_else_waits_and_every_call_is_accounted_for(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut bench = Bench::new(LONG);
        let mut known = [false; CONTAINERS.len()];
        let mut answered = [false; CONTAINERS.len()];
        let mut places: Vec<(u32, Option<usize>)> = Vec::new();
        for step in steps {
            let (waiting, alerts) = (bench.pipeline.room.len(), bench.alerts());
            match step {
                // A second time it is the same directory, found by a walk.
                Step::Start(which) => {
                    known[which] = true;
                    bench.start(which);
                }
                Step::Answer(which, named) => {
                    let outcome = if named { Ok("web") } else { Err(Miss::NotFound) };
                    let expected = known[which] && !answered[which];
                    prop_assert_eq!(bench.answer(which, outcome), expected);
                    answered[which] |= expected;
                }
                Step::Nothing(place) => {
                    bench.call(Call::Syslog, place.map_or(HOST, cgroup));
                    prop_assert_eq!((bench.pipeline.room.len(), bench.alerts()), (waiting, alerts));
                }
                Step::Call(place) => {
                    let number = bench.call(Call::Setns, place.map_or(HOST, cgroup));
                    let waits = place.is_some_and(|which| known[which] && !answered[which]);
                    let now = (bench.pipeline.room.len(), bench.alerts());
                    prop_assert_eq!(now, if waits { (waiting + 1, alerts) } else { (waiting, alerts + 1) });
                    places.push((number, place));
                }
            }
            let nothing = bench.discarded(Discard::NoRule) + bench.discarded(Discard::BelowPriority);
            let accounted = nothing + bench.alerts() + bench.pipeline.room.len() as u64;
            prop_assert_eq!(accounted, u64::from(bench.calls));
        }
        let ended = |bench: &Bench| WaitEnd::ALL.iter().map(|end| bench.waited(*end)).sum::<u64>();
        prop_assert!(ended(&bench) <= bench.alerts());
        let lines = bench.end();
        prop_assert_eq!(lines.len(), places.len());
        for place in [None, Some(0), Some(1), Some(2)] {
            let came: Vec<u64> = places.iter().filter(|call| call.1 == place).map(|call| call.0.into()).collect();
            let went: Vec<u64> = lines.iter().map(|line| line.0).filter(|number| came.contains(number)).collect();
            prop_assert_eq!(came, went);
        }
    }
}
