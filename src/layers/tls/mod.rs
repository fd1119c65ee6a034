//! The TLS layer: a session on top of any other layer.

#[cfg(feature = "tokio-rustls")]
mod compat;
mod layer;
mod pump;
mod read;
mod split;
mod write;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

pub use self::read::TlsReadHalf;
pub use self::write::TlsWriteHalf;
use crate::config::{ClientTls, ServerTls};
use crate::conn::control::{Closing, Traffic, Watcher};
use crate::conn::time::{FAREWELL, after, until};
use crate::core::half::SendHalf;
use crate::core::report::CloseReport;
use crate::core::session::Session;
use crate::core::upgrade::{Verdict, judge};
use crate::error::{Error, Reason, UpgradeError};
use crate::layers::tls::pump::{LayerEnd, SharedPump, Want};
use crate::policy::Leftover;
use crate::transport::Transport;
use crate::transport::close::Close;
use crate::transport::layer::{AsLayer, Layer, TOKEN, debug, poll_budget};

/// A TLS connection on top of any layer: TCP, TLS, a Unix socket, an in-memory pipe.
///
/// [`connect`](Self::connect) and [`accept`](Self::accept) return a connection after its handshake, with the peer
/// verified (rule: secure-1). [`client`](Self::client) and [`server`](Self::server) return a connection before its
/// handshake. Bytes that the application writes before the handshake is done are kept in order, up to the high mark,
/// and are sent encrypted (rule: write-3).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{TlsConnection, TlsTransport, Transport};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let pki = bowline::testing::pki::Pki::new();
/// let (client, server) = bowline::testing::tcp_pair().await?;
/// let (server_tls, client_tls) = (pki.server_tls(), pki.client_tls());
/// let (server, client) = tokio::join!(
///     TlsConnection::accept(server, &server_tls),
///     TlsConnection::connect(client, &client_tls, "localhost"),
/// );
/// let (mut server, mut client) = (server?, client?);
/// assert_eq!(client.tls().unwrap().version_name(), "TLSv1.3");
///
/// client.write_all(b"question").await?;
/// client.close_write().await?; // close_notify, then FIN; reading continues
/// let mut question = Vec::new();
/// server.read_to_end(&mut question).await?;
/// server.write_all(b"answer").await?;
/// let (ours, theirs) = tokio::join!(server.close(), client.close());
/// assert!(ours.is_clean() && theirs.is_clean());
/// # Ok(()) }
/// ```
#[doc(alias = "ISSLTransport")]
#[doc(alias = "TlsStream")]
#[doc(alias = "SSLObject")]
pub struct TlsConnection<T> {
    read: TlsReadHalf<T>,
    write: TlsWriteHalf<T>,
}

impl<T: Transport> TlsConnection<T> {
    /// Connects as a client and waits for the handshake, under [`Policy::handshake_timeout`](crate::Policy). The
    /// certificate is checked against `name`, a DNS name or an IP address (rule: secure-8).
    ///
    /// # Errors
    ///
    /// Those of [`client`](Self::client) and of [`handshake`](Self::handshake). If the handshake fails, the peer gets
    /// an alert, and the layer is closed (rule: secure-4).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping it ends the connection.
    #[doc(alias = "connectSSL")]
    #[doc(alias = "wrap_socket")]
    pub fn connect(layer: T, tls: &ClientTls, name: &str) -> impl Future<Output = Result<Self, Error>> + use<T> {
        Self::handshaken(Self::client(layer, tls, name))
    }

    /// Accepts as a server and waits for the handshake, under [`Policy::handshake_timeout`](crate::Policy).
    ///
    /// # Errors
    ///
    /// Those of [`server`](Self::server) and of [`handshake`](Self::handshake). If the handshake fails, the peer gets
    /// an alert, and the layer is closed (rule: secure-4).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping it ends the connection.
    #[doc(alias = "listenSSL")]
    #[doc(alias = "wrap_socket")]
    pub fn accept(layer: T, tls: &ServerTls) -> impl Future<Output = Result<Self, Error>> + use<T> {
        Self::handshaken(Self::server(layer, tls))
    }

    /// Waits for the handshake. A task keeps the memory of its largest future until it ends. So the connection is moved
    /// into this future only once; an `async fn` would hold it twice, as the argument and as the variable.
    fn handshaken(begun: Result<Self, Error>) -> impl Future<Output = Result<Self, Error>> + use<T> {
        let mut begun = begun;
        async move {
            if let Ok(connection) = &mut begun {
                connection.handshake().await?;
            }
            begun
        }
    }

