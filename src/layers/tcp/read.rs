//! The receiving half of TCP.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncBufRead, AsyncRead, Interest, ReadBuf, Ready};
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;

use super::calls::is_no_result;
use super::half::SocketHalf;
use super::shared::{SharedTcp, SocketShare, gone};
use crate::conn::control::{Control, Controlled};
use crate::conn::idle::IdleTimer;
use crate::conn::socket;
use crate::conn::waiting::READER;
use crate::core::half::RecvHalf;
use crate::core::inbox::Inbox;
use crate::error::{Phase, Reason};
use crate::transport::layer::{hand_over, poll_budget, poll_read_ahead, take_in};

/// The receiving half of a [`TcpConnection`](super::TcpConnection).
pub struct TcpReadHalf {
    pub(super) socket: SocketHalf<RecvHalf>,
    pub(super) inbox: Inbox,
    /// The previous read-ahead filled its space.
    is_bulk: bool,
}

impl TcpReadHalf {
    pub(super) fn new(shared: SocketShare) -> Self {
        let socket = SocketHalf::new(shared, RecvHalf::Open, IdleTimer::default());
        Self { socket, inbox: Inbox::default(), is_bulk: false }
    }

    /// The read half that a [`Control::close`] uses.
    pub(super) fn to_close(shared: SocketShare) -> Self {
        let has_ended = shared.fin_received.has_begun();
        let mut half = Self::new(shared);
        half.socket.closes = true;
        if has_ended {
            half.handle_marker();
        }
        half
    }

