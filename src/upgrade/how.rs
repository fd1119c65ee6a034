//! How TLS is to be started.

use crate::config::{ClientTls, ServerTls};
use crate::control::Control;
use crate::error::Error;
use crate::policy::{Leftover, Role};

/// How TLS is to be started: in which role, with which configuration, and what becomes of leftover bytes. The role goes
/// with the configuration, so that no wrong pair can be spelled (rule: upgrade-4).
#[derive(Clone)]
#[must_use]
pub struct StartTls {
    pub(super) side: Side,
    pub(super) leftover: Option<Leftover>,
    /// The connection begins with TLS: no plaintext comes before it.
    is_begin: bool,
}

#[derive(Clone)]
pub(super) enum Side {
    Client {
        tls: ClientTls,
        name: String,
    },
    Server {
        tls: ServerTls,
    },
    /// The side that TCP was made by.
    AsMade {
        client: ClientTls,
        name: String,
        server: ServerTls,
    },
}

impl StartTls {
    /// As the client; the server's certificate is checked against `name`.
    pub fn client(tls: &ClientTls, name: impl Into<String>) -> Self {
        Self { side: Side::Client { tls: tls.clone(), name: name.into() }, leftover: None, is_begin: false }
    }

    /// As the server.
    pub fn server(tls: &ServerTls) -> Self {
        Self { side: Side::Server { tls: tls.clone() }, leftover: None, is_begin: false }
    }

    /// In the role that the connection has: a client where it was made by connecting, a server where it was accepted
    /// (rule: upgrade-4). One that was handed in ready-made counts as accepted.
    pub fn as_made(client: &ClientTls, name: impl Into<String>, server: &ServerTls) -> Self {
        let side = Side::AsMade { client: client.clone(), name: name.into(), server: server.clone() };
        Self { side, leftover: None, is_begin: false }
    }

    /// What becomes of bytes that were received before TLS begins and not read (rules: upgrade-2, upgrade-11). For a
    /// client these are also the bytes that the kernel holds when the ClientHello is about to leave. Default: what
    /// [`Role::default_leftover`] says.
    pub fn leftover(self, leftover: Leftover) -> Self {
        Self { leftover: Some(leftover), ..self }
    }

    /// The connection is to begin with TLS: what the peer sends, it sends to TLS.
    pub(crate) fn at_begin(self) -> Self {
        Self { is_begin: true, ..self }
    }

    /// Whether what the peer has sent by now is to be looked for: not by a server, whose peer may have begun its handshake
    /// (rule: upgrade-11).
    pub(super) fn must_look(&self, control: &Control) -> bool {
        let traffic = control.traffic();
        let is_first = self.is_begin && traffic.received == 0 && traffic.sent == 0;
        matches!(self.side, Side::Client { .. }) && !is_first
    }

    /// Finds a name that no certificate can be checked against before anything is begun.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.side {
            Side::Client { name, .. } => crate::config::server_name(name).map(drop),
            Side::Server { .. } | Side::AsMade { .. } => Ok(()),
        }
    }

    /// Settles the role.
    pub(super) fn settle(self, made: Role) -> Self {
        let Self { side, leftover, is_begin } = self;
        let side = match (side, made) {
            (Side::AsMade { client: tls, name, .. }, Role::Client) => Side::Client { tls, name },
            (Side::AsMade { server: tls, .. }, Role::Server) => Side::Server { tls },
            (side, _) => side,
        };
        let role = if matches!(side, Side::Client { .. }) { Role::Client } else { Role::Server };
        Self { side, leftover: Some(leftover.unwrap_or(role.default_leftover())), is_begin }
    }
}