    /// A client before its handshake. [`handshake`](Self::handshake) drives the handshake, and so do reading, flushing
    /// and closing.
    ///
    /// # Errors
    ///
    /// The error of an invalid name. [`UpgradeError::Leftover`](crate::UpgradeError::Leftover) if plaintext was
    /// exchanged on the connection, and bytes are unread that the peer sent before TLS started (rules: upgrade-2,
    /// upgrade-11).
    pub fn client(mut layer: T, tls: &ClientTls, name: &str) -> Result<Self, Error> {
        refuse_leftover(&mut layer)?;
        Self::client_over(layer, tls, name)
    }

    /// A client on a layer whose leftover bytes were already checked.
    pub(crate) fn client_over(layer: T, tls: &ClientTls, name: &str) -> Result<Self, Error> {
        let name = crate::config::server_name(name)?;
        let session = tls.new_session(name, layer.layer(TOKEN).control().policy().watermarks)?;
        Ok(Self::over(layer, session))
    }

    /// A server before its handshake. [`handshake`](Self::handshake) drives the handshake, and so do reading, flushing
    /// and closing.
    ///
    /// # Errors
    /// [`Error::Config`] if rustls refuses the configuration.
    pub fn server(layer: T, tls: &ServerTls) -> Result<Self, Error> {
        let session = tls.new_session(layer.layer(TOKEN).control().policy().watermarks)?;
        Ok(Self::over(layer, session))
    }

    /// Puts a session on a layer. Bytes that the layer had read ahead now belong to the session.
    pub(crate) fn over(mut layer: T, mut session: Session) -> Self {
        layer.layer_mut(TOKEN).set_beneath(true);
        layer.layer_mut(TOKEN).set_cork(false);
        let leftover = layer.layer_mut(TOKEN).take_unread();
        let control = layer.layer(TOKEN).control().clone();
        control.hide_received(leftover.len());
        session.handle_leftover(&leftover);
        match session.facts() {
            Some(facts) => control.note_secured(facts),
            None => control.note_handshake(),
        }
        let shared = SharedPump::new(session, layer, Self::close_in_order);
        let watcher: Weak<dyn Watcher> = Arc::downgrade(&(Arc::clone(&shared) as Arc<dyn Watcher>));
        control.watch(watcher);
        let read = TlsReadHalf::new(Arc::clone(&shared), control.clone());
        let write = TlsWriteHalf::new(shared, control);
        Self { read, write }
    }

    /// Carries out a [`Control::close`]. It uses a second connection on the session, whose halves other tasks may hold.
    fn close_in_order(shared: Arc<SharedPump<T>>) -> Closing {
        let control = shared.control().clone();
        let read = TlsReadHalf::to_close(Arc::clone(&shared), control.clone());
        let mut connection = Self { read, write: TlsWriteHalf::to_close(shared, control) };
        Box::pin(async move { Close::by_handle(&mut connection).await })
    }

    /// Waits for the end of the handshake, under [`Policy::handshake_timeout`](crate::Policy). If the handshake fails,
    /// the peer gets the right alert, the layer is then closed in order (rule: secure-4), and the error contains the
    /// reason.
    ///
    /// # Errors
    /// [`Error::Ended`] with the reason: [`Reason::Tls`], the end of the layer below, or the time limit.
    ///
    /// # Cancel safety
    /// Cancel safe: a second call continues the handshake, and its deadline starts again.
    pub async fn handshake(&mut self) -> Result<(), Error> {
        let bound = self.layer(TOKEN).control().policy().handshake_timeout;
        self.handshake_by(after(bound)).await
    }

    /// Does the handshake, with a deadline that may count from an earlier time (rule: secure-5).
    pub(crate) async fn handshake_by(&mut self, deadline: Option<Instant>) -> Result<(), Error> {
        self.read.set_deadline(deadline);
        let outcome = poll_fn(|cx| {
            let outcome = ready!(self.poll_handshake(cx));
            ready!(poll_budget(cx));
            Poll::Ready(outcome)
        });
        let Err(reason) = outcome.await else { return Ok(()) };
        if matches!(reason, Reason::Closed) {
            // rule: close-16: `Control::close` was called. It ends the session, and reports how.
            return Err(reason.into());
        }
        self.layer(TOKEN).control().note_handshake_failed(&reason);
        // The reason is recorded before the close below, whose own reason would otherwise hide the failed handshake.
        self.layer(TOKEN).control().note_reason(&reason);
        if !matches!(reason, Reason::TimedOut(_) | Reason::Aborted) {
            // This future is boxed, because a failure is rare: a task that waits for a handshake needs no space for it.
            Box::pin(self.take_leave(deadline)).await;
        }
        self.release(&reason);
        self.layer(TOKEN).control().set_report(CloseReport::of(reason.clone()));
        Err(reason.into())
    }

