//! Nothing can be changed over HTTP, and no body is taken.

use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::enrich::names::tests::metrics as made_up;

async fn start() -> SocketAddr {
    let listener = bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap().unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Health::new(made_up())));
    address
}

/// Sends a head, then body bytes for as long as they are taken, at most 64 MiB; gives the answer's status and how many were.
async fn send(address: SocketAddr, head: &str, body: bool) -> (u16, usize) {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    write.write_all(head.as_bytes()).await.unwrap();
    let sender = tokio::spawn(async move {
        let piece = [b'x'; 64 << 10];
        let mut sent = 0;
        while body && sent < 64 << 20 && write.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        (sent, write)
    });
    let mut answer = Vec::new();
    // It may be reset behind the answer, which then is whole all the same.
    let _ = tokio::time::timeout(2 * CONNECTION_TIMEOUT, read.read_to_end(&mut answer))
        .await
        .expect("hung up on");
    drop(read);
    let (sent, _write) =
        tokio::time::timeout(Duration::from_secs(20), sender).await.expect("not taken").unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{head}: {answer:?}")), sent)
}

#[tokio::test]
async fn every_method_but_get_and_head_is_refused_on_every_path() {
    let address = start().await;
    for path in
        ["/", "/metrics", "/healthz", "/readyz", "/nothing", "/metrics/", "/config", "/rules", "//", "/%2e"]
    {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "RELOAD"]
        {
            // The one whose target is no path.
            let target = if method == "CONNECT" { "x:1" } else { path };
            let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert_eq!(send(address, &head, false).await.0, 405, "{method} {path}");
        }
        let known = ["/metrics", "/healthz"].contains(&path);
        for method in ["GET", "HEAD"] {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let status = send(address, &head, false).await.0;
            assert!(
                path == "/readyz" || status == if known { 200 } else { 404 },
                "{method} {path}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn bodies_are_not_taken() {
    const MOST: usize = 32 << 20;
    let address = start().await;
    for (head, status) in [
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n", 405),
        ("POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", 405),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n", 200),
    ] {
        let start = Instant::now();
        let (answered, sent) = send(address, head, true).await;
        assert_eq!(answered, status, "{head}");
        assert!(sent < MOST, "{head}: {sent} bytes were taken in {:?}", start.elapsed());
    }
}
