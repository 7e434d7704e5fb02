//! Alerts under test: the schema holds, nothing hostile passes, and the cost is measured.

mod why;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::LazyLock;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::fields::{CATALOGUE, Value, resolve};

/// An event made of a map, for tests.
#[derive(Debug, Default)]
struct Fixture(HashMap<FieldRef, Value<'static>>);

impl FieldSource for Fixture {
    fn value(&self, field: FieldRef) -> Value<'_> {
        self.0.get(&field).cloned().unwrap_or(Value::Absent)
    }
}

fn plain(field: Field) -> FieldRef {
    FieldRef { field, arg: FieldArg::None }
}

fn text(value: &str) -> Value<'static> {
    Value::Text(value.to_owned().into())
}

fn named(name: &str) -> (String, FieldRef) {
    let (base, arg) = match name.split_once('[') {
        Some((base, arg)) => (base, arg.strip_suffix(']')),
        None => (name, None),
    };
    (name.to_owned(), resolve(base, arg).unwrap())
}

fn sample() -> Fixture {
    let number = Value::Number;
    Fixture(HashMap::from([
        (plain(Field::EvtType), text("setns")),
        (plain(Field::EvtVerdict), text("refused")),
        (plain(Field::EvtRefusedBy), text("seccomp")),
        (plain(Field::EvtRes), text("EPERM")),
        (plain(Field::EvtAbi), text("x86_64")),
        (plain(Field::EvtFailed), Value::Bool(true)),
        (plain(Field::ContainerId), text("3fa9c1d2e4b5")),
        (plain(Field::ContainerName), text("web")),
        (plain(Field::ContainerMetadata), text("complete")),
        (plain(Field::CgroupId), number(i64::MAX)),
        (plain(Field::ProcName), text("sh")),
        (plain(Field::ProcExepath), text("/bin/busybox")),
        (plain(Field::ProcPid), number(4711)),
        (plain(Field::ProcPpid), number(1)),
        (plain(Field::CapAfter), Value::list(["CAP_CHOWN", "CAP_SETPCAP"])),
        (named("evt.arg[flags]").1, text("CLONE_NEWNS|CLONE_NEWPID")),
    ]))
}

static FIELDS: LazyLock<Vec<(String, FieldRef)>> = LazyLock::new(|| {
    ["proc.name", "evt.arg[flags]", "cap.after", "evt.failed", "proc.aname[2]", "proc.name"].map(named).into()
});
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| vec!["container".into(), "namespace".into()]);
static ATTACK: LazyLock<Vec<String>> = LazyLock::new(|| vec!["T1611".into()]);

fn rule() -> AlertRule<'static> {
    AlertRule {
        id: "namespace-enter-refused",
        name: "Attempt to enter a namespace was refused",
        priority: "Warning",
        source: "syscall",
        tags: &TAGS,
        attack: &ATTACK,
        fields: &FIELDS,
    }
}

const NOON: i64 = 1_795_435_200_123_456_789;

fn alert<'a, E: FieldSource>(form: &'a AlertForm, event: &'a E, output: &'a str) -> Alert<'a, E> {
    Alert { form, event, output, unix_ns: NOON, generation: 7, crossed: None, grouped: None, why: None }
}

fn json_line(form: &AlertForm, event: &Fixture, output: &str) -> Vec<u8> {
    let mut out = Vec::new();
    JsonLines::default().write(&alert(form, event, output), &mut out);
    out
}

fn text_line(palette: Palette, form: &AlertForm, output: &str) -> String {
    let mut out = Vec::new();
    TextLines::new(palette).write(&alert(form, &sample(), output), &mut out);
    String::from_utf8(out).unwrap()
}

static SCHEMA: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::draft202012::new(&serde_json::from_str(ALERT_SCHEMA).unwrap()).unwrap());

/// The line as JSON, after it was held to the schema and to being one line.
fn checked(line: &[u8]) -> serde_json::Value {
    let (end, body) = line.split_last().unwrap();
    assert_eq!(*end, b'\n');
    let body = std::str::from_utf8(body).unwrap();
    assert!(!body.chars().any(char::is_control), "{body:?}");
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    let faults: Vec<String> = SCHEMA.iter_errors(&value).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?} in {body}");
    value
}

#[test]
fn json_line_says_what_the_event_says() {
    let line = json_line(&AlertForm::new(&rule(), "node1"), &sample(), "sh was refused");
    let value = checked(&line);
    assert_eq!(
        value,
        serde_json::json!({
            "time": "2026-11-23T12:00:00.123456789Z",
            "rule": "Attempt to enter a namespace was refused",
            "priority": "Warning",
            "output": "sh was refused",
            "hostname": "node1",
            "source": "syscall",
            "tags": ["container", "namespace"],
            "output_fields": {
                "evt.type": "setns", "evt.verdict": "refused", "evt.refused_by": "seccomp", "evt.res": "EPERM",
                "evt.abi": "x86_64", "container.id": "3fa9c1d2e4b5", "container.name": "web", "container.image": null,
                "container.metadata": "complete", "cgroup.id": i64::MAX, "proc.name": "sh",
                "proc.exepath": "/bin/busybox", "proc.pid": 4711, "proc.ppid": 1, "user.uid": null,
                "evt.arg[flags]": "CLONE_NEWNS|CLONE_NEWPID", "cap.after": ["CAP_CHOWN", "CAP_SETPCAP"],
                "evt.failed": true, "proc.aname[2]": null,
            },
            "schema_version": 2,
            "rule_id": "namespace-enter-refused",
            "attack": ["T1611"],
            "rules_generation": 7,
        })
    );
    // A parsed object hides a key that stands twice.
    assert_eq!(String::from_utf8(line).unwrap().matches("\"proc.name\":").count(), 1);
}

