//! What other versions write, or would: fields, types and kinds that are not known here.

use super::*;

/// A block's payload by hand: names with the tag of their value, and the event's bytes behind it.
fn raw(ty: &str, values: &[(&str, Option<&str>, u64, &[u8])], texts: &[&str]) -> Vec<u8> {
    let mut raw = Vec::new();
    for text in ["host", "9.9.9"] {
        push_text(text, &mut raw);
    }
    push_number(values.len() as u64, &mut raw);
    let mut body = vec![2, 4, 0];
    for (i, (name, arg, tag, bytes)) in values.iter().enumerate() {
        push_text(name, &mut raw);
        push_number(arg.map_or(0, |arg| arg.len() as u64 + 1), &mut raw);
        raw.extend_from_slice(arg.unwrap_or_default().as_bytes());
        push_number((i as u64) << tag::BITS | tag, &mut body);
        body.extend_from_slice(bytes);
    }
    push_number(texts.len() as u64 + 1, &mut raw);
    push_text(ty, &mut raw);
    for text in texts {
        push_text(text, &mut raw);
    }
    push_number(body.len() as u64, &mut raw);
    raw.extend_from_slice(&body);
    raw
}

fn block(head: Head, raw: &[u8]) -> Vec<u8> {
    let head = Head {
        stored: raw.len() as u32,
        raw: raw.len() as u32,
        events: 1,
        sum: crc32fast::hash(raw),
        ..head
    };
    [&head.to_bytes()[..], raw].concat()
}

fn ours() -> Head {
    Head { version: FORMAT_VERSION, kind: KIND_EVENTS, ..Head::default() }
}

#[test]
fn unknown_fields_are_counted_and_the_rest_is_read() {
    let raw = raw(
        "setns",
        &[
            ("proc.shoe_size", None, tag::NUMBER, &[84]),
            ("proc.pid", None, tag::NUMBER, &[84]),
            // Of another type, with an argument that is out of range here, and with one too many.
            ("proc.ppid", None, tag::TEXT, &[1]),
            ("proc.aname", Some("12"), tag::TEXT, &[1]),
            ("proc.name", Some("x"), tag::TEXT, &[1]),
            ("container.label", Some("app"), tag::TEXT, &[1]),
            ("cap.after", None, tag::LIST, &[2, 1, 1]),
            ("evt.failed", None, tag::TRUE, &[]),
            // A kind of value that is not known ends the event, but not the block.
            ("proc.vpid", None, 7, &[9, 9]),
        ],
        &["web"],
    );
    let mut file = file_head().to_vec();
    file.extend(block(ours(), &raw));
    file.extend(block_of(&few(1), 0));
    let (events, damages, tally) = read(&file);
    assert_eq!((events.len(), damages.len()), (2, 0));
    assert_eq!((tally.unknown_values, tally.unknown_events), (5, 0));
    let got: Vec<String> = events[0]
        .values
        .iter()
        .map(|(key, value)| {
            let arg = key.arg_text().map_or(String::new(), |arg| format!("[{arg}]"));
            format!("{}{arg}={value}", key.field.spec().name)
        })
        .collect();
    let wanted = [
        "evt.type=setns",
        "evt.failed=true",
        "evt.boot_ns=2",
        "proc.pid=42",
        "cap.after=web web",
        "container.label[app]=web",
    ];
    assert_eq!(got, wanted);
    assert_eq!((events[0].unix_ns, events[0].boot_ns), (1, 2));
}

#[test]
fn unknown_types_kinds_and_versions_are_counted() {
    let raw = raw("teleport", &[("proc.pid", None, tag::NUMBER, &[84])], &[]);
    let mut file = file_head().to_vec();
    file.extend(block(ours(), &raw));
    file.extend(block(Head { kind: 7, ..ours() }, &raw));
    file.extend(block(Head { version: FORMAT_VERSION + 1, ..ours() }, &raw));
    file.extend(block_of(&few(2), 5));
    let (events, damages, tally) = read(&file);
    assert_eq!((events, damages.len()), (few(2), 0));
    assert_eq!((tally.unknown_events, tally.foreign_blocks, tally.foreign_events), (1, 2, 2));
    assert_eq!((tally.dropped, tally.unknown_values), (5, 0));
    // Another way to compress is nothing that can be read.
    let mut file = file_head().to_vec();
    file.extend(block(Head { codec: 9, ..ours() }, &raw));
    assert_eq!(read(&file).1[0].why, Why::Nonsense);
}

#[test]
fn labels_of_recordings_are_not_kept_for_ever() {
    // A name that no rule has ever made: it is found by its text, and interning it only now finds it, too.
    let mut values = FieldValues::default();
    let key = FieldKey::find("container.label", Some("only/in.a-recording")).unwrap();
    values.set_key(key, Value::text("v")).unwrap();
    let (events, _, _) = read(&file_of(&[&[recorded(1, EventType::Entered, values)]]));
    let label = crate::fields::resolve("container.label", Some("only/in.a-recording")).unwrap();
    assert_eq!(crate::fields::FieldSource::value(&events[0].values, label), Value::text("v"));
}

#[test]
fn a_span_leaves_out_what_lies_outside() {
    let events = few(6);
    let bytes = file_of(&[&events[..2], &events[2..4], &events[4..]]);
    let span = Span { from: events[3].unix_ns, to: events[4].unix_ns };
    let mut recording = Recording::new(&bytes[..]).within(span);
    let mut got = Vec::new();
    while let Some(item) = recording.next_item().unwrap() {
        let Item::Event(event) = item else { panic!("{item:?}") };
        got.push(*event);
    }
    assert_eq!(got, events[3..5]);
    assert_eq!((recording.tally().events, recording.tally().outside), (2, 4));
}
