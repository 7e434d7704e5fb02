//! Alerting under test: reloads while alerts are held together, bursts into small queues.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use monitor_common::call::Call;

use super::*;
use crate::enrich::names::tests::metrics;
use crate::fields::{FieldKey, FieldValues, Value};

/// An output whose lines can be looked at.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn rules(id: &str, output: &str, keys: &str) -> RuleSet {
    let text = format!(
        "- rule: {id}\n  id: {id}\n  desc: d\n  condition: evt.type = setns\n  output: {output}\n  priority: NOTICE\n{keys}"
    );
    RuleSet::from_sources(&[("r.yaml", &text)]).unwrap()
}

fn alerting(rules: RuleSet, lines: &Lines, queue_bytes: usize) -> Alerting {
    let sink = Sink::start("lines", lines.clone(), queue_bytes).unwrap();
    let output = Output::new(sink, Format::Json(JsonLines::default()));
    Alerting::new(rules, Priority::Debug, vec![output], "h", metrics()).unwrap()
}

fn raise(alerting: &mut Alerting, at: u64) {
    let mut values = FieldValues::default();
    values.set_key(FieldKey::find("evt.type", None).unwrap(), Value::text("setns")).unwrap();
    let at = Moment { unix_ns: at as i64, boot_ns: at };
    alerting.written(|alerting, write| {
        alerting.raise(EventType::Call(Call::Setns), &values, at, write);
    });
}

#[test]
fn what_is_held_back_is_told_once_and_under_its_own_rules_when_others_come() {
    let (lines, grouped) = (Lines::default(), "  group_by: [evt.type]\n  group_seconds: 10\n");
    let mut alerting = alerting(rules("before", "o", grouped), &lines, 1 << 20);
    let next = Maker::new("h", metrics()).make(2, rules("after", "o", grouped)).unwrap();
    (1..=2).for_each(|at| raise(&mut alerting, at));
    let slot = Arc::clone(alerting.slot());
    slot.put(next, tokio::sync::oneshot::channel().0);
    // Another one is just being put there: nothing is taken, and so nothing ends.
    let held = slot.hold();
    alerting.turn();
    raise(&mut alerting, 3);
    drop(held);
    alerting.turn();
    raise(&mut alerting, 4);
    let outputs = alerting.into_outputs();
    assert_eq!(outputs[0].sink.flush(Instant::now() + Duration::from_secs(30)).lost_lines, 0);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let told: Vec<(String, u64, u64)> = text
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let count = line["output_fields"]["group.count"].as_u64().unwrap_or(0);
            let generation = line["rules_generation"].as_u64().unwrap();
            (line["rule_id"].as_str().unwrap().to_owned(), count, generation)
        })
        .collect();
    let row = |id: &str, count, generation| (id.to_owned(), count, generation);
    assert_eq!(told, [row("before", 0, 1), row("before", 2, 1), row("after", 0, 2)], "{text}");
}

#[test]
fn a_burst_finds_room_in_a_small_queue_that_is_empty() {
    const QUEUE: usize = 64 << 10;
    let lines = Lines::default();
    let mut alerting = alerting(rules("r", &"x".repeat(1000), ""), &lines, QUEUE);
    let sink = Arc::clone(&alerting.outputs[0].sink);
    for at in 0..100 {
        raise(&mut alerting, at);
        let end = Instant::now() + Duration::from_secs(30);
        while sink.stats().queued_bytes() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    alerting.hand_over();
    assert_eq!(sink.flush(Instant::now() + Duration::from_secs(30)).lost_lines, 0);
    assert!(lines.0.lock().unwrap().len() > QUEUE);
    assert_eq!(sink.stats().dropped_lines(crate::sink::DropReason::QueueFull), 0);
}
