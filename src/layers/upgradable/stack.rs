//! The stack of an upgradable connection: plaintext, or a TLS session on top of another stack.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::control::Control;
use crate::error::{Error, Reason};
use crate::layers::tls::TlsConnection;
use crate::layers::upgradable::UpgradableConnection;
use crate::layers::upgradable::destroyed::Destroyed;
use crate::transport::layer::{AsLayer, Layer, Token, Upgradable};
use crate::transport::{Starting, Transport};

/// One or more layers. The topmost one transfers the application's bytes.
pub(crate) enum Stack<T: Transport> {
    Plain(T),
    Tls(Box<TlsConnection<Stack<T>>>),
    /// The stack was taken out: during a step that does not wait, or permanently because a change failed.
    Destroyed(Destroyed),
}

impl<T: Transport> Stack<T> {
    /// Takes the stack out.
    pub(crate) fn take(&mut self, control: &Control) -> Result<Self, Reason> {
        match std::mem::replace(self, Self::Destroyed(Destroyed(control.clone()))) {
            Self::Destroyed(_) => Err(Reason::Aborted),
            stack => Ok(stack),
        }
    }
}

impl<T: Transport> UpgradableConnection<T> {
    /// The transport at the bottom, while no TLS session is on top of it.
    pub(crate) fn plain_mut(&mut self) -> Option<&mut T> {
        match &mut self.stack {
            Stack::Plain(plain) => Some(plain),
            Stack::Tls(_) | Stack::Destroyed(_) => None,
        }
    }
}

/// Forwards a call to the topmost transport.
macro_rules! topmost {
    ($stack:expr, $layer:ident => $call:expr, destroyed => $destroyed:expr) => {
        match $stack {
            Stack::Plain($layer) => $call,
            Stack::Tls($layer) => $call,
            Stack::Destroyed(_) => $destroyed,
        }
    };
}

fn aborted() -> io::Error {
    Error::Ended(Reason::Aborted).into()
}

impl<T: Transport> AsyncRead for Stack<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_read(cx, buf), destroyed => Poll::Ready(Err(aborted())))
    }
}

impl<T: Transport> AsyncBufRead for Stack<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_fill_buf(cx), destroyed => Poll::Ready(Err(aborted())))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        topmost!(self.get_mut(), layer => Pin::new(layer).consume(n), destroyed => ());
    }
}

impl<T: Transport> AsyncWrite for Stack<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_write(cx, buf), destroyed => Poll::Ready(Err(aborted())))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_write_vectored(cx, parts), destroyed => Poll::Ready(Err(aborted())))
    }

    fn is_write_vectored(&self) -> bool {
        topmost!(self, layer => layer.is_write_vectored(), destroyed => true)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_flush(cx), destroyed => Poll::Ready(Err(aborted())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(self.get_mut(), layer => Pin::new(layer).poll_shutdown(cx), destroyed => Poll::Ready(Err(aborted())))
    }
}

impl<T: Transport> AsLayer for Stack<T> {
    fn layer(&self, token: Token) -> &dyn Layer {
        match self {
            Self::Plain(layer) => layer.layer(token),
            Self::Tls(layer) => &**layer,
            Self::Destroyed(destroyed) => destroyed,
        }
    }

    fn layer_mut(&mut self, token: Token) -> &mut dyn Layer {
        match self {
            Self::Plain(layer) => layer.layer_mut(token),
            Self::Tls(layer) => &mut **layer,
            Self::Destroyed(destroyed) => destroyed,
        }
    }

    fn as_transport(&mut self, _: Token) -> &mut dyn Transport {
        self
    }

    fn handshaking(&mut self, token: Token) -> Option<Starting<'_>> {
        match self {
            // The transport that was passed in may itself be an upgradable connection, which drives its own handshake.
            Self::Plain(layer) => layer.handshaking(token),
            Self::Tls(layer) => layer.handshaking(token),
            Self::Destroyed(_) => None,
        }
    }

    fn as_upgradable(&mut self, token: Token) -> Option<&mut dyn Upgradable> {
        match self {
            Self::Plain(layer) => layer.as_upgradable(token),
            Self::Tls(layer) => layer.as_upgradable(token),
            Self::Destroyed(_) => None,
        }
    }
}

impl<T: Transport> Transport for Stack<T> {}
