//! Requests as a server sees them, and what its answers lead to.

use std::time::{Duration, Instant};

use super::*;
use crate::rules::Priority;
use crate::sink::Fate;
use crate::sink::net::HeaderSource;
use crate::sink::net::testing::{Server, answer, deliver, line};

fn hook(server: &Server, more: impl FnOnce(&mut WebhookConfig)) -> Webhook {
    let url = Some(server.url("/hook/s3cr3t?a=1").parse().unwrap());
    let mut config = WebhookConfig { url, timeout_ms: 500, ..WebhookConfig::default() };
    more(&mut config);
    Webhook::new(&config).unwrap()
}

#[test]
fn one_by_one_over_one_connection() {
    let ok = answer("200 OK", "", "ok");
    let server = Server::new(&[&ok, &answer("204 No Content", "Connection: close\r\n", ""), &ok]);
    let mut hook = hook(&server, |_| ());
    deliver(&mut hook, Priority::Error, &[line(), line()]).unwrap();
    // The server has closed it meanwhile.
    deliver(&mut hook, Priority::Error, &[line()]).unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert!(request.starts_with("POST /hook/s3cr3t?a=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\ncontent-type: application/json\r\n"), "{request}");
        assert!(request.ends_with(&format!("\r\n\r\n{}", line())), "{request}");
    }
}

#[test]
fn together_with_headers_and_a_token_that_changes() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let ok = answer("200 OK", "", "");
    let server = Server::new(&[&ok, &ok]);
    let mut hook = hook(&server, |config| {
        config.method = HookMethod::Put;
        config.batch = 10;
        config.token_file = Some(token.clone());
        config.headers = [("X-Scope".to_owned(), HeaderSource::Text("lab".to_owned()))].into();
    });
    deliver(&mut hook, Priority::Error, &[line(), line()]).unwrap();
    std::fs::write(dir.path().join("next"), "second").unwrap();
    std::fs::rename(dir.path().join("next"), &token).unwrap();
    deliver(&mut hook, Priority::Error, &[line()]).unwrap();
    let requests = server.requests();
    assert!(requests[0].starts_with("PUT /") && requests[0].ends_with(&format!("[{},{}]", line(), line())));
    assert!(
        requests[0].contains("authorization: Bearer first\r\n") && requests[0].contains("x-scope: lab\r\n")
    );
    assert!(
        requests[1].contains("authorization: Bearer second\r\n")
            && requests[1].ends_with(&format!("[{}]", line()))
    );
}

#[test]
fn a_password_goes_as_basic_authorization() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let server = Server::new(&[&answer("200 OK", "", "")]);
    let mut hook = hook(&server, |config| {
        // The example of RFC 7617.
        config.user = Some("Aladdin".to_owned());
        config.password_file = Some(password);
    });
    deliver(&mut hook, Priority::Error, &[line()]).unwrap();
    assert!(server.requests()[0].contains("authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"));
}

