//! The settings of an upgrade to TLS.

use std::fmt;

use crate::config::{ClientTls, ServerTls};
use crate::error::Error;
use crate::policy::{Leftover, Role};

/// How to start TLS: the role, the configuration, and the treatment of leftover bytes. Role and configuration go together,
/// so that no wrong pair can be written (rule: upgrade-4).
#[derive(Clone)]
#[must_use]
pub struct StartTls {
    pub(crate) side: Side,
    pub(crate) leftover: Option<Leftover>,
    /// The connection begins with TLS: no plaintext comes first.
    is_begin: bool,
}

impl fmt::Debug for StartTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Client { .. } => "client",
            Side::Server { .. } => "server",
            Side::AsMade { .. } => "as made",
        };
        f.debug_struct("StartTls").field("side", &side).field("leftover", &self.leftover).finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub(crate) enum Side {
    Client {
        tls: ClientTls,
        name: String,
    },
    Server {
        tls: ServerTls,
    },
    /// The role follows the TCP connection.
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

    /// In the role of the connection: client if it was made by connecting, server if it was accepted (rule: upgrade-4). A
    /// connection that was passed in counts as accepted.
    pub fn as_made(client: &ClientTls, name: impl Into<String>, server: &ServerTls) -> Self {
        let side = Side::AsMade { client: client.clone(), name: name.into(), server: server.clone() };
        Self { side, leftover: None, is_begin: false }
    }

    /// Sets the treatment of bytes that were received before TLS begins and not read (rules: upgrade-2, upgrade-11). For a
    /// client, these include the bytes that the kernel holds when the ClientHello is about to leave. Default:
    /// [`Role::default_leftover`].
    pub fn leftover(self, leftover: Leftover) -> Self {
        Self { leftover: Some(leftover), ..self }
    }

    /// The connection begins with TLS: all bytes of the peer belong to TLS.
    pub(crate) fn at_begin(self) -> Self {
        Self { is_begin: true, ..self }
    }

    /// Whether to look for bytes that the peer has sent by now: not for a server, whose peer may have begun its handshake
    /// (rule: upgrade-11). `has_carried`: whether the connection has carried bytes already.
    pub(crate) fn must_look(&self, has_carried: bool) -> bool {
        let is_first = self.is_begin && !has_carried;
        matches!(self.side, Side::Client { .. }) && !is_first
    }

    /// Rejects an invalid server name before the upgrade begins.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.side {
            Side::Client { name, .. } => crate::config::server_name(name).map(drop),
            Side::Server { .. } | Side::AsMade { .. } => Ok(()),
        }
    }

    /// Decides the role.
    pub(crate) fn settle(self, made: Role) -> Self {
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
