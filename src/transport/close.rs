//! The orderly close: finish, drain, deadline, report. One implementation serves every layer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::conn::control::{Control, Delivery};
use crate::conn::time::{Clock, after};
use crate::core::half;
use crate::core::report::{Bound, CloseReport};
use crate::error::{Phase, Reason};
use crate::transport::Transport;
use crate::transport::layer::{Discard, TOKEN, poll_budget, poll_write_some};

/// A close under way: see [`Transport::close`].
#[must_use = "futures do nothing unless polled"]
pub struct Close<'a> {
    transport: &'a mut dyn Transport,
    /// The bytes that are still to be written.
    last: &'a [u8],
    unwritten: usize,
    begun: bool,
    clock: Clock,
    discarded: Discard,
    delivery: Delivery,
    under_way: Option<UnderWay>,
}

impl fmt::Debug for Close<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Close")
            .field("control", &self.transport.control())
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

/// While this guard exists, a close will report. A close that is dropped makes no report.
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

impl<'a> Close<'a> {
    pub(crate) fn new(transport: &'a mut dyn Transport, last: &'a [u8]) -> Self {
        let limit = transport.layer(TOKEN).control().policy().close_discard;
        Self {
            transport,
            last,
            unwritten: 0,
            begun: false,
            clock: Clock::new(None),
            discarded: Discard { bytes: 0, limit },
            delivery: Delivery::default(),
            under_way: None,
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>) {
        self.begun = true;
        self.under_way = Some(UnderWay::begin(self.transport.layer(TOKEN).control()));
        self.clock = Clock::new(after(self.transport.layer(TOKEN).control().policy().close_timeout));
        // Bytes that have arrived so far are no answer to this close: an end without a marker among them is a truncation.
        let _ = self.transport.layer_mut(TOKEN).poll_discard(cx, &mut self.discarded);
        self.transport.layer_mut(TOKEN).begin_close();
    }

    /// Writes the last bytes. A failure stops this; the halves know its reason.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.last.is_empty() {
            match ready!(poll_write_some(self.transport, cx, self.last)) {
                Ok(n) => self.last = &self.last[n..],
                Err(_) => {
                    self.unwritten = self.last.len();
                    self.last = &[];
                }
            }
        }
        Poll::Ready(())
    }

    /// No bytes were accepted and no handshake is done: the layers end at once, as far as they can without waiting.
    fn finish_pointless(&mut self, cx: &mut Context<'_>) -> CloseReport {
        self.transport.layer_mut(TOKEN).abandon();
        let _ = Pin::new(&mut *self.transport).poll_shutdown(cx);
        self.finish(None, Some(Reason::Closed))
    }

    /// Closes the socket and makes the report.
    fn finish(&mut self, bound: Option<Bound>, known: Option<Reason>) -> CloseReport {
        let (send, recv) = self.transport.layer(TOKEN).halves();
        let control = self.transport.layer(TOKEN).control().clone();
        self.unwritten += std::mem::take(&mut self.last).len();
        // If a bound was met, the socket still exists: the bytes in flight now are the unconfirmed ones.
        control.begin_report();
        let ended = known.or_else(|| half::reason(&send, &recv).map(|reason| control.judged(reason)));
        let reason = match ended {
            _ if control.is_aborted() => Reason::Aborted,
            Some(reason) => reason,
            // rule: close-7: all of our bytes have left; only the answer is missing.
            None if bound == Some(Bound::Bytes) && send.is_finished() => Reason::Unconfirmed,
            None => Reason::TimedOut(Phase::Close),
        };
        let mut layers = Vec::new();
        self.transport.layer(TOKEN).report_layers(&mut layers);
        let ours_is_stuck = bound.is_some() && !layers.iter().all(|layer| layer.marker_sent);
        if ours_is_stuck {
            // Bytes that the peer did not take in time are given up, and must not look like an orderly end.
            control.reset();
        }
        self.transport.layer_mut(TOKEN).release(&reason);
        let unacknowledged = control.unacknowledged();
        let report = CloseReport {
            reason,
            layers,
            bound,
            unwritten: self.unwritten,
            discarded: self.discarded.bytes,
            unacknowledged,
        };
        let report = control.set_report(report).clone();
        self.under_way = None;
        report
    }
}

impl Future for Close<'_> {
    type Output = CloseReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReport> {
        let this = &mut *self;
        if let Some(report) = this.transport.layer(TOKEN).control().kept_report() {
            ready!(poll_budget(cx));
            let report = report.clone();
            // A task that uses the connection may still hold the socket (rule: life-4).
            this.transport.layer_mut(TOKEN).release(&report.reason);
            return Poll::Ready(report);
        }
        if !this.begun {
            if this.last.is_empty() && this.transport.layer(TOKEN).is_pointless() {
                return Poll::Ready(this.finish_pointless(cx));
            }
            this.begin(cx);
        } else if this.clock.poll(cx).is_ready() {
            // The timer is polled first. A peer that sends without end uses up the task's budget, and a timer that is
            // polled without budget never fires. rule: close-3
            return Poll::Ready(this.finish(Some(Bound::Time), None));
        }
        // Both run together: a peer that cannot send until we read would not read the bytes that we send.
        let finished = this.poll_last(cx).is_ready() && Pin::new(&mut *this.transport).poll_shutdown(cx).is_ready();
        let drained = this.transport.layer_mut(TOKEN).poll_discard(cx, &mut this.discarded).is_ready();
        if this.discarded.is_full() {
            return Poll::Ready(this.finish(Some(Bound::Bytes), None));
        }
        if finished && drained && this.delivery.poll(cx, this.transport.layer(TOKEN).control()).is_ready() {
            return Poll::Ready(this.finish(None, None));
        }
        // A close without a wait needs no timer. Without budget the task is woken at once.
        if this.clock.is_idle() && this.clock.poll(cx).is_ready() {
            return Poll::Ready(this.finish(Some(Bound::Time), None));
        }
        Poll::Pending
    }
}