    pub(super) fn control_ref(&self) -> &Control {
        &self.socket.control
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(shared) = self.socket.shared.as_ref().filter(|_| self.socket.state.is_open()) else {
            ready!(poll_budget(cx));
            return Poll::Ready(self.at_end());
        };
        if self.socket.closes {
            self.socket.control.park_closer(cx.waker());
        }
        let result = match poll_recv(shared, cx, buf) {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.socket.timer.reset();
                self.socket.control.note_received(n);
                if self.socket.control.is_touched() && self.socket.is_closed_elsewhere() {
                    // These bytes must not be delivered, because the close may have discarded bytes before them.
                    return Poll::Ready(self.at_end());
                }
                return Poll::Ready(Ok(()));
            }
            Poll::Pending if self.waits_on(cx) => return Poll::Ready(self.at_end()),
            Poll::Pending if !self.socket.control.activity().is_bounded() => return Poll::Pending,
            Poll::Pending => Err(ready!(self.socket.poll_timer(cx, |shared| &shared.fin_sent))),
            Poll::Ready(result) => result,
        };
        Poll::Ready(self.handle_last(result))
    }

    /// Registers the waiting task, unless a layer above does. Returns whether a [`Control::close`] has ended the half
    /// meanwhile: the close may have come too early to wake this task.
    fn waits_on(&self, cx: &mut Context<'_>) -> bool {
        let Some(shared) = self.socket.shared.as_ref().filter(|shared| !shared.is_beneath()) else { return false };
        shared.socket.park(READER, cx);
        let is_closed = self.socket.control.is_touched() && self.socket.is_closed_elsewhere();
        if is_closed {
            // This task may have registered with the socket in place of the task of the close.
            self.socket.control.wake_closer();
        }
        is_closed
    }

    /// Whether the half has ended for the application, although bytes may still come.
    #[cold]
    #[inline(never)]
    fn is_stopped(&self) -> bool {
        self.socket.control.is_aborted() || self.is_taken()
    }

    fn is_taken(&self) -> bool {
        self.socket.is_closed_elsewhere() && (self.socket.state.is_open() || !self.inbox.is_empty())
    }

    /// Handles a read that has returned the end or an error.
    #[cold]
    #[inline(never)]
    fn handle_last(&mut self, result: io::Result<usize>) -> io::Result<()> {
        self.socket.timer.reset();
        match result {
            _ if self.check_cut(self.socket.control.cut()) || self.socket.is_closed_elsewhere() => {}
            // After an error that another half saw, the system reports the end of the input.
            Ok(_) => match self.socket.control.failure() {
                Some(reason) => self.socket.lose(&reason),
                None => self.handle_marker(),
            },
            Err(error) => self.socket.lose(&Reason::from_io(error, Phase::Open)),
        }
        self.at_end()
    }

    /// Reads once. The bytes go into the inbox, after those that are there. At the end, the inbox stays as it is.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_read_ahead(self, |half| &mut half.inbox, Inbox::ROOM, |half, buf| half.poll_fill(cx, buf))
    }

    /// Reads the bytes that the kernel has received so far into the inbox.
    pub(super) fn read_available(&mut self) {
        let may_read = self.socket.state.is_open() && !self.socket.control.is_cut();
        let Some(shared) = self.socket.shared.as_ref().filter(|_| may_read) else { return };
        let before = self.inbox.len();
        let Some(stream) = shared.socket.get() else { return };
        let looked = take_in(&mut self.inbox, |space| shared.call(READER, || socket::receive(&stream, space)));
        self.socket.control.note_received(self.inbox.len() - before);
        if let Err(error) = looked {
            // The system reports this error only once.
            self.socket.lose(&Reason::from_io(error, Phase::Open));
        }
    }

    /// Whether no bytes are left to read: the half has ended, or its end is known without another system call.
    pub(super) fn has_nothing_more(&mut self) -> bool {
        if !self.inbox.is_empty() {
            return false;
        }
        let is_at_end =
            self.socket.state.is_open() && self.socket.shared.as_ref().is_some_and(|shared| is_at_end(shared));
        if is_at_end && !self.socket.control.is_cut() && self.socket.control.failure().is_none() {
            self.handle_marker();
        }
        self.socket.settle();
        !self.socket.state.is_open()
    }

    /// Handles FIN.
    fn handle_marker(&mut self) {
        if self.socket.state.marker().is_err() {
            return;
        }
        self.socket.state.consumed();
        if let Some(shared) = self.socket.shared.take() {
            shared.note_marker();
            self.socket.shared = shared.finish();
        }
    }

    /// The result of every read after the last data.
    #[cold]
    #[inline(never)]
    fn at_end(&mut self) -> io::Result<()> {
        let is_cut = self.check_cut(self.socket.control.cut());
        self.socket.settle();
        if !is_cut && self.is_taken() {
            self.socket.shared.take_if(|_| self.socket.control.kept_report().is_some());
            return Err(Reason::Closed.into());
        }
        self.socket.state.outcome(self.socket.control.policy().truncation)
    }
}

fn poll_recv(shared: &SharedTcp, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
    {
        let Some(stream) = shared.socket.get_for(READER, cx) else { return Poll::Ready(Err(gone())) };
        // This first attempt does not register the task: if the socket is readable, registering it would be wasted
        // work.
        let unit = ready!(poll_proceed(cx));
        match shared.call(READER, || recv_now(shared, &stream, buf)) {
            Err(error) if is_no_result(&error) => drop(unit),
            result => {
                unit.made_progress();
                return Poll::Ready(result);
            }
        }
    }
    loop {
        let Some(stream) = shared.socket.get_for(READER, cx) else { return Poll::Ready(Err(gone())) };
        ready!(stream.poll_read_ready(cx))?;
        match shared.call(READER, || recv_now(shared, &stream, buf)) {
            Err(error) if is_no_result(&error) => {}
            result => return Poll::Ready(result),
        }
    }
}

#[inline]
fn recv_now(shared: &SharedTcp, stream: &TcpStream, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    if shared.tells_by_short_reads() { recv_dry(stream, buf) } else { stream.try_read_buf(buf) }
}

