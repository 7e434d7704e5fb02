//! That the linter's proofs are true, for random conditions and events.

use proptest::prelude::*;

use super::rule;
use crate::event_type::EventType;
use crate::fields::{FieldValues, Value, owned_list, resolve};
use crate::rules::LoadOptions;
use crate::rules::lint::form::Builder;
use crate::rules::lint::logic;
use crate::rules::load;

/// A comparison of the few fields that [`any_event`] sets.
fn any_test() -> impl Strategy<Value = String> {
    let names = || prop_oneof![Just("a"), Just("ab"), Just("b"), Just("/a"), Just("/a/b"), Just("''")];
    let caps = || proptest::sample::subsequence(vec!["CAP_BPF", "CAP_KILL", "CAP_CHOWN"], 0..3);
    let op = prop_oneof![
        Just("="),
        Just("!="),
        Just("startswith"),
        Just("endswith"),
        Just("contains"),
        Just("icontains"),
        Just("glob")
    ];
    let types = || proptest::sample::subsequence(vec!["setns", "unshare", "syslog", "entered"], 0..4);
    prop_oneof![
        (op, names()).prop_map(|(op, name)| format!("proc.name {op} {name}")),
        (prop_oneof![Just("in"), Just("intersects")], proptest::collection::vec(names(), 0..3))
            .prop_map(|(op, names)| format!("proc.name {op} ({})", names.join(", "))),
        proptest::collection::vec(prop_oneof![Just("/a"), Just("/a/b"), Just("/")], 1..3)
            .prop_map(|paths| format!("proc.name pmatch ({})", paths.join(", "))),
        Just("proc.name exists".to_owned()),
        Just("proc.name = val(proc.pname)".to_owned()),
        (prop_oneof![Just("="), Just("!="), Just("<"), Just(">=")], 0..4)
            .prop_map(|(op, number)| format!("proc.pid {op} {number}")),
        proptest::collection::vec(0..4, 0..3).prop_map(|numbers| {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            format!("proc.pid in ({})", numbers.join(", "))
        }),
        (prop_oneof![Just("in"), Just("intersects")], caps())
            .prop_map(|(op, caps)| format!("cap.gained {op} ({})", caps.join(", "))),
        prop_oneof![Just("="), Just("!=")].prop_map(|op| format!("cap.gained {op} CAP_BPF")),
        (prop_oneof![Just("oneof"), Just("anyof"), Just("allof")], proptest::collection::vec(names(), 0..3))
            .prop_map(|(word, names)| format!("proc.name startswith {word} ({})", names.join(", "))),
        any::<bool>().prop_map(|flag| format!("evt.failed = {flag}")),
        types().prop_map(|types| format!("evt.type in ({})", types.join(", "))),
        Just("evt.type != setns".to_owned()),
        Just("syslog.action = READ".to_owned()),
    ]
}

fn any_condition() -> impl Strategy<Value = String> {
    any_test().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" and "))),
            proptest::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" or "))),
            inner.prop_map(|part| format!("not ({part})")),
        ]
    })
}

fn any_event() -> impl Strategy<Value = (EventType, FieldValues)> {
    let name = || {
        proptest::option::of(prop_oneof![
            Just("a"),
            Just("ab"),
            Just("B"),
            Just("/a"),
            Just("/a/b"),
            Just("")
        ])
    };
    let caps =
        proptest::option::of(proptest::sample::subsequence(vec!["CAP_BPF", "CAP_KILL", "CAP_CHOWN"], 0..3));
    let ty = proptest::sample::select(EventType::all().collect::<Vec<_>>());
    (ty, name(), name(), proptest::option::of(0_i64..5), caps, any::<bool>()).prop_map(
        |(ty, name, parent, pid, caps, failed)| {
            let mut event = FieldValues::default();
            let mut set = |field: &str, value: Value<'static>| {
                let field = resolve(field, None).unwrap();
                if field.types().has(ty) {
                    event.set(field, value).unwrap();
                }
            };
            set("evt.type", Value::text(ty.name()));
            set("evt.failed", Value::Bool(failed));
            set("syslog.action", Value::text("READ"));
            set("proc.name", name.map_or(Value::Absent, Value::text));
            set("proc.pname", parent.map_or(Value::Absent, Value::text));
            set("proc.pid", pid.map_or(Value::Absent, Value::Number));
            let list = |caps: Vec<&str>| owned_list(caps.into_iter().map(str::to_owned));
            set("cap.gained", caps.map_or(Value::Absent, list));
            (ty, event)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// What is said to follow follows, and what is said never to hold does not, for every event.
    #[test]
    fn proofs_are_true(
        one in any_condition(),
        other in any_condition(),
        events in proptest::collection::vec(any_event(), 40),
    ) {
        let text = rule("One", &format!("\"{one}\""), "") + &rule("Other", &format!("\"{other}\""), "");
        let mut parts = load::parts_of_texts(&[("t.yaml", &text)], &LoadOptions::default()).unwrap();
        let mut builder = Builder::new(&mut parts.library);
        let forms: Vec<_> = [&one, &other].map(|text| builder.condition(text).unwrap()).into();
        let rules = parts.set.rules();
        for (i, j) in [(0, 1), (1, 0)] {
            if logic::implies(&forms[i], &forms[j]) {
                for (_, event) in events.iter().filter(|(_, event)| rules[i].holds(event)) {
                    prop_assert!(rules[j].holds(event), "{one} / {other}: {event:?}");
                }
            }
            if logic::never(&forms[i]).is_some() {
                for (_, event) in &events {
                    prop_assert!(!rules[i].holds(event), "{}: {event:?}", [&one, &other][i]);
                }
            }
        }
        // A condition follows from itself, and from itself with more.
        prop_assert!(logic::implies(&forms[0], &forms[0]), "{one}");
        let both = builder.condition(&format!("({one}) and ({other})")).unwrap();
        prop_assert!(logic::implies(&both, &forms[0]) && logic::implies(&both, &forms[1]), "{one} / {other}");
        let either = builder.condition(&format!("({one}) or ({other})")).unwrap();
        prop_assert!(logic::implies(&forms[0], &either) && logic::implies(&forms[1], &either), "{one} / {other}");
    }
}
