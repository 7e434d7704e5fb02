//! Recordings under test: what is written comes back, and what is damaged costs what is damaged.

use std::io;
use std::sync::Arc;

use proptest::prelude::*;

use super::encode::BlockEncoder;
use super::format::*;
use super::*;
use crate::event_type::EventType;
use crate::fields::{FieldKey, FieldType, FieldValues, KeyArg, Value, closed_keys, owned_list};
use monitor_common::call::Call;

#[path = "tests/damage.rs"]
mod damage;
#[path = "tests/files.rs"]
mod files;
#[path = "tests/versions.rs"]
mod versions;

/// A recorded event, as a test states it.
pub(super) fn recorded(number: i64, ty: EventType, values: FieldValues) -> Recorded {
    Recorded {
        unix_ns: 1_700_000_000_000_000_000 + number * 1000,
        boot_ns: 5_000_000_000 + number.cast_unsigned() * 1000,
        ty,
        values,
        hostname: Arc::from("host"),
    }
}

/// With what the reader adds.
pub(super) fn complete(mut event: Recorded) -> Recorded {
    let mut set = |name: &str, value| {
        event.values.set_key(FieldKey::find(name, None).unwrap(), value).unwrap();
    };
    set("evt.type", Value::text(event.ty.name()));
    set("evt.boot_ns", Value::Number(event.boot_ns.cast_signed()));
    event
}

