//! Events that are judged while they are recorded, and judged again from the recording: the alerts must be the same,
//! byte by byte.

use std::fs;
use std::path::Path;

use monitor_common::call::{Abi, Call};
use monitor_common::ids::{CgroupId, Gid, NsInum, Tgid, Tid, Uid};

use super::page::Page;
use super::*;
use crate::alert::{JsonLines, Palette, TextLines};
use crate::cli::replay::Replay;
use crate::cli::rules_command::RuleFiles;
use crate::decode::{ProcessKey, RawExec, RawTask};
use crate::enrich::metadata::{Metadata, Miss};
use crate::enrich::names::tests::{Hand, container, metrics};
use crate::fields::closed_keys;
use crate::recording::{RecordDrop, RecordingFile, Single};
use crate::sink::Sink;

const LONG: Duration = Duration::from_secs(600);
const SHELL: ProcessKey = ProcessKey { tgid: Tgid(40), start: BootNs(1_000_000_000) };
const PROBE: ProcessKey = ProcessKey { tgid: Tgid(42), start: BootNs(2_000_000_000) };

/// A rule whose alerts have every field, and one that asks for a name.
fn rules() -> String {
    let types: Vec<&str> = EventType::all().map(EventType::name).collect();
    let fields: String = closed_keys()
        .iter()
        .map(|key| {
            let arg = key.arg_text().map_or(String::new(), |arg| format!("[{arg}]"));
            format!(" %{}{arg}", key.field.spec().name)
        })
        .collect();
    format!(
        "- rule: Everything\n  id: everything\n  desc: d\n  condition: evt.type in ({})\n  \
         output: 'all{fields} %proc.aname %container.label[app] %container.label[\"com.example/a b\"] end'\n  \
         priority: WARNING\n\
         - rule: Named\n  id: named\n  desc: d\n  condition: evt.type = setns and container.name = web\n  \
         output: \"%container.name\"\n  priority: NOTICE\n",
        types.join(", ")
    )
}

fn task(process: ProcessKey, parent: ProcessKey, comm: &[u8], cgroup: CgroupId) -> RawTask {
    let mut padded = [0; 16];
    padded[..comm.len()].copy_from_slice(comm);
    RawTask {
        process,
        tid: Tid(process.tgid.0),
        parent,
        ns_tgid: 7,
        cgroup,
        euid: Uid(0),
        egid: Gid(5),
        loginuid: Uid(1000),
        session: 40,
        comm: padded,
    }
}

/// What a runtime might have written, with what terminals and JSON must be kept from.
fn named() -> Metadata {
    Metadata {
        name: Some("web".to_owned()),
        image: Some("nginx:1.27 \u{1b}[2J\"".to_owned()),
        labels: [("app", "shop"), ("com.example/a b", "\\ \u{7f} \u{202e}")].into_iter().collect(),
        privileged: Some(true),
        ..Metadata::default()
    }
}

/// A pipeline that records and writes JSON and text, with what a test needs of it.
struct Bench {
    pipeline: Pipeline,
    hand: Hand,
    json: Page,
    text: Page,
    boot: u64,
}

impl Bench {
    fn new(rules: &Path, file: &Path, waits: bool) -> Self {
        let metrics = metrics();
        let (names, hand) = Hand::with_names(Arc::clone(&metrics), 64);
        let (json, text) = (Page::default(), Page::default());
        let sink = |page: &Page| Sink::start("test", page.clone(), 64 << 20).unwrap();
        let store = Single::new(RecordingFile::open(file).unwrap(), u64::MAX);
        let mut pipeline = Pipeline::new(Parts {
            alert_why: false,
            rules: RuleSet::load(&[rules.to_owned()]).unwrap(),
            min_priority: Priority::Debug,
            process_entries: 100,
            hierarchy: None,
            outputs: vec![
                Output::new(sink(&json), Format::Json(JsonLines::default())),
                Output::new(sink(&text), Format::Text(TextLines::new(Palette::Plain))),
            ],
            hostname: "a \"host\"".to_owned(),
            names,
            users: Users::default(),
            metadata_wait: LONG,
            metrics,
            canary: None,
            recorder: Some(Recorder::start("a \"host\"", store, waits).unwrap()),
        })
        .unwrap();
        pipeline.cgroups.made(CgroupId(1), b"/system.slice/ssh.service");
        for (i, id) in ["a", "b", "c"].iter().enumerate() {
            let path = format!("/docker/{}", id.repeat(64));
            pipeline.cgroups.made(CgroupId(100 + i as u64), path.as_bytes());
        }
        pipeline.ask_names();
        for (process, parent, name) in [(SHELL, ProcessKey::default(), "sh"), (PROBE, SHELL, "pr\x1bobe")] {
            pipeline.processes.execed(&RawExec {
                task: task(process, parent, name.as_bytes(), CgroupId(100)),
                exe_ino: 99,
                exe_dev: 8 << 20 | 1,
                components: b"pr\xffobe\0bin\0",
                cwd_components: b"srv\0",
                args: b"./pr\x1bobe\0-x\0a \xfe b\0",
                args_total: 18,
                ..RawExec::default()
            });
        }
        Bench { pipeline, hand, json, text, boot: 9_000_000_000 }
    }

