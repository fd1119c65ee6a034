//! The sending half of a TLS layer.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::conn::control::{Control, Controlled};
use crate::conn::idle::StallTimer;
use crate::conn::time::Clock;
use crate::core::half::SendHalf;
use crate::error::{Error, Reason};
use crate::layers::tls::pump::{Pump, SharedPump, Want};
use crate::layers::tls::read::poll_clock;
use crate::transport::Transport;
use crate::transport::layer::poll_budget;

/// The sending half of a [`TlsConnection`](super::TlsConnection).
pub struct TlsWriteHalf<T> {
    shared: Arc<SharedPump<T>>,
    control: Control,
    /// The deadline of a half that was split off during a handshake, until the handshake is known to be done.
    clock: Option<Clock>,
    /// Limits the time that a shutdown of this half may go without progress.
    pub(super) stall: StallTimer,
    /// Whether this half was made for a close that [`Control::close`] has requested.
    pub(super) closes: bool,
}

impl<T: Transport> TlsWriteHalf<T> {
    pub(super) fn new(shared: Arc<SharedPump<T>>, control: Control) -> Self {
        Self { shared, control, clock: None, stall: StallTimer::default(), closes: false }
    }

    /// The write half that a [`Control::close`] uses.
    pub(super) fn to_close(shared: Arc<SharedPump<T>>, control: Control) -> Self {
        Self { closes: true, ..Self::new(shared, control) }
    }

    pub(super) fn shared(&self) -> &Arc<SharedPump<T>> {
        &self.shared
    }

    pub(super) fn control_ref(&self) -> &Control {
        &self.control
    }

    /// Sets the deadline of the handshake. This half waits no longer, even if no task drives the handshake (rule:
    /// secure-5).
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.clock = Some(Clock::new(deadline));
    }

    /// Waits with `poll`, but during a handshake no longer than its deadline.
    fn poll_in_time<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&Self, &mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        match poll(self, cx) {
            Poll::Pending if poll_clock(&mut self.clock, &self.shared, cx).is_ready() => poll(self, cx),
            result => result,
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(cx, |half, cx| half.poll_drained(cx, |pump| pump.session.send().is_finished()))
    }

    /// Ready when the end of the half has waited for its time limit without progress. The connection was then ended at
    /// the bottom layer. The topmost session does this for all sessions below it, and a handshake has its own time
    /// limit.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.with(|pump| pump.is_beneath || pump.session.is_handshaking()) {
            return Poll::Pending;
        }
        let control = &self.control;
        ready!(self.stall.poll(cx, control.policy().close_timeout, || control.taken()));
        control.give_up_end();
        Poll::Ready(())
    }

    /// Calls `f` with the pump, after checking for an abort by another task.
    fn with_live<R>(&self, f: impl FnOnce(&mut Pump<T>) -> R) -> R {
        self.shared.with(|pump| {
            if self.control.is_touched() {
                pump.check_cut(self.control.cut());
            }
            f(pump)
        })
    }

    fn poll_write_parts(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Poll::Ready(coop) = tokio::task::coop::poll_proceed(cx) else { return self.gather(parts) };
        let is_empty = parts.iter().all(|part| part.is_empty());
        let result = self.with_live(|pump| {
            let mut accepted = pump.write(parts)?;
            if accepted == 0 && !is_empty {
                // The first attempt may have sent queued bytes, so there may be space now.
                accepted = pump.write(parts)?;
            }
            if let SendHalf::Broken(_) = pump.session.send() {
                return Poll::Ready(Err(loss(pump, cx)));
            }
            if accepted == 0 && !is_empty {
                pump.park_writer(Want::Space, cx);
                return Poll::Pending;
            }
            if !pump.is_beneath {
                self.control.note_sealed(accepted);
            }
            Poll::Ready(Ok(accepted))
        });
        let result = ready!(result);
        coop.made_progress();
        Poll::Ready(result)
    }

    /// The task has used up its budget, and is woken again after other tasks have run.
    fn gather(&self, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let gathered = self.with_live(|pump| {
            let gathered = pump.gather(parts);
            if !pump.is_beneath {
                self.control.note_sealed(gathered);
            }
            gathered
        });
        match gathered {
            0 => Poll::Pending,
            gathered => Poll::Ready(Ok(gathered)),
        }
    }

    /// Ready once the unsent bytes are at or below the low mark.
    pub(super) fn poll_space(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with_live(|pump| {
            let _ = pump.transmit();
            if pump.session.send().may_write() && !pump.session.is_below_low_mark() {
                pump.park_writer(Want::Space, cx);
                return Poll::Pending;
            }
            Poll::Ready(())
        })
    }

    fn poll_drained(&self, cx: &mut Context<'_>, is_done: impl Fn(&Pump<T>) -> bool) -> Poll<io::Result<()>> {
        let drained = ready!(self.with_live(|pump| {
            // A half is not at rest if it has ended, or if the connection was ended at the bottom layer.
            if pump.is_at_rest() && is_done(pump) {
                return Poll::Ready(Ok(()));
            }
            if pump.is_closed_elsewhere(&self.control, self.closes) {
                // Another task closes the connection by its `Control`. Only that close waits for the end and reports
                // it.
                return Poll::Ready(if is_done(pump) { Ok(()) } else { Err(Error::SendClosed.into()) });
            }
            loop {
                let before = pump.session.queued();
                pump.session.flush();
                let transmitted = pump.transmit();
                match pump.session.send() {
                    SendHalf::Aborted => return Poll::Ready(Err(Reason::Aborted.into())),
                    SendHalf::Broken(_) if transmitted.is_ready() => return Poll::Ready(Err(loss(pump, cx))),
                    SendHalf::Open | SendHalf::Finishing | SendHalf::Finished | SendHalf::Broken(_) => {}
                }
                if transmitted.is_pending() || pump.session.is_handshaking() {
                    pump.park_writer(Want::Drained, cx);
                    return Poll::Pending;
                }
                if is_done(pump) {
                    return Poll::Ready(Ok(()));
                }
                // Under a cork, this takes several rounds. Each round must leave fewer bytes (rule: life-6).
                if pump.session.queued() >= before {
                    return Poll::Ready(Err(loss(pump, cx)));
                }
            }
        }));
        // Without budget, only the result is returned later, and it does not change.
        ready!(poll_budget(cx));
        Poll::Ready(drained)
    }
}

/// The reason why nothing more can be sent. If the peer sent an alert, this is the reason (rule: secure-6).
#[cold]
#[inline(never)]
fn loss<T: Transport>(pump: &mut Pump<T>, cx: &mut Context<'_>) -> io::Error {
    pump.look_for_alert(cx);
    pump.note_end();
    match pump.session.write(&[]) {
        Err(error) => error.into(),
        Ok(_) => Error::SendClosed.into(),
    }
}

impl<T: Transport> fmt::Debug for TlsWriteHalf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsWriteHalf")
            .field("half", &self.shared.with(|pump| pump.session.send().clone()))
            .finish_non_exhaustive()
    }
}

impl<T: Transport> AsyncWrite for TlsWriteHalf<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_in_time(cx, |half, cx| half.poll_write_parts(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_in_time(cx, |half, cx| half.poll_drained(cx, |pump| pump.session.is_flushed()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with_live(|pump| pump.session.close_write());
        let ended = match self.poll_end(cx) {
            Poll::Pending if self.poll_stall(cx).is_ready() => self.poll_end(cx),
            ended => ended,
        };
        if ended.is_ready() {
            self.stall.reset();
        }
        ended
    }
}
