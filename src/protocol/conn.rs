//! The interface of a connection as protocols, producers and other tasks see it. These types name each other, so they stand
//! in one file.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::failure::{CallbackResult, Failure};
use super::guard::after_callbacks;
use super::handle_state::{Command, HandleState};
use super::reply::ReplySender;
use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::options::SocketOptions;
use crate::core::facts::SessionFacts;
use crate::error::Error;

/// Whether data is delivered to a protocol: [`Conn::reading`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// It is delivered.
    Open,
    /// Reading is paused, by [`Conn::pause_reading`] or because too many answers are unsent. Received bytes stay unread
    /// (rules: flow-4, write-10).
    Paused,
    /// TLS begins or ends. Bytes that the protocol has not processed are judged when TLS begins, and read again when it ends
    /// (rules: upgrade-2, upgrade-9).
    Changing,
    /// No data is delivered any more (rules: close-10, abort-3).
    Over,
}

/// The connection as a protocol sees it: the calls of [`bowline::Transport`](crate::Transport) and of the traits above it,
/// under the same names, but none of them waits. A callback gets it for the time of its call; other tasks use the
/// [`Handle`].
///
/// No call fails because of what the peer did, and each call is defined after the end of the connection too (rule: life-5).
/// What a callback asks for is carried out after it has returned, in the order of the calls (rule: life-2); only
/// [`abort`](Self::abort) acts at once. The socket options are those of [`SocketOptions`].
///
/// ```
/// use bowline::StartTls;
/// use bowline::protocol::{CallbackResult, Conn};
///
/// /// Answers a STARTTLS command: the reply leaves in plaintext, everything after it is encrypted.
/// fn upgrade(conn: &mut dyn Conn, tls: &bowline::ServerTls) -> CallbackResult {
///     conn.may_start_tls()?; // before the go-ahead, which cannot be taken back
///     conn.write(b"220 go ahead\r\n");
///     conn.start_tls(StartTls::server(tls))?;
///     Ok(())
/// }
/// ```
///
/// The trait is sealed: this crate implements it for the connections of a [`Runner`](super::Runner) and for the test double
/// `testing::Recorder`. New methods can be added without a breaking change.
#[doc(alias = "ITransport")]
#[doc(alias = "IConsumer")]
#[doc(alias = "ITCPTransport")]
#[doc(alias = "ISSLTransport")]
#[doc(alias = "ITLSTransport")]
#[doc(alias = "INegotiated")]
pub trait Conn: SocketOptions {
    /// Sends these bytes after all that was written before. All writes of one callback are merged (rule: write-7). Bytes
    /// that come after `close`, `close_write` or `abort`, or after the end, are dropped and counted (rule: write-4).
    ///
    /// It never waits and has no limit. A protocol that writes much checks [`queued`](Self::queued), waits for
    /// [`writable`](super::Protocol::writable), or registers a [`Producer`].
    fn write(&mut self, bytes: &[u8]);

    /// Writes all parts as one: all of them or none (rule: write-2). The iterator is consumed once.
    ///
    /// ```
    /// # fn answer(conn: &mut dyn bowline::protocol::Conn, lines: &[String]) {
    /// conn.write_sequence(&mut lines.iter().map(|line| line.as_bytes()));
    /// # }
    /// ```
    #[doc(alias = "writeSequence")]
    #[doc(alias = "writelines")]
    fn write_sequence(&mut self, parts: &mut dyn Iterator<Item = &[u8]>);

    /// Ends the connection in order, after all that was written, and after the producer (rules: close-1 to close-11). Input
    /// that arrives from now on is discarded.
    #[doc(alias = "loseConnection")]
    fn close(&mut self);

    /// Ends our send half, after all that was written, and after the producer; reading goes on (rules: half-1 to half-5).
    #[doc(alias = "loseWriteConnection")]
    #[doc(alias = "write_eof")]
    fn close_write(&mut self);

    /// Ends the connection now: queued bytes are discarded, and the peer gets RST (rules: abort-1 to abort-5). The protocol
    /// is notified after its callback has returned.
    #[doc(alias = "abortConnection")]
    fn abort(&mut self);

    /// Stops the delivery of data. Data stays where it is, and the end of the peer's half after it (rule: flow-4).
    #[doc(alias = "pauseProducing")]
    fn pause_reading(&mut self);

    /// Delivers data again, first the bytes that the protocol has left unread.
    #[doc(alias = "resumeProducing")]
    fn resume_reading(&mut self);

    /// Whether [`pause_reading`](Self::pause_reading) has paused reading. A pause because of unsent answers does not count.
    fn is_reading_paused(&self) -> bool;

