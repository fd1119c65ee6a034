//! A layer over any stream that reads and writes: a Unix socket, an in-memory pipe.

mod bottom;
mod layer;
mod repeat;
#[cfg(unix)]
pub(crate) mod unix;

use std::fmt;
use std::io::{self, IoSlice};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;

use self::bottom::StreamBottom;
use self::repeat::{once_more, read_once};
use crate::address::Address;
use crate::conn::after_unlock;
use crate::conn::control::{Control, Controlled};
use crate::conn::idle::{HalfOpen, IdleTimer, SentBytes, StallTimer};
use crate::conn::waiting::{READER, WRITER, Waiting};
use crate::core::delivery::Pending;
use crate::core::half::{self, RecvHalf, Refused, SendHalf};
use crate::core::inbox::Inbox;
use crate::error::{Phase, Reason};
use crate::policy::Policy;
use crate::transport::layer::{debug, hand_over, poll_budget, poll_read_ahead};

/// A transport over any stream that reads and writes. Shutting the stream down is the end marker of the send half. The
/// end of file is the end marker of the receive half.
///
/// A stream has no RST, so an abort drops the stream. This happens at the next poll, for which the abort wakes the
/// waiting tasks. How the peer sees this end depends on the stream. On a Unix socket it looks like any other end, and
/// only a TLS layer above shows the peer that data is missing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use bowline::{Stream, Transport};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let (a, b) = tokio::io::duplex(4096);
/// let (mut a, mut b) = (Stream::new(a), Stream::new(b));
/// a.write_all(b"hello").await?;
/// a.close_write().await?;
/// let mut all = String::new();
/// b.read_to_string(&mut all).await?;
/// assert_eq!(all, "hello");
/// # Ok(()) }
/// ```
pub struct Stream<S> {
    live: Option<Live<S>>,
    /// `None` in a stream that was handed over to a close.
    bottom: Option<Arc<StreamBottom>>,
    send: SendHalf,
    recv: RecvHalf,
    inbox: Inbox,
    control: Control,
    // Whether the application has promised this by the method of the same name.
    wakes_unlocked: bool,
    delivers_at_once: bool,
    /// A layer above reports how the connection ended.
    beneath: bool,
    /// One timer for each task that may wait.
    timers: [IdleTimer; 2],
    /// Runs while a task that ends our send half waits for the peer to accept the remaining bytes.
    stall: StallTimer,
    /// Our send half has ended.
    fin_sent: HalfOpen,
    /// The peer has ended its half, in this layer or in one above.
    fin_received: HalfOpen,
}

/// The stream, and the tasks that wait on it: both are dropped together.
struct Live<S> {
    io: S,
    waiting: Arc<Waiting>,
    control: Control,
    /// Reads from the kernel directly, if the stream is a socket.
    receive: Option<Receive<S>>,
}

type Receive<S> = fn(&S, &mut [u8]) -> io::Result<usize>;

