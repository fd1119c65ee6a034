//! The peer s2n-tls.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bowline_interop::{Options, Report, Sockets, Step, dialogue, pattern, reset_on_close};
use s2n_tls::callbacks::{SessionTicket, SessionTicketCallback, VerifyHostNameCallback};
use s2n_tls::config::{Builder, Config};
use s2n_tls::connection::{Builder as _, Connection};
use s2n_tls::enums::{ClientAuthType, Mode, PeerKeyUpdate};
use s2n_tls::security;
use s2n_tls_tokio::{TlsAcceptor, TlsConnector, TlsStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keeps the newest ticket.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<Vec<u8>>>>);

impl SessionTicketCallback for Kept {
    fn on_session_ticket(&self, _connection: &mut Connection, ticket: &SessionTicket) {
        let mut bytes = vec![0; ticket.len().expect("a ticket")];
        ticket.data(&mut bytes).expect("a ticket");
        *self.0.lock().expect("nobody panics") = Some(bytes);
    }
}

struct AnyName;

impl VerifyHostNameCallback for AnyName {
    fn verify_host_name(&self, _name: &str) -> bool {
        true
    }
}

/// Connections of a client that resume the session of the ticket.
#[derive(Clone)]
struct Resuming(Config, Kept);

impl s2n_tls::connection::Builder for Resuming {
    type Output = Connection;

    fn build_connection(&self, mode: Mode) -> std::result::Result<Connection, s2n_tls::error::Error> {
        let mut connection = self.0.build_connection(mode)?;
        if let Some(ticket) = &*self.1.0.lock().expect("nobody panics") {
            connection.set_session_ticket(ticket)?;
        }
        Ok(connection)
    }
}

fn config(options: &Options, kept: &Kept) -> std::result::Result<Config, s2n_tls::error::Error> {
    let file = |path: &str| std::fs::read(path).expect("a file");
    let mut builder = Builder::new();
    // This policy allows more than one version and group. bowline offers only one version, and only one group where
    // that matters.
    builder.set_security_policy(&security::DEFAULT_PQ)?;
    builder.with_system_certs(false)?;
    builder.trust_pem(&file(&options.ca))?;
    if options.server || options.client_auth {
        builder.load_pem(&file(&options.cert), &file(&options.key))?;
    }
    if options.client_auth {
        builder.set_client_auth_type(ClientAuthType::Required)?;
    }
    if !options.alpn.is_empty() {
        builder.set_application_protocol_preference(&options.alpn)?;
    }
    if options.server {
        builder.set_verify_host_callback(AnyName)?;
        builder.add_session_ticket_key(
            b"interop",
            &[7; 32],
            SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1),
        )?;
        builder.set_ticket_key_encrypt_decrypt_lifetime(std::time::Duration::from_secs(4_000_000_000))?;
    } else {
        builder.set_session_ticket_callback(kept.clone())?;
    }
    builder.build()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    let kept = Kept::default();
    let config = config(&options, &kept).expect("a configuration");
    let sockets = Sockets::open(&options).await;
    for _ in 0..options.connections {
        let mut report = Report::default();
        let mut tcp = sockets.next().await;
        if options.starttls {
            dialogue(&options, &mut tcp).await;
        }
        let opened = if options.server {
            TlsAcceptor::new(config.clone()).accept(tcp).await
        } else {
            TlsConnector::new(Resuming(config.clone(), kept.clone())).connect("localhost", tcp).await
        };
        let done = match opened {
            Ok(mut stream) => {
                let played = play(&options, &mut stream, &mut report).await;
                facts(stream.as_ref(), &mut report);
                played
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            let end = match error.kind() {
                ErrorKind::UnexpectedEof => "truncated",
                ErrorKind::ConnectionReset => "reset",
                _ => "failed",
            };
            report.set("end", end);
            report.set("error", error.to_string());
        }
        report.print();
    }
}

fn facts(connection: &Connection, report: &mut Report) {
    report.set(
        "version",
        connection.actual_protocol_version().ok().map(|version| format!("{version:?}").replace("TLS1", "1.")),
    );
    report.set("group", connection.selected_key_exchange_group());
    report.set("alpn", connection.application_protocol().map(|name| String::from_utf8_lossy(name).into_owned()));
    report.set("resumed", connection.resumed());
    let chain = connection.peer_cert_chain().ok();
    let first = chain.as_ref().and_then(|chain| chain.iter().next()?.ok()?.der().ok().map(<[u8]>::to_vec));
    report.set("peer", first.and_then(|der| bowline::config::subject(&der.into())));
}

async fn play(options: &Options, stream: &mut TlsStream<TcpStream, Connection>, report: &mut Report) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for step in &options.script {
        match *step {
            Step::Send(n) => stream.write_all(&pattern(n)).await?,
            Step::Tiny(n) => {
                for _ in 0..n {
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                }
            }
            Step::Recv(mut left) => {
                stream.flush().await?;
                while left > 0 {
                    let most = left.min(buffer.len());
                    let read = stream.read(&mut buffer[..most]).await?;
                    report.receive(&buffer[..read]);
                    if read == 0 {
                        return Err(Error::other("a clean end, too early"));
                    }
                    left -= read;
                }
            }
            Step::End => loop {
                stream.flush().await?;
                let read = stream.read(&mut buffer).await?;
                report.receive(&buffer[..read]);
                if read == 0 {
                    report.set("end", "clean");
                    break;
                }
            },
            // `shutdown` sends close_notify and FIN, and reading continues.
            Step::Half | Step::Close => stream.shutdown().await?,
            Step::Fin => {
                stream.flush().await?;
                stream.get_mut().shutdown().await?;
            }
            Step::Abort => {
                stream.flush().await?;
                reset_on_close(stream.get_ref());
                return Ok(());
            }
            Step::Update => {
                let connection: &mut Connection = stream.as_mut();
                if connection.request_key_update(PeerKeyUpdate::KeyUpdatedRequested).is_err() {
                    // s2n has a call for an update of its own key only, without a request.
                    connection.request_key_update(PeerKeyUpdate::KeyUpdateNotRequested).map_err(Error::other)?;
                }
            }
        }
    }
    Ok(())
}
