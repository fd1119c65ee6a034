//! The peer s2n-tls.

use std::io::Result;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bowline_interop::peer::{self, Library};
use bowline_interop::{Options, Report};
use s2n_tls::callbacks::{SessionTicket, SessionTicketCallback, VerifyHostNameCallback};
use s2n_tls::config::{Builder, Config};
use s2n_tls::connection::Connection;
use s2n_tls::enums::{ClientAuthType, Mode, PeerKeyUpdate};
use s2n_tls::security::Policy;
use s2n_tls_tokio::{TlsAcceptor, TlsConnector, TlsStream};
use tokio::io::AsyncWriteExt;
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
    builder.set_security_policy(&Policy::from_version("default_pq")?)?;
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
    peer::serve(&options, &S2n { server: options.server, config, kept }).await;
}

struct S2n {
    // The role.
    server: bool,
    config: Config,
    kept: Kept,
}

impl Library for S2n {
    type Stream = TlsStream<TcpStream>;

    async fn open(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(if self.server {
            TlsAcceptor::new(self.config.clone()).accept(tcp).await?
        } else {
            let resuming = Resuming(self.config.clone(), self.kept.clone());
            TlsConnector::new(resuming).connect("localhost", tcp).await?
        })
    }

    fn facts(&self, stream: &Self::Stream, report: &mut Report) {
        let connection = stream.as_ref();
        let version = connection.actual_protocol_version().ok();
        report.set("version", version.map(|version| format!("{version:?}").replace("TLS1", "1.")));
        report.set("group", connection.selected_key_exchange_group());
        report.set("alpn", connection.application_protocol().map(|name| String::from_utf8_lossy(name).into_owned()));
        report.set("resumed", connection.resumed());
        let chain = connection.peer_cert_chain().ok();
        let first = chain.as_ref().and_then(|chain| chain.iter().next()?.ok()?.der().ok().map(<[u8]>::to_vec));
        report.set("peer", first.and_then(|der| bowline::config::subject(&der.into())));
    }

    async fn fin(&self, stream: &mut Self::Stream) -> Result<()> {
        stream.get_mut().shutdown().await
    }

    fn reset_on_close(&self, stream: &Self::Stream) -> Result<()> {
        stream.get_ref().set_zero_linger()
    }

    fn update(&self, stream: &mut Self::Stream, report: &mut Report) -> Result<()> {
        let connection: &mut Connection = stream.as_mut();
        if let Err(error) = connection.request_key_update(PeerKeyUpdate::KeyUpdatedRequested) {
            report.set(
                "partly",
                format!(
                    "s2n-tls changes its own key and does not ask for an answer: its `request_key_update` refuses \
                     `KeyUpdatedRequested` with `{error}`"
                ),
            );
            connection.request_key_update(PeerKeyUpdate::KeyUpdateNotRequested)?;
        }
        Ok(())
    }
}
