//! The limits and options of a connection. Every default is safe and can be changed.

#[cfg(feature = "tokio")]
use std::any::Any;
#[cfg(feature = "tokio")]
use std::fmt;
#[cfg(feature = "tokio")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "tokio")]
use crate::error::UpgradeError;

/// The limits and options of a connection. One policy applies to all layers of the connection.
///
/// Each setter takes the policy and returns it. The getter of a setting has the same name with the prefix `get_`.
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
    #[cfg(feature = "tokio")]
    pub(crate) observers: PolicyObservers,
    pub(crate) handshake_timeout: Option<Duration>,
    pub(crate) close_timeout: Option<Duration>,
    pub(crate) close_discard: u64,
    pub(crate) close_quiet: Duration,
    pub(crate) half_open_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) watermarks: Watermarks,
    pub(crate) truncation: Truncation,
    pub(crate) max_layers: usize,
    /// If the process dies, the system resets the connection.
    pub(crate) reset_when_killed: bool,
}

impl Policy {
    /// The longest time from accept or connect to the end of the handshake; default 30 seconds. `None`: no limit (rule:
    /// secure-5).
    #[must_use]
    pub fn handshake_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.handshake_timeout = bound.into();
        self
    }

    /// The longest time from the call of `close` until the socket is closed; default 10 seconds. `None`: no limit
    /// (rule: close-3).
    ///
    /// `close_write`, which is also `poll_shutdown`, waits this long for a peer that reads nothing. The time starts
    /// again whenever the peer reads something (rule: half-12).
    #[must_use]
    pub fn close_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.close_timeout = bound.into();
        self
    }

    /// The number of received bytes that a closing connection discards before it gives up waiting for the peer's end;
    /// default 16 MiB (rule: close-3).
    #[must_use]
    pub fn close_discard(mut self, bytes: u64) -> Self {
        self.close_discard = bytes;
        self
    }

    /// How long a peer must have sent nothing until the close of a [`Lingering`](crate::Lingering) connection stops
    /// waiting for its end; default 2 seconds (rule: close-15). It waits longer while bytes of ours are unacknowledged.
    ///
    /// The time counts from the last byte of the peer, so an idle keep-alive connection does not hold up a drain. A
    /// peer that pauses for longer while it sends a message may lose the answer that we sent meanwhile.
    #[doc(alias = "lingering_timeout")]
    #[must_use]
    pub fn close_quiet(mut self, time: Duration) -> Self {
        self.close_quiet = time;
        self
    }

    /// The longest time that a connection may be idle after one half has ended; default `None` (rule: half-10).
    #[must_use]
    pub fn half_open_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.half_open_timeout = bound.into();
        self
    }

    /// The longest time without a byte in either direction while a read, a write or queued data waits. After that time,
    /// the connection ends with RST, for the reason [`Reason::TimedOut`](crate::Reason::TimedOut) in
    /// [`Phase::Idle`](crate::Phase::Idle). Default `None` (rule: idle-1).
    ///
    /// Bytes that the peer's system acknowledges are traffic too, as far as our system reports them. So a peer that
    /// slowly takes a large answer out of our system's buffer is not idle. If such bytes are left and none is
    /// acknowledged, the end comes between one and two of these times after the last traffic.
    ///
    /// While the application neither reads nor writes, the connection does not count as idle: the application is busy.
    /// Libraries such as hyper keep a read pending while they process a request, so that the transport cannot tell a
    /// slow answer from a silent client: hold a [`Control::busy`](crate::Control::busy) guard meanwhile.
    ///
    /// If [`half_open_timeout`](Self::half_open_timeout) is set, it replaces this limit once a half has ended. Bytes
    /// that a layer sends by itself, such as a handshake, count as traffic; TCP keep-alive probes do not.
    #[doc(alias = "TimeoutMixin")]
    #[doc(alias = "setTimeout")]
    #[doc(alias = "SetDeadline")]
    #[must_use]
    pub fn idle_timeout(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = bound.into();
        self
    }

    /// The limits for unsent data that is queued.
    #[must_use]
    pub fn watermarks(mut self, marks: Watermarks) -> Self {
        self.watermarks = marks;
        self
    }

    /// How a read reports a missing close_notify.
    #[must_use]
    pub fn truncation(mut self, choice: Truncation) -> Self {
        self.truncation = choice;
        self
    }

    /// The largest number of nested TLS sessions on one connection; default 4. An upgrade beyond this limit fails with
    /// [`UpgradeError::TooManyLayers`](crate::UpgradeError::TooManyLayers). With 0, every upgrade fails (rule:
    /// upgrade-12).
    ///
    /// Each session costs memory, and CPU time for every byte, so a peer must not be able to choose the number. A TLS
    /// session that was not made by an upgrade counts, but is never refused.
    #[must_use]
    pub fn max_layers(mut self, limit: usize) -> Self {
        self.max_layers = limit;
        self
    }

    /// Whether the peer sees RST if this process is killed while our send half is open; default `false`. By default the
    /// system sends FIN then, which looks like a clean end on plain TCP (rule: flow-7).
    ///
    /// Turn this setting on in a program that forwards the data of another connection: for example a relay, a proxy, or
    /// a client that reads from a pipe. [`relay`](crate::relay) always turns it on for both of its connections. The
    /// socket has a linger time of zero until our send half ends, so a clean end is as safe as without this setting.
    /// The setting has no effect on streams other than TCP.
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

    /// See [`close_quiet`](Self::close_quiet).
    pub fn get_close_quiet(&self) -> Duration {
        self.close_quiet
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
            #[cfg(feature = "tokio")]
            observers: PolicyObservers(None),
            handshake_timeout: Some(Duration::from_secs(30)),
            close_timeout: Some(Duration::from_secs(10)),
            close_discard: 16 << 20,
            close_quiet: Duration::from_secs(2),
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
    /// Whether a connection that has `layers` TLS sessions may start another one.
    pub(crate) fn check_layers(&self, layers: usize) -> Result<(), UpgradeError> {
        let limit = self.max_layers;
        if layers < limit { Ok(()) } else { Err(UpgradeError::TooManyLayers { limit }) }
    }
}

