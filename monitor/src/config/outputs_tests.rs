//! Outputs under test: what is read, in any order behind `type`, and what does not go together.

use std::path::Path;

use super::*;
use crate::config::{Assignment, Settings};
use crate::sink::Rotation;

fn read(yaml: &str) -> Vec<OutputConfig> {
    let mut settings = Settings::default();
    let assignment: Assignment = format!("outputs={yaml}").parse().unwrap();
    assignment.apply(&mut settings).unwrap();
    settings.outputs
}

#[test]
fn common_keys_may_stand_anywhere() {
    let common_last = read(
        "[{type: file, path: /x, rotate: {bytes: 4096, keep: 2, compress: true}, name: a-1_b, min_priority: warning, queue_bytes: 65536}]",
    );
    let common_first = read(
        "[{queue_bytes: 65536, name: a-1_b, min_priority: WARNING, type: file, rotate: {compress: true, keep: 2, bytes: 4096}, path: /x}]",
    );
    assert_eq!(common_first, common_last);
    let rotate = Some(Rotation { bytes: Some(4096), seconds: None, keep: 2, compress: true });
    let file = FileOutput { path: "/x".into(), shape: Shape::Ringfence, rotate };
    assert_eq!(
        common_first,
        [OutputConfig {
            name: "a-1_b".into(),
            min_priority: Priority::Warning,
            queue_bytes: 65536,
            spool: None,
            kind: OutputKind::File(file),
        }]
    );
    let plain = &read("[{type: file, path: /y, shape: falco}]")[0];
    assert_eq!(
        (plain.name.as_str(), plain.queue_bytes, plain.min_priority),
        ("file", 8 << 20, Priority::Debug)
    );
}

#[test]
fn outputs_are_added_on_the_command_line() {
    let mut settings = Settings::default();
    for argument in ["outputs[]={type: file, path: /x}", "outputs[].type=stdout"] {
        argument.parse::<Assignment>().unwrap().apply(&mut settings).unwrap();
    }
    let names: Vec<&str> = settings.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["file", "stdout"]);
}

#[test]
fn what_does_not_go_together_is_said() {
    let file = |name: &str, path: &str| format!("{{type: file, name: {name}, path: {path}}}");
    let check = |outputs: &[String], alert_file: Option<&str>| {
        check_outputs(&read(&format!("[{}]", outputs.join(", "))), alert_file.map(Path::new))
    };
    assert_eq!(check(&[], None), Ok(()));
    assert_eq!(check(&[file("a", "/a"), file("b", "/b"), "{type: stdout}".into()], Some("/c")), Ok(()));
    let wrong = [
        (check(&[file("a", "/a"), file("a", "/b")], None), "two outputs have the name `a`"),
        (check(&[file("file", "/a")], Some("/c")), "the name `file`"),
        (check(&[file("stdout", "/a")], None), "the name `stdout`"),
        (check(&[file("a", "/a")], Some("/a")), "write to /a"),
        (check(&["{type: stdout}".into(), "{type: stdout, name: b}".into()], None), "type stdout"),
        (
            check(&(0..17).map(|i| file(&format!("o{i}"), &format!("/{i}"))).collect::<Vec<_>>(), None),
            "at most 16",
        ),
    ];
    for (outcome, message) in wrong {
        assert!(outcome.as_ref().is_err_and(|error| error.contains(message)), "{outcome:?}: {message}");
    }
}
