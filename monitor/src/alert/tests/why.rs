//! Why a rule matched, in both forms: bounded, within the schema, and nothing hostile passes.

use super::*;

fn reason(condition: &str, holds: bool, values: &[(&str, Value<'static>)]) -> Reason<'static> {
    let values = values.iter().map(|(name, value)| ((*name).to_owned().into(), value.clone())).collect();
    Reason { condition: condition.to_owned().into(), holds, values }
}

fn lines(reasons: &[Reason<'_>]) -> (Vec<u8>, String) {
    let (form, event) = (AlertForm::new(&rule(), "h"), sample());
    let alert = Alert { why: Some(reasons), ..alert(&form, &event, "x") };
    let (mut json, mut text) = (Vec::new(), Vec::new());
    JsonLines::default().write(&alert, &mut json);
    TextLines::new(Palette::Plain).write(&alert, &mut text);
    (json, String::from_utf8(text).unwrap())
}

#[test]
fn an_alert_tells_what_decided() {
    let reasons = [
        reason("evt.type in (setns)", true, &[("evt.type", text("setns"))]),
        reason("container.id = host", false, &[("container.id", text("a\x1b\"b"))]),
        reason(
            "len(cap.gained) > 1",
            true,
            &[
                ("len(cap.gained)", Value::Number(2)),
                ("cap.gained", Value::list(["A", "B"])),
                ("proc.exe", Value::Absent),
            ],
        ),
    ];
    let (json, text) = lines(&reasons);
    let value = checked(&json);
    assert_eq!(
        value["why"],
        serde_json::json!([
            { "condition": "evt.type in (setns)", "holds": true, "values": { "evt.type": "setns" } },
            { "condition": "container.id = host", "holds": false, "values": { "container.id": "a\u{1b}\"b" } },
            { "condition": "len(cap.gained) > 1", "holds": true,
              "values": { "len(cap.gained)": 2, "cap.gained": ["A", "B"], "proc.exe": null } },
        ])
    );
    assert_eq!(value["attack"], serde_json::json!(["T1611"]));
    let expected = " why: evt.type in (setns) [evt.type=setns]; not container.id = host [container.id=a\\x1b\"b]; \
                    len(cap.gained) > 1 [len(cap.gained)=2, cap.gained=A B, proc.exe=<NA>]\n";
    assert!(text.ends_with(expected), "{text}");
    // Whoever did not ask for it sees no change.
    assert!(checked(&json_line(&AlertForm::new(&rule(), "h"), &sample(), "x")).get("why").is_none());
}

#[test]
fn more_conditions_than_fit_are_counted() {
    let reasons: Vec<_> = (0..MAX_REASONS + 3).map(|i| reason(&format!("a.b = {i}"), true, &[])).collect();
    let (json, text) = lines(&reasons);
    let value = checked(&json);
    assert_eq!(value["why"].as_array().unwrap().len(), MAX_REASONS);
    assert_eq!(value["why_left_out"], 3);
    assert!(text.ends_with("; a.b = 15; and 3 more\n"), "{text}");
    assert!(checked(&lines(&reasons[..MAX_REASONS]).0).get("why_left_out").is_none());
}

#[test]
fn the_alert_can_be_read_back_as_its_event() {
    let (json, _) = lines(&[reason("ns.direction = own", true, &[("ns.direction", text("own"))])]);
    let event = crate::rules::Sample::parse("alert", String::from_utf8(json).unwrap()).unwrap();
    let value = |name: &str| event.values.value(named(name).1).into_owned();
    assert_eq!((value("ns.direction"), value("proc.pid")), (text("own"), Value::Number(4711)));
    assert_eq!(value("cap.after"), Value::list(["CAP_CHOWN", "CAP_SETPCAP"]));
}

proptest! {
    #[test]
    fn no_reason_breaks_a_line(condition in ".+", name in ".*", holds in any::<bool>(), value in any_value(FieldType::Text),
        list in any_value(FieldType::TextList)) {
        let (json, text) = lines(&[reason(&condition, holds, &[(&name, value.clone()), ("cap.gained", list)])]);
        let read = checked(&json);
        prop_assert_eq!(read["why"][0]["condition"].as_str(), Some(condition.as_str()));
        prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control));
        prop_assert_eq!(text.matches('\n').count(), 1);
    }
}
