//! The transport as a protocol sees it: the same ladder as that of the async face, of calls that return at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::handle::Handle;
use super::producer::Producer;
use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::socket::Keepalive;
use crate::core::facts::SessionFacts;
use crate::error::Error;

/// Whether data is delivered to a protocol: [`Transport::reading`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// It is delivered.
    Open,
    /// Reading is paused, by [`Transport::pause_reading`] or because too many answers are unsent. Received bytes stay unread
    /// (rules: flow-4, write-10).
    Paused,
    /// TLS begins or ends: what was not done with is judged, or read again behind the change (rules: upgrade-2,
    /// upgrade-9).
    Changing,
    /// Nothing is delivered any more (rules: close-10, abort-3).
    Over,
}

/// What every transport does for a protocol. No call waits, none fails for what the peer did, and each is defined after the
/// end too (rule: life-5).
#[doc(alias = "ITransport")]
#[doc(alias = "IConsumer")]
pub trait Transport {
    /// Takes these bytes, to be sent behind all that was written before. All writes of one callback are merged (rule:
    /// write-7). What comes behind `close`, `close_write` or `abort`, or after the end, is dropped and counted (rule:
    /// write-4).
    ///
    /// It never waits, so it is for the protocol to look at [`queued`](Self::queued), to wait for
    /// [`writable`](super::Protocol::writable), or to be a producer.
    fn write(&mut self, bytes: &[u8]);

    /// Takes all parts as one write: all of them or none (rule: write-2). The iterator is consumed once.
    ///
    /// ```
    /// # fn answer(transport: &mut dyn bowline::protocol::Transport, lines: &[String]) {
    /// transport.write_sequence(&mut lines.iter().map(|line| line.as_bytes()));
    /// # }
    /// ```
    #[doc(alias = "writeSequence")]
    #[doc(alias = "writelines")]
    fn write_sequence(&mut self, parts: &mut dyn Iterator<Item = &[u8]>);

    /// Ends the connection in order, behind all that was written, and behind the producer (rules: close-1 to close-11).
    /// What comes in from now on is thrown away.
    #[doc(alias = "loseConnection")]
    fn close(&mut self);

    /// Ends our half, behind all that was written, and behind the producer; reading goes on (rules: half-1 to half-5).
    #[doc(alias = "loseWriteConnection")]
    #[doc(alias = "write_eof")]
    fn close_write(&mut self);

    /// Ends the connection now: nothing that is queued leaves, and the peer gets RST (rules: abort-1 to abort-5). The
    /// protocol is told after its callback has returned.
    #[doc(alias = "abortConnection")]
    fn abort(&mut self);

    /// No data is delivered from now on; it stays where it is, its end behind it (rule: flow-4).
    #[doc(alias = "pauseProducing")]
    fn pause_reading(&mut self);

    /// Data is delivered again; what a protocol has left unread first.
    #[doc(alias = "resumeProducing")]
    fn resume_reading(&mut self);

    /// Whether [`pause_reading`](Self::pause_reading) has paused reading. A pause because of unsent answers does not count.
    fn is_reading_paused(&self) -> bool;

    /// Whether data is delivered, and where not, why. What handles have asked for so far is carried out first. A protocol
    /// that cuts what it is lent into messages looks here ahead of each of them, and leaves the rest where it is.
    fn reading(&mut self) -> Reading;

    /// Registers whoever writes more than fits. There is one at a time: a second is an error, [`Error::Producer`], and
    /// leaves the first. Where nothing can be sent any more it is stopped, after this callback has returned (rule: flow-1).
    #[doc(alias = "registerProducer")]
    fn register_producer(&mut self, producer: Producer) -> Result<(), Error>;

    /// The producer is done. What it has written is sent, and an end that waited for it goes out (rules: close-5, half-4).
    #[doc(alias = "unregisterProducer")]
    fn unregister_producer(&mut self);

    /// Calls [`timer_fired`](super::Protocol::timer_fired) after this time. There is one timer for each connection: a new
    /// time replaces the old one, `None` ends it.
    #[doc(alias = "callLater")]
    #[doc(alias = "setTimeout")]
    fn set_timer(&mut self, after: Option<Duration>);

    /// Bytes that were written and have not left for the kernel (rule: write-8).
    #[doc(alias = "get_write_buffer_size")]
    fn queued(&self) -> usize;

    /// Bytes that were dropped because they came behind the end (rule: write-4).
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
}

