//! Falco's rule files: what loads, what stands for Falco's fields, and what is left out with a reason.

mod rules_common;

use std::path::PathBuf;

use monitor::rules::RuleSet;
use monitor::rules::falco::{Checked, NoteKind, Standing, Status, check};
use monitor_common::call::Call;
use rules_common::{Fake, matching};

const FILE: &str = r#"
- required_engine_version: 0.57.0
- macro: spawned_process
  condition: (evt.type in (execve, execveat))
- macro: open_read
  condition: (evt.type in (open, openat, openat2) and evt.is_open_read=true and fd.typechar='f' and fd.num>=0)
- macro: never_true
  condition: (evt.num=0)
- macro: outbound
  condition: (evt.type = connect and fd.sip = "1.2.3.4" and fd.snet in ("10.0.0.0/8"))

- rule: Namespace entered
  desc: d
  condition: evt.type = setns and container.id != host and not never_true
  output: "name=%proc.name pid=%proc.pid"
  priority: WARNING
- rule: Whole
  desc: d
  condition: evt.type = setns and proc.name = x
  output: o
  priority: INFO
- rule: Shell
  desc: d
  condition: spawned_process and proc.name = sh
  output: o
  priority: NOTICE
- rule: Memory read
  desc: d
  condition: open_read and fd.directory = /dev and fd.filename = mem and evt.arg.flags contains O_RDONLY and evt.dir = <
  output: "%fd.name %evt.time %fd.nameraw"
  priority: ERROR
- rule: Shadow read
  desc: d
  condition: open_read and (fd.name in (/etc/shadow) or fd.name startswith /root)
  output: o
  priority: ERROR
- rule: Either
  desc: d
  condition: (outbound or evt.type = unshare) and proc.aname in (bash, zsh) and proc.pexe endswith sh
  output: o
  priority: ERROR
- rule: Connection
  desc: d
  condition: evt.type = setns and (fd.sport > 1024 or proc.sname = x)
  output: o
  priority: ERROR
- rule: Far ancestor
  desc: d
  condition: evt.type = setns and proc.aname[2] = x and proc.aname[12] = y
  output: o
  priority: ERROR
- rule: Audit
  desc: d
  condition: ka.verb = create
  output: "%ka.user.name"
  source: k8s_audit
  priority: ERROR
"#;

fn checked(text: &str) -> (Checked, tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.yaml");
    std::fs::write(&path, text).unwrap();
    (check(std::slice::from_ref(&path)), dir, path)
}

fn standing<'c>(checked: &'c Checked, rule: &str) -> &'c Standing {
    checked.standings.iter().find(|standing| standing.rule == rule).unwrap()
}

/// The names of what is missing, or approximated.
fn names(standing: &Standing, kind: NoteKind) -> Vec<&str> {
    standing.notes.iter().filter(|note| note.kind == kind).map(|note| note.name.as_str()).collect()
}

#[test]
fn each_rule_has_a_standing() {
    let (checked, _dir, _) = checked(FILE);
    let is = |rule: &str, status: Status| assert_eq!(standing(&checked, rule).status, status, "{rule}");
    is("Namespace entered", Status::Degraded);
    assert_eq!(names(standing(&checked, "Namespace entered"), NoteKind::Field), ["evt.num"]);
    is("Whole", Status::Loads);
    is("Shell", Status::NotLoaded);
    assert_eq!(names(standing(&checked, "Shell"), NoteKind::EventType), ["execve", "execveat"]);
    is("Memory read", Status::Degraded);
    assert_eq!(names(standing(&checked, "Memory read"), NoteKind::Output), ["evt.time"]);
    is("Shadow read", Status::NotLoaded);
    assert!(standing(&checked, "Shadow read").notes[0].text.contains("the rule asks for other files"));
    is("Either", Status::Degraded);
    assert_eq!(names(standing(&checked, "Either"), NoteKind::EventType), ["connect"]);
    assert_eq!(names(standing(&checked, "Either"), NoteKind::Field), ["proc.aname", "proc.pexe"]);
    is("Connection", Status::NotLoaded);
    assert_eq!(names(standing(&checked, "Connection"), NoteKind::Field), ["fd.sport", "proc.sname"]);
    is("Far ancestor", Status::NotLoaded);
    assert_eq!(names(standing(&checked, "Far ancestor"), NoteKind::Field), ["proc.aname[12]"]);
    is("Audit", Status::NotLoaded);
    assert_eq!(names(standing(&checked, "Audit"), NoteKind::Source), ["k8s_audit"]);
    assert_eq!(standing(&checked, "Namespace entered").line, 12);
}

