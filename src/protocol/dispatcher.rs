//! Calls the protocol and its producer. No other module calls them.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::callbacks::{AfterRead, Protocol};
use super::conn::{Conn as _, Producer};
use super::current;
use super::deferred::{DeferredConn, TlsChange};
use super::failure::{CallbackResult, Unread};
use super::guard::{catch, guard};
use crate::conn::time::Timer;
use crate::core::half::End;
use crate::core::lifecycle::{Callback, Lifecycle};
use crate::core::producer::{Level, ProducerCall, ProducerEvent};
use crate::error::{Error, Reason};
use crate::transport::Starting;

/// The number of turns (a callback and the calls that it made) after which other tasks get a chance to run.
pub(super) const MAX_TURNS: usize = 64;

/// The protocol, and the connection as the protocol sees it.
pub(super) struct Dispatcher<P> {
    pub(super) protocol: P,
    pub(super) conn: DeferredConn,
    lifecycle: Lifecycle,
    /// The protocol was notified that its group drains.
    has_heard_of_drain: bool,
    timer: Timer,
    /// The queue exceeded the high mark. `writable` is called when the queue has fallen to the low mark.
    pub(super) is_above: bool,
}

impl<P: Protocol> Dispatcher<P> {
    pub(super) fn new(protocol: P, conn: DeferredConn) -> Self {
        let (lifecycle, timer) = (Lifecycle::default(), Timer::default());
        Self { protocol, conn, lifecycle, has_heard_of_drain: false, timer, is_above: false }
    }

    /// Makes this callback, unless the lifecycle forbids it now. If the callback fails, its error becomes the reason
    /// of the end (rule: life-3).
    pub(super) fn notify<R>(
        &mut self,
        callback: Callback,
        call: impl FnOnce(&mut P, &mut DeferredConn) -> CallbackResult<R>,
    ) -> Option<R> {
        // rule: abort-3: after an abort, only `connection_lost` is called.
        if self.is_over() || !self.lifecycle.admit(callback) {
            return None;
        }
        let Self { protocol, conn, .. } = self;
        let outcome = guard(|| call(protocol, conn));
        self.stop_late_producers();
        outcome.map_err(|reason| self.fail(reason)).ok()
    }

    pub(super) fn notify_secured(&mut self) {
        self.notify(Callback::Changed, |protocol, conn| protocol.handshake_completed(conn));
    }

    pub(super) fn notify_read_closed(&mut self, end: End) -> AfterRead {
        self.notify(Callback::ReadClosed, |protocol, conn| protocol.read_closed(conn, end))
            .unwrap_or(AfterRead::KeepWriting)
    }

    /// Delivers data. Returns how many bytes the protocol has processed.
    pub(super) fn deliver(&mut self, data: &[u8]) -> usize {
        let handle_state = Arc::clone(&self.conn.handle_state);
        let done = current::answering(handle_state.address(), || self.notify_data(data));
        let done = done.unwrap_or(data.len());
        handle_state.count_received(done as u64);
        done
    }

    fn notify_data(&mut self, data: &[u8]) -> Option<usize> {
        self.notify(Callback::Data, |protocol, conn| {
            let done = protocol.data_received(conn, data)?;
            if done > data.len() {
                return Err(format!("the protocol reported {done} processed bytes, of {}", data.len()).into());
            }
            Ok(done)
        })
    }

    /// Fails if the protocol has left more bytes unread than it may.
    pub(super) fn check_unread(&mut self, bytes: usize) {
        let outcome = guard(|| match self.protocol.max_unread() {
            limit if bytes > limit => Err(Unread { bytes, limit }.into()),
            _ => Ok(()),
        });
        outcome.unwrap_or_else(|reason| self.fail(reason));
    }

