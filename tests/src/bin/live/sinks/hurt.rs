//! One kind of output after the other, hurt in every way at once: what the others get, and what is counted.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

use tests::harness::http::Metrics;
use tests::harness::{Daemon, PATIENCE, Settings};
use tests::servers::{Alertmanager, HeldPort, Rsyslog, Server, await_count, free_port, listens, program};

use super::{Place, Running, alerts, start};

/// More than a queue of the smallest size holds.
const ALERTS: u32 = 300;

/// Queues: one that is soon full, and one with room for all alerts, for an output that is to lose none.
const SMALL: &str = "queue_bytes: 65536";
const AMPLE: &str = "queue_bytes: 8388608";

/// What an output waits that names no time limit of its own.
const LIMIT: &str = ", timeout_ms: 500";

/// What becomes of alerts at an output.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// They wait; what finds no room is dropped.
    Wait,
    /// Some are taken, in the peer's time.
    Some,
    /// The peer refuses them.
    Refused,
    /// All are taken in spite of it.
    Taken,
}

/// Runs a daemon with these outputs and one that is well, and holds each to its fate.
fn hurt(settings: &Settings, place: &Place, outputs: &[(&str, String, Fate)]) -> Result<(), String> {
    let file = place.dir.path().join("alerts.jsonl");
    let mut lines = vec![
        format!(
            "{{type: webhook, name: well, batch: 100, url: 'http://127.0.0.1:{}/well'}}",
            place.nginx.plain
        ),
        format!("{{type: file, path: {}}}", file.display()),
    ];
    for (name, output, fate) in outputs {
        let rest = output.strip_suffix('}').unwrap_or(output);
        let limit = if output.contains("timeout_ms") { "" } else { LIMIT };
        let queue = if *fate == Fate::Taken { AMPLE } else { SMALL };
        lines.push(format!("{rest}, name: {name}, {queue}{limit}}}"));
    }
    let Running { daemon, _rules } = start(settings, place.dir.path(), &lines)?;
    let pid = alerts(settings, &daemon, ALERTS)?;
    let text = format!(" vpid={pid} tid=");
    await_count("the output that is well", ALERTS.into(), || Ok(place.nginx.noted("plain", &text)))?;
    await_count("the file", ALERTS.into(), || Ok(tests::servers::occurrences(&file, &text)))?;
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = daemon.metrics()?;
        let faults: Vec<String> =
            outputs.iter().filter_map(|(name, _, fate)| held(&metrics, name, *fate).err()).collect();
        if faults.is_empty() {
            break;
        }
        if Instant::now() > end {
            let shown = metrics.lines("ringfence_output_");
            return Err(format!("{}\n{shown}\n{}", faults.join("\n"), daemon.log()));
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    ended(daemon)
}

/// An output that hangs must not hold the end back beyond what is granted to all, nor hurt the exit status.
fn ended(daemon: Daemon) -> Result<(), String> {
    let started = Instant::now();
    daemon.stop()?.check()?;
    match started.elapsed().as_secs() {
        0..=20 => Ok(()),
        seconds => Err(format!("the end took {seconds} s")),
    }
}

fn held(metrics: &Metrics, output: &str, fate: Fate) -> Result<(), String> {
    let one = |name: &str, more: &[(&str, &str)]| {
        let labels = [&[("output", output)], more].concat();
        metrics.sum(&format!("ringfence_output_{name}"), &labels).ok_or(format!("no {name} of {output}"))
    };
    let written = one("records_total", &[("result", "written")])?;
    let dropped = one("records_total", &[("result", "dropped")])?;
    let rejected = one("dropped_total", &[("reason", "rejected")])?;
    let full = one("dropped_total", &[("reason", "queue_full")])?;
    let waiting = one("queue_length", &[])?;
    let errors = one("errors_total", &[])?;
    let all = metrics.sum("ringfence_output_records_total", &[("output", "stdout"), ("result", "written")]);
    let fits = match fate {
        Fate::Wait => written == 0.0 && errors > 0.0 && waiting > 0.0 && rejected == 0.0 && dropped > 0.0,
        Fate::Some => written > 0.0 && rejected == 0.0,
        Fate::Refused => written == 0.0 && rejected > 0.0 && waiting == 0.0,
        Fate::Taken => waiting == 0.0 && rejected == 0.0 && written > 0.0,
    };
    // What of a batch was taken is written, and waits with the rest of it until that is taken, too.
    let known = all.is_some_and(|all| written + dropped <= all && all <= written + dropped + waiting);
    match fits && known {
        true => Ok(()),
        false => Err(format!(
            "{output}: written {written}, dropped {dropped} (rejected {rejected}, no room {full}), waiting {waiting}, \
             errors {errors}; standard output has {all:?}"
        )),
    }
}

/// A port that takes connections and never says anything.
fn silent() -> Result<(TcpListener, u16), String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    Ok((listener, port))
}

