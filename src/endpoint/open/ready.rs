//! Ready connections of the listeners of endpoint strings.

use std::future::ready;

use tokio::time::Instant;

use super::listen::{Accepted, EndpointListener};
use super::socket::Socket;
use super::{BoxConnection, unix};
use crate::config::ServerTls;
use crate::config::start_tls::StartTls;
use crate::endpoint::parse::Security;
use crate::error::Error;
use crate::layers::tcp::TcpConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::server::header_gate::HeaderGate;
use crate::server::source::{AnyListener, Begun, Facts, Fresh};
use crate::server::tls_builder::TlsListenerBuilder;
use crate::server::tls_listener::TlsListener;
use crate::transport::layer::Token;

impl TlsListenerBuilder {
    /// Connections as the endpoint string describes them: on `tls`, they are accepted after the handshake; on the other
    /// kinds, at once and in plaintext.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), bowline::Error> {
    /// use bowline::{Policy, ServerEndpoint, TlsListener};
    ///
    /// let endpoint: ServerEndpoint = "tcp:0:interface=127.0.0.1".parse()?;
    /// let listener = TlsListener::builder().endpoint(endpoint.listen(Policy::default()).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn endpoint(self, listener: EndpointListener) -> TlsListener<BoxConnection> {
        self.prepare_by(listener, |connection, _| ready(Ok(connection)))
    }
}

/// A connection of an endpoint before its handshake.
#[derive(Debug)]
pub enum EndpointBegun {
    /// With the handshake that is still to be done.
    Inet(TcpConnection, Option<ServerTls>),
    Unix(unix::Plain),
}

impl AnyListener for EndpointListener {
    type Connection = BoxConnection;
    type Begun = EndpointBegun;

    async fn accept_begun(&self, _: Token) -> Result<Fresh<EndpointBegun>, Error> {
        let incoming = self.accept().await?;
        let control = incoming.control();
        let (gate, (deadline, unfinished, begun)) = match incoming.accepted {
            Accepted::Inet(accepted) => {
                let (gate, (deadline, unfinished, tcp)) = (accepted.gate(), accepted.into_parts());
                let tls = match incoming.security {
                    Security::Tls(tls) => Some(tls),
                    Security::Plain | Security::StartTls(_) => None,
                };
                (gate, (deadline, unfinished, EndpointBegun::Inet(tcp, tls)))
            }
            Accepted::Unix(accepted) => {
                let (gate, (deadline, unfinished, plain)) = (accepted.gate(), accepted.into_parts());
                (gate, (deadline, unfinished, EndpointBegun::Unix(plain)))
            }
        };
        Ok(Fresh { control, deadline, unfinished, gate, begun })
    }

    fn facts(&self, token: Token) -> Facts {
        match &self.socket {
            Socket::Inet(listener) => listener.facts(token),
            Socket::Unix(listening) => Facts {
                local: listening.local_addr(),
                group: listening.group().clone(),
                policy: listening.policy(),
                socket: listening.socket(),
            },
        }
    }

    fn finishes(&self, token: Token) -> bool {
        match &self.socket {
            Socket::Inet(listener) => AnyListener::finishes(listener, token),
            Socket::Unix(listening) => listening.finishes(),
        }
    }

    fn set_finishes(&self, token: Token, finishes: bool) {
        match &self.socket {
            Socket::Inet(listener) => AnyListener::set_finishes(listener, token, finishes),
            Socket::Unix(listening) => listening.set_finishes(finishes),
        }
    }
}

impl Begun for EndpointBegun {
    type Connection = BoxConnection;

    async fn pass(&mut self, gate: &HeaderGate) -> Result<(), Error> {
        match self {
            Self::Inet(tcp, _) => gate.pass(tcp).await,
            Self::Unix(plain) => unix::pass(plain, gate).await,
        }
    }

    async fn finish(self, deadline: Option<Instant>) -> Result<BoxConnection, Error> {
        let (tcp, tls) = match self {
            Self::Inet(tcp, tls) => (tcp, tls),
            Self::Unix(plain) => return Ok(unix::begun(plain)),
        };
        let mut connection = UpgradableConnection::new(tcp);
        if let Some(tls) = tls {
            connection.start_tls_by(StartTls::server(&tls), deadline).await?;
        }
        Ok(Box::new(connection))
    }
}
