//! The ledger's word against a known script, and its advice against the same script run again: with the printed change
//! it works and nothing is refused, with one capability less it does not.
//!
//! Natively in real Docker containers, in guests in those that crun makes of Docker's configuration.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use tests::docker::Ran;
use tests::harness::{Daemon, MOST_TURNS, PATIENCE};
use tests::oci::{self, Profile};

use crate::capability_place::Place;
use crate::places::Suite;

/// A program whose checks are known.
struct Script {
    name: &'static str,
    /// Options of `docker create`: what Docker opens to everybody is closed again, so that the capability counts.
    options: &'static [&'static str],
    command: &'static str,
    /// What it prints last.
    prints: &'static str,
    /// How often it is asked for what, and has it.
    used: &'static [(&'static str, u64)],
    /// Without which of these it does not work; without the others the kernel refuses what it can do without.
    vital: &'static [&'static str],
}

const SCRIPTS: &[Script] = &[
    // It binds its port, and becomes nobody by setgroups, setgid and setuid.
    Script {
        name: "httpd_on_port_80",
        options: &["--sysctl", "net.ipv4.ip_unprivileged_port_start=1024"],
        command: "/bin/sh -c '/bin/busybox mkdir /www; echo served > /www/index.html; \
                  /bin/busybox httpd -p 80 -u 65534:65534 -h /www || exit 1; \
                  exec /bin/busybox wget -q -O - http://127.0.0.1/index.html'",
        prints: "served",
        used: &[("CAP_NET_BIND_SERVICE", 1), ("CAP_SETGID", 2), ("CAP_SETUID", 1)],
        vital: &["CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"],
    },
    // It opens a raw socket, and would fall back to another kind if that were open to everybody.
    Script {
        name: "ping_by_raw_socket",
        options: &["--sysctl", "net.ipv4.ping_group_range=1 0"],
        command: "/bin/sh -c '/bin/busybox ping -c 1 -W 5 127.0.0.1 >/dev/null && echo answered'",
        prints: "answered",
        used: &[("CAP_NET_RAW", 1)],
        vital: &["CAP_NET_RAW"],
    },
    // setgroups, setresgid, setresuid.
    Script {
        name: "program_that_becomes_nobody",
        options: &[],
        command: "/attempt drop",
        prints: "nobody",
        used: &[("CAP_SETGID", 2), ("CAP_SETUID", 1)],
        vital: &["CAP_SETGID", "CAP_SETUID"],
    },
];

pub(crate) fn trials(place: &Arc<Place>) -> Vec<Trial> {
    let scripts = SCRIPTS.iter().map(|script| {
        let place = place.clone();
        Trial::test(format!("advice::{}", script.name), move || {
            place.with(|daemon| Adviser { suite: &place.suite, daemon }.prove(script)).map_err(Failed::from)
        })
    });
    if place.suite.settings().guest {
        // The other two are no matter of the kernel, and take a guest a minute.
        return scripts.collect();
    }
    let forgets = {
        let place = place.clone();
        Trial::test("advice::a_restart_forgets_nothing", move || restart(&place).map_err(Failed::from))
    };
    let files = {
        let place = place.clone();
        Trial::test("advice::program_with_file_capabilities", move || {
            let prove = |daemon: &Daemon| Adviser { suite: &place.suite, daemon }.prove_file();
            place.with(prove).map_err(Failed::from)
        })
    };
    scripts.chain([forgets, files]).collect()
}

/// Root begins a program whose file has CAP_NET_BIND_SERVICE with the effective bit, which nothing checks, and which lives
/// long enough to be looked at. The shell says 126 of a program that it may not begin.
const FILE: Script = Script {
    name: "program_with_file_capabilities",
    options: &[],
    command: "/bin/sh -c '/attempt carry /tmp/carrier CAP_NET_BIND_SERVICE || exit 1; \
              /tmp/carrier linger 5000 || echo not begun: $?'",
    prints: "lingered",
    used: &[],
    vital: &["CAP_NET_BIND_SERVICE"],
};

/// What a run came to: the script may fail.
struct Run {
    id: String,
    outcome: Result<Ran, String>,
}

