//! What an upgradable connection stands on: plaintext, or a TLS session on top of another stack.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::control::Control;
use crate::core::facts::SessionFacts;
use crate::core::half::{RecvHalf, SendHalf};
use crate::core::report::LayerReport;
use crate::error::Reason;
use crate::layers::tls::TlsConnection;
use crate::transport::layer::{Discard, Layer, Upgradable};
use crate::transport::{Starting, Transport};

/// One or more layers; the one that counts is the topmost.
pub(crate) enum Stack<T: Transport> {
    Plain(T),
    Tls(Box<TlsConnection<Stack<T>>>),
}

/// Passes a call on to the topmost layer.
macro_rules! topmost {
    ($stack:expr, $layer:ident => $call:expr) => {
        match $stack {
            Stack::Plain($layer) => $call,
            Stack::Tls($layer) => $call,
        }
    };
}

impl<T: Transport> AsyncRead for Stack<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_read(cx, buf))
    }
}

impl<T: Transport> AsyncBufRead for Stack<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_fill_buf(cx))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        topmost!(self.get_mut(), layer => Pin::new(layer).consume(n));
    }
}

impl<T: Transport> AsyncWrite for Stack<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        topmost!(self, layer => layer.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_shutdown(cx))
    }
}

impl<T: Transport> Layer for Stack<T> {
    fn control_ref(&self) -> &Control {
        topmost!(self, layer => layer.control_ref())
    }

    fn halves(&self) -> (SendHalf, RecvHalf) {
        topmost!(self, layer => layer.halves())
    }

    fn queued_bytes(&self) -> usize {
        topmost!(self, layer => layer.queued_bytes())
    }

    fn handle_abort(&mut self) {
        topmost!(self, layer => layer.handle_abort());
    }

    fn begin_close(&mut self) {
        topmost!(self, layer => layer.begin_close());
    }

    fn is_pointless(&self) -> bool {
        topmost!(self, layer => layer.is_pointless())
    }

    fn abandon(&mut self) {
        topmost!(self, layer => layer.abandon());
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, discarded: &mut Discard) -> Poll<()> {
        topmost!(self, layer => layer.poll_discard(cx, discarded))
    }

    fn release(&mut self, reason: &Reason) {
        topmost!(self, layer => layer.release(reason));
    }

    fn set_cork(&mut self, on: bool) -> bool {
        topmost!(self, layer => layer.set_cork(on))
    }

    fn take_unread(&mut self) -> Vec<u8> {
        topmost!(self, layer => layer.take_unread())
    }

    fn look(&mut self, cx: &mut Context<'_>) {
        topmost!(self, layer => layer.look(cx));
    }

    fn push_unread(&mut self, bytes: &[u8]) {
        topmost!(self, layer => layer.push_unread(bytes));
    }

    fn report_layers(&self, layers: &mut Vec<LayerReport>) {
        topmost!(self, layer => layer.report_layers(layers));
    }

    fn may_write_in_wake(&self) -> bool {
        topmost!(self, layer => layer.may_write_in_wake())
    }

    fn keeps_written(&self) -> bool {
        topmost!(self, layer => layer.keeps_written())
    }

    fn has_space(&self, bytes: usize) -> bool {
        topmost!(self, layer => layer.has_space(bytes))
    }

    fn set_half_open(&mut self) {
        topmost!(self, layer => layer.set_half_open());
    }

    fn expect_end(&mut self) {
        topmost!(self, layer => layer.expect_end());
    }

    fn set_beneath(&mut self, beneath: bool) {
        topmost!(self, layer => layer.set_beneath(beneath));
    }

    fn session_facts(&self) -> Option<Arc<SessionFacts>> {
        topmost!(self, layer => layer.session_facts())
    }

    fn as_transport(&mut self) -> &mut dyn Transport {
        self
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        topmost!(self, layer => layer.poll_room(cx))
    }

    fn poll_attend(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        topmost!(self, layer => layer.poll_attend(cx))
    }

    fn handshaking(&mut self) -> Option<Starting<'_>> {
        topmost!(self, layer => layer.handshaking())
    }

    fn as_upgradable(&mut self) -> Option<&mut dyn Upgradable> {
        topmost!(self, layer => layer.as_upgradable())
    }
}
