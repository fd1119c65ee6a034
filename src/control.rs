//! The handle that other tasks hold.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::address::Address;
use crate::close::CloseReport;
use crate::error::{Error, Reason};
use crate::policy::{Policy, Role};
use crate::socket;

/// What is beneath all floors: the part of a connection that an abort has to reach.
pub(crate) trait Ground: Send + Sync {
    /// Ends it now, with RST where there is such a thing, and wakes whoever waits on it.
    fn abort(&self);

    /// The TCP socket, where it is one.
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

/// Whoever has tasks waiting that an abort has to wake.
pub(crate) trait Watcher: Send + Sync {
    /// The connection was aborted.
    fn handle_abort(&self);
}

/// A handle to a connection: cheap to clone, usable from any task or thread, in use or not. It keeps nothing alive: once
/// the connection is gone, so is its socket (rule: life-4).
///
/// The handle of a connection is the same on every floor and through every upgrade.
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
pub struct Control(Arc<Shared>);

struct Shared {
    host: Address,
    peer: Address,
    policy: Arc<Policy>,
    /// Made by connecting, not by accepting.
    connected: AtomicBool,
    aborted: AtomicBool,
    reset: AtomicBool,
    unacknowledged: OnceLock<Option<u64>>,
    ended: OnceLock<CloseReport>,
    ground: OnceLock<Weak<dyn Ground>>,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    gone: AtomicBool,
    going: Notify,
}

impl Control {
    pub(crate) fn new(host: Address, peer: Address, policy: Arc<Policy>) -> Self {
        Self(Arc::new(Shared {
            host,
            peer,
            policy,
            connected: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            reset: AtomicBool::new(false),
            unacknowledged: OnceLock::new(),
            ended: OnceLock::new(),
            ground: OnceLock::new(),
            watchers: Mutex::new(Vec::new()),
            gone: AtomicBool::new(false),
            going: Notify::new(),
        }))
    }

    /// Says what an abort has to reach.
    pub(crate) fn stand_on(&self, ground: Weak<dyn Ground>) {
        // Set once, where the ground is made.
        let _ = self.0.ground.set(ground);
    }

    /// Ends the connection now: what is queued is thrown away, and the peer gets RST. No close_notify and no other
    /// record leaves after this. It never waits, and may be called in any state, any number of times (rules: abort-1 to
    /// abort-5). Whoever reads or writes gets [`Reason::Aborted`](crate::Reason::Aborted).
    #[doc(alias = "abortConnection")]
    #[doc(alias = "SetLinger")]
    pub fn abort(&self) {
        if !self.is_ended() {
            self.abort_ground();
        }
    }

    fn abort_ground(&self) {
        if self.0.aborted.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(ground) = self.ground() {
            ground.abort();
        }
        self.take_watchers().iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.handle_abort());
        self.0.going.notify_waiters();
    }

