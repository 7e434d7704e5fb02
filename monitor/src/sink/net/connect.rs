//! Connections: over TCP, with TLS inside if asked for, each step within a time limit.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::Tls;

/// A connection.
pub(super) enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted. The state of TLS is large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Resolves the name, connects to the first of its addresses that answers, and shakes hands.
    ///
    /// # Errors
    /// What went wrong, with the peer's name.
    pub(super) async fn open(
        host: &str,
        port: u16,
        tls: Option<&mut Tls>,
        limit: Duration,
    ) -> Result<Stream, String> {
        let tls = tls.map(Tls::current).transpose()?;
        let steps = async {
            let tcp = TcpStream::connect((host, port)).await?;
            // Records are written whole; waiting for more only delays them.
            tcp.set_nodelay(true)?;
            Ok(match tls {
                None => Stream::Plain(tcp),
                Some((config, name)) => {
                    Stream::Tls(Box::new(TlsConnector::from(config).connect(name, tcp).await?))
                }
            })
        };
        let opened = tokio::time::timeout(limit, steps).await;
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        opened.map_err(|error: io::Error| format!("no connection to {host}:{port}: {error}"))
    }

    /// The connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
