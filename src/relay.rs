//! Joins two connections: forwards the bytes of each peer to the other peer, and ends each connection in the way in
//! which the other one ended.

mod wakers;

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::{poll_proceed, unconstrained};
use tokio::time::sleep;

use self::wakers::{Part, Wakers};
use crate::conn::control::Control;
use crate::conn::time::{after, until};
use crate::core::relay::{self as rules, Duty, LegEnd};
use crate::core::report::CloseReport;
use crate::error::chain;
use crate::transport::Transport;
use crate::transport::layer::{TOKEN, poll_write_some};

/// Joins two transports, the legs of the relay: forwards the bytes of each peer to the other peer until both directions
/// have ended, then closes both connections. It returns a report, never an error.
///
/// The end of one connection reaches the other side as the same kind of end (rule: flow-6):
///
/// | one leg | the other leg |
/// |---|---|
/// | its peer ends cleanly (FIN on TCP, close_notify on TLS) | [`close_write`](Transport::close_write) after all bytes; the other direction continues |
/// | truncated, reset, a TLS failure, a timeout, an abort of ours | [`abort`](Transport::abort) |
/// | reset, after its peer had ended cleanly | `close_write` after all bytes, for at most the [`close_timeout`](crate::Policy::close_timeout), then `abort` |
///
/// The leg that failed ends too. A TLS failure ends with its alert; any other failure ends with RST and without
/// close_notify, because the data that this leg's peer has received is incomplete as well. When both directions have
/// ended cleanly, both legs are [closed](Transport::close) at the same time, each within its own time limit.
///
/// Bytes that arrived before a truncation or a reset are forwarded first, as far as the other leg accepts them without
/// waiting. The RST that follows may destroy bytes that the other peer's system has not delivered yet. So an abort only
/// guarantees that the end does not look clean. With a clean end, every byte arrives before the end marker.
///
/// If the policy of a leg has [`Truncation::Tolerate`](crate::Truncation), a missing close_notify is forwarded as a
/// clean end, and the report says `truncated`.
///
/// If the process is killed, both peers see RST (over TCP; rule: flow-7).
///
/// # Bounds
///
/// Bytes go directly from the read buffer of one transport into the write of the other one. If one leg does not accept
/// more bytes, the relay stops reading from the other one. So memory is limited by the read-ahead (at most 66 KiB) and
/// the [watermarks](crate::Watermarks) of both legs, at any speed. While the relay does not read a leg because the
/// other one is slow, it still notices a reset of that leg at once (rule: flow-5), if the leg uses a TCP socket.
///
/// The only time limits are those of the transports: [`Policy::half_open_timeout`](crate::Policy) for a connection of
/// which one half has ended, keep-alive and the user timeout for a peer that is gone, and the limit of the close. Two
/// silent peers stay joined forever. If you do not want that, put a `timeout` around the relay, and abort or close both
/// connections after it.
///
/// # Cancel safety
///
/// Cancel safe. The relay holds no bytes itself: bytes that were read have been written, and bytes that were not
/// written can still be read. Dropping the future ends neither connection, and the relay may be called again; the new
/// report counts from zero. If you do not call it again, end the connections yourself: dropped connections look
/// truncated to their peers (rule: close-12).
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::Transport;
/// use bowline::testing::{Kind, pair, tcp_pair};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (mut client, mut front) = pair(Kind::Tls13).await?;
/// let (mut back, mut backend) = tcp_pair().await?;
/// let relayed = tokio::spawn(async move { bowline::relay(&mut front, &mut back).await });
///
/// client.write_all(b"question").await?;
/// client.close_write().await?; // close_notify: FIN on the other side
/// let mut question = String::new();
/// backend.read_to_string(&mut question).await?;
/// backend.write_all(b"answer").await?;
/// let mut answer = [0; 6];
/// client.read_exact(&mut answer).await?;
///
/// tokio::join!(client.close(), backend.close());
/// let report = relayed.await?;
/// assert!(report.is_clean());
/// assert_eq!((report.a_to_b, report.b_to_a), (8, 6));
/// # Ok(()) }
/// ```
#[doc(alias = "copy_bidirectional")]
#[doc(alias = "splice")]
#[doc(alias = "proxy")]
#[doc(alias = "ProxyServer")]
pub async fn relay<A, B>(a: &mut A, b: &mut B) -> RelayReport
where
    A: Transport + ?Sized,
    B: Transport + ?Sized,
{
    Relay::new(a.as_transport(TOKEN), b.as_transport(TOKEN)).run().await
}

/// The report of a relay: how each connection ended, and how many bytes were forwarded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RelayReport {
    /// How the first connection ended: for its own reason, or `aborted` because of how the other connection ended.
    pub a: CloseReport,
    /// How the second connection ended.
    pub b: CloseReport,
    /// Bytes from the first connection that the second transport has accepted.
    pub a_to_b: u64,
    /// Bytes from the second connection that the first transport has accepted.
    pub b_to_a: u64,
}

