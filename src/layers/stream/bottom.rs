//! The parts of a stream that a [`Control`] can access: the tasks that wait on it, and a stream that its owner has
//! handed over.

use std::sync::{Arc, OnceLock, PoisonError, Weak};

use tokio::io::{AsyncRead, AsyncWrite};

use super::Stream;
use crate::conn::control::{Bottom, Closing, Control, PeerCred};
use crate::conn::idle::{IdleTimer, StallTimer};
use crate::conn::time::{after, until};
use crate::conn::waiting::Waiting;
use crate::sync::{Mutex, Notify};
use crate::transport::Transport;
use crate::transport::close::Close;

/// The bottom of a connection that has a stream instead of a TCP socket.
///
/// A stream belongs to the tasks that poll it, and has no lock. So a [`Control::close`] has to wait for the owner: at
/// the owner's next poll, the stream is put here, and the close takes it.
pub(super) struct StreamBottom {
    waiting: Arc<Waiting>,
    control: Control,
    handed: Mutex<Option<Box<dyn Transport>>>,
    handing: Notify,
    peer_cred: OnceLock<PeerCred>,
}

impl StreamBottom {
    /// Makes the bottom of this connection.
    pub(super) fn beneath(control: &Control, waiting: Arc<Waiting>) -> Arc<Self> {
        let bottom = Arc::new(Self {
            waiting,
            control: control.clone(),
            handed: Mutex::default(),
            handing: Notify::default(),
            peer_cred: OnceLock::new(),
        });
        let weak: Weak<dyn Bottom> = Arc::downgrade(&(Arc::clone(&bottom) as Arc<dyn Bottom>));
        control.stand_on(weak);
        bottom
    }

    /// Takes the stream from its owner.
    pub(super) fn take_over(&self, stream: Box<dyn Transport>) {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        self.handing.notify_one();
    }

    #[cfg(unix)]
    pub(super) fn set_peer_cred(&self, cred: PeerCred) {
        // Setting cannot fail: only the constructor of the stream calls this, once.
        let _ = self.peer_cred.set(cred);
    }

    fn take(&self) -> Option<Box<dyn Transport>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream<S> {
    /// If [`Control::close`] was called, passes the stream from its owner to the close (rule: close-16). If there is a
    /// layer above, the close uses that layer instead.
    #[cold]
    #[inline(never)]
    pub(super) fn hand_over(&mut self) {
        if self.beneath || !self.control.is_close_asked() {
            return;
        }
        let Some(bottom) = self.bottom.clone() else { return };
        let Some(live) = self.live.take() else { return };
        let handed = Self {
            live: Some(live),
            bottom: None,
            send: self.send.clone(),
            recv: self.recv.clone(),
            inbox: std::mem::take(&mut self.inbox),
            control: self.control.clone(),
            timers: <[IdleTimer; 2]>::default(),
            stall: StallTimer::default(),
            fin_sent: std::mem::take(&mut self.fin_sent),
            fin_received: std::mem::take(&mut self.fin_received),
            ..*self
        };
        let _ = self.send.close_write();
        bottom.take_over(Box::new(handed));
    }

    /// Whether a close has taken the stream: bytes that are read from now on must not go to this owner.
    pub(super) fn is_taken(&self) -> bool {
        self.bottom.is_some() && self.live.is_none() && self.recv.is_open() && self.control.is_close_asked()
    }
}

/// A stream that was handed over. If the close is dropped, the next close can take the stream again.
struct TakenOver<'a> {
    bottom: &'a StreamBottom,
    stream: Option<Box<dyn Transport>>,
}

impl Drop for TakenOver<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|stream| !stream.control().is_ended()) {
            self.bottom.take_over(stream);
        }
    }
}

impl Bottom for StreamBottom {
    fn abort(&self) {
        self.waiting.wake();
    }

    fn handle_close(&self) {
        self.waiting.wake();
    }

    fn peer_cred(&self) -> Option<PeerCred> {
        self.peer_cred.get().copied()
    }

    fn hold(self: Arc<Self>) -> Option<Box<dyn Send>> {
        Some(Box::new(self))
    }

    fn close_in_order(self: Arc<Self>) -> Option<Closing> {
        Some(Box::pin(async move {
            let mut taken = TakenOver { bottom: &self, stream: None };
            let deadline = after(self.control.policy().close_timeout);
            let handed = until(deadline, async {
                loop {
                    taken.stream = self.take();
                    if taken.stream.is_some() {
                        return;
                    }
                    tokio::select! {
                        () = self.handing.notified() => {}
                        () = self.control.gone() => return,
                    }
                }
            })
            .await;
            if let Some(stream) = &mut taken.stream {
                return Close::by_handle(stream).await;
            }
            if handed.is_none() {
                self.control.give_up_end();
            }
            self.control.report_without_close()
        }))
    }
}
