//! A protocol and what it sees of its transport: the one place that calls back.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::conn::Transport as _;
use super::current;
use super::deferred::DeferredConn;
use super::guard::{catch, guard};
use super::producer::Producer;
use super::runner::MAX_TURNS;
use super::{AfterRead, Outcome, Protocol, Unread};
use crate::conn::time::Timer;
use crate::core::flow::{FlowEvent, Level, ProducerCall};
use crate::core::half::End;
use crate::core::lifecycle::{Callback, Lifecycle};
use crate::error::{Error, Reason};
use crate::transport::Starting;

/// The protocol, and what it sees of its transport.
pub(super) struct Dispatcher<P> {
    pub(super) protocol: P,
    pub(super) conn: DeferredConn,
    lifecycle: Lifecycle,
    has_heard_of_drain: bool,
    /// The connection begins with a handshake, which is not done.
    pub(super) is_beginning: bool,
    timer: Timer,
    /// The queue was above the high mark, and the protocol waits for room.
    pub(super) is_above: bool,
}

impl<P: Protocol> Dispatcher<P> {
    pub(super) fn new(protocol: P, conn: DeferredConn) -> Self {
        let (lifecycle, timer) = (Lifecycle::default(), Timer::default());
        Self { protocol, conn, lifecycle, has_heard_of_drain: false, is_beginning: false, timer, is_above: false }
    }

    /// Calls back, where that may be now; what a failed callback failed with becomes the reason (rule: life-3).
    pub(super) fn notify<R>(
        &mut self,
        callback: Callback,
        call: impl FnOnce(&mut P, &mut DeferredConn) -> Outcome<R>,
    ) -> Option<R> {
        // rule: abort-3: behind an abort, nothing but the end is told.
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

    /// Delivers data; says how much the protocol is done with.
    pub(super) fn deliver(&mut self, data: &[u8]) -> usize {
        let handle_state = Arc::clone(&self.conn.handle_state);
        let done = current::answering(&handle_state, || self.notify_data(data));
        let done = done.unwrap_or(data.len());
        handle_state.count_received(done as u64);
        done
    }

    fn notify_data(&mut self, data: &[u8]) -> Option<usize> {
        self.notify(Callback::Data, |protocol, conn| {
            let done = protocol.data_received(conn, data)?;
            if done > data.len() {
                return Err(format!("the protocol is done with {done} bytes of {}", data.len()).into());
            }
            Ok(done)
        })
    }

    /// Fails where the protocol has left more unread than it may.
    pub(super) fn check_unread(&mut self, bytes: usize) {
        let outcome = guard(|| match self.protocol.max_unread() {
            limit if bytes > limit => Err(Unread { bytes, limit }.into()),
            _ => Ok(()),
        });
        outcome.unwrap_or_else(|reason| self.fail(reason));
    }

    /// Reads the protocol's settings for its runner, and calls `connection_made`.
    pub(super) fn begin(&mut self) {
        match guard(|| Ok(self.protocol.stops_reading_when_full())) {
            Ok(true) => {}
            Ok(false) => self.conn.answers.unbind(),
            Err(reason) => self.fail(reason),
        }
        self.notify(Callback::Made, |protocol, conn| protocol.connection_made(conn));
    }

    /// The connection ends now, for this reason, unless it has ended already (rule: end-5).
    pub(super) fn fail(&mut self, reason: Reason) {
        self.lifecycle.fail();
        if !self.conn.control().is_cut() {
            self.conn.control().end(reason);
        }
    }

    /// Whether nothing but the end is left.
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
        // Until the next look at the transport.
        self.conn.queued_below += n;
    }

    pub(super) fn publish(&mut self) {
        self.conn.handle_state.set_queued(self.conn.queued(), !self.is_above);
    }

    /// Carries out what handles have asked for, and the drain; says whether that was anything.
    #[inline]
    pub(super) fn obey(&mut self, cx: &mut Context<'_>) -> bool {
        // The drain rings at the mailbox too, but one by one: whoever wakes for something else sees it before that.
        let is_to_drain = !self.has_heard_of_drain && self.conn.control().is_draining();
        (is_to_drain || !self.conn.is_quiet(Some(cx.waker()))) && self.obey_mail(cx, is_to_drain)
    }

