//! The callback face: objects that are told what happened, and call the transport back without ever waiting.
//!
//! A [`Protocol`] runs unchanged over TCP, TLS, an upgraded connection, TLS in TLS, a Unix socket, and the doubles in
//! `testing`. A [`Runner`] drives it over a transport, in one task; a [`Server`] makes one for each
//! connection that it accepts.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bowline::protocol::{Outcome, Protocol, Runner, UpgradableTransport};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
//!         transport.write(data);
//!         Ok(data.len())
//!     }
//! }
//!
//! let (mut client, server) = bowline::testing::tcp_pair().await?;
//! let serving = tokio::spawn(Runner::new(Echo, server).run());
//! client.write_all(b"hello").await?;
//! bowline::Transport::close_write(&mut client).await?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! assert!(serving.await?.is_clean()); // the peer's end closed it, behind the last byte
//! # Ok(()) }
//! ```
//!
//! # What a protocol is told
//!
//! | callback | when | how often |
//! |---|---|---|
//! | [`connection_made`](Protocol::connection_made) | the connection is there | once, first |
//! | [`handshake_completed`](Protocol::handshake_completed) | TLS flows | once for each TLS session, ahead of its data |
//! | [`data_received`](Protocol::data_received) | bytes have come | |
//! | [`writable`](Protocol::writable) | there is room again | once for each time that the high mark was passed |
//! | [`tls_stopped`](Protocol::tls_stopped) | plaintext flows again | once for each downgrade |
//! | [`timer_fired`](Protocol::timer_fired) | the time that was asked for has come | once for each timer |
//! | [`draining`](Protocol::draining) | the service drains: it is to end | at most once |
//! | [`read_closed`](Protocol::read_closed) | the peer's half has ended | at most once |
//! | [`write_closed`](Protocol::write_closed) | our marker has left | at most once |
//! | [`connection_lost`](Protocol::connection_lost) | it is over, for this reason | once, last |
//!
//! No callback runs from inside a call that a callback made (rule: life-2): what a callback asks for is noted, and carried
//! out in the order of the calls after it has returned. A callback that returns an error or panics ends its connection,
//! and no other (rule: life-3).
//!
//! # How much memory a peer can take
//!
//! If a peer sends and does not read, we stop reading from it (rule: write-10): reading stops when the unsent answers exceed the
//! [high mark](crate::Watermarks), until they are down to the low mark. Resets, aborts, timers and bounds still take effect
//! meanwhile, and nothing is lost. One connection holds at most
//!
//! - the high mark (64 KiB by default) and the answers to one message, if `Framed` (feature `codec`) cuts the messages, or if the
//!   protocol checks [`Transport::reading`] before each message; otherwise the high mark and the answers to the bytes of one
//!   call, which are at most 33 KiB;
//! - the bytes that were received and not processed: [`max_unread`](Protocol::max_unread) (1 MiB by default) and 33 KiB.
//!
//! The queue takes up to twice its bytes while it grows, and TLS has buffers of its own. With the default marks and short
//! answers, or with an echo, a connection holds less than 256 KiB over TCP and less than 512 KiB over TLS, whatever the
//! peer sends.

mod change;
mod conn;
mod current;
mod deferred;
mod dispatcher;
mod file;
#[cfg(feature = "codec")]
mod framing;
mod guard;
mod handle;
mod handle_state;
#[cfg(feature = "codec")]
mod message;
mod producer;
mod relay;
mod runner;
mod server;

pub use self::conn::{Reading, TcpTransport, TlsTransport, Transport, UpgradableTransport};
#[cfg(feature = "testing")]
pub(crate) use self::deferred::DeferredConn;
pub use self::file::FileProducer;
#[cfg(feature = "codec")]
pub use self::framing::Framed;
pub use self::guard::Panicked;
pub use self::handle::{Handle, Reply};
#[cfg(feature = "codec")]
pub use self::message::{MessageProtocol, MessageTransport};
pub use self::producer::{Producer, PullProducer, PushProducer};
pub use self::relay::{RelayLeg, relay};
pub use self::runner::Runner;
pub use self::server::{Factory, Server, every};
use crate::core::half::End;
use crate::error::Reason;

/// Why a callback failed. It becomes the connection's [`Reason`]: one of this crate's errors as what it says, any other as
/// [`Reason::Protocol`].
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a callback returns: an error ends the connection (rule: life-3), with RST, so that the peer cannot take what it got
/// for all there is.
pub type Outcome<T = ()> = Result<T, Failure>;

/// What becomes of the connection when the peer has ended its half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AfterRead {
    /// What was written leaves, then the connection is closed; a producer is stopped (rules: close-8, half-11).
    #[default]
    Close,
    /// The protocol is half-closeable: it goes on writing, and closes when it is done (rule: half-6).
    KeepWriting,
}