    fn take_watchers(&self) -> Vec<Weak<dyn Watcher>> {
        std::mem::take(&mut *self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on an abort tells this one too.
    pub(crate) fn watch(&self, watcher: Weak<dyn Watcher>) {
        let mut watchers = self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(watcher);
    }

    /// Whether somebody on this side has aborted the connection.
    pub fn is_aborted(&self) -> bool {
        self.0.aborted.load(Ordering::Acquire)
    }

    /// Whether the connection has ended and its socket is gone.
    pub fn is_ended(&self) -> bool {
        self.0.ended.get().is_some() || self.0.gone.load(Ordering::Acquire)
    }

    /// Waits until the connection has ended, or was reset: also while nobody reads from it or writes to it (rule:
    /// flow-5). What happened, the next operation on the transport says.
    ///
    /// A reset is noticed where a TCP socket is beneath; of any other stream only the end is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    #[doc(alias = "connectionLost")]
    pub async fn lost(&self) {
        let gone = self.0.going.notified();
        tokio::pin!(gone);
        gone.as_mut().enable();
        if self.is_ended() || self.is_aborted() || self.was_reset() {
            return;
        }
        let ground = self.ground();
        let Some(stream) = ground.as_ref().and_then(|ground| ground.socket()) else { return gone.await };
        tokio::select! {
            () = gone => {}
            _ = stream.ready(Interest::ERROR) => {}
        }
    }

    /// The socket has gone.
    pub(crate) fn note_gone(&self) {
        self.0.gone.store(true, Ordering::Release);
        // rule: life-4: a handle that is kept keeps nothing of the floors.
        drop(self.take_watchers());
        self.0.going.notify_waiters();
    }

    /// Our address.
    #[doc(alias = "getHost")]
    #[doc(alias = "local_addr")]
    pub fn host(&self) -> Address {
        self.0.host.clone()
    }

    /// The peer's address.
    #[doc(alias = "getPeer")]
    #[doc(alias = "peer_addr")]
    pub fn peer(&self) -> Address {
        self.0.peer.clone()
    }

    /// The policy of the connection.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.0.policy
    }

    /// How the connection was closed, once [`close`](crate::Transport::close) has come to its end.
    pub fn report(&self) -> Option<&CloseReport> {
        self.0.ended.get()
    }

    /// Keeps the one report of the connection; later ones change nothing (rule: close-6).
    pub(crate) fn set_report(&self, report: CloseReport) -> &CloseReport {
        self.0.ended.get_or_init(|| report)
    }

    /// Whether both are handles of one connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// One half saw RST: the system tells it once, and the other half has to know.
    pub(crate) fn note_reset(&self) {
        self.0.reset.store(true, Ordering::Release);
    }

    /// The socket goes: what was not acknowledged then (rule: close-4).
    pub(crate) fn note_unacknowledged(&self, bytes: Option<u64>) {
        let _ = self.0.unacknowledged.set(bytes);
    }

    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        self.0.unacknowledged.get().copied().flatten()
    }

    /// Bytes that the peer's system has not acknowledged yet; 0 where none can be, or nobody knows.
    pub(crate) fn in_flight(&self) -> u64 {
        let ground = self.ground().filter(|_| !self.is_aborted());
        let stream = ground.as_ref().and_then(|ground| ground.socket());
        stream.and_then(|stream| socket::unacknowledged(stream, true)).unwrap_or(0)
    }

    pub(crate) fn was_reset(&self) -> bool {
        self.0.reset.load(Ordering::Acquire)
    }

    /// The side of the connection: the client where it was made by connecting.
    pub(crate) fn made(&self) -> Role {
        if self.0.connected.load(Ordering::Relaxed) { Role::Client } else { Role::Server }
    }

    pub(crate) fn set_connected(&self) {
        self.0.connected.store(true, Ordering::Relaxed);
    }

    /// Resets what is at the bottom, which nobody on this side asked for as an abort.
    pub(crate) fn reset(&self) {
        if let Some(ground) = self.ground() {
            ground.abort();
        }
    }

    /// Ends the connection now, for a reason of ours that is not an abort of the application's.
    pub(crate) fn end(&self, reason: Reason) {
        self.set_report(CloseReport::of(reason));
        self.abort_ground();
    }

    /// Does something with the TCP socket at the bottom. An error, never a panic, once it is gone (rule: tcp-3).
    pub(crate) fn with_socket<R>(&self, f: impl FnOnce(socket::Options<'_>) -> io::Result<R>) -> io::Result<R> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        let ground = self.ground().ok_or_else(gone)?;
        if self.is_aborted() {
            return Err(gone());
        }
        let stream = ground.socket().ok_or(Error::Unsupported("TCP socket"))?;
        f(socket::Options::of(stream))
    }

    fn ground(&self) -> Option<Arc<dyn Ground>> {
        if self.0.gone.load(Ordering::Acquire) {
            return None;
        }
        self.0.ground.get().and_then(Weak::upgrade)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("host", &self.0.host).field("peer", &self.0.peer).finish_non_exhaustive()
    }
}
