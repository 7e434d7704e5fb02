//! `replay` and `rules backtest` over recordings that tests make.

use std::fs;

use monitor_common::call::Call;

use super::*;
use crate::alert::JsonLines;
use crate::alerting::Format;
use crate::cli::backtest;
use crate::cli::replay::{Replay, Replayed};
use crate::cli::rules_command::RuleFiles;
use crate::config::OutputFormat;
use crate::event_type::EventType;
use crate::fields::{FieldKey, FieldValues, Value};
use crate::recording::{BlockEncoder, RecordingFile};
use crate::rules::Priority;

const BEGIN: i64 = 1_700_000_000_000_000_000;
const SECOND: i64 = 1_000_000_000;

const RULES: &str = "\
- rule: Enter
  id: enter
  desc: d
  condition: evt.type = setns
  output: \"entered by %proc.pid in %container.name\"
  priority: WARNING
- rule: In a container
  id: inside
  desc: d
  condition: evt.type = setns and container.id != host
  output: o
  priority: NOTICE
- rule: Never
  id: never
  desc: d
  condition: evt.type = capset
  output: o
  priority: DEBUG
- rule: Off
  id: off
  desc: d
  condition: evt.type = setns
  output: o
  priority: DEBUG
  enabled: false
";

/// A directory with rules and a recording of six events a second apart, the last on the host, in two blocks.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("r.yaml"), RULES).unwrap();
        let bench = Bench { dir };
        bench.record("a.rfrec", "one", &[("a", 3), ("b", 2)]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Containers with their counts, a block each, and one event of the host.
    fn record(&self, name: &str, hostname: &str, containers: &[(&str, i64)]) {
        let mut file = RecordingFile::open(&self.path(name)).unwrap();
        let mut number = 0;
        for (container, count) in containers.iter().chain([&("host", 1)]) {
            let mut encoder = BlockEncoder::new(hostname);
            for _ in 0..*count {
                let mut values = FieldValues::default();
                let mut set = |name: &str, value| {
                    values.set_key(FieldKey::find(name, None).unwrap(), value).unwrap();
                };
                set("proc.pid", Value::Number(number));
                set("container.id", Value::Text((*container).to_owned().into()));
                if *container == "a" {
                    set("container.name", Value::text("web\u{1b}"));
                }
                if *container == "b" {
                    set("container.metadata", Value::text("pending"));
                }
                let time = BEGIN + number * SECOND;
                encoder.push(time, number.cast_unsigned(), EventType::Call(Call::Setns), &values).unwrap();
                number += 1;
            }
            let (mut raw, mut block) = (Vec::new(), Vec::new());
            encoder.finish(&mut raw).write(&raw, 0, &mut block);
            file.append(&block).unwrap();
        }
    }

    fn replay(
        &self,
        files: &[PathBuf],
        min_priority: Priority,
    ) -> Result<(Vec<serde_json::Value>, Replayed), Failure> {
        let files = super::files(files)?;
        let replay = Replay { files, rules: RuleFiles::plain(vec![self.path("r.yaml")]), min_priority };
        let mut out = Vec::new();
        let replayed = replay.run(Format::Json(JsonLines::default()), &mut out)?;
        let lines = String::from_utf8(out).unwrap();
        Ok((lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), replayed))
    }

    fn backtest(&self, span: Span, against: Option<&str>) -> backtest::Backtest {
        let against = against.map(|text| {
            fs::write(self.path("other.yaml"), text).unwrap();
            RuleFiles::plain(vec![self.path("other.yaml")])
        });
        let rules = RuleFiles::plain(vec![self.path("r.yaml")]);
        backtest::run(vec![self.path("a.rfrec")], span, &rules, against.as_ref()).unwrap()
    }
}

fn json(backtest: &backtest::Backtest) -> serde_json::Value {
    serde_json::from_str(&backtest.show(OutputFormat::Json)).unwrap()
}

#[test]
fn replayed_alerts_have_the_recordings_time_and_host() {
    let bench = Bench::new();
    bench.record("b.rfrec", "two", &[]);
    let (alerts, replayed) = bench.replay(&[bench.dir.path().to_owned()], Priority::Debug).unwrap();
    assert_eq!((replayed.events, replayed.alerts, replayed.damaged), (7, 12, false));
    assert_eq!((alerts.len(), replayed.report.as_str()), (12, ""));
    assert_eq!(alerts[2]["time"], "2023-11-14T22:13:21.000000000Z");
    assert_eq!((&alerts[0]["hostname"], &alerts[11]["hostname"]), (&"one".into(), &"two".into()));
    let (alerts, _) = bench.replay(&[bench.path("a.rfrec")], Priority::Warning).unwrap();
    assert_eq!(alerts.len(), 6);
    assert!(alerts.iter().all(|alert| alert["rule_id"] == "enter"));
}

