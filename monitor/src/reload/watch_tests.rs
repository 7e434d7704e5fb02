//! The watch under test: real files in a temporary directory, changed as people and Kubernetes change them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::super::debounce;
use super::*;

/// Long enough for a change to be told, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a change takes to be told.
const QUIET: Duration = Duration::from_millis(400);

struct Bench {
    _dir: tempfile::TempDir,
    at: PathBuf,
    paths: Vec<PathBuf>,
    watcher: Watcher,
}

impl Bench {
    /// Watches `path` below a directory that `prepare` gets.
    fn new(path: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        prepare(&at);
        let paths = vec![at.join(path)];
        let watcher = Watcher::start(&paths).unwrap();
        assert_eq!(watcher.fault(), None);
        Bench { _dir: dir, at, paths, watcher }
    }

    fn lay(&mut self) {
        self.watcher.forget().unwrap();
        let watched = lay(&self.watcher.notifier(), &self.paths);
        assert_eq!(watched.fault, None);
        self.watcher.set(watched);
    }

    /// Makes a change, which must be told; then everything is read and watched anew.
    async fn told(&mut self, what: &str, change: impl FnOnce(&Path)) {
        change(&self.at);
        let told = timeout_at((Instant::now() + PATIENCE).into(), self.watcher.changed()).await;
        told.unwrap_or_else(|_| panic!("not told: {what}")).unwrap();
        self.lay();
    }

    async fn not_told(&mut self, what: &str, change: impl FnOnce(&Path)) {
        change(&self.at);
        let told = timeout_at((Instant::now() + QUIET).into(), self.watcher.changed()).await;
        assert!(told.is_err(), "told: {what}");
    }
}