    fn obey_mail(&mut self, cx: &mut Context<'_>, is_to_drain: bool) -> bool {
        let has_obeyed = self.conn.obey(Some(cx.waker()));
        self.stop_late_producers();
        if self.conn.was_full {
            self.supply(Level::High);
            self.conn.was_full = false;
        }
        if is_to_drain {
            self.has_heard_of_drain = true;
            if self.is_beginning {
                // rule: drain-2: there is nothing to lose in it yet.
                self.conn.control().abort();
            } else {
                self.notify(Callback::Event, |protocol, conn| protocol.draining(conn));
            }
        }
        has_obeyed || is_to_drain
    }

    /// Ready when the time has come that the protocol asked for, and it was told.
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

    /// Whoever has passed the high mark is told of room, also where all leaves at once (rule: write-8).
    pub(super) fn note_level(&mut self) {
        self.is_above |= self.conn.level() == Level::High;
    }

    /// Tells the producer, and the protocol, how full the queue is; says whether anybody was called.
    pub(super) fn supply(&mut self, level: Level) -> bool {
        self.is_above |= level == Level::High;
        // A producer that is resumed looks at its handle.
        self.publish();
        let tell = self.conn.flow(FlowEvent::Level(level));
        self.notify_producer(tell);
        let has_room = self.is_above && matches!(level, Level::Low | Level::Empty);
        if has_room {
            self.is_above = false;
            self.notify(Callback::Event, |protocol, conn| protocol.writable(conn));
        }
        has_room || tell != ProducerCall::Nothing
    }

    /// The same while a change is awaited: what is written gathers here (rule: write-8).
    pub(super) fn supply_early(&mut self, cx: &mut Context<'_>) {
        // rule: life-6: if another producer follows at once, it starts in the next poll.
        if (0..MAX_TURNS).all(|_| self.supply(self.conn.level())) {
            cx.waker().wake_by_ref();
        }
        self.publish();
    }

    pub(super) fn notify_producer(&mut self, tell: ProducerCall) {
        // Out of its place while it is called: it may unregister itself.
        if tell == ProducerCall::Nothing {
            return;
        }
        let Some(mut producer) = self.conn.producer.take() else { return };
        let conn = &mut self.conn;
        let outcome = guard(|| match (&mut producer, tell) {
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
        let is_kept = self.conn.flow.is_there() && self.conn.producer.is_none();
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

    /// The producer is told that it is over, once (rule: flow-3). What it wrote stays queued.
    pub(super) fn stop_producer(&mut self) {
        let tell = self.conn.flow(FlowEvent::End);
        self.notify_producer(tell);
    }

    /// Nothing can be sent any more.
    pub(super) fn lose_sending(&mut self) {
        let tell = self.conn.lose_sending();
        self.notify_producer(tell);
    }

    /// The end of the story.
    pub(super) fn lose(&mut self, reason: &Reason) {
        if self.lifecycle.admit(Callback::Lost) {
            let protocol = &mut self.protocol;
            // Nobody is left to be told of a failure.
            let _ = guard(|| {
                protocol.connection_lost(reason);
                Ok(())
            });
        }
        self.conn.handle_state.lose(reason.clone());
    }

    /// Waits for a change, serving handles meanwhile. `None`: a close has made it pointless (rule: close-9).
    pub(super) async fn wait(&mut self, mut changing: Starting<'_>) -> Option<Result<(), Error>> {
        self.conn.is_changing = true;
        let outcome = poll_fn(|cx| {
            self.obey(cx);
            if self.poll_timer(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.supply_early(cx);
            // An end for a reason of ours ends the change too.
            let _ = self.is_over();
            if let Poll::Ready(outcome) = changing.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            if self.conn.is_close_pointless() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        self.conn.is_changing = false;
        outcome
    }
}
