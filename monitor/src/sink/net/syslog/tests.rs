//! Messages against the bytes of RFC 5424, frames against those of RFC 6587, and sockets of this machine.

use std::io::Read as _;
use std::net::TcpListener;

use super::format::{Header, push_element};
use super::*;
use crate::rules::Priority;
use crate::sink::Fate;
use crate::sink::net::testing::{deliver, line};

/// Examples 1, 3 and 4 of RFC 5424, section 6.5, and the second of 6.2.3.1.
#[test]
fn the_examples_of_the_standard() {
    let written = |header: &Header<'_>, rest: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        header.push(&mut out);
        rest(&mut out);
        String::from_utf8(out).unwrap()
    };
    let first = Header {
        facility: 4,
        severity: 2,
        time: "2003-10-11T22:14:15.003Z",
        host: "mymachine.example.com",
        app_name: "su",
        process: "",
        message_id: "ID47",
    };
    assert_eq!(
        written(&first, &|out| {
            out.extend_from_slice(b"- \xef\xbb\xbf");
            out.extend_from_slice(b"'su root' failed for lonvick on /dev/pts/8");
        }),
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for \
         lonvick on /dev/pts/8"
    );
    let third = Header { facility: 20, severity: 5, app_name: "evntslog", ..first };
    let element = |out: &mut Vec<u8>| {
        let values = [("iut", "3"), ("eventSource", "Application"), ("eventID", "1011")]
            .map(|(k, v)| (k, Some(v.into())));
        push_element("exampleSDID@32473", values, out);
    };
    assert_eq!(
        written(&third, &element),
        "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" \
         eventSource=\"Application\" eventID=\"1011\"]"
    );
    let local = Header { time: "2003-08-24T05:14:15.000003-07:00", host: "192.0.2.1", ..third };
    assert!(written(&local, &|_| {}).starts_with("<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 "));
}

