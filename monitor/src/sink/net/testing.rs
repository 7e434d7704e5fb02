//! What the tests of several outputs share: a canonical line with everything in it that a writer can trip over.

use crate::rules::Priority;
use crate::sink::{Deliver, Record, Undelivered};

/// A canonical alert of a container in a pod. The name of the program would like to break out of whatever it is put in.
pub(super) fn line() -> String {
    let output = "Namespace made by \"ev]il\\\\ <!channel> & co\" é (pid 4711)";
    serde_json::json!({
        "time": "2026-11-23T19:45:46.123456789Z",
        "rule": "User namespace made in a container",
        "priority": "Warning",
        "output": output,
        "hostname": "node-1",
        "source": "syscall",
        "tags": ["container", "T1611"],
        "output_fields": {
            "evt.type": "unshare",
            "evt.verdict": "allowed",
            "evt.refused_by": null,
            "evt.flags": ["CLONE_NEWUSER", "CLONE_NEWNS"],
            "evt.failed": false,
            "evt.rawres": 0,
            "container.id": "3f1c0a9b7e21",
            "container.full_id": "3f1c0a9b7e2146f0b0a7d3f1c0a9b7e2146f0b0a7d3f1c0a9b7e2146f0b0a7d3",
            "container.name": "shop \"front\"]",
            "container.image": "docker.io/library/nginx:1.27",
            "container.image.repository": "docker.io/library/nginx",
            "container.image.tag": "1.27",
            "container.runtime": "containerd",
            "k8s.pod.name": "shop-7d9c",
            "k8s.ns.name": "web",
            "proc.name": "ev]il\\\\",
            "proc.exepath": "/usr/bin/ev]il",
            "proc.cmdline": "ev]il --now\u{202e}",
            "proc.pid": 4711,
            "proc.ppid": 1,
            "user.uid": 1000,
            "user.name": "<NA>",
        },
        "schema_version": 2,
        "rule_id": "userns-in-container",
        "attack": ["T1611"],
        "rules_generation": 1,
    })
    .to_string()
}

/// A summary of twelve such alerts.
pub(super) fn summary() -> String {
    let mut alert: serde_json::Value = serde_json::from_str(&line()).unwrap();
    let fields = alert["output_fields"].as_object_mut().unwrap();
    fields.insert("group.count".to_owned(), 12.into());
    fields.insert("group.first".to_owned(), "2026-11-23T19:45:46.123456789Z".into());
    fields.insert("group.last".to_owned(), "2026-11-23T19:46:40.000000000Z".into());
    alert.to_string()
}

/// Delivers lines as records of this priority.
pub(super) fn deliver(
    sink: &mut impl Deliver,
    priority: Priority,
    lines: &[impl AsRef<str>],
) -> Result<(), Undelivered> {
    let batch: Vec<Record<'_>> =
        lines.iter().map(|line| Record { line: line.as_ref().as_bytes(), priority }).collect();
    sink.deliver(&batch)
}

/// A server of HTTP/1.1 that gives these answers, one per request, in order, and closes after one that says so.
pub(super) struct Server {
    pub(super) address: std::net::SocketAddr,
    handle: std::thread::JoinHandle<Vec<String>>,
}

impl Server {
    /// An empty answer is none: the connection is held and nothing said.
    pub(super) fn new(answers: &[&str]) -> Self {
        use std::io::{BufRead as _, BufReader, Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut answers: std::collections::VecDeque<String> =
            answers.iter().map(|answer| (*answer).to_owned()).collect();
        let handle = std::thread::spawn(move || {
            let (mut requests, mut held) = (Vec::new(), Vec::new());
            while !answers.is_empty() {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                held.push(stream.try_clone().unwrap());
                loop {
                    let (mut request, mut len) = (String::new(), 0);
                    while reader.read_line(&mut request).unwrap_or(0) > 2 {
                        let line = request.lines().last().unwrap().to_ascii_lowercase();
                        if let Some(text) = line.strip_prefix("content-length: ") {
                            len = text.parse().unwrap();
                        }
                    }
                    if request.is_empty() {
                        break;
                    }
                    let mut body = vec![0; len];
                    reader.read_exact(&mut body).unwrap();
                    requests.push(request + &String::from_utf8_lossy(&body));
                    let answer = answers.pop_front().unwrap_or_default();
                    (&stream).write_all(answer.as_bytes()).unwrap();
                    if answers.is_empty() || answer.contains("close") {
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                        break;
                    }
                }
            }
            requests
        });
        Self { address, handle }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests, head and body, once every answer is given.
    pub(super) fn requests(self) -> Vec<String> {
        self.handle.join().unwrap()
    }
}

/// An answer with this status and body.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}