pub(super) fn syslog(settings: &Settings) -> Result<(), String> {
    let place = Place::new()?;
    let rsyslog = Rsyslog::start(place.dir.path(), &place.pki)?;
    let path = |name: &str| place.dir.path().join(name).display().to_string();
    let _hung = UnixDatagram::bind(path("hung")).map_err(|error| error.to_string())?;
    let (_held, silent) = silent()?;
    let held = HeldPort::take()?;
    let (tcp, tls, closed) = (rsyslog.tcp, rsyslog.tls, held.port()?);
    let (strict, strict_port) = strict(&place)?;
    let [other, key] = ["other.pem", "other.key"].map(|name| place.pki.file(name));
    let (stranger, ca) = (place.pki.file("stranger.pem"), place.pki.file("ca.pem"));
    hurt(
        settings,
        &place,
        &[
            ("hung", format!("{{type: syslog, address: 'unix:{}'}}", path("hung")), Fate::Some),
            ("gone", format!("{{type: syslog, address: 'unix:{}'}}", path("nobody")), Fate::Wait),
            ("closed", format!("{{type: syslog, address: 'tcp://127.0.0.1:{closed}'}}"), Fate::Wait),
            (
                "no-hands",
                format!("{{type: syslog, address: 'tls://localhost:{silent}', tls: {{ca: {ca}}}}}"),
                Fate::Wait,
            ),
            (
                "no-tls",
                format!("{{type: syslog, address: 'tls://localhost:{tcp}', tls: {{ca: {ca}}}}}"),
                Fate::Wait,
            ),
            (
                "stranger",
                format!("{{type: syslog, address: 'tls://localhost:{tls}', tls: {{ca: {stranger}}}}}"),
                Fate::Wait,
            ),
            (
                "not-the-name",
                format!(
                    "{{type: syslog, address: 'tls://localhost:{tls}', tls: {{ca: {ca}, server_name: other.example}}}}"
                ),
                Fate::Wait,
            ),
            // With TLS 1.3 they say so when the handshake is over for us, and take what we send until then.
            (
                "unknown",
                format!(
                    "{{type: syslog, address: 'tls://localhost:{tls}', tls: {{ca: {ca}, cert: {other}, key: {key}}}}}"
                ),
                Fate::Wait,
            ),
            (
                "unknown-strict",
                format!(
                    "{{type: syslog, address: 'tls://localhost:{strict_port}', \
                     tls: {{ca: {ca}, cert: {other}, key: {key}}}}}"
                ),
                Fate::Wait,
            ),
            (
                "nobody",
                format!("{{type: syslog, address: 'tls://localhost:{strict_port}', tls: {{ca: {ca}}}}}"),
                Fate::Wait,
            ),
        ],
    )?;
    drop(strict);
    Ok(())
}

/// A server of TLS 1.3 that wants a certificate of the authority, and reads whatever it is sent.
fn strict(place: &Place) -> Result<(Server, u16), String> {
    let port = free_port()?;
    let mut command = Command::new(program("openssl")?);
    command.args(["s_server", "-quiet", "-www", "-tls1_3", "-Verify", "1", "-verify_return_error"]);
    command.args(["-accept", &format!("127.0.0.1:{port}"), "-CAfile", &place.pki.file("ca.pem")]);
    command.args(["-cert", &place.pki.file("leaf.pem"), "-key", &place.pki.file("leaf.key")]);
    let mut server = Server::start(command, &place.dir.path().join("s_server.log"))?;
    server.await_ready(|| listens(port))?;
    Ok((server, port))
}

pub(super) fn journald(settings: &Settings) -> Result<(), String> {
    let place = Place::new()?;
    let path = |name: &str| place.dir.path().join(name).display().to_string();
    let _hung = UnixDatagram::bind(path("hung")).map_err(|error| error.to_string())?;
    std::fs::write(path("file"), "").map_err(|error| error.to_string())?;
    hurt(
        settings,
        &place,
        &[
            ("hung", format!("{{type: journald, socket: {}}}", path("hung")), Fate::Some),
            ("gone", format!("{{type: journald, socket: {}}}", path("nobody")), Fate::Wait),
            ("no-socket", format!("{{type: journald, socket: {}}}", path("file")), Fate::Wait),
        ],
    )
}

