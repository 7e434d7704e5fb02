//! The control socket under test: real sockets in a temporary directory, real tables behind them.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use monitor_common::ids::CgroupId;
use prometheus::IntCounter;
use rustix::fs::Gid;
use rustix::process::Uid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::containers_tests::World;
use super::protocol::MAX_REQUEST;
use super::*;
use crate::capabilities::tests::{BOOT, World as Machine, id, path};
use crate::capabilities::{Capabilities, CapsInfo};
use crate::enrich::names::tests::metrics;
use crate::http::{Health, Readiness};
use crate::reload::{RulesBoard, RulesState};
use crate::rules::RuleSet;
use crate::watchers::Hub;

pub(super) const ID: &str = "4d5ce26ae5a9ffaf0c3d8d0ee4bd04f5a07e69b7c1c0a1e4e1bd3c1fbd4e3a21";
pub(super) const REQUEST: &[u8] = b"{\"request\":\"containers\"}\n";
/// The answer where there is no container.
const EMPTY: &str = "{\"containers\":{\"known\":[],\"omitted\":0}}\n";
/// Somebody without rights, and a group.
const NOBODY: u32 = 65_534;
const GROUP: u32 = 54_321;

/// Of a daemon without probes.
fn board() -> Arc<Board> {
    let metrics = metrics();
    let health = Health::new(Arc::clone(&metrics));
    health.set(Readiness::Ready);
    let rules = RuleSet::from_sources(&[("r.yaml", "- list: l\n  items: [x]\n")]).unwrap();
    let rules = RulesBoard::new(RulesState::of(&rules, 3), true);
    Arc::new(Board::bare(health, Arc::new(rules), metrics))
}

/// What a daemon without a capability ledger knows.
fn sources(asker: Asker) -> Sources {
    let desk = Arc::new(Desk::new(Arc::default(), Vec::new()));
    Sources { asker: Arc::new(asker), board: board(), capabilities: None, desk }
}

fn at(path: &Path) -> ControlSocket {
    ControlSocket::At(path.to_owned())
}

