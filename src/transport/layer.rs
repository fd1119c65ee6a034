//! The methods that one layer offers to the layer above it, and to the futures of `Transport`.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::poll_proceed;
use tokio::time::Instant;

use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::core::facts::SessionFacts;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::inbox::Inbox;
use crate::core::report::{LayerKind, LayerReport};
use crate::error::{Reason, SessionError};
use crate::transport::{Starting, Stopping, TlsTransport, Transport};

/// The methods of a layer for the layer above it, and for the futures of [`Transport`]. TCP, streams and TLS
/// implement this trait. A type that wraps a layer gives access to that layer through [`AsLayer`].
///
/// Code outside this crate can neither name this trait nor call its methods.
///
/// A default is the answer of a layer that has neither a session nor a queue of its own.
pub trait Layer: Send {
    /// The handle of the connection, through which an abort reaches the bottom layer.
    fn control(&self) -> &Control;
    /// The states of the two halves of this layer.
    fn halves(&self) -> (SendHalf, RecvHalf);
    /// Called after an abort has ended the bottom layer. Drops everything that this layer holds.
    fn handle_abort(&mut self);
    /// Called when a close starts. The application does not read any more, so an end of the peer is the answer to our
    /// close.
    fn begin_close(&mut self);
    /// Reads and discards until the receive halves of this layer and of all layers beneath have ended. Counts the
    /// bytes.
    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()>;
    /// Closes the socket. If a half has not ended, tasks that still use the transport get this reason.
    fn release(&mut self, reason: &Reason);
    /// Takes the bytes that were received and not read.
    fn take_unread(&mut self) -> Vec<u8>;
    /// Reads what has been received by now into the inbox, up to [`MAX_AVAILABLE`] bytes, without waiting for more.
    /// This includes bytes in the kernel and in records of the layers below (rule: upgrade-11).
    fn read_available(&mut self, cx: &mut Context<'_>);
    /// Adds bytes after those that were received and not read.
    fn push_unread(&mut self, bytes: &[u8]);
    /// Reports the state of each layer, this one first.
    fn report_layers(&self, layers: &mut Vec<LayerReport>);
    /// Whether a waker may write to this layer. It may if the layer holds no lock while it wakes tasks.
    fn may_write_in_wake(&self) -> bool;
    /// Whether accepted bytes may stay in this layer or in a layer beneath until a flush.
    fn keeps_written(&self) -> bool;
    /// Called when the peer has ended its half of a layer above. From now on, a connection whose writes stall counts
    /// as idle (rule: half-10).
    fn set_half_open(&mut self);
    /// Called with true while another layer sits on top. That layer detects a truncation by its missing marker, so
    /// dropping this layer need not cause a reset.
    fn set_beneath(&mut self, beneath: bool);

    /// The number of bytes that were accepted and not passed to the kernel, including those in the layers beneath.
    fn queued_bytes(&self) -> usize {
        0
    }
    /// Whether a close has nothing to finish: the handshake is not done, and no bytes were accepted (rule: close-9).
    fn is_pointless(&self) -> bool {
        false
    }
    /// Gives up the handshake for which [`is_pointless`](Self::is_pointless) returned true.
    fn abandon(&mut self) {}
    /// Turns the cork on or off: while it is on, small writes are held back. Returns whether it was on before.
    fn set_cork(&mut self, _on: bool) -> bool {
        false
    }
    /// Whether this layer would accept this many bytes at once, as far as it knows. A layer that does not know
    /// returns false.
    fn has_space(&self, _bytes: usize) -> bool {
        false
    }
    /// Announces that the next write is the last one, and that the end of this layer follows it directly. Both may
    /// then leave in one packet. This is only a hint.
    fn expect_end(&mut self) {}
    /// The facts of the topmost TLS session.
    fn session_facts(&self) -> Option<Arc<SessionFacts>> {
        None
    }
    /// Fills `out` with keying material of the topmost TLS session.
    fn export(&self, _: &mut [u8], _: &[u8], _: Option<&[u8]>) -> Result<(), SessionError> {
        Err(SessionError::NotSecured)
    }
    /// Ready once the unsent bytes in this layer and in those beneath are at or below the low mark. A layer without a
    /// queue is always ready.
    fn poll_space(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
    /// Processes records that contain no data (alerts, KeyUpdates, tickets), until data or the end of the half can be
    /// read. A layer without records does nothing.
    fn poll_attend(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
    /// The handshake of this layer, if it is not done yet.
    fn handshaking(&mut self) -> Option<Starting<'_>> {
        None
    }
}

/// Gives the crate access to the topmost layer of a transport.
///
/// The trait is sealed: code outside this crate can neither name it nor make the [`Token`] that its methods take.
/// Without the token, the methods could be called on `dyn Transport`, as the methods of every supertrait can.
pub trait AsLayer: Send {
    /// The topmost layer.
    fn layer(&self, _: Token) -> &dyn Layer;
    /// The topmost layer.
    fn layer_mut(&mut self, _: Token) -> &mut dyn Layer;
    /// This transport as an object, whose reads and writes check whether bytes may pass at this time. The reads and
    /// writes of its layer do not check that.
    fn as_transport(&mut self, _: Token) -> &mut dyn Transport;

    /// This transport with its TLS methods, if it is a TLS or an upgradable connection.
    fn lend_tls(&self, _: Token) -> Option<&dyn TlsTransport> {
        None
    }

    /// The handshake, if it is not done and no task drives it.
    fn handshaking(&mut self, token: Token) -> Option<Starting<'_>> {
        self.layer_mut(token).handshaking()
    }

    /// This transport with its methods for changing between plaintext and TLS, if it has them.
    fn as_upgradable(&mut self, _: Token) -> Option<&mut dyn Upgradable> {
        None
    }
}

/// The methods of [`AsLayer`] for a transport that is a layer itself.
macro_rules! lends_itself {
    () => {
        fn layer(&self, _: Token) -> &dyn Layer {
            self
        }

        fn layer_mut(&mut self, _: Token) -> &mut dyn Layer {
            self
        }

        fn as_transport(&mut self, _: Token) -> &mut dyn Transport {
            self
        }
    };
}
pub(crate) use lends_itself;

/// Proof that a call comes from inside the crate.
#[derive(Debug, Clone, Copy)]
pub struct Token(());

/// The only value.
pub(crate) const TOKEN: Token = Token(());

/// The methods of a layer that can change between plaintext and TLS.
pub trait Upgradable: Send {
    /// Starts TLS. The handshake must be done by the deadline.
    fn starting(&mut self, how: StartTls, deadline: Option<Instant>) -> Starting<'_>;
    /// Ends TLS.
    fn stopping(&mut self) -> Stopping<'_>;
}

/// The largest number of bytes that [`Layer::read_available`] reads, so that a peer that keeps sending cannot prolong
/// the call.
const MAX_AVAILABLE: usize = 64 << 10;

/// Counts discarded bytes, up to a limit.
#[derive(Debug)]
pub struct Discard {
    /// The number of bytes that were discarded so far.
    pub bytes: u64,
    /// The number of bytes that may be discarded.
    pub limit: u64,
}

impl Discard {
    /// Whether more bytes were discarded than the limit allows. With a limit of 0, an end is accepted, but no data
    /// before it.
    pub fn is_full(&self) -> bool {
        self.bytes > self.limit
    }
}

impl<T: Transport + ?Sized> AsLayer for Box<T> {
    fn layer(&self, token: Token) -> &dyn Layer {
        (**self).layer(token)
    }

