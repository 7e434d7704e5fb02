//! `top` under test, on a terminal of ratatui's for tests.

use std::collections::BTreeMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::model::Page;
use super::*;
use crate::control::{CallCount, Phase, TopInfo};

fn container(number: u64, attempts: u64) -> TopInfo {
    TopInfo {
        id: format!("{number:064x}"),
        name: Some(format!("web-{number}")),
        image: Some("nginx:1".to_owned()),
        runtime: Some("docker".to_owned()),
        phase: Some(Phase::Running),
        processes: 2,
        attempts,
        refused: 1000 - number,
        lost: number,
        alerts: 3,
        rules_firing: 2,
        top_rule: Some("namespace-entered-in-container".to_owned()),
        ..TopInfo::default()
    }
}

fn listing(containers: Vec<TopInfo>) -> TopListing {
    TopListing {
        up_ms: 3_723_000,
        state: "ready".to_owned(),
        ring_bytes: 4 << 20,
        ring_used_bytes: Some(1 << 20),
        seen: 12,
        delivered: 11,
        lost: 1,
        containers,
        omitted: 0,
    }
}

fn press(app: &mut App, code: KeyCode) -> Step {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn drawn(app: &mut App, columns: u16, rows: u16) -> Vec<String> {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows));
    let Ok(_) = terminal.draw(|frame| view::draw(frame, app));
    view::lines(terminal.backend().buffer()).lines().map(str::to_owned).collect()
}

fn names(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| line.split_whitespace().find(|word| word.starts_with("web-"))).collect()
}

#[test]
fn a_table_in_eighty_columns_and_24_rows() {
    let mut app = App::new(listing(vec![container(1, 5), container(2, 50)]), SortKey::Attempts);
    let lines = drawn(&mut app, 80, 24);
    assert_eq!(lines.len(), 24);
    assert_eq!(lines[0], "ringfence ready, up 1:02:03, 2 containers, ring [###.......] 25% of 4 MiB");
    assert_eq!(lines[1], "records: 12 seen, 11 delivered, 1 lost");
    assert_eq!(lines[2], "CONTAINER    NAME          ATTEMPTS      /S  REFUSED    LOST  ALERTS RULE (MOST)");
    assert_eq!(lines[3], "000000000000 web-2               50       -      998       2       3 namespace-…");
    assert_eq!(names(&lines), ["web-2", "web-1"]);
    assert!(lines[23].contains("q: end"), "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80));
}

#[test]
fn keys_sort_choose_open_and_go_back() {
    let mut app =
        App::new(listing(vec![container(1, 5), container(2, 50), container(3, 500)]), SortKey::Attempts);
    for (key, order) in [
        ('r', ["web-1", "web-2", "web-3"]),
        ('l', ["web-3", "web-2", "web-1"]),
        ('f', ["web-1", "web-2", "web-3"]),
        ('a', ["web-3", "web-2", "web-1"]),
        ('n', ["web-1", "web-2", "web-3"]),
    ] {
        assert_eq!(press(&mut app, KeyCode::Char(key)), Step::Stay);
        assert_eq!(names(&drawn(&mut app, 80, 24)), order, "{key}");
    }
    press(&mut app, KeyCode::Down);
    assert_eq!(app.chosen(), 1);
    // The chosen one stays the chosen one.
    press(&mut app, KeyCode::Char('l'));
    press(&mut app, KeyCode::Char('r'));
    press(&mut app, KeyCode::End);
    press(&mut app, KeyCode::PageUp);
    press(&mut app, KeyCode::Down);
    let id = format!("{:064x}", 2);
    assert_eq!(press(&mut app, KeyCode::Enter), Step::Ask);
    assert_eq!(app.question(), Question::One(id.clone()));
    let mut whole = container(2, 51);
    whole.calls =
        vec![CallCount { call: "setns".to_owned(), outcome: "refused by seccomp".to_owned(), count: 998 }];
    whole.rules = BTreeMap::from([("quiet".to_owned(), 1), ("loud".to_owned(), 2)]);
    app.show(listing(vec![whole]), None);
    let lines = drawn(&mut app, 80, 24);
    assert_eq!(lines[2], id);
    assert!(lines[4].starts_with("running, 2 processes, 51 attempts, 998 refused"), "{lines:?}");
    let at = |part: &str| lines.iter().position(|line| line.contains(part)).unwrap();
    assert!(at("refused by seccomp") < at("loud") && at("loud") < at("quiet"), "{lines:?}");
    // It ended meanwhile.
    app.show(listing(Vec::new()), None);
    assert!(drawn(&mut app, 80, 24)[2].starts_with("gone, as last seen: 0000"));
    press(&mut app, KeyCode::PageDown);
    assert_eq!(press(&mut app, KeyCode::Esc), Step::Ask);
    assert_eq!((app.question(), &app.page), (Question::All, &Page::List));
    assert_eq!(names(&drawn(&mut app, 80, 24)).len(), 3);
    press(&mut app, KeyCode::Char('?'));
    assert!(drawn(&mut app, 80, 24).iter().any(|line| line.contains("any key leaves")));
    press(&mut app, KeyCode::Char('x'));
    assert!(!app.help);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Step::Quit);
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Step::Quit);
}