    /// Whether data is delivered, and why not. The calls that handles have made so far are carried out first. A protocol
    /// that cuts its input into messages checks this before each message, and leaves the rest unread if it is not
    /// [`Reading::Open`].
    fn reading(&mut self) -> Reading;

    /// Registers a producer, for data that does not fit into the queue.
    ///
    /// # Errors
    /// [`Error::Producer`] if there is one already; it stays. If nothing can be sent any more this is no error: the new
    /// producer is stopped after this callback has returned (rule: flow-1).
    #[doc(alias = "registerProducer")]
    fn register_producer(&mut self, producer: Producer) -> Result<(), Error>;

    /// The producer is done. What it has written is sent, and then the end that waited for it (rules: close-5, half-4).
    #[doc(alias = "unregisterProducer")]
    fn unregister_producer(&mut self);

    /// Calls [`timer_fired`](super::Protocol::timer_fired) after this time. Each connection has one timer: a new time
    /// replaces the old one, `None` stops it.
    #[doc(alias = "callLater")]
    #[doc(alias = "setTimeout")]
    fn set_timer(&mut self, after: Option<Duration>);

    /// How many bytes were written and have not left for the kernel (rule: write-8).
    #[doc(alias = "get_write_buffer_size")]
    fn queued(&self) -> usize;

    /// How many bytes were dropped because they came after the end (rule: write-4).
    fn dropped(&self) -> u64;

    /// A handle for other tasks and threads.
    fn handle(&self) -> Handle;

    /// The handle of the connection itself: its policy, its report.
    fn control(&self) -> &Control;

    /// Our address; numeric, also after the end (rule: tcp-1).
    #[doc(alias = "getHost")]
    #[doc(alias = "host")]
    fn local_addr(&self) -> Address {
        self.control().local_addr()
    }

    /// The peer's address; numeric, also after the end (rule: tcp-1).
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer")]
    fn peer_addr(&self) -> Address {
        self.control().peer_addr()
    }

    /// What the handshake of the topmost TLS session agreed on; `None` in plaintext (rule: secure-3).
    #[doc(alias = "getPeerCertificate")]
    #[doc(alias = "negotiatedProtocol")]
    fn tls(&self) -> Option<Arc<SessionFacts>>;

    /// Whether application data is encrypted.
    fn is_secure(&self) -> bool {
        self.tls().is_some()
    }

    /// Starts TLS after what was written so far; later writes are encrypted (rule: upgrade-1). Bytes that were received and
    /// not processed are judged (rule: upgrade-2). No data is delivered until
    /// [`handshake_completed`](super::Protocol::handshake_completed). A handshake that fails ends the connection.
    ///
    /// # Errors
    /// The [`UpgradeError`](crate::UpgradeError) says why TLS cannot start now, and nothing has changed (rule: upgrade-5).
    /// [`Error::Unsupported`] if the transport cannot be upgraded. A callback that returns the error by `?` ends the
    /// connection with it.
    #[doc(alias = "startTLS")]
    #[doc(alias = "STARTTLS")]
    fn start_tls(&mut self, how: StartTls) -> Result<(), Error>;

    /// Whether [`start_tls`](Self::start_tls) could begin now. A service checks this before it writes the go-ahead, which it
    /// cannot take back.
    ///
    /// # Errors
    /// The error that `start_tls` would return now, for example
    /// [`UpgradeError::TooManyLayers`](crate::UpgradeError::TooManyLayers) (rule: upgrade-12). Nothing changes.
    fn may_start_tls(&mut self) -> Result<(), Error>;

    /// Ends the topmost TLS session after what was written, and goes on beneath it (rule: upgrade-9). The callback
    /// [`tls_stopped`](super::Protocol::tls_stopped) says when.
    ///
    /// # Errors
    /// [`UpgradeError::NotSecure`](crate::UpgradeError::NotSecure) in plaintext, otherwise as
    /// [`start_tls`](Self::start_tls).
    #[doc(alias = "CCC")]
    #[doc(alias = "unwrap")]
    fn stop_tls(&mut self) -> Result<(), Error>;
}

/// Produces by itself, and can be paused: another connection, a stream of events.
#[doc(alias = "IPushProducer")]
pub trait PushProducer: Send + 'static {
    /// More is queued than the [high mark](crate::Watermarks): produce nothing for now (rule: flow-2).
    #[doc(alias = "pauseProducing")]
    #[doc(alias = "pause_writing")]
    fn pause(&mut self);

    /// The queue is down to the low mark: go on.
    #[doc(alias = "resumeProducing")]
    #[doc(alias = "resume_writing")]
    fn resume(&mut self);

    /// Nothing can be sent any more. Called at most once, before the end of the connection is reported (rule: flow-3).
    #[doc(alias = "stopProducing")]
    fn stop(&mut self);
}