#[test]
fn damage_is_told_when_all_that_is_whole_was_read() {
    let bench = Bench::new();
    let path = bench.path("a.rfrec");
    let mut bytes = fs::read(&path).unwrap();
    // In the content of the first of three blocks.
    bytes[16 + 56 + 3] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (alerts, replayed) = bench.replay(std::slice::from_ref(&path), Priority::Debug).unwrap();
    assert_eq!((alerts.len(), replayed.damaged), (5, true));
    let told =
        format!("{}: damaged at byte 16, behind 0 events: a block's content is damaged; ", path.display());
    assert!(replayed.report.starts_with(&told), "{}", replayed.report);
    assert!(replayed.report.ends_with(" bytes are passed over, 3 events are lost\n"), "{}", replayed.report);
    let backtest = bench.backtest(Span::default(), None);
    assert!(backtest.damaged && json(&backtest)["damaged"] == true);
    assert_eq!(json(&backtest)["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_no_recording_is_refused() {
    let bench = Bench::new();
    for (path, part) in [("r.yaml", "is no recording"), ("nothing", "name a recording")] {
        let error = bench.replay(&[bench.path(path)], Priority::Debug).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(path), "{error}");
    }
}

#[test]
fn a_backtest_counts_rules_and_containers() {
    let bench = Bench::new();
    let backtest = bench.backtest(Span::default(), None);
    let found = json(&backtest);
    assert_eq!((&found["events"], &found["events_without_name"]), (&6.into(), &2.into()));
    assert_eq!(found["first"], "2023-11-14T22:13:20.000000000Z");
    assert_eq!(found["never_fired"], serde_json::json!(["never"]));
    let [enter, inside] = found["fired"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!((&enter["id"], &enter["count"]), (&"enter".into(), &6.into()));
    assert_eq!((&inside["id"], &inside["count"]), (&"inside".into(), &5.into()));
    assert_eq!(inside["last"], "2023-11-14T22:13:24.000000000Z");
    assert_eq!(
        inside["containers"],
        serde_json::json!([
            {"container.id": "a", "container.name": "web\u{1b}", "count": 3},
            {"container.id": "b", "container.name": null, "count": 2},
        ])
    );
    assert_eq!(enter["examples"].as_array().unwrap().len(), 3);
    assert_eq!(enter["examples"][1]["output"], "entered by 1 in web\\x1b");
    let text = backtest.show(OutputFormat::Text);
    for part in [
        "6 events from",
        "2 of 3 enabled rules fired",
        "never  Debug          never",
        "e.g. entered by 0",
        "3 on a (web",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "a control character: {text:?}");

    let span = Span { from: BEGIN + 4 * SECOND, to: i64::MAX };
    assert_eq!(json(&bench.backtest(span, None))["fired"][0]["count"], 2);
}

#[test]
fn a_backtest_says_what_another_set_would_have_done() {
    let bench = Bench::new();
    let other = RULES.replace("container.id != host", "container.id = b").replace("id: never", "id: new");
    let backtest = bench.backtest(Span::default(), Some(&other));
    assert_eq!(
        json(&backtest)["differences"],
        serde_json::json!([
            {"id": "inside", "count": 5, "count_against": 2},
            {"id": "never", "count": 0, "count_against": null},
            {"id": "new", "count": null, "count_against": 0},
        ])
    );
    let text = backtest.show(OutputFormat::Text);
    assert!(
        text.contains("3 rules fire differently") && text.contains("5 instead of        2  inside"),
        "{text}"
    );
    assert_eq!(json(&bench.backtest(Span::default(), Some(RULES)))["differences"], serde_json::json!([]));
}

#[test]
fn lengths_of_time_are_read() {
    for (text, seconds) in [("90s", 90), ("15m", 900), ("24h", 86_400), ("7d", 604_800)] {
        assert_eq!(parse_span(text), Ok(seconds * SECOND), "{text}");
    }
    for wrong in ["", "h", "24", "-1h", "1w", "1.5h", "0s", "99999999999999d", "24\u{20ac}"] {
        assert!(parse_span(wrong).is_err(), "{wrong}");
    }
}
