//! What Prometheus gets: names and labels as documented, rules and a dashboard that ask for what is there, alerts that fire.
//!
//! promtool and Prometheus are Debian's; the server runs on loopback, in a directory of its own.

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::Value;
use server::Server;
use tests::harness::http::get;
use tests::harness::{ALL_EVENTS, Daemon, PATIENCE, Settings};
use tests::promql::{Asked, asked};
use tests::scrape::{Family, families};

use crate::cases::cases;

/// What a family of ours is called, and the few of others that the documents name.
const PREFIXES: &[&str] = &["ringfence_", "process_"];
/// Labels that come from Prometheus, not from the daemon.
const SITE_LABELS: &[&str] = &["instance", "job"];
/// Served on request only, and documented all the same.
const ON_REQUEST: &[&str] = &["ringfence_capability_unused_info"];
/// Series of these depend on which probes there are, so they come when these are attached.
const BY_PROBE: &[&str] = &[
    "ringfence_probe_",
    "ringfence_canary_up",
    "ringfence_canary_untested",
    "ringfence_canary_last_",
    "ringfence_bpf_program_",
];

/// Panels whose expressions may be empty though all is well.
const MAY_BE_EMPTY: &[(&str, &str)] = &[
    ("Probes missing", "all probes may be attached"),
    ("Hooks without a test", "all hooks may be tested"),
    ("Runs of probes skipped", "only those that were skipped show"),
    ("Only looked", "the kernel may not have looked"),
    ("Errors", "the ledger is kept, and only a missing one shows"),
    ("Granted and unused", "series by container are there on request only"),
];

pub(crate) fn trials(settings: &Arc<Settings>) -> Vec<Trial> {
    if settings.guest {
        // No matter of the kernel.
        return Vec::new();
    }
    cases(
        settings,
        &[
            ("prometheus::rules_are_right", rules_are_right),
            ("prometheus::names_are_documented", names_are_documented),
            ("prometheus::asks_a_daemon", asks_a_daemon),
        ],
    )
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Runs promtool, and gives what it said.
fn promtool(arguments: &[&str], dir: &Path, input: &str) -> Result<String, String> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("promtool: {error}; `cargo xtask setup` brings it"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|error| format!("promtool {arguments:?}: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("promtool {}: {}: {said}", arguments.join(" "), output.status))
    }
}

/// The shipped alert rules, and the tests beside them.
fn rules_are_right(settings: &Settings) -> Result<(), String> {
    let dir = settings.repository()?.join("deploy/prometheus");
    let said = promtool(&["check", "rules", "ringfence.rules.yaml"], &dir, "")?;
    if !said.contains("SUCCESS") {
        return Err(format!("promtool checked nothing: {said}"));
    }
    promtool(&["test", "rules", "ringfence.rules.test.yaml"], &dir, "")?;
    // The same with a rule that must not pass, for a tool that finds everything right finds nothing.
    let wrong = read(&dir.join("ringfence.rules.yaml"))?.replacen("up{job=", "up{job~", 1);
    let copy = tempfile::tempdir().map_err(|error| error.to_string())?;
    std::fs::write(copy.path().join("wrong.yaml"), wrong).map_err(|error| error.to_string())?;
    match promtool(&["check", "rules", "wrong.yaml"], copy.path(), "") {
        Err(_) => Ok(()),
        Ok(said) => Err(format!("promtool takes a wrong expression: {said}")),
    }
}

/// Metrics are served while the probes are attached; what is served is documented, and what is documented is served.
fn names_are_documented(settings: &Settings) -> Result<(), String> {
    let repository = settings.repository()?;
    let rules = settings.rules.display().to_string();
    let mut early = String::new();
    let daemon = Daemon::start_and(settings, &["--rules", &rules], |address| {
        early = while_it_starts(address)?;
        Ok(())
    })?;
    let (_, text) = daemon.get("/metrics")?;
    let served = families(&text)?;
    for (name, family) in &served {
        let by_probe = BY_PROBE.iter().any(|prefix| name.starts_with(prefix));
        let before = families(&early)?.get(name).map_or(0, |family| family.series);
        if !by_probe && before != family.series {
            return Err(format!("{name} has {} series, and had {before} while it started", family.series));
        }
    }
    promtool(&["check", "metrics"], &repository, &text)?;
    documented(&read(&repository.join("docs/prometheus.md"))?, &served)?;
    mentioned(&repository, &served)?;
    has_the_rules_digest(settings, &text)?;
    daemon.stop()?.check()
}

/// Asks until a scrape was answered before the probes were attached.
fn while_it_starts(address: &str) -> Result<String, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let scrape = get(address, "/metrics");
        // Not ready after the scrape, so not before either.
        let (status, said) = get(address, "/readyz").map_err(|error| format!("/readyz: {error}"))?;
        match (scrape, status) {
            (Ok((200, text)), 503) if said.contains("not attached yet") => return Ok(text),
            (_, 200) => return Err("it was ready before a scrape was answered".to_owned()),
            _ if Instant::now() > end => return Err(format!("no scrape was answered: {status} {said}")),
            _ => {}
        }
    }
}