/// What an ended container did is known to the next daemon, to the last digit.
fn restart(place: &Place) -> Result<(), String> {
    let script = &SCRIPTS[0];
    let (id, before) = place.with(|daemon| {
        let adviser = Adviser { suite: &place.suite, daemon };
        let run = adviser.run(script, None)?;
        works(script, &run)?;
        let told = adviser.await_counts(&run.id, "used", &script.expected())?;
        Ok((run.id, told))
    })?;
    place.end()?;
    let after = place.with(|daemon| Adviser { suite: &place.suite, daemon }.told(&id))?;
    let mut times = [Vec::new(), Vec::new()];
    for part in ["capabilities", "granted"] {
        let (mut old, mut new) = (before[part].clone(), after[part].clone());
        take_times(&mut old, &mut times[0])?;
        take_times(&mut new, &mut times[1])?;
        if old.is_null() || old != new {
            return Err(format!("{part} before: {:#}\nafter a restart: {:#}", before[part], after[part]));
        }
    }
    // All by the same correction of the clock.
    let moved: Vec<_> = times[0].iter().zip(&times[1]).map(|(old, new)| new - old).collect();
    if times[0].is_empty() || times[0].len() != times[1].len() || moved.iter().any(|by| *by != moved[0]) {
        return Err(format!("times before: {:?}\nafter a restart: {:?}", times[0], times[1]));
    }
    Ok(())
}

fn works(script: &Script, run: &Run) -> Result<(), String> {
    let ran = run.outcome.as_ref().map_err(String::clone)?;
    match ran.lines.last() {
        Some(line) if line == script.prints => Ok(()),
        other => Err(format!("it printed {other:?} instead of {}", script.prints)),
    }
}

fn same(one: &[String], other: &[&str]) -> bool {
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all
    };
    sorted(one.to_vec()) == sorted(other.iter().map(|text| (*text).to_owned()).collect())
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Capabilities with a count of one kind.
fn counts(told: &Value, kind: &str) -> BTreeMap<String, u64> {
    let all = told["capabilities"].as_array().into_iter().flatten();
    all.filter_map(|cap| Some((cap["capability"].as_str()?.to_owned(), cap[kind]["count"].as_u64()?)))
        .collect()
}

/// Takes the times out of what a daemon told: the wall clock is added when it is told, and may have been corrected since.
fn take_times(told: &mut Value, times: &mut Vec<i128>) -> Result<(), String> {
    match told {
        Value::Array(all) => all.iter_mut().try_for_each(|one| take_times(one, times)),
        Value::Object(members) => {
            for name in ["first", "last"] {
                if let Some(Value::String(text)) = members.remove(name) {
                    let time = humantime::parse_rfc3339(&text).map_err(|error| format!("{text}: {error}"))?;
                    let since =
                        time.duration_since(UNIX_EPOCH).map_err(|error| format!("{text}: {error}"))?;
                    times.push(since.as_nanos() as i128);
                }
            }
            members.values_mut().try_for_each(|one| take_times(one, times))
        }
        _ => Ok(()),
    }
}

impl Script {
    fn expected(&self) -> BTreeMap<String, u64> {
        self.used.iter().map(|(cap, count)| ((*cap).to_owned(), *count)).collect()
    }
}

/// A daemon, and the programs that ask it.
struct Adviser<'s> {
    suite: &'s Suite,
    daemon: &'s Daemon,
}

