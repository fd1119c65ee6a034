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
use crate::error::Reason;
use crate::transport::{Starting, Stopping, TlsTransport, Transport};

/// The methods of a layer for the layer above it, and for the futures of [`Transport`]. TCP, streams and TLS implement it.
/// A type that wraps a layer lends that layer through [`AsLayer`].
///
/// Code outside this crate can neither name this trait nor call its methods.
pub trait Layer: Send {
    /// The handle that reaches the bottom.
    fn control(&self) -> &Control;
    /// Both halves of this layer.
    fn halves(&self) -> (SendHalf, RecvHalf);
    /// Bytes that were accepted and not handed to the kernel, including those in the layers beneath.
    fn queued_bytes(&self) -> usize;
    /// An abort has reached the bottom: drops everything on this side.
    fn handle_abort(&mut self);
    /// From now on no task reads: an end that comes is the answer to our close.
    fn begin_close(&mut self);
    /// Whether a close has nothing to finish: a handshake without accepted bytes (rule: close-9).
    fn is_pointless(&self) -> bool;
    /// Gives up the handshake for which [`is_pointless`](Self::is_pointless) returned true.
    fn abandon(&mut self);
    /// Reads and discards until the receive half of this layer, and of those beneath, has ended. Counts the bytes.
    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()>;
    /// Closes the socket. A half that had not ended reports this reason to the tasks that still use the transport.
    fn release(&mut self, reason: &Reason);
    /// Holds small writes back, or releases them. Returns whether they were held back before.
    fn set_cork(&mut self, on: bool) -> bool;
    /// Takes the bytes that were received and not read.
    fn take_unread(&mut self) -> Vec<u8>;
    /// Takes in the bytes that have been received by now, up to [`LOOK`], without waiting for more: those in the kernel, and
    /// those in records of the layers below (rule: upgrade-11).
    fn look(&mut self, cx: &mut Context<'_>);
    /// Adds bytes after those that were received and not read.
    fn push_unread(&mut self, bytes: &[u8]);
    /// Reports the state of each layer, this one first.
    fn report_layers(&self, layers: &mut Vec<LayerReport>);
    /// Whether a waker may write to this layer: the layer holds no lock while it wakes tasks.
    fn may_write_in_wake(&self) -> bool;
    /// Whether bytes that this layer has taken may wait here, or on a layer beneath, until a flush.
    fn keeps_written(&self) -> bool;
    /// Whether this layer would take this many bytes at once, as far as it knows. A layer that does not know says no.
    fn has_space(&self, bytes: usize) -> bool;
    /// The peer has ended its half of a layer above: from now on a write that stalls is idle (rule: half-10).
    fn set_half_open(&mut self);
    /// The next write is the last, and the end of this layer follows directly: both may leave in one packet. This is only a
    /// hint.
    fn expect_end(&mut self);
    /// Set while another layer sits on top. That layer detects truncation by its missing marker, so a drop of this one need
    /// not reset.
    fn set_beneath(&mut self, beneath: bool);
    /// The facts of the topmost TLS session.
    fn session_facts(&self) -> Option<Arc<SessionFacts>>;
    /// Ready once the bytes that wait to leave, on this layer and those beneath, are at or below the low mark. A layer
    /// without a queue always has space.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Handles records that hold no data (alerts, KeyUpdates, tickets) until data or the end of the half waits to be read.
    /// A layer that has only data does nothing.
    fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// The handshake that this layer has not made yet, if there is one.
    fn handshaking(&mut self) -> Option<Starting<'_>>;
}

/// How the crate reaches the layer of a transport: each transport lends its topmost layer.
///
/// The trait is sealed: code outside this crate can neither name it nor make the [`Token`] that its methods take. Without
/// the token, the methods could be called on `dyn Transport`, as the methods of every supertrait can.
pub trait AsLayer: Send {
    /// The topmost layer.
    fn layer(&self, _: Token) -> &dyn Layer;
    /// The topmost layer.
    fn layer_mut(&mut self, _: Token) -> &mut dyn Layer;
    /// This transport as an object, with its own reads and writes. They check whether bytes may pass; those of its layer do
    /// not.
    fn as_transport(&mut self, _: Token) -> &mut dyn Transport;

    /// This transport as one that has TLS, or can have it.
    fn lend_tls(&self, _: Token) -> Option<&dyn TlsTransport> {
        None
    }

    /// The handshake that is not done yet, if there is one and no task drives it.
    fn handshaking(&mut self, token: Token) -> Option<Starting<'_>> {
        self.layer_mut(token).handshaking()
    }

    /// This transport as one that can change between plaintext and TLS, if it can.
    fn as_upgradable(&mut self, _: Token) -> Option<&mut dyn Upgradable> {
        None
    }
}

/// Proof that a call comes from inside the crate.
#[derive(Debug, Clone, Copy)]
pub struct Token(());

/// The only value.
pub(crate) const TOKEN: Token = Token(());

/// The methods of a layer that can change between plaintext and TLS.
pub trait Upgradable: Send {
    /// Starts TLS; the handshake must be done by the deadline.
    fn starting(&mut self, how: StartTls, deadline: Option<Instant>) -> Starting<'_>;
    /// Ends TLS.
    fn stopping(&mut self) -> Stopping<'_>;
}

/// The most bytes that one look takes in, so that a peer that keeps sending cannot prolong it.
const LOOK: usize = 64 << 10;

/// How many bytes were discarded, and how many may be.
#[derive(Debug)]
pub struct Discard {
    /// How many bytes were discarded so far.
    pub bytes: u64,
    /// The bound.
    pub limit: u64,
}

impl Discard {
    /// Whether more bytes were discarded than the bound allows. A bound of 0 accepts an end, but no data before it.
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

/// Takes one unit of the task's budget. A caller that repeats a call that is ready at once would otherwise keep other tasks
/// from running (rule: life-6). Pending: the budget is used up, and the task is woken to continue after others.
pub(crate) fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    std::task::ready!(poll_proceed(cx)).made_progress();
    Poll::Ready(())
}

/// Writes some of these bytes; there must be at least one. A writer that returns 0 is an error, as in `write_all`, because the
/// caller would repeat the call without end (rule: life-6).
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

/// Reads from the layer and discards, until the layer ends or the bound is reached.
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

/// Moves bytes from an inbox to `buf`, as many as there is space for.
pub(crate) fn hand_over(inbox: &mut Inbox, buf: &mut ReadBuf<'_>) {
    let n = inbox.len().min(buf.remaining());
    buf.put_slice(&inbox.as_slice()[..n]);
    inbox.consume(n);
    inbox.release();
}

/// Reads ahead once into an empty inbox, at most as many bytes as `room` allows. The read borrows the inbox, and needs the
/// rest of the layer.
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

/// Takes in what a read returns without waiting. An end stays for the next reader.
pub(crate) fn take_in(inbox: &mut Inbox, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    while inbox.len() < LOOK {
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

/// The number of TLS sessions from this layer down (rule: upgrade-12).
pub(crate) fn tls_layers(layer: &dyn Layer) -> usize {
    let mut layers = Vec::new();
    layer.report_layers(&mut layers);
    layers.iter().filter(|layer| layer.kind == LayerKind::Tls).count()
}

/// The debug output of every transport: its addresses and the state of its halves.
pub(crate) fn debug(layer: &dyn Layer, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (send, recv) = layer.halves();
    f.debug_struct(name)
        .field("local_addr", &layer.control().local_addr())
        .field("peer_addr", &layer.control().peer_addr())
        .field("send", &send)
        .field("recv", &recv)
        .finish_non_exhaustive()
}