/// Some unlike events.
pub(crate) fn few(count: i64) -> Vec<Recorded> {
    let types = [EventType::Call(Call::Setns), EventType::Entered, EventType::Call(Call::Openat)];
    let event = |number: i64| {
        let mut values = FieldValues::default();
        let mut set = |name: &str, arg: Option<&str>, value| {
            values.set_key(FieldKey::find(name, arg).unwrap(), value).unwrap();
        };
        set("proc.pid", None, Value::Number(number));
        set("proc.aname", Some("2"), Value::text("shim"));
        set("container.label", Some("com.example/app"), Value::Text(format!("web{number}").into()));
        set("cap.after", None, owned_list(["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()]));
        set("evt.failed", None, Value::Bool(number % 2 == 0));
        complete(recorded(number, types[(number % 3) as usize], values))
    };
    (0..count).map(event).collect()
}

pub(super) fn block_of(events: &[Recorded], dropped: u64) -> Vec<u8> {
    let hostname = events.first().map_or("host", |event| &event.hostname);
    let mut encoder = BlockEncoder::new(hostname);
    for event in events {
        encoder.push(event.unix_ns, event.boot_ns, event.ty, &event.values).unwrap();
    }
    let (mut raw, mut out) = (Vec::new(), Vec::new());
    encoder.finish(&mut raw).write(&raw, dropped, &mut out);
    out
}

/// A file of these blocks.
pub(super) fn file_of(blocks: &[&[Recorded]]) -> Vec<u8> {
    let mut bytes = file_head().to_vec();
    blocks.iter().for_each(|events| bytes.extend(block_of(events, 0)));
    bytes
}

/// Everything that can be read, and the damage on the way.
pub(super) fn read(bytes: &[u8]) -> (Vec<Recorded>, Vec<Damage>, Tally) {
    let mut recording = Recording::new(bytes);
    let (mut events, mut damages) = (Vec::new(), Vec::new());
    while let Some(item) = recording.next_item().unwrap() {
        match item {
            Item::Event(event) => events.push(*event),
            Item::Damage(damage) => damages.push(damage),
        }
    }
    (events, damages, recording.tally().clone())
}

/// Any text, also what looks like parts of the format or of a terminal's control sequences.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        Just("\u{1b}[2J\0\r\n\\xff".to_owned()),
        Just("RFBLK\r\n".to_owned()),
        proptest::collection::vec(any::<u8>(), 0..300)
            .prop_map(|bytes| crate::text::escape(&bytes).into_owned()),
    ]
}

fn values() -> impl Strategy<Value = FieldValues> {
    let key = prop_oneof![
        9 => (0..closed_keys().len()).prop_map(|at| (Some(closed_keys()[at]), String::new())),
        1 => text().prop_map(|name| (None, name)),
    ];
    let value = (text(), any::<i64>(), any::<bool>(), proptest::collection::vec(text(), 0..5));
    proptest::collection::vec((key, value), 0..30).prop_map(|pairs| {
        let mut values = FieldValues::default();
        for ((key, name), (text, number, flag, list)) in pairs {
            let label = FieldKey { field: crate::fields::Field::ContainerLabel, arg: KeyArg::Name(&name) };
            let key = key.unwrap_or(label);
            let value = match key.field.spec().ty {
                FieldType::Text => Value::Text(text.into()),
                FieldType::Number => Value::Number(number),
                FieldType::Bool => Value::Bool(flag),
                FieldType::TextList => owned_list(list),
            };
            values.set_key(key, value).unwrap();
        }
        values
    })
}

fn events() -> impl Strategy<Value = Vec<Recorded>> {
    let types: Vec<EventType> = EventType::all().collect();
    let event = (any::<i64>(), any::<i64>(), 0..types.len(), values()).prop_map(
        move |(unix_ns, boot, ty, values)| {
            let boot_ns = boot.cast_unsigned();
            complete(Recorded { unix_ns, boot_ns, ty: types[ty], values, hostname: Arc::from("a \u{1b}\"") })
        },
    );
    proptest::collection::vec(event, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn what_is_written_comes_back(blocks in proptest::collection::vec(events(), 0..4)) {
        let blocks: Vec<&[Recorded]> = blocks.iter().map(Vec::as_slice).collect();
        let (events, damages, tally) = read(&file_of(&blocks));
        prop_assert_eq!(damages, []);
        prop_assert_eq!(tally.events, events.len() as u64);
        prop_assert_eq!((tally.unknown_values, tally.unknown_events), (0, 0));
        prop_assert_eq!(events, blocks.concat());
    }

    #[test]
    fn no_bytes_are_too_much_for_the_reader(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        events in events(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        read_any(&bytes);
        // Near misses: what the checksums let pass is read.
        let whole = file_of(&[&events, &events]);
        let mut spoilt = whole.clone();
        for (place, byte) in &places {
            *place.get_mut(&mut spoilt) = *byte;
        }
        read_any(&spoilt);
        bytes.extend(&whole);
        prop_assert!(read_any(&bytes).0 <= 2 * events.len() as u64);
    }

    #[test]
    fn a_payload_with_right_checksums_may_be_anything(
        payload in proptest::collection::vec(any::<u8>(), 0..400),
        events in events(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        packed in any::<bool>(),
        raw in 0..MAX_RAW as u32,
    ) {
        let codec = if packed { DEFLATE } else { STORED };
        let block = |payload: &[u8], codec, raw: u32| {
            let head = Head {
                version: FORMAT_VERSION,
                kind: KIND_EVENTS,
                codec,
                stored: payload.len() as u32,
                raw,
                events: (raw / 4).min(1000),
                sum: crc32fast::hash(payload),
                ..Head::default()
            };
            [&file_head()[..], &head.to_bytes(), payload].concat()
        };
        read_any(&block(&payload, codec, raw));
        read_any(&block(&payload, STORED, payload.len() as u32));
        let mut encoder = BlockEncoder::new("h");
        for event in &events {
            encoder.push(event.unix_ns, event.boot_ns, event.ty, &event.values).unwrap();
        }
        let mut raw = Vec::new();
        encoder.finish(&mut raw);
        for (place, byte) in &places {
            *place.get_mut(&mut raw) = *byte;
        }
        read_any(&block(&raw, STORED, raw.len() as u32));
    }
}

#[test]
fn a_block_ends_before_it_breaks_a_bound() {
    let mut encoder = BlockEncoder::new("host");
    let long = "x".repeat(MAX_EVENT_TEXT - 1000);
    let mut values = FieldValues::default();
    values.set_key(FieldKey::find("proc.args", None).unwrap(), Value::Text(long.clone().into())).unwrap();
    let mut count = 0;
    // The same long text again and again takes no room; what it unfolds to does.
    while !encoder.is_full() {
        encoder.push(count, 0, EventType::Entered, &values).unwrap();
        count += 1;
    }
    let (mut raw, mut out) = (Vec::new(), file_head().to_vec());
    let block = encoder.finish(&mut raw);
    assert!(raw.len() <= MAX_RAW && count < 40, "{} {count}", raw.len());
    block.write(&raw, 0, &mut out);
    assert!(out.len() < 10_000, "{}", out.len());
    let (events, damages, _) = read(&out);
    assert_eq!((events.len() as i64, damages.len()), (count, 0));

    // Larger than a block: refused, and what is there already is as before.
    encoder.push(1, 1, EventType::Entered, &few(1)[0].values).unwrap();
    values.set_key(FieldKey::find("proc.exe", None).unwrap(), Value::Text(long.into())).unwrap();
    values.set_key(FieldKey::find("container.label", Some("k")).unwrap(), Value::text("v")).unwrap();
    assert_eq!(encoder.push(2, 2, EventType::Entered, &values), Err(TooLarge));
    encoder.push(3, 3, EventType::Entered, &few(2)[1].values).unwrap();
    let mut out = file_head().to_vec();
    encoder.finish(&mut raw).write(&raw, 1, &mut out);
    let (events, damages, tally) = read(&out);
    assert_eq!((events.len(), damages.len(), tally.dropped), (2, 0, 1));
    assert_eq!(events[0].values.iter().count(), few(1)[0].values.iter().count());
    assert_eq!(events[1].unix_ns, 3);
}
