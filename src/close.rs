//! Closing in order: finish, drain, deadline, report. Written once, for every floor.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::control::{Control, Delivery};
use crate::core::half::{self, End, RecvHalf, SendHalf};
use crate::deadline::{Clock, after};
use crate::error::{Phase, Reason, chain};
use crate::floor::{Discard, poll_budget, poll_write_some};
use crate::transport::Transport;

/// How a close went (rule: close-4). There is one for each connection; a second close gives the same.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CloseReport {
    /// How the connection ended.
    pub reason: Reason,
    /// How each floor ended, the topmost first.
    pub floors: Vec<FloorReport>,
    /// The bound that ended the wait, where one did.
    pub bound: Option<Bound>,
    /// Bytes given to [`Transport::close_with`] that were not accepted.
    pub unwritten: usize,
    /// Bytes of the peer's that were thrown away while its end was awaited.
    pub discarded: u64,
    /// Bytes that the peer's kernel had not acknowledged when the socket went; `None` where the system does not tell.
    /// The kernel goes on sending them, unless the peer has reset the connection.
    pub unacknowledged: Option<u64>,
}

impl CloseReport {
    /// The report of a connection that was not closed, but ended for this reason.
    pub(crate) fn of(reason: Reason) -> Self {
        Self { reason, floors: Vec::new(), bound: None, unwritten: 0, discarded: 0, unacknowledged: None }
    }

    /// Whether both sides ended in order, and our last byte and marker have arrived (rule: close-14).
    pub fn is_clean(&self) -> bool {
        self.reason.is_clean()
    }

    /// Whether our marker left, on the topmost floor.
    pub fn marker_sent(&self) -> bool {
        self.floors.first().is_some_and(|floor| floor.marker_sent)
    }

    /// Whether the peer's marker came, on the topmost floor.
    pub fn marker_received(&self) -> bool {
        self.floors.first().is_some_and(|floor| floor.received == Received::Marker)
    }

    /// Whether time ran out.
    pub fn timed_out(&self) -> bool {
        self.bound == Some(Bound::Time)
    }
}

/// `closed; the peer did not confirm the end; 70000 bytes thrown away, 12 not acknowledged; given up at the bound of bytes`
impl fmt::Display for CloseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {} bytes thrown away", chain(&self.reason), self.discarded)?;
        if let Some(bytes @ 1..) = self.unacknowledged {
            write!(f, ", {bytes} not acknowledged")?;
        }
        match self.bound {
            Some(bound) => write!(f, "; given up at the bound of {}", bound.name()),
            None => Ok(()),
        }
    }
}

/// How one floor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FloorReport {
    /// Which floor.
    pub kind: FloorKind,
    /// Whether our marker left.
    pub marker_sent: bool,
    /// What came from the peer.
    pub received: Received,
}

impl FloorReport {
    pub(crate) fn of(kind: FloorKind, send: &SendHalf, recv: &RecvHalf) -> Self {
        let received = match recv {
            RecvHalf::Open => Received::Nothing,
            RecvHalf::Ending(End::Clean) | RecvHalf::Ended(End::Clean) => Received::Marker,
            RecvHalf::Ending(_) | RecvHalf::Ended(_) => Received::BareEnd,
            RecvHalf::Aborted => Received::Nothing,
            RecvHalf::Broken(Reason::Closed | Reason::TimedOut(_) | Reason::KeyExhausted) => Received::Nothing,
            RecvHalf::Broken(Reason::Reset(_)) => Received::Reset,
            RecvHalf::Broken(_) => Received::Failure,
        };
        Self { kind, marker_sent: send.is_finished(), received }
    }
}

/// The kinds of floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FloorKind {
    /// A TCP connection.
    Tcp,
    /// A TLS session.
    Tls,
    /// A stream of another kind: a Unix socket, a pipe.
    Stream,
}

/// What the peer's end of a floor was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Received {
    /// Nothing: its half was open when we went.
    Nothing,
    /// Its marker: FIN on TCP, close_notify on TLS.
    Marker,
    /// The floor below ended without the marker.
    BareEnd,
    /// RST.
    Reset,
    /// A failure of another kind.
    Failure,
}

/// What bounds a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// [`Policy::close_timeout`](crate::Policy::close_timeout).
    Time,
    /// [`Policy::close_discard`](crate::Policy::close_discard).
    Bytes,
}

impl Bound {
    /// One lower-case word for logs and machine-readable output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Bytes => "bytes",
        }
    }
}

