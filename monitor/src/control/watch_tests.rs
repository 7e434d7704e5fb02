//! Watching under test, over real sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use super::tests::Served;
use super::*;
use crate::fields::{FieldValues, Value, resolve};
use crate::watchers::{Sight, Watching};

fn event(name: &str) -> FieldValues {
    let mut values = FieldValues::default();
    for (field, value) in [("evt.type", "setns"), ("proc.name", name)] {
        values.set(resolve(field, None).unwrap(), Value::text(value).into_owned()).unwrap();
    }
    values
}

fn watch_request(filter: Option<&str>) -> Request {
    Request::Watch { sight: Sight::Events, filter: filter.map(str::to_owned) }
}

#[test]
fn events_come_as_lines_until_the_daemon_ends() {
    let served = Served::new(Vec::new);
    let (hub, path) = (served.hub(), served.path.clone());
    let (begun, has_begun) = std::sync::mpsc::channel();
    let watcher = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let ended = watch(&path, watch_request(Some("proc.name startswith s")), |heard| {
            match heard {
                Heard::Begun => begun.send(()).unwrap(),
                Heard::Line(line) => lines.push(line.to_owned()),
                Heard::Missed(_) => panic!(),
            }
            true
        });
        (ended, lines)
    });
    has_begun.recv().unwrap();
    let mut pipeline = Watching::default();
    pipeline.turn(&hub);
    for name in ["sh", "bash", "sed"] {
        pipeline.event(&event(name), 0);
    }
    hub.close();
    pipeline.end();
    let (ended, lines) = watcher.join().unwrap();
    assert_eq!(ended.unwrap().as_deref(), Some("the daemon is stopping"));
    assert_eq!(lines.len(), 2);
    assert!(lines[0].contains("\"sh\"") && lines[1].contains("\"sed\""), "{lines:?}");
    served.await_count(Outcome::Answered, 1);
    // Whoever comes later is told at once.
    let error = watch(&served.path, watch_request(None), |_| true).unwrap_err().to_string();
    assert!(error.contains("stopping"), "{error}");
}

#[test]
fn a_wrong_filter_is_refused_with_its_reason() {
    let served = Served::new(Vec::new);
    for (filter, part) in [
        ("evt.typ = setns", "unknown field `evt.typ`"),
        ("evt.typ = setns", "did you mean `evt.type`"),
        ("evt.type =", "expected"),
        ("no_such_macro", "unknown macro `no_such_macro`"),
        ("proc.name regex '('", "EXPRESSION"),
    ] {
        let error = watch(&served.path, watch_request(Some(filter)), |_| panic!()).unwrap_err().to_string();
        assert!(error.contains(part) && !error.chars().any(char::is_control), "{filter}: {error}");
    }
    served.await_count(Outcome::Malformed, 5);
}

#[test]
fn filters_use_the_macros_and_lists_of_the_rule_files() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("r.yaml");
    std::fs::write(
        &rules,
        "- list: shells\n  items: [sh]\n- macro: shell\n  condition: proc.name in (shells)\n",
    )
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let desk = Desk::new(std::sync::Arc::default(), vec![rules.clone()]);
    let opens = |filter: &str| runtime.block_on(desk.open(Sight::Alerts, Some(filter))).is_ok();
    assert!(opens("shell and proc.name in (shells)"));
    // Files that are wrong at the moment keep nobody from a filter that needs none of them.
    std::fs::write(&rules, "- rule: [\n").unwrap();
    assert!(opens("proc.name = sh") && !opens("shell"));
    // Names in brackets are kept for ever, so there is an end to them.
    let named = |n: u32| {
        format!("container.label[{n:0200}] exists or {}", "proc.name = a or ".repeat(200) + "proc.pid = 1")
    };
    let mut good = 0;
    while runtime.block_on(desk.open(Sight::Alerts, Some(&named(good)))).is_ok() {
        good += 1;
        assert!(good < 1000, "no end");
    }
    assert!(good > 200 && opens("proc.name = sh"), "{good}");
}

#[test]
fn watchers_keep_nobody_from_asking_and_a_gone_one_gives_its_place_back() {
    let served = Served::new(Vec::new);
    let request = b"{\"request\":\"watch\",\"sight\":\"events\"}\n";
    let open = || {
        let mut stream = BufReader::new(StdStream::connect(&served.path).unwrap());
        stream.get_mut().write_all(request).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        (stream, line)
    };
    let mut all: Vec<_> = (0..8).map(|_| open()).collect();
    assert!(
        all.iter().all(|(_, line)| line == "{\"watching\":{\"sight\":\"events\",\"filter\":null}}\n"),
        "{all:?}"
    );
    let (_, refused) = open();
    assert!(refused.contains("\"unavailable\"") && refused.contains("8 watch already"), "{refused}");
    let Reply::Status(_) = ask(&served.path, Request::Status {}).unwrap() else { panic!() };
    all.pop();
    served.await_count(Outcome::Disconnected, 1);
    let (mut again, line) = open();
    assert!(line.starts_with("{\"watching\""), "{line}");
    again.get_mut().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(again.read(&mut [0; 8]).is_err(), "nothing comes, and it is not hung up on");
}

#[test]
fn a_daemon_that_dies_is_told_apart_from_one_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let begin = b"{\"watching\":{\"sight\":\"alerts\",\"filter\":null}}\n";
    let endless = vec![b'x'; 5 << 20];
    for (tail, expected) in [
        (&b"{\"time\":\"x"[..], "is gone"),
        (b"", "is gone"),
        (endless.as_slice(), "more than"),
        (b"\xff\n", "UTF-8"),
    ] {
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 256]);
                let _ = stream.write_all(begin);
                let _ = stream.write_all(tail);
            });
            watch(&path, watch_request(None), |_| true).unwrap_err().to_string()
        });
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