    fn call(&mut self, call: Call, cgroup: CgroupId) {
        self.boot += 1_000_003;
        let mut raw = RawCall::made_up(call);
        raw.task = task(PROBE, SHELL, b"pr\x1b\xffobe", cgroup);
        raw.boot = BootNs(self.boot);
        raw.abi = Abi::I386;
        raw.nr = 346;
        raw.flags |=
            call_flag::CAPS_VISIBLE | call_flag::BEFORE_KNOWN | call_flag::CLAIMED | call_flag::FILE_KNOWN;
        raw.ret = if self.boot.is_multiple_of(2) { -1 } else { 0 };
        raw.args = [5, 0x2002_0000, 3, 4];
        raw.claimed = [0x1002_0000, 1 << 25, 3, u64::MAX];
        (raw.caps_before, raw.caps_after, raw.caps_denied, raw.caps_granted) = (3, 6, 1 << 21, 1);
        raw.ns_before = std::array::from_fn(|kind| NsInum(200 + kind as u32));
        raw.ns_after = std::array::from_fn(|kind| NsInum(200 + 2 * kind as u32));
        (raw.major, raw.minor) = (1, 1);
        raw.path = b"/dev/\xff\"mem\n";
        self.pipeline.call(&raw, false);
    }

    /// Gives the alerts as JSON and as text, and how many events were recorded.
    fn end(mut self) -> (Vec<u8>, Vec<u8>, u64) {
        self.pipeline.finish();
        let recorder = self.pipeline.take_recorder().unwrap();
        for output in self.pipeline.into_outputs() {
            output.sink.flush(Instant::now() + LONG);
        }
        let stats = recorder.finish(Instant::now() + LONG);
        assert_eq!(RecordDrop::ALL.map(|reason| stats.dropped(reason)), [0; RecordDrop::ALL.len()]);
        let text = |page: &Page| page.0.lock().unwrap().clone();
        (text(&self.json), text(&self.text), stats.recorded())
    }
}

fn replayed(file: &Path, rules: &Path, format: Format) -> (Vec<u8>, u64) {
    let replay = Replay {
        files: vec![file.to_owned()],
        rules: RuleFiles::plain(vec![rules.to_owned()]),
        min_priority: Priority::Debug,
    };
    let mut out = Vec::new();
    let replayed = replay.run(format, &mut out).unwrap();
    assert_eq!((replayed.report.as_str(), replayed.damaged), ("", false));
    (out, replayed.events)
}

#[test]
fn alerts_of_a_recording_are_those_of_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let (rules_path, file) = (dir.path().join("r.yaml"), dir.path().join("e.rfrec"));
    fs::write(&rules_path, rules()).unwrap();
    let mut bench = Bench::new(&rules_path, &file, false);
    let calls: Vec<Call> = Call::ALL.to_vec();
    for call in &calls {
        bench.call(*call, CgroupId(1));
        // The first container is named soon, the second never, the third not in time.
        for cgroup in 100..103 {
            bench.call(*call, CgroupId(cgroup));
        }
    }
    assert!(bench.hand.take() > 0);
    assert!(bench.hand.answer(&container("a"), Ok(named())));
    bench.pipeline.tend();
    assert!(bench.hand.answer(&container("b"), Err(Miss::NotFound)));
    bench.pipeline.tend();
    bench.call(Call::Setns, CgroupId(100));
    bench.call(Call::Unshare, CgroupId(999));
    let (json, text, recorded) = bench.end();
    let lines = json.iter().filter(|byte| **byte == b'\n').count();
    let events = calls.len() as u64 * 4 + 2;
    assert_eq!(recorded, events);
    assert_eq!(lines as u64, events + 2, "two of setns have a second alert, by the name");
    for part in ["\"shop", "pending", "missing", "complete", "i386", "SIGSYS\\|EPERM"] {
        let any =
            part.split("\\|").any(|part| json.windows(part.len()).any(|window| window == part.as_bytes()));
        assert!(any, "{part} is in no line");
    }
    let (again, read) = replayed(&file, &rules_path, Format::Json(JsonLines::default()));
    assert_eq!(read, events);
    let differs = String::from_utf8_lossy(&json)
        .lines()
        .zip(String::from_utf8_lossy(&again).lines())
        .find(|(live, replayed)| live != replayed)
        .map(|(live, replayed)| (live.to_owned(), replayed.to_owned()));
    assert_eq!(differs, None);
    assert!(json == again, "{} lines, {} bytes against {}", lines, json.len(), again.len());
    let (again, _) = replayed(&file, &rules_path, Format::Text(TextLines::new(Palette::Plain)));
    assert!(text == again);
}

#[test]
fn who_records_alone_waits_for_names_that_no_rule_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let rules_path = dir.path().join("r.yaml");
    fs::write(
        &rules_path,
        "- rule: R\n  desc: d\n  condition: evt.type = capset\n  output: o\n  priority: INFO\n",
    )
    .unwrap();
    for (waits, expected) in [(false, "pending"), (true, "complete")] {
        let file = dir.path().join(format!("{waits}.rfrec"));
        let mut bench = Bench::new(&rules_path, &file, waits);
        bench.call(Call::Setns, CgroupId(100));
        bench.hand.take();
        assert!(bench.hand.answer(&container("a"), Ok(named())));
        bench.pipeline.tend();
        assert_eq!(bench.end().2, 1);
        let mut recording = crate::recording::Recording::open(&file).unwrap();
        let Some(crate::recording::Item::Event(event)) = recording.next_item().unwrap() else { panic!() };
        let metadata = crate::fields::resolve("container.metadata", None).unwrap();
        let value = crate::fields::FieldSource::value(&event.values, metadata);
        assert_eq!(value, crate::fields::Value::text(expected));
    }
}
