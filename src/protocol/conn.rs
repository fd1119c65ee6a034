//! The interface of a connection for protocols, producers and other tasks. These types refer to each other, so they
//! are in one file.

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

/// Whether data is delivered to a protocol, as [`Conn::reading`] returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// Data is delivered.
    Open,
    /// Reading is paused, by [`Conn::pause_reading`] or because too many answers are unsent. The received bytes are
    /// kept, and not delivered (rules: flow-4, write-10).
    Paused,
    /// TLS starts or ends. Bytes that the protocol has not processed are leftover when TLS starts, and are delivered
    /// again when TLS ends (rules: upgrade-2, upgrade-9).
    Changing,
    /// No data is delivered any more (rules: close-10, abort-3).
    Over,
}

/// The connection as a protocol sees it. It has the methods of [`bowline::Transport`](crate::Transport) and of the
/// traits above it, under the same names, but none of them waits. A callback may use it until it returns; other tasks
/// use the [`Handle`].
///
/// No method fails because of what the peer did, and every method may be called after the end of the connection too
/// (rule: life-5). Calls are carried out after the callback has returned, in the order in which it made them (rule:
/// life-2); only [`abort`](Self::abort) acts at once. The socket options are those of [`SocketOptions`].
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
/// The trait is sealed: this crate implements it for the connections of a [`Runner`](super::Runner) and for the test
/// double `testing::Recorder`. So new methods are not a breaking change.
#[doc(alias = "ITransport")]
#[doc(alias = "IConsumer")]
#[doc(alias = "ITCPTransport")]
#[doc(alias = "ISSLTransport")]
#[doc(alias = "ITLSTransport")]
#[doc(alias = "INegotiated")]
pub trait Conn: SocketOptions {
    /// Sends these bytes after everything that was written before. All writes of one callback are merged (rule:
    /// write-7). Bytes that are written after `close`, `close_write` or `abort`, or after the end of the connection,
    /// are dropped and counted (rule: write-4).
    ///
    /// This method never waits and has no limit. A protocol that writes a lot should check [`queued`](Self::queued),
    /// wait for [`writable`](super::Protocol::writable), or register a [`Producer`].
    fn write(&mut self, bytes: &[u8]);

    /// Writes all parts as one write: all of them or none (rule: write-2). The iterator is consumed once.
    ///
    /// ```
    /// # fn answer(conn: &mut dyn bowline::protocol::Conn, lines: &[String]) {
    /// conn.write_sequence(&mut lines.iter().map(|line| line.as_bytes()));
    /// # }
    /// ```
    #[doc(alias = "writeSequence")]
    #[doc(alias = "writelines")]
    fn write_sequence(&mut self, parts: &mut dyn Iterator<Item = &[u8]>);

    /// Closes the connection in order, after everything that was written has been sent and the producer is done
    /// (rules: close-1 to close-11). Input that arrives from now on is discarded.
    #[doc(alias = "loseConnection")]
    fn close(&mut self);

    /// Ends our send half, after everything that was written has been sent and the producer is done. Reading
    /// continues (rules: half-1 to half-5).
    #[doc(alias = "loseWriteConnection")]
    #[doc(alias = "write_eof")]
    fn close_write(&mut self);

    /// Ends the connection now: queued bytes are discarded, and the peer gets RST (rules: abort-1 to abort-5). The
    /// protocol is notified after the current callback has returned.
    #[doc(alias = "abortConnection")]
    fn abort(&mut self);

    /// Stops the delivery of data. Undelivered data is kept, and the end of the peer's half is reported after that
    /// data (rule: flow-4).
    #[doc(alias = "pauseProducing")]
    fn pause_reading(&mut self);

    /// Resumes the delivery of data, starting with the bytes that the protocol has left unprocessed.
    #[doc(alias = "resumeProducing")]
    fn resume_reading(&mut self);

    /// Whether [`pause_reading`](Self::pause_reading) has paused reading. A pause because of unsent answers does not
    /// count.
    fn is_reading_paused(&self) -> bool;

