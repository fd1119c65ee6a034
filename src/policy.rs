//! The bounds and choices of a connection. Every default is safe, and may be changed.

use std::time::Duration;

#[cfg(feature = "tokio")]
use crate::error::UpgradeError;

/// What a connection allows. One policy holds for all the layers of a connection.
///
/// Each setter takes the policy and gives it back; the getter of the same name begins with `get_`.
///
/// ```
/// use std::time::Duration;
/// use bowline::{Policy, Truncation};
///
/// let policy = Policy::default()
///     .close_timeout(Duration::from_secs(3))
///     .idle_timeout(Duration::from_secs(60))
///     .handshake_timeout(None) // no bound
///     .truncation(Truncation::Tolerate);
/// assert_eq!(policy.get_idle_timeout(), Some(Duration::from_secs(60)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) close_timeout: Option<Duration>,
    pub(crate) close_discard: u64,
    pub(crate) half_open_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) watermarks: Watermarks,
    pub(crate) truncation: Truncation,
    pub(crate) max_layers: usize,
    pub(crate) reset_when_killed: bool,
}

impl Policy {
    /// From accept or connect to the end of the handshake; default 30 seconds. `None`: no bound (rule: secure-5).
    #[must_use]
    pub fn handshake_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.handshake_timeout = bound.into();
        self
    }

    /// From the call of `close` until the socket goes; default 10 seconds. `None`: no bound (rule: close-3).
    ///
    /// `close_write`, which is also `poll_shutdown`, waits this long for a peer that takes nothing. The time starts again
    /// whenever the peer takes something (rule: half-12).
    #[must_use]
    pub fn close_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.close_timeout = bound.into();
        self
    }

    /// How many bytes a closing connection throws away before it goes; default 16 MiB (rule: close-3).
    #[must_use]
    pub fn close_discard(mut self, bytes: u64) -> Self {
        self.close_discard = bytes;
        self
    }

    /// How long a connection of which one half has ended may be idle; default `None` (rule: half-10).
    #[must_use]
    pub fn half_open_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.half_open_timeout = bound.into();
        self
    }

    /// How long nothing may move, in either direction, while a half waits: a read, a write, or what is queued. Then the
    /// connection ends for [`Reason::TimedOut`](crate::Reason::TimedOut) in [`Phase::Idle`](crate::Phase::Idle), by RST;
    /// default `None` (rule: idle-1).
    ///
    /// A connection that nobody reads from or writes to is not idle: its application is busy. Where
    /// [`half_open_timeout`](Self::half_open_timeout) is set, that one holds from the end of a half on. What a layer sends by
    /// itself, such as a handshake, moves too; the keep-alive probes of TCP do not.
    #[doc(alias = "TimeoutMixin")]
    #[doc(alias = "setTimeout")]
    #[doc(alias = "SetDeadline")]
    #[must_use]
    pub fn idle_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = bound.into();
        self
    }

    /// How much unsent data is held.
    #[must_use]
    pub fn watermarks(mut self, marks: Watermarks) -> Self {
        self.watermarks = marks;
        self
    }

    /// What a missing close_notify means for reads.
    #[must_use]
    pub fn truncation(mut self, choice: Truncation) -> Self {
        self.truncation = choice;
        self
    }

    /// How many nested TLS sessions one connection may have; default 4. One more is refused with
    /// [`UpgradeError::TooManyLayers`](crate::UpgradeError::TooManyLayers). With 0, every upgrade is refused (rule:
    /// upgrade-12).
    ///
    /// Each session costs memory and time for every byte, so a peer must not choose the number. A TLS connection that was
    /// not made by an upgrade is not refused, but counts.
    #[must_use]
    pub fn max_layers(mut self, limit: usize) -> Self {
        self.max_layers = limit;
        self
    }

    /// Whether the peer sees RST if this process is killed while our send half is open; default `false`: the system sends
    /// FIN then, which on bare TCP looks like an end in order (rule: flow-7).
    ///
    /// Set it in a program that forwards the data of another connection: a relay, a proxy, a client that reads a pipe.
    /// [`relay`](crate::relay) always does it for both of its connections. The socket has a linger time of zero until our send
    /// half ends, so an orderly end is as safe as without it. It has no effect on streams other than TCP.
    #[doc(alias = "SO_LINGER")]
    #[must_use]
    pub fn reset_when_killed(mut self, yes: bool) -> Self {
        self.reset_when_killed = yes;
        self
    }

    /// See [`handshake_timeout`](Self::handshake_timeout).
    pub fn get_handshake_timeout(&self) -> Option<Duration> {
        self.handshake_timeout
    }

    /// See [`close_timeout`](Self::close_timeout).
    pub fn get_close_timeout(&self) -> Option<Duration> {
        self.close_timeout
    }

    /// See [`close_discard`](Self::close_discard).
    pub fn get_close_discard(&self) -> u64 {
        self.close_discard
    }

    /// See [`half_open_timeout`](Self::half_open_timeout).
    pub fn get_half_open_timeout(&self) -> Option<Duration> {
        self.half_open_timeout
    }

    /// See [`idle_timeout`](Self::idle_timeout).
    pub fn get_idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// See [`watermarks`](Self::watermarks).
    pub fn get_watermarks(&self) -> Watermarks {
        self.watermarks
    }

    /// See [`truncation`](Self::truncation).
    pub fn get_truncation(&self) -> Truncation {
        self.truncation
    }

    /// See [`max_layers`](Self::max_layers).
    pub fn get_max_layers(&self) -> usize {
        self.max_layers
    }

    /// See [`reset_when_killed`](Self::reset_when_killed).
    pub fn get_reset_when_killed(&self) -> bool {
        self.reset_when_killed
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            handshake_timeout: Some(Duration::from_secs(30)),
            close_timeout: Some(Duration::from_secs(10)),
            close_discard: 16 << 20,
            half_open_timeout: None,
            idle_timeout: None,
            watermarks: Watermarks::default(),
            truncation: Truncation::Error,
            max_layers: 4,
            reset_when_killed: false,
        }
    }
}

