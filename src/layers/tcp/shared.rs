//! The socket that both halves share.

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Waker};

use tokio::net::TcpStream;

use super::TcpConnection;
use super::calls::Calls;
use crate::conn::control::{Bottom, Closing, Control};
use crate::conn::idle::HalfOpen;
use crate::conn::lost_socket::error_of;
use crate::conn::shared_socket::{self, SharedSocket, SocketRef};
use crate::conn::socket;
use crate::core::delivery::Pending;
use crate::error::{Phase, Reason};
use crate::policy::Policy;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::transport::close::Close;

/// The socket that the two halves share. Each read and write uses only the first fields.
#[repr(C)]
pub(super) struct SharedTcp {
    pub(super) socket: SharedSocket,
    /// A layer above detects a truncation by its own marker.
    pub(super) beneath: AtomicBool,
    calls: Calls,
    /// Whether the system resets the connection if the process dies.
    resets_when_killed: AtomicBool,
    /// For each pair of halves ([`OWNER`], [`CLOSER`]): whether both halves hold the socket.
    held: [AtomicBool; 2],
    /// The number of pairs that hold the socket.
    pairs: AtomicUsize,
    /// Both halves have ended in order. The half that ended last holds the socket until all our bytes have arrived.
    lingers: AtomicBool,
    /// The end was handled, after a linger or without one. Two threads may come here at once, so it is handled once.
    has_ended: AtomicBool,
    control: Control,
    pub(super) fin_sent: HalfOpen,
    /// The peer has ended its half, in this layer or in one above.
    pub(super) fin_received: HalfOpen,
    watch: Mutex<Watch>,
}

/// Detects an error of the socket, for the tasks that wait for the loss of the connection. Holds the socket, and is
/// dropped together with the second half.
enum Watch {
    /// No task has waited for the loss yet.
    Idle,
    Watching(Pin<Box<dyn Future<Output = ()> + Send>>),
    HasError,
    Over,
}

impl SharedTcp {
    /// Both halves were dropped: the connection ends now, even if other tasks still hold the socket.
    fn end(&self) {
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let watch = std::mem::replace(&mut *self.watch(), Watch::Over);
        drop(watch);
        if self.fin_sent.has_begun() {
            // If the socket was kept open until our last bytes have arrived, their delivery is checked once more, because
            // the peer may have answered them with a reset. `is_settled` notes the result.
            let _ = !self.lingers.load(Ordering::Acquire) || self.is_settled();
            self.note_unacknowledged();
        }
        if !self.is_beneath() {
            if !self.fin_sent.has_begun() {
                // rule: close-12: FIN is this layer's marker, so a connection that was dropped before its end must not
                // send FIN.
                self.reset();
            } else if self.fin_received.has_begun() {
                self.control.note_reason(&Reason::Closed);
            }
        }
        self.control.note_gone();
    }

    /// Keeps the connection open until [`leave`](Self::leave). Returns false if it has ended already.
    fn keep(&self) -> bool {
        let add = |pairs: usize| (pairs > 0).then_some(pairs + 1);
        self.pairs.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    /// The connection ends with the last pair of halves.
    fn leave(&self) {
        if self.pairs.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.end();
        }
    }

    /// Whether the delivery of our data is decided: everything has arrived, the connection is lost, or the system
    /// cannot report it. After everything has arrived, the system is not asked again.
    fn is_settled(&self) -> bool {
        let Some(pending) = self.ask() else { return true };
        if pending != Pending::default() {
            let taken = self.socket.get().map(|stream| stream.take_error());
            let Some(Err(error) | Ok(Some(error))) = taken else { return false };
            self.control.note_failure(&Reason::from_io(error, Phase::Close));
        }
        self.control.note_pending(|| Some(pending));
        true
    }

    /// Makes a system call for one half ([`READER`](crate::conn::waiting::READER) or
    /// [`WRITER`](crate::conn::waiting::WRITER)). After a result that ends the half, the other half's last error is
    /// known.
    #[inline]
    pub(super) fn call(&self, half: usize, call: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        self.calls.make(half, call, |error| {
            // After our own reset, the system reports a reset too.
            let code = error.raw_os_error().filter(|_| !self.control.is_cut());
            if let Some(code) = code {
                self.control.note_failure(&Reason::from_io(io::Error::from_raw_os_error(code), Phase::Open));
            }
        })
    }

