//! Each kind of output, at the server that it is for, which says what it got.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::harness::{Daemon, PATIENCE, Settings};
use tests::servers::{Alertmanager, HeldPort, Journald, Rsyslog, await_count};

use super::{Place, Running, alerts, on_stdout, start};

/// Alerts that are made.
const ALERTS: u32 = 60;

/// The names of all outputs.
const OUTPUTS: [&str; 13] = [
    "unix",
    "tcp",
    "tls",
    "journald",
    "hook",
    "mutual",
    "slack",
    "own",
    "alertmanager",
    "grpc",
    "http",
    "grpcs",
    "falcosidekick",
];

const TOKEN: &str = "a-t0ken-of-the-suite";

pub(super) fn all(settings: &Settings) -> Result<(), String> {
    let place = Place::new()?;
    let dir = place.dir.path();
    let rsyslog = Rsyslog::start(dir, &place.pki)?;
    let journald = Journald::start(dir)?;
    let alertmanager = Alertmanager::start(dir, "alertmanager")?;
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|error| error.to_string()).map(|()| path.display().to_string())
    };
    let (plain, token) = (place.nginx.plain, file("token", &format!("{TOKEN}\n"))?);
    let slack = file("slack", &format!("http://127.0.0.1:{plain}/slack/s3cret"))?;
    let own = file("own.json", r#"{"pid": "%proc.vpid", "said": "%rule: %output", "all": ["%tags"]}"#)?;
    let (ca, cert, key) = (place.pki.file("ca.pem"), place.pki.file("leaf.pem"), place.pki.file("leaf.key"));
    let tls = format!("tls: {{ca: {ca}, cert: {cert}, key: {key}}}");
    let (collector, dead) = (&place.collector, HeldPort::take()?);
    let outputs = [
        format!("{{type: syslog, name: unix, address: 'unix:{}', message: text}}", rsyslog.socket.display()),
        format!("{{type: syslog, name: tcp, address: 'tcp://localhost:{}'}}", rsyslog.tcp),
        format!(
            "{{type: syslog, name: tls, address: 'tls://localhost:{}', facility: local0, {tls}}}",
            rsyslog.tls
        ),
        format!("{{type: journald, socket: {}}}", journald.socket().display()),
        format!("{{type: webhook, name: hook, url: 'http://127.0.0.1:{plain}/hook'}}"),
        format!(
            "{{type: webhook, name: mutual, url: 'https://localhost:{}/hook', batch: 50, token_file: {token}, \
             headers: {{X-Scope: lab}}, {tls}}}",
            place.nginx.mutual
        ),
        format!("{{type: webhook, name: slack, url_file: {slack}, template: slack}}"),
        format!(
            "{{type: webhook, name: own, method: PUT, url: 'http://127.0.0.1:{plain}/own', template_file: {own}}}"
        ),
        format!(
            "{{type: alertmanager, urls: ['http://127.0.0.1:{}', 'http://127.0.0.1:{}'], labels: {{cluster: lab}}}}",
            dead.port()?,
            alertmanager.port
        ),
        format!("{{type: otlp, name: grpc, url: 'http://127.0.0.1:{}'}}", collector.grpc),
        format!("{{type: otlp, name: http, protocol: http, url: 'http://127.0.0.1:{}'}}", collector.http),
        format!(
            "{{type: otlp, name: grpcs, url: 'https://localhost:{}', tls: {{ca: {ca}}}}}",
            place.nginx.grpc
        ),
        format!("{{type: falcosidekick, url: 'http://127.0.0.1:{plain}/falco'}}"),
    ];
    let Running { daemon, _rules } = start(settings, dir, &outputs)?;
    let pid = alerts(settings, &daemon, ALERTS)?;
    let expected = on_stdout(&daemon, pid);
    let wanted = u64::from(ALERTS);
    // Stands once in the text of each of them.
    let text = format!(" vpid={pid} tid=");
    let nginx = &place.nginx;
    for by in ["unix", "tcp", "tls"] {
        await_count(by, wanted, || Ok(rsyslog.messages(by, &text).len() as u64))?;
    }
    let of_pid = format!("RINGFENCE_PROC_VPID={pid}");
    await_count("journald", wanted, || Ok(journald.entries(&[&of_pid])?.len() as u64))?;
    let at = |path: &str| {
        let requests = nginx.requests("plain", &format!("POST\t/{path}")).into_iter();
        requests.filter(|line| line.contains(&text)).collect::<Vec<_>>()
    };
    for path in ["hook", "slack/s3cret", "falco"] {
        await_count(path, wanted, || Ok(at(path).len() as u64))?;
    }
    await_count("a template of one's own", wanted, || {
        Ok(nginx.requests("plain", "PUT\t/own").iter().filter(|line| line.contains(&text)).count() as u64)
    })?;
    await_count("TLS with certificates on both sides", wanted, || Ok(nginx.noted("mutual", &text)))?;
    // By three ways.
    await_count("the collector", 3 * wanted, || {
        Ok(collector.printed().lines().filter(|line| line.contains(&text)).count() as u64)
    })?;
    syslog(&rsyslog, &text, &expected)?;
    journal(&journald.entries(&[&of_pid])?, &expected)?;
    let bodies = |path: &str| -> Result<Vec<Value>, String> {
        at(path).iter().map(|line| parse(line.rsplit('\t').next().unwrap_or_default())).collect()
    };
    same("the webhook", &bodies("hook")?, &expected)?;
    falco(&bodies("falco")?)?;
    for line in nginx.requests("mutual", "POST") {
        if !line.starts_with(&format!("POST\t/hook\tBearer {TOKEN}\tlab\tSUCCESS\t[{{")) {
            return Err(format!("with a token, a header and a certificate came {line:.200}"));
        }
    }
    let filled = nginx.requests("plain", "PUT\t/own").into_iter().find(|line| line.contains(&text));
    let filled = parse(filled.as_deref().and_then(|line| line.rsplit('\t').next()).unwrap_or_default())?;
    if filled["pid"] != pid || filled["all"] != serde_json::json!([["suite"]]) {
        return Err(format!("the template was filled in as {filled}"));
    }
    in_alertmanager(&alertmanager, &text)?;
    let printed = collector.printed();
    for part in
        ["service.name", "ringfence", "host.name", "process.pid", "security_rule.name", "Suite unshare"]
    {
        if !printed.contains(part) {
            return Err(format!("the collector does not have `{part}`"));
        }
    }
    settled(&daemon)?;
    let ended = daemon.stop()?;
    for secret in [TOKEN, "s3cret"] {
        if ended.log.contains(secret) {
            return Err(format!("`{secret}` stands in the log:\n{}", ended.log));
        }
    }
    ended.check()
}

