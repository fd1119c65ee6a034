//! The orderly close: it sends what is left, drains the input, respects the limits, and reports. One implementation
//! serves every layer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::conn::control::{Closing, Control, Delivery};
use crate::conn::time::{Clock, after};
use crate::core::half;
use crate::core::report::{Bound, CloseReport};
use crate::error::{Phase, Reason};
use crate::transport::Transport;
use crate::transport::layer::{Discard, TOKEN, poll_budget, poll_write_some};

/// A close in progress: see [`Transport::close`].
#[must_use = "futures do nothing unless polled"]
pub struct Close<'a> {
    transport: &'a mut dyn Transport,
    /// The bytes that are not written yet.
    last: &'a [u8],
    unwritten: usize,
    begun: bool,
    clock: Clock,
    discarded: Discard,
    delivery: Delivery,
    under_way: Option<UnderWay>,
    whose: Whose,
}

/// The code that closes.
enum Whose {
    /// The owner of the transport.
    Owner,
    /// The handle of the connection ([`Control::close`]), by a second transport on the same layers.
    Handle,
    /// The owner of the transport, after the handle was asked first: it waits for the handle's close.
    Waits(Closing),
}

impl fmt::Debug for Close<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Close")
            .field("control", &self.transport.control())
            .field("begun", &self.begun)
            .finish_non_exhaustive()
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
            whose: Whose::Owner,
        }
    }

    /// The close that was requested by the handle.
    pub(crate) fn by_handle(transport: &'a mut dyn Transport) -> Self {
        Self { whose: Whose::Handle, ..Self::new(transport, &[]) }
    }

    fn begin(&mut self, cx: &mut Context<'_>) {
        self.begun = true;
        self.clock = Clock::new(after(self.transport.layer(TOKEN).control().policy().close_timeout));
        // Bytes that have arrived before the close are not an answer to it, so they are read first: if the layer
        // below ends among them without a marker, that is a truncation.
        let _ = self.transport.layer_mut(TOKEN).poll_discard(cx, &mut self.discarded);
        self.transport.layer_mut(TOKEN).begin_close();
    }

    /// Writes the last bytes. Stops at a failure, whose reason is kept in the halves.
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

    /// There are no accepted bytes, and no handshake is done: ends the layers at once, as far as possible without
    /// waiting.
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
        // If a limit was reached, the socket still exists, and the bytes that are in flight now count as unconfirmed.
        control.begin_report();
        let ended = known.or_else(|| half::reason(&send, &recv).map(|reason| control.judged(reason)));
        let reason = match ended {
            _ if control.is_aborted() => Reason::Aborted,
            Some(reason) => reason,
            // rule: close-7: all of our bytes have left, and only the peer's answer is missing.
            None if bound == Some(Bound::Bytes) && send.is_finished() => Reason::Unconfirmed,
            None => Reason::TimedOut(Phase::Close),
        };
        let mut layers = Vec::new();
        self.transport.layer(TOKEN).report_layers(&mut layers);
        let ours_is_stuck = bound.is_some() && !layers.iter().all(|layer| layer.marker_sent);
        if ours_is_stuck {
            // Bytes that the peer did not accept in time are lost, so the connection must not look orderly to the
            // peer.
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
            // The socket is released explicitly, because a task that uses the connection may still hold a reference
            // to it (rule: life-4).
            this.transport.layer_mut(TOKEN).release(&report.reason);
            return Poll::Ready(report);
        }
        if let Whose::Waits(closing) = &mut this.whose {
            // A stream goes to the handle's close when its owner uses it.
            let _ = Pin::new(&mut *this.transport).poll_write(cx, &[]);
            let report = ready!(closing.as_mut().poll(cx));
            this.transport.layer_mut(TOKEN).release(&report.reason);
            return Poll::Ready(report);
        }
        if !this.begun {
            let control = this.transport.layer(TOKEN).control();
            let under_way = UnderWay::begin(control);
            if matches!(this.whose, Whose::Owner) && control.is_close_asked() {
                // rule: close-16: one of them closes, and both report the same.
                this.whose = Whose::Waits(Box::pin(control.close()));
                drop(under_way);
                return self.poll(cx);
            }
            this.under_way = Some(under_way);
            if this.last.is_empty() && this.transport.layer(TOKEN).is_pointless() {
                return Poll::Ready(this.finish_pointless(cx));
            }
            this.begin(cx);
        } else if this.clock.poll(cx).is_ready() {
            // The timer is polled first. A peer that sends without end uses up the task's budget, and a timer that is
            // polled without budget never fires. rule: close-3
            return Poll::Ready(this.finish(Some(Bound::Time), None));
        }
        // Writing and discarding take turns, because the peer may not read our bytes before we have read its own.
        let finished = this.poll_last(cx).is_ready() && Pin::new(&mut *this.transport).poll_shutdown(cx).is_ready();
        let drained = this.transport.layer_mut(TOKEN).poll_discard(cx, &mut this.discarded).is_ready();
        if this.discarded.is_full() {
            return Poll::Ready(this.finish(Some(Bound::Bytes), None));
        }
        if finished && drained && this.delivery.poll(cx, this.transport.layer(TOKEN).control()).is_ready() {
            return Poll::Ready(this.finish(None, None));
        }
        // A close that did not wait needs no timer. If only the budget was used up, the task is woken at once.
        if this.clock.is_idle() && this.clock.poll(cx).is_ready() {
            return Poll::Ready(this.finish(Some(Bound::Time), None));
        }
        Poll::Pending
    }
}
