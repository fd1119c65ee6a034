//! The orderly close: it sends what is left, drains the input, respects the limits, and reports. One implementation
//! serves every layer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use crate::conn::control::{Closing, Control, Delivery};
use crate::conn::time::{Clock, Timer, after};
use crate::core::half;
use crate::core::linger::{Linger, Next, PeerState};
use crate::core::report::{CloseLimit, CloseReport};
use crate::core::stall::Stall;
use crate::error::{Phase, Reason};
use crate::sync::Mutex;
use crate::transport::Transport;
use crate::transport::exclusive::Exclusive;
use crate::transport::layer::{Discard, TOKEN, poll_budget, poll_write_some};

/// A close in progress: see [`Transport::close`].
#[must_use = "futures do nothing unless polled"]
pub struct Close<'a> {
    transport: Exclusive<'a>,
    /// The bytes that are not written yet.
    last: &'a [u8],
    closing: CloseState,
}

impl<'a> Close<'a> {
    pub(crate) fn new(transport: &'a mut dyn Transport, last: &'a [u8]) -> Self {
        let closing = CloseState::new(transport);
        Self { transport: Exclusive::new(transport), last, closing }
    }

    /// A close that [`Control::close`] carries out.
    pub(crate) fn by_handle(transport: &'a mut dyn Transport) -> Self {
        let mut close = Self::new(transport, &[]);
        close.closing.initiator = Initiator::Handle;
        close
    }
}

impl fmt::Debug for Close<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Close")
            .field("control", &self.transport)
            .field("progress", &self.closing.progress)
            .finish_non_exhaustive()
    }
}

impl Future for Close<'_> {
    type Output = CloseReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReport> {
        let this = &mut *self;
        this.closing.poll(this.transport.get(), &mut this.last, cx)
    }
}

/// While this guard exists, a close is in progress and will make the report. If a close is dropped, no report is
/// made.
struct UnderWay(Control);

impl UnderWay {
    fn begin(control: &Control) -> Self {
        control.set_closing(true);
        Self(control.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set_closing(false);
    }
}

/// The state of a close. The transport is passed to each call, so that its owner can keep both.
pub(crate) struct CloseState {
    unwritten: usize,
    progress: Progress,
    clock: Clock,
    discarded: Discard,
    delivery: Delivery,
    under_way: Option<UnderWay>,
    initiator: Initiator,
    /// Set if a library owns the transport (rule: close-15).
    patience: Option<Box<Patience>>,
}

/// The first step of a close decides what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The close was not polled yet.
    New,
    /// The layers have begun to end in order.
    Begun,
    /// There was nothing to finish, so the handshake was given up (rule: close-9).
    GivenUp,
}

/// The caller of the close.
enum Initiator {
    /// The owner of the transport.
    Owner,
    /// The handle of the connection ([`Control::close`]), with a second transport on the same layers.
    Handle,
    /// The handle, whose close was requested first. The owner of the transport waits for it. The mutex is never locked;
    /// it makes the future `Sync`.
    Waits(Mutex<Closing>),
}

/// The wait of a close for a library: it continues while the peer accepts our bytes or sends its own.
struct Patience {
    linger: Linger,
    timer: Timer,
    last_received: LastReceived,
    /// The peer's progress with our bytes, checked at intervals.
    taken: Stall,
}

/// The time of the peer's last byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastReceived {
    at: Instant,
    bytes: u64,
}

impl LastReceived {
    /// Starts with the present time, and with no received bytes.
    pub(crate) fn now() -> Self {
        Self { at: Instant::now(), bytes: 0 }
    }

    /// Records the time if this counter has grown.
    fn update(&mut self, bytes: u64) {
        if bytes != self.bytes {
            *self = Self { at: Instant::now(), bytes };
        }
    }
}

impl CloseState {
    pub(crate) fn new(transport: &dyn Transport) -> Self {
        let limit = transport.layer(TOKEN).control().policy().close_discard;
        Self {
            unwritten: 0,
            progress: Progress::New,
            clock: Clock::new(None),
            discarded: Discard { bytes: 0, limit },
            delivery: Delivery::default(),
            under_way: None,
            initiator: Initiator::Owner,
            patience: None,
        }
    }

    /// A close for a library (see [`Lingering`](super::Lingering)). `last_received` is the time at which the peer's
    /// last byte was read.
    pub(crate) fn lingering(transport: &dyn Transport, last_received: LastReceived) -> Self {
        let control = transport.layer(TOKEN).control();
        let last_received = LastReceived { bytes: control.traffic().received, ..last_received };
        let linger = Linger::new(control.policy().close_quiet);
        let patience = Patience { linger, timer: Timer::default(), last_received, taken: Stall::new(control.taken()) };
        Self { patience: Some(Box::new(patience)), ..Self::new(transport) }
    }

    fn begin(&mut self, transport: &mut dyn Transport, cx: &mut Context<'_>) {
        self.progress = Progress::Begun;
        self.set_clock(transport);
        // Bytes that have arrived before the close are not an answer to it, so they are read first: if the layer
        // below ends among them without a marker, that is a truncation.
        let _ = transport.layer_mut(TOKEN).poll_discard(cx, &mut self.discarded);
        transport.layer_mut(TOKEN).begin_close();
    }

