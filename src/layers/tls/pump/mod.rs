//! The loop that moves bytes between a TLS session and the layer beneath it.
//!
//! # Theory of operation
//!
//! A [`Pump`] moves bytes in two directions. A task that wants to read drives *receiving*: it reads the layer into the
//! session, lets the session open one record at a time, and transmits the answers of the session (handshake messages,
//! alerts, KeyUpdate answers). A task that has bytes to send drives *transmitting*, and the layer itself drives it too.
//!
//! Because the layer drives it too, accepted bytes leave even if no task waits for that (rule: write-6), and this crate
//! spawns no task for it. When the layer is full, the pump registers a waker with it that belongs to no task. Calling
//! this waker runs the pump, which does the work of the writing task: it passes sealed records to the layer, seals the
//! staged bytes after them, and ends the layer after the marker. Tasks that wait for space are woken only when there is
//! space.
//!
//! Any code may call the waker, so three rules hold. The waker never waits for the lock: it sets a flag, and the holder
//! of the lock checks the flag after it has released the lock, and runs the pump instead. No task is woken while the
//! lock is held. And the layer beneath must not hold its own locks while it calls wakers
//! ([`may_write_in_wake`](crate::transport::Layer::may_write_in_wake)). If the layer does not promise that, the waker
//! only wakes the waiting tasks, and these run the pump. The waker holds a weak reference to the connection, so a
//! socket that stores the waker does not keep the connection alive.

mod layer_io;
mod notes;
mod shared;
mod tasks;

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::ReadBuf;
use tokio::task::coop::{RestoreOnPending, poll_proceed};
use tokio::task::yield_now;

use self::layer_io::{poll_write, unbudgeted};
pub(crate) use self::shared::SharedPump;
pub(crate) use self::tasks::Want;
use crate::conn::control::Controlled;
use crate::core::session::{Session, Step};
use crate::error::{Error, Phase, Reason};
use crate::transport::Transport;
use crate::transport::layer::{Discard, TOKEN};

/// A write of at most this many bytes may wait for others to share its record.
const GATHERED: usize = 4 << 10;

/// After both halves have ended, remaining input of the layer is read in pieces of this many bytes.
const REST: u64 = 64 << 10;

/// A session and the layer beneath it.
pub(crate) struct Pump<T> {
    pub(crate) session: Session,
    /// `None` after a downgrade has taken the layer back.
    pub(crate) layer: Option<T>,
    pub(crate) layer_end: LayerEnd,
    /// Another TLS session is on top of this one. An upgrade sets this, and a downgrade clears it.
    pub(crate) is_beneath: bool,
    /// The layer has sent all bytes that were written to it. Most layers keep none.
    pub(crate) layer_is_flushed: bool,
    reader: Option<Waker>,
    writer: Option<(Want, Waker)>,
    /// A task that waits on the layer below. It is stored here too, because an abort drops that layer together with its
    /// waker.
    below: Option<Waker>,
    /// Another task has replaced the reader's waker in the layer, so the reader has to be woken to poll again.
    reader_was_displaced: bool,
    /// Gathered bytes leave when the task yields to the runtime, even if the layer has space before.
    pub(crate) is_deferred: bool,
    wake: Waker,
}

/// The send half of the layer below, after the end of this session's own. The layer has the state of that half, which
/// may also end without us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerEnd {
    /// We end the layer below after our marker.
    Due,
    /// The layer stays open, because of a downgrade.
    Stays,
    /// We have ended the layer below.
    Done,
}