    /// Calls `connection_made`, and reads the protocol's settings for its runner.
    pub(super) fn begin(&mut self) {
        self.notify(Callback::Made, |protocol, conn| protocol.connection_made(conn));
        if self.is_over() {
            return;
        }
        match guard(|| Ok(self.protocol.stops_reading_when_full())) {
            Ok(true) => {}
            Ok(false) => self.conn.answers.unbind(),
            Err(reason) => self.fail(reason),
        }
    }

    /// Ends the connection now with this reason, unless it has ended already (rule: end-5).
    pub(super) fn fail(&mut self, reason: Reason) {
        self.lifecycle.fail();
        if !self.conn.control().is_cut() {
            self.conn.control().end(reason);
        }
    }

    /// Whether the connection is over and only the last callback remains.
    #[inline]
    pub(super) fn is_over(&mut self) -> bool {
        if self.conn.failure.is_some() {
            self.take_failure();
        }
        self.lifecycle.has_failed() || self.conn.control().is_cut()
    }

    #[cold]
    fn take_failure(&mut self) {
        if let Some(reason) = self.conn.failure.take() {
            self.fail(reason);
        }
    }

    pub(super) fn handed_over(&mut self, n: usize) {
        self.conn.outbox.handed_over(n);
        self.conn.handle_state.count_sent(n as u64);
        // This is an estimate, which the next check of the transport corrects.
        self.conn.queued_below += n;
    }

    pub(super) fn publish(&mut self) {
        self.conn.handle_state.set_queued(self.conn.queued(), !self.is_above);
    }

    /// Carries out the commands of handles, and starts a drain if one is due. Returns whether there was anything to
    /// do.
    #[inline]
    pub(super) fn run_commands(&mut self, cx: &mut Context<'_>) -> bool {
        // A drain wakes the tasks one after the other. A task that was woken by something else notices the drain
        // here, before its own wake-up.
        let is_to_drain = !self.has_heard_of_drain && self.conn.control().is_draining();
        (is_to_drain || !self.conn.is_quiet(Some(cx.waker()))) && self.run_waiting(cx, is_to_drain)
    }

    fn run_waiting(&mut self, cx: &mut Context<'_>, is_to_drain: bool) -> bool {
        let has_run = self.conn.run_commands(Some(cx.waker()));
        self.stop_late_producers();
        if self.conn.was_full {
            self.supply(Level::High);
            self.conn.was_full = false;
        }
        if is_to_drain {
            self.has_heard_of_drain = true;
            if self.conn.tls_change == TlsChange::FirstHandshake {
                // rule: drain-2: an abort cannot lose data, because none was exchanged yet.
                self.conn.control().abort();
            } else {
                self.notify(Callback::Event, |protocol, conn| protocol.draining(conn));
            }
        }
        has_run || is_to_drain
    }