    /// Called when a half was lost. Only the topmost layer knows which reason of the connection follows from this.
    pub(super) fn note_loss(&self, reason: &Reason) {
        self.note_unacknowledged();
        self.control.note_failure(reason);
        if !self.is_beneath() {
            self.control.note_reason(reason);
        }
    }

    /// Called when FIN has arrived.
    pub(super) fn note_marker(&self) {
        if self.fin_sent.has_begun() && !self.is_beneath() {
            self.control.note_answered();
        }
        self.fin_received.begin();
    }

    pub(super) fn is_beneath(&self) -> bool {
        self.beneath.load(Ordering::Acquire)
    }

    /// Whether a short read means that no more bytes have arrived. It does if readiness is edge-triggered, except at
    /// the mark of urgent data, where a read ends early. TLS peers send no urgent data, but FTP's ABOR does. So in
    /// plaintext, the socket is read until it has no more bytes.
    pub(super) fn tells_by_short_reads(&self) -> bool {
        socket::TELLS_BY_EDGES && self.is_beneath()
    }

    fn reset(&self) {
        self.socket.reset();
        if shared_socket::TAKES_AWAY {
            // The watch holds the socket too, and the socket must close now.
            let watch = std::mem::replace(&mut *self.watch(), Watch::HasError);
            drop(watch);
        }
    }

    /// Called when our send half ends. From now on, the system may end the connection in order.
    pub(super) fn allow_orderly_end(&self) {
        if self.resets_when_killed.swap(false, Ordering::AcqRel) {
            if let Some(stream) = self.socket.get() {
                socket::Options::of(&stream).end_on_drop();
            }
        }
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records how many bytes are unacknowledged. Called only if a report may follow: a connection that is dropped
    /// before its end has no report.
    fn note_unacknowledged(&self) {
        self.control.note_pending(|| self.ask());
    }

    fn ask(&self) -> Option<Pending> {
        self.socket.get().and_then(|stream| socket::in_flight(&stream)).map(|bytes| {
            let fin = self.fin_sent.has_begun() && bytes > 0;
            Pending { bytes: bytes - u64::from(fin), fin: fin && !self.is_beneath() }
        })
    }
}

/// The error of a call on a socket that a reset has closed. The connection's [`Control`] knows the reason.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

/// The share of one half in the socket. Dropping it releases the half.
pub(super) struct SocketShare {
    shared: Arc<SharedTcp>,
    pair: u8,
    share: ShareState,
}

/// The halves of the application.
const OWNER: u8 = 0;
/// The halves of a [`Control::close`].
const CLOSER: u8 = 1;

#[derive(PartialEq, Eq)]
enum ShareState {
    /// A half that is open. The connection ends when both halves are dropped.
    Half,
    /// The last of two halves that have ended. The connection ends when it is dropped.
    Last,
    /// The half has been released.
    Nothing,
}

impl SocketShare {
    /// Makes the two shares of a socket, and the [`Control`] of the connection.
    pub(super) fn pair(stream: TcpStream, host: SocketAddr, peer: SocketAddr, policy: Arc<Policy>) -> [Self; 2] {
        let resets_when_killed = policy.reset_when_killed;
        let control = Control::new(host.into(), peer.into(), policy);
        control.set_tcp();
        let shared = Arc::new(SharedTcp {
            socket: SharedSocket::new(stream),
            control: control.clone(),
            fin_sent: HalfOpen::default(),
            fin_received: HalfOpen::default(),
            beneath: AtomicBool::new(false),
            calls: Calls::default(),
            resets_when_killed: AtomicBool::new(false),
            held: [AtomicBool::new(true), AtomicBool::new(false)],
            pairs: AtomicUsize::new(1),
            lingers: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            watch: Mutex::new(Watch::Idle),
        });
        if resets_when_killed {
            shared.reset_when_killed();
        }
        let bottom: Weak<dyn Bottom> = Arc::downgrade(&(Arc::clone(&shared) as Arc<dyn Bottom>));
        control.stand_on(bottom);
        Self::both(shared, OWNER)
    }

    /// Makes the two shares of a [`Control::close`], while the halves of the application may hold the socket. `None`:
    /// the connection has ended.
    pub(super) fn pair_to_close(shared: Arc<SharedTcp>) -> Option<[Self; 2]> {
        if !shared.keep() {
            return None;
        }
        shared.held[usize::from(CLOSER)].store(true, Ordering::Release);
        Some(Self::both(shared, CLOSER))
    }

