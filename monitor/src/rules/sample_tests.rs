//! Events that are written down: what is read, and what is refused where.

use super::*;
use crate::fields::resolve;

fn parse(text: &str) -> Sample {
    Sample::parse("event.yaml", text.to_owned()).unwrap_or_else(|error| panic!("{error}"))
}

/// Everything that is wrong, as `line:column: message (hint)`.
fn wrong(text: &str) -> Vec<String> {
    let error = Sample::parse("event.yaml", text.to_owned()).unwrap_err();
    let line = |found: &Diagnostic| {
        let place = found.line_column().map_or(String::new(), |(line, column)| format!("{line}:{column}: "));
        let hint = found.hint().map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{place}{}{hint}", found.message())
    };
    error.diagnostics().iter().map(line).collect()
}

fn value(sample: &Sample, name: &str, arg: Option<&str>) -> Value<'static> {
    sample.values.value(resolve(name, arg).unwrap()).into_owned()
}

#[test]
fn a_mapping_gives_each_field_a_value_of_its_type() {
    let sample = parse(
        "evt.type: setns\nproc.pid: 0x2a\nevt.failed: false\nns.changed: [mnt, user]\nproc.aname[2]: 17\n\
         container.label[\"a b\"]: x\ncontainer.name: ~\nns.after[mnt]: 4026531840\nproc.name: 'null'\n",
    );
    assert_eq!(sample.ty.name(), "setns");
    assert_eq!(value(&sample, "proc.pid", None), Value::Number(42));
    assert_eq!(value(&sample, "evt.failed", None), Value::Bool(false));
    assert_eq!(value(&sample, "ns.changed", None), Value::list(["mnt", "user"]));
    assert_eq!(value(&sample, "proc.aname", Some("2")), Value::text("17"));
    assert_eq!(value(&sample, "container.label", Some("a b")), Value::text("x"));
    assert_eq!(value(&sample, "ns.after", Some("mnt")), Value::Number(4_026_531_840));
    assert_eq!(value(&sample, "proc.name", None), Value::text("null"));
    for absent in ["container.name", "user.uid"] {
        assert_eq!(value(&sample, absent, None), Value::Absent);
    }
    let named = |name: &str, arg| sample.names(resolve(name, arg).unwrap());
    assert!(
        named("container.name", None) && named("container.label", Some("a b")) && !named("user.uid", None)
    );
}

#[test]
fn json_is_read_too_and_an_alert_is_the_event_that_it_tells_of() {
    let sample =
        parse(r#"{"evt.type":"capset","cap.gained":["CAP_KILL"],"proc.name":"a\"\u001b\\x","user.uid":-1}"#);
    assert_eq!(value(&sample, "proc.name", None), Value::text("a\"\u{1b}\\x"));
    assert_eq!(value(&sample, "user.uid", None), Value::Number(-1));
    let alert = r#"{"time":"2026-11-23T12:00:00Z","rule":"R","output":"o","tags":[],"output_fields":
        {"evt.type":"setns","evt.verdict":"undecided","container.name":null,"later.field":7,"proc.pid":5},
        "why":[{"condition":"ns.direction = own","holds":true,"values":{"ns.direction":"own","proc.pid":5,"len(proc.name)":2}}]}"#;
    let sample = parse(alert);
    assert!(sample.from_alert);
    assert_eq!(value(&sample, "ns.direction", None), Value::text("own"));
    assert_eq!(
        value(&sample, "evt.verdict", None),
        Value::text("undecided"),
        "another version may know more words"
    );
    assert_eq!(value(&sample, "proc.pid", None), Value::Number(5));
    assert_eq!(value(&sample, "container.name", None), Value::Absent);
}

