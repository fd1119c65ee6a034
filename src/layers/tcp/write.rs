//! The sending half of TCP.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;

use super::shared::{SharedTcp, SocketShare, gone, is_no_result};
use crate::conn::control::{Control, Controlled};
use crate::conn::idle::IdleTimer;
use crate::conn::socket;
use crate::conn::waiting::WRITER;
use crate::core::half::{Refused, SendHalf};
use crate::error::{Phase, Reason};
use crate::transport::layer::poll_budget;

/// The sending half of a [`TcpConnection`](super::TcpConnection).
pub struct TcpWriteHalf {
    shared: Option<SocketShare>,
    control: Control,
    pub(super) half: SendHalf,
    pub(super) timer: IdleTimer,
    /// `TCP_CORK` is set. A close may begin while it is.
    corked: bool,
    /// FIN follows directly after the written bytes.
    pub(super) expects_end: bool,
    /// The half belongs to a close through the handle.
    pub(super) closes: bool,
}

impl TcpWriteHalf {
    pub(super) fn new(shared: SocketShare) -> Self {
        let control = shared.control().clone();
        let (half, timer) = (SendHalf::Open, IdleTimer::of_sender());
        Self { shared: Some(shared), control, half, timer, corked: false, expects_end: false, closes: false }
    }

    /// The write half that a close through the handle uses.
    pub(super) fn to_close(shared: SocketShare) -> Self {
        let has_ended = shared.fin_sent.has_begun();
        let mut half = Self { closes: true, ..Self::new(shared) };
        if has_ended && half.half.close_write().is_ok() && half.half.drained().is_ok() {
            half.shared = half.shared.and_then(SocketShare::finish);
        }
        half
    }

    pub(super) fn control_ref(&self) -> &Control {
        &self.control
    }

    pub(super) fn set_half_open(&self) {
        if let Some(shared) = &self.shared {
            shared.fin_received.begin();
        }
    }

    pub(super) fn set_beneath(&self, beneath: bool) {
        if let Some(shared) = &self.shared {
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
        let may_send = self.half.may_write() && !(self.control.is_touched() && self.is_stopped());
        let Some(shared) = self.shared.as_ref().filter(|_| may_send) else { return self.poll_refusal(cx) };
        let error = match poll_send(shared, cx, len, send) {
            Poll::Ready(Ok(n)) => {
                self.timer.reset();
                self.control.note_sent(n);
                return Poll::Ready(Ok(n));
            }
            Poll::Pending if !self.control.activity().is_bounded() => return Poll::Pending,
            Poll::Pending => ready!(self.poll_timer(cx)),
            Poll::Ready(Err(error)) => error,
        };
        Poll::Ready(Err(self.handle_lost(error)))
    }

    /// Returns the error of a write to a half that has ended, or whose connection was ended at the bottom layer.
    #[cold]
    #[inline(never)]
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.check_cut(self.control.cut()) && self.is_closed_elsewhere() {
            let _ = self.end_elsewhere();
        }
        ready!(poll_budget(cx));
        Poll::Ready(Err(self.refusal()))
    }

    /// Whether a close through the handle has taken this half from the application (rule: close-16).
    #[cold]
    fn is_closed_elsewhere(&self) -> bool {
        !self.closes && self.control.is_close_asked() && !self.shared.as_ref().is_some_and(|shared| shared.is_beneath())
    }

    #[cold]
    #[inline(never)]
    fn is_stopped(&self) -> bool {
        self.control.is_cut() || self.is_closed_elsewhere()
    }

    /// A close through the handle ends the half.
    fn end_elsewhere(&mut self) -> io::Result<()> {
        if self.half.close_write().is_err() {
            return Err(self.refusal());
        }
        if self.half.is_finishing() && self.shared.as_ref().is_some_and(|shared| shared.fin_sent.has_begun()) {
            let _ = self.half.drained();
        }
        self.shared.take_if(|_| self.control.kept_report().is_some());
        if self.half.is_finished() { Ok(()) } else { Err(self.refusal()) }
    }