    fn both(shared: Arc<SharedTcp>, pair: u8) -> [Self; 2] {
        [Arc::clone(&shared), shared].map(|shared| Self { shared, pair, share: ShareState::Half })
    }

    pub(super) fn control(&self) -> &Control {
        &self.shared.control
    }

    /// Called when the half has ended in order. If it is the second half, and the peer's system has not acknowledged
    /// all our bytes, the socket stays open: see [`settle`](Self::settle).
    pub(super) fn finish(mut self) -> Option<Self> {
        self.share = ShareState::Nothing;
        if self.shared.held[usize::from(self.pair)].swap(false, Ordering::AcqRel) {
            return None;
        }
        self.share = ShareState::Last;
        let has_ended = self.shared.fin_sent.has_begun() && self.shared.fin_received.has_begun();
        if !has_ended || self.shared.is_settled() {
            return None;
        }
        self.shared.lingers.store(true, Ordering::Release);
        self.shared.control.note_lingering();
        Some(self)
    }

    /// Whether the socket is held only until our bytes have arrived, and the delivery is now decided.
    pub(super) fn is_settled(&self) -> bool {
        self.shared.lingers.load(Ordering::Acquire) && !self.shared.awaits_delivery()
    }
}

impl Deref for SocketShare {
    type Target = SharedTcp;

    fn deref(&self) -> &SharedTcp {
        &self.shared
    }
}

impl Drop for SocketShare {
    fn drop(&mut self) {
        let is_last = match self.share {
            ShareState::Half => !self.held[usize::from(self.pair)].swap(false, Ordering::AcqRel),
            ShareState::Last => true,
            ShareState::Nothing => false,
        };
        if is_last {
            self.leave();
        }
    }
}

/// Keeps the connection open without being one of its halves.
struct KeptOpen(Arc<SharedTcp>);

impl Drop for KeptOpen {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Bottom for SharedTcp {
    fn abort(&self) {
        // The system is asked before the reset, because after that it has no unacknowledged bytes to report.
        self.note_unacknowledged();
        self.reset();
    }

    fn handle_close(&self) {
        // A layer above wakes its own tasks.
        if !self.is_beneath() {
            self.socket.wake();
        }
    }

    fn hold(self: Arc<Self>) -> Option<Box<dyn Send>> {
        self.keep().then(|| Box::new(KeptOpen(self)) as Box<dyn Send>)
    }

    fn close_in_order(self: Arc<Self>) -> Option<Closing> {
        let mut connection = TcpConnection::to_close(self)?;
        Some(Box::pin(async move { Close::by_handle(&mut connection).await }))
    }

    fn socket(&self) -> Option<SocketRef<'_>> {
        self.socket.get()
    }

    fn handle_close_report(&self) {
        self.note_unacknowledged();
    }

    fn awaits_delivery(&self) -> bool {
        if !self.lingers.load(Ordering::Acquire) || self.has_ended.load(Ordering::Acquire) {
            return false;
        }
        let is_settled = self.is_settled();
        if is_settled {
            // The connection counts as ended now. The half that holds the socket closes it at its next check.
            self.end();
        }
        !is_settled
    }

    fn has_unacknowledged(&self) -> bool {
        !self.has_ended.load(Ordering::Acquire) && !self.is_settled()
    }

    fn pending(&self) -> Option<Pending> {
        self.ask()
    }

    fn reset_when_killed(&self) {
        // rule: flow-7: after our FIN was sent, a FIN from the system cannot be mistaken for it any more.
        if !self.fin_sent.has_begun() && !self.resets_when_killed.swap(true, Ordering::AcqRel) {
            if let Some(stream) = self.socket.get() {
                socket::Options::of(&stream).reset_on_drop();
            }
        }
    }

    fn has_error(self: Arc<Self>, waker: &Waker) -> bool {
        let mut watch = self.watch();
        if let Watch::Idle = *watch {
            let shared = Arc::clone(&self);
            *watch = Watch::Watching(Box::pin(async move { error_of(&shared.socket).await }));
        }
        let found = match &mut *watch {
            Watch::Watching(error) => error.as_mut().poll(&mut Context::from_waker(waker)).is_ready(),
            Watch::HasError => return true,
            Watch::Idle | Watch::Over => return false,
        };
        if found {
            let before = std::mem::replace(&mut *watch, Watch::HasError);
            drop(watch);
            drop(before);
        }
        found
    }
}