    /// Ready when the timer has expired and the protocol was notified.
    #[inline]
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.conn.timer.is_none() && !self.timer.is_set() {
            return Poll::Pending;
        }
        self.poll_set_timer(cx)
    }

    fn poll_set_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.set(self.conn.timer);
        ready!(self.timer.poll(cx));
        self.conn.timer = None;
        self.notify(Callback::Event, |protocol, conn| protocol.timer_fired(conn));
        Poll::Ready(())
    }

    /// Records that the high mark was passed, so that `writable` is called even if all bytes leave at once (rule:
    /// write-8).
    pub(super) fn note_level(&mut self) {
        self.is_above |= self.conn.level() == Level::High;
    }

    /// Calls the producer or the protocol if this fill level of the queue requires it. Returns whether one was
    /// called.
    pub(super) fn supply(&mut self, level: Level) -> bool {
        self.is_above |= level == Level::High;
        // The counts are published first, because a producer that is resumed may read the queued count from its handle.
        self.publish();
        let call = self.conn.handle_producer(ProducerEvent::Level(level));
        self.call_producer(call);
        let has_room = self.is_above && matches!(level, Level::Low | Level::Empty);
        if has_room {
            self.is_above = false;
            self.notify(Callback::Event, |protocol, conn| protocol.writable(conn));
        }
        has_room || call != ProducerCall::Nothing
    }

    /// Like `supply`, while a change between plaintext and TLS is awaited. Written bytes are queued in the outbox
    /// then (rule: write-8).
    pub(super) fn supply_early(&mut self, cx: &mut Context<'_>) {
        // rule: life-6: after MAX_TURNS the loop continues in the next poll, so that other tasks can run.
        if (0..MAX_TURNS).all(|_| self.supply(self.conn.level())) {
            cx.waker().wake_by_ref();
        }
        self.publish();
    }

    pub(super) fn call_producer(&mut self, call: ProducerCall) {
        if call == ProducerCall::Nothing {
            return;
        }
        // The producer is taken out during the call, because it may unregister itself.
        let Some(mut producer) = self.conn.producer.take() else { return };
        let conn = &mut self.conn;
        let outcome = guard(|| match (&mut producer, call) {
            (_, ProducerCall::Nothing) => Ok(()),
            (_, ProducerCall::Stop) => {
                producer.stop();
                Ok(())
            }
            (Producer::Push(producer), ProducerCall::Pause) => {
                producer.pause();
                Ok(())
            }
            (Producer::Push(producer), ProducerCall::Resume) => {
                producer.resume();
                Ok(())
            }
            (Producer::Pull(producer), ProducerCall::Produce) => producer.produce(conn),
            (Producer::Push(_), ProducerCall::Produce)
            | (Producer::Pull(_), ProducerCall::Pause | ProducerCall::Resume) => Ok(()),
        });
        let is_kept = self.conn.producer_state.is_there() && self.conn.producer.is_none();
        let dropped = if is_kept {
            self.conn.producer = Some(producer);
            Ok(())
        } else {
            catch(|| drop(producer))
        };
        self.stop_late_producers();
        outcome.and(dropped).unwrap_or_else(|reason| self.fail(reason));
    }

    #[inline]
    pub(super) fn stop_late_producers(&mut self) {
        if !self.conn.too_late.is_empty() {
            self.stop_those_too_late();
        }
    }

    #[cold]
    fn stop_those_too_late(&mut self) {
        for mut producer in std::mem::take(&mut self.conn.too_late) {
            let outcome = guard(move || {
                producer.stop();
                drop(producer);
                Ok(())
            });
            outcome.unwrap_or_else(|reason| self.fail(reason));
        }
    }

    /// Stops the producer, once (rule: flow-3). The bytes that it wrote stay queued.
    pub(super) fn stop_producer(&mut self) {
        let call = self.conn.handle_producer(ProducerEvent::End);
        self.call_producer(call);
    }

    /// Called when nothing can be sent any more.
    pub(super) fn lose_sending(&mut self) {
        let call = self.conn.lose_sending();
        self.call_producer(call);
    }

    /// Makes the last callback, and notifies the handles.
    pub(super) fn lose(&mut self, reason: &Reason) {
        if self.lifecycle.admit(Callback::Lost) {
            let protocol = &mut self.protocol;
            // A failure is ignored, because the connection has ended already.
            let _ = guard(|| {
                protocol.connection_lost(reason);
                Ok(())
            });
        }
        self.conn.handle_state.lose(reason.clone());
    }

    /// Waits for a change between plaintext and TLS, and serves handles meanwhile. `None`: a close has made the
    /// change pointless (rule: close-9).
    pub(super) async fn wait(&mut self, mut changing: Starting<'_>) -> Option<Result<(), Error>> {
        if self.conn.tls_change == TlsChange::None {
            self.conn.tls_change = TlsChange::Step;
        }
        poll_fn(|cx| {
            self.run_commands(cx);
            if self.poll_timer(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.supply_early(cx);
            // `is_over` is called for its effect: if a callback has failed, it ends the connection, and this wait too.
            let _ = self.is_over();
            if let Poll::Ready(outcome) = changing.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            if self.conn.is_close_pointless() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}