/// An object that is told what happens to one connection.
///
/// All callbacks have a default, but for [`data_received`](Self::data_received). They must not block: they share a thread
/// with other connections. Work that takes time goes to a task with the [`Handle`], which every
/// [`transport`](Transport::handle) gives.
#[doc(alias = "IProtocol")]
#[doc(alias = "IHalfCloseableProtocol")]
#[doc(alias = "IHandshakeListener")]
#[doc(alias = "BufferedProtocol")]
pub trait Protocol: Send + 'static {
    /// The connection is there. On one that begins with TLS the handshake is still to come: what is written now leaves
    /// encrypted after it (rule: write-3).
    #[doc(alias = "connectionMade")]
    fn connection_made(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// TLS flows; [`tls`](TlsTransport::tls) tells what was agreed on (rule: secure-2).
    #[doc(alias = "handshakeCompleted")]
    fn handshake_completed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// Bytes have come; they are lent from the transport's own buffer. Returns how many of them are done with. The rest
    /// stays with the transport and comes again, with more behind it: nobody needs a buffer to wait for the end of a line.
    /// One call lends at most 33 KiB in addition to the bytes that earlier calls left.
    ///
    /// If a protocol answers many messages in one call, it should check [`reading`](Transport::reading) before each of them, and
    /// leave the rest when reading is paused: too many answers are unsent, or the protocol has paused itself (rule: write-10).
    ///
    /// What is not done with when TLS is started is leftover, and is judged (rule: upgrade-2): so a protocol that returns
    /// after the line `STARTTLS` how much that line was cannot be injected.
    #[doc(alias = "dataReceived")]
    fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize>;

    /// How many bytes [`data_received`](Self::data_received) may leave; default 1 MiB. Past it the connection ends, with
    /// [`Unread`] as the reason: a line without an end must not take all memory.
    fn max_unread(&self) -> usize {
        1 << 20
    }

    /// Whether reading stops when this protocol's unsent answers exceed the high mark, until they are down to the low mark
    /// (rule: write-10); default `true`. Answers are the bytes that [`data_received`](Self::data_received) writes, also through
    /// the connection's [`Handle`]. Bytes from other callbacks, from a producer, or from another task do not stop reading.
    ///
    /// A protocol that returns `false` keeps receiving, and has to bound the memory that a peer that does not read can take.
    /// Called once, before [`connection_made`](Self::connection_made).
    fn stops_reading_when_full(&self) -> bool {
        true
    }

    /// The queue of unsent bytes was above the high mark and has come down to the low one (rule: write-8).
    #[doc(alias = "resume_writing")]
    fn writable(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// TLS was stopped, and plaintext flows again (rule: upgrade-9).
    fn tls_stopped(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// The time that [`set_timer`](Transport::set_timer) asked for has come.
    #[doc(alias = "callLater")]
    fn timer_fired(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// The [group](crate::DrainGroup) that the connection belongs to, mostly that of its listener, drains: it is to end. By
    /// default it is closed. Told once; a connection that is still in its first handshake is aborted instead.
    #[doc(alias = "stopListening")]
    fn draining(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        transport.close();
        Ok(())
    }

    /// The peer has ended its half, behind all its data: clean, or truncated (rule: half-6). A protocol is half-closeable
    /// if it answers so; by default it is closed.
    #[doc(alias = "readConnectionLost")]
    #[doc(alias = "eof_received")]
    fn read_closed(&mut self, transport: &mut dyn UpgradableTransport, end: End) -> Outcome<AfterRead> {
        let _ = (transport, end);
        Ok(AfterRead::Close)
    }

    /// Our own half has ended: its marker has left (rule: half-7).
    #[doc(alias = "writeConnectionLost")]
    fn write_closed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// It is over. Told once, last, whatever happened (rules: life-1, end-1).
    #[doc(alias = "connectionLost")]
    fn connection_lost(&mut self, reason: &Reason) {
        let _ = reason;
    }
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn connection_made(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        (**self).connection_made(transport)
    }

    fn handshake_completed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        (**self).handshake_completed(transport)
    }

    fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
        (**self).data_received(transport, data)
    }

    fn max_unread(&self) -> usize {
        (**self).max_unread()
    }

    fn stops_reading_when_full(&self) -> bool {
        (**self).stops_reading_when_full()
    }

    fn writable(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        (**self).writable(transport)
    }

    fn tls_stopped(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        (**self).tls_stopped(transport)
    }

    fn timer_fired(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        (**self).timer_fired(transport)
    }

    fn draining(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        (**self).draining(transport)
    }

    fn read_closed(&mut self, transport: &mut dyn UpgradableTransport, end: End) -> Outcome<AfterRead> {
        (**self).read_closed(transport, end)
    }

    fn write_closed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        (**self).write_closed(transport)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        (**self).connection_lost(reason);
    }
}

/// A protocol left more bytes unread than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// How many it left.
    pub bytes: usize,
    /// How many it may: [`Protocol::max_unread`].
    pub limit: usize,
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the protocol left {} bytes unread, and may leave {}", self.bytes, self.limit)
    }
}

impl std::error::Error for Unread {}
