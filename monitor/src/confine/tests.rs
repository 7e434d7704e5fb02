//! Confinement under test: what stays open, and what a filter lets pass, tried in processes of its own.

use std::fs;
use std::process::Command;

use super::*;
use crate::config::StateDir;
use crate::control::ControlSocket;

#[test]
fn settings_are_places() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    fs::create_dir(&rules).unwrap();
    let settings = Settings {
        rules: vec![rules.join("later.yaml")],
        alert_file: Some(dir.path().join("alerts/today")),
        record_dir: Some(rules.clone()),
        ..Settings::default()
    };
    let places = places(&settings, &Sources::default(), Some(Path::new("/sys/fs/bpf")));
    assert_eq!(places.read, std::slice::from_ref(&rules));
    assert!(places.write.contains(&dir.path().to_owned()) && places.write.contains(&rules), "{places:?}");
    assert!(!places.any_port);
    assert!(places.write.contains(&"/sys/fs/bpf".into()));
    // Where nothing is pinned, nothing is written to for pins; and what is not there yet is made, so that nothing above it
    // is open.
    let settings = Settings {
        state_dir: StateDir::At(dir.path().join("ringfence")),
        control_socket: ControlSocket::Off,
        ..Settings::default()
    };
    let confinement = Confinement::new(&settings, &Sources::default(), None, Said::default());
    assert_eq!(confinement.places.write, [dir.path().join("ringfence")]);
}

#[test]
fn the_whole_machine_is_no_place_to_write_to() {
    let settings = Settings {
        alert_file: Some("/no/such/directory/alerts".into()),
        state_dir: StateDir::Off,
        ..Settings::default()
    };
    let mut confinement = Confinement::new(&settings, &Sources::default(), None, Said::default());
    let outcome = confinement.prepare(None).unwrap_err();
    assert!(matches!(&outcome, Outcome::Missing(why) if why.contains("make it first")), "{outcome:?}");
}

#[test]
fn each_layer_is_switched_off_by_itself() {
    let read = |text| serde_saphyr::from_str::<Confine>(text);
    assert_eq!(read("{}").unwrap(), Confine::default());
    let open = read("{seccomp: false, landlock: false}").unwrap();
    assert!(open.capabilities && !open.seccomp && !open.landlock);
    assert!(read("{selinux: true}").is_err());
}

/// In a process of its own, since what is given up never comes back: this test, once more, with a variable set.
#[test]
fn every_thread_gives_up_what_it_is_told_to() {
    const CHILD: &str = "RINGFENCE_TEST_CONFINES_ITSELF";
    if std::env::var_os(CHILD).is_some() {
        return confined_child();
    }
    let name = "confine::tests::every_thread_gives_up_what_it_is_told_to";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--test-threads", "2", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

fn confined_child() {
    let settings = Settings {
        confine: Confine { landlock: false, ..Confine::default() },
        state_dir: StateDir::Off,
        ..Settings::default()
    };
    let mut confinement = Confinement::new(&settings, &Sources::default(), None, Said::default());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let idle = std::thread::spawn(move || {
        let _ = stopped.recv();
        // In a thread that did not ask for it; refused, and alive.
        let ret = asks_whether_it_exists();
        (ret, io::Error::last_os_error().raw_os_error())
    });
    let before = capabilities_of(&fs::read_to_string("/proc/self/status").unwrap(), "CapPrm");
    let apart = confinement
        .apart(|| {
            let task = fs::read_to_string("/proc/thread-self/status").unwrap();
            capabilities_of(&task, "CapPrm")
        })
        .unwrap();
    assert_eq!(apart, before, "the thread that attaches keeps all");
    confinement.close_calls(None);
    let keep = capabilities::needed_afterwards();
    let mut threads = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        let of = |set| capabilities_of(&status, set);
        assert_eq!(of("CapPrm"), before & keep, "{status}");
        assert_eq!(of("CapEff") & !keep, 0, "{status}");
        assert_eq!((of("CapInh"), of("CapAmb")), (0, 0), "{status}");
        assert!(status.contains("NoNewPrivs:\t1\n") && status.contains("Seccomp:\t2\n"), "{status}");
        threads += 1;
    }
    assert!(threads >= 3, "the harness's thread, this one and the idle one");
    drop(stop);
    assert_eq!(idle.join().unwrap(), (-1, Some(libc::EPERM)));
    assert_eq!(refused(), [("kill".to_owned(), 1)]);
}

/// kill(2) with signal 0 and this process: it changes nothing, and the filter does not know it.
fn asks_whether_it_exists() -> i32 {
    // SAFETY: signal 0 asks whether the process exists.
    unsafe { libc::kill(libc::getpid(), 0) }
}

fn capabilities_of(status: &str, set: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t")).unwrap();
    u64::from_str_radix(line, 16).unwrap()
}
