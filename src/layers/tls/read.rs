//! The receiving half of a TLS layer.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};
use tokio::time::Instant;

use crate::conn::control::{Control, Controlled};
use crate::conn::time::{Clock, after};
use crate::core::half::{End, RecvHalf};
use crate::core::inbox::Inbox;
use crate::core::session::{Session, Step};
use crate::error::{Error, Phase, Reason, UpgradeError};
use crate::layers::tls::pump::{Pump, SharedPump};
use crate::transport::Transport;
use crate::transport::layer::{Discard, TOKEN, hand_over, poll_budget};

/// The most unread bytes that a downgrade keeps in memory while it waits for the peer's close_notify (rule:
/// upgrade-9). A close discards such bytes, so its limit (`close_discard`) can be larger.
const MAX_KEPT: u64 = 1 << 20;

/// The receiving half of a [`TlsConnection`](super::TlsConnection).
pub struct TlsReadHalf<T> {
    shared: Arc<SharedPump<T>>,
    control: Control,
    inbox: Inbox,
    /// The deadline of a handshake that may not be done yet.
    clock: Option<Clock>,
    /// The handshake is known to be done. A half of a close has no `clock` before that either.
    is_secured: bool,
    /// Whether this half was made for a close that [`Control::close`] has requested.
    pub(super) closes: bool,
    /// The application has seen the end of the half.
    has_ended: bool,
}

impl<T: Transport> TlsReadHalf<T> {
    pub(super) fn new(shared: Arc<SharedPump<T>>, control: Control) -> Self {
        let clock = Some(Clock::new(after(control.policy().handshake_timeout)));
        Self { shared, control, inbox: Inbox::default(), clock, is_secured: false, closes: false, has_ended: false }
    }

    /// The read half that a [`Control::close`] uses. The close has its own time limit.
    pub(super) fn to_close(shared: Arc<SharedPump<T>>, control: Control) -> Self {
        Self { closes: true, clock: None, ..Self::new(shared, control) }
    }