    /// Whether data is delivered, and if not, why not. Pending calls of handles are carried out first. A protocol
    /// that cuts its input into messages should check this before each message, and leave the rest unprocessed if the
    /// result is not [`Reading::Open`].
    fn reading(&mut self) -> Reading;

    /// Registers a producer, for data that does not fit into the queue.
    ///
    /// # Errors
    /// [`Error::Producer`] if a producer is registered already; that producer stays. If nothing can be sent any more,
    /// there is no error: the new producer is stopped after this callback has returned (rule: flow-1).
    #[doc(alias = "registerProducer")]
    fn register_producer(&mut self, producer: Producer) -> Result<(), Error>;

    /// Unregisters the producer. The bytes that it has written are sent first. A close or close_write that waited for
    /// the producer follows (rules: close-5, half-4).
    #[doc(alias = "unregisterProducer")]
    fn unregister_producer(&mut self);

    /// Calls [`timer_fired`](super::Protocol::timer_fired) after this time. Each connection has one timer: a new time
    /// replaces the old one, `None` stops it.
    #[doc(alias = "callLater")]
    #[doc(alias = "setTimeout")]
    fn set_timer(&mut self, after: Option<Duration>);

    /// The number of bytes that were written and have not reached the kernel (rule: write-8).
    #[doc(alias = "get_write_buffer_size")]
    fn queued(&self) -> usize;

    /// The number of bytes that were dropped because they were written after the end (rule: write-4).
    fn dropped(&self) -> u64;

    /// A handle for other tasks and threads.
    fn handle(&self) -> Handle;

    /// The [`Control`] of the connection, for example for its policy and its report.
    fn control(&self) -> &Control;

    /// Our address. It is numeric, and also available after the end (rule: tcp-1).
    #[doc(alias = "getHost")]
    #[doc(alias = "host")]
    fn local_addr(&self) -> Address {
        self.control().local_addr()
    }

    /// The peer's address. It is numeric, and also available after the end (rule: tcp-1).
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer")]
    fn peer_addr(&self) -> Address {
        self.control().peer_addr()
    }

    /// The facts that the handshake of the topmost TLS session has negotiated; `None` in plaintext (rule: secure-3).
    #[doc(alias = "getPeerCertificate")]
    #[doc(alias = "negotiatedProtocol")]
    fn tls(&self) -> Option<Arc<SessionFacts>>;

    /// Whether application data is encrypted.
    fn is_secure(&self) -> bool {
        self.tls().is_some()
    }

    /// Starts TLS after everything that was written so far; later writes are encrypted (rule: upgrade-1). Received
    /// bytes that were not processed are leftover (rule: upgrade-2). No data is delivered until
    /// [`handshake_completed`](super::Protocol::handshake_completed) is called. If the handshake fails, the
    /// connection ends.
    ///
    /// # Errors
    /// The [`UpgradeError`](crate::UpgradeError) says why TLS cannot start now; nothing has changed (rule:
    /// upgrade-5). [`Error::Unsupported`] if the transport cannot be upgraded. If a callback returns the error by
    /// `?`, the connection ends with that error as the reason.
    #[doc(alias = "startTLS")]
    #[doc(alias = "STARTTLS")]
    fn start_tls(&mut self, how: StartTls) -> Result<(), Error>;

    /// Whether [`start_tls`](Self::start_tls) could begin now. A service checks this before it writes the go-ahead,
    /// which it cannot take back.
    ///
    /// # Errors
    /// The error that `start_tls` would return now, for example
    /// [`UpgradeError::TooManyLayers`](crate::UpgradeError::TooManyLayers) (rule: upgrade-12). Nothing changes.
    fn may_start_tls(&mut self) -> Result<(), Error>;

