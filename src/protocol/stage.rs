//! A protocol and what it sees of its transport: the one place that calls back.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::desk::Desk;
use super::inside;
use super::panic::{catch, guard};
use super::producer::Producer;
use super::runner::MAX_TURNS;
use super::transport::Transport as _;
use super::{AfterRead, Outcome, Protocol, Unread};
use crate::conn::time::Timer;
use crate::core::flow::{FlowEvent, Level, Tell};
use crate::core::half::End;
use crate::core::life::{Life, Notice};
use crate::error::{Error, Reason};
use crate::transport::Starting;

/// The protocol, and what it sees of its transport.
pub(super) struct Stage<P> {
    pub(super) protocol: P,
    pub(super) desk: Desk,
    life: Life,
    has_heard_of_drain: bool,
    /// The connection begins with a handshake, which is not done.
    pub(super) is_beginning: bool,
    timer: Timer,
    /// The queue was above the high mark, and the protocol waits for room.
    pub(super) is_above: bool,
}

impl<P: Protocol> Stage<P> {
    pub(super) fn new(protocol: P, desk: Desk) -> Self {
        let (life, timer) = (Life::default(), Timer::default());
        Self { protocol, desk, life, has_heard_of_drain: false, is_beginning: false, timer, is_above: false }
    }

    /// Calls back, where that may be now; what a failed callback failed with becomes the reason (rule: life-3).
    pub(super) fn tell<R>(&mut self, notice: Notice, call: impl FnOnce(&mut P, &mut Desk) -> Outcome<R>) -> Option<R> {
        // rule: abort-3: behind an abort, nothing but the end is told.
        if self.is_over() || !self.life.tell(notice) {
            return None;
        }
        let Self { protocol, desk, .. } = self;
        let outcome = guard(|| call(protocol, desk));
        self.stop_late_producers();
        outcome.map_err(|reason| self.fail(reason)).ok()
    }

    pub(super) fn tell_secured(&mut self) {
        self.tell(Notice::Changed, |protocol, desk| protocol.handshake_completed(desk));
    }

    pub(super) fn tell_read_closed(&mut self, end: End) -> AfterRead {
        self.tell(Notice::ReadClosed, |protocol, desk| protocol.read_closed(desk, end))
            .unwrap_or(AfterRead::KeepWriting)
    }

    /// Delivers data; says how much the protocol is done with.
    pub(super) fn deliver(&mut self, data: &[u8]) -> usize {
        let shared = Arc::clone(&self.desk.shared);
        let done = inside::answering(&shared, || self.tell_data(data));
        let done = done.unwrap_or(data.len());
        shared.count_received(done as u64);
        done
    }

    fn tell_data(&mut self, data: &[u8]) -> Option<usize> {
        self.tell(Notice::Data, |protocol, desk| {
            let done = protocol.data_received(desk, data)?;
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
            Ok(false) => self.desk.answers.unbind(),
            Err(reason) => self.fail(reason),
        }
        self.tell(Notice::Made, |protocol, desk| protocol.connection_made(desk));
    }

    /// The connection ends now, for this reason, unless it has ended already (rule: end-5).
    pub(super) fn fail(&mut self, reason: Reason) {
        self.life.fail();
        if !self.desk.control().is_cut() {
            self.desk.control().end(reason);
        }
    }

    /// Whether nothing but the end is left.
    #[inline]
    pub(super) fn is_over(&mut self) -> bool {
        if self.desk.failure.is_some() {
            self.take_failure();
        }
        self.life.has_failed() || self.desk.control().is_cut()
    }

    #[cold]
    fn take_failure(&mut self) {
        if let Some(reason) = self.desk.failure.take() {
            self.fail(reason);
        }
    }

    pub(super) fn handed_over(&mut self, n: usize) {
        self.desk.agenda.handed_over(n);
        self.desk.shared.count_sent(n as u64);
        // Until the next look at the transport.
        self.desk.queued_below += n;
    }

    pub(super) fn publish(&mut self) {
        self.desk.shared.set_queued(self.desk.queued(), !self.is_above);
    }

    /// Carries out what handles have asked for, and the drain; says whether that was anything.
    #[inline]
    pub(super) fn obey(&mut self, cx: &mut Context<'_>) -> bool {
        // The drain rings at the mailbox too, but one by one: whoever wakes for something else sees it before that.
        let is_to_drain = !self.has_heard_of_drain && self.desk.control().is_draining();
        (is_to_drain || !self.desk.is_quiet(Some(cx.waker()))) && self.obey_mail(cx, is_to_drain)
    }

    fn obey_mail(&mut self, cx: &mut Context<'_>, is_to_drain: bool) -> bool {
        let has_obeyed = self.desk.obey(Some(cx.waker()));
        self.stop_late_producers();
        if self.desk.was_full {
            self.supply(Level::High);
            self.desk.was_full = false;
        }
        if is_to_drain {
            self.has_heard_of_drain = true;
            if self.is_beginning {
                // rule: drain-2: there is nothing to lose in it yet.
                self.desk.control().abort();
            } else {
                self.tell(Notice::Event, |protocol, desk| protocol.draining(desk));
            }
        }
        has_obeyed || is_to_drain
    }

    /// Ready when the time has come that the protocol asked for, and it was told.
    #[inline]
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.desk.timer.is_none() && !self.timer.is_set() {
            return Poll::Pending;
        }
        self.poll_set_timer(cx)
    }