#[test]
fn rates_are_differences_of_two_answers() {
    let mut app = App::new(listing(vec![container(1, 100), container(2, 100)]), SortKey::Rate);
    let mut next = listing(vec![container(1, 100), container(2, 250), container(3, 9)]);
    next.up_ms += 2000;
    app.update(next.clone());
    assert_eq!([1, 2, 3].map(|n| app.rate(&format!("{n:064x}"))), [Some(0.0), Some(75.0), None]);
    assert_eq!(names(&drawn(&mut app, 80, 24))[0], "web-2");
    // A daemon that was started anew.
    next.up_ms = 1000;
    next.containers = vec![container(2, 10)];
    app.update(next);
    assert_eq!(app.rate(&format!("{:064x}", 2)), None);
}

#[test]
fn many_containers_scroll_and_any_size_does() {
    let many = (0..500).map(|number| container(number, number)).collect();
    let mut app = App::new(listing(many), SortKey::Attempts);
    for (columns, rows) in [(80, 24), (200, 60), (40, 10), (20, 5), (1, 1), (80, 3), (500, 2)] {
        drawn(&mut app, columns, rows);
        for _ in 0..30 {
            press(&mut app, KeyCode::Down);
        }
        press(&mut app, KeyCode::PageDown);
        let chosen = app.listing().containers[app.chosen()].name.clone().unwrap();
        let lines = drawn(&mut app, columns, rows);
        assert_eq!(lines.len(), usize::from(rows));
        assert!(rows < 5 || columns < 80 || names(&lines).contains(&chosen.as_str()), "{columns}x{rows}");
        press(&mut app, KeyCode::Enter);
        drawn(&mut app, columns, rows);
        press(&mut app, KeyCode::Char('?'));
        drawn(&mut app, columns, rows);
        press(&mut app, KeyCode::Char('x'));
        press(&mut app, KeyCode::Esc);
    }
    press(&mut app, KeyCode::End);
    assert_eq!(app.chosen(), 499);
    let mut empty = App::new(listing(Vec::new()), SortKey::Attempts);
    for code in [KeyCode::Down, KeyCode::End, KeyCode::Enter, KeyCode::PageUp] {
        press(&mut empty, code);
    }
    drawn(&mut empty, 80, 24);
}

#[test]
fn printed_once_it_has_every_container_and_nothing_drives_the_terminal() {
    let mut hostile = container(1, 7);
    hostile.name = Some("web-1\u{1b}[2J\u{202e}\u{9b}漢字".to_owned());
    hostile.top_rule = Some("\u{1b}]0;x\u{7}".to_owned());
    let mut all: Vec<TopInfo> = (2..60).map(|number| container(number, number)).collect();
    all.push(hostile);
    let text = print(App::new(listing(all), SortKey::Name), 120);
    assert_eq!(text.lines().count(), 62);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'), "{text:?}");
    assert!(text.contains("\\x1b") && text.contains('漢') && !text.contains("q: end"), "{text}");
    let mut app = App::new(listing(Vec::new()), SortKey::Name);
    app.fail("no daemon answers".to_owned());
    assert_eq!(drawn(&mut app, 80, 24)[1], "no daemon answers");
}