    /// Sets the deadline of the handshake, whichever task drives it (rule: secure-5).
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.clock = Some(Clock::new(deadline));
    }

    /// The deadline of the handshake.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.clock.as_ref().and_then(Clock::deadline)
    }

    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_clock(&mut self.clock, &self.shared, cx)
    }

    pub(super) fn shared(&self) -> &Arc<SharedPump<T>> {
        &self.shared
    }

    pub(super) fn control_ref(&self) -> &Control {
        &self.control
    }

    /// Drives the handshake. When it is done, that is remembered, so that a flush need not lock the session to find
    /// out.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        if self.is_secured {
            return Poll::Ready(Ok(()));
        }
        let outcome = match self.poll_handshake_step(cx) {
            Poll::Pending if self.poll_clock(cx).is_ready() => self.poll_handshake_step(cx),
            outcome => outcome,
        };
        self.is_secured = matches!(outcome, Poll::Ready(Ok(())));
        outcome
    }

    fn poll_handshake_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        self.with_live(|pump, is_closed| {
            if !pump.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if is_closed {
                return Poll::Ready(Err(Reason::Closed));
            }
            let _ = pump.transmit();
            while ready!(ready_or_park(pump, cx)) == Step::NeedInput {}
            if !pump.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(failure(&pump.session)))
        })
    }

    /// Reads up to the end of the half, and keeps the bytes. Returns the reason if the end is not clean.
    pub(super) fn poll_read_to_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            let mut kept = std::mem::take(&mut self.inbox);
            let step = self.with_live(|pump, is_closed| match ready_or_park(pump, cx) {
                _ if is_closed => Poll::Ready(Err(Reason::Closed)),
                Poll::Ready(Step::Data) => {
                    let n = pump.session.plaintext().len();
                    kept.push(pump.session.plaintext());
                    pump.session.consume(n);
                    pump.note_read(n);
                    Poll::Ready(Ok(false))
                }
                Poll::Ready(Step::Ended) => Poll::Ready(clean_end(&pump.session).map(|()| true)),
                Poll::Ready(Step::Secured | Step::NeedInput) => Poll::Ready(Ok(false)),
                Poll::Pending => Poll::Pending,
            });
            let bound = self.control.policy().close_discard.min(MAX_KEPT);
            let is_too_much = kept.len() as u64 > bound;
            self.inbox = kept;
            match ready!(step) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) if is_too_much => {
                    let bytes = self.inbox.len();
                    return Poll::Ready(Err(Error::from(UpgradeError::NoEnd { bytes }).into()));
                }
                Ok(false) => {}
                Err(reason) => return Poll::Ready(Err(reason)),
            }
        }
    }

    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        self.clear();
        self.with_live(|pump, _| {
            while !discarded.is_full() {
                match ready!(end_or_park(pump, cx)) {
                    Step::Data => {
                        let n = pump.session.plaintext().len();
                        pump.session.consume(n);
                        discarded.bytes += n as u64;
                    }
                    Step::Secured | Step::NeedInput => {}
                    Step::Ended => break,
                }
            }
            pump.note_end();
            let Some(layer) = &mut pump.layer else { return Poll::Ready(()) };
            // rule: close-1: this layer has ended, so the layer below is next.
            let rest = layer.layer_mut(TOKEN).poll_discard(cx, discarded);
            if rest.is_pending() {
                pump.park_below(cx);
            }
            rest
        })
    }

    /// Processes records without data, until data or the end can be read.
    pub(super) fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.inbox.is_empty() {
            return Poll::Ready(());
        }
        self.with_live(|pump, is_closed| {
            while !is_closed && matches!(ready!(ready_or_park(pump, cx)), Step::Secured | Step::NeedInput) {}
            Poll::Ready(())
        })
    }

    /// Takes the bytes that were received and not read: those in the inbox, and those in the complete records after
    /// them (rule: upgrade-2).
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        let mut unread = self.inbox.take();
        self.shared.with(|pump| {
            while pump.session.step() == Step::Data {
                let n = pump.session.plaintext().len();
                unread.extend_from_slice(pump.session.plaintext());
                pump.session.consume(n);
                pump.note_read(n);
            }
        });
        unread
    }

    pub(super) fn push_unread(&mut self, bytes: &[u8]) {
        self.inbox.push(bytes);
    }

    pub(super) fn clear(&mut self) {
        self.inbox.clear();
    }

    /// Calls `f` with the pump, after checking for an abort by another task. The second argument of `f` is whether a
    /// [`Control::close`] has taken the half (rule: close-16).
    fn with_live<R>(&mut self, f: impl FnOnce(&mut Pump<T>, bool) -> R) -> R {
        if self.control.is_aborted() {
            self.inbox.clear();
        }
        let (control, closes) = (&self.control, self.closes);
        self.shared.with(|pump| {
            let is_cut = pump.check_cut(control.cut());
            f(pump, !is_cut && pump.is_closed_elsewhere(control, closes))
        })
    }

    /// Whether the bytes in the inbox must not be delivered.
    #[cold]
    #[inline(never)]
    fn is_stopped(&self) -> bool {
        let is_taken = || self.shared.with(|pump| pump.is_closed_elsewhere(&self.control, self.closes));
        self.control.is_aborted() || is_taken()
    }

    /// Reads the arrived data by `read`, into the reader's buffer or the inbox, or waits for it.
    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&mut Inbox, &mut Pump<T>, &mut Context<'_>) -> Poll<Step>,
    ) -> Poll<io::Result<()>> {
        match self.poll_open_step(cx, &mut read) {
            Poll::Pending if self.poll_clock(cx).is_ready() => self.poll_open_step(cx, &mut read),
            result => result,
        }
    }

    fn poll_open_step(
        &mut self,
        cx: &mut Context<'_>,
        read: &mut impl FnMut(&mut Inbox, &mut Pump<T>, &mut Context<'_>) -> Poll<Step>,
    ) -> Poll<io::Result<()>> {
        let Self { shared, control, inbox, closes, has_ended, .. } = self;
        if control.is_touched() && control.is_aborted() {
            inbox.clear();
        }
        shared.with(|pump| {
            if control.is_touched() && is_taken(pump, control, *closes) && !*has_ended {
                return Poll::Ready(Err(Reason::Closed.into()));
            }
            loop {
                match ready!(read(inbox, pump, cx)) {
                    Step::Data => return Poll::Ready(Ok(())),
                    Step::Secured | Step::NeedInput => {}
                    Step::Ended => {
                        *has_ended = true;
                        return Poll::Ready(handle_end(pump, control));
                    }
                }
            }
        })
    }
}

/// Ends the session if the connection was cut off. Otherwise returns whether a [`Control::close`] has taken the half
/// (rule: close-16).
#[cold]
#[inline(never)]
fn is_taken<T: Transport>(pump: &mut Pump<T>, control: &Control, closes: bool) -> bool {
    !pump.check_cut(control.cut()) && pump.is_closed_elsewhere(control, closes)
}