    fn layer_mut(&mut self, token: Token) -> &mut dyn Layer {
        (**self).layer_mut(token)
    }

    fn as_transport(&mut self, _: Token) -> &mut dyn Transport {
        self
    }

    fn handshaking(&mut self, token: Token) -> Option<Starting<'_>> {
        (**self).handshaking(token)
    }

    fn lend_tls(&self, token: Token) -> Option<&dyn TlsTransport> {
        (**self).lend_tls(token)
    }

    fn as_upgradable(&mut self, token: Token) -> Option<&mut dyn Upgradable> {
        (**self).as_upgradable(token)
    }
}

/// Takes one unit of the task's budget. Without this, a caller that repeats a call that is always ready would keep
/// other tasks from running (rule: life-6). Pending: the budget is used up, and the task is woken again after other
/// tasks have run.
pub(crate) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    std::task::ready!(poll_proceed(cx)).made_progress();
    Poll::Ready(())
}

/// Writes some of these bytes, of which there must be at least one. If the writer returns 0, that is an error, as in
/// `write_all`, because the caller would repeat the call forever (rule: life-6).
pub(crate) fn poll_write_some(
    transport: &mut (impl AsyncWrite + Unpin + ?Sized),
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match std::task::ready!(Pin::new(transport).poll_write(cx, bytes)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(written),
    }
}