    /// Ends the topmost TLS session after everything that was written so far, and continues on the layer beneath
    /// (rule: upgrade-9). [`tls_stopped`](super::Protocol::tls_stopped) is called when that is done.
    ///
    /// # Errors
    /// [`UpgradeError::NotSecure`](crate::UpgradeError::NotSecure) in plaintext, otherwise as
    /// [`start_tls`](Self::start_tls).
    #[doc(alias = "CCC")]
    #[doc(alias = "unwrap")]
    fn stop_tls(&mut self) -> Result<(), Error>;
}

/// A producer that writes by itself and can be paused, for example another connection or a stream of events.
#[doc(alias = "IPushProducer")]
pub trait PushProducer: Send + 'static {
    /// The queue has reached the [high mark](crate::Watermarks): stop writing for now (rule: flow-2).
    #[doc(alias = "pauseProducing")]
    #[doc(alias = "pause_writing")]
    fn pause(&mut self);

    /// The queue has fallen to the low mark: continue to write.
    #[doc(alias = "resumeProducing")]
    #[doc(alias = "resume_writing")]
    fn resume(&mut self);

    /// Nothing can be sent any more. Called at most once, before the end of the connection is reported (rule:
    /// flow-3).
    #[doc(alias = "stopProducing")]
    fn stop(&mut self);
}

/// A producer that writes one piece for each call, for example a file or a generator.
#[doc(alias = "IPullProducer")]
pub trait PullProducer: Send + 'static {
    /// The queue is empty: write the next piece, or let another task write it with the connection's [`Handle`]. This
    /// method is called again when that piece has left (rule: flow-2). When it has written the last piece, it must call
    /// [`unregister_producer`](Conn::unregister_producer) in the same call.
    ///
    /// # Errors
    /// An error ends the connection, like an error of a callback (rule: life-3).
    #[doc(alias = "resumeProducing")]
    fn produce(&mut self, conn: &mut dyn Conn) -> CallbackResult;

    /// See [`PushProducer::stop`].
    #[doc(alias = "stopProducing")]
    fn stop(&mut self);
}

/// A producer for [`register_producer`](Conn::register_producer).
///
/// ```
/// use bowline::protocol::{CallbackResult, Conn, Producer, PullProducer};
///
/// /// Counts down, one line for each number, as fast as the peer reads.
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
    /// A producer that is paused and resumed.
    Push(Box<dyn PushProducer>),
    /// A producer that is called for each piece.
    Pull(Box<dyn PullProducer>),
}

impl Producer {
    /// Wraps a producer that is paused and resumed.
    pub fn push(producer: impl PushProducer) -> Self {
        Self::Push(Box::new(producer))
    }

    /// Wraps a producer that is called for each piece.
    pub fn pull(producer: impl PullProducer) -> Self {
        Self::Pull(Box::new(producer))
    }

    pub(super) fn stop(&mut self) {
        match self {
            Self::Push(producer) => producer.stop(),
            Self::Pull(producer) => producer.stop(),
        }
    }

    /// Stops the producer, because its connection has ended. If a callback runs on this thread, this happens after
    /// the callback has returned.
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

/// Does what a protocol's [`Conn`] does, from any task and thread. It is cheap to clone, and does not keep the
/// connection alive (rule: life-4).
///
/// Each call returns at once. The connection's own task carries the calls out in their order. After the end of the
/// connection, bytes are dropped and counted, a producer is stopped, and other calls have no effect (rule: life-5).
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

/// The connection on which the commands of handles are carried out.
pub(crate) trait CommandTarget: Conn {
    /// Writes bytes that a task has written with a [`Handle`]. `is_answer`: they were written in answer to input.
    fn write_command(&mut self, bytes: &[u8], is_answer: bool) {
        let _ = is_answer;
        self.write(bytes);
    }

    /// Starts TLS. The reply is sent when the handshake is done or has failed.
    fn start_tls_replying(&mut self, how: StartTls, reply: ReplySender) {
        reply.send(self.start_tls(how));
    }

    /// Stops TLS. The reply is sent when the layer beneath is in use again.
    fn stop_tls_replying(&mut self, reply: ReplySender) {
        reply.send(self.stop_tls());
    }

    /// Ends the connection with this reason.
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