/// Reads. A read that does not fill the buffer clears readiness, because under edge triggering the next read would
/// return `WouldBlock`. Only the readiness from before the read is cleared, so bytes that arrive during the read are
/// not missed. The readiness for an end is never cleared.
fn recv_dry(stream: &TcpStream, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    let room = buf.remaining().min(socket::MAX_AT_ONCE);
    let mut short = None;
    let result = stream.try_io(Interest::READABLE, || match socket::recv(stream, buf) {
        Ok(n) if 0 < n && n < room => {
            short = Some(n);
            Err(io::ErrorKind::WouldBlock.into())
        }
        result => result,
    });
    short.map_or(result, Ok)
}

/// Whether FIN comes next, as far as this is known without a system call. A short read has shown that no more bytes had
/// arrived. It clears readiness, but not the readiness for an end, and later bytes would have set readiness again. So
/// if only the readiness for an end is set, no bytes precede the end. A reset also sets the readiness for an error.
fn is_at_end(shared: &SharedTcp) -> bool {
    if !shared.tells_by_short_reads() {
        return false;
    }
    let Some(stream) = shared.socket.get() else { return false };
    let ready = pin!(stream.ready(Interest::READABLE | Interest::ERROR));
    let Poll::Ready(Ok(ready)) = ready.poll(&mut Context::from_waker(Waker::noop())) else { return false };
    ready.is_read_closed() && (ready & (Ready::READABLE | Ready::ERROR)).is_empty()
}

impl Controlled for TcpReadHalf {
    fn abort(&mut self) {
        self.inbox.clear();
        self.socket.abort();
    }

    fn end(&mut self, reason: &Reason) {
        self.socket.end(reason);
    }
}

impl fmt::Debug for TcpReadHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpReadHalf").field("half", &self.socket.state).finish_non_exhaustive()
    }
}

impl AsyncRead for TcpReadHalf {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let is_stopped = self.socket.control.is_touched() && self.is_stopped();
        if !is_stopped && buf.remaining() > 0 && self.inbox.is_empty() {
            return self.poll_fill(cx, buf);
        }
        ready!(poll_budget(cx));
        if is_stopped {
            return Poll::Ready(self.at_end());
        }
        hand_over(&mut self.inbox, buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for TcpReadHalf {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let is_stopped = this.socket.control.is_touched() && this.is_stopped();
        if !is_stopped && this.inbox.is_empty() {
            // In bulk, a larger read halves the number of system calls, here and in a relay that writes the bytes.
            let room = if this.is_bulk { Inbox::BULK } else { Inbox::ROOM };
            ready!(poll_read_ahead(this, |half| &mut half.inbox, room, |half, buf| half.poll_fill(cx, buf)))?;
            this.is_bulk = this.inbox.len() == room;
            return Poll::Ready(Ok(this.inbox.as_slice()));
        }
        ready!(poll_budget(cx));
        if is_stopped {
            this.at_end()?;
        }
        Poll::Ready(Ok(this.inbox.as_slice()))
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        self.inbox.consume(n);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::layers::tcp::TcpConnection;
    use crate::policy::Policy;
    use crate::transport::split::Split;

    /// A socket keeps one task for each direction. Here, a reader in another thread finds nothing to read, then a close
    /// begins and waits for the peer, and then the reader registers its task in place of the close's.
    ///
    /// rule: close-16
    #[tokio::test]
    async fn a_reader_that_registers_late_wakes_the_close() {
        let (ours, mut peer) = crate::testing::raw_tcp_pair().await.unwrap();
        let policy = Policy::default().close_timeout(None);
        let (reader, _writer) = TcpConnection::new(ours, policy).unwrap().into_split();
        let control = reader.control_ref().clone();
        let closing = tokio::spawn(async move { control.close().await });
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(poll_recv(reader.socket.shared.as_ref().unwrap(), cx, &mut ReadBuf::new(&mut [0])).is_pending());
        assert!(reader.waits_on(cx));
        peer.write_all(b"unread").await.unwrap();
        drop(peer);
        let report = tokio::time::timeout(Duration::from_secs(20), closing).await.expect("the close ends").unwrap();
        assert!(report.is_clean(), "{report}");
    }
}
