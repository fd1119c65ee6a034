//! The machinery beneath the ladder: what one layer offers to the layer above it, and to the futures of `Transport`.

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
use crate::transport::{Starting, Stopping, Transport};

/// The machinery that one layer offers to the layer above and to the futures of `Transport`. Not for use by applications, and not for
/// implementing: wrap a stream of your own in [`Stream`](crate::Stream) instead.
///
/// No method has a default, so that a layer that wraps another one cannot forget to pass a call on.
#[doc(hidden)]
pub trait Layer {
    /// The handle that reaches the bottom.
    fn control_ref(&self) -> &Control;
    /// Both halves of this layer.
    fn halves(&self) -> (SendHalf, RecvHalf);
    /// Bytes accepted and not handed to the kernel, those of the layers beneath too.
    fn queued_bytes(&self) -> usize;
    /// An abort has reached the bottom: let go of everything on this side.
    fn handle_abort(&mut self);
    /// From now on nobody reads: the end that is awaited is the answer to our close.
    fn begin_close(&mut self);
    /// Whether closing has nothing to finish: a handshake with nothing accepted (rule: close-9).
    fn is_pointless(&self) -> bool;
    /// Gives up the handshake that [`is_pointless`](Self::is_pointless) tells of.
    fn abandon(&mut self);
    /// Reads and throws away until the receive half of this layer, and of those beneath, has ended. Counts the bytes.
    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()>;
    /// The socket goes. Whoever still uses the transport is told this reason, where a half had not ended.
    fn release(&mut self, reason: &Reason);
    /// Holds small writes back, or lets them go. Says whether they were held back before.
    fn set_cork(&mut self, on: bool) -> bool;
    /// Takes the bytes that were received and not read.
    fn take_unread(&mut self) -> Vec<u8>;
    /// Takes in the bytes that have been received by now, up to [`LOOK`], without waiting for more: those in the kernel, and
    /// those in records of the layers below (rule: upgrade-11).
    fn look(&mut self, cx: &mut Context<'_>);
    /// Puts bytes behind those that were received and not read.
    fn push_unread(&mut self, bytes: &[u8]);
    /// Says how each layer stands, this one first.
    fn report_layers(&self, layers: &mut Vec<LayerReport>);
    /// Whether a write may be made from within a waker: nothing of this layer is locked while it wakes somebody.
    fn may_write_in_wake(&self) -> bool;
    /// Whether bytes that this layer has taken may wait here, or on a layer beneath, until a flush.
    fn keeps_written(&self) -> bool;
    /// Whether this layer would take this many bytes at once, as far as it knows. A layer that does not know says no.
    fn has_space(&self, bytes: usize) -> bool;
    /// The peer has ended its half above: from now on a write that stalls is idle (rule: half-10).
    fn set_half_open(&mut self);
    /// What is written from now on is the last, and the end of this layer follows right behind it: both may leave as one.
    /// No more than a hint.
    fn expect_end(&mut self);
    /// A layer stands on this one, or does no more: with one, an end without markers is told by the missing marker
    /// above, so that a drop need not reset.
    fn set_beneath(&mut self, beneath: bool);
    /// The facts of the topmost TLS session.
    fn session_facts(&self) -> Option<Arc<SessionFacts>>;
    /// This layer as the object that those futures work on.
    fn as_transport(&mut self) -> &mut dyn Transport;
    /// Ready once no more than the low mark waits to leave, on this layer and those beneath. A layer that queues nothing
    /// has room always.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Attends to what is not data (alerts, KeyUpdates, tickets) until data or the end of the half waits to be read. A
    /// layer that has only data leaves it where it is.
    fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// The handshake that this layer has yet to make, where it has.
    fn handshaking(&mut self) -> Option<Starting<'_>>;
    /// This layer as one that can change between plaintext and TLS, if it can.
    fn as_upgradable(&mut self) -> Option<&mut dyn Upgradable>;
}

/// The methods of a layer that can change between plaintext and TLS.
#[doc(hidden)]
pub trait Upgradable: Send {
    /// TLS begins, its handshake to be done by then.
    fn starting(&mut self, how: StartTls, deadline: Option<Instant>) -> Starting<'_>;
    /// TLS ends.
    fn stopping(&mut self) -> Stopping<'_>;
}

/// The most bytes that one look takes in, so that a peer that keeps sending cannot prolong it.
const LOOK: usize = 64 << 10;

/// How much was thrown away, and how much may be.
#[doc(hidden)]
#[derive(Debug)]
pub struct Discard {
    /// Bytes thrown away so far.
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

impl<F: Transport + ?Sized> Layer for Box<F> {
    fn control_ref(&self) -> &Control {
        (**self).control_ref()
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        (**self).halves()
    }

