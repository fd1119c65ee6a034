//! [`Control`]: the handle of a connection, for other tasks.

mod bottom;
mod busy;
mod close;
mod controlled;
mod cred;
mod delivery;
mod keepalive;
mod lost;
mod membership;
mod observed;
mod observer;
#[cfg(feature = "proxy")]
mod proxied;
mod rare;
mod report;
mod tcp_info;
mod traits;
mod watcher;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock, PoisonError, Weak};

pub(crate) use self::bottom::Bottom;
pub use self::busy::Busy;
pub(crate) use self::close::Closing;
pub(crate) use self::controlled::Controlled;
pub use self::cred::PeerCred;
pub(crate) use self::delivery::Delivery;
use self::delivery::NOT_ASKED;
pub(crate) use self::membership::{Group, Membership, WeakControl, draining};
use self::observed::Observed;
pub(crate) use self::observer::Observers;
pub use self::observer::{AcceptFailure, AcceptFault, Observer, Reload};
use self::rare::Rare;
pub(crate) use self::watcher::Watcher;
use crate::address::Address;
use crate::conn::after_unlock;
use crate::conn::idle::Activity;
use crate::conn::socket;
use crate::core::facts::SessionFacts;
use crate::core::report::CloseReport;
use crate::error::{Error, Phase, Reason};
use crate::policy::Policy;
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use crate::sync::{Mutex, Notify};

/// A handle to a connection. It is cheap to clone, and any task or thread may use it while other tasks use the
/// connection. It keeps no socket open: when the connection has ended, its socket is closed, even if handles remain
/// (rule: life-4).
///
/// The handle of a connection is the same on every layer and through every upgrade.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use bowline::Transport;
/// use tokio::io::AsyncReadExt;
///
/// let (mut ours, _theirs) = bowline::testing::tcp_pair().await?;
/// let control = ours.control();
/// tokio::spawn(async move { control.abort() });
/// let error = ours.read(&mut [0; 16]).await.unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Control(Arc<Inner>);

/// Each read and write uses only the first fields. In this order, they share a cache line.
#[repr(C)]
struct Inner {
    received: AtomicU64,
    sent: AtomicU64,
    /// Plaintext of the topmost TLS session.
    opened: AtomicU64,
    /// Plaintext of the topmost TLS session.
    sealed: AtomicU64,
    activity: Activity,
    /// [`CLOSE_ASKED`], [`CUT`], or both.
    touched: AtomicU8,
    /// A half saw RST. This comes before the socket is closed, and most sockets are closed without it.
    reset: AtomicBool,
    /// The bits of `traits.rs`.
    traits: AtomicU8,
    /// The peer's end came after ours had left. A reset may follow.
    answered: AtomicBool,
    /// How many closes are in progress, and will report.
    closing: AtomicU8,
    /// [`SOCKET_OPEN`], [`SOCKET_CLOSED`] or [`SETTLED`]; it only grows.
    progress: AtomicU8,
    policy: Arc<Policy>,
    host: Address,
    peer: Address,
    /// The bytes that were unacknowledged when the socket was closed: see [`Control::note_pending`].
    unacknowledged: AtomicU64,
    rare: OnceLock<Box<Rare>>,
    bottom: OnceLock<Weak<dyn Bottom>>,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    going: Notify,
    membership: OnceLock<Membership>,
    /// The facts of the last TLS session.
    facts: Mutex<Option<Arc<SessionFacts>>>,
}

/// The socket exists.
const SOCKET_OPEN: u8 = 0;
/// The socket was closed.
const SOCKET_CLOSED: u8 = 1;
/// The socket was closed, and the reason of the end is final: the layer that dropped the socket has reported it.
const SETTLED: u8 = 2;

/// [`Control::close`] was called.
const CLOSE_ASKED: u8 = 1;
/// We ended the connection at the bottom: by an abort, or for the reason in the report.
const CUT: u8 = 2;

impl Inner {
    /// Adds to a counter. Each counter has a single writer, the half of that direction, so a load and a store are
    /// enough.
    fn count(&self, counter: &AtomicU64, bytes: usize) {
        if bytes > 0 {
            let so_far = counter.load(Ordering::Relaxed);
            counter.store(so_far + bytes as u64, Ordering::Relaxed);
            self.activity.note();
        }
    }
}

impl Control {
    pub(crate) fn new(host: Address, peer: Address, policy: Arc<Policy>) -> Self {
        Self(Arc::new(Inner {
            host,
            peer,
            activity: Activity::new(&policy),
            rare: Observed::of(&policy).map(Rare::observed).unwrap_or_default(),
            policy,
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            sealed: AtomicU64::new(0),
            traits: AtomicU8::new(0),
            touched: AtomicU8::new(0),
            reset: AtomicBool::new(false),
            unacknowledged: AtomicU64::new(NOT_ASKED),
            answered: AtomicBool::new(false),
            closing: AtomicU8::new(0),
            bottom: OnceLock::new(),
            watchers: Mutex::new(Vec::new()),
            progress: AtomicU8::new(SOCKET_OPEN),
            going: Notify::new(),
            membership: OnceLock::new(),
            facts: Mutex::new(None),
        }))
    }