#[test]
fn the_pod_is_named_when_there_is_one() {
    let form = AlertForm::new(&rule(), "h");
    let has = |value: &serde_json::Value, name: &str| value["output_fields"].get(name).is_some();
    let without = checked(&json_line(&form, &sample(), ""));
    assert!(!has(&without, "k8s.pod.name") && !has(&without, "k8s.ns.name"));
    let mut event = sample();
    event.0.insert(plain(Field::K8sPodName), text("web-0"));
    event.0.insert(plain(Field::K8sNsName), text("prod"));
    let value = checked(&json_line(&form, &event, ""));
    assert_eq!(value["output_fields"]["k8s.pod.name"], "web-0");
    assert_eq!(value["output_fields"]["k8s.ns.name"], "prod");
    // A rule that names it has it always.
    let fields = [named("k8s.pod.name")];
    let form = AlertForm::new(&AlertRule { fields: &fields, ..rule() }, "h");
    assert!(checked(&json_line(&form, &sample(), ""))["output_fields"]["k8s.pod.name"].is_null());
    let line = String::from_utf8(json_line(&form, &event, "")).unwrap();
    assert_eq!(line.matches("\"k8s.pod.name\":").count(), 1);
}

#[test]
fn a_text_line_names_the_container_once() {
    let mut event = sample();
    event.0.insert(plain(Field::K8sPodName), text("web-0"));
    event.0.insert(plain(Field::ContainerImage), text("a\x1b[31mb"));
    let shown = |names: &[&str]| {
        let fields: Vec<_> = names.iter().map(|name| named(name)).collect();
        let form = AlertForm::new(&AlertRule { fields: &fields, ..rule() }, "h");
        let mut out = Vec::new();
        let alert = alert(&form, &event, "x");
        TextLines::new(Palette::Plain).write(&alert, &mut out);
        String::from_utf8(out).unwrap()
    };
    let line = shown(&[]);
    let all = "  x container.name=web container.image=a\\x1b[31mb k8s.pod.name=web-0\n";
    assert!(line.ends_with(all), "{line}");
    assert!(shown(&["container.name", "container.image"]).ends_with("  x k8s.pod.name=web-0\n"));
}

#[test]
fn a_value_of_the_wrong_type_never_changes_the_fields_json_type() {
    let mut event = sample();
    event.0.insert(plain(Field::ProcPid), text("4711"));
    event.0.insert(plain(Field::ProcName), Value::Number(1));
    let value = checked(&json_line(&AlertForm::new(&rule(), "h"), &event, ""));
    assert!(value["output_fields"]["proc.pid"].is_null());
    assert!(value["output_fields"]["proc.name"].is_null());
}

#[test]
fn the_schema_refuses_what_it_should() {
    let good = checked(&json_line(&AlertForm::new(&rule(), "h"), &sample(), "x"));
    let breakages: [fn(&mut serde_json::Value); 8] = [
        |v| v["output_fields"]["proc.pid"] = "4711".into(),
        |v| v["output_fields"]["no.such"] = 1.into(),
        |v| drop(v["output_fields"].as_object_mut().unwrap().shift_remove("evt.verdict")),
        |v| v["time"] = "2026-11-23 12:00:00".into(),
        |v| v["priority"] = "warning".into(),
        |v| v["why"] = serde_json::json!([{ "condition": "a.b exists", "holds": true }]),
        |v| v["rules_generation"] = 0.into(),
        |v| v["schema_version"] = 3.into(),
    ];
    for (i, breakage) in breakages.iter().enumerate() {
        let mut bad = good.clone();
        breakage(&mut bad);
        assert!(!SCHEMA.is_valid(&bad), "breakage {i} passed");
    }
}

#[test]
fn text_lines() {
    let form = AlertForm::new(&rule(), "h");
    assert_eq!(
        text_line(Palette::Plain, &form, "a\x1b[2Jb\u{202e}c"),
        "12:00:00.123 Warning        namespace-enter-refused  a\\x1b[2Jb\\u{202e}c container.name=web\n"
    );
    assert_eq!(
        text_line(Palette::Coloured, &form, "x"),
        "12:00:00.123 \x1b[33mWarning\x1b[0m        namespace-enter-refused  x container.name=web\n"
    );
}