impl RelayReport {
    /// Whether both connections ended cleanly on both sides.
    pub fn is_clean(&self) -> bool {
        self.a.is_clean() && self.b.is_clean()
    }
}

impl fmt::Display for RelayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b, a_to_b, b_to_a } = self;
        write!(f, "{a_to_b} bytes there, {b_to_a} bytes back; there: {}; back: {}", chain(&b.reason), chain(&a.reason))
    }
}

/// The interval at which the system is asked whether the last bytes have arrived.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A running relay. `directions[n]` forwards bytes from `legs[n]` to the other leg.
struct Relay<'t> {
    legs: [Leg<'t>; 2],
    directions: [Direction; 2],
}

struct Leg<'t> {
    transport: &'t mut dyn Transport,
    control: Control,
    /// The connection is lost. A half may not have noticed it yet.
    lost: bool,
}

/// The state of one direction.
#[derive(Default)]
struct Direction {
    bytes: u64,
    /// The destination may have a queue of its own, which only a flush sends. TCP has none, and a TLS session sends by
    /// itself.
    flushes: bool,
    /// Something was written since the last flush.
    is_unflushed: bool,
    state: DirectionState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum DirectionState {
    #[default]
    Copying,
    /// The end of the source has been read, and our own end marker is being sent.
    Ending,
    Ended,
    /// Reading or writing failed. The states of the halves say which one and why.
    Failed,
}

impl<'t> Relay<'t> {
    fn new(a: &'t mut dyn Transport, b: &'t mut dyn Transport) -> Self {
        let leg = |transport: &'t mut dyn Transport| {
            // If the application has left a cork on, it would hold bytes back, because a TCP leg is not flushed.
            transport.layer_mut(TOKEN).set_cork(false);
            Leg { control: transport.control(), transport, lost: false }
        };
        let legs = [leg(a), leg(b)];
        let [a_flushes, b_flushes] = legs.each_ref().map(|leg| !leg.control.is_tcp());
        let directions = [b_flushes, a_flushes].map(|flushes| Direction { flushes, ..Direction::default() });
        Self { legs, directions }
    }

    async fn run(mut self) -> RelayReport {
        let [a, b] = self.legs.each_ref().map(|leg| leg.control.clone());
        a.reset_when_killed();
        b.reset_when_killed();
        {
            let (mut a_lost, mut b_lost) = (pin!(a.lost()), pin!(b.lost()));
            let mut wakers = Wakers::new();
            poll_fn(|cx| self.poll(cx, &mut wakers, [a_lost.as_mut(), b_lost.as_mut()])).await;
        }
        self.deliver().await;
        let [a_to_b, b_to_a] = self.directions.each_ref().map(|direction| direction.bytes);
        let (a, b) = self.end().await;
        RelayReport { a, b, a_to_b, b_to_a }
    }

    /// Ready once both directions have ended, or once nothing more can be forwarded.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wakers: &mut Wakers,
        lost: [Pin<&mut impl Future<Output = ()>>; 2],
    ) -> Poll<()> {
        let ready = wakers.take_ready(cx);
        if ready.has(Part::Loss) {
            let mut cx = Context::from_waker(wakers.of(Part::Loss));
            for (leg, lost) in self.legs.iter_mut().zip(lost) {
                // rule: flow-5: this also notices the loss of a leg that is not read because the other one is slow.
                leg.lost = leg.lost || lost.poll(&mut cx).is_ready();
            }
        }
        let before = self.directions.each_ref().map(|direction| direction.state);
        self.poll_ready_ways(wakers, |part| ready.has(part));
        if self.directions.each_ref().map(|direction| direction.state) != before {
            // If one direction has ended, the other one may be able to continue.
            self.poll_ready_ways(wakers, |_| true);
        }
        if self.directions.iter().all(|direction| direction.state == DirectionState::Ended) {
            return Poll::Ready(());
        }
        if self.legs.iter().all(|leg| !leg.lost)
            && self.directions.iter().all(|direction| direction.state != DirectionState::Failed)
        {
            return Poll::Pending;
        }
        // A last round without the task's budget. It forwards the bytes that a lost leg has already received. Only
        // after all of them are read is it known how the leg's peer ended.
        let _ = pin!(unconstrained(poll_fn(|_| {
            self.poll_ready_ways(wakers, |_| true);
            Poll::Ready(())
        })))
        .poll(cx);
        self.poll_loss()
    }

    fn poll_ready_ways(&mut self, wakers: &Wakers, is_ready: impl Fn(Part) -> bool) {
        let ([a, b], [there, back]) = (&mut self.legs, &mut self.directions);
        if is_ready(Part::There) {
            there.poll(&mut Context::from_waker(wakers.of(Part::There)), a.transport, b.transport);
        }
        if is_ready(Part::Back) {
            back.poll(&mut Context::from_waker(wakers.of(Part::Back)), b.transport, a.transport);
        }
    }

    /// Called when a leg is lost or a direction has failed. Pending only if the lost connection had ended cleanly in
    /// both directions before its socket was gone: then the other direction continues.
    fn poll_loss(&mut self) -> Poll<()> {
        let duties = self.legs.each_mut().map(|leg| rules::duty(&leg.state()));
        let is_over = duties.iter().any(|duty| matches!(duty, Duty::Abort | Duty::CloseWriteThenAbort));
        let has_failed = self.directions.iter().any(|direction| direction.state == DirectionState::Failed);
        if is_over || has_failed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// rule: half-8: if a peer ended cleanly before its connection was lost, all its bytes reach the other side. The
    /// system sends no event when they have arrived, so we ask it at intervals.
    async fn deliver(&mut self) {
        let duties = self.legs.each_mut().map(|leg| rules::duty(&leg.state()));
        let Some(from) = duties.iter().position(|duty| *duty == Duty::CloseWriteThenAbort) else { return };
        if duties.contains(&Duty::Abort) {
            return;
        }
        let ([first, second], direction) = (&mut self.legs, &mut self.directions[from]);
        let (from, to) = if from == 0 { (first, second) } else { (second, first) };
        let control = to.control.clone();
        let delivery = async {
            poll_fn(|cx| direction.poll_to_end(cx, from.transport, to.transport)).await;
            while control.in_flight() > 0 {
                sleep(ASK_AGAIN).await;
            }
        };
        // The wait has the time limit of a close, which would give up after the same time.
        let _ = until(after(control.policy().close_timeout), delivery).await;
    }

    /// Ends both legs. Everything that does not wait is done first, on both of them.
    async fn end(&mut self) -> (CloseReport, CloseReport) {
        let [a, b] = self.legs.each_mut().map(|leg| leg.state());
        let is_misused = self.directions.iter().any(|direction| direction.state == DirectionState::Failed)
            && [&a, &b].into_iter().all(|leg| rules::failure(leg).is_none());
        let asked = |other: &rules::Leg| if is_misused { Duty::Abort } else { rules::duty(other) };
        let endings = [rules::ending(rules::failure(&a), asked(&b)), rules::ending(rules::failure(&b), asked(&a))];
        for (leg, ending) in self.legs.iter_mut().zip(&endings) {
            leg.end_now(ending);
        }
        let [a, b] = &mut self.legs;
        tokio::join!(a.transport.close(), b.transport.close())
    }
}