/// Every output took as much as standard output, without a single failed attempt, and nothing waits.
fn settled(daemon: &Daemon) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = daemon.metrics()?;
        let one = |output: &str, name: &str, more: &[(&str, &str)]| {
            let labels = [&[("output", output)], more].concat();
            metrics.sum(&format!("ringfence_output_{name}"), &labels).ok_or(format!("no {name} of {output}"))
        };
        let written = |output: &str| one(output, "records_total", &[("result", "written")]);
        // Others of this machine may cause alerts meanwhile.
        let (all, mut waiting) = (written("stdout")?, false);
        for output in OUTPUTS {
            let (errors, dropped) = (one(output, "errors_total", &[])?, one(output, "dropped_total", &[])?);
            if errors != 0.0 || dropped != 0.0 {
                let shown = metrics.lines("ringfence_output_");
                return Err(format!(
                    "{output}: {errors} errors, {dropped} dropped\n{shown}\n{}",
                    daemon.log()
                ));
            }
            waiting |= written(output)? != all || one(output, "queue_length", &[])? != 0.0;
        }
        if !waiting {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("something waits:\n{}", metrics.lines("ringfence_output_")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn parse(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text:.300}"))
}

/// The same alerts, byte by byte, whatever their order.
fn same(what: &str, found: &[Value], expected: &[Value]) -> Result<(), String> {
    let set = |alerts: &[Value]| alerts.iter().map(Value::to_string).collect::<BTreeSet<_>>();
    match set(found) == set(expected) {
        true => Ok(()),
        false => Err(format!("{what} has {:?}\ninstead of {:?}", found.first(), expected.first())),
    }
}

fn syslog(rsyslog: &Rsyslog, text: &str, expected: &[Value]) -> Result<(), String> {
    // daemon and local0, debug.
    for (by, pri) in [("unix", "31"), ("tcp", "31"), ("tls", "135")] {
        for message in rsyslog.messages(by, text) {
            let data = "[ringfence@32473 rule=\"Suite unshare\" rule_id=\"suite-unshare\" priority=\"Debug\" container_id=";
            if message.pri != pri
                || message.app != "ringfence"
                || message.id != "suite-unshare"
                || !message.data.starts_with(data)
            {
                return Err(format!("{by}: {message:?}"));
            }
        }
    }
    for by in ["tcp", "tls"] {
        let lines: Result<Vec<_>, _> =
            rsyslog.messages(by, text).iter().map(|message| parse(&message.text)).collect();
        same(by, &lines?, expected)?;
    }
    let plain = |alert: &Value| alert["output"].as_str().unwrap_or_default().to_owned();
    let said: BTreeSet<String> =
        rsyslog.messages("unix", text).into_iter().map(|message| message.text).collect();
    match said == expected.iter().map(plain).collect() {
        true => Ok(()),
        false => Err(format!("unix: {:?}", said.first())),
    }
}

fn journal(entries: &[Value], expected: &[Value]) -> Result<(), String> {
    for entry in entries {
        for (field, value) in [
            ("MESSAGE_ID", "6f0dcb8be5c84ef3a0c1b5d2a3c54f07"),
            ("PRIORITY", "7"),
            ("SYSLOG_IDENTIFIER", "ringfence"),
            ("RINGFENCE_RULE", "Suite unshare"),
            ("RINGFENCE_RULE_ID", "suite-unshare"),
            ("RINGFENCE_TAG", "suite"),
        ] {
            if entry[field] != value {
                return Err(format!("{field} is {} in {entry}", entry[field]));
            }
        }
    }
    let alerts: Result<Vec<_>, _> =
        entries.iter().map(|entry| parse(entry["RINGFENCE_ALERT"].as_str().unwrap_or_default())).collect();
    same("the journal", &alerts?, expected)
}

/// As Falco documents its JSON: <https://falco.org/docs/outputs/formatting/>.
fn falco(bodies: &[Value]) -> Result<(), String> {
    const KEYS: [&str; 8] =
        ["hostname", "output", "output_fields", "priority", "rule", "source", "tags", "time"];
    for body in bodies {
        let keys: BTreeSet<&str> =
            body.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        let known = keys.iter().all(|key| KEYS.contains(key) || *key == "uuid");
        if !known || !KEYS.iter().all(|key| keys.contains(key)) || body["priority"] != "Debug" {
            return Err(format!("Falcosidekick would get {body}"));
        }
    }
    Ok(())
}

fn in_alertmanager(alertmanager: &Alertmanager, text: &str) -> Result<(), String> {
    let alerts = alertmanager.alerts()?;
    let named = |alert: &&Value| alert["labels"]["alertname"] == "suite-unshare";
    let Some(alert) = alerts.iter().find(named) else { return Err(format!("Alertmanager has {alerts:?}")) };
    let labels = &alert["labels"];
    let fits = labels["severity"] == "info"
        && labels["priority"] == "Debug"
        && labels["cluster"] == "lab"
        && labels["container"] == "host"
        && alert["status"]["state"] == "active"
        && alert["annotations"]["summary"] == "Suite unshare";
    // Others of this machine may have made the last of these alerts, which all are one to Alertmanager.
    let _ = text;
    if fits { Ok(()) } else { Err(format!("Alertmanager has {alert}")) }
}