    fn poll_set_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.set(self.desk.timer);
        ready!(self.timer.poll(cx));
        self.desk.timer = None;
        self.tell(Notice::Event, |protocol, desk| protocol.timer_fired(desk));
        Poll::Ready(())
    }

    /// Whoever has passed the high mark is told of room, also where all leaves at once (rule: write-8).
    pub(super) fn note_level(&mut self) {
        self.is_above |= self.desk.level() == Level::High;
    }

    /// Tells the producer, and the protocol, how full the queue is; says whether anybody was called.
    pub(super) fn supply(&mut self, level: Level) -> bool {
        self.is_above |= level == Level::High;
        // A producer that is resumed looks at its handle.
        self.publish();
        let tell = self.desk.flow(FlowEvent::Level(level));
        self.tell_producer(tell);
        let has_room = self.is_above && matches!(level, Level::Low | Level::Empty);
        if has_room {
            self.is_above = false;
            self.tell(Notice::Event, |protocol, desk| protocol.writable(desk));
        }
        has_room || tell != Tell::Nothing
    }

    /// The same while a change is awaited: what is written gathers here (rule: write-8).
    pub(super) fn supply_early(&mut self, cx: &mut Context<'_>) {
        // rule: life-6: if another producer follows at once, it starts in the next poll.
        if (0..MAX_TURNS).all(|_| self.supply(self.desk.level())) {
            cx.waker().wake_by_ref();
        }
        self.publish();
    }

    pub(super) fn tell_producer(&mut self, tell: Tell) {
        // Out of its place while it is called: it may unregister itself.
        if tell == Tell::Nothing {
            return;
        }
        let Some(mut producer) = self.desk.producer.take() else { return };
        let desk = &mut self.desk;
        let outcome = guard(|| match (&mut producer, tell) {
            (_, Tell::Nothing) => Ok(()),
            (_, Tell::Stop) => {
                producer.stop();
                Ok(())
            }
            (Producer::Push(producer), Tell::Pause) => {
                producer.pause();
                Ok(())
            }
            (Producer::Push(producer), Tell::Resume) => {
                producer.resume();
                Ok(())
            }
            (Producer::Pull(producer), Tell::Produce) => producer.produce(desk),
            (Producer::Push(_), Tell::Produce) | (Producer::Pull(_), Tell::Pause | Tell::Resume) => Ok(()),
        });
        let is_kept = self.desk.flow.is_there() && self.desk.producer.is_none();
        let dropped = if is_kept {
            self.desk.producer = Some(producer);
            Ok(())
        } else {
            catch(|| drop(producer))
        };
        self.stop_late_producers();
        outcome.and(dropped).unwrap_or_else(|reason| self.fail(reason));
    }

    #[inline]
    pub(super) fn stop_late_producers(&mut self) {
        if !self.desk.too_late.is_empty() {
            self.stop_those_too_late();
        }
    }

    #[cold]
    fn stop_those_too_late(&mut self) {
        for mut producer in std::mem::take(&mut self.desk.too_late) {
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
        let tell = self.desk.flow(FlowEvent::End);
        self.tell_producer(tell);
    }

    /// Nothing can be sent any more.
    pub(super) fn lose_sending(&mut self) {
        let tell = self.desk.lose_sending();
        self.tell_producer(tell);
    }

    /// The end of the story.
    pub(super) fn lose(&mut self, reason: &Reason) {
        if self.life.tell(Notice::Lost) {
            let protocol = &mut self.protocol;
            // Nobody is left to be told of a failure.
            let _ = guard(|| {
                protocol.connection_lost(reason);
                Ok(())
            });
        }
        self.desk.shared.lose(reason.clone());
    }

    /// Waits for a change, serving handles meanwhile. `None`: a close has made it pointless (rule: close-9).
    pub(super) async fn wait(&mut self, mut changing: Starting<'_>) -> Option<Result<(), Error>> {
        self.desk.is_changing = true;
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
            if self.desk.is_close_pointless() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        self.desk.is_changing = false;
        outcome
    }
}
