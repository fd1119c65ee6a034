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
    /// A dialogue with the server of this name, which XMPP tells the server.
    pub fn new(dialogue: Dialogue, name: impl Into<String>) -> Self {
        let settings = ClientSettings { name: name.into(), hello: None, mysql_capabilities: 0 };
        Self { dialogue, settings, machine: None }
    }

    /// Our own name: for `EHLO` and `LHLO`, where it is `localhost` otherwise, and for `from` in XMPP between servers. Characters
    /// other than printable ASCII are left out. It has no effect once the dialogue has begun.
    #[must_use]
    pub fn hello(mut self, name: impl Into<String>) -> Self {
        self.settings.hello = Some(name.into());
        self
    }

    /// MySQL: capability flags for the SSLRequest packet, besides those that TLS needs (`CLIENT_SSL`, `CLIENT_PROTOCOL_41`,
    /// `CLIENT_SECURE_CONNECTION`). A server may hold the client to these flags in TLS. It has no effect once the dialogue has
    /// begun.
    #[must_use]
    pub fn mysql_capabilities(mut self, flags: u32) -> Self {
        self.settings.mysql_capabilities = flags;
        self
    }

    /// Reads the server's greeting, and says nothing. In a protocol in which the client speaks first, this returns at once.
    ///
    /// # Errors
    ///
    /// As for [`negotiate`](Self::negotiate).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: another call, or [`negotiate`](Self::negotiate), goes on where this one was.
    pub async fn read_greeting<C>(&mut self, connection: &mut C) -> Result<&[u8], Error>
    where
        C: UpgradableTransport + ?Sized,
    {
        drive(self.machine(), connection, Goal::Greeting).await?;
        Ok(self.greeting())
    }

    /// Talks until the server has agreed to TLS. Next is
    /// [`start_tls`](crate::UpgradableConnection::start_tls), which refuses bytes after the go-ahead.
    ///
    /// The wait is bounded by [`Policy::handshake_timeout`](crate::Policy::handshake_timeout), from this call on.
    ///
    /// # Errors
    ///
    /// [`UpgradeError::Dialogue`](crate::UpgradeError::Dialogue): the server declined, or broke its protocol. Before anything
    /// is said, the error of [`may_start_tls`](crate::UpgradableConnection::may_start_tls). The server ended the connection, or
    /// the time is over: the reason. Where [`DialogueError::may_go_on`] does not say otherwise, the connection has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: another call goes on where this one was, with its time anew.
    pub async fn negotiate<C>(&mut self, connection: &mut C) -> Result<(), Error>
    where
        C: UpgradableTransport + ?Sized,
    {
        drive(self.machine(), connection, Goal::Tls).await
    }

    /// All bytes that the server sent before we said anything, as they came: in MySQL, the packet with the scramble. Empty in
    /// a protocol in which the client speaks first.
    pub fn greeting(&self) -> &[u8] {
        self.machine.as_ref().map(Machine::greeting).unwrap_or_default()
    }

    /// Without a connection of this crate: takes bytes of the server, and returns how many. The others are not for now: send the
    /// [`output`](Self::output) first. After the go-ahead all bytes that are left must be refused, or, with care, be given to
    /// TLS.
    ///
    /// # Errors
    ///
    /// The dialogue has ended without TLS.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, DialogueError> {
        self.machine().take(bytes)
    }

    /// Without a connection of this crate: what is to be sent now. `unread` are the bytes of the server that have arrived and that
    /// [`receive`](Self::receive) did not take.
    ///
    /// # Errors
    ///
    /// The server has answered before it was asked.
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