/// A daemon's control side over these tables, and its counters.
pub(super) struct Served {
    dir: tempfile::TempDir,
    pub(super) path: PathBuf,
    outcomes: Vec<IntCounter>,
    asked: IntCounter,
    hub: Arc<Hub>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Served {
    pub(super) fn new(rows: impl Fn() -> Vec<Row> + Send + 'static) -> Self {
        Self::prepared(|_| {}, move |_| Answer::Containers(rows()))
    }

    fn empty() -> Self {
        Self::prepared(|_| {}, |_| Answer::Containers(Vec::new()))
    }

    /// `prepare` gets the directory before the socket is made.
    fn prepared(prepare: impl FnOnce(&Path), answer: impl Fn(Topic) -> Answer + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        prepare(dir.path());
        let path = dir.path().join("x.sock");
        let outcomes: Vec<_> =
            Outcome::ALL.iter().map(|outcome| IntCounter::new(outcome.name(), "x").unwrap()).collect();
        let asked = IntCounter::new("asked", "x").unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (asker, mut questions) = channel();
        let _inside = runtime.enter();
        let bound = bind(&at(&path)).unwrap().unwrap();
        let hub = Arc::<Hub>::default();
        let desk = Arc::new(Desk::new(Arc::clone(&hub), Vec::new()));
        runtime.spawn(serve(bound, Sources { desk, ..sources(asker) }, outcomes.clone()));
        let count = asked.clone();
        runtime.spawn(async move {
            while let Some(question) = questions.recv().await {
                count.inc();
                question.answer(&answer);
            }
        });
        Served { dir, path, outcomes, asked, hub, runtime: Some(runtime) }
    }

    /// Where watchers come in.
    pub(super) fn hub(&self) -> Arc<Hub> {
        Arc::clone(&self.hub)
    }

    /// Sends, says that this was all, and reads until the other side closes.
    pub(super) fn send(&self, bytes: &[u8]) -> String {
        let mut stream = StdStream::connect(&self.path).unwrap();
        // It may answer and close before it has taken everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].get()
    }

    /// Counting comes after answering.
    pub(super) fn await_count(&self, outcome: Outcome, count: u64) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.count(outcome) != count {
            assert!(Instant::now() < end, "{outcome:?}: {} instead of {count}", self.count(outcome));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn what_is_no_request_is_refused_and_never_reaches_the_pipeline() {
    let served = Served::empty();
    for (text, reason) in [
        (b"\n".as_slice(), "malformed"),
        (b"GET / HTTP/1.1\r\n\r\n", "malformed"),
        (b"\xff\xfe\x00\n", "malformed"),
        (b"{\"request\":\"stop\"}\n", "malformed"),
        (b"{\"request\":\"\\u001b[2J\\u009b\"}\n", "malformed"),
        (b"{\"request\":\"containers\"}", "malformed"),
        (&[b'['; MAX_REQUEST + 100], "too_long"),
        (&[b'a'; 1 << 20], "too_long"),
    ] {
        let answer = served.send(text);
        match serde_json::from_str::<Reply>(&answer) {
            Ok(Reply::Error(refusal)) => assert_eq!(refusal.reason, reason, "{answer}"),
            other => panic!("{other:?}: {answer}"),
        }
        assert!(answer.ends_with('\n') && !answer.trim_end().chars().any(char::is_control), "{answer:?}");
    }
    for half in [b"".as_slice(), b"{\"requ"] {
        let mut stream = StdStream::connect(&served.path).unwrap();
        stream.write_all(half).unwrap();
    }
    served.await_count(Outcome::TooLong, 2);
    // Who hung up halfway may be told so in vain.
    served.await_count(Outcome::Malformed, 7);
    served.await_count(Outcome::Disconnected, 1);
    assert_eq!(served.asked.get(), 0);
    assert_eq!(served.send(REQUEST), EMPTY);
}

#[test]
fn who_asks_and_hangs_up_costs_one_answer() {
    let served = Served::empty();
    for _ in 0..3 {
        StdStream::connect(&served.path).unwrap().write_all(REQUEST).unwrap();
    }
    assert_eq!(served.send(REQUEST), EMPTY);
    assert!(served.asked.get() <= 4);
    let ended = || served.count(Outcome::Answered) + served.count(Outcome::Disconnected);
    let end = Instant::now() + Duration::from_secs(10);
    while ended() < 4 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn silent_clients_are_hung_up_on_and_keep_nobody_out() {
    let served = Served::empty();
    let silent: Vec<_> = (0..20).map(|_| StdStream::connect(&served.path).unwrap()).collect();
    assert_eq!(served.send(REQUEST), EMPTY);
    assert!(served.asked.get() == 1 && served.count(Outcome::Slow) >= 8);
    served.await_count(Outcome::Slow, 20);
    drop(silent);
}

#[test]
fn an_answer_that_nobody_takes_is_given_up() {
    let mut world = World::new();
    for id in 0..4000 {
        world.cgroups.made(CgroupId(id), format!("/docker/{id:064x}").as_bytes());
    }
    // Made before: what an answer costs, the next one waits for fifty times.
    let rows = world.rows();
    let served = Served::new(move || rows.clone());
    let mut stream = StdStream::connect(&served.path).unwrap();
    stream.write_all(REQUEST).unwrap();
    // Meanwhile another gets all of it.
    let Reply::Containers(all) = ask(&served.path, Request::Containers {}).unwrap() else { panic!() };
    assert_eq!((all.known.len(), all.omitted), (4000, 0));
    served.await_count(Outcome::Slow, 1);
    let mut taken = Vec::new();
    stream.read_to_end(&mut taken).unwrap();
    assert!(!taken.ends_with(b"\n"));
}

#[test]
fn a_pipeline_that_is_gone_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (asker, questions) = channel();
    drop(questions);
    let _inside = runtime.enter();
    runtime.spawn(serve(bind(&at(&path)).unwrap().unwrap(), sources(asker), Vec::new()));
    let error = std::thread::spawn(move || ask(&path, Request::Containers {})).join().unwrap().unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused { .. }) && error.to_string().contains("stopping"),
        "{error}"
    );
}

#[test]
fn the_capability_ledger_is_asked_for_all_or_for_one() {
    let world = Machine::new();
    for number in 1..=300 {
        world.make(number, &path(number));
        world.check(number, 13, 0, number);
    }
    let capabilities = Capabilities::start(move || world.keeper(BOOT, None)).unwrap();
    let served = Served::empty();
    let Some(runtime) = &served.runtime else { panic!() };
    let with = served.dir.path().join("with.sock");
    let _inside = runtime.enter();
    let (asker, _questions) = channel();
    let sources = Sources { capabilities: Some(capabilities), ..sources(asker) };
    runtime.spawn(serve(bind(&at(&with)).unwrap().unwrap(), sources, Vec::new()));
    let caps = |path: &Path, container: Option<&str>| {
        let request = Request::Caps { container: container.map(str::to_owned) };
        std::thread::scope(|scope| scope.spawn(|| ask(path, request)).join().unwrap())
    };
    let Reply::Caps(all) = caps(&with, None).unwrap() else { panic!() };
    assert_eq!((all.containers.len(), all.omitted), (300, 0));
    let used = |info: &CapsInfo| info.summary().used;
    assert_eq!(all.containers.iter().map(used).sum::<usize>(), 300);
    assert!(all.containers.iter().all(|info| info.capabilities.is_empty() && info.summary.is_some()));
    for (wanted, found) in
        [(id(7), 1), ("name-7".to_owned(), 1), (id(0x100)[..62].to_owned(), 45), ("x".to_owned(), 0)]
    {
        let Reply::Caps(listing) = caps(&with, Some(&wanted)).unwrap() else { panic!() };
        assert_eq!(listing.containers.len(), found, "{wanted}");
        assert!(listing.containers.iter().all(|info| info.capabilities.len() == 1 && info.summary.is_none()));
    }
    // A daemon that keeps none says so.
    let error = caps(&served.path, None).unwrap_err().to_string();
    assert!(error.contains("keeps no capability ledger"), "{error}");
}

/// Runs as another user, in a thread of its own: the kernel keeps credentials by thread.
fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], work: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            set_thread_groups(&groups).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

