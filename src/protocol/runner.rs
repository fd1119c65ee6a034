//! Runs a protocol over a transport, in one task.
//!
//! # Theory of operation
//!
//! A *turn* is one callback and the calls that it made. [`Runner::poll_turns`] makes turns while there is something
//! to do: it passes bytes to the transport, calls the producer, reads, and calls the protocol. Two operations need
//! the whole transport, and take time: a change between plaintext and TLS, and the close. `poll_turns` returns which
//! of them is [`Next`], and [`Runner::run`] awaits it.

mod receive;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::callbacks::Protocol;
use super::conn::{Conn as _, Handle};
use super::deferred::{DeferredConn, Delivery};
use super::dispatcher::{Dispatcher, MAX_TURNS};
use super::guard::catch;
use crate::config::start_tls::StartTls;
use crate::conn::idle::StallTimer;
use crate::conn::time::after;
use crate::core::buffer::Buffer;
use crate::core::half::{End, RecvHalf};
use crate::core::lifecycle::Callback;
use crate::core::outbox::{Due, EndRequest};
use crate::core::producer::Level;
use crate::core::report::CloseReport;
use crate::error::{Error, Phase, Reason};
use crate::transport::Transport;
use crate::transport::layer::{TOKEN, poll_budget, poll_write_some, tls_layers};

/// The largest number of writes in one turn. A peer that accepts all bytes at once must not delay timers and input
/// (rule: life-6).
const MAX_WRITES: usize = 16;

/// A protocol and the transport that it runs over. It does nothing until [`run`](Self::run) is awaited, usually in a
/// task of its own: `tokio::spawn(Runner::new(protocol, transport).run())`. If a runner is dropped before the end,
/// the transport is dropped too. The peer then sees a truncation (rule: close-12), and the protocol gets no more
/// callbacks.
#[must_use = "a runner does nothing until it is run"]
pub struct Runner<P, T> {
    pub(super) dispatcher: Dispatcher<P>,
    pub(super) transport: T,
    /// The bytes that the protocol has not processed.
    pub(super) unread: Buffer,
    /// Our send half has ended, or cannot send its end any more.
    is_shut: bool,
    stall: StallTimer,
    /// While this permit is held, the connection counts as an unfinished handshake of its listener.
    pub(super) unfinished: Option<OwnedSemaphorePermit>,
    /// Reads the PROXY header, before the first callback.
    header: Option<ReadHeader<T>>,
    /// Detects the loss of the connection while nothing is read (rule: flow-5).
    loss: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<P, T: Transport> fmt::Debug for Runner<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("control", &self.transport.control()).finish_non_exhaustive()
    }
}

/// Reads the PROXY header at the start of a connection. After an error the connection has ended.
pub(super) type ReadHeader<T> =
    Box<dyn for<'a> FnOnce(&'a mut T) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> + Send>;

/// The operation to await next.
enum Next {
    /// A change between plaintext and TLS.
    TlsStep,
    /// The end: an orderly close, or the report of a connection that has ended already.
    End,
}

impl<P: Protocol, T: Transport> Runner<P, T> {
    /// Runs this protocol over this transport. Any transport is accepted: in plaintext or TLS, before or after its
    /// handshake.
    pub fn new(protocol: P, mut transport: T) -> Self {
        let control = transport.layer(TOKEN).control().clone();
        let layers = transport.as_upgradable(TOKEN).is_some().then(|| tls_layers(transport.layer(TOKEN)));
        let conn = DeferredConn::new(control, transport.layer(TOKEN).session_facts(), layers);
        Self {
            dispatcher: Dispatcher::new(protocol, conn),
            transport,
            unread: Buffer::default(),
            is_shut: false,
            stall: StallTimer::default(),
            unfinished: None,
            header: None,
            loss: None,
        }
    }

