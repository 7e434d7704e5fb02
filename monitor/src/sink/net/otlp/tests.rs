//! Records by the conventions, bytes by the wire format of protobuf, and what a receiver's answers lead to.

use super::proto::{Any, ExportLogsPartialSuccess, KeyValue, LogRecord};
use super::*;
use crate::rules::Priority;
use crate::sink::net::testing::{Server, answer, deliver, line};

fn found<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    attributes.iter().find(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()
}

fn text(text: &str) -> Option<Any> {
    Some(Any::Text(text.to_owned()))
}

#[test]
fn records_by_the_conventions() {
    let line = line();
    let host = line.replace("3f1c0a9b7e21", "host");
    let items: Vec<Item> = [&line, &host, &line]
        .iter()
        .map(|line| Item::read(&Record { line: line.as_bytes(), priority: Priority::Warning }, None).unwrap())
        .collect();
    let mut config = OtlpConfig::default();
    config.resource.insert("deployment.environment.name".to_owned(), "lab".to_owned());
    let request = request(&config, &items);
    let [container, host] = &request.resource_logs[..] else { panic!("{request:?}") };
    let resource = &container.resource.as_ref().unwrap().attributes;
    for (key, value) in [
        ("service.name", "ringfence"),
        ("host.name", "node-1"),
        ("container.id", "3f1c0a9b7e2146f0b0a7d3f1c0a9b7e2146f0b0a7d3f1c0a9b7e2146f0b0a7d3"),
        ("container.name", "shop \"front\"]"),
        ("container.image.name", "docker.io/library/nginx"),
        ("container.runtime.name", "containerd"),
        ("k8s.pod.name", "shop-7d9c"),
        ("k8s.namespace.name", "web"),
        ("deployment.environment.name", "lab"),
    ] {
        assert_eq!(found(resource, key).cloned(), text(value), "{key}");
    }
    let Some(Any::Array(tags)) = found(resource, "container.image.tags") else { panic!("{resource:?}") };
    assert_eq!(tags.values[0].value, text("1.27"));
    assert_eq!(container.scope_logs[0].log_records.len(), 2);
    let record = &container.scope_logs[0].log_records[0];
    assert_eq!(record.time_unix_nano, 1_795_463_146_123_456_789);
    assert!(record.observed_time_unix_nano > 1_700_000_000_000_000_000);
    assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "Warning"));
    assert_eq!(record.event_name, "ringfence.alert");
    let body = record.body.as_ref().unwrap().value.clone();
    assert_eq!(body, text("Namespace made by \"ev]il\\\\ <!channel> & co\" é (pid 4711)"));
    assert_eq!(found(&record.attributes, "process.pid"), Some(&Any::Int(4711)));
    assert_eq!(found(&record.attributes, "ringfence.evt.failed"), Some(&Any::Bool(false)));
    assert_eq!(found(&record.attributes, "security_rule.uuid").cloned(), text("userns-in-container"));
    assert_eq!(found(&record.attributes, "user.id").cloned(), text("1000"));
    assert_eq!(found(&record.attributes, "ringfence.container.name"), None);
    assert_eq!(found(&record.attributes, "ringfence.evt.refused_by"), None);
    let record = &host.scope_logs[0].log_records[0];
    assert_eq!(found(&host.resource.as_ref().unwrap().attributes, "container.id"), None);
    assert_eq!(found(&record.attributes, "ringfence.container.id").cloned(), text("host"));
    let record = Record { line: line.as_bytes(), priority: Priority::Warning };
    let items = [Item::read(&record, Some(Shaper::default())).unwrap()];
    let request = super::request(&config, &items);
    let body = request.resource_logs[0].scope_logs[0].log_records[0].body.clone();
    assert_eq!(body.unwrap().value, text(&line));
}

/// By hand after the encoding's description: key = number * 8 + wire type.
#[test]
fn bytes_of_a_record() {
    let record = LogRecord {
        time_unix_nano: 1,
        severity_number: 13,
        severity_text: "W".into(),
        body: Some(proto::AnyValue { value: text("b") }),
        attributes: vec![KeyValue {
            key: "k".into(),
            value: Some(proto::AnyValue { value: Some(Any::Int(-1)) }),
        }],
        observed_time_unix_nano: 2,
        event_name: "e".into(),
    };
    let expected: &[u8] = &[
        0x09, 1, 0, 0, 0, 0, 0, 0, 0, // 1: fixed64
        0x10, 13, // 2: varint
        0x1a, 1, b'W', // 3: text
        0x2a, 3, 0x0a, 1, b'b', // 5: AnyValue with 1: text
        0x32, 16, 0x0a, 1, b'k', 0x12, 11, 0x18, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        1, // 6: KeyValue
        0x59, 2, 0, 0, 0, 0, 0, 0, 0, // 11: fixed64
        0x62, 1, b'e', // 12: text
    ];
    assert_eq!(record.encode_to_vec(), expected);
    assert_eq!(frame(b"xyz"), b"\0\0\0\0\x03xyz");
}