#[test]
fn the_kernel_says_who_asks() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: the rights of others are not tested");
        return;
    }
    // A directory with a group hands it on.
    let served = Served::prepared(
        |dir| {
            std::os::unix::fs::chown(dir, None, Some(GROUP)).unwrap();
            fs::set_permissions(dir, Permissions::from_mode(0o2755)).unwrap();
        },
        |_| Answer::Containers(Vec::new()),
    );
    assert_eq!(fs::metadata(&served.path).unwrap().gid(), GROUP);
    let path = served.path.clone();
    let ask_it = || ask(&path, Request::Containers {});
    assert!(as_user(NOBODY, GROUP, &[], ask_it).is_ok());
    let many: Vec<u32> = (1000..1100).chain([GROUP]).collect();
    assert!(as_user(NOBODY, NOBODY, &many, ask_it).is_ok());
    let error = as_user(NOBODY, NOBODY, &[NOBODY, GROUP + 1], ask_it).unwrap_err();
    assert!(
        matches!(&error, ClientError::NotAllowed { reason, .. } if reason.contains("ermission")),
        "{error}"
    );
    assert_eq!(served.count(Outcome::Denied), 0, "the file's permissions refused");

    // Somebody opened it to all. What the client sends is not even read.
    fs::set_permissions(&served.path, Permissions::from_mode(0o666)).unwrap();
    let error = as_user(NOBODY, NOBODY, &[NOBODY, GROUP + 1], ask_it).unwrap_err();
    assert!(
        matches!(&error, ClientError::NotAllowed { reason, .. } if reason.contains("only root")),
        "{error}"
    );
    served.await_count(Outcome::Denied, 1);
    // The group 0 is nothing special.
    assert!(as_user(NOBODY, 0, &[0], ask_it).is_err());
    assert_eq!(served.asked.get(), 2);
    assert!(ask_it().is_ok());
}

#[test]
fn a_client_says_what_is_wrong_with_the_other_side() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let error = ask(&path, Request::Containers {}).unwrap_err();
    assert!(matches!(error, ClientError::NoSocket { .. }), "{error}");
    let listener = StdListener::bind(&path).unwrap();
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let endless = [b'['; 1 << 16];
    let answers: [(&str, &[u8], usize); 4] = [
        ("closed without", b"", 1),
        ("no Ringfence", b"220 mail.example ESMTP\r\n", 1),
        ("no Ringfence", b"{\"else\":{}}\n", 1),
        ("more than", &endless, 1025),
    ];
    for (expected, bytes, times) in answers {
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; REQUEST.len()];
                stream.read_exact(&mut request).unwrap();
                assert_eq!(request, *REQUEST);
                for _ in 0..times {
                    let _ = stream.write_all(bytes);
                }
            });
            ask(&path, Request::Containers {}).unwrap_err().to_string()
        });
        assert!(error.contains(expected), "{expected}: {error}");
    }
    drop(listener);
    let error = ask(&path, Request::Containers {}).unwrap_err();
    assert!(matches!(error, ClientError::NobodyListens { .. }), "{error}");
}

impl Drop for Served {
    fn drop(&mut self) {
        // Without waiting for connections that are under way.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        assert!(self.dir.path().exists());
    }
}

/// The pipeline is not asked, and those who ask keep their distance.
#[test]
fn status_is_answered_without_the_pipeline() {
    let served = Served::prepared(|_| {}, |_| unreachable!("the pipeline is not asked"));
    let Reply::Status(status) = ask(&served.path, Request::Status {}).unwrap() else { panic!() };
    assert_eq!((status.state.as_str(), status.is_wrong()), ("ready", false));
    assert_eq!((status.rules.generation, &*status.rules.files), (3, &["r.yaml".to_owned()][..]));
    assert_eq!((status.rules.watch.as_str(), &status.rules.refused), ("on", &None));
    assert_eq!(status.rules.reloads.len(), 3);
    assert_eq!(status.events, EventsStatus::default());
    let start = Instant::now();
    for _ in 0..3 {
        assert!(ask(&served.path, Request::Status {}).is_ok());
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert_eq!(served.asked.get(), 0);
}