    /// Sets the bottom layer, on which an abort acts.
    pub(crate) fn stand_on(&self, bottom: Weak<dyn Bottom>) {
        // Setting cannot fail: only the constructor of the bottom layer calls this, once.
        let _ = self.0.bottom.set(bottom);
    }

    /// Ends the connection now: queued bytes are discarded, and the peer gets RST. No close_notify and no other
    /// record leaves after this. This method never waits, and may be called in any state, any number of times (rules:
    /// abort-1 to abort-5). Tasks that read or write get [`Reason::Aborted`](crate::Reason::Aborted).
    #[doc(alias = "abortConnection")]
    #[doc(alias = "SetLinger")]
    pub fn abort(&self) {
        self.cut_off();
    }

    /// Aborts the connection, and returns whether this call changed anything.
    pub(crate) fn cut_off(&self) -> bool {
        !self.is_ended() && self.cut_at_bottom(&Reason::Aborted)
    }

    /// Returns whether this call was the first.
    fn set_cut(&self) -> bool {
        self.0.touched.fetch_or(CUT, Ordering::SeqCst) & CUT == 0
    }

    fn cut_at_bottom(&self, reason: &Reason) -> bool {
        let is_first = self.set_cut();
        if is_first {
            self.note_reason(reason);
            self.tell();
        }
        is_first
    }

