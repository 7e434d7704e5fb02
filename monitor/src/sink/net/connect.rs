//! Connections: over TCP, with TLS inside if asked for, each step within a time limit.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

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
        let end = Instant::now() + limit;
        let steps = async {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
            let tcp = connect(&addresses, end).await?;
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

/// Connects to the first address that answers. Each has an equal share of the time that is left: one that swallows
/// packets must not use up that of the others.
async fn connect(addresses: &[SocketAddr], end: Instant) -> io::Result<TcpStream> {
    let mut fault = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (at, address) in addresses.iter().enumerate() {
        let shares = addresses.len() - at;
        let share = end.saturating_duration_since(Instant::now()) / u32::try_from(shares).unwrap_or(u32::MAX);
        let attempt = tokio::time::timeout(share, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok(stream),
            Err(error) => fault = error,
        }
    }
    Err(fault)
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    /// A port where packets vanish: as many wait to be accepted as have room.
    async fn swallowing() -> (SocketAddr, Vec<TcpStream>, tokio::net::TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            held.push(stream.unwrap());
        }
        (address, held, listener)
    }

    #[test]
    fn an_address_that_swallows_packets_leaves_time_for_the_next() {
        crate::sink::net::runtime().unwrap().block_on(async {
            let (first, _held, _full) = swallowing().await;
            let well = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let second = well.local_addr().unwrap();
            let limit = Duration::from_millis(800);
            let stream = connect(&[first, second], Instant::now() + limit).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), second);
            let started = Instant::now();
            let fault = connect(&[first, first], Instant::now() + limit).await.unwrap_err();
            assert_eq!(fault.kind(), io::ErrorKind::TimedOut);
            assert!(started.elapsed() <= limit + Duration::from_millis(500));
        });
    }
}