fn any_value(ty: FieldType) -> BoxedStrategy<Value<'static>> {
    let hostile = prop_oneof![".*", "[\\x00-\\x1f\"\\\\\u{7f}-\u{9f}\u{2028}-\u{202e}\u{2066}-\u{2069}]*"];
    match ty {
        FieldType::Text => hostile.prop_map(|s| Value::Text(s.into())).boxed(),
        FieldType::Number => any::<i64>().prop_map(Value::Number).boxed(),
        FieldType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        FieldType::TextList => proptest::collection::vec(hostile, 0..4)
            .prop_map(|v| Value::List(Box::new(v.into_iter().map(Into::into).collect())))
            .boxed(),
    }
}

/// Every field of the catalogue, those with arguments with one of theirs.
fn whole_catalogue() -> Vec<(String, FieldRef)> {
    CATALOGUE
        .iter()
        .map(|spec| match spec.arg {
            crate::fields::ArgSpec::Key(keys) => named(&format!("{}[{}]", spec.name, keys[0])),
            crate::fields::ArgSpec::Index { max } => named(&format!("{}[{max}]", spec.name)),
            crate::fields::ArgSpec::Name => named(&format!("{}[a b]", spec.name)),
            crate::fields::ArgSpec::None => named(spec.name),
        })
        .collect()
}

proptest! {
    #[test]
    fn every_line_obeys_the_schema(
        values in whole_catalogue().iter().map(|(_, f)| proptest::option::of(any_value(f.field.spec().ty)))
            .collect::<Vec<_>>(),
        output in ".*", host in ".*", name in ".*", unix_ns in any::<i64>(),
    ) {
        let fields = whole_catalogue();
        let event = Fixture(
            fields.iter().zip(values).filter_map(|((_, f), v)| Some((*f, v?))).collect(),
        );
        let form = AlertForm::new(&AlertRule { name: &name, fields: &fields, ..rule() }, &host);
        let mut line = Vec::new();
        let alert = Alert { unix_ns, ..alert(&form, &event, &output) };
        JsonLines::default().write(&alert, &mut line);
        let value = checked(&line);
        prop_assert_eq!(value["output"].as_str(), Some(output.as_str()));
        prop_assert_eq!(value["hostname"].as_str(), Some(host.as_str()));
        for (name, field) in &fields {
            let expected = match event.value(*field) {
                Value::Absent => serde_json::Value::Null,
                Value::Text(t) => t.into_owned().into(),
                Value::Number(n) => n.into(),
                Value::Bool(b) => b.into(),
                Value::List(l) => l.iter().map(|t| t.to_string()).collect::<Vec<_>>().into(),
            };
            prop_assert_eq!(&value["output_fields"][name], &expected, "{}", name);
        }
    }

    #[test]
    fn no_text_line_drives_a_terminal(output in ".*") {
        let line = text_line(Palette::Plain, &AlertForm::new(&rule(), "h"), &output);
        prop_assert!(!line.trim_end_matches('\n').chars().any(char::is_control));
        prop_assert_eq!(line.matches('\n').count(), 1);
    }
}

/// An event that lends its values, as the live one does.
struct Lender;

impl FieldSource for Lender {
    fn value(&self, field: FieldRef) -> Value<'_> {
        match field.field.spec().ty {
            FieldType::Text => Value::text("/usr/local/bin/a-program"),
            FieldType::Number => Value::Number(1_234_567),
            _ => Value::Absent,
        }
    }
}

/// The thread's own time on a CPU, in nanoseconds: a busy machine does not lengthen it.
fn cpu_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Prints what a line costs; `cargo test --release -p monitor alert_cost -- --nocapture` gives the figure that
/// counts. The bound is wide enough for a debug build on a busy machine, and catches a line that became a
/// hundred times dearer.
#[test]
fn alert_cost() {
    let form = AlertForm::new(&rule(), "node1.example");
    let output = "A process tried to enter a namespace and seccomp refused (command=sh exe=/bin/busybox \
                  flags=CLONE_NEWNS|CLONE_NEWPID container=3fa9c1d2e4b5 runtime=docker user=0 result=EPERM)";
    let (mut json, mut text) = (JsonLines::default(), TextLines::new(Palette::Coloured));
    let mut out = Vec::with_capacity(1 << 16);
    const ROUNDS: i64 = 20_000;
    let mut measure = |name: &str, write: &mut dyn FnMut(i64, &mut Vec<u8>)| {
        let (start, mut bytes) = (cpu_ns(), 0);
        for i in 0..ROUNDS {
            out.clear();
            write(NOON + i * 5_000, &mut out);
            bytes += black_box(&out).len();
        }
        let per_line = (cpu_ns() - start) as f64 / ROUNDS as f64;
        println!("{name}: {per_line:.0} ns per line of {} bytes", bytes / ROUNDS as usize);
        assert!(per_line < 50_000.0, "{name}: {per_line:.0} ns");
    };
    let alert = |unix_ns| Alert { unix_ns, ..alert(&form, &Lender, output) };
    measure("json", &mut |now, out| json.write(&alert(now), out));
    measure("text", &mut |now, out| text.write(&alert(now), out));
}
