//! Protocols that start in plaintext and change to TLS on the same connection (STARTTLS): the plaintext part, for
//! clients and for servers (feature `starttls`).
//!
//! [`Dialogue`] names the protocol. [`client`] and [`server`] run its plaintext part over any upgradable connection,
//! and start TLS:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bowline::starttls::{self, Dialogue};
//! use bowline::{TlsTransport, Transport, UpgradableConnection};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let pki = bowline::testing::pki::Pki::new();
//! let (client, server) = bowline::testing::tcp_pair().await?;
//! let mut client = UpgradableConnection::new(client);
//! let mut server = UpgradableConnection::new(server);
//! let (client_tls, server_tls) = (pki.client_tls(), pki.server_tls());
//!
//! let serving = async {
//!     starttls::server(&mut server, Dialogue::Smtp, &server_tls).await?;
//!     server.write_all(b"in TLS").await?;
//!     Ok::<_, bowline::Error>(server.close().await)
//! };
//! let using = async {
//!     starttls::client(&mut client, Dialogue::Smtp, &client_tls, "localhost").await?;
//!     assert!(client.is_secure());
//!     let mut text = String::new();
//!     client.read_to_string(&mut text).await?;
//!     client.close().await;
//!     Ok(text)
//! };
//! let (report, text) = tokio::try_join!(serving, using)?;
//! assert!(report.is_clean());
//! assert_eq!(text, "in TLS");
//! # Ok(()) }
//! ```
//!
//! [`Client`] and [`Server`] do the same in steps, and have settings. They also work without a connection of this
//! crate, for example in a callback: pass the peer's bytes to `receive`, and send the bytes that `output` returns.
//!
//! # What is refused
//!
//! Plaintext is not authenticated, so each protocol is parsed strictly. A client refuses bytes that its protocol does
//! not allow at that point, an answer that came before its question, and every byte after the go-ahead, including bytes
//! that are still in the kernel (rules: upgrade-2, upgrade-11). A server refuses plaintext after the command that
//! requests TLS (rule: upgrade-3). Each side accepts at most 64 KiB from its peer, and a server accepts at most 100
//! commands. [`Policy::handshake_timeout`](crate::Policy::handshake_timeout) limits the time of the whole dialogue.
//!
//! The error is [`UpgradeError::Dialogue`] with a [`DialogueError`], which quotes the peer's words, escaped and
//! shortened. If the peer only refused, the connection can be used further in plaintext ([`DialogueError::may_go_on`]).
//! After any other error, the connection has ended.
//!
//! Nothing that the peer sent in plaintext is valid in TLS, so request its capabilities again.

mod client;
mod drive;
mod server;

pub use client::Client;
pub use server::Server;

pub use crate::core::dialogue::{Dialogue, LineCommand, UnknownDialogue};

use crate::config::start_tls::StartTls;
use crate::config::{ClientTls, ServerTls};
use crate::error::Error;
#[cfg(doc)]
use crate::error::{DialogueError, UpgradeError};
use crate::transport::UpgradableTransport;

/// Requests TLS from the server with this dialogue, and does the handshake. The server's certificate is checked against
/// `name`.
///
/// # Errors
///
/// [`UpgradeError::Dialogue`] if the server declined or violated its protocol. Otherwise the errors of
/// [`start_tls`](crate::UpgradableConnection::start_tls), after which the connection has ended.
///
/// # Cancel safety
///
/// Not cancel safe, but [`Client::negotiate`] is.
pub async fn client<C>(connection: &mut C, dialogue: Dialogue, tls: &ClientTls, name: &str) -> Result<(), Error>
where
    C: UpgradableTransport + ?Sized,
{
    Client::new(dialogue, name).negotiate(connection).await?;
    connection.start_tls(StartTls::client(tls, name)).await
}

/// Serves the dialogue until the client requests TLS, and does the handshake. Before it requests TLS, the client can do
/// nothing else than end the dialogue.
///
/// # Errors
///
/// [`UpgradeError::Dialogue`] if the client left or violated its protocol. Otherwise the errors of
/// [`start_tls`](crate::UpgradableConnection::start_tls), after which the connection has ended.
///
/// # Cancel safety
///
/// Not cancel safe, but [`Server::negotiate`] is.
pub async fn server<C>(connection: &mut C, dialogue: Dialogue, tls: &ServerTls) -> Result<(), Error>
where
    C: UpgradableTransport + ?Sized,
{
    Server::new(dialogue).negotiate(connection).await?;
    connection.start_tls(StartTls::server(tls)).await
}
