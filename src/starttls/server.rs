//! The server's side.

use std::fmt;

use crate::core::dialogue::{Dialogue, Machine, ServerSettings};
use crate::error::{DialogueError, Error};
use crate::starttls::drive::{Goal, drive};
use crate::transport::UpgradableTransport;

/// The server's side of a dialogue, for a service that wants TLS: it greets, lists TLS as the only thing that it has, and
/// answers everything else with the refusal that its protocol has for that.
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

    /// The name of this server, for its greeting and answers; otherwise `localhost`. Characters other than printable ASCII are left
    /// out of lines. It has no effect once the dialogue has begun.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// The bytes to greet with, with the end of the line, instead of a greeting of our own. A server of MySQL sets the packet
    /// whose scramble it will check, with `CLIENT_SSL`. It has no effect once the dialogue has begun.
    #[must_use]
    pub fn greeting(mut self, greeting: impl Into<Vec<u8>>) -> Self {
        self.settings.greeting = Some(greeting.into());
        self
    }

    /// Answers until the client asks for TLS and has the go-ahead. Next is
    /// [`start_tls`](crate::UpgradableConnection::start_tls).
    ///
    /// The wait is bounded by [`Policy::handshake_timeout`](crate::Policy::handshake_timeout), from this call on.
    ///
    /// # Errors
    ///
    /// [`UpgradeError::Dialogue`](crate::UpgradeError::Dialogue): the client left, or broke its protocol, or sent plaintext after
    /// the command that asks for TLS. Before anything is said, the error of
    /// [`may_start_tls`](crate::UpgradableConnection::may_start_tls) (rule: upgrade-12). The client ended the connection, or the
    /// time is over: the reason. Where [`DialogueError::may_go_on`] does not say otherwise, the connection has ended.
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

    /// The last message of the client, as it came: once both have agreed to TLS, the one that asked for it. In MySQL, the
    /// SSLRequest packet with the client's capabilities.
    pub fn request(&self) -> &[u8] {
        self.machine.as_ref().map(Machine::last).unwrap_or_default()
    }

    /// Without a connection of this crate: takes bytes of the client, and returns how many. The others are not for now: send the
    /// [`output`](Self::output) first. After the go-ahead all bytes that are left belong to TLS.
    ///
    /// # Errors
    ///
    /// The dialogue has ended without TLS.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, DialogueError> {
        self.machine().take(bytes)
    }

    /// Without a connection of this crate: what is to be sent now. `unread` are the bytes of the client that have arrived and that
    /// [`receive`](Self::receive) did not take.
    ///
    /// # Errors
    ///
    /// The client has sent plaintext after the command that asks for TLS.
    pub fn output(&mut self, unread: &[u8]) -> Result<Vec<u8>, DialogueError> {
        self.machine().give(unread)
    }

    /// Whether the client has asked for TLS, and all output was taken.
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