impl Adviser<'_> {
    fn prove(&self, script: &Script) -> Result<(), String> {
        let first = self.run(script, None)?;
        works(script, &first)?;
        let expected = script.expected();
        let told = self.await_counts(&first.id, "used", &expected)?;
        self.refused_nothing(&told)?;
        let keep = self.advice(&first.id)?;
        let wanted: Vec<&str> = script.used.iter().map(|(cap, _)| *cap).collect();
        if !same(&keep, &wanted) {
            return Err(format!("the advice keeps {keep:?} instead of {wanted:?}"));
        }
        let second = self.run(script, Some(&keep))?;
        works(script, &second).map_err(|fault| format!("with the advice: {fault}"))?;
        let told = self.await_counts(&second.id, "used", &expected)?;
        self.refused_nothing(&told).map_err(|fault| format!("with the advice: {fault}"))?;
        let bounding: Vec<String> = list(&told["granted"]["bounding"]);
        if !same(&bounding, &wanted) {
            return Err(format!("with the advice it is granted {bounding:?}"));
        }
        for cap in &keep {
            let less: Vec<String> = keep.iter().filter(|other| *other != cap).cloned().collect();
            let third = self.run(script, Some(&less))?;
            let vital = script.vital.contains(&cap.as_str());
            if vital && works(script, &third).is_ok() {
                return Err(format!("without {cap} it works all the same"));
            }
            self.await_refusal(&third.id, cap)?;
        }
        Ok(())
    }

    /// Nothing checks what a program has of its file, and without it in the bounding set it does not begin.
    fn prove_file(&self) -> Result<(), String> {
        let script = &FILE;
        let first = self.run_watched(script, None)?;
        works(script, &first)?;
        let told = self.await_told(&first.id, |told| {
            let all = told["capabilities"].as_array().into_iter().flatten();
            let needed: Vec<_> = all.filter(|cap| cap["needed_by_file"] == true).collect();
            match &needed[..] {
                [one] if one["capability"] == script.vital[0] && one["used"].is_null() => Ok(()),
                _ => Err(format!("needed by a file: {needed:#?}\n{told:#}")),
            }
        })?;
        if told["files_unseen"] != false {
            return Err(format!("not every program's file was looked at: {told:#}"));
        }
        // Who gives the file its capability uses another one.
        let wanted = ["CAP_NET_BIND_SERVICE", "CAP_SETFCAP"];
        let keep = self.advice(&first.id)?;
        if !same(&keep, &wanted) {
            return Err(format!("the advice keeps {keep:?} instead of {wanted:?}"));
        }
        let text = self.ask(&[&first.id, "--patch", "docker", "--min-observation", "0s"])?;
        let note = format!("does not begin without: {}.", script.vital[0]);
        if !text.contains(&note) || text.contains("were not looked at") {
            return Err(format!(
                "the advice does not say `{note}`, or that something was not looked at: {text}"
            ));
        }
        let second = self.run_watched(script, Some(&keep))?;
        works(script, &second).map_err(|fault| format!("with the advice: {fault}"))?;
        self.refused_nothing(&self.told(&second.id)?).map_err(|fault| format!("with the advice: {fault}"))?;
        let less: Vec<String> = keep.into_iter().filter(|cap| cap != script.vital[0]).collect();
        let third = self.run(script, Some(&less))?;
        works(&Script { prints: "not begun: 126", ..*script }, &third)
            .map_err(|fault| format!("without {}: {fault}", script.vital[0]))
    }

    /// Runs a script while somebody asks now and then, so that what is there only for a moment is looked at.
    fn run_watched(&self, script: &Script, keep: Option<&[String]>) -> Result<Run, String> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // What it says is for another time.
                    let _ = self.ask(&["-o", "json"]);
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
            let run = self.run(script, keep);
            over.store(true, Ordering::Relaxed);
            run
        })
    }

    /// Nothing was refused to the container.
    fn refused_nothing(&self, told: &Value) -> Result<(), String> {
        let refused = counts(told, "refused").into_iter().filter(|(cap, count)| {
            // A guest's containers lie on a tmpfs, where a write looks for CAP_SYS_ADMIN as it takes memory, and some
            // kernels do not say that this is a look.
            let looks = told["capabilities"].as_array().into_iter().flatten().any(|told| {
                told["capability"] == **cap && told["refused"]["perhaps_silent"].as_u64() == Some(*count)
            });
            !(self.suite.settings().guest && cap == "CAP_SYS_ADMIN" && looks)
        });
        let refused: BTreeMap<_, _> = refused.collect();
        if refused.is_empty() { Ok(()) } else { Err(format!("refused: {refused:?}\n{told:#}")) }
    }

    /// Runs the script in a new container, with Docker's default capabilities or with these alone. One during which the
    /// kernel skipped a counting probe is made anew, which is what `caps` says helps.
    fn run(&self, script: &Script, keep: Option<&[String]>) -> Result<Run, String> {
        for _ in 0..MOST_TURNS {
            let run = self.run_once(script, keep)?;
            let told = self.await_told(&run.id, |_| Ok(()))?;
            if told["lost"]["skipped"] == 0 {
                return Ok(run);
            }
        }
        Err(format!("the kernel skipped counting probes in each of {MOST_TURNS} containers"))
    }

    fn run_once(&self, script: &Script, keep: Option<&[String]>) -> Result<Run, String> {
        if self.suite.settings().guest {
            return self.run_in_guest(script, keep);
        }
        let mut options: Vec<String> = script.options.iter().map(|option| (*option).to_owned()).collect();
        if let Some(keep) = keep {
            options.push("--cap-drop=ALL".to_owned());
            options.extend(keep.iter().map(|cap| format!("--cap-add={}", cap.trim_start_matches("CAP_"))));
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let outcome = self.suite.engine()?.run(&options, script.command).map_err(|error| error.to_string());
        let id = match &outcome {
            Ok(ran) => ran.id.clone(),
            Err(message) => id_in(message)?,
        };
        Ok(Run { id, outcome })
    }

    fn run_in_guest(&self, script: &Script, keep: Option<&[String]>) -> Result<Run, String> {
        let id = std::cell::RefCell::new(String::new());
        let change = |config: &mut Value| {
            // The configuration names the cgroup, and so the container.
            let path = config["linux"]["cgroupsPath"].as_str().unwrap_or_default();
            *id.borrow_mut() = path.rsplit(['/', ':']).next().unwrap_or_default().to_owned();
            if let Some(keep) = keep {
                for set in ["bounding", "effective", "permitted", "inheritable"] {
                    config["process"]["capabilities"][set] = json!(keep);
                }
            }
            for option in script.options.iter().filter(|option| !option.starts_with("--")) {
                if let Some((name, value)) = option.split_once('=') {
                    config["linux"]["sysctl"][name] = json!(value);
                }
            }
        };
        let command = format!("exec {}", script.command);
        let words = ["/bin/sh", "-c", &command];
        let attempt = &self.suite.settings().attempt;
        let outcome =
            oci::run_with(attempt, Profile::Default, &words, &change).map_err(|error| error.to_string());
        Ok(Run { id: id.into_inner(), outcome })
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.suite.settings().ringfence);
        command.arg("caps").arg("--socket").arg(self.daemon.control_socket()).args(arguments);
        let output = command.output().map_err(|error| format!("ringfence caps: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("ringfence caps: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }

    fn told(&self, id: &str) -> Result<Value, String> {
        let text = self.ask(&[id, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    /// Waits until the ledger says what it must: the container's cgroup may not have been named yet.
    fn await_told(&self, id: &str, holds: impl Fn(&Value) -> Result<(), String>) -> Result<Value, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let judged = self.told(id).and_then(|told| holds(&told).map(|()| told));
            match judged {
                Ok(told) => return Ok(told),
                Err(fault) if Instant::now() > end => return Err(fault),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn await_counts(&self, id: &str, kind: &str, expected: &BTreeMap<String, u64>) -> Result<Value, String> {
        self.await_told(id, |told| {
            let found = counts(told, kind);
            let wrong = || Err(format!("{kind}: {found:?} instead of {expected:?}\n{told:#}"));
            if found == *expected { Ok(()) } else { wrong() }
        })
    }

    fn await_refusal(&self, id: &str, cap: &str) -> Result<(), String> {
        let refused = |told: &Value| match counts(told, "refused").get(cap) {
            Some(_) => Ok(()),
            None => Err(format!("without {cap} nothing is refused\n{told:#}")),
        };
        self.await_told(id, refused).map(drop)
    }

    /// The capabilities that the printed options keep.
    fn advice(&self, id: &str) -> Result<Vec<String>, String> {
        // A day is what advice rests on by default, and a script runs for a moment.
        match self.ask(&[id, "--patch", "docker"]) {
            Err(message) if message.contains("no advice") => {}
            other => return Err(format!("after a moment there is advice: {other:?}")),
        }
        let text = self.ask(&[id, "--patch", "docker", "--min-observation", "0s"])?;
        let words: Vec<&str> = text.split_whitespace().filter(|word| !word.starts_with('#')).collect();
        if !words.contains(&"--cap-drop=ALL") {
            return Err(format!("the advice drops nothing: {text}"));
        }
        let kept = words.iter().filter_map(|word| word.strip_prefix("--cap-add="));
        Ok(kept.map(|cap| format!("CAP_{}", cap.trim_start_matches("CAP_"))).collect())
    }
}

/// The id in a message of [`tests::docker::Engine::run`] about a command that failed.
fn id_in(message: &str) -> Result<String, String> {
    let id = message.split_whitespace().map(|word| word.trim_end_matches(':'));
    let mut id = id.filter(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()));
    id.next().map(str::to_owned).ok_or_else(|| format!("the container did not run: {message}"))
}