/// Every family has its row in the document's list, with its type and labels, and every row its family.
fn documented(text: &str, served: &BTreeMap<String, Family>) -> Result<(), String> {
    let mut rows = BTreeMap::new();
    for line in
        text.lines().filter(|line| PREFIXES.iter().any(|prefix| line.starts_with(&format!("| `{prefix}"))))
    {
        let mut cells = line.trim_matches('|').splitn(4, '|').map(str::trim);
        let (Some(name), Some(kind), Some(labels), Some(help)) =
            (cells.next(), cells.next(), cells.next(), cells.next())
        else {
            return Err(format!("a row has too few cells: {line}"));
        };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let row = (kind.to_owned(), help.to_owned(), labels);
        if rows.insert(name.trim_matches('`').to_owned(), row).is_some() {
            return Err(format!("{name} has two rows"));
        }
    }
    let served: BTreeMap<String, (String, String, BTreeSet<String>)> = served
        .iter()
        .map(|(name, family)| {
            (name.clone(), (family.kind.clone(), family.help.clone(), family.labels.clone()))
        })
        .collect();
    for (name, family) in &served {
        match rows.get(name) {
            None => return Err(format!("{name} is not in docs/prometheus.md")),
            Some(row) if row != family => {
                return Err(format!("docs/prometheus.md says of {name} {row:?}; served is {family:?}"));
            }
            Some(_) => {}
        }
    }
    match rows.keys().find(|name| !served.contains_key(*name) && !ON_REQUEST.contains(&name.as_str())) {
        Some(name) => Err(format!("docs/prometheus.md has {name}, which is not served")),
        None => Ok(()),
    }
}

/// Every name in the documents is that of a family, or begins some: `ringfence_capability_*`.
fn mentioned(repository: &Path, served: &BTreeMap<String, Family>) -> Result<(), String> {
    let docs = std::fs::read_dir(repository.join("docs")).map_err(|error| error.to_string())?;
    let docs = docs
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "md"));
    let mut found = 0;
    for path in docs.chain([repository.join("README.md")]) {
        let text = read(&path)?;
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        // Others are names of files: ringfence_VERSION_amd64.deb.
        for word in words.filter(|word| word.starts_with("ringfence_") && is_plain(word)) {
            found += 1;
            let known = served.contains_key(word)
                || ON_REQUEST.contains(&word)
                || (word.ends_with('_') && served.keys().any(|name| name.starts_with(word)));
            if !known {
                return Err(format!("{} names {word}, which is not served", path.display()));
            }
        }
    }
    if found < 50 { Err(format!("only {found} names were found in the documents")) } else { Ok(()) }
}