/// Whether the deadline of the handshake has passed. If it has, this ends the session with that reason. Both halves
/// call this.
pub(super) fn poll_clock<T: Transport>(
    clock: &mut Option<Clock>,
    shared: &SharedPump<T>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let Some(running) = clock else { return Poll::Pending };
    if !shared.with(|pump| pump.session.is_handshaking()) {
        *clock = None;
        return Poll::Pending;
    }
    ready!(running.poll(cx));
    *clock = None;
    shared.with(|pump| pump.end(&Reason::TimedOut(Phase::Handshake)));
    Poll::Ready(())
}

/// The result of every read after the half has ended.
#[cold]
#[inline(never)]
fn handle_end<T: Transport>(pump: &mut Pump<T>, control: &Control) -> io::Result<()> {
    pump.let_go();
    pump.session.recv().outcome(control.policy().truncation)
}

fn ready_or_park<T: Transport>(pump: &mut Pump<T>, cx: &mut Context<'_>) -> Poll<Step> {
    read_or_park(pump, cx, &mut ReadBuf::new(&mut []))
}

/// As `ready_or_park`, but a session that has ended takes no unit of the task's budget. Otherwise a close of many
/// sessions would spend the whole budget on those that have ended, and never reach the socket (rule: upgrade-12).
fn end_or_park<T: Transport>(pump: &mut Pump<T>, cx: &mut Context<'_>) -> Poll<Step> {
    match pump.session.recv() {
        RecvHalf::Open | RecvHalf::Ending(_) => ready_or_park(pump, cx),
        RecvHalf::Ended(_) | RecvHalf::Aborted | RecvHalf::Broken(_) => {
            pump.poll_paid_read(cx, &mut ReadBuf::new(&mut []), None)
        }
    }
}

fn read_or_park<T: Transport>(pump: &mut Pump<T>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Step> {
    let step = pump.poll_read(cx, buf);
    if step.is_pending() {
        pump.park_reader(cx);
    }
    step
}

fn clean_end(session: &Session) -> Result<(), Reason> {
    match session.recv().end() {
        Some(End::Clean) => Ok(()),
        Some(End::Truncated | End::Unconfirmed) => Err(Reason::Truncated(Phase::Open)),
        None => Err(failure(session)),
    }
}

/// The reason of a failed session.
fn failure(session: &Session) -> Reason {
    match (session.failure(), session.recv()) {
        (Some(reason), _) | (None, RecvHalf::Broken(reason)) => reason.clone(),
        (None, RecvHalf::Open | RecvHalf::Ending(_) | RecvHalf::Ended(_) | RecvHalf::Aborted) => Reason::Aborted,
    }
}

impl<T: Transport> fmt::Debug for TlsReadHalf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsReadHalf")
            .field("half", &self.shared.with(|pump| pump.session.recv().clone()))
            .finish_non_exhaustive()
    }
}

impl<T: Transport> AsyncRead for TlsReadHalf<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let is_stopped = self.control.is_touched() && self.is_stopped();
        let has_unread = !self.inbox.is_empty() && !is_stopped;
        if has_unread || buf.remaining() == 0 {
            ready!(poll_budget(cx));
            hand_over(&mut self.inbox, buf);
            return Poll::Ready(Ok(()));
        }
        self.poll_open(cx, |_, pump, cx| read_or_park(pump, cx, buf))
    }
}

impl<T: Transport> AsyncBufRead for TlsReadHalf<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.inbox.is_empty() || (this.control.is_touched() && this.is_stopped()) {
            let opened = this.poll_open(cx, |inbox, pump, cx| {
                let is_bulk = pump.session.arrived() > Inbox::ROOM;
                let mut buf = ReadBuf::new(inbox.space_of(if is_bulk { 2 * Inbox::ROOM } else { Inbox::ROOM }));
                let step = read_or_park(pump, cx, &mut buf);
                let n = buf.filled().len();
                inbox.filled(n);
                step
            });
            // If the inbox is empty, its memory is released here, so that a waiting task keeps no buffer.
            this.inbox.release();
            ready!(opened)?;
        } else {
            ready!(poll_budget(cx));
        }
        Poll::Ready(Ok(this.inbox.as_slice()))
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        self.inbox.consume(n);
    }
}
