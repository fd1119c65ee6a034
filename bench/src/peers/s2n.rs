//! s2n-tls-tokio, with s2n-tls and aws-lc. Its security policies are predefined; the one used here prefers X25519 and
//! AES-128-GCM. For bulk it is configured for throughput: full records, and reads of many records at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use s2n_tls::callbacks::{SessionTicket, SessionTicketCallback};
use s2n_tls::config::Config;
use s2n_tls::connection::{Builder, Connection};
use s2n_tls::enums::{Mode, Version};
use s2n_tls::security::Policy;
use s2n_tls_tokio::{TlsAcceptor, TlsConnector, TlsStream};
use tokio::net::TcpStream;

use super::{Facts, Stack};
use crate::error::Result;
use crate::pki::Pki;
use crate::setup::Setup;
use crate::spec::Tls;

#[derive(Clone)]
pub struct S2n {
    connector: TlsConnector<Configured>,
    acceptor: TlsAcceptor<Configured>,
}

/// The configuration of connections.
#[derive(Clone)]
struct Configured {
    config: Config,
    bulk: bool,
    ticket: Option<Ticket>,
}

#[derive(Clone, Default)]
struct Ticket(Arc<Mutex<Option<Vec<u8>>>>);

impl S2n {
    pub fn new(pki: &Pki, setup: Setup) -> Result<Self> {
        let policy = Policy::from_version(match (setup.post_quantum, setup.tls) {
            (true, _) => "default_pq",
            (false, Tls::V13) => "20240603",
            (false, Tls::V12) => "20240501",
        })?;
        let ticket = setup.resume.then(Ticket::default);
        let mut client = Config::builder();
        client.set_security_policy(&policy)?.with_system_certs(false)?.trust_pem(pki.ca.as_bytes())?;
        let mut server = Config::builder();
        server.set_security_policy(&policy)?.with_system_certs(false)?;
        server.load_pem(pki.cert.as_bytes(), pki.key.as_bytes())?;
        if let Some(ticket) = &ticket {
            client.set_session_ticket_callback(ticket.clone())?;
            server.enable_session_tickets(true)?;
            server.add_session_ticket_key(b"bench", &[7; 32], SystemTime::now() - Duration::from_secs(1))?;
        }
        let bulk = setup.bulk && !setup.untuned;
        if bulk {
            client.set_send_buffer_size(128 << 10)?;
            server.set_send_buffer_size(128 << 10)?;
        }
        let configured = |config, ticket| Configured { config, bulk, ticket };
        Ok(Self {
            connector: TlsConnector::new(configured(client.build()?, ticket)),
            acceptor: TlsAcceptor::new(configured(server.build()?, None)),
        })
    }
}

impl Builder for Configured {
    type Output = Connection;

    fn build_connection(&self, mode: Mode) -> std::result::Result<Connection, s2n_tls::error::Error> {
        let mut connection = Connection::new(mode);
        connection.set_config(self.config.clone())?;
        if self.bulk {
            connection.prefer_throughput()?;
            connection.set_receive_buffering(true)?;
        }
        let ticket =
            self.ticket.as_ref().and_then(|ticket| ticket.0.lock().unwrap_or_else(PoisonError::into_inner).clone());
        if let Some(ticket) = ticket {
            connection.set_session_ticket(&ticket)?;
        }
        Ok(connection)
    }
}

impl SessionTicketCallback for Ticket {
    fn on_session_ticket(&self, _: &mut Connection, ticket: &SessionTicket) {
        let mut bytes = vec![0; ticket.len().unwrap_or(0)];
        if ticket.data(&mut bytes).is_ok() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        }
    }
}

impl Stack for S2n {
    type Stream = TlsStream<TcpStream>;
    const FLUSHES: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(self.connector.connect("localhost", tcp).await?)
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(self.acceptor.accept(tcp).await?)
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        let connection = stream.as_ref();
        let suite = connection.cipher_suite().ok()?;
        Some(Facts {
            version: match connection.actual_protocol_version().ok()? {
                Version::TLS13 => "1.3".to_owned(),
                Version::TLS12 => "1.2".to_owned(),
                other => format!("{other:?}"),
            },
            aes128: suite.contains("AES_128_GCM") || suite.contains("AES128-GCM"),
            resumed: connection.resumed(),
        })
    }
}