#[test]
fn what_is_wrong_is_shown_at_its_place() {
    assert_eq!(
        wrong("evt.typ: setns\nevt.type: setns"),
        ["1:1: unknown field `evt.typ` (did you mean `evt.type`?)"]
    );
    assert_eq!(
        wrong("evt.type: setnss\nproc.pid: \"7\"\nns.changed: mnt\nevt.failed: 'true'\nproc.name: [a]"),
        [
            "1:11: unknown event type `setnss` (did you mean `setns`?)",
            "2:11: `proc.pid` is a number, found the text \"7\" (write a whole number, without quotes)",
            "3:13: `ns.changed` is a list of texts, found `mnt` (write a sequence: `[mnt]`)",
            "4:13: `evt.failed` is a bool, found the text \"true\" (write true or false, without quotes)",
            "5:12: `proc.name` is a text, found a sequence",
        ]
    );
    assert_eq!(
        wrong("evt.type: setns\nevt.verdict: refusd\ncap.gained: [CAP_KILL, CAP_SYS_ADMN]\nevt.phase: x"),
        [
            "2:14: `evt.verdict` is never `refusd` (did you mean `refused`?)",
            "3:24: `cap.gained` is never `CAP_SYS_ADMN` (did you mean `CAP_SYS_ADMIN`?)",
            "4:12: `evt.phase` is never `x` (known are: running, starting)",
        ]
    );
    assert_eq!(
        wrong("evt.type: setns\nproc.aname: a\nproc.aname[1]: b\nproc.aname[9]: c\nevt.arg: x\nx and y.z: 1"),
        [
            "3:1: `proc.aname[1]` stands twice in this event",
            "4:1: field `proc.aname` does not accept the argument `9`: a number from 0 to 8",
            &format!(
                "5:1: field `evt.arg` needs an argument in brackets: one of {}",
                fields::ARG_NAMES.join(", ")
            ),
            "6:1: `x and y.z` is not a field (`ringfence fields` lists all fields)",
        ]
    );
    assert_eq!(
        wrong("proc.pid: 1.5")[0],
        "1:11: `proc.pid` is a number, found `1.5` (write a whole number, without quotes)"
    );
    let no_type = "this event has no `evt.type` (add what it is about, such as `evt.type: setns`)";
    assert_eq!(wrong("proc.pid: 1"), [format!("1:1: {no_type}")]);
    assert_eq!(wrong("evt.type: ~").len(), 1, "absent is no type");
}

#[test]
fn what_is_no_event_is_refused() {
    assert_eq!(
        wrong("")[0],
        "no event: the text is empty (an event is a mapping from fields to values, such as `evt.type: setns`)"
    );
    assert!(wrong("[a]")[0].contains("found a sequence"));
    assert!(
        wrong("{a: b}\n{a: b}")[0].contains("of a file of alerts, one line"),
        "{:?}",
        wrong("{a: b}\n{a: b}")
    );
    assert!(wrong("evt.type: setns\n---\nevt.type: setns")[0].starts_with("3:1: a second event"));
    assert!(wrong(r#"{"output_fields":{"evt.type":null}}"#)[0].contains("this alert has no event"));
    assert!(wrong(&"x".repeat(MAX_EVENT_BYTES as usize + 1))[0].contains("no event is"));
    let many: String = (0..MAX_FIELDS + 2).map(|i| format!("container.label[k{i}]: x\n")).collect();
    assert!(wrong(&many)[0].contains("at most 512 fields"));
    let long = format!("evt.type: setns\ncontainer.label[{}]: x", "k".repeat(MAX_NAME_BYTES + 1));
    assert!(wrong(&long)[0].contains("at most 256 bytes"));
    let list = format!("evt.type: setns\nns.changed: [{}]", vec!["mnt"; MAX_LIST + 1].join(", "));
    assert!(wrong(&list)[0].contains("at most 64 members"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(evt\\.type|proc\\.pid|container\\.label\\[.{0,3}\\]|why|output_fields|[\\s\\S]{0,4})*: ?[\\s\\S]{0,20}") {
        let _either = Sample::parse("event", text);
    }
}