#[test]
fn what_each_answer_means() {
    let wait = |seconds| Fate::Retry { after: Some(Duration::from_secs(seconds)) };
    let later = Fate::Retry { after: None };
    for (status, headers, fate) in [
        ("429 Too Many Requests", "Retry-After: 7\r\n", wait(7)),
        ("503 Unavailable", "Retry-After: 99999999\r\n", wait(3600)),
        ("503 Unavailable", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", wait(0)),
        ("500 No", "Retry-After: soon\r\n", later),
        ("401 Unauthorized", "", later),
        // A wrong path: the alerts wait until somebody puts it right.
        ("404 Not Found", "", later),
        ("405 Method Not Allowed", "", later),
        ("410 Gone", "", later),
        ("302 Found", "Location: http://127.0.0.1:1/\r\n", later),
        ("400 Bad Request", "", Fate::Refused),
        ("413 Too Large", "", Fate::Refused),
    ] {
        let server = Server::new(&[&answer(status, headers, "invalid_payload\u{1b}[31m")]);
        let outcome = deliver(&mut hook(&server, |_| ()), Priority::Error, &[line()]).unwrap_err();
        assert_eq!((outcome.taken, outcome.fate), (0, fate), "{status}");
        let said = format!("http://{} answers {status}: invalid_payload\\x1b[31m", server.address);
        assert_eq!(
            outcome.cause.split(' ').take(3).collect::<Vec<_>>(),
            said.split(' ').take(3).collect::<Vec<_>>()
        );
        assert!(outcome.cause.ends_with(": invalid_payload\\x1b[31m"), "{}", outcome.cause);
        assert_eq!(server.requests().len(), 1, "no redirect is followed");
    }
}

#[test]
fn no_secret_comes_back_by_way_of_the_peer() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t0ken").unwrap();
    for body in [
        "your t0ken is wrong",
        "nothing at /hook/s3cr3t?a=1",
        "nothing at /hook/s3cr3t",
        "no such hook: l0ng-s3cr3t",
        "unknown key k3y-k3y-k3y",
        "your X-Key h3ader is wrong",
    ] {
        let server = Server::new(&[&answer("400 Bad Request", "", body)]);
        let mut hook = hook(&server, |config| {
            if body.contains("0ng") || body.contains("k3y") {
                config.url = Some(server.url("/hook/l0ng-s3cr3t/x?key=k3y-k3y-k3y").parse().unwrap());
            }
            config.token_file = Some(token.clone());
            config.headers = [("X-Key".to_owned(), HeaderSource::Text("h3ader".to_owned()))].into();
            let shown = format!("{config:?}");
            assert!(!["t0ken", "s3cr3t", "h3ader"].iter().any(|secret| shown.contains(secret)), "{shown}");
        });
        let cause = deliver(&mut hook, Priority::Error, &[line()]).unwrap_err().cause;
        assert!(cause.ends_with("400 Bad Request"), "{cause}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn no_password_comes_back_as_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let body = "authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    let server = Server::new(&[&answer("400 Bad Request", "", body)]);
    let mut hook = hook(&server, |config| {
        config.user = Some("Aladdin".to_owned());
        config.password_file = Some(password);
    });
    let cause = deliver(&mut hook, Priority::Error, &[line()]).unwrap_err().cause;
    assert!(cause.ends_with("400 Bad Request"), "{cause}");
}

/// As a firewall for the web does it.
#[test]
fn one_alert_that_is_forbidden_does_not_hold_back_the_others() {
    let (ok, no) = (answer("200 OK", "", ""), answer("403 Forbidden", "", ""));
    // Four calls; the fifth, the alert alone, the one behind it, and the first again; then the third.
    let answers = [&no, &no, &no, &no, &no, &no, &ok, &no, &ok].map(String::as_str);
    let server = Server::new(&answers);
    let mut hook = hook(&server, |_| ());
    let lines =
        ["first", "second", "third"].map(|name| line().replace("(pid 4711)", &format!("(pid {name})")));
    for _ in 0..4 {
        let fault = deliver(&mut hook, Priority::Error, &lines).unwrap_err();
        assert_eq!((fault.taken, fault.fate), (0, Fate::Retry { after: None }));
    }
    let fault = deliver(&mut hook, Priority::Error, &lines).unwrap_err();
    assert_eq!((fault.taken, fault.fate), (0, Fate::Refused), "{}", fault.cause);
    // The second was taken already.
    deliver(&mut hook, Priority::Error, &lines[1..]).unwrap();
    let requests = server.requests();
    let with = |name: &str| requests.iter().filter(|request| request.contains(name)).count();
    assert_eq!((with("pid first"), with("pid second"), with("pid third")), (7, 1, 1));
}

#[test]
fn one_that_hangs_or_talks_for_ever_costs_the_time_limit() {
    for (answer, said) in [
        ("", "gave no answer within 500 ms"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "gave no answer within 500 ms"),
        ("SSH-2.0-nothing\r\n", "no answer from"),
    ] {
        // One answer more than there are requests, so that the connection stays.
        let server = Server::new(&[answer, "end"]);
        let started = Instant::now();
        let outcome = deliver(&mut hook(&server, |_| ()), Priority::Error, &[line()]).unwrap_err();
        assert!(outcome.cause.contains(said), "{outcome:?}");
        assert_eq!(outcome.fate, Fate::Retry { after: None });
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    let long = answer("200 OK", "", &"x".repeat(300_000));
    let server = Server::new(&[&long]);
    deliver(&mut hook(&server, |_| ()), Priority::Error, &[line()]).unwrap();
}

#[test]
fn an_address_from_a_file_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("url");
    let ok = answer("200 OK", "", "");
    let (first, second) = (Server::new(&[&ok]), Server::new(&[&ok]));
    std::fs::write(&path, first.url("/one")).unwrap();
    let config = WebhookConfig {
        url_file: Some(path.clone()),
        template: HookTemplate::Slack,
        ..WebhookConfig::default()
    };
    let mut hook = Webhook::new(&config).unwrap();
    deliver(&mut hook, Priority::Warning, &[line()]).unwrap();
    std::fs::write(&path, second.url("/number-two")).unwrap();
    deliver(&mut hook, Priority::Warning, &[line()]).unwrap();
    assert!(first.requests()[0].starts_with("POST /one "));
    let request = &second.requests()[0];
    assert!(request.starts_with("POST /number-two "));
    let message: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(message["text"], "Warning: User namespace made in a container");
    let attachment = &message["attachments"][0];
    assert_eq!(attachment["text"], "Namespace made by \"ev]il\\\\ &lt;!channel&gt; &amp; co\" é (pid 4711)");
    assert_eq!(attachment["ts"], 1_795_463_146);
    assert_eq!(
        attachment["fields"][2],
        serde_json::json!({"title": "Container", "value": "shop \"front\"]", "short": true})
    );
}

#[test]
fn settings_that_do_not_fit() {
    for (yaml, said) in [
        ("{}", "`url`"),
        ("{url: 'http://127.0.0.1', url_env: PATH}", "`url`"),
        ("{url: 'http://127.0.0.1', batch: 0}", "`batch`"),
        ("{url: 'http://127.0.0.1', timeout_ms: 1}", "`timeout_ms`"),
        ("{url: 'http://127.0.0.1', headers: {Authorization: x}}", "secret"),
        ("{url: 'http://127.0.0.1', headers: {Content-Length: x}}", "not for settings"),
        ("{url: 'http://127.0.0.1', headers: {'a b': x}}", "no header"),
        ("{url: 'http://127.0.0.1', user: x}", "`user`"),
        ("{url: 'http://127.0.0.1', token_file: /not/there}", "/not/there"),
        ("{url: 'http://127.0.0.1', tls: {ca: /not/there}}", "`tls`"),
        ("{url: 'https://127.0.0.1', tls: {ca: /not/there}}", "/not/there"),
        ("{url: 'http://127.0.0.1', template: slack, template_file: /x}", "`template_file`"),
    ] {
        let config: WebhookConfig = serde_saphyr::from_str(yaml).unwrap();
        let error = Webhook::new(&config).map(drop).unwrap_err().to_string();
        assert!(error.contains(said), "{yaml}: {error}");
    }
    for yaml in [
        "{url: 'ftp://host/s3cr3t'}",
        "{url: 'http://user:s3cr3t@host'}",
        "{url: 'http://'}",
        "{url: 'http://host:/'}",
        "{url: 's3cr3t'}",
        "{urll: 'http://host'}",
        "{headers: {a: {path: /x}}}",
        "{method: GET}",
    ] {
        let error = serde_saphyr::from_str::<WebhookConfig>(yaml).unwrap_err().without_snippet().to_string();
        assert!(!error.contains("s3cr3t"), "{error}");
    }
}
