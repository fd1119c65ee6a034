//! The sending half of TCP.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;

use super::calls::is_no_result;
use super::half::SocketHalf;
use super::shared::{SharedTcp, SocketShare, gone};
use crate::conn::control::Control;
use crate::conn::idle::IdleTimer;
use crate::conn::socket;
use crate::conn::waiting::WRITER;
use crate::core::half::{Refused, SendHalf};
use crate::error::{Phase, Reason};
use crate::transport::layer::poll_budget;

/// The sending half of a [`TcpConnection`](super::TcpConnection).
pub struct TcpWriteHalf {
    pub(super) socket: SocketHalf<SendHalf>,
    /// `TCP_CORK` is set. A close may begin while it is.
    corked: bool,
    /// FIN follows directly after the written bytes.
    pub(super) expects_end: bool,
}

impl TcpWriteHalf {
    pub(super) fn new(shared: SocketShare) -> Self {
        let socket = SocketHalf::new(shared, SendHalf::Open, IdleTimer::of_sender());
        Self { socket, corked: false, expects_end: false }
    }

    /// The write half that a [`Control::close`](crate::Control::close) uses.
    pub(super) fn to_close(shared: SocketShare) -> Self {
        let has_ended = shared.fin_sent.has_begun();
        let mut half = Self::new(shared);
        let socket = &mut half.socket;
        socket.closes = true;
        if has_ended && socket.state.close_write().is_ok() && socket.state.drained().is_ok() {
            socket.shared = socket.shared.take().and_then(SocketShare::finish);
        }
        half
    }

    pub(super) fn control_ref(&self) -> &Control {
        &self.socket.control
    }

    pub(super) fn set_half_open(&self) {
        if let Some(shared) = &self.socket.shared {
            shared.fin_received.begin();
        }
    }

    pub(super) fn set_beneath(&self, beneath: bool) {
        if let Some(shared) = &self.socket.shared {
            shared.beneath.store(beneath, Ordering::Release);
            shared.control().set_beneath(beneath);
        }
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        len: usize,
        send: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let may_send = self.socket.state.may_write() && !(self.socket.control.is_touched() && self.is_stopped());
        let Some(shared) = self.socket.shared.as_ref().filter(|_| may_send) else { return self.poll_refusal(cx) };
        let error = match poll_send(shared, cx, len, send) {
            Poll::Ready(Ok(n)) => {
                self.socket.timer.reset();
                self.socket.control.note_sent(n);
                return Poll::Ready(Ok(n));
            }
            Poll::Pending if !self.socket.control.activity().is_bounded() => return Poll::Pending,
            Poll::Pending => ready!(self.socket.poll_timer(cx, |shared| &shared.fin_received)),
            Poll::Ready(Err(error)) => error,
        };
        Poll::Ready(Err(self.handle_lost(error)))
    }

    /// Returns the error of a write to a half that has ended, or whose connection was ended at the bottom layer.
    #[cold]
    #[inline(never)]
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.socket.follow_cut() && self.socket.is_closed_elsewhere() {
            let _ = self.end_elsewhere();
        }
        ready!(poll_budget(cx));
        Poll::Ready(Err(self.refusal()))
    }

    #[cold]
    #[inline(never)]
    fn is_stopped(&self) -> bool {
        self.socket.control.is_cut() || self.socket.is_closed_elsewhere()
    }

    /// Ends the half, because a [`Control::close`](crate::Control::close) has taken the connection over.
    fn end_elsewhere(&mut self) -> io::Result<()> {
        if self.socket.state.close_write().is_err() {
            return Err(self.refusal());
        }
        if self.socket.state.is_finishing()
            && self.socket.shared.as_ref().is_some_and(|shared| shared.fin_sent.has_begun())
        {
            let _ = self.socket.state.drained();
        }
        self.socket.shared.take_if(|_| self.socket.control.kept_report().is_some());
        if self.socket.state.is_finished() { Ok(()) } else { Err(self.refusal()) }
    }

    /// Handles a failure of the socket, or a wait that was too long.
    #[cold]
    #[inline(never)]
    fn handle_lost(&mut self, error: io::Error) -> io::Error {
        self.socket.timer.reset();
        self.lose(Reason::from_io(error, Phase::Open));
        self.refusal()
    }

    fn lose(&mut self, reason: Reason) {
        if self.socket.follow_cut() {
            return;
        }
        if self.socket.is_closed_elsewhere() {
            // The error comes from the close, which has ended the send half, so it is not a loss.
            let _ = self.end_elsewhere();
            return;
        }
        self.socket.lose(&reason);
    }

    /// The error of every write after the end (rules: write-4, write-5).
    fn refusal(&self) -> io::Error {
        self.socket.state.refusal().into()
    }

    pub(super) fn is_corked(&self) -> bool {
        self.corked
    }

    pub(super) fn has_space(&self, bytes: usize) -> bool {
        let stream = self.socket.shared.as_ref().and_then(|shared| shared.socket.get());
        stream.is_some_and(|stream| socket::has_space(&stream, bytes))
    }

    pub(super) fn set_cork(&mut self, on: bool) -> bool {
        let was_corked = self.corked;
        if let Some(shared) = self.socket.shared.as_ref().filter(|_| on != was_corked) {
            if let Some(stream) = shared.socket.get() {
                socket::Options::of(&stream).set_cork(on);
            }
            self.corked = on;
        }
        was_corked
    }

    fn close_write(&mut self) -> io::Result<()> {
        if !self.socket.follow_cut() && self.socket.is_closed_elsewhere() {
            return self.end_elsewhere();
        }
        if self.socket.state.close_write().is_err() {
            return Err(self.refusal());
        }
        self.socket.settle();
        let Some(shared) = self.socket.shared.take_if(|_| self.socket.state.is_finishing()) else { return Ok(()) };
        shared.allow_orderly_end();
        // After a reset, Linux refuses to end the half. Other systems may accept it, although no FIN is sent.
        let stream = shared.socket.get().filter(|_| shared.control().failure().is_none());
        match stream.map_or_else(|| Err(gone()), |stream| socket::Options::of(&stream).shutdown_write()) {
            Ok(()) => {
                shared.fin_sent.begin();
                shared.control().note_write_ended();
                let drained = self.socket.state.drained().map_err(|Refused| self.refusal());
                self.socket.shared = shared.finish();
                drained
            }
            Err(error) => {
                // NotConnected means that the connection was reset and no longer exists in the system.
                let reason = match error.kind() {
                    io::ErrorKind::NotConnected => Reason::Reset(Phase::Open),
                    _ => Reason::from_io(error, Phase::Open),
                };
                self.lose(reason);
                Err(self.refusal())
            }
        }
    }
}