#[test]
fn what_loads_works_and_what_does_not_is_named() {
    let set = RuleSet::from_sources(&[("f.yaml", FILE)]).unwrap();
    let loaded: Vec<&str> = set.rules().iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(loaded, ["Namespace entered", "Whole", "Memory read", "Either"]);
    for rule in ["Shell", "Shadow read", "Connection", "Far ancestor", "Audit"] {
        let told = format!("the rule `{rule}` is not loaded: ");
        assert!(set.warnings().iter().any(|found| found.message().starts_with(&told)), "{rule}");
    }
    let open = Fake::default()
        .text("evt.type", "openat")
        .text("fd.name", "/dev/mem")
        .text("evt.arg[flags]", "O_RDONLY|O_CLOEXEC")
        .number("evt.rawres", 3);
    assert_eq!(matching(&set, Call::Openat, &open), ["memory-read"]);
    let refused = open.clone().number("evt.rawres", -1);
    assert!(matching(&set, Call::Openat, &refused).is_empty());
    let writing = open.text("evt.arg[flags]", "O_WRONLY");
    assert!(matching(&set, Call::Openat, &writing).is_empty());

    let unshare = Fake::default()
        .text("evt.type", "unshare")
        .text("proc.aname[1]", "sh")
        .text("proc.aname[3]", "zsh")
        .text("proc.pexepath", "/bin/zsh");
    assert_eq!(matching(&set, Call::Unshare, &unshare), ["either"]);
    let other = unshare.text("proc.aname[3]", "fish");
    assert!(matching(&set, Call::Unshare, &other).is_empty());

    let setns = Fake::default().text("evt.type", "setns").text("container.id", "abc");
    assert_eq!(matching(&set, Call::Setns, &setns), ["namespace-entered"]);
}

#[test]
fn mistakes_are_mistakes_in_falcos_files_too() {
    for (from, to, message) in [
        ("proc.name = sh", "proc.nmae = sh", "unknown field `proc.nmae`"),
        ("proc.name = sh", "proc.name = ", "expected a value"),
        ("not never_true", "not ever_true", "unknown macro `ever_true`"),
        ("proc.aname in (bash, zsh)", "proc.aname > 3", "`>` does not work on a text"),
    ] {
        let (checked, _dir, path) = checked(&FILE.replace(from, to));
        assert!(checked.diagnostics.iter().any(|found| found.message().contains(message)), "{message}");
        assert!(checked.standings.iter().any(|standing| standing.status == Status::Wrong), "{message}");
        assert!(RuleSet::load(&[path]).is_err(), "{message}");
    }
}

#[test]
fn files_of_our_own_stay_strict() {
    let own = FILE.replace("- required_engine_version: 0.57.0\n", "");
    let error = RuleSet::from_sources(&[("own.yaml", &own)]).unwrap_err();
    let of = |message: &str| {
        error
            .diagnostics()
            .iter()
            .find(|found| found.message() == message)
            .unwrap_or_else(|| panic!("{message}"))
    };
    assert_eq!(of("unknown field `fd.nameraw`").hint(), Some("it is Falco's; here it is `evt.arg[path]`"));
    assert_eq!(
        of("unknown field `fd.sip`").hint(),
        Some("it is Falco's, and there is nothing for it: sockets and descriptors are not watched")
    );
    assert_eq!(of("unknown field `evt.arg.flags`").hint(), Some("write `evt.arg[flags]`"));
    // The same file is Falco's for who says so.
    let (checked, _dir, _) = checked(&own);
    assert!(checked.diagnostics.iter().all(|found| !found.message().contains("unknown field")));
}