    fn set_clock(&mut self, transport: &dyn Transport) {
        let bound = transport.layer(TOKEN).control().policy().close_timeout;
        // The progress is checked several times within the time limit.
        let wait = if self.patience.is_some() { bound.map(Stall::interval) } else { bound };
        self.clock = Clock::new(after(wait));
    }

    /// Ready at the time limit. With patience, the limit starts again whenever the peer has accepted some of our bytes.
    fn poll_clock(&mut self, transport: &dyn Transport, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.clock.poll(cx));
            let is_over = |patience: &mut Box<Patience>| patience.taken.check(transport.layer(TOKEN).control().taken());
            if self.patience.as_mut().is_none_or(is_over) {
                return Poll::Ready(());
            }
            self.set_clock(transport);
        }
    }

    /// With patience: ready once the peer is silent and has all our bytes, so that the close need not wait for its end.
    fn poll_silence(&mut self, transport: &dyn Transport, cx: &mut Context<'_>) -> Poll<()> {
        let Some(patience) = &mut self.patience else { return Poll::Pending };
        let Patience { linger, timer, last_received, .. } = &mut **patience;
        let control = transport.layer(TOKEN).control();
        last_received.update(control.traffic().received + self.discarded.bytes);
        loop {
            let peer = PeerState { silent_for: last_received.at.elapsed(), has_arrived: control.has_arrived() };
            match linger.next(peer) {
                Next::Over => return Poll::Ready(()),
                Next::CheckAgain(wait) => timer.set(after(Some(wait))),
            }
            ready!(timer.poll(cx));
        }
    }

    /// Writes the last bytes. Stops at a failure, whose reason is kept in the halves.
    fn poll_last(&mut self, transport: &mut dyn Transport, last: &mut &[u8], cx: &mut Context<'_>) -> Poll<()> {
        while !last.is_empty() {
            match ready!(poll_write_some(transport, cx, last)) {
                Ok(n) => *last = &last[n..],
                Err(_) => self.unwritten += std::mem::take(last).len(),
            }
        }
        Poll::Ready(())
    }

    /// There are no accepted bytes, and no handshake is done: gives the handshake up.
    fn give_up(&mut self, transport: &mut dyn Transport) {
        self.progress = Progress::GivenUp;
        self.set_clock(transport);
        transport.layer_mut(TOKEN).abandon();
    }

    /// Ends the layers below a handshake that was given up. If the application has sent nothing, the close waits for
    /// nothing. Otherwise, the bytes that were sent before the handshake, in plaintext or in a session around it, have
    /// to arrive first: if the socket were closed now, bytes of the peer's handshake that nobody has read would make
    /// our system send RST, which discards the bytes that are still in transit (rule: close-14).
    fn poll_given_up(&mut self, transport: &mut dyn Transport, cx: &mut Context<'_>) -> Poll<Ended> {
        let is_shut_down = Pin::new(&mut *transport).poll_shutdown(cx).is_ready();
        let control = transport.layer(TOKEN).control();
        if control.payload().sent == 0 {
            return Poll::Ready(Ended::GivenUp(Reason::Closed));
        }
        if is_shut_down && self.delivery.poll(cx, || control.has_unacknowledged()).is_ready() {
            return Poll::Ready(Ended::GivenUp(control.judged(Reason::Closed)));
        }
        if self.clock.is_idle() && self.poll_clock(transport, cx).is_ready() {
            return Poll::Ready(Ended::AtLimit(CloseLimit::Time));
        }
        Poll::Pending
    }

    /// Closes the socket and makes the report.
    fn finish(
        &mut self,
        transport: &mut dyn Transport,
        limit: Option<CloseLimit>,
        known: Option<Reason>,
    ) -> CloseReport {
        let (send, recv) = transport.layer(TOKEN).halves();
        let control = transport.layer(TOKEN).control().clone();
        // If a limit was reached, the socket still exists, and the bytes that are in flight now count as unconfirmed.
        control.handle_close_report();
        let mut layers = Vec::new();
        transport.layer(TOKEN).report_layers(&mut layers);
        // A session whose handshake was given up has no marker to send.
        let due = || layers.iter().skip(usize::from(self.progress == Progress::GivenUp));
        let is_left = due().next().is_some_and(|top| !top.marker_sent);
        let ended = known.or_else(|| half::reason(&send, &recv).map(|reason| control.judged(reason)));
        let reason = match (ended, limit) {
            _ if control.is_aborted() => Reason::Aborted,
            // Our half has ended, but its last bytes and its marker wait in the queue of a layer below.
            (Some(Reason::Closed | Reason::Unconfirmed), Some(_)) if is_left => Reason::TimedOut(Phase::Close),
            (Some(reason), _) => reason,
            // rule: close-7: all of our bytes have left, and only the peer's answer is missing.
            (None, Some(CloseLimit::Bytes)) if send.is_finished() => Reason::Unconfirmed,
            (None, Some(CloseLimit::Silence)) => Reason::Unconfirmed,
            (None, Some(CloseLimit::Bytes | CloseLimit::Time) | None) => Reason::TimedOut(Phase::Close),
        };
        let ours_is_stuck = limit.is_some() && !due().all(|layer| layer.marker_sent);
        if ours_is_stuck {
            // Bytes that the peer did not accept in time are lost, so the connection must not look orderly to the
            // peer.
            control.reset();
        }
        transport.layer_mut(TOKEN).release(&reason);
        let unacknowledged = control.unacknowledged();
        let report = CloseReport {
            reason,
            layers,
            limit,
            unwritten: self.unwritten,
            discarded: self.discarded.bytes,
            unacknowledged,
        };
        let report = control.set_report(report).clone();
        self.under_way = None;
        report
    }

    /// Polls the close. `last` are bytes to be written before the end.
    pub(crate) fn poll(
        &mut self,
        transport: &mut dyn Transport,
        last: &mut &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<CloseReport> {
        if let Some(report) = transport.layer(TOKEN).control().kept_report() {
            ready!(poll_budget(cx));
            let report = report.clone();
            // rule: close-10: bytes that were received before the end are not delivered after a close.
            transport.layer_mut(TOKEN).take_unread();
            // The socket is released explicitly, because a task that uses the connection may still hold a reference
            // to it (rule: life-4).
            transport.layer_mut(TOKEN).release(&report.reason);
            return Poll::Ready(report);
        }
        if let Initiator::Waits(closing) = &mut self.initiator {
            let closing = closing.get_mut().unwrap_or_else(PoisonError::into_inner);
            // Only the owner can hand the stream over to the close that `Control::close` has begun. Any poll of the
            // stream does this, so an empty write is polled.
            let _ = Pin::new(&mut *transport).poll_write(cx, &[]);
            let report = ready!(closing.as_mut().poll(cx));
            transport.layer_mut(TOKEN).release(&report.reason);
            return Poll::Ready(report);
        }
        if self.progress == Progress::New {
            let control = transport.layer(TOKEN).control();
            let under_way = UnderWay::begin(control);
            if matches!(self.initiator, Initiator::Owner) && control.is_close_asked() {
                // rule: close-16: `Control::close` was called first, and both closes return its report.
                self.initiator = Initiator::Waits(Mutex::new(Box::pin(control.close())));
                drop(under_way);
                return self.poll(transport, last, cx);
            }
            self.under_way = Some(under_way);
        }
        let ended = ready!(self.poll_end(transport, last, cx));
        self.unwritten += std::mem::take(last).len();
        Poll::Ready(match ended {
            Ended::GivenUp(reason) => self.finish(transport, None, Some(reason)),
            Ended::InOrder => self.finish(transport, None, None),
            Ended::AtLimit(limit) => self.finish(transport, Some(limit), None),
        })
    }

    fn poll_delivery(&mut self, transport: &dyn Transport, cx: &mut Context<'_>) -> Poll<()> {
        let control = transport.layer(TOKEN).control();
        self.delivery.poll(cx, || control.awaits_delivery())
    }

    fn poll_end(&mut self, transport: &mut dyn Transport, last: &mut &[u8], cx: &mut Context<'_>) -> Poll<Ended> {
        if self.progress == Progress::New {
            if last.is_empty() && transport.layer(TOKEN).is_pointless() {
                self.give_up(transport);
            } else {
                self.begin(transport, cx);
            }
        } else if self.poll_clock(transport, cx).is_ready() {
            // rule: close-3. The timer is polled before the reads, because a peer that sends without end uses up the
            // task's budget, and a timer that is polled without budget never fires.
            return Poll::Ready(Ended::AtLimit(CloseLimit::Time));
        }
        if self.progress == Progress::GivenUp {
            return self.poll_given_up(transport, cx);
        }
        // Writing and discarding take turns, because the peer may not read our bytes before we have read its own.
        let finished =
            self.poll_last(transport, last, cx).is_ready() && Pin::new(&mut *transport).poll_shutdown(cx).is_ready();
        let drained = transport.layer_mut(TOKEN).poll_discard(cx, &mut self.discarded).is_ready();
        if self.discarded.is_full() {
            return Poll::Ready(Ended::AtLimit(CloseLimit::Bytes));
        }
        if finished && drained && self.poll_delivery(transport, cx).is_ready() {
            return Poll::Ready(Ended::InOrder);
        }
        if finished && !drained && self.poll_silence(transport, cx).is_ready() {
            return Poll::Ready(Ended::AtLimit(CloseLimit::Silence));
        }
        // A close that did not wait needs no timer. If only the budget was used up, the task is woken at once.
        if self.clock.is_idle() && self.poll_clock(transport, cx).is_ready() {
            return Poll::Ready(Ended::AtLimit(CloseLimit::Time));
        }
        Poll::Pending
    }
}

/// How the wait of a close ended.
enum Ended {
    /// The handshake was given up, and the connection ended for this reason.
    GivenUp(Reason),
    /// Both halves have ended.
    InOrder,
    AtLimit(CloseLimit),
}