/// Reads from the layer and discards the bytes, until the layer ends or the limit is reached.
pub(crate) fn poll_discard_reads<T: AsyncRead + Unpin + ?Sized>(
    layer: &mut T,
    cx: &mut Context<'_>,
    discarded: &mut Discard,
) -> Poll<()> {
    let mut scratch = [MaybeUninit::uninit(); 8 << 10];
    while !discarded.is_full() {
        let mut buf = ReadBuf::uninit(&mut scratch);
        match std::task::ready!(Pin::new(&mut *layer).poll_read(cx, &mut buf)) {
            Ok(()) if !buf.filled().is_empty() => discarded.bytes += buf.filled().len() as u64,
            Ok(()) | Err(_) => return Poll::Ready(()),
        }
    }
    Poll::Ready(())
}

/// Moves as many bytes from an inbox to `buf` as fit.
pub(crate) fn hand_over(inbox: &mut Inbox, buf: &mut ReadBuf<'_>) {
    let n = inbox.len().min(buf.remaining());
    buf.put_slice(&inbox.as_slice()[..n]);
    inbox.consume(n);
    inbox.release();
}

/// Reads once into an empty inbox, at most as many bytes as `room` allows. The inbox is taken out of the layer during
/// the read, because the read needs the rest of the layer.
pub(crate) fn poll_read_ahead<T>(
    half: &mut T,
    inbox_of: impl Fn(&mut T) -> &mut Inbox,
    room: usize,
    poll_read: impl FnOnce(&mut T, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
) -> Poll<io::Result<()>> {
    let mut inbox = std::mem::take(inbox_of(half));
    let mut buf = ReadBuf::new(&mut inbox.space_of(room)[..room]);
    let result = poll_read(half, &mut buf);
    let n = buf.filled().len();
    inbox.filled(n);
    inbox.release();
    *inbox_of(half) = inbox;
    result
}

/// Moves into the inbox what a read returns without waiting. An end is left for the next reader.
pub(crate) fn take_in(inbox: &mut Inbox, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    while inbox.len() < MAX_AVAILABLE {
        match read(inbox.space()) {
            Ok(0) => break,
            Ok(n) => inbox.filled(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                inbox.release();
                return Err(error);
            }
        }
    }
    inbox.release();
    Ok(())
}

/// The number of TLS sessions in this layer and the layers beneath (rule: upgrade-12).
pub(crate) fn tls_layers(layer: &dyn Layer) -> usize {
    let mut layers = Vec::new();
    layer.report_layers(&mut layers);
    layers.iter().filter(|layer| layer.kind == LayerKind::Tls).count()
}

/// The debug output of every transport: its addresses and the states of its halves.
pub(crate) fn debug(layer: &dyn Layer, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (send, recv) = layer.halves();
    f.debug_struct(name)
        .field("local_addr", &layer.control().local_addr())
        .field("peer_addr", &layer.control().peer_addr())
        .field("send", &send)
        .field("recv", &recv)
        .finish_non_exhaustive()
}