impl Leg<'_> {
    /// The state of the leg, as the rules need it.
    fn state(&mut self) -> rules::Leg {
        if self.control.is_aborted() {
            // Another task may have aborted the connection, and the halves may not have noticed yet.
            self.transport.layer_mut(TOKEN).handle_abort();
        }
        let (send, recv) = self.transport.layer(TOKEN).halves();
        rules::Leg { send, recv, lost: self.lost, truncation: self.control.policy().truncation }
    }

    /// Does the part that does not wait. The `close` of each leg follows and gives the report.
    fn end_now(&mut self, ending: &LegEnd) {
        match ending {
            LegEnd::Close => {}
            LegEnd::Abort => self.transport.abort(),
            LegEnd::Lost(reason) => {
                let mut report = CloseReport::of(reason.clone());
                self.transport.layer(TOKEN).report_layers(&mut report.layers);
                self.control.set_report(report);
                self.control.end(reason.clone());
                self.transport.layer_mut(TOKEN).handle_abort();
            }
        }
    }
}

impl Direction {
    /// Forwards all bytes that can be forwarded now.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut dyn Transport, to: &mut dyn Transport) {
        while let DirectionState::Copying | DirectionState::Ending = self.state {
            match self.poll_step(cx, from, to) {
                Poll::Ready(Ok(next)) => self.state = next,
                Poll::Ready(Err(_)) => self.state = DirectionState::Failed,
                Poll::Pending => return,
            }
        }
    }

    fn poll_to_end(&mut self, cx: &mut Context<'_>, from: &mut dyn Transport, to: &mut dyn Transport) -> Poll<()> {
        self.poll(cx, from, to);
        if matches!(self.state, DirectionState::Ended | DirectionState::Failed) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut dyn Transport,
        to: &mut dyn Transport,
    ) -> Poll<io::Result<DirectionState>> {
        if self.state == DirectionState::Ending {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            return Poll::Ready(Ok(DirectionState::Ended));
        }
        let coop = ready!(poll_proceed(cx));
        let Poll::Ready(bytes) = Pin::new(&mut *from).poll_fill_buf(cx)? else {
            // rule: write-6: the underlying stream may have its own queue.
            if self.is_unflushed {
                ready!(Pin::new(to).poll_flush(cx))?;
                self.is_unflushed = false;
            }
            return Poll::Pending;
        };
        if bytes.is_empty() {
            return Poll::Ready(Ok(DirectionState::Ending));
        }
        let n = ready!(poll_write_some(to, cx, bytes))?;
        // The bytes are consumed only after the write, so that those that were not written can still be read later.
        Pin::new(from).consume(n);
        coop.made_progress();
        self.bytes += n as u64;
        self.is_unflushed = self.flushes;
        Poll::Ready(Ok(DirectionState::Copying))
    }
}
