//! Watchers under test: what they get, what they miss, and what they cost.

use std::hint::black_box;

use super::hub::MAX_WATCHERS;
use super::*;
use crate::alert::{AlertForm, AlertRule};
use crate::fields::{FieldValues, Value, resolve};

fn event(name: &str) -> FieldValues {
    let mut values = FieldValues::default();
    for (field, value) in [("evt.type", "setns"), ("proc.name", name)] {
        values.set(resolve(field, None).unwrap(), Value::text(value).into_owned()).unwrap();
    }
    values.set_named(crate::fields::Field::ContainerLabel, "a \"b", Value::text("c").into_owned()).unwrap();
    values
}

fn watch(sight: Sight, filter: &str) -> Watch {
    let filter = (!filter.is_empty()).then(|| Arc::new(Rule::from_expression(&[], filter).unwrap()));
    Watch { sight, filter }
}

fn line(said: Option<Said>) -> String {
    match said {
        Some(Said::Line(line)) => String::from_utf8(line.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn raise(watching: &mut Watching, event: &FieldValues) {
    let rule = AlertRule {
        id: "r",
        name: "R",
        priority: "Notice",
        source: "syscall",
        tags: &[],
        attack: &[],
        fields: &[],
    };
    let form = AlertForm::new(&rule, "h");
    let (output, unix_ns, generation) = ("o", 1_000_000_000, 1);
    watching.alert(&Alert {
        form: &form,
        event,
        output,
        unix_ns,
        crossed: None,
        grouped: None,
        why: None,
        generation,
    });
}

#[test]
fn each_gets_what_it_asked_for_and_fits_its_filter() {
    let (hub, mut path) = (Hub::default(), Watching::default());
    let mut events = hub.watch(watch(Sight::Events, "")).unwrap();
    let mut few = hub.watch(watch(Sight::Events, "proc.name = sh and container.label['a \"b'] = c")).unwrap();
    let mut alerts = hub.watch(watch(Sight::Alerts, "proc.name = sh")).unwrap();
    assert!(path.is_idle());
    path.turn(&hub);
    assert!(!path.is_idle());
    for name in ["sh", "b\u{1b}"] {
        path.event(&event(name), 1_700_000_000_123_456_789);
        raise(&mut path, &event(name));
    }
    let first = line(events.next_now());
    assert!(first.starts_with("{\"time\":\"2023-11-14T22:13:20.123456789Z\",\"output_fields\":{"), "{first}");
    let second = line(events.next_now());
    assert!(second.contains("\"proc.name\":\"b\\u001b\"") && second.ends_with("}}\n"), "{second}");
    assert_eq!(events.next_now(), None);
    assert_eq!((line(few.next_now()), few.next_now()), (first.clone(), None));
    let alert = line(alerts.next_now());
    assert!(alert.contains("\"rule_id\":\"r\"") && alerts.next_now().is_none(), "{alert}");
    // What a watcher is shown, the commands for rules read.
    let sample = crate::rules::Sample::parse("event", first).unwrap();
    assert_eq!(sample.values, event("sh"));
}

#[tokio::test]
async fn what_finds_no_room_is_told_where_it_is_missing() {
    let (hub, mut path) = (Hub::default(), Watching::default());
    let mut slow = hub.watch(watch(Sight::Events, "")).unwrap();
    path.turn(&hub);
    let mut sent = 0;
    // The budget is another test's.
    let mut offer = |path: &mut Watching, count: usize| {
        for _ in 0..count {
            path.budget = Budget::default();
            path.event(&event("x"), sent);
            sent += 1;
        }
    };
    offer(&mut path, QUEUE_LINES + 7);
    let mut lines = 0;
    for _ in 0..10 {
        line(slow.next_now());
        lines += 1;
    }
    offer(&mut path, 3);
    path.tend();
    offer(&mut path, 1);
    path.end();
    let (mut missed, mut places) = (0, Vec::new());
    while let Some(said) = slow.next().await {
        match said {
            Said::Line(_) => lines += 1,
            Said::Missed(more) => {
                missed += more;
                places.push(lines);
            }
        }
    }
    assert_eq!((lines, missed, places), (QUEUE_LINES + 4, 7, vec![QUEUE_LINES]));
    assert_eq!(slow.next_now(), None);
}

/// Alerts that belong to no event come past the path and past filters, to whoever watches alerts.
#[tokio::test]
async fn alerts_about_ringfence_come_though_the_path_stands_still() {
    let (hub, mut path) = (Hub::default(), Watching::default());
    let mut alerts = hub.watch(watch(Sight::Alerts, "proc.name = sh")).unwrap();
    let mut events = hub.watch(watch(Sight::Events, "")).unwrap();
    drop(hub.watch(watch(Sight::Alerts, "")).unwrap());
    hub.tell(|out| out.extend_from_slice(b"blind\n"));
    assert_eq!((line(alerts.next_now()), events.next_now()), ("blind\n".to_owned(), None));
    path.turn(&hub);
    for _ in 0..QUEUE_LINES + 2 {
        hub.tell(|out| out.extend_from_slice(b"x\n"));
    }
    for _ in 0..QUEUE_LINES {
        line(alerts.next_now());
    }
    raise(&mut path, &event("sh"));
    assert_eq!(alerts.next_now(), Some(Said::Missed(2)));
    assert!(line(alerts.next_now()).contains("\"rule_id\":\"r\""));
    // It keeps nobody from ending.
    path.end();
    hub.tell(|_| panic!("nobody is there"));
    assert_eq!((alerts.next().await, events.next().await), (None, None));
}

/// A watcher that reads nothing until the end hears of all that it missed, the last included.
#[tokio::test]
async fn what_is_missed_last_is_told_though_the_queue_is_full() {
    let (hub, mut path) = (Hub::default(), Watching::default());
    let mut slow = hub.watch(watch(Sight::Events, "")).unwrap();
    path.turn(&hub);
    let offer = |path: &mut Watching, count: usize| {
        for _ in 0..count {
            path.budget = Budget::default();
            path.event(&event("x"), 0);
        }
    };
    offer(&mut path, QUEUE_LINES + 7);
    // It takes the last place.
    path.tend();
    offer(&mut path, 3);
    path.end();
    let (mut lines, mut missed) = (0, Vec::new());
    while let Some(said) = slow.next().await {
        match said {
            Said::Line(_) => lines += 1,
            Said::Missed(more) => missed.push(more),
        }
    }
    assert_eq!((lines, missed), (QUEUE_LINES, vec![7, 3]));
    assert_eq!(slow.next().await, None);
}

#[test]
fn a_queue_is_bounded_in_bytes() {
    let (hub, mut path) = (Hub::default(), Watching::default());
    let mut slow = hub.watch(watch(Sight::Events, "")).unwrap();
    path.turn(&hub);
    let long = event(&"x".repeat(200_000));
    for _ in 0..20 {
        path.budget = Budget::default();
        path.event(&long, 0);
    }
    let mut bytes = 0;
    while let Some(said) = slow.next_now() {
        bytes += line(Some(said)).len();
    }
    assert!((QUEUE_BYTES..QUEUE_BYTES + 201_000).contains(&bytes), "{bytes}");
    // Its room is free again.
    path.budget = Budget::default();
    path.event(&long, 0);
    assert_eq!(slow.next_now(), Some(Said::Missed(14)));
    assert!(line(slow.next_now()).len() > 200_000);
}

#[test]
fn watchers_get_a_tenth_of_the_time_and_no_more() {
    let mut budget = Budget::default();
    let now = Instant::now();
    assert!(budget.may(now));
    budget.spend(SHARE);
    assert!(!budget.may(now + WINDOW / 2));
    assert!(budget.may(now + 2 * WINDOW));
    let (hub, mut path) = (Hub::default(), Watching::default());
    let mut watcher = hub.watch(watch(Sight::Events, "")).unwrap();
    path.turn(&hub);
    path.budget.spend(SHARE);
    path.event(&event("x"), 0);
    assert_eq!(watcher.next_now(), None);
    path.tend();
    assert_eq!(watcher.next_now(), Some(Said::Missed(1)));
}

#[tokio::test]
async fn places_are_few_and_given_back() {
    let (hub, mut path) = (Hub::default(), Watching::default());
    let mut all: Vec<_> = (0..MAX_WATCHERS).map(|_| hub.watch(Watch::default()).unwrap()).collect();
    assert_eq!(hub.watch(Watch::default()).map(drop), Err(Refused::Full));
    path.turn(&hub);
    assert_eq!(path.watchers.len(), MAX_WATCHERS);
    all.clear();
    for _ in 0..100 {
        // Nobody takes them over.
        hub.watch(Watch::default()).map(drop).unwrap();
    }
    path.turn(&hub);
    path.tend();
    assert!(path.is_idle());
    let last = hub.watch(Watch::default()).unwrap();
    hub.ended(Duration::from_millis(1)).await;
    path.turn(&hub);
    hub.close();
    path.end();
    assert_eq!(hub.watch(Watch::default()).map(drop), Err(Refused::Stopping));
    drop(last);
    tokio::time::timeout(Duration::from_secs(20), hub.ended(Duration::from_secs(600))).await.unwrap();
}

/// What each event pays while nobody watches.
#[test]
fn nobody_watching_costs_a_look() {
    const LOOKS: u32 = 1_000_000;
    let (hub, mut path) = (Hub::default(), Watching::default());
    let start = Instant::now();
    for _ in 0..LOOKS {
        black_box(&mut path).turn(black_box(&hub));
        assert!(black_box(&path).is_idle());
    }
    let per_look = start.elapsed() / LOOKS;
    println!("a look for watchers: {per_look:?}");
    assert!(per_look < Duration::from_micros(1), "{per_look:?}");
}