/// Produces when it is asked: a file, a generator.
#[doc(alias = "IPullProducer")]
pub trait PullProducer: Send + 'static {
    /// The queue has run empty: write the next piece, or have another task write it by the handle. It is asked again when
    /// that piece has left (rule: flow-2). After the last piece it calls
    /// [`unregister_producer`](Conn::unregister_producer), in the same call.
    ///
    /// # Errors
    /// An error ends the connection, as that of a callback does (rule: life-3).
    #[doc(alias = "resumeProducing")]
    fn produce(&mut self, conn: &mut dyn Conn) -> CallbackResult;

    /// As [`PushProducer::stop`].
    #[doc(alias = "stopProducing")]
    fn stop(&mut self);
}

/// A producer, to be [registered](Conn::register_producer).
///
/// ```
/// use bowline::protocol::{CallbackResult, Conn, Producer, PullProducer};
///
/// /// Counts down, a line for each number, as fast as the peer reads.
/// struct Countdown(u32);
///
/// impl PullProducer for Countdown {
///     fn produce(&mut self, conn: &mut dyn Conn) -> CallbackResult {
///         conn.write(format!("{}\r\n", self.0).as_bytes());
///         match self.0.checked_sub(1) {
///             Some(next) => self.0 = next,
///             None => conn.unregister_producer(),
///         }
///         Ok(())
///     }
///
///     fn stop(&mut self) {}
/// }
///
/// fn start(conn: &mut dyn Conn) -> CallbackResult {
///     conn.register_producer(Producer::pull(Countdown(1_000_000)))?;
///     conn.close(); // after the last line
///     Ok(())
/// }
/// ```
pub enum Producer {
    /// It is paused and resumed.
    Push(Box<dyn PushProducer>),
    /// It is asked for each piece.
    Pull(Box<dyn PullProducer>),
}

impl Producer {
    /// A producer that is paused and resumed.
    pub fn push(producer: impl PushProducer) -> Self {
        Self::Push(Box::new(producer))
    }

    /// A producer that is asked for each piece.
    pub fn pull(producer: impl PullProducer) -> Self {
        Self::Pull(Box::new(producer))
    }

    pub(super) fn stop(&mut self) {
        match self {
            Self::Push(producer) => producer.stop(),
            Self::Pull(producer) => producer.stop(),
        }
    }

    /// Stops it because its connection has ended, but not inside a callback of this thread.
    pub(super) fn stop_after_callbacks(mut self) {
        after_callbacks(move || self.stop());
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Push(_) => "Producer::Push",
            Self::Pull(_) => "Producer::Pull",
        })
    }
}

/// Does what a protocol's [`Conn`] does, from any task and thread. Cheap to clone. It keeps nothing of the connection alive
/// (rule: life-4).
///
/// Calls return at once and are carried out in their order, by the connection's own task. After the end they do nothing:
/// bytes are dropped and counted, a producer is stopped (rule: life-5).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::protocol::{Runner, relay};
/// use tokio::io::AsyncReadExt;
///
/// let (mut client, server) = bowline::testing::tcp_pair().await?;
/// let (protocol, _other) = relay(); // any protocol
/// let runner = Runner::new(protocol, server);
/// let handle = runner.handle();
/// tokio::spawn(runner.run());
///
/// handle.write("news\r\n");
/// let mut line = [0; 6];
/// client.read_exact(&mut line).await?;
/// assert_eq!(&line, b"news\r\n");
/// handle.abort();
/// assert!(!handle.lost().await.is_clean());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Handle(pub(super) Arc<HandleState<dyn CommandTarget>>);

/// A connection on which the calls of its handles are carried out.
pub(crate) trait CommandTarget: Conn {
    /// Writes what a handle has written, in answer to input or not.
    fn write_command(&mut self, bytes: &[u8], is_answer: bool) {
        let _ = is_answer;
        self.write(bytes);
    }

    /// Starts TLS. The reply comes when the handshake is done, or has failed.
    fn start_tls_replying(&mut self, how: StartTls, reply: ReplySender) {
        reply.send(self.start_tls(how));
    }

    /// Stops TLS. The reply comes when plaintext flows.
    fn stop_tls_replying(&mut self, reply: ReplySender) {
        reply.send(self.stop_tls());
    }

    /// Ends the connection for this reason.
    fn fail(&mut self, failure: Failure) {
        let _ = failure;
        self.abort();
    }
}

impl Command<dyn CommandTarget> {
    pub(crate) fn carry_out(self, target: &mut (dyn CommandTarget + 'static)) {
        match self {
            Self::Write(bytes, is_answer) => target.write_command(&bytes, is_answer),
            Self::Call(call) => call(Some(target)),
        }
    }
}