/// What hurts everything over HTTP: `type` and what else it needs, and how it names its address.
fn over_http(
    place: &Place,
    [silent, closed]: [u16; 2],
    kind: &str,
    address: &dyn Fn(&str) -> String,
) -> Result<Vec<(&'static str, String, Fate)>, String> {
    let (plain, mutual) = (place.nginx.plain, place.nginx.mutual);
    let (stranger, ca) = (place.pki.file("stranger.pem"), place.pki.file("ca.pem"));
    let output = |url: String, more: &str| format!("{{type: {kind}, {}{more}}}", address(&url));
    let tls = |ca: &str| format!(", tls: {{ca: {ca}}}");
    Ok(vec![
        ("hung", output(format!("http://127.0.0.1:{silent}"), ""), Fate::Wait),
        ("no-hands", output(format!("https://localhost:{silent}"), &tls(&ca)), Fate::Wait),
        ("closed", output(format!("http://127.0.0.1:{closed}"), ""), Fate::Wait),
        ("broken", output(format!("http://127.0.0.1:{plain}/broken"), ""), Fate::Wait),
        ("moved", output(format!("http://127.0.0.1:{plain}/moved"), ""), Fate::Wait),
        ("refused", output(format!("http://127.0.0.1:{plain}/refused"), ""), Fate::Refused),
        ("no-tls", output(format!("https://localhost:{plain}"), &tls(&ca)), Fate::Wait),
        ("stranger", output(format!("https://localhost:{mutual}"), &tls(&stranger)), Fate::Wait),
        // nginx answers 400 to who shows no certificate.
        ("unknown", output(format!("https://localhost:{mutual}"), &tls(&ca)), Fate::Refused),
        ("slow", output(format!("http://127.0.0.1:{plain}/slow"), ""), Fate::Some),
    ])
}

pub(super) fn webhook(settings: &Settings) -> Result<(), String> {
    let (place, (_held, silent), held) = (Place::new()?, silent()?, HeldPort::take()?);
    let outputs = over_http(&place, [silent, held.port()?], "webhook", &|url| format!("url: '{url}'"))?;
    hurt(settings, &place, &outputs)
}

pub(super) fn falcosidekick(settings: &Settings) -> Result<(), String> {
    let (place, (_held, silent), held) = (Place::new()?, silent()?, HeldPort::take()?);
    let outputs = over_http(&place, [silent, held.port()?], "falcosidekick", &|url| format!("url: '{url}'"))?;
    hurt(settings, &place, &outputs)
}

pub(super) fn alertmanager(settings: &Settings) -> Result<(), String> {
    let (place, (_held, silent)) = (Place::new()?, silent()?);
    let held = HeldPort::take()?;
    let ports = [silent, held.port()?];
    let mut outputs = over_http(&place, ports, "alertmanager", &|url| format!("urls: ['{url}']"))?;
    // Of a cluster one that lives is enough.
    let alertmanager = Alertmanager::start(place.dir.path(), "alertmanager")?;
    let urls = [silent, alertmanager.port].map(|port| format!("'http://127.0.0.1:{port}'")).join(", ");
    // It waits for the silent one for a moment, whatever the limit is, and then leaves it alone for a growing while.
    outputs.push((
        "cluster",
        format!("{{type: alertmanager, urls: [{urls}], timeout_ms: 300000}}"),
        Fate::Taken,
    ));
    hurt(settings, &place, &outputs)
}

pub(super) fn otlp(settings: &Settings) -> Result<(), String> {
    let (place, (_held, silent)) = (Place::new()?, silent()?);
    let held = HeldPort::take()?;
    let closed = held.port()?;
    let address = |url: &str| format!("url: '{url}'");
    let mut outputs = over_http(&place, [silent, closed], "otlp, protocol: http", &address)?;
    // Of 5xx, OTLP has but 502, 503 and 504 sent again.
    for (_, _, fate) in outputs.iter_mut().filter(|(name, ..)| *name == "broken") {
        *fate = Fate::Refused;
    }
    let (plain, grpc) = (place.nginx.plain, place.nginx.grpc);
    let stranger = place.pki.file("stranger.pem");
    for (name, url, more, fate) in [
        ("grpc-hung", format!("http://127.0.0.1:{silent}"), String::new(), Fate::Wait),
        ("grpc-closed", format!("http://127.0.0.1:{closed}"), String::new(), Fate::Wait),
        ("grpc-no-grpc", format!("http://127.0.0.1:{plain}"), String::new(), Fate::Wait),
        (
            "grpc-stranger",
            format!("https://localhost:{grpc}"),
            format!(", tls: {{ca: {stranger}}}"),
            Fate::Wait,
        ),
        ("grpc-well", format!("http://127.0.0.1:{}", place.collector.grpc), String::new(), Fate::Taken),
    ] {
        // Sixteen outputs are the limit; what HTTP shows with one of these it need not show twice.
        outputs.retain(|(known, ..)| !["moved", "no-tls"].contains(known));
        outputs.push((name, format!("{{type: otlp, url: '{url}'{more}}}"), fate));
    }
    hurt(settings, &place, &outputs)
}