/// The observers of the connections with a policy. Their type uses the type of connections, which this module may not
/// import. So only the module that adds and calls the observers knows their type.
#[cfg(feature = "tokio")]
#[derive(Clone)]
pub(crate) struct PolicyObservers(pub(crate) Option<Arc<dyn Any + Send + Sync>>);

#[cfg(feature = "tokio")]
impl PartialEq for PolicyObservers {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

#[cfg(feature = "tokio")]
impl Eq for PolicyObservers {}

#[cfg(feature = "tokio")]
impl fmt::Debug for PolicyObservers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}

/// Limits for the memory of unsent data, in bytes (rule: write-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    pub(crate) high: usize,
    pub(crate) low: usize,
    /// Whether the application chose the marks, by [`new`](Self::new).
    is_chosen: bool,
}

impl Watermarks {
    /// Both marks are numbers of bytes. `high` is at least 1, and `low` is reduced to less than `high` if necessary, so
    /// that a writer that waits at the high mark continues at the low mark.
    pub fn new(low: usize, high: usize) -> Self {
        let high = high.max(1);
        Self { high, low: low.min(high - 1), is_chosen: true }
    }

    /// A write waits while at least this many bytes are queued; default 64 KiB. One write exceeds this mark by at most
    /// one record. TLS uses 4 KiB if this mark is lower.
    ///
    /// If this mark is 32 KiB or more, TLS seals a write of 16 KiB or more in full records. Such a write also waits
    /// while less than 16 KiB is left below this mark, until no more than [`low`](Self::low) bytes are queued.
    ///
    /// With [`Watermarks::default`], TLS over TCP accepts up to 128 KiB of a large write at once if nothing is queued
    /// and the socket has space for all of it, so that fewer and larger sends are made. Small writes that are merged
    /// may be queued up to the same limit. Marks from [`new`](Self::new) are never exceeded in this way.
    pub fn high(self) -> usize {
        self.high
    }

    /// A waiting writer continues once at most this many bytes are queued; default 16 KiB.
    pub fn low(self) -> usize {
        self.low
    }

    /// Whether the application chose the marks.
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

/// How a read reports that the layer below ended before the peer's end marker (rule: end-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Truncation {
    /// The read fails with [`Reason::Truncated`](crate::Reason::Truncated).
    #[default]
    Error,
    /// The read returns end of file. Use this for protocols that frame their own messages. The status still says
    /// `truncated`.
    Tolerate,
}

/// How to treat bytes that were received before an upgrade and not read (rule: upgrade-2). They are never delivered to
/// the application.
///
/// For a client, leftover bytes are all bytes that the server has sent before the ClientHello leaves, including bytes
/// that are still in the kernel (rule: upgrade-11). A server has nothing to send between its go-ahead and the
/// ClientHello, so each of these bytes is a mistake or was injected. For a server, leftover bytes are only those that
/// it has read from the kernel. Bytes that are still in the kernel belong to TLS, since the client may already have
/// sent its ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Leftover {
    /// Any such byte ends the connection with an error. This is the default of a client.
    Refuse,
    /// The bytes are passed to TLS if they can be the start of a TLS handshake, so that a ClientHello in the same
    /// segment as the command works; otherwise they are refused. The default of a server. For a client this is useful
    /// only if the server may send a HelloRequest (RFC 5246 section 7.4.1.1) too early.
    Feed,
}

/// The role in the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The side that sends the ClientHello.
    Client,
    /// The side that answers the ClientHello.
    Server,
}

impl Role {
    /// The default treatment of leftover bytes for this role.
    pub fn default_leftover(self) -> Leftover {
        match self {
            Self::Client => Leftover::Refuse,
            Self::Server => Leftover::Feed,
        }
    }
}
