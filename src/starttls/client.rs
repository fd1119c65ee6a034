//! The client's side.

use std::fmt;

use crate::core::dialogue::{ClientSettings, Dialogue, Machine};
use crate::error::{DialogueError, Error};
use crate::starttls::drive::{Goal, drive};
use crate::transport::UpgradableTransport;

/// The client's side of a dialogue.
///
/// ```no_run
/// # async fn f(tls: bowline::ClientTls) -> Result<(), bowline::Error> {
/// use bowline::starttls::{Client, Dialogue};
/// use bowline::{Connector, StartTls, UpgradableConnection};
///
/// let mut connection = UpgradableConnection::new(Connector::new().connect("mail.example", 25).await?);
/// let mut client = Client::new(Dialogue::Smtp, "mail.example").hello("client.example");
/// client.negotiate(&mut connection).await?;
/// println!("{}", bowline::escaped(client.greeting())); // 220 mail.example ESMTP
/// connection.start_tls(StartTls::client(&tls, "mail.example")).await?;
/// # Ok(()) }
/// ```
pub struct Client {
    dialogue: Dialogue,
    settings: ClientSettings,
    machine: Option<Machine>,
}

impl Client {
    /// A dialogue with the server of this name. The name is sent only in XMPP.
    pub fn new(dialogue: Dialogue, name: impl Into<String>) -> Self {
        let settings = ClientSettings { name: name.into(), hello: None, mysql_capabilities: 0 };
        Self { dialogue, settings, machine: None }
    }

    /// Sets our own name, which is sent in `EHLO` and `LHLO` (default `localhost`), and as `from` in XMPP between
    /// servers. Characters other than printable ASCII are removed. After the dialogue has started, this has no effect.
    #[must_use]
    pub fn hello(mut self, name: impl Into<String>) -> Self {
        self.settings.hello = Some(name.into());
        self
    }

    /// MySQL: sets capability flags for the SSLRequest packet, in addition to those that TLS needs (`CLIENT_SSL`,
    /// `CLIENT_PROTOCOL_41`, `CLIENT_SECURE_CONNECTION`). In TLS, a server may require the same flags again. After the
    /// dialogue has started, this has no effect.
    #[must_use]
    pub fn mysql_capabilities(mut self, flags: u32) -> Self {
        self.settings.mysql_capabilities = flags;
        self
    }

    /// Reads the server's greeting, and sends nothing. In a protocol in which the client sends first, this returns at
    /// once.
    ///
    /// # Errors
    ///
    /// As for [`negotiate`](Self::negotiate).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: another call, or [`negotiate`](Self::negotiate), continues where this one stopped.
    pub async fn read_greeting<C>(&mut self, connection: &mut C) -> Result<&[u8], Error>
    where
        C: UpgradableTransport + ?Sized,
    {
        drive(self.machine(), connection, Goal::Greeting).await?;
        Ok(self.greeting())
    }

    /// Runs the dialogue until the server has agreed to TLS. Then call
    /// [`start_tls`](crate::UpgradableConnection::start_tls), which refuses bytes after the go-ahead.
    ///
    /// [`Policy::handshake_timeout`](crate::Policy::handshake_timeout) limits the wait, counted from this call.
    ///
    /// # Errors
    ///
    /// [`UpgradeError::Dialogue`](crate::UpgradeError::Dialogue) if the server declined or violated its protocol. The
    /// error of [`may_start_tls`](crate::UpgradableConnection::may_start_tls), before anything is sent. The reason, if
    /// the server ended the connection or the time is over. Unless [`DialogueError::may_go_on`] returns true, the
    /// connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: another call continues where this one stopped, and its time limit starts again.
    pub async fn negotiate<C>(&mut self, connection: &mut C) -> Result<(), Error>
    where
        C: UpgradableTransport + ?Sized,
    {
        drive(self.machine(), connection, Goal::Tls).await
    }

    /// All bytes that the server sent before our first message, unchanged. In MySQL, this is the packet with the
    /// scramble. Empty in a protocol in which the client sends first.
    pub fn greeting(&self) -> &[u8] {
        self.machine.as_ref().map(Machine::greeting).unwrap_or_default()
    }

    /// For use without a connection of this crate: reads bytes of the server, and returns how many were read. Before
    /// you pass the remaining bytes, send the [`output`](Self::output). After the go-ahead, refuse all remaining bytes
    /// or, with care, pass them to TLS.
    ///
    /// # Errors
    ///
    /// The dialogue has ended without TLS.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, DialogueError> {
        self.machine().take(bytes)
    }

    /// For use without a connection of this crate: returns the bytes to send now. `unread` are the bytes of the server
    /// that have arrived and that [`receive`](Self::receive) did not read.
    ///
    /// # Errors
    ///
    /// The server has answered before the question.
    pub fn output(&mut self, unread: &[u8]) -> Result<Vec<u8>, DialogueError> {
        self.machine().give(unread)
    }

    /// Whether the server has agreed to TLS, and all output was taken.
    pub fn is_agreed(&self) -> bool {
        self.machine.as_ref().is_some_and(Machine::is_agreed)
    }

    fn machine(&mut self) -> &mut Machine {
        self.machine.get_or_insert_with(|| Machine::client(&self.dialogue, &self.settings))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("dialogue", &self.dialogue)
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}