/// The digest is that of `cat FILE… | sha256sum`, as the documents say.
fn has_the_rules_digest(settings: &Settings, scrape: &str) -> Result<(), String> {
    let command = "cat \"$0\"/*.yaml | sha256sum";
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .arg(&settings.rules)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digest = text.split(' ').next().unwrap_or_default();
    let line = format!("ringfence_rules_files_info{{sha256=\"{digest}\"}} 1");
    if digest.len() == 64 && scrape.lines().any(|served| served == line) {
        Ok(())
    } else {
        Err(format!("no line `{line}` in the scrape"))
    }
}

/// Every expression of rules and dashboard has what it asks for, and rules fire when they must.
fn asks_a_daemon(settings: &Settings) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let repository = settings.repository()?;
    let dir = tempfile::tempdir().map_err(text)?;
    let local = dir.path().join("local.yaml");
    std::fs::write(&local, ALL_EVENTS).map_err(text)?;
    let (records, rules) =
        (dir.path().join("records").display().to_string(), settings.rules.display().to_string());
    let arguments = [
        "--rules",
        &rules,
        "--rules",
        &local.display().to_string(),
        "--set",
        "probe_cost=true",
        "--set",
        &format!("record_dir={records}"),
    ];
    // Nobody reads its standard output, so this output drops every alert.
    let (daemon, stdout) = Daemon::start_text(settings, &arguments, Stdio::piped())?;
    drop(stdout);
    let shipped = read(&repository.join("deploy/prometheus/ringfence.rules.yaml"))?;
    let server = Server::start(daemon.address(), &hurried(&shipped)?)?;
    server.await_some("up{job=\"ringfence\"} == 1")?;
    attempts(settings)?;
    server.await_some("sum(increase(ringfence_attempts_total[5m])) > 0")?;
    // They are read from the kernel every ten seconds.
    for result in ["allowed", "denied"] {
        let rate = format!("sum(rate(ringfence_capability_checks_total{{result=\"{result}\"}}[5m])) > 0");
        server.await_some(&rate)?;
    }
    // Rates need a second sample, and the rules a second look.
    server.await_some("count_over_time(up{job=\"ringfence\"}[1m]) > 4")?;

    let mut faults = the_rules(&server)?;
    faults.extend(the_dashboard(&server, &read(&repository.join("deploy/grafana/ringfence.json"))?)?);
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }

    fires(&server, "RingfenceOutputDropping", "output=\"stdout\",severity=\"critical\"")?;
    std::fs::write(&local, "- rule: wrong\n").map_err(text)?;
    fires(&server, "RingfenceReloadFailed", "severity=\"warning\"")?;
    std::fs::write(&local, ALL_EVENTS).map_err(text)?;
    server.await_some("ringfence_config_last_reload_successful == 1")?;
    daemon.stop()?.check()?;
    fires(&server, "RingfenceAgentAbsent", "severity=\"critical\"")
}

/// The shipped rules with nothing to wait for: `for` is a second each.
fn hurried(rules: &str) -> Result<String, String> {
    let hurry = |line: &str| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 1s\n"),
        _ => format!("{line}\n"),
    };
    let hurried: String = rules.lines().map(hurry).collect();
    let (alerts, waits) = (rules.matches("- alert: ").count(), hurried.matches("for: 1s\n").count());
    if alerts == waits { Ok(hurried) } else { Err(format!("{alerts} alerts have {waits} times to wait")) }
}