    /// Aborts the bottom layer and wakes all waiting tasks, after the connection was cut off. The caller may hold the
    /// locks of layers that have to be notified, so this runs after those locks are released.
    fn tell(&self) {
        let this = self.clone();
        after_unlock::run(move || {
            if let Some(bottom) = this.bottom() {
                bottom.abort();
            }
            this.take_watchers().iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.handle_abort());
            this.0.going.notify_waiters();
        });
    }

    /// Notifies the waiting tasks that the connection's group drains.
    pub(crate) fn tell_draining(&self) {
        let watchers = self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        watchers.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.handle_drain());
    }

    fn take_watchers(&self) -> Vec<Weak<dyn Watcher>> {
        std::mem::take(&mut *self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds an owner of waiting tasks that an abort has to wake.
    pub(crate) fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut watchers = self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        // Space for exactly one: each TLS layer adds one watcher, and few connections have a second TLS layer.
        watchers.reserve_exact(1);
        watchers.push(watcher);
    }

    /// Whether the application has aborted the connection. This is false if we ended the connection for another
    /// reason, such as a failed upgrade or a timeout.
    #[inline]
    pub fn is_aborted(&self) -> bool {
        self.is_cut() && matches!(self.reason_of_cut(), Reason::Aborted)
    }

    /// The reason for which we ended the connection at the bottom layer, if we did. Every step of every operation
    /// checks this.
    #[inline]
    pub(crate) fn cut(&self) -> Option<Reason> {
        if self.is_cut() { Some(self.reason_of_cut()) } else { None }
    }

    #[cold]
    fn reason_of_cut(&self) -> Reason {
        self.kept_report().map_or(Reason::Aborted, |report| report.reason.clone())
    }

    /// Whether the connection has ended and its socket is closed.
    pub fn is_ended(&self) -> bool {
        // The order of the last three matters: `awaits_delivery` asks the system whether our last bytes have arrived,
        // and ends the connection if they have (rule: close-13).
        self.kept_report().is_some() || (!self.awaits_delivery() && self.is_settled() && !self.is_closing())
    }

    /// Called when the socket was closed.
    pub(crate) fn note_gone(&self) {
        self.0.progress.fetch_max(SOCKET_CLOSED, Ordering::SeqCst);
        let this = self.clone();
        // The end of a connection wakes an accept that waits for a permit, and a drain that waits for members. So
        // this runs when no lock is held. rule: life-7
        after_unlock::run(move || {
            // rule: life-4: a handle that outlives the connection must keep no layer alive.
            drop(this.take_watchers());
            // rule: end-9. A layer above notes the reason of the end while it holds its lock. No lock is held here, so
            // the reason is known.
            this.0.progress.store(SETTLED, Ordering::SeqCst);
            this.release_places();
            this.leave();
            this.0.going.notify_waiters();
            this.tell_ended();
        });
    }

    fn is_settled(&self) -> bool {
        self.0.progress.load(Ordering::SeqCst) == SETTLED
    }

    fn is_gone(&self) -> bool {
        self.0.progress.load(Ordering::SeqCst) >= SOCKET_CLOSED
    }

    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        self.0.touched.load(Ordering::Acquire) & CUT != 0
    }

    /// Our address.
    #[doc(alias = "getHost")]
    #[doc(alias = "host")]
    pub fn local_addr(&self) -> Address {
        self.0.host.clone()
    }

    /// The peer's address. If the connection began with a PROXY header that names the client, this is the client's.
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer")]
    pub fn peer_addr(&self) -> Address {
        #[cfg(feature = "proxy")]
        if let Some(client) = self.client() {
            return client.clone();
        }
        self.0.peer.clone()
    }

    /// The policy of the connection.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.0.policy
    }

    /// The number of bytes that the connection has sent and received so far, counted at the bottom layer. The
    /// counters can also be read after the end.
    #[doc(alias = "bytes_received")]
    #[doc(alias = "bytes_sent")]
    pub fn traffic(&self) -> Traffic {
        Traffic { received: self.0.received.load(Ordering::Relaxed), sent: self.0.sent.load(Ordering::Relaxed) }
    }

    /// Counts bytes that were read from the bottom layer.
    pub(crate) fn note_received(&self, bytes: usize) {
        self.0.count(&self.0.received, bytes);
    }

    /// Counts bytes that the bottom layer has accepted.
    pub(crate) fn note_sent(&self, bytes: usize) {
        self.0.count(&self.0.sent, bytes);
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// A number that no other connection has while a `Control` of this one exists. It can be the key in a map of
    /// connections that holds each `Control`, for example in an [`Observer`].
    #[doc(alias = "id")]
    pub fn number(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }

    /// Whether both handles belong to the same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Records the loss that one half saw, if it is an error that ends the socket. The system reports it only once:
    /// after it, the other half would see the end of the input, or a broken pipe (rule: end-10).
    pub(crate) fn note_failure(&self, reason: &Reason) {
        match reason {
            Reason::Reset(_) => self.0.reset.store(true, Ordering::Release),
            reason if reason.ends_socket() => drop(self.make_rare().failed.set(reason.clone())),
            _ => {}
        }
    }

    /// The error of the system that ended the socket, if there was one.
    pub(crate) fn failure(&self) -> Option<Reason> {
        let failed = self.rare().and_then(|rare| rare.failed.get().cloned());
        failed.or_else(|| self.was_reset().then_some(Reason::Reset(Phase::Open)))
    }

    /// Called when the data that is sent here comes from another source. If the process is killed, the data must not
    /// look complete (rule: flow-7).
    pub(crate) fn reset_when_killed(&self) {
        if let Some(bottom) = self.bottom() {
            bottom.reset_when_killed();
        }
    }

    pub(crate) fn was_reset(&self) -> bool {
        self.0.reset.load(Ordering::Acquire)
    }

    /// Resets the bottom layer without an abort by the application.
    pub(crate) fn reset(&self) {
        if let Some(bottom) = self.bottom() {
            bottom.abort();
        }
    }

    /// Ends the connection now for a reason that this crate has found, without an abort by the application.
    pub(crate) fn end(&self, reason: Reason) {
        if !self.is_cut() {
            self.set_report(CloseReport::of(reason.clone()));
        }
        self.cut_at_bottom(&reason);
    }

    /// Called when an idle limit was reached. Returns the reason. If only one half was still open, that half ends the
    /// connection. Otherwise the connection is ended at the bottom layer, because neither half knows the state of the
    /// other.
    pub(crate) fn time_out(&self, phase: Phase) -> Reason {
        let reason = Reason::TimedOut(phase);
        if phase == Phase::Idle && !self.is_cut() {
            self.set_report(CloseReport::of(reason.clone()));
            if self.set_cut() {
                self.tell();
            }
        }
        reason
    }

    /// Calls `f` with the TCP socket of the bottom layer. If the socket is already closed, this returns an error and
    /// does not panic (rule: tcp-3).
    pub(crate) fn with_socket<R>(&self, f: impl FnOnce(socket::Options<'_>) -> io::Result<R>) -> io::Result<R> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        let bottom = self.bottom().ok_or_else(gone)?;
        if self.is_cut() {
            return Err(gone());
        }
        let stream = bottom.socket().ok_or(Error::Unsupported("TCP socket"))?;
        f(socket::Options::of(&stream))
    }

    fn bottom(&self) -> Option<Arc<dyn Bottom>> {
        if self.is_gone() {
            return None;
        }
        self.0.bottom.get().and_then(Weak::upgrade)
    }
}

/// The numbers of bytes that the bottom layer has transferred. With TLS they include records and handshakes. The
/// headers of TCP and IP are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes from the peer.
    pub received: u64,
    /// Bytes to the peer that the kernel has accepted.
    pub sent: u64,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("host", &self.0.host).field("peer", &self.0.peer).finish_non_exhaustive()
    }
}