#[cfg(feature = "tokio")]
impl Policy {
    /// Whether one more TLS session may begin on a connection that has this many.
    pub(crate) fn check_layers(&self, layers: usize) -> Result<(), UpgradeError> {
        let limit = self.max_layers;
        if layers < limit { Ok(()) } else { Err(UpgradeError::TooManyLayers { limit }) }
    }
}

/// Bounds of the memory that unsent bytes take, in bytes (rule: write-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    pub(crate) high: usize,
    pub(crate) low: usize,
    /// By [`new`](Self::new).
    is_chosen: bool,
}

impl Watermarks {
    /// `low` is reduced below `high` if necessary; `high` is at least 1. Thus every wait at the high mark ends at the low one.
    pub fn new(low: usize, high: usize) -> Self {
        let high = high.max(1);
        Self { high, low: low.min(high - 1), is_chosen: true }
    }

    /// A write waits while at least this many bytes are queued; default 64 KiB. One write exceeds it by a record at most. TLS
    /// uses 4 KiB if this is less.
    ///
    /// If this mark is 32 KiB or more, TLS seals a write of 16 KiB or more in full records. Such a write also waits while less
    /// than 16 KiB is left below this mark, until no more than [`low`](Self::low) bytes are queued.
    ///
    /// With [`Watermarks::default`], TLS over TCP accepts up to 128 KiB of a large write at once if nothing is queued and the
    /// socket has space for all of it, so that fewer and larger sends are made; and as much of small writes that are merged. Marks from [`new`](Self::new) are never exceeded
    /// in this way.
    pub fn high(self) -> usize {
        self.high
    }

    /// A waiting writer goes on when no more than this is queued; default 16 KiB.
    pub fn low(self) -> usize {
        self.low
    }

    /// Whether the application has chosen them.
    pub(crate) fn are_chosen(self) -> bool {
        self.is_chosen
    }

    /// The marks that a TLS session uses: with a lower high mark, each write would leave in tiny records.
    pub(crate) fn of_session(self) -> Self {
        const LEAST: usize = 4 << 10;
        Self::new(self.low, self.high.max(LEAST))
    }
}

impl Default for Watermarks {
    fn default() -> Self {
        Self { high: 64 << 10, low: 16 << 10, is_chosen: false }
    }
}

/// What a read says when the layer below ended without the peer's marker (rule: end-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// The read fails with [`Reason::Truncated`](crate::Reason::Truncated).
    #[default]
    Error,
    /// The read says end of file, for protocols that frame their own messages. The status says truncated all the same.
    Tolerate,
}

/// What becomes of bytes that were received before an upgrade and not read (rule: upgrade-2). They are never delivered.
///
/// For a client, these are all bytes that the server has sent before the ClientHello leaves, including those still in the kernel
/// (rule: upgrade-11). Between the go-ahead and the ClientHello a server has nothing to send, so each of these bytes is a
/// mistake or was injected. A server judges only the bytes that it has read from the kernel by then. TLS reads the bytes that
/// are still in the kernel, since the client may have sent its ClientHello already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leftover {
    /// Any such byte ends the connection with an error: the default of a client.
    Refuse,
    /// The bytes are passed to TLS if they can be the start of a TLS handshake, so that a ClientHello glued to the command
    /// works; otherwise they are refused. The default of a server. For a client this is useful only if the server may send a
    /// HelloRequest (RFC 5246 section 7.4.1.1) too early.
    Feed,
}

/// Which side of the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that sends the ClientHello.
    Client,
    /// The side that answers it.
    Server,
}

impl Role {
    /// What this role does with leftover bytes where nothing else was said.
    pub fn default_leftover(self) -> Leftover {
        match self {
            Self::Client => Leftover::Refuse,
            Self::Server => Leftover::Feed,
        }
    }
}
