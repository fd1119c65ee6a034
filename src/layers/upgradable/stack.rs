//! What an upgradable connection stands on: plaintext, or a TLS session on top of another layer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::control::Control;
use crate::core::facts::SessionFacts;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::report::FloorReport;
use crate::error::Reason;
use crate::layers::tls::TlsConnection;
use crate::transport::layer::{Discard, Floor, Upgradable};
use crate::transport::{Starting, Transport};

/// One or more floors; the one that counts is the topmost.
pub(crate) enum Layer<T: Transport> {
    Plain(T),
    Tls(Box<TlsConnection<Layer<T>>>),
}

/// Passes a call on to the topmost floor.
macro_rules! topmost {
    ($layer:expr, $floor:ident => $call:expr) => {
        match $layer {
            Layer::Plain($floor) => $call,
            Layer::Tls($floor) => $call,
        }
    };
}

impl<T: Transport> AsyncRead for Layer<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), floor => Pin::new(floor).poll_read(cx, buf))
    }
}

impl<T: Transport> AsyncBufRead for Layer<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        topmost!(self.get_mut(), floor => Pin::new(floor).poll_fill_buf(cx))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        topmost!(self.get_mut(), floor => Pin::new(floor).consume(n));
    }
}

impl<T: Transport> AsyncWrite for Layer<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        topmost!(self.get_mut(), floor => Pin::new(floor).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        topmost!(self.get_mut(), floor => Pin::new(floor).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        topmost!(self, floor => floor.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), floor => Pin::new(floor).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), floor => Pin::new(floor).poll_shutdown(cx))
    }
}

impl<T: Transport> Floor for Layer<T> {
    fn ground(&self) -> &Control {
        topmost!(self, floor => floor.ground())
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        topmost!(self, floor => floor.halves())
    }

    fn queued_bytes(&self) -> usize {
        topmost!(self, floor => floor.queued_bytes())
    }

    fn handle_abort(&mut self) {
        topmost!(self, floor => floor.handle_abort());
    }

    fn begin_close(&mut self) {
        topmost!(self, floor => floor.begin_close());
    }

    fn is_pointless(&self) -> bool {
        topmost!(self, floor => floor.is_pointless())
    }

    fn abandon(&mut self) {
        topmost!(self, floor => floor.abandon());
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        topmost!(self, floor => floor.poll_discard(cx, discarded))
    }

    fn release(&mut self, reason: &Reason) {
        topmost!(self, floor => floor.release(reason));
    }

    fn set_cork(&mut self, on: bool) -> bool {
        topmost!(self, floor => floor.set_cork(on))
    }

    fn take_unread(&mut self) -> Vec<u8> {
        topmost!(self, floor => floor.take_unread())
    }

    fn look(&mut self, cx: &mut Context<'_>) {
        topmost!(self, floor => floor.look(cx));
    }

    fn push_unread(&mut self, bytes: &[u8]) {
        topmost!(self, floor => floor.push_unread(bytes));
    }

    fn report_floors(&self, floors: &mut Vec<FloorReport>) {
        topmost!(self, floor => floor.report_floors(floors));
    }

    fn may_write_in_wake(&self) -> bool {
        topmost!(self, floor => floor.may_write_in_wake())
    }

    fn keeps_written(&self) -> bool {
        topmost!(self, floor => floor.keeps_written())
    }

    fn set_half_open(&mut self) {
        topmost!(self, floor => floor.set_half_open());
    }

    fn expect_end(&mut self) {
        topmost!(self, floor => floor.expect_end());
    }

    fn set_beneath(&mut self, beneath: bool) {
        topmost!(self, floor => floor.set_beneath(beneath));
    }

    fn session_facts(&self) -> Option<Arc<SessionFacts>> {
        topmost!(self, floor => floor.session_facts())
    }

    fn as_transport(&mut self) -> &mut dyn Transport {
        self
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        topmost!(self, floor => floor.poll_room(cx))
    }

    fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        topmost!(self, floor => floor.poll_attend(cx))
    }

    fn handshaking(&mut self) -> Option<Starting<'_>> {
        topmost!(self, floor => floor.handshaking())
    }

    fn as_upgradable(&mut self) -> Option<&mut dyn Upgradable> {
        topmost!(self, floor => floor.as_upgradable())
    }
}