    /// Starts the connection with TLS. [`connection_made`](Protocol::connection_made) is called before the handshake,
    /// and the bytes that it writes are sent encrypted. The transport must be upgradable; otherwise the connection
    /// ends with an error.
    pub fn begin_tls(self, how: StartTls) -> Self {
        let deadline = after(self.transport.layer(TOKEN).control().policy().handshake_timeout);
        self.begin_tls_by(how, deadline)
    }

    pub(crate) fn begin_tls_by(mut self, how: StartTls, deadline: Option<Instant>) -> Self {
        self.dispatcher.conn.begin_tls(how.at_begin(), deadline);
        self
    }

    /// Counts the connection as unfinished until its handshake is done.
    pub(super) fn unfinished(self, unfinished: OwnedSemaphorePermit) -> Self {
        Self { unfinished: Some(unfinished), ..self }
    }

    /// The connection begins with a PROXY header.
    pub(super) fn after_header(self, header: ReadHeader<T>) -> Self {
        Self { header: Some(header), ..self }
    }

    /// The protocol.
    pub fn protocol(&self) -> &P {
        &self.dispatcher.protocol
    }

    /// A handle of the connection, for other tasks.
    pub fn handle(&self) -> Handle {
        self.dispatcher.conn.handle()
    }

    /// Runs until the end of the connection. The report says how it ended;
    /// [`connection_lost`](Protocol::connection_lost) got the same reason.
    ///
    /// # Cancel safety
    /// Not cancel safe: dropping the future drops the connection.
    pub fn run(self) -> impl Future<Output = CloseReport> + Send {
        // The runner is boxed, because an async block may store a captured value twice.
        let mut runner = Box::new(self);
        async move {
            let outcome = {
                let mut driving = pin!(runner.drive());
                poll_fn(|cx| match catch(|| driving.as_mut().poll(cx)) {
                    Ok(poll) => poll.map(Ok),
                    Err(reason) => Poll::Ready(Err(reason)),
                })
                .await
            };
            let report = outcome.unwrap_or_else(|reason| runner.give_up(reason));
            let _ = catch(|| drop(runner));
            report
        }
    }

    /// The rare operations are boxed, so that an idle connection does not carry their state.
    async fn drive(&mut self) -> CloseReport {
        if let Some(header) = self.header.take() {
            if !Box::pin(self.read_header(header)).await {
                // The protocol has got no callback for this connection, so it does not get one for its end either
                // (rule: proxy-5).
                return Box::pin(self.end()).await;
            }
        }
        self.dispatcher.begin();
        if self.dispatcher.conn.facts.is_some() {
            self.dispatcher.notify_secured();
        } else if !self.dispatcher.is_over() {
            Box::pin(self.handshake()).await;
        }
        while let Next::TlsStep = poll_fn(|cx| self.poll_turns(cx)).await {
            Box::pin(self.change()).await;
        }
        Box::pin(self.end()).await
    }