#[test]
fn words_are_printable_and_short_and_values_escaped() {
    let long = "x".repeat(300);
    let header = Header {
        facility: 23,
        severity: 7,
        time: "2026-11-23T19:45:46.123456789Z",
        host: &long,
        app_name: "a b\u{e9}",
        process: "\n",
        message_id: &long,
    };
    let mut out = Vec::new();
    header.push(&mut out);
    let expected = format!("<191>1 2026-11-23T19:45:46.123456Z {} ab - {} ", "x".repeat(255), "x".repeat(32));
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    let mut out = Vec::new();
    push_element("a@1", [("k", Some(r#"q" b\ c] é"#.into())), ("none", None)], &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), r#"[a@1 k="q\" b\\ c\] é"]"#);
}

#[test]
fn an_alert_as_a_message() {
    let config = SyslogConfig { message: Message::Text, ..SyslogConfig::default() };
    let formatter = Formatter::new(&config).unwrap();
    let line = line();
    let record = Record { line: line.as_bytes(), priority: Priority::Warning };
    let mut out = Vec::new();
    formatter.push(&record, &mut out).unwrap();
    let head = format!(
        "<28>1 2026-11-23T19:45:46.123456Z node-1 ringfence {} userns-in-container [ringfence@32473 \
         rule=\"User namespace made in a container\" rule_id=\"userns-in-container\" priority=\"Warning\" \
         container_id=\"3f1c0a9b7e21\" container_name=\"shop \\\"front\\\"\\]\" pod=\"shop-7d9c\" \
         namespace=\"web\" verdict=\"allowed\"] ",
        std::process::id()
    );
    let said = "Namespace made by \"ev]il\\\\ <!channel> & co\" é (pid 4711)";
    assert_eq!(String::from_utf8(out).unwrap(), format!("{head}{said}"));
    let config = SyslogConfig { bom: true, ..SyslogConfig::default() };
    let mut out = Vec::new();
    Formatter::new(&config).unwrap().push(&record, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), format!("{head}\u{feff}{line}"));
}

#[test]
fn a_summary_has_its_count() {
    let config = SyslogConfig { message: Message::Text, ..SyslogConfig::default() };
    let line = crate::sink::net::testing::summary();
    let record = Record { line: line.as_bytes(), priority: Priority::Warning };
    let mut out = Vec::new();
    Formatter::new(&config).unwrap().push(&record, &mut out).unwrap();
    let message = String::from_utf8(out).unwrap();
    let (first, last) = ("2026-11-23T19:45:46.123456789Z", "2026-11-23T19:46:40.000000000Z");
    let data = format!(" verdict=\"allowed\" count=\"12\" first=\"{first}\" last=\"{last}\"] ");
    assert!(message.contains(&data), "{message}");
    assert!(message.ends_with(&format!(" (for 12 alike, from {first} to {last})")), "{message}");
}

/// RFC 6587, section 3.4.1.
#[test]
fn frames_count_octets() {
    let mut frames = Vec::new();
    push_frame("é".as_bytes(), &mut frames);
    push_frame(b"<34>1 x", &mut frames);
    assert_eq!(frames, "2 é7 <34>1 x".as_bytes());
}

#[test]
fn addresses() {
    for (text, address) in [
        ("unix:/dev/log", Address::Unix("/dev/log".into())),
        ("unix:///run/log", Address::Unix("/run/log".into())),
        ("tcp://log.example:514", Address::Tcp("log.example".into(), 514)),
        ("tcp://log.example", Address::Tcp("log.example".into(), 601)),
        ("tls://[::1]", Address::Tls("::1".into(), 6514)),
    ] {
        assert_eq!(text.parse(), Ok(address), "{text}");
    }
    for text in ["", "/dev/log", "unix:log", "udp://host:514", "tcp://", "tls://user@host", "tcp://host:"] {
        assert!(text.parse::<Address>().unwrap_err().contains("6514"), "{text}");
    }
}

#[test]
fn settings_that_do_not_fit() {
    let config = SyslogConfig::default;
    for (config, said) in [
        (SyslogConfig { app_name: "ring fence".into(), ..config() }, "app_name"),
        (SyslogConfig { sd_id: "ringfence".into(), ..config() }, "sd_id"),
        (SyslogConfig { timeout_ms: 1, ..config() }, "timeout_ms"),
        (
            SyslogConfig { tls: TlsConfig { ca: Some("/x".into()), ..TlsConfig::default() }, ..config() },
            "tls",
        ),
    ] {
        let error = Syslog::new(&config).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{said}`")), "{error}");
    }
}

fn to(address: &str) -> Syslog {
    let config =
        SyslogConfig { address: address.parse().unwrap(), timeout_ms: 500, ..SyslogConfig::default() };
    Syslog::new(&config).unwrap()
}

#[test]
fn a_local_daemon_that_comes_goes_and_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut sink = to(&format!("unix:{}", path.display()));
    let outcome = deliver(&mut sink, Priority::Error, &[line()]).unwrap_err();
    assert_eq!((outcome.taken, outcome.fate), (0, Fate::Retry { after: None }), "{}", outcome.cause);
    for _ in 0..2 {
        let daemon = UnixDatagram::bind(&path).unwrap();
        deliver(&mut sink, Priority::Error, &[line(), line()]).unwrap();
        for _ in 0..2 {
            let mut message = [0; 8192];
            let len = daemon.recv(&mut message).unwrap();
            let text = std::str::from_utf8(&message[..len]).unwrap();
            assert!(
                text.starts_with("<27>1 2026-11-23T19:45:46.123456Z node-1 ringfence ")
                    && text.ends_with(&line())
            );
        }
        // It starts again at the same place.
        std::fs::remove_file(&path).unwrap();
    }
    let hung = UnixDatagram::bind(&path).unwrap();
    let many = vec![line(); 2000];
    let outcome = deliver(&mut sink, Priority::Error, &many).unwrap_err();
    assert!(outcome.taken > 0 && outcome.cause.contains("nobody reads"), "{outcome:?}");
    drop(hung);
}

#[test]
fn a_message_that_no_datagram_holds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let _daemon = UnixDatagram::bind(&path).unwrap();
    let long = line().replace("unshare", &"u".repeat(4 << 20));
    let outcome = deliver(&mut to(&format!("unix:{}", path.display())), Priority::Error, &[line(), long]);
    let outcome = outcome.unwrap_err();
    assert_eq!((outcome.taken, outcome.fate), (1, Fate::Refused), "{}", outcome.cause);
}

#[test]
fn a_connection_is_kept_and_made_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sink = to(&format!("tcp://{}", listener.local_addr().unwrap()));
    for _ in 0..2 {
        let server = std::thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let (mut peer, _) = listener.accept().unwrap();
                let mut text = String::new();
                let mut chunk = [0; 4096];
                while text.matches(&line()).count() < 3 {
                    let len = peer.read(&mut chunk).unwrap();
                    assert!(len > 0, "a new connection for each batch");
                    text.push_str(std::str::from_utf8(&chunk[..len]).unwrap());
                }
                text
            }
        });
        deliver(&mut sink, Priority::Error, &[line()]).unwrap();
        deliver(&mut sink, Priority::Error, &[line(), line()]).unwrap();
        let text = server.join().unwrap();
        let len: usize = text.split(' ').next().unwrap().parse().unwrap();
        assert!(text.as_bytes()[len + len.to_string().len() + 1].is_ascii_digit(), "{text}");
    }
    drop(listener);
    let outcome = deliver(&mut sink, Priority::Error, &[line()]).unwrap_err();
    assert!(outcome.cause.contains("refused"), "{outcome:?}");
}

/// As a server of TLS 1.3 does it that does not know our certificate: it says so after the handshake, which is over for us.
#[test]
fn a_fresh_connection_must_stay_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let run = |after: Duration, read: bool| {
        let server = std::thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let (mut peer, _) = listener.accept().unwrap();
                if read {
                    let mut chunk = [0; 64];
                    let _ = peer.read(&mut chunk).unwrap();
                }
                std::thread::sleep(after);
            }
        });
        let outcome = runtime().unwrap().block_on(async {
            let host = address.ip().to_string();
            let mut stream = Stream::open(&host, address.port(), None, Duration::from_secs(5)).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stays_open(&mut stream, Duration::from_millis(300)).await
        });
        server.join().unwrap();
        outcome.is_ok()
    };
    // In good order, by a reset, and not at all.
    assert!(!run(Duration::from_millis(50), true));
    assert!(!run(Duration::from_millis(50), false));
    assert!(run(Duration::from_millis(900), true));
}

#[test]
fn a_connection_that_broke_between_two_batches_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sink = to(&format!("tcp://{}", listener.local_addr().unwrap()));
    deliver(&mut sink, Priority::Error, &[line()]).unwrap();
    let (peer, _) = listener.accept().unwrap();
    // What is left unread makes the kernel reset it.
    drop(peer);
    let outcome = deliver(&mut sink, Priority::Error, &[line()]).unwrap_err();
    assert_eq!((outcome.taken, outcome.fate), (0, Fate::Retry { after: None }));
    assert!(outcome.cause.contains("may be lost"), "{outcome:?}");
    deliver(&mut sink, Priority::Error, &[line()]).unwrap();
}

#[test]
fn a_peer_that_does_not_read_costs_the_time_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sink = to(&format!("tcp://{}", listener.local_addr().unwrap()));
    let many = vec![line(); 5000];
    let started = Instant::now();
    let outcome = deliver(&mut sink, Priority::Error, &many).unwrap_err();
    assert_eq!(outcome.taken, 0);
    assert!(outcome.cause.contains("too slowly"), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
}
