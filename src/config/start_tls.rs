//! The settings of an upgrade to TLS.

use std::fmt;

use crate::config::{ClientTls, ServerTls};
use crate::error::Error;
use crate::policy::{Leftover, Role};

/// How to start TLS: the role, the configuration, and the treatment of leftover bytes. Each role takes the
/// configuration of its own type, so a wrong pair does not compile (rule: upgrade-4).
///
/// ```
/// # use bowline::{ClientTls, Error, Leftover, ServerTls, StartTls, UpgradableTransport};
/// # async fn example(connection: &mut dyn UpgradableTransport, tls: &ClientTls) -> Result<(), Error> {
/// // The server's certificate has to be valid for this name.
/// connection.start_tls(StartTls::client(tls, "mail.example.com")).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct StartTls {
    role: Choice,
    leftover: Option<Leftover>,
    /// Whether the connection starts with TLS, without plaintext before it.
    is_begin: bool,
}

impl fmt::Debug for StartTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match &self.role {
            Choice::Fixed(Side::Client { .. }) => "client",
            Choice::Fixed(Side::Server { .. }) => "server",
            Choice::AsMade { .. } => "as made",
        };
        f.debug_struct("StartTls").field("side", &side).field("leftover", &self.leftover).finish_non_exhaustive()
    }
}

#[derive(Clone)]
enum Choice {
    Fixed(Side),
    /// The role depends on whether we opened or accepted the TCP connection.
    AsMade {
        client: Side,
        server: Side,
    },
}

/// The role, with its configuration.
#[derive(Clone)]
pub(crate) enum Side {
    Client { tls: ClientTls, name: String },
    Server { tls: ServerTls },
}

/// An upgrade with a decided role and, for a client, a valid server name.
pub(crate) struct Settled {
    pub(crate) side: Side,
    pub(crate) leftover: Leftover,
    /// As in [`StartTls`].
    is_begin: bool,
}

impl StartTls {
    /// TLS as the client. The server's certificate is checked against `name`.
    pub fn client(tls: &ClientTls, name: impl Into<String>) -> Self {
        Choice::Fixed(Side::Client { tls: tls.clone(), name: name.into() }).into()
    }

    /// TLS as the server.
    pub fn server(tls: &ServerTls) -> Self {
        Choice::Fixed(Side::Server { tls: tls.clone() }).into()
    }

    /// TLS with the role of the TCP connection: client if we opened the connection, server if we accepted it (rule:
    /// upgrade-4). A connection that the application passed in counts as accepted.
    pub fn as_made(client: &ClientTls, name: impl Into<String>, server: &ServerTls) -> Self {
        let client = Side::Client { tls: client.clone(), name: name.into() };
        Choice::AsMade { client, server: Side::Server { tls: server.clone() } }.into()
    }

    /// Sets the treatment of bytes that were received before TLS begins and not read (rules: upgrade-2, upgrade-11).
    /// For a client, these include the bytes that the kernel holds when the ClientHello is about to leave. Default:
    /// [`Role::default_leftover`].
    pub fn leftover(self, leftover: Leftover) -> Self {
        Self { leftover: Some(leftover), ..self }
    }

    /// Marks the connection as starting with TLS: all bytes of the peer belong to TLS.
    pub(crate) fn at_begin(self) -> Self {
        Self { is_begin: true, ..self }
    }

    /// Decides the role.
    ///
    /// # Errors
    ///
    /// The role is the client's, and the server name is not valid.
    pub(crate) fn settle(self, made: Role) -> Result<Settled, Error> {
        let side = match (self.role, made) {
            (Choice::Fixed(side), _) => side,
            (Choice::AsMade { client, .. }, Role::Client) => client,
            (Choice::AsMade { server, .. }, Role::Server) => server,
        };
        let role = match &side {
            Side::Client { name, .. } => crate::config::server_name(name).map(|_| Role::Client)?,
            Side::Server { .. } => Role::Server,
        };
        let leftover = self.leftover.unwrap_or(role.default_leftover());
        Ok(Settled { side, leftover, is_begin: self.is_begin })
    }
}

impl From<Choice> for StartTls {
    fn from(role: Choice) -> Self {
        Self { role, leftover: None, is_begin: false }
    }
}

impl Settled {
    /// Whether to check the kernel for bytes that the peer has already sent. A server does not check, because its
    /// peer may already have started the handshake (rule: upgrade-11). `has_carried`: whether any bytes have passed
    /// over the connection already.
    pub(crate) fn must_look(&self, has_carried: bool) -> bool {
        let is_first = self.is_begin && !has_carried;
        matches!(self.side, Side::Client { .. }) && !is_first
    }
}