    fn queued_bytes(&self) -> usize {
        (**self).queued_bytes()
    }

    fn handle_abort(&mut self) {
        (**self).handle_abort();
    }

    fn begin_close(&mut self) {
        (**self).begin_close();
    }

    fn is_pointless(&self) -> bool {
        (**self).is_pointless()
    }

    fn abandon(&mut self) {
        (**self).abandon();
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        (**self).poll_discard(cx, discarded)
    }

    fn release(&mut self, reason: &Reason) {
        (**self).release(reason);
    }

    fn set_cork(&mut self, on: bool) -> bool {
        (**self).set_cork(on)
    }

    fn take_unread(&mut self) -> Vec<u8> {
        (**self).take_unread()
    }

    fn look(&mut self, cx: &mut Context<'_>) {
        (**self).look(cx);
    }

    fn push_unread(&mut self, bytes: &[u8]) {
        (**self).push_unread(bytes);
    }

    fn report_layers(&self, layers: &mut Vec<LayerReport>) {
        (**self).report_layers(layers);
    }

    fn may_write_in_wake(&self) -> bool {
        (**self).may_write_in_wake()
    }

    fn keeps_written(&self) -> bool {
        (**self).keeps_written()
    }

    fn has_space(&self, bytes: usize) -> bool {
        (**self).has_space(bytes)
    }

    fn set_half_open(&mut self) {
        (**self).set_half_open();
    }

    fn expect_end(&mut self) {
        (**self).expect_end();
    }

    fn set_beneath(&mut self, beneath: bool) {
        (**self).set_beneath(beneath);
    }

    fn session_facts(&self) -> Option<Arc<SessionFacts>> {
        (**self).session_facts()
    }

    fn as_transport(&mut self) -> &mut dyn Transport {
        (**self).as_transport()
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_room(cx)
    }

    fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_attend(cx)
    }

    fn handshaking(&mut self) -> Option<Starting<'_>> {
        (**self).handshaking()
    }

    fn as_upgradable(&mut self) -> Option<&mut dyn Upgradable> {
        (**self).as_upgradable()
    }
}

/// Costs the task one unit of its budget. A caller can repeat a call that is ready at once, and would keep other tasks from
/// running (rule: life-6). Pending: the budget is used up, and the task is woken to continue after others.
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

/// Reads and throws away what a layer's own read gives, until it ends or the bound is reached.
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

/// Hands over what waits in an inbox, as much as there is room for.
pub(crate) fn hand_over(inbox: &mut Inbox, buf: &mut ReadBuf<'_>) {
    let n = inbox.len().min(buf.remaining());
    buf.put_slice(&inbox.as_slice()[..n]);
    inbox.consume(n);
    inbox.release();
}

/// Reads ahead into an empty inbox what one read of the layer gives. The inbox is lent to the read, which needs the rest.
pub(crate) fn poll_read_ahead<T>(
    half: &mut T,
    inbox_of: impl Fn(&mut T) -> &mut Inbox,
    poll_read: impl FnOnce(&mut T, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
) -> Poll<io::Result<()>> {
    let mut inbox = std::mem::take(inbox_of(half));
    let mut buf = ReadBuf::new(inbox.space());
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

/// How every transport shows itself: its ends and its halves.
pub(crate) fn debug(layer: &dyn Layer, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (send, recv) = layer.halves();
    f.debug_struct(name)
        .field("local_addr", &layer.control_ref().local_addr())
        .field("peer_addr", &layer.control_ref().peer_addr())
        .field("send", &send)
        .field("recv", &recv)
        .finish_non_exhaustive()
}
