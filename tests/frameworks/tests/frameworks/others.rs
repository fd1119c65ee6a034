//! Libraries that need no adapter, by the lines of docs/frameworks.md.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::routing::get;
use axum::{Extension, Router};
use bowline::hyper::Server;
use bowline::{Connector, Control, Lingering, TcpConnection, TlsConnection, TlsListener, Transport};
use futures_util::{SinkExt, StreamExt};
use hyper_util::service::TowerToHyperService;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use redis::RedisConnectionInfo;
use redis::aio::MultiplexedConnection;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::codec::{Framed, LinesCodec};

use crate::common::{Certs, SOON};

async fn connect(certs: &Certs, port: u16) -> TlsConnection<TcpConnection> {
    let tcp = Connector::new().connect("localhost", port).await.unwrap();
    TlsConnection::connect(tcp, &certs.client_tls(&[]), "localhost").await.unwrap()
}

/// Says `greeting`, and then `answer(line)` to each line that has an answer.
fn serve(mut listener: TlsListener, greeting: &'static str, answer: fn(&str) -> Option<&'static str>) {
    tokio::spawn(async move {
        let mut connection = listener.accept().await.unwrap();
        connection.write_all(greeting.as_bytes()).await.unwrap();
        let mut line = String::new();
        while connection.read_line(&mut line).await.unwrap_or_default() > 0 {
            if let Some(answer) = answer(&line) {
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
            line.clear();
        }
        connection.close().await;
    });
}

#[tokio::test]
async fn redis_takes_a_connection() {
    let certs = Certs::new();
    let (listener, port, _) = certs.listener().await;
    // In Redis's protocol, a command begins with `*` and the number of its words.
    serve(listener, "", |line| line.starts_with('*').then_some("+OK\r\n"));
    let io = Lingering::new(connect(&certs, port).await);
    let (made, client) = tokio::sync::oneshot::channel();
    let driver = tokio::spawn(async move {
        let info = RedisConnectionInfo::default(); // the driver borrows it
        let (client, driver) = MultiplexedConnection::new(&info, io).await.unwrap();
        let _ = made.send(client);
        driver.await;
    });
    let mut client = client.await.unwrap();
    let answer: String = redis::cmd("SET").arg("key").arg("value").query_async(&mut client).await.unwrap();
    assert_eq!(answer, "OK");
    drop(client);
    driver.await.unwrap();
}

/// A connection for lettre.
struct Smtp(Lingering<TlsConnection<TcpConnection>>);

impl AsyncTokioStream for Smtp {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.control().peer_addr().as_inet().ok_or(io::ErrorKind::AddrNotAvailable.into())
    }
}

impl AsyncRead for Smtp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Smtp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[tokio::test]
async fn lettre_takes_a_connection() {
    let certs = Certs::new();
    let (listener, port, _) = certs.listener().await;
    serve(listener, "220 ready\r\n", |line| match line.get(..4)? {
        "EHLO" => Some("250 localhost\r\n"),
        "NOOP" => Some("250 fine\r\n"),
        _ => Some("221 bye\r\n"),
    });
    let connection = Box::new(Smtp(Lingering::new(connect(&certs, port).await)));
    let mut smtp = AsyncSmtpConnection::connect_with_transport(connection, &ClientId::default()).await.unwrap();
    assert!(smtp.test_connected().await);
    smtp.quit().await.unwrap();
}

/// A codec's sink ends the connection by `close`: the last line arrives although the server reads no more.
///
/// rule: close-15
#[tokio::test]
async fn a_codec_ends_in_order() {
    let certs = Certs::new();
    let (mut listener, port, _) = certs.listener().await;
    let serving = tokio::spawn(async move {
        let mut lines = Framed::new(Lingering::new(listener.accept().await.unwrap()), LinesCodec::new());
        let first = lines.next().await.unwrap().unwrap();
        lines.send(first.repeat(100_000)).await.unwrap();
        SinkExt::<String>::close(&mut lines).await.unwrap();
    });
    let mut client = connect(&certs, port).await;
    client.write_all(b"hello\n").await.unwrap();
    client.write_all(&[b'x'; 200_000]).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 500_001);
    client.close().await;
    serving.await.unwrap();
}

#[tokio::test]
async fn a_service_of_tower_drains() {
    let certs = Certs::new();
    let (listener, port, group) = certs.listener().await;
    let peer = async |Extension(control): Extension<Control>| control.peer_addr().as_inet().unwrap().ip().to_string();
    let app = Router::new().route("/", get(peer));
    let serving = tokio::spawn(async move { Server::new().serve(listener, TowerToHyperService::new(app)).await });
    assert_eq!(certs.curled(&[&format!("https://localhost:{port}/")]).await, "127.0.0.1");
    let report = group.drain(SOON).await;
    assert_eq!(report.cut_off, 0, "{report}");
    assert!(serving.await.unwrap().is_ok());
}