    /// Reads the PROXY header, and carries out the commands of handles meanwhile. Returns whether the connection begins:
    /// not if the header is refused, and not if a close has nothing else to wait for (rule: close-9).
    async fn read_header(&mut self, header: ReadHeader<T>) -> bool {
        let Self { dispatcher, transport, .. } = self;
        let mut reading = header(transport);
        poll_fn(|cx| {
            dispatcher.conn.run_commands(Some(cx.waker()));
            match reading.as_mut().poll(cx) {
                Poll::Ready(read) => Poll::Ready(read.is_ok()),
                Poll::Pending if dispatcher.conn.is_close_pointless() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Closes the connection in order if that was requested. Otherwise the connection has ended already, and this
    /// only reports the end.
    async fn end(&mut self) -> CloseReport {
        if self.dispatcher.conn.control().is_cut() {
            self.dispatcher.conn.outbox.lose();
            self.transport.abort();
        }
        let last = self.dispatcher.conn.outbox.take_last();
        // rule: flow-3: a producer that is still registered is stopped before the end.
        self.dispatcher.lose_sending();
        self.dispatcher.conn.handle_state.close();
        let report = self.transport.close_with(&last).await;
        self.dispatcher.conn.handle_state.count_sent((last.len() - report.unwritten) as u64);
        self.notify_awaited_end();
        self.notify_write_closed();
        self.dispatcher.conn.handle_state.set_queued(0, false);
        self.dispatcher.lose(&report.reason);
        report
    }

    /// The transport has panicked in foreign code. Ends the connection and notifies the protocol (rule: life-7).
    fn give_up(&mut self, reason: Reason) -> CloseReport {
        self.dispatcher.fail(reason.clone());
        let _ = catch(|| self.transport.abort());
        self.dispatcher.lose_sending();
        self.dispatcher.conn.handle_state.close();
        let report = self.transport.layer(TOKEN).control().report().cloned().unwrap_or_else(|| CloseReport::of(reason));
        self.dispatcher.lose(&report.reason);
        report
    }

    /// Makes turns until there is something to await. Only a callback causes another turn; bytes that are sent are
    /// handled in the same turn.
    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        for turn in 0..MAX_TURNS {
            if self.dispatcher.is_over() {
                return Poll::Ready(Next::End);
            }
            if turn > 0 {
                // rule: life-6: every turn may cause another one, so each further turn costs budget.
                ready!(poll_budget(cx));
            }
            let mut has_moved = self.dispatcher.run_commands(cx);
            // The timer comes before the steps that use up the budget, because a timer does not fire without budget.
            has_moved |= self.dispatcher.poll_timer(cx).is_ready();
            self.dispatcher.note_level();
            match self.poll_send(cx) {
                Poll::Ready(Some(next)) => return Poll::Ready(next),
                Poll::Ready(None) => has_moved = true,
                Poll::Pending => {}
            }
            has_moved |= self.supply(cx);
            // The stall timer is polled after the writes, because each write restarts it, and only this poll registers
            // the task with it.
            has_moved |= self.poll_stall(cx).is_ready();
            if has_moved && self.dispatcher.is_over() {
                return Poll::Ready(Next::End);
            }
            self.dispatcher.publish();
            match self.poll_receive(cx) {
                Poll::Ready(Some(next)) => return Poll::Ready(next),
                Poll::Ready(None) => has_moved = true,
                Poll::Pending => {}
            }
            if !has_moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The steps that send.
impl<P: Protocol, T: Transport> Runner<P, T> {
    /// Writes the bytes that are due. Ready: our half has ended, more can be written, or another operation is next.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Option<Next>> {
        let conn = &self.dispatcher.conn;
        if conn.outbox.has_steps() {
            return Poll::Ready(Some(Next::TlsStep));
        }
        if conn.outbox.requested_end() == EndRequest::Close && !conn.producer_state.is_there() {
            // The close itself sends the last bytes, so that its time limit covers them (rule: close-3).
            return Poll::Ready(Some(Next::End));
        }
        let (mut has_moved, mut left) = (false, MAX_WRITES);
        loop {
            match self.dispatcher.conn.outbox.due() {
                Due::Bytes(_) if left == 0 => {
                    has_moved = true;
                    break;
                }
                Due::Bytes(bytes) => match poll_write_some(&mut self.transport, cx, bytes) {
                    Poll::Ready(Ok(n)) => {
                        left -= 1;
                        self.dispatcher.handed_over(n);
                        self.stall.reset();
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(self.lose_write(error)),
                    Poll::Pending => break,
                },
                Due::End(_) if !self.is_shut => match Pin::new(&mut self.transport).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => {
                        self.is_shut = true;
                        self.dispatcher.lose_sending();
                        self.notify_write_closed();
                        has_moved = true;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(self.lose_write(error)),
                    Poll::Pending => break,
                },
                Due::End(_) | Due::Step | Due::Nothing => break,
            }
        }
        if self.is_shut && self.dispatcher.conn.is_read_ended {
            // rule: close-13
            return Poll::Ready(Some(Next::End));
        }
        if has_moved { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Nothing more can be sent. If the peer has reset the connection, bytes that it sent before may still be
    /// readable.
    fn lose_write(&mut self, error: io::Error) -> Option<Next> {
        let reason = Reason::from_io(error, Phase::Open);
        self.dispatcher.lose_sending();
        self.is_shut = true;
        match (reason, self.transport.layer(TOKEN).halves().1) {
            (Reason::Reset(_), RecvHalf::Open | RecvHalf::Ending(_))
                if self.dispatcher.conn.delivery != Delivery::Paused =>
            {
                None
            }
            _ => Some(Next::End),
        }
    }

    /// Calls the producer or the protocol if the fill level of the queue requires it. Returns whether one was called.
    fn supply(&mut self, cx: &mut Context<'_>) -> bool {
        let has_producer = self.dispatcher.conn.producer_state.is_there();
        if !has_producer
            && !self.dispatcher.is_above
            && self.dispatcher.conn.outbox.is_empty()
            && self.dispatcher.conn.queued_below == 0
        {
            return false;
        }
        let mut level = self.check_queue();
        if !has_producer && !self.dispatcher.is_above && level == Level::Empty {
            return false;
        }
        if has_producer || level == Level::High || self.dispatcher.is_above || self.dispatcher.conn.queued_below > 0 {
            self.wait_for_room(cx, level);
            // The queue is checked again, because it may have drained before this task registered its waker.
            level = self.check_queue();
        }
        self.dispatcher.supply(level)
    }

    /// Updates the number of bytes that the transport has queued, and returns the fill level of the queue.
    pub(super) fn check_queue(&mut self) -> Level {
        self.dispatcher.conn.queued_below = self.transport.queued();
        self.dispatcher.conn.level()
    }

    /// Registers this task to be woken when the transport can accept more bytes or, for a pull producer, when all
    /// bytes have left.
    fn wait_for_room(&mut self, cx: &mut Context<'_>, level: Level) {
        let outbox = &self.dispatcher.conn.outbox;
        if !outbox.is_empty() {
            // The write of these bytes is pending, and has registered this task.
            return;
        }
        let waits_for_room = level == Level::High || level == Level::Between;
        if waits_for_room && self.transport.layer_mut(TOKEN).poll_space(cx).is_pending() {
            return;
        }
        // An error is ignored here, because the next write or read returns it.
        let _ = Pin::new(&mut self.transport).poll_flush(cx);
    }
}

/// The steps that handle ends and time limits.
impl<P: Protocol, T: Transport> Runner<P, T> {
    /// Reports the end of the peer's half that a close has waited for. Any other end is reported when it is read,
    /// after the data before it. If a lost connection has undelivered data, the end after that data is never read,
    /// and is not reported (rule: flow-4).
    fn notify_awaited_end(&mut self) {
        let is_closing = self.dispatcher.conn.outbox.requested_end() == EndRequest::Close;
        if let Some(end @ (End::Clean | End::Truncated)) =
            self.transport.layer(TOKEN).halves().1.end().filter(|_| is_closing)
        {
            self.dispatcher.notify_read_closed(end);
        }
    }

    fn notify_write_closed(&mut self) {
        if self.transport.layer(TOKEN).halves().0.is_finished() {
            self.dispatcher.notify(Callback::WriteClosed, |protocol, conn| protocol.write_closed(conn));
        }
    }

    /// rule: close-3. A requested end waits for the producer and for the bytes before it. This wait has a time limit
    /// while the peer accepts no bytes.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let conn = &self.dispatcher.conn;
        if self.is_shut || conn.outbox.requested_end() == EndRequest::None || conn.queued() == 0 {
            self.stall.reset();
            return Poll::Pending;
        }
        let control = conn.control();
        ready!(self.stall.poll(cx, control.policy().close_timeout, || control.taken()));
        control.give_up_end();
        Poll::Ready(())
    }
}