fn over_http(server: &Server) -> Otlp {
    let url = Some(server.url("").parse().unwrap());
    Otlp::new(&OtlpConfig { url, protocol: OtlpProtocol::Http, ..OtlpConfig::default() }).unwrap()
}

#[test]
fn what_was_rejected_is_told_once_each() {
    let partial = ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: 2,
            error_message: "too old".to_owned(),
        }),
    };
    let partial = String::from_utf8(partial.encode_to_vec()).unwrap();
    let server = Server::new(&[&answer("200 OK", "", &partial), &answer("200 OK", "", "")]);
    let mut sink = over_http(&server);
    let all = [line(), line(), line()];
    let fault = deliver(&mut sink, Priority::Error, &all).unwrap_err();
    assert_eq!((fault.taken, fault.fate), (1, Fate::Refused));
    assert!(fault.cause.ends_with("rejected 2 of 3: too old"), "{}", fault.cause);
    let fault = deliver(&mut sink, Priority::Error, &all[2..]).unwrap_err();
    assert_eq!((fault.taken, fault.fate), (0, Fate::Refused));
    deliver(&mut sink, Priority::Error, &all[..1]).unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].starts_with("POST /v1/logs HTTP/1.1\r\n"));
    assert!(requests[0].contains("content-type: application/x-protobuf\r\n"));
}

#[test]
fn what_passes_by_otlp() {
    // The receiver asks for 2.5 s: Status { code 8, details: [RetryInfo { retry_delay: 2 s, 500,000,000 ns }] }.
    let info = proto::RetryInfo { retry_delay: Some(proto::Delay { seconds: 2, nanos: 500_000_000 }) };
    let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
    let details = proto::Status { details: vec![proto::Detail { type_url, value: info.encode_to_vec() }] };
    use base64::Engine as _;
    let details = base64::engine::general_purpose::STANDARD.encode(details.encode_to_vec());
    assert_eq!(retry_delay(&details), Some(Duration::from_millis(2500)));
    assert_eq!(retry_delay(details.trim_end_matches('=')), Some(Duration::from_millis(2500)));
    assert_eq!(retry_delay("CAg"), None);
    let config = OtlpConfig { url: Some("http://127.0.0.1:1".parse().unwrap()), ..OtlpConfig::default() };
    let peer = Otlp::new(&config).unwrap().peer;
    let answered = |http: u16, grpc: Option<(&str, &str)>| {
        let mut headers = HeaderMap::new();
        if let Some((status, details)) = grpc {
            headers.insert("grpc-status", status.parse().unwrap());
            if !details.is_empty() {
                headers.insert("grpc-status-details-bin", details.parse().unwrap());
            }
        }
        let status = http::StatusCode::from_u16(http).unwrap();
        let answer = Answer { status, headers, trailers: None, body: Vec::new() };
        let verdict = match grpc {
            Some(_) => grpc_verdict(&peer, &answer),
            None => http_verdict(&peer, Ok(&answer), false),
        };
        match verdict {
            Verdict::Taken => "taken",
            Verdict::Never { .. } => "never",
            Verdict::Later { after: Some(_), .. } => "when it says",
            Verdict::Later { .. } => "later",
            Verdict::Unclear { .. } => "unclear",
        }
    };
    for (status, meaning) in [
        (200, "taken"),
        (400, "never"),
        (401, "later"),
        (404, "unclear"),
        (429, "later"),
        (500, "never"),
        (501, "never"),
        (502, "unclear"),
        (503, "unclear"),
        (504, "unclear"),
        (505, "never"),
    ] {
        assert_eq!(answered(status, None), meaning, "{status}");
    }
    for (status, meaning) in [
        ("0", "taken"),
        ("1", "unclear"),
        ("2", "never"),
        ("3", "never"),
        ("4", "unclear"),
        ("5", "never"),
        ("6", "never"),
        ("7", "unclear"),
        ("8", "never"),
        ("9", "never"),
        ("10", "unclear"),
        ("11", "unclear"),
        ("12", "unclear"),
        ("13", "never"),
        ("14", "later"),
        ("15", "unclear"),
        ("16", "later"),
    ] {
        assert_eq!(answered(200, Some((status, ""))), meaning, "{status}");
    }
    assert_eq!(answered(200, Some(("8", &details))), "when it says");
}

#[test]
fn settings_that_do_not_fit() {
    for (yaml, said) in [("{}", "`url`"), ("{url: 'http://127.0.0.1:4317/v1/logs'}", "gRPC has no path")] {
        let config: OtlpConfig = serde_saphyr::from_str(yaml).unwrap();
        let error = Otlp::new(&config).map(drop).unwrap_err().to_string();
        assert!(error.contains(said), "{yaml}: {error}");
    }
}
