//! lettre over a connection, by the lines of docs/frameworks.md: with the example `smtp`, and with Postfix.

use std::io::{self, Cursor, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use bowline::starttls::{Client, Dialogue};
use bowline::testing::shared_pki;
use bowline::{ClientTls, Connector, Control, Lingering, StartTls, TcpConnection, UpgradableConnection};
use lettre::address::Envelope;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream};
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::process::Child;

use crate::common::{Certs, example, program};
use crate::postfix::postfix;

/// A connection for lettre. lettre expects a greeting, and the server has sent it before TLS.
#[derive(Debug)]
struct Smtp {
    greeting: Cursor<Vec<u8>>,
    io: Lingering<UpgradableConnection<TcpConnection>>,
}

impl AsyncTokioStream for Smtp {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.io.control().peer_addr().as_inet().ok_or(io::ErrorKind::AddrNotAvailable.into())
    }
}

impl AsyncRead for Smtp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.greeting.read(buf.initialize_unfilled())? {
            0 => Pin::new(&mut self.io).poll_read(cx, buf),
            count => {
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Smtp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

async fn connect(tls: &ClientTls, port: u16) -> (AsyncSmtpConnection, Control) {
    let tcp = Connector::new().connect("localhost", port).await.unwrap();
    let mut connection = UpgradableConnection::new(tcp);
    let mut dialogue = Client::new(Dialogue::Smtp, "localhost");
    dialogue.negotiate(&mut connection).await.unwrap();
    connection.start_tls(StartTls::client(tls, "localhost")).await.unwrap();
    let greeting = Cursor::new(dialogue.greeting().to_vec());
    let io = Lingering::new(connection);
    let control = io.control();
    let stream = Box::new(Smtp { greeting, io });
    (AsyncSmtpConnection::connect_with_transport(stream, &ClientId::default()).await.unwrap(), control)
}

/// Sends mails, and ends the connection in order.
async fn send(tls: &ClientTls, port: u16, mails: &[&str]) {
    let (mut smtp, control) = connect(tls, port).await;
    let addresses = |text: &str| text.parse().unwrap();
    let envelope =
        Envelope::new(Some(addresses("alice@example.org")), vec![addresses("bob@localhost.localdomain")]).unwrap();
    for mail in mails {
        let answer = smtp.send(&envelope, mail.as_bytes()).await.unwrap();
        assert!(answer.is_positive(), "{answer:?}");
    }
    smtp.abort().await; // QUIT, and the end of the connection
    assert!(control.tls().is_some());
    // Postfix resets the connection after its answer to QUIT, and does not read our close_notify.
    let report = control.report().expect("it has ended");
    assert!(report.marker_sent(), "{report}");
}

/// The example `smtp` on a free port.
async fn our_server(certs: &Certs, maildir: &Path) -> (Child, u16) {
    let smtp = tokio::task::spawn_blocking(|| example("smtp")).await.unwrap();
    let mut smtp = program(smtp.to_str().unwrap(), &["--listen", "127.0.0.1:0", "--require-tls", "--maildir"]);
    smtp.arg(maildir).arg("--cert").arg(certs.path("server.pem")).arg("--key").arg(certs.path("server.key"));
    let mut smtp = smtp.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(smtp.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let port = line.trim_end().rsplit(':').next().unwrap().parse();
    (smtp, port.unwrap_or_else(|_| panic!("{line}")))
}

#[tokio::test]
async fn lettre_delivers_mail_after_starttls() {
    let (certs, maildir) = (Certs::new(), tempfile::tempdir().unwrap());
    let (_server, port) = our_server(&certs, maildir.path()).await;
    let large = format!("Subject: second\r\n\r\n{}", "0123456789 abcdefghij\r\n".repeat(20_000));
    send(&certs.client_tls(&[]), port, &["Subject: first\r\n\r\n.a line that begins with a dot\r\n", &large]).await;
    let mut mails: Vec<String> = std::fs::read_dir(maildir.path().join("new"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    mails.sort_by_key(String::len);
    assert!(mails[0].contains("\n.a line that begins with a dot"), "{}", mails[0]);
    assert_eq!(mails[1].matches("0123456789 abcdefghij\n").count(), 20_000);
    assert_eq!(mails.len(), 2);
}

#[tokio::test]
async fn lettre_delivers_mail_to_postfix() {
    let Some(server) = tokio::task::spawn_blocking(postfix).await.unwrap() else { return };
    let tls = ClientTls::builder().roots_pem(shared_pki().ca_pem()).build().unwrap();
    send(&tls, server.port("smtp"), &["Subject: first\r\n\r\nhello\r\n", "Subject: second\r\n\r\nhello\r\n"]).await;
}
