//! What a recorded event takes: bytes in the file, time to lay it into a block, to pack it, to read it again. The
//! figures are printed in every build (`cargo test --release --test recording_speed -- --nocapture`); the bound on bytes
//! holds in every build, those on time in release builds.

use std::io::Write as _;
use std::time::Instant;

use monitor::event_type::EventType;
use monitor::fields::{FieldKey, FieldValues, Value, owned_list};
use monitor::recording::{BlockEncoder, Item, Recording, RecordingFile};
use monitor_common::call::Call;

const EVENTS: i64 = 20_000;

/// A call in a container with a name: as many values as such an event has, of the usual lengths. Process ids, times and
/// command lines differ from event to event, as they do live.
fn event(number: i64) -> FieldValues {
    let mut values = FieldValues::default();
    let mut set = |name: &str, arg: Option<&str>, value: Value<'static>| {
        values.set_key(FieldKey::find(name, arg).expect(name), value).expect(name);
    };
    let pid = 4000 + number * 7 % 20_000;
    let container = number % 13;
    let text = |text: &str| Value::Text(text.to_owned().into());
    for (name, arg, value) in [
        ("evt.category", None, "namespace"),
        ("evt.verdict", None, "refused"),
        ("evt.refused_by", None, "seccomp"),
        ("evt.res", None, "EPERM"),
        ("evt.abi", None, "x86_64"),
        ("evt.arg", Some("flags"), "CLONE_NEWUSER|CLONE_NEWNS"),
        ("evt.args", None, "flags=CLONE_NEWUSER|CLONE_NEWNS"),
        ("evt.phase", None, "running"),
        ("container.metadata", None, "complete"),
        ("container.runtime", None, "docker"),
        ("container.type", None, "docker"),
        ("container.image", None, "registry.example/team/service:1.27"),
        ("container.label", Some("com.example/team"), "walls"),
        ("host.unit", None, "docker.service"),
        ("proc.name", None, "worker"),
        ("proc.exepath", None, "/usr/local/bin/worker"),
        ("proc.exe", None, "worker"),
        ("proc.cwd", None, "/srv/app"),
        ("proc.pname", None, "supervisor"),
        ("proc.pexepath", None, "/usr/local/bin/supervisor"),
        ("proc.aname", Some("1"), "supervisor"),
        ("proc.aname", Some("2"), "containerd-shim"),
        ("proc.aname", Some("3"), "systemd"),
        ("proc.aexepath", Some("1"), "/usr/local/bin/supervisor"),
        ("proc.aexepath", Some("2"), "/usr/bin/containerd-shim-runc-v2"),
        ("proc.acmdline", Some("1"), "supervisor -c /etc/supervisor.conf"),
        ("proc.entry", None, "main"),
        ("user.name", None, "root"),
    ] {
        set(name, arg, text(value));
    }
    for (name, value) in [
        ("container.id", format!("{container:012x}")),
        ("container.full_id", format!("{container:064x}")),
        ("container.name", format!("service-{container}")),
        ("cgroup.path", format!("/system.slice/docker-{container:064x}.scope")),
        ("proc.args", format!("--job {number} --retry")),
        ("proc.cmdline", format!("worker --job {number} --retry")),
        ("proc.id", format!("1f0c2a4b-{}-{pid}", 100_000 + number)),
        ("proc.parent_id", format!("1f0c2a4b-90000-{}", 3000 + container)),
    ] {
        set(name, None, Value::Text(value.into()));
    }
    for (name, arg, value) in [
        ("evt.rawres", None, -1),
        ("evt.nr", None, 272),
        ("cgroup.id", None, 90_000 + container),
        ("proc.exe_ino", None, 1_234_567),
        ("proc.tty", None, 0),
        ("proc.sid", None, 3000 + container),
        ("proc.pid", None, pid),
        ("proc.vpid", None, pid % 300),
        ("proc.ppid", None, 3000 + container),
        ("proc.apid", Some("1"), 3000 + container),
        ("proc.apid", Some("2"), 2000 + container),
        ("proc.start", None, 1_000_000_000_000 + number * 10_000_019),
        ("thread.tid", None, pid),
        ("user.uid", None, 0),
        ("user.loginuid", None, -1),
        ("ns.before", Some("mnt"), 4_026_532_000 + container),
        ("ns.before", Some("pid"), 4_026_532_100 + container),
        ("ns.before", Some("user"), 4_026_531_837),
        ("ns.after", Some("mnt"), 4_026_532_000 + container),
        ("ns.after", Some("pid"), 4_026_532_100 + container),
        ("ns.after", Some("user"), 4_026_531_837),
    ] {
        set(name, arg, Value::Number(value));
    }
    let list = |members: &[&str]| owned_list(members.iter().map(|member| (*member).to_owned()));
    set("evt.failed", None, Value::Bool(true));
    set("container.chain", None, list(&["0123456789ab"]));
    set("evt.flags", None, list(&["CLONE_NEWUSER", "CLONE_NEWNS"]));
    set("cap.after", None, list(&["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETUID"]));
    values
}

#[test]
fn a_recorded_event_takes_less_than_a_hundred_bytes() {
    let events: Vec<FieldValues> = (0..EVENTS).map(event).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("speed.rfrec");
    let mut file = RecordingFile::open(&path).expect("a recording");
    let mut encoder = BlockEncoder::new("host");
    let (mut raw, mut blocks) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for (number, event) in (0..).zip(&events) {
        if encoder.is_full() {
            blocks.push((encoder.finish(&mut raw), raw.clone()));
        }
        let time = 1_700_000_000_000_000_000 + number * 50_123;
        let ty = EventType::Call(Call::Unshare);
        encoder.push(time, time.cast_unsigned(), ty, event).expect("it fits");
    }
    blocks.push((encoder.finish(&mut raw), raw.clone()));
    let laid = start.elapsed();
    let start = Instant::now();
    for (block, raw) in &blocks {
        let mut packed = Vec::new();
        block.write(raw, 0, &mut packed);
        file.append(&packed).expect("room");
    }
    let packed = start.elapsed();
    let start = Instant::now();
    let mut recording = Recording::open(&path).expect("a recording");
    let mut read = 0;
    while let Some(item) = recording.next_item().expect("readable") {
        assert!(matches!(item, Item::Event(_)));
        read += 1;
    }
    let unpacked = start.elapsed();
    assert_eq!(read, EVENTS);
    let bytes = file.len() as f64 / EVENTS as f64;
    let unpacked_bytes: usize = blocks.iter().map(|(_, raw)| raw.len()).sum();
    let ns = |time: std::time::Duration| time.as_nanos() as f64 / EVENTS as f64;
    let _ = writeln!(
        std::io::stdout(),
        "{} values an event: {:.0} bytes in a block, {bytes:.1} in the file; {:.0} ns to lay down, {:.0} ns to pack and \
         write, {:.0} ns to read",
        events[0].iter().count(),
        unpacked_bytes as f64 / EVENTS as f64,
        ns(laid),
        ns(packed),
        ns(unpacked),
    );
    assert!(bytes < 100.0, "{bytes} bytes an event");
    if !cfg!(debug_assertions) {
        assert!(ns(laid) < 30_000.0 && ns(packed) < 30_000.0 && ns(unpacked) < 60_000.0);
    }
}