    /// Starts the idle timer, if the policy has a limit, because the half waits.
    #[inline(never)]
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(shared) = &self.shared else { return Poll::Pending };
        let (control, half_open) = (&self.control, &shared.fin_received);
        let phase =
            ready!(self.timer.poll(cx, control.policy(), control.activity(), half_open, || control.sent_bytes()));
        Poll::Ready(self.control.time_out(phase).into())
    }

    /// Handles a failure of the socket, or a wait that was too long.
    #[cold]
    #[inline(never)]
    fn handle_lost(&mut self, error: io::Error) -> io::Error {
        self.timer.reset();
        self.lose(Reason::from_io(error, Phase::Open));
        self.refusal()
    }

    fn lose(&mut self, reason: Reason) {
        if self.check_cut(self.control.cut()) {
            return;
        }
        if self.is_closed_elsewhere() {
            // The close has ended the send half, so the socket accepts no more bytes.
            let _ = self.end_elsewhere();
            return;
        }
        if let Some(shared) = &self.shared {
            shared.note_loss(&reason);
        }
        self.end(&reason);
    }

    /// The error of every write after the end (rules: write-4, write-5).
    fn refusal(&self) -> io::Error {
        self.half.refusal().into()
    }

    pub(super) fn is_corked(&self) -> bool {
        self.corked
    }

    pub(super) fn has_space(&self, bytes: usize) -> bool {
        let stream = self.shared.as_ref().and_then(|shared| shared.socket.get());
        stream.is_some_and(|stream| socket::has_space(&stream, bytes))
    }

    pub(super) fn set_cork(&mut self, on: bool) -> bool {
        let was_corked = self.corked;
        if let Some(shared) = self.shared.as_ref().filter(|_| on != was_corked) {
            if let Some(stream) = shared.socket.get() {
                socket::Options::of(&stream).set_cork(on);
            }
            self.corked = on;
        }
        was_corked
    }

    fn close_write(&mut self) -> io::Result<()> {
        if !self.check_cut(self.control.cut()) && self.is_closed_elsewhere() {
            return self.end_elsewhere();
        }
        if self.half.close_write().is_err() {
            return Err(self.refusal());
        }
        self.settle();
        let Some(shared) = self.shared.take_if(|_| self.half.is_finishing()) else { return Ok(()) };
        shared.allow_orderly_end();
        match shared.socket.get().map_or_else(|| Err(gone()), |stream| socket::Options::of(&stream).shutdown_write()) {
            Ok(()) => {
                shared.fin_sent.begin();
                shared.control().note_write_ended();
                let drained = self.half.drained().map_err(|Refused| self.refusal());
                self.shared = shared.finish();
                drained
            }
            Err(error) => {
                // The connection no longer exists in the system, because it was reset. The other half reports how.
                let reason = match error.kind() {
                    io::ErrorKind::NotConnected => Reason::Reset(Phase::Open),
                    _ => Reason::from_io(error, Phase::Open),
                };
                self.lose(reason);
                Err(self.refusal())
            }
        }
    }

    /// Closes the socket if it was held only until the delivery of our last bytes is known, and this is known now.
    pub(super) fn settle(&mut self) {
        self.shared.take_if(|shared| shared.is_settled());
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
        // If the socket is known to have space, the task need not be noted.
        let unit = ready!(poll_proceed(cx));
        match send_full(&stream, len, &send) {
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
        match send_full(&stream, len, &send) {
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

impl Controlled for TcpWriteHalf {
    fn abort(&mut self) {
        self.half.abort();
        self.shared = None;
    }

    fn end(&mut self, reason: &Reason) {
        self.half.lose(reason.clone());
        self.shared = None;
    }
}

impl fmt::Debug for TcpWriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpWriteHalf").field("half", &self.half).finish_non_exhaustive()
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