/// What somebody tries in a container and on the host, as `attempt demo` does.
fn attempts(settings: &Settings) -> Result<(), String> {
    let output =
        Command::new(&settings.attempt).arg("demo").output().map_err(|error| format!("attempt: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("attempt demo: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn fires(server: &Server, alert: &str, labels: &str) -> Result<(), String> {
    server.await_some(&format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",{labels}}}"))?;
    Ok(())
}

/// What is wrong with an expression: labels that no metric of it has, or a metric that has no such series.
fn asks_for_what_is_there(server: &Server, asked: &Asked, may_be_empty: bool) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let mut known: BTreeSet<String> = SITE_LABELS.iter().map(|label| (*label).to_owned()).collect();
    for selector in &asked.selectors {
        let all = server.query(&selector.name)?;
        let labels: BTreeSet<String> = all
            .iter()
            .filter_map(|sample| sample["metric"].as_object())
            .flat_map(|labels| labels.keys().cloned())
            .collect();
        for (label, _, _) in &selector.matchers {
            if !labels.contains(label) && !may_be_empty {
                faults.push(format!("{} has no label {label}", selector.name));
            }
        }
        if !may_be_empty && server.query(&selector.text())?.is_empty() {
            faults.push(format!("nothing is {}", selector.text()));
        }
        known.extend(labels);
    }
    let unknown = asked.labels.iter().filter(|label| !known.contains(*label) && !may_be_empty);
    faults.extend(unknown.map(|label| format!("no metric has the label {label}")));
    Ok(faults)
}

/// Asks again until nothing is wrong or the time is over: after one scrape that took too long there is nothing to be found.
fn again(end: Instant, mut ask: impl FnMut() -> Result<Vec<String>, String>) -> Result<Vec<String>, String> {
    loop {
        let wrong = ask()?;
        if wrong.is_empty() || Instant::now() > end {
            return Ok(wrong);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn the_rules(server: &Server) -> Result<Vec<String>, String> {
    let end = Instant::now() + PATIENCE;
    let rules = loop {
        let rules = server.rules()?;
        if rules.iter().all(|rule| rule.evaluated || rule.fault.is_some()) {
            break rules;
        }
        if Instant::now() > end {
            return Err("the rules are not evaluated".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if rules.len() < 30 {
        return Err(format!("there are only {} rules", rules.len()));
    }
    let mut faults = Vec::new();
    for rule in rules {
        faults.extend(rule.fault.map(|fault| format!("rule {}: {fault}", rule.name)));
        let question = asked(&rule.query, PREFIXES)?;
        let wrong = again(end, || asks_for_what_is_there(server, &question, false))?;
        faults.extend(wrong.into_iter().map(|fault| format!("rule {}: {fault}", rule.name)));
    }
    Ok(faults)
}

fn the_dashboard(server: &Server, text: &str) -> Result<Vec<String>, String> {
    let dashboard: Value = serde_json::from_str(text).map_err(|error| format!("the dashboard: {error}"))?;
    let panels = dashboard["panels"].as_array().ok_or("the dashboard has no panels")?;
    let end = Instant::now() + PATIENCE;
    let (mut faults, mut asked_for) = (Vec::new(), 0);
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default();
        let may_be_empty = MAY_BE_EMPTY.iter().any(|(may, _)| *may == title);
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().ok_or(format!("panel {title} asks for nothing"))?;
            let expression = filled_in(expression);
            asked_for += 1;
            let question = asked(&expression, PREFIXES)?;
            let wrong = again(end, || {
                let empty = server.query(&expression)?.is_empty();
                let mut wrong = asks_for_what_is_there(server, &question, may_be_empty && empty)?;
                if empty && !may_be_empty {
                    wrong.push(format!("is empty: {expression}"));
                }
                Ok(wrong)
            })?;
            faults.extend(wrong.into_iter().map(|fault| format!("panel {title}: {fault}")));
        }
    }
    let unknown = MAY_BE_EMPTY.iter().filter(|(may, _)| !panels.iter().any(|panel| panel["title"] == *may));
    faults.extend(unknown.map(|(title, _)| format!("there is no panel {title} that may be empty")));
    if asked_for < 80 { Err(format!("the dashboard asks for only {asked_for} things")) } else { Ok(faults) }
}

/// What Grafana puts in the place of its variables. The times are longer than the test takes.
fn filled_in(expression: &str) -> String {
    [("$__rate_interval", "5m"), ("$__range", "5m"), ("$job", "ringfence"), ("$instance", ".+")]
        .into_iter()
        .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value))
}