    /// After a failed handshake: sends the alert, then FIN, and reads for a short time what the peer still sends.
    /// Without this, RST could overtake the alert (rule: secure-4).
    async fn take_leave(&mut self, deadline: Option<Instant>) {
        let _ =
            until(deadline.or_else(|| after(self.layer(TOKEN).control().policy().close_timeout)), self.close_write())
                .await;
        let moment = after(Some(FAREWELL));
        let _ = until(deadline.min(moment).or(moment), self.close()).await;
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        self.read.poll_handshake(cx)
    }

    /// Drives the handshake if it is not done, because flushing and closing wait for it (rules: half-5, close-9).
    fn drive_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_handshake(cx).map_err(io::Error::from)
    }

    /// Exchanges close_notify on this layer alone, and returns the layer below. The unread bytes that the peer sent in
    /// TLS become unread bytes of that layer, followed by the bytes that the peer sent after its close_notify (rule:
    /// upgrade-9).
    pub(crate) fn poll_unwrap(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Reason>> {
        self.write.shared().with(|pump| {
            pump.layer_end = LayerEnd::Stays;
            pump.session.close_write();
        });
        ready!(self.read.poll_read_to_end(cx))?;
        let transmitted = self.write.shared().with(|pump| {
            if pump.transmit().is_pending() {
                pump.park_writer(Want::Drained, cx);
                return Poll::Pending;
            }
            if let SendHalf::Broken(reason) = pump.session.send() {
                return Poll::Ready(Err(reason.clone()));
            }
            Poll::Ready(Ok(()))
        });
        ready!(transmitted)?;
        let unread = self.read.take_unread();
        self.write.shared().with(|pump| {
            let leftover = pump.session.take_leftover();
            let Some(mut layer) = pump.layer.take() else { return Poll::Ready(Err(Reason::Aborted)) };
            layer.layer_mut(TOKEN).set_beneath(false);
            layer.layer_mut(TOKEN).push_unread(&unread);
            layer.layer_mut(TOKEN).push_unread(&leftover);
            layer.layer(TOKEN).control().show_received(leftover.len());
            Poll::Ready(Ok(layer))
        })
    }
}

/// Checks for leftover bytes. If plaintext was exchanged on the layer, the bytes that it has received so far are
/// leftover.
fn refuse_leftover(layer: &mut impl Transport) -> Result<(), Error> {
    if layer.layer(TOKEN).control().traffic() == Traffic::default() || layer.handshaking(TOKEN).is_some() {
        return Ok(());
    }
    layer.layer_mut(TOKEN).read_available(&mut Context::from_waker(Waker::noop()));
    match judge(&layer.layer_mut(TOKEN).take_unread(), Leftover::Refuse) {
        Verdict::Admit => Ok(()),
        Verdict::Refuse { count } => Err(UpgradeError::Leftover { count }.into()),
    }
}

impl<T: Transport> AsyncRead for TlsConnection<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl<T: Transport> AsyncBufRead for TlsConnection<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().read).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        Pin::new(&mut self.read).consume(n);
    }
}

impl<T: Transport> AsyncWrite for TlsConnection<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.write).poll_write_vectored(cx, parts);
        if written.is_ready() {
            return written;
        }
        // If the write waits for the handshake, this call has to drive it, because no other task does.
        ready!(self.drive_handshake(cx))?;
        Pin::new(&mut self.write).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drive_handshake(cx))?;
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write.shared().with(|pump| pump.session.close_write());
        // A failed handshake does not end this call, because its alert has to be sent.
        let handshake = ready!(self.drive_handshake(cx));
        ready!(Pin::new(&mut self.write).poll_shutdown(cx))?;
        Poll::Ready(handshake)
    }
}

impl<T: Transport> fmt::Debug for TlsConnection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(self, "TlsConnection", f)
    }
}