impl<S> Drop for Live<S> {
    fn drop(&mut self) {
        self.control.note_gone();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream<S> {
    /// A transport with the default policy. Both addresses are the placeholder `stream`.
    #[track_caller]
    pub fn new(io: S) -> Self {
        let unnamed = Address::Other("stream".into());
        Self::with(io, unnamed.clone(), unnamed, Policy::default())
    }

    /// A transport with these addresses and this policy.
    #[track_caller]
    pub fn with(io: S, host: Address, peer: Address, policy: impl Into<Arc<Policy>>) -> Self {
        let stream = Self::silently(io, host, peer, policy.into());
        stream.control.announce(Location::caller());
        stream
    }

    /// As `with`, without reporting the connection to its observers yet.
    pub(crate) fn silently(io: S, host: Address, peer: Address, policy: Arc<Policy>) -> Self {
        let control = Control::new(host, peer, policy);
        let waiting = Arc::new(Waiting::default());
        let bottom = Some(StreamBottom::beneath(&control, Arc::clone(&waiting)));
        let (send, recv, inbox) = (SendHalf::Open, RecvHalf::Open, Inbox::default());
        let live = Some(Live { io, waiting, control: control.clone(), receive: None });
        Self {
            live,
            bottom,
            send,
            recv,
            inbox,
            control,
            wakes_unlocked: false,
            delivers_at_once: false,
            beneath: false,
            timers: <[IdleTimer; 2]>::default(),
            stall: StallTimer::default(),
            fin_sent: HalfOpen::default(),
            fin_received: HalfOpen::default(),
        }
    }

    /// The stream, for example for the options of its socket; `None` after the end. Reading from it or writing to it
    /// would take bytes away from the layers above.
    #[doc(alias = "AsFd")]
    pub fn get_ref(&self) -> Option<&S> {
        self.live.as_ref().map(|live| &live.io)
    }

    /// Promises that the stream holds no lock while it calls a waker. With this promise, bytes that a TLS layer above
    /// has queued leave as soon as the stream accepts them, even if no task of the application writes (rule: write-6).
    /// Without it, they leave when the application next uses the connection.
    pub fn wakes_unlocked(self) -> Self {
        Self { wakes_unlocked: true, ..self }
    }

    /// Promises that all bytes that the stream has accepted, and its shutdown, have already reached the other end, so
    /// that no network can lose them. This is true of a Unix socket and of a pipe in memory. With this promise, our
    /// data counts as delivered when our half has ended; over TCP, the peer's system has to acknowledge it first. No
    /// transport knows whether the peer's application reads the bytes.
    ///
    /// Without the promise, a connection ends as [`Reason::Closed`] only if the peer's end comes after ours has left,
    /// and as [`Reason::Unconfirmed`] if the peer ended its half first (rule: close-14).
    pub fn delivers_at_once(self) -> Self {
        Self { delivers_at_once: true, ..self }
    }

    /// Ends the halves, or passes the stream to a close, if the [`Control`] has requested that.
    #[inline]
    fn check_control(&mut self) {
        if self.control.is_touched() {
            self.handle_control();
        }
    }

    #[cold]
    #[inline(never)]
    fn handle_control(&mut self) {
        let cut = self.control.cut();
        if !self.check_cut(cut) {
            self.hand_over();
        }
    }

    /// Registers a task that waits on the stream. Returns whether the stream was dropped or handed over since the last
    /// check: that came too early to wake this task.
    fn is_ended_meanwhile(&mut self, half: usize, cx: &mut Context<'_>) -> bool {
        if let Some(live) = &self.live {
            live.waiting.park(half, cx);
        }
        self.check_control();
        self.live.is_none()
    }

    fn lose(&mut self, error: io::Error) -> Reason {
        let reason = Reason::from_io(error, Phase::Open);
        self.note(&reason);
        self.end(&reason);
        reason
    }

    /// Drops the stream. Its destructor may wake tasks that wait on it, so this happens while no lock of a layer above
    /// is held (rule: life-7).
    fn let_go(&mut self) {
        if let Some(live) = self.live.take() {
            after_unlock::run(move || drop(live));
        }
    }

    /// Records how the connection ended, unless a layer above does.
    fn note(&self, reason: &Reason) {
        if !self.beneath {
            self.control.note_reason(reason);
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_control();
        // Budget is taken here, because the stream inside may not take any.
        let coop = ready!(poll_proceed(cx));
        let Some(live) = self.live.as_mut().filter(|_| self.recv.is_open()) else {
            coop.made_progress();
            return Poll::Ready(self.at_end());
        };
        let before = buf.filled().len();
        let mut read = once_more(|| Pin::new(&mut live.io).poll_read(cx, buf));
        if read.is_pending() && self.is_ended_meanwhile(READER, cx) {
            coop.made_progress();
            return Poll::Ready(self.at_end());
        }
        if read.is_pending() {
            let (control, half_open) = (&self.control, &self.fin_sent);
            let phase = ready!(self.timers[READER].poll(
                cx,
                control.policy(),
                control.activity(),
                half_open,
                SentBytes::default
            ));
            read = Poll::Ready(Err(self.control.time_out(phase).into()));
        }
        self.timers[READER].reset();
        coop.made_progress();
        match ready!(read) {
            Ok(()) if buf.filled().len() > before => {
                self.control.note_received(buf.filled().len() - before);
                return Poll::Ready(Ok(()));
            }
            Ok(()) if self.recv.marker().is_err() => return Poll::Ready(self.at_end()),
            Ok(()) => {
                self.recv.consumed();
                if self.send.is_finished() && !self.beneath {
                    self.control.note_answered();
                }
                self.fin_received.begin();
                self.rest();
            }
            Err(error) => {
                self.lose(error);
            }
        }
        Poll::Ready(self.at_end())
    }

    /// rule: close-13
    fn rest(&mut self) {
        if self.send.is_over() && !self.recv.is_open() {
            if let Some(reason) = half::reason(&self.send, &self.recv) {
                self.note(&reason);
            }
            self.let_go();
        }
    }

    /// Ready when the end of our send half has waited for its time limit. The connection was then ended at the bottom
    /// layer. A layer above has a timer of its own.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.beneath {
            return Poll::Pending;
        }
        let control = &self.control;
        ready!(self.stall.poll(cx, control.policy().close_timeout, || control.taken()));
        control.give_up_end();
        Poll::Ready(())
    }

    fn at_end(&self) -> io::Result<()> {
        if self.is_taken() {
            return Err(Reason::Closed.into());
        }
        self.recv.outcome(self.control.policy().truncation)
    }

    fn refusal(&self) -> io::Error {
        self.send.refusal().into()
    }

    /// Writes `len` bytes to the stream, and returns how many the stream accepted.
    fn poll_send_bytes(
        &mut self,
        cx: &mut Context<'_>,
        len: usize,
        mut send: impl FnMut(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.send.may_write() {
            ready!(poll_budget(cx));
            return Poll::Ready(Err(self.refusal()));
        }
        let taken = ready!(self.poll_send(cx, |io, cx| {
            send(io, cx).map(|sent| match sent? {
                // rule: life-6. The stream accepts no bytes, so a writer would repeat the call forever.
                0 if len > 0 => Err(io::ErrorKind::WriteZero.into()),
                n if n > len => Err(io::Error::other("the stream reported more bytes than it was given")),
                n => Ok(n),
            })
        }))?;
        self.control.note_sent(taken);
        Poll::Ready(Ok(taken))
    }

    fn poll_send<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut send: impl FnMut(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        self.check_control();
        let coop = ready!(poll_proceed(cx));
        let may = self.send.may_write() || self.send.is_finishing();
        let Some(live) = self.live.as_mut().filter(|_| may) else {
            coop.made_progress();
            return Poll::Ready(Err(self.refusal()));
        };
        let mut sent = once_more(|| send(Pin::new(&mut live.io), cx));
        if sent.is_pending() && self.is_ended_meanwhile(WRITER, cx) {
            coop.made_progress();
            return Poll::Ready(Err(self.refusal()));
        }
        if sent.is_pending() {
            let (control, half_open) = (&self.control, &self.fin_received);
            let phase = ready!(self.timers[WRITER].poll(
                cx,
                control.policy(),
                control.activity(),
                half_open,
                SentBytes::default
            ));
            sent = Poll::Ready(Err(self.control.time_out(phase).into()));
        }
        self.timers[WRITER].reset();
        coop.made_progress();
        match ready!(sent) {
            Ok(done) => Poll::Ready(Ok(done)),
            Err(error) => Poll::Ready(Err(self.lose(error).into())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Controlled for Stream<S> {
    fn abort(&mut self) {
        self.send.abort();
        self.recv.abort();
        self.inbox.clear();
        self.let_go();
    }

    fn end(&mut self, reason: &Reason) {
        self.send.lose(reason.clone());
        self.recv.lose(reason.clone());
        self.let_go();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_control();
        let has_unread = !self.inbox.is_empty();
        if !has_unread && buf.remaining() > 0 {
            return self.poll_fill(cx, buf);
        }
        ready!(poll_budget(cx));
        if has_unread {
            hand_over(&mut self.inbox, buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncBufRead for Stream<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        this.check_control();
        if this.inbox.is_empty() {
            let read = |stream: &mut Self, buf: &mut ReadBuf<'_>| stream.poll_fill(cx, buf);
            ready!(poll_read_ahead(this, |stream| &mut stream.inbox, Inbox::ROOM, read))?;
        } else {
            ready!(poll_budget(cx));
        }
        Poll::Ready(Ok(this.inbox.as_slice()))
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        self.inbox.consume(n);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send_bytes(cx, buf.len(), |io, cx| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = parts.iter().map(|part| part.len()).sum();
        self.poll_send_bytes(cx, len, |io, cx| io.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.send.is_finished() {
            return poll_budget(cx).map(Ok);
        }
        self.poll_send(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_control();
        let is_refused = self.send.close_write().is_err();
        if is_refused || self.send.is_finished() {
            ready!(poll_budget(cx));
            return Poll::Ready(if is_refused { Err(self.refusal()) } else { Ok(()) });
        }
        let ended = match self.poll_send(cx, |io, cx| io.poll_shutdown(cx)) {
            Poll::Pending if self.poll_stall(cx).is_ready() => self.poll_send(cx, |io, cx| io.poll_shutdown(cx)),
            ended => ended,
        };
        ready!(ended)?;
        self.stall.reset();
        self.send.drained().map_err(|Refused| self.refusal())?;
        if self.delivers_at_once {
            self.control.note_pending(|| Some(Pending::default()));
        }
        self.fin_sent.begin();
        self.control.note_write_ended();
        self.rest();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> fmt::Debug for Stream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(self, "Stream", f)
    }
}