/// What a TCP socket adds. The options reach the real socket through every layer (rule: tcp-2); where there is none
/// beneath, and after the end, they are errors (rule: tcp-3).
#[doc(alias = "ITCPTransport")]
pub trait TcpTransport: Transport {
    /// Whether small segments leave at once. On by default.
    #[doc(alias = "getTcpNoDelay")]
    fn nodelay(&self) -> io::Result<bool> {
        self.control().with_socket(|socket| socket.nodelay())
    }

    /// Sets whether small segments leave at once.
    #[doc(alias = "setTcpNoDelay")]
    fn set_nodelay(&mut self, on: bool) -> io::Result<()> {
        self.control().with_socket(|socket| socket.set_nodelay(on))
    }

    /// Whether, and how, the system probes an idle connection.
    #[doc(alias = "getTcpKeepAlive")]
    fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        self.control().with_socket(|socket| socket.keepalive())
    }

    /// Sets whether, and how, the system probes an idle connection.
    #[doc(alias = "setTcpKeepAlive")]
    fn set_keepalive(&mut self, keepalive: Option<Keepalive>) -> io::Result<()> {
        self.control().with_socket(|socket| socket.set_keepalive(keepalive))
    }

    /// How long sent data may stay unacknowledged before the system gives the connection up (Linux).
    fn user_timeout(&self) -> io::Result<Option<Duration>> {
        self.control().with_socket(|socket| socket.user_timeout())
    }

    /// Sets how long sent data may stay unacknowledged before the system gives the connection up (Linux).
    fn set_user_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.control().with_socket(|socket| socket.set_user_timeout(timeout))
    }

    /// The kernel's send and receive buffer, in bytes.
    fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        self.control().with_socket(|socket| socket.buffer_sizes())
    }

    /// Sets the kernel's send buffer, in bytes. Linux doubles the value.
    fn set_send_buffer_size(&mut self, bytes: usize) -> io::Result<()> {
        self.control().with_socket(|socket| socket.set_send_buffer_size(bytes))
    }

    /// Sets the kernel's receive buffer, in bytes. Linux doubles the value.
    fn set_recv_buffer_size(&mut self, bytes: usize) -> io::Result<()> {
        self.control().with_socket(|socket| socket.set_recv_buffer_size(bytes))
    }
}

/// What TLS adds: the facts of the session.
#[doc(alias = "ISSLTransport")]
#[doc(alias = "INegotiated")]
pub trait TlsTransport: TcpTransport {
    /// What the handshake of the topmost TLS session agreed on; `None` in plaintext (rule: secure-3).
    #[doc(alias = "getPeerCertificate")]
    #[doc(alias = "negotiatedProtocol")]
    fn tls(&self) -> Option<Arc<SessionFacts>>;

    /// Whether application data travels encrypted.
    fn is_secure(&self) -> bool {
        self.tls().is_some()
    }
}

/// What an upgradable transport adds: into TLS, and back. A protocol sees this one always: where the transport that it
/// runs over is not upgradable, these two say so.
#[doc(alias = "ITLSTransport")]
pub trait UpgradableTransport: TlsTransport {
    /// Starts TLS behind what was written: what is written from now on leaves encrypted (rule: upgrade-1). Bytes that were
    /// received and are not done with are judged (rule: upgrade-2). No data is delivered until
    /// [`handshake_completed`](super::Protocol::handshake_completed); a failure ends the connection.
    ///
    /// # Errors
    /// [`UpgradeError`](crate::UpgradeError) says which, and nothing has changed (rule: upgrade-5); [`Error::Unsupported`]
    /// where the transport is not upgradable. Whoever ends the connection by `?` ends it with that reason.
    #[doc(alias = "startTLS")]
    fn start_tls(&mut self, how: StartTls) -> Result<(), Error>;

    /// Whether [`start_tls`](Self::start_tls) could begin now. A service checks this before it writes the go-ahead, which it
    /// cannot take back.
    ///
    /// # Errors
    /// The error that `start_tls` would return now, for example
    /// [`UpgradeError::TooManyLayers`](crate::UpgradeError::TooManyLayers) (rule: upgrade-12). Nothing changes.
    fn may_start_tls(&mut self) -> Result<(), Error>;

    /// Ends the topmost TLS session behind what was written, and goes on beneath it (rule: upgrade-9);
    /// [`tls_stopped`](super::Protocol::tls_stopped) tells when.
    ///
    /// # Errors
    /// As those of [`start_tls`](Self::start_tls).
    #[doc(alias = "CCC")]
    #[doc(alias = "unwrap")]
    fn stop_tls(&mut self) -> Result<(), Error>;
}