/// A close under way: see [`Transport::close`].
#[must_use = "futures do nothing unless polled"]
pub struct Close<'a> {
    transport: &'a mut dyn Transport,
    /// What is still to be written.
    last: &'a [u8],
    unwritten: usize,
    begun: bool,
    clock: Clock,
    discarded: Discard,
    delivery: Delivery,
    under_way: Option<UnderWay>,
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
        let limit = transport.ground().policy().close_discard;
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
        self.under_way = Some(UnderWay::begin(self.transport.ground()));
        self.clock = Clock::new(after(self.transport.ground().policy().close_timeout));
        // What has arrived by now is no answer to this close: an end without marker in it is a truncation.
        let _ = self.transport.poll_discard(cx, &mut self.discarded);
        self.transport.begin_close();
    }

    /// Writes the last bytes. A failure ends it; how, the halves know.
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

    /// Nothing was accepted and no handshake done: the floors end at once, as far as they can without waiting.
    fn finish_pointless(&mut self, cx: &mut Context<'_>) -> CloseReport {
        self.transport.abandon();
        let _ = Pin::new(&mut *self.transport).poll_shutdown(cx);
        self.finish(None, Some(Reason::Closed))
    }

    /// The socket goes, and the report is made.
    fn finish(&mut self, bound: Option<Bound>, known: Option<Reason>) -> CloseReport {
        let (send, recv) = self.transport.halves();
        let ground = self.transport.ground().clone();
        self.unwritten += std::mem::take(&mut self.last).len();
        // If a bound was met, the socket still exists: the bytes in flight now are the unconfirmed ones.
        ground.begin_report();
        let ended = known.or_else(|| half::reason(&send, &recv).map(|reason| ground.judged(reason)));
        let reason = match ended {
            _ if ground.is_aborted() => Reason::Aborted,
            Some(reason) => reason,
            // rule: close-7: all of ours has left; what is missing is only the answer.
            None if bound == Some(Bound::Bytes) && send.is_finished() => Reason::Unconfirmed,
            None => Reason::TimedOut(Phase::Close),
        };
        let mut floors = Vec::new();
        self.transport.report_floors(&mut floors);
        let ours_is_stuck = bound.is_some() && !floors.iter().all(|floor| floor.marker_sent);
        if ours_is_stuck {
            // What the peer did not take in time is given up, and must not look like an end in order.
            ground.reset();
        }
        self.transport.release(&reason);
        let unacknowledged = ground.unacknowledged();
        let report = CloseReport {
            reason,
            floors,
            bound,
            unwritten: self.unwritten,
            discarded: self.discarded.bytes,
            unacknowledged,
        };
        let report = ground.set_report(report).clone();
        self.under_way = None;
        report
    }
}

impl Future for Close<'_> {
    type Output = CloseReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReport> {
        let this = &mut *self;
        if let Some(report) = this.transport.ground().kept_report() {
            ready!(poll_budget(cx));
            let report = report.clone();
            // Whoever was ended from elsewhere may hold the socket still (rule: life-4).
            this.transport.release(&report.reason);
            return Poll::Ready(report);
        }
        if !this.begun {
            if this.last.is_empty() && this.transport.is_pointless() {
                return Poll::Ready(this.finish_pointless(cx));
            }
            this.begin(cx);
        } else if this.clock.poll(cx).is_ready() {
            // The clock is asked first: a peer that talks without end uses up the task's budget, and a timer that is polled
            // with none left never fires. rule: close-3
            return Poll::Ready(this.finish(Some(Bound::Time), None));
        }
        // Both at once: a peer that cannot send until we read would not read what we send.
        let finished = this.poll_last(cx).is_ready() && Pin::new(&mut *this.transport).poll_shutdown(cx).is_ready();
        let drained = this.transport.poll_discard(cx, &mut this.discarded).is_ready();
        if this.discarded.is_full() {
            return Poll::Ready(this.finish(Some(Bound::Bytes), None));
        }
        if finished && drained && this.delivery.poll(cx, this.transport.ground()).is_ready() {
            return Poll::Ready(this.finish(None, None));
        }
        // A close that has nothing to wait for needs no timer. Without budget the task is woken at once.
        if this.clock.is_idle() && this.clock.poll(cx).is_ready() {
            return Poll::Ready(this.finish(Some(Bound::Time), None));
        }
        Poll::Pending
    }
}