#[tokio::test]
async fn files_of_a_directory() {
    let mut bench = Bench::new("d", |at| {
        fs::create_dir(at.join("d")).unwrap();
        fs::write(at.join("d/a.yaml"), "1").unwrap();
    });
    bench.not_told("nothing", |_| {}).await;
    bench.told("written in place", |at| fs::write(at.join("d/a.yaml"), "2").unwrap()).await;
    bench.told("a new file", |at| fs::write(at.join("d/b.yaml"), "1").unwrap()).await;
    bench.told("the new one written", |at| fs::write(at.join("d/b.yaml"), "2").unwrap()).await;
    bench
        .told("an editor's rename", |at| {
            fs::write(at.join("d/.a.yaml.tmp"), "3").unwrap();
            fs::rename(at.join("d/.a.yaml.tmp"), at.join("d/a.yaml")).unwrap();
        })
        .await;
    bench.told("written after the rename", |at| fs::write(at.join("d/a.yaml"), "4").unwrap()).await;
    bench.told("removed", |at| fs::remove_file(at.join("d/a.yaml")).unwrap()).await;
    bench.told("back again", |at| fs::write(at.join("d/a.yaml"), "5").unwrap()).await;
    bench
        .told("its rights", |at| {
            fs::set_permissions(at.join("d/a.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
        })
        .await;
    bench.not_told("an editor's file", |at| fs::write(at.join("d/.a.yaml.swp"), "x").unwrap()).await;
    bench
        .not_told("a log", |at| {
            fs::write(at.join("d/alerts.jsonl"), "x").unwrap();
            fs::write(at.join("d/alerts.jsonl"), "xy").unwrap();
        })
        .await;
    bench.not_told("a neighbour", |at| fs::write(at.join("other.yaml"), "x").unwrap()).await;
    bench
        .told("the directory replaced", |at| {
            fs::create_dir(at.join("new")).unwrap();
            fs::write(at.join("new/a.yaml"), "6").unwrap();
            fs::rename(at.join("d"), at.join("old")).unwrap();
            fs::rename(at.join("new"), at.join("d")).unwrap();
        })
        .await;
    bench.told("written in the new one", |at| fs::write(at.join("d/a.yaml"), "7").unwrap()).await;
    bench.not_told("the old one", |at| fs::write(at.join("old/b.yaml"), "x").unwrap()).await;
}

#[tokio::test]
async fn what_does_not_exist_yet() {
    let mut bench = Bench::new("etc/rules.d", |_| {});
    bench.told("the first directory", |at| fs::create_dir(at.join("etc")).unwrap()).await;
    bench.not_told("another name", |at| fs::create_dir(at.join("etc/x")).unwrap()).await;
    bench.told("the second", |at| fs::create_dir(at.join("etc/rules.d")).unwrap()).await;
    bench.told("a file", |at| fs::write(at.join("etc/rules.d/r.yaml"), "1").unwrap()).await;
    bench.told("all gone", |at| fs::remove_dir_all(at.join("etc")).unwrap()).await;
    bench
        .told("back", |at| {
            fs::create_dir_all(at.join("etc/rules.d")).unwrap();
            fs::write(at.join("etc/rules.d/r.yaml"), "2").unwrap();
        })
        .await;
    bench.told("written", |at| fs::write(at.join("etc/rules.d/r.yaml"), "3").unwrap()).await;
}

/// As the kubelet updates a volume: a new directory, a new link, a rename over the old one.
#[tokio::test]
async fn a_kubernetes_volume() {
    let version = |at: &Path, name: &str, text: &str| {
        fs::create_dir(at.join("v").join(name)).unwrap();
        fs::write(at.join("v").join(name).join("r.yaml"), text).unwrap();
    };
    let mut bench = Bench::new("v", |at| {
        fs::create_dir(at.join("v")).unwrap();
        version(at, "..1", "1");
        symlink("..1", at.join("v/..data")).unwrap();
        symlink("..data/r.yaml", at.join("v/r.yaml")).unwrap();
    });
    for number in 2..5 {
        bench.not_told("the next version", |at| version(at, &format!("..{number}"), "2")).await;
        bench
            .told("the exchange", |at| {
                symlink(format!("..{number}"), at.join("v/..data_tmp")).unwrap();
                fs::rename(at.join("v/..data_tmp"), at.join("v/..data")).unwrap();
            })
            .await;
        let old = format!("v/..{}", number - 1);
        bench.not_told("the old version", |at| fs::remove_dir_all(at.join(old)).unwrap()).await;
    }
}

#[tokio::test]
async fn a_file_behind_links_and_under_another_name() {
    let mut bench = Bench::new("link.yaml", |at| {
        fs::create_dir(at.join("real")).unwrap();
        fs::write(at.join("real/r.yaml"), "1").unwrap();
        fs::hard_link(at.join("real/r.yaml"), at.join("other-name")).unwrap();
        symlink("real", at.join("dir")).unwrap();
        symlink("dir/r.yaml", at.join("link.yaml")).unwrap();
    });
    bench.told("written where it lies", |at| fs::write(at.join("real/r.yaml"), "2").unwrap()).await;
    bench.told("written under another name", |at| fs::write(at.join("other-name"), "3").unwrap()).await;
    bench
        .told("a link on the way", |at| {
            fs::create_dir(at.join("second")).unwrap();
            fs::write(at.join("second/r.yaml"), "4").unwrap();
            fs::remove_file(at.join("dir")).unwrap();
            symlink("second", at.join("dir")).unwrap();
        })
        .await;
    bench.not_told("where it led before", |at| fs::write(at.join("real/r.yaml"), "5").unwrap()).await;
    bench.told("where it leads now", |at| fs::write(at.join("second/r.yaml"), "6").unwrap()).await;
}

/// Changes without rest are told all the same, and those before a reading are not told after it.
#[tokio::test]
async fn a_steady_stream_of_changes() {
    let mut bench = Bench::new("r.yaml", |at| fs::write(at.join("r.yaml"), "0").unwrap());
    let (file, end) = (bench.at.join("r.yaml"), Instant::now() + 3 * debounce::MOST);
    let writer = std::thread::spawn(move || {
        let mut written = 0_u32;
        while Instant::now() < end {
            written += 1;
            fs::write(&file, written.to_string()).unwrap();
            std::thread::sleep(debounce::REST / 10);
        }
    });
    let start = Instant::now();
    bench.watcher.changed().await.unwrap();
    assert!(start.elapsed() < 2 * debounce::MOST, "{:?}", start.elapsed());
    writer.join().unwrap();
    bench.lay();
    bench.not_told("what was there before", |_| {}).await;
}

#[test]
fn lost_changes_count_and_unknown_ones_do_not() {
    let watched = Watched::default();
    assert!(watched.counts(-1, ReadFlags::QUEUE_OVERFLOW, None));
    assert!(watched.counts(5, ReadFlags::UNMOUNT, None));
    assert!(!watched.counts(5, ReadFlags::CREATE, Some(OsStr::new("x"))));
}
