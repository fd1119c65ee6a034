//! The server's side.

use std::fmt;

use crate::core::dialogue::{Dialogue, Machine, ServerSettings};
use crate::error::{DialogueError, Error};
use crate::starttls::drive::{Goal, drive};
use crate::transport::UpgradableTransport;

/// The server's side of a dialogue, for a service that requires TLS. It sends a greeting, lists TLS as its only
/// feature, and refuses all other commands in the way of its protocol.
///
/// ```no_run
/// # async fn f(listener: bowline::Listener, tls: bowline::ServerTls) -> Result<(), bowline::Error> {
/// use bowline::StartTls;
/// use bowline::starttls::{Dialogue, Server};
///
/// let mut connection = listener.accept().await?.into_upgradable();
/// Server::new(Dialogue::Imap).name("mail.example").negotiate(&mut connection).await?;
/// connection.start_tls(StartTls::server(&tls)).await?;
/// # Ok(()) }
/// ```
pub struct Server {
    dialogue: Dialogue,
    settings: ServerSettings,
    machine: Option<Machine>,
}

impl Server {
    /// A dialogue with a client.
    pub fn new(dialogue: Dialogue) -> Self {
        let settings = ServerSettings { name: "localhost".into(), greeting: None };
        Self { dialogue, settings, machine: None }
    }

    /// Sets the name of this server for its greeting and answers (default `localhost`). In lines, characters other than
    /// printable ASCII are removed. After the dialogue has started, this has no effect.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets the bytes of the greeting, including the end of the line, instead of our own greeting. A server of MySQL
    /// sets the packet with the scramble that it will check, and with the flag `CLIENT_SSL`. After the dialogue has
    /// started, this has no effect.
    #[must_use]
    pub fn greeting(mut self, greeting: impl Into<Vec<u8>>) -> Self {
        self.settings.greeting = Some(greeting.into());
        self
    }

    /// Answers until the client has requested TLS and got the go-ahead. Then call
    /// [`start_tls`](crate::UpgradableConnection::start_tls).
    ///
    /// [`Policy::handshake_timeout`](crate::Policy::handshake_timeout) limits the wait, counted from this call.
    ///
    /// # Errors
    ///
    /// [`UpgradeError::Dialogue`](crate::UpgradeError::Dialogue) if the client left, violated its protocol, or sent
    /// plaintext after the command that requests TLS. The error of
    /// [`may_start_tls`](crate::UpgradableConnection::may_start_tls), before anything is sent (rule: upgrade-12). The
    /// reason, if the client ended the connection or the time is over. Unless [`DialogueError::may_go_on`] returns
    /// true, the connection has ended.
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

    /// The last message of the client, unchanged. After both sides have agreed to TLS, this is the message that
    /// requested it. In MySQL, it is the SSLRequest packet with the client's capabilities.
    pub fn request(&self) -> &[u8] {
        self.machine.as_ref().map(Machine::last).unwrap_or_default()
    }

    /// For use without a connection of this crate: reads bytes of the client, and returns how many were read. Before
    /// you pass the remaining bytes, send the [`output`](Self::output). After the go-ahead, all remaining bytes belong
    /// to TLS.
    ///
    /// # Errors
    ///
    /// The dialogue has ended without TLS.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, DialogueError> {
        self.machine().take(bytes)
    }

    /// For use without a connection of this crate: returns the bytes to send now. `unread` are the bytes of the client
    /// that have arrived and that [`receive`](Self::receive) did not read.
    ///
    /// # Errors
    ///
    /// The client has sent plaintext after the command that requests TLS.
    pub fn output(&mut self, unread: &[u8]) -> Result<Vec<u8>, DialogueError> {
        self.machine().give(unread)
    }

    /// Whether the client has requested TLS, and all output was taken.
    pub fn is_agreed(&self) -> bool {
        self.machine.as_ref().is_some_and(Machine::is_agreed)
    }

    fn machine(&mut self) -> &mut Machine {
        self.machine.get_or_insert_with(|| Machine::server(&self.dialogue, &self.settings))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("dialogue", &self.dialogue)
            .field("machine", &self.machine)
            .finish_non_exhaustive()
    }
}