fn poll_send(
    shared: &SharedTcp,
    cx: &mut Context<'_>,
    len: usize,
    send: impl Fn(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    {
        let Some(stream) = shared.socket.get_for(WRITER, cx) else { return Poll::Ready(Err(gone())) };
        // This first attempt does not register the task: if the socket has space, registering it would be wasted work.
        let unit = ready!(poll_proceed(cx));
        match shared.call(WRITER, || send_full(&stream, len, &send)) {
            Err(error) if is_no_result(&error) => drop(unit),
            result => {
                unit.made_progress();
                return Poll::Ready(result);
            }
        }
    }
    loop {
        let Some(stream) = shared.socket.get_for(WRITER, cx) else { return Poll::Ready(Err(gone())) };
        ready!(stream.poll_write_ready(cx))?;
        match shared.call(WRITER, || send_full(&stream, len, &send)) {
            Err(error) if is_no_result(&error) => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Sends. If the system accepts only a part, its buffer is full, and the next call waits until the system reports
/// space. Only the readiness from before the call is cleared.
fn send_full(stream: &TcpStream, len: usize, send: impl Fn(&TcpStream) -> io::Result<usize>) -> io::Result<usize> {
    if !socket::TELLS_BY_EDGES {
        return send(stream);
    }
    let len = len.min(socket::MAX_AT_ONCE);
    let mut short = None;
    let result = stream.try_io(Interest::WRITABLE, || match send(stream) {
        Ok(n) if 0 < n && n < len => {
            short = Some(n);
            Err(io::ErrorKind::WouldBlock.into())
        }
        result => result,
    });
    short.map_or(result, Ok)
}

impl fmt::Debug for TcpWriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpWriteHalf").field("half", &self.socket.state).finish_non_exhaustive()
    }
}

impl AsyncWrite for TcpWriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let expects_end = self.expects_end;
        let buf = socket::first_bytes(buf);
        self.poll_send(cx, buf.len(), |stream| match buf {
            [] => Ok(0),
            _ if expects_end => socket::send_ahead_of_end(stream, buf),
            _ => socket::send(stream, buf),
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The system ignores the parts beyond its limit. If they were passed too, a full write would look like a short
        // one, and the half would wait although the socket still has space.
        let parts = socket::first_parts(parts);
        if let [part] = parts {
            if part.len() > socket::MAX_SENT_AT_ONCE {
                return self.poll_write(cx, part);
            }
        }
        let len = parts.iter().map(|part| part.len()).sum();
        self.poll_send(cx, len, |stream| if len == 0 { Ok(0) } else { stream.try_write_vectored(parts) })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_budget(cx));
        // The kernel has all bytes. If a cork makes it hold them back, this makes it send them.
        if self.corked {
            self.set_cork(false);
            self.set_cork(true);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The shutdown happens at once. Only its result may be returned later, and the result does not change.
        let ended = self.close_write();
        ready!(poll_budget(cx));
        Poll::Ready(ended)
    }
}
