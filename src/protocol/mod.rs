//! The callback interface: implement [`Protocol`], and this module calls it when something happens to the connection.
//! Callbacks use the connection through [`Conn`], and never wait.
//!
//! A [`Protocol`] runs unchanged over TCP, TLS, an upgraded connection, TLS in TLS, a Unix socket, and the test doubles
//! in `testing`. A [`Runner`] runs it over a transport, in one task. A [`Server`] starts a runner for each connection
//! that it accepts.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bowline::Transport;
//! use bowline::protocol::{CallbackResult, Conn, Protocol, Runner};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
//!         conn.write(data);
//!         Ok(data.len())
//!     }
//! }
//!
//! let (mut client, server) = bowline::testing::tcp_pair().await?;
//! let serving = tokio::spawn(Runner::new(Echo, server).run());
//! client.write_all(b"hello").await?;
//! client.close_write().await?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! assert!(serving.await?.is_clean()); // the server closed after the client's end, when its last byte had left
//! # Ok(()) }
//! ```
//!
//! # Coming from Twisted
//!
//! The search of this documentation finds most of Twisted's names. Twisted has four interfaces for a transport, each
//! of which extends the one before it. The async face has one trait for each of them. A callback always gets a
//! [`Conn`], which has the methods of all four.
//!
//! | Twisted | callback face | async face |
//! |---|---|---|
//! | `IProtocol`, `IHalfCloseableProtocol`, `IHandshakeListener` | [`Protocol`] | |
//! | `ITransport`, `IConsumer` | [`Conn`] | [`Transport`](crate::Transport) |
//! | `ITCPTransport` | [`Conn`] and [`SocketOptions`](crate::SocketOptions) | [`TcpTransport`](crate::TcpTransport) and [`SocketOptions`](crate::SocketOptions) |
//! | `ISSLTransport` | [`Conn`] | [`TlsTransport`](crate::TlsTransport) |
//! | `ITLSTransport` | [`Conn`] | [`UpgradableTransport`](crate::UpgradableTransport) |
//! | `IPushProducer`, `IPullProducer` | [`PushProducer`], [`PullProducer`] | |
//! | `IProtocolFactory` | [`Factory`] | |
//! | `LineReceiver`, `Int32StringReceiver` | `MessageProtocol` (feature `codec`) | |
//! | `reactor.callFromThread(transport.write, ..)` | [`Handle`] | [`Control`](crate::Control) |
//! | `StringTransport` | `testing::Recorder` | |
//!
//! # The callbacks
//!
//! | callback | when | how often |
//! |---|---|---|
//! | [`connection_made`](Protocol::connection_made) | the connection exists | once, first |
//! | [`handshake_completed`](Protocol::handshake_completed) | TLS has started | once for each TLS session, before its data |
//! | [`data_received`](Protocol::data_received) | bytes have arrived | |
//! | [`writable`](Protocol::writable) | the queue is down to the low mark | once for each time that the high mark was passed |
//! | [`tls_stopped`](Protocol::tls_stopped) | TLS has ended, plaintext follows | once for each downgrade |
//! | [`timer_fired`](Protocol::timer_fired) | the time of the timer has come | once for each timer |
//! | [`draining`](Protocol::draining) | the service drains: the connection should end | at most once |
//! | [`read_closed`](Protocol::read_closed) | the peer's half has ended | at most once |
//! | [`write_closed`](Protocol::write_closed) | our end marker has left | at most once |
//! | [`connection_lost`](Protocol::connection_lost) | the connection is over, for this reason | once, last |
//!
//! No callback runs during a call that a callback made (rule: life-2). The calls of a callback are recorded, and
//! carried out in their order after the callback has returned. If a callback returns an error or panics, only its own
//! connection ends (rule: life-3).
//!
//! # How much memory a peer can use
//!
//! If a peer sends but does not read, we stop reading from it (rule: write-10). Reading stops when the unsent answers
//! exceed the [high mark](crate::Watermarks), and resumes at the low mark. Resets, aborts, timers and time limits
//! still take effect meanwhile, and no data is lost. One connection holds at most
//!
//! - the high mark (64 KiB by default) and the answers to one message, if `Framed` (feature `codec`) cuts the
//!   messages, or if the protocol checks [`Conn::reading`] before each message. Otherwise it holds the high mark and
//!   the answers to the bytes of one call, which are at most 33 KiB;
//! - the bytes that were received and not processed: [`max_unread`](Protocol::max_unread) (1 MiB by default) and 33
//!   KiB.
//!
//! While the queue grows, it takes up to twice the size of its content, and TLS has buffers of its own. With the
//! default marks and short answers, or with an echo, a connection holds less than 256 KiB over TCP and less than 512
//! KiB over TLS, whatever the peer sends.

mod callbacks;
mod change;
mod conn;
mod current;
mod deferred;
mod dispatcher;
mod failure;
mod file;
#[cfg(feature = "codec")]
mod framed;
#[cfg(feature = "codec")]
mod framing;
mod guard;
mod handle;
mod handle_state;
#[cfg(feature = "codec")]
mod message;
mod relay;
mod reply;
mod runner;
mod server;

pub use self::callbacks::{AfterRead, Protocol};
#[cfg(feature = "testing")]
pub(crate) use self::conn::CommandTarget;
pub use self::conn::{Conn, Handle, Producer, PullProducer, PushProducer, Reading};
#[cfg(feature = "testing")]
pub(crate) use self::deferred::DeferredConn;
pub use self::failure::{CallbackResult, Failure, Panicked, Unread};
pub use self::file::FileProducer;
#[cfg(feature = "codec")]
pub use self::framed::Framed;
#[cfg(feature = "codec")]
pub use self::message::{MessageConn, MessageProtocol};
pub use self::relay::{RelayLeg, relay};
pub use self::reply::Reply;
pub use self::runner::Runner;
pub use self::server::{Factory, Server, every};