impl<T: Transport> Pump<T> {
    /// Passes all bytes that can leave to the layer, and ends the layer after this session's end. Ready: no bytes are
    /// left. The session knows whether they were sent or lost.
    fn poll_transmit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.is_deferred = false;
        let Some(layer) = &mut self.layer else { return Poll::Ready(()) };
        loop {
            let sealed = self.session.transmit().len();
            if sealed == 0 {
                break;
            }
            let is_last = self.session.send().is_finishing() && !self.session.is_handshaking();
            if is_last && self.session.queued() == sealed && self.layer_end != LayerEnd::Stays {
                // The layer learns of its end before the last bytes, so that close_notify and FIN leave in one packet.
                layer.layer_mut(TOKEN).expect_end();
            }
            let records = self.session.transmit();
            match ready!(poll_write(layer, cx, &[IoSlice::new(records)])) {
                Ok(n) => {
                    self.session.transmitted(n);
                    self.layer_is_flushed &= !layer.layer(TOKEN).keeps_written();
                }
                Err(error) => self.session.handle_write_lost(Reason::from_io(error, Phase::Open)),
            }
        }
        ready!(self.poll_flush_layer(cx));
        if let (true, Some(layer)) = (self.owes_layer_end(), &mut self.layer) {
            // rule: half-2: FIN only after close_notify. The result is in the state of the layer's own half.
            let _ = ready!(unbudgeted(cx, |cx| Pin::new(&mut *layer).poll_shutdown(cx)));
            self.layer_end = LayerEnd::Done;
        }
        self.rest(cx);
        Poll::Ready(())
    }

    /// Accepts plaintext, and passes all bytes that can leave to the layer.
    pub(crate) fn write(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Error> {
        let Self { session, layer: Some(layer), is_deferred: false, layer_is_flushed, wake, .. } = self else {
            return self.write_specially(parts);
        };
        let (mut passed, mut lost) = (false, None);
        let cx = &mut Context::from_waker(wake);
        let burst = session.burst(parts).filter(|bytes| layer.layer(TOKEN).has_space(*bytes));
        let accepted = session.write_through(parts, burst, |records| match poll_write(layer, cx, records) {
            Poll::Ready(Ok(n)) => {
                passed = true;
                Ok(n)
            }
            Poll::Ready(Err(error)) => {
                lost = Some(error);
                Err(io::ErrorKind::BrokenPipe.into())
            }
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        });
        *layer_is_flushed &= !(passed && layer.layer(TOKEN).keeps_written());
        if lost.is_some() || !self.is_at_rest() {
            self.write_rest(lost);
        }
        accepted
    }

    /// Accepts plaintext in the rare cases: the layer is gone, or earlier bytes wait for the next write.
    #[cold]
    #[inline(never)]
    fn write_specially(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Error> {
        if self.is_deferred { self.write_behind(parts) } else { self.session.write(parts) }
    }

    /// Sends what is left after a write: records that the layer did not accept, or bytes that the layer still keeps.
    #[inline(never)]
    fn write_rest(&mut self, lost: Option<io::Error>) {
        if let Some(error) = lost {
            self.session.handle_write_lost(Reason::from_io(error, Phase::Open));
        }
        let wake = self.lend_wake();
        let cx = &mut Context::from_waker(&wake);
        if self.session.has_records() || self.owes_layer_end() {
            let _ = self.poll_transmit(cx);
        } else {
            let _ = self.poll_flush_layer(cx);
        }
        self.wake = wake;
    }

    /// Flushes the layer (rule: write-6), because a layer may keep its own queue.
    fn poll_flush_layer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(layer) = self.layer.as_mut().filter(|_| !self.layer_is_flushed) else { return Poll::Ready(()) };
        let flushed = ready!(unbudgeted(cx, |cx| Pin::new(&mut *layer).poll_flush(cx)));
        self.layer_is_flushed = true;
        if let Err(error) = flushed {
            self.session.handle_write_lost(Reason::from_io(error, Phase::Open));
        }
        Poll::Ready(())
    }

    /// Writes after deferred bytes, and together with them if the write is small.
    fn write_behind(&mut self, parts: &[IoSlice<'_>]) -> Result<usize, Error> {
        if is_small(parts) {
            let accepted = self.session.write(parts);
            self.session.seal();
            let _ = self.transmit();
            return accepted;
        }
        let _ = self.transmit();
        self.write(parts)
    }

    /// Accepts a small write of a task that has used up its budget and is about to yield. Its writes until then share
    /// records, and leave when it yields (rule: write-7). `0`: the write has to wait.
    pub(crate) fn gather(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let Some(layer) = self.layer.as_ref().filter(|layer| layer.layer(TOKEN).may_write_in_wake()) else {
            return 0;
        };
        if !is_small(parts) {
            return 0;
        }
        let gathered = self.session.gather(parts, |bytes| layer.layer(TOKEN).has_space(bytes));
        if gathered > 0 && !self.is_deferred {
            let wake = self.wake.clone();
            // If the budget is used up, this registers the waker to be called after the task has yielded.
            if poll_proceed(&mut Context::from_waker(&wake)).is_ready() {
                let _ = self.transmit();
            }
            self.is_deferred = true;
        }
        gathered
    }

    /// Whether the last messages of a handshake (Finished, tickets) may wait for the first write, to leave with it.
    /// They must not wait if the session has other bytes to send.
    fn may_defer(&self) -> bool {
        let may_wake = self.layer.as_ref().is_some_and(|layer| layer.layer(TOKEN).may_write_in_wake());
        may_wake && self.session.has_records() && self.session.send().may_write() && self.layer_is_flushed
    }

    /// Defers the bytes: they leave with the next bytes, and at the latest when the task yields.
    fn defer(&mut self) {
        if !self.is_deferred {
            self.is_deferred = true;
            let wake = self.wake.clone();
            // The runtime calls the waker when the task yields. Outside of a runtime, tokio calls it at once.
            let _ = pin!(yield_now()).poll(&mut Context::from_waker(&wake));
        }
    }

    /// Whether the layer has sent all written bytes, no answer to the peer is due, and more may be written.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.session.is_at_rest() && self.layer_is_flushed && !self.is_deferred
    }

    /// rule: end-5: a failure without an alert, such as an alert from the peer, ends the layer beneath too.
    fn owes_layer_end(&self) -> bool {
        self.layer_end == LayerEnd::Due && self.session.is_done_sending()
    }

    /// Transmits the bytes that can leave now. The pump's own waker sends the rest later.
    pub(crate) fn transmit(&mut self) -> Poll<()> {
        let wake = self.lend_wake();
        let transmitted = self.poll_transmit(&mut Context::from_waker(&wake));
        self.wake = wake;
        transmitted
    }

    /// Takes the pump's own waker out; the caller puts it back. This is cheaper than a clone.
    fn lend_wake(&mut self) -> Waker {
        std::mem::replace(&mut self.wake, Waker::noop().clone())
    }

    /// Receives until there is a result, and reads the data that has arrived, as far as the buffer has space.
    ///
    /// A poll of the whole stack costs one unit of the task's budget, however many sessions the stack has. A session
    /// that already has data takes the unit. A session that has to read its layer takes none, because the layer takes
    /// one (rule: upgrade-12).
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<Step> {
        if self.session.awaits_data() && self.is_at_rest() {
            return self.poll_record(cx, out);
        }
        let unit = ready!(poll_proceed(cx));
        self.poll_paid_read(cx, out, Some(unit))
    }

    /// The usual read: reads the layer once, and opens a single record into the reader's buffer. Called only if the
    /// session [awaits data](Session::awaits_data) and the pump is [at rest](Self::is_at_rest), so that nothing has to
    /// be sent before or after it. If anything but one record of data arrives, [`poll_paid_read`](Self::poll_paid_read)
    /// handles it. The read of the layer costs a unit of the task's budget, so this method takes none.
    fn poll_record(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<Step> {
        let Some(layer) = &mut self.layer else { return self.poll_paid_read(cx, out, None) };
        let mut buf = ReadBuf::new(self.session.input_space());
        let read = Pin::new(layer).poll_read(cx, &mut buf);
        let n = buf.filled().len();
        match read {
            Poll::Ready(Ok(())) if n > 0 => {
                let room = out.remaining().min(n);
                if let Some(read) = self.session.read_record(n, out.initialize_unfilled_to(room)) {
                    out.advance(read);
                    self.note_read(read);
                    return Poll::Ready(Step::Data);
                }
                self.poll_paid_read(cx, out, None)
            }
            Poll::Pending => {
                self.session.handle_idle();
                Poll::Pending
            }
            Poll::Ready(ended) => {
                self.handle_layer_end(ended);
                self.poll_paid_read(cx, out, None)
            }
        }
    }

    /// Handles the end of the layer's receive half, or its loss.
    #[cold]
    #[inline(never)]
    fn handle_layer_end(&mut self, ended: io::Result<()>) {
        match ended {
            Ok(()) => self.session.handle_eof(),
            Err(error) => self.session.handle_read_lost(Reason::from_io(error, Phase::Open)),
        }
    }

    /// As `poll_read`, for a caller that has already taken the unit of budget.
    pub(crate) fn poll_paid_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        mut unit: Option<RestoreOnPending>,
    ) -> Poll<Step> {
        loop {
            let had_nothing = self.session.queued() == 0;
            // The space is limited to the bytes that have arrived, so that no more bytes are initialised than can be
            // filled.
            let room = out.remaining().min(self.session.arrived());
            let (step, read) = self.session.step_into(out.initialize_unfilled_to(room));
            out.advance(read);
            self.note_read(read);
            if step == Step::Secured || !self.is_at_rest() {
                self.send_on(step, had_nothing);
            }
            if step != Step::NeedInput {
                if let Some(unit) = unit {
                    unit.made_progress();
                }
                return Poll::Ready(step);
            }
            let Some(layer) = &mut self.layer else {
                // The unit of the task's budget stays spent. This call cannot succeed, and if it cost nothing, a caller
                // that repeats it would never yield (rule: life-6).
                self.session.handle_read_lost(Reason::Aborted);
                continue;
            };
            // This returns the unit of the task's budget, because the read of the layer below takes a unit itself.
            drop(unit.take());
            let is_stuck = self.session.is_stuck();
            let mut buf = ReadBuf::new(self.session.input_space());
            let read = match is_stuck {
                // One last read, without waiting: the bytes that have arrived by now may contain the reason.
                true => unbudgeted(cx, |cx| Pin::new(&mut *layer).poll_read(cx, &mut buf)),
                false => Pin::new(layer).poll_read(cx, &mut buf),
            };
            let n = buf.filled().len();
            match read {
                Poll::Ready(Ok(())) if n > 0 => self.session.handle_input(n),
                Poll::Ready(ended) => self.handle_layer_end(ended),
                Poll::Pending if is_stuck => self.session.handle_stuck(),
                Poll::Pending => {
                    self.session.handle_idle();
                    if self.session.has_records() && !self.is_deferred {
                        let _ = self.transmit();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Sends the bytes that a step has produced.
    #[inline(never)]
    fn send_on(&mut self, step: Step, had_nothing: bool) {
        if step == Step::Secured {
            self.note_secured();
        }
        if step == Step::Secured && had_nothing && self.may_defer() {
            self.defer();
        } else if self.is_deferred && step == Step::Data {
            // A reader that got data may write an answer, and the deferred bytes leave with it.
        } else if self.session.has_records() || !self.layer_is_flushed || self.owes_layer_end() {
            let _ = self.transmit();
        }
    }

    /// Reads the bytes that the layer has received so far, so that complete records can be opened without another read.
    pub(crate) fn read_available(&mut self, cx: &mut Context<'_>) {
        if let Some(layer) = &mut self.layer {
            layer.layer_mut(TOKEN).read_available(cx);
            self.session.handle_leftover(&layer.layer_mut(TOKEN).take_unread());
        }
    }

    /// The layer accepts no more bytes. The peer may have sent an alert before that was not read yet, and the alert is
    /// the better reason (rule: secure-6).
    pub(crate) fn look_for_alert(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Step::Secured) = self.poll_paid_read(cx, &mut ReadBuf::new(&mut []), None) {}
        self.reader_was_displaced = true;
    }

    /// Called when the peer's half has ended.
    pub(crate) fn let_go(&mut self) {
        if let Some(layer) = self.layer.as_mut().filter(|_| self.layer_end != LayerEnd::Stays) {
            layer.layer_mut(TOKEN).set_half_open();
        }
        self.note_end();
        let wake = self.lend_wake();
        self.rest(&mut Context::from_waker(&wake));
        self.wake = wake;
    }

    /// If both halves have ended, the layer beneath is released as soon as its own end has come, even if no task reads
    /// (rule: close-13). A close waits for that end itself.
    fn rest(&mut self, cx: &mut Context<'_>) {
        let session = &self.session;
        let is_over = session.send().is_finished() && session.recv().end().is_some();
        let is_awaited = self.layer_end == LayerEnd::Stays || session.is_closing();
        if is_over && !is_awaited {
            self.note_end();
        }
        if let Some(layer) = self.layer.as_mut().filter(|_| is_over && !is_awaited) {
            // The number of bytes is limited, because a peer may continue to send after its own end.
            let mut rest = Discard { bytes: 0, limit: REST };
            let _ = unbudgeted(cx, |cx| layer.layer_mut(TOKEN).poll_discard(cx, &mut rest));
        }
    }
}

/// Each method ends this layer and all layers beneath.
impl<T: Transport> Controlled for Pump<T> {
    fn abort(&mut self) {
        self.session.abort();
        if let Some(layer) = &mut self.layer {
            layer.layer_mut(TOKEN).handle_abort();
        }
    }

    fn end(&mut self, reason: &Reason) {
        self.session.end(reason.clone());
        if let Some(layer) = &mut self.layer {
            layer.layer_mut(TOKEN).release(reason);
        }
    }
}

fn is_small(parts: &[IoSlice<'_>]) -> bool {
    parts.iter().map(|part| part.len()).sum::<usize>() <= GATHERED
}
