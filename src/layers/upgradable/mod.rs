//! Connections that change from plaintext to TLS and back.

mod destroyed;
mod failure;
pub(crate) mod split;
mod stack;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

use crate::config::start_tls::{Settled, Side, StartTls};
use crate::config::{ClientTls, ServerTls};
use crate::conn::control::{Control, Traffic};
use crate::conn::options::{SocketOptions, TcpOptions};
use crate::conn::time::{after, until};
use crate::core::half::{RecvHalf, Refused, SendHalf};
use crate::core::upgrade::{Upgrade, Verdict, judge};
use crate::error::{Error, Phase, Reason, UpgradeError};
use crate::layers::tls::TlsConnection;
use crate::layers::upgradable::failure::{error_in, in_progress};
use crate::layers::upgradable::stack::Stack;
use crate::transport::layer::{AsLayer, Layer, TOKEN, Token, Upgradable, debug, poll_budget, tls_layers};
use crate::transport::tcp::{TcpTransport, options};
use crate::transport::{Starting, Stopping, TlsTransport, Transport, UpgradableTransport};

/// A connection that can change from plaintext to TLS and back, any number of times.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::{StartTls, TlsTransport, Transport, UpgradableConnection};
/// use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
///
/// let pki = bowline::testing::pki::Pki::new();
/// let (client, server) = bowline::testing::tcp_pair().await?;
/// let mut client = UpgradableConnection::new(client);
/// let mut server = UpgradableConnection::new(server);
/// let (server_tls, client_tls) = (pki.server_tls(), pki.client_tls());
///
/// let serving = async {
///     let mut command = String::new();
///     server.read_line(&mut command).await?;
///     server.write_all(b"220 go ahead\r\n").await?;
///     server.start_tls(StartTls::server(&server_tls)).await?;
///     server.write_all(b"welcome").await?;
///     Ok::<_, std::io::Error>(server.close().await)
/// };
/// let using = async {
///     client.write_all(b"STARTTLS\r\n").await?;
///     let mut answer = String::new();
///     client.read_line(&mut answer).await?;
///     client.start_tls(StartTls::client(&client_tls, "localhost")).await?;
///     assert!(client.is_secure());
///     let mut secret = String::new();
///     client.read_to_string(&mut secret).await?;
///     client.close().await;
///     Ok::<_, std::io::Error>(secret)
/// };
/// let (report, secret) = tokio::try_join!(serving, using)?;
/// assert!(report.is_clean());
/// assert_eq!(secret, "welcome");
/// # Ok(()) }
/// ```
#[doc(alias = "ITLSTransport")]
#[doc(alias = "STARTTLS")]
pub struct UpgradableConnection<T: Transport> {
    stack: Stack<T>,
    state: UpgradeState,
}

impl<T: Transport> UpgradableConnection<T> {
    /// A connection in plaintext.
    pub fn new(plain: T) -> Self {
        let state = UpgradeState { control: plain.control(), upgrade: Upgrade::Settled };
        Self { stack: Stack::Plain(plain), state }
    }

    pub(crate) fn into_parts(self) -> (Stack<T>, UpgradeState) {
        (self.stack, self.state)
    }

    pub(crate) fn from_parts(stack: Stack<T>, state: UpgradeState) -> Self {
        Self { stack, state }
    }

    /// Makes a connection that starts with a handshake as the server, and waits for the handshake. The connection can
    /// be downgraded and upgraded like any other.
    ///
    /// # Errors
    /// The same as for [`start_tls`](Self::start_tls).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping it ends the connection.
    pub async fn accept(plain: T, tls: &ServerTls) -> Result<Self, Error> {
        let mut connection = Self::new(plain);
        connection.start_tls(StartTls::server(tls).at_begin()).await?;
        Ok(connection)
    }

    /// Makes a connection that starts with a handshake as the client, and waits for the handshake.
    ///
    /// # Errors
    /// The same as for [`start_tls`](Self::start_tls).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping it ends the connection.
    pub async fn connect(plain: T, tls: &ClientTls, name: &str) -> Result<Self, Error> {
        let mut connection = Self::new(plain);
        connection.start_tls(StartTls::client(tls, name).at_begin()).await?;
        Ok(connection)
    }

    /// Starts TLS, also inside TLS (rule: upgrade-8). Bytes that were accepted before are sent first, unencrypted.
    /// Bytes that are written after this call are encrypted (rule: upgrade-1). Waits for the outcome, under
    /// [`Policy::handshake_timeout`](crate::Policy).
    ///
    /// # Errors
    ///
    /// [`UpgradeError`] gives the cause (rule: upgrade-5). If the state does not allow the call, nothing has changed.
    /// Leftover bytes that the policy refuses, and a failed handshake, end the connection (rules: upgrade-2,
    /// upgrade-6).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped upgrade cannot be resumed; only `close` and `abort` still work.
    #[doc(alias = "startTLS")]
    pub async fn start_tls(&mut self, how: StartTls) -> Result<(), Error> {
        let bound = self.state.control.policy().handshake_timeout;
        // This future is boxed, because a task is as large as its largest future for its whole life, and this one ends
        // soon.
        Box::pin(self.start_tls_by(how, after(bound))).await
    }

    pub(crate) async fn start_tls_by(&mut self, how: StartTls, deadline: Option<Instant>) -> Result<(), Error> {
        // rule: life-6. The call may fail at once, so it costs budget.
        consume_budget().await;
        self.may_start_tls()?;
        let how = how.settle(self.state.control.role())?;
        self.state.upgrade.start_tls().map_err(in_progress)?;
        self.upgrade(how, deadline).await.map_err(|error| self.fail(error))
    }

    /// Whether [`start_tls`](Self::start_tls) could start now. A service should check this before it sends the
    /// go-ahead, which it cannot take back.
    ///
    /// # Errors
    ///
    /// The [`UpgradeError`] that `start_tls` would return now (rule: upgrade-5), for example
    /// [`TooManyLayers`](UpgradeError::TooManyLayers) (rule: upgrade-12). Nothing changes.
    pub fn may_start_tls(&self) -> Result<(), Error> {
        self.check()?;
        let policy = self.state.control.policy();
        policy.check_layers(tls_layers(self.layer(TOKEN))).map_err(Error::from)
    }

    /// Checks whether a change between plaintext and TLS can start. The error is the cause why it cannot (rule:
    /// upgrade-5).
    fn check(&self) -> Result<(), Error> {
        let status = self.status();
        Err(match (&self.state.upgrade, status.reason, status.send, status.recv) {
            (Upgrade::Failed(_), ..) => return Err(self.state.refusal()),
            (_, Some(reason), ..) | (_, _, SendHalf::Broken(reason), _) | (_, _, _, RecvHalf::Broken(reason)) => {
                UpgradeError::Failed(reason)
            }
            (_, _, SendHalf::Aborted, _) | (_, _, _, RecvHalf::Aborted) => UpgradeError::Failed(Reason::Aborted),
            (Upgrade::Quiescing | Upgrade::Handshaking | Upgrade::Unwrapping, ..) => UpgradeError::InProgress,
            (_, _, SendHalf::Finishing | SendHalf::Finished, _) => UpgradeError::SendClosed,
            _ if self.state.control.is_close_asked() => UpgradeError::SendClosed,
            (_, _, _, RecvHalf::Ending(_) | RecvHalf::Ended(_)) => UpgradeError::PeerEnded,
            (Upgrade::Settled, None, SendHalf::Open, RecvHalf::Open) => return Ok(()),
        }
        .into())
    }

    async fn upgrade(&mut self, how: Settled, deadline: Option<Instant>) -> Result<(), Error> {
        let flushed = until(deadline, AsyncWriteExt::flush(&mut self.stack)).await;
        flushed.ok_or(Reason::TimedOut(Phase::Handshake))??;
        if how.must_look(self.state.control.traffic() != Traffic::default()) {
            // rule: upgrade-11: nothing is awaited between this check and the ClientHello.
            poll_fn(|cx| {
                self.layer_mut(TOKEN).read_available(cx);
                Poll::Ready(())
            })
            .await;
        }
        let mut stack = self.stack.take(&self.state.control)?;
        let unread = stack.layer_mut(TOKEN).take_unread();
        if let Verdict::Refuse { count } = judge(&unread, how.leftover) {
            self.stack = stack;
            return Err(UpgradeError::Leftover { count }.into());
        }
        stack.layer_mut(TOKEN).push_unread(&unread);
        self.state.upgrade.quiesced().map_err(in_progress)?;
        let session = match &how.side {
            Side::Client { tls, name } => TlsConnection::client_over(stack, tls, name),
            Side::Server { tls } => TlsConnection::server(stack, tls),
        };
        self.stack = Stack::Tls(Box::new(session?));
        let Stack::Tls(session) = &mut self.stack else { return Err(Reason::Aborted.into()) };
        session.handshake_by(deadline).await?;
        self.state.upgrade.secured().map_err(in_progress)
    }

    /// Ends the topmost TLS session, and continues on the layer beneath (rule: upgrade-9). Both sides exchange
    /// close_notify, and the socket stays open. The next reads return the unread bytes that the peer sent in TLS, and
    /// then the bytes after its close_notify. Waits for the peer's close_notify under
    /// [`Policy::close_timeout`](crate::Policy).
    ///
    /// # Errors
    ///
    /// [`UpgradeError::NotSecure`] in plaintext; nothing has changed. An end without close_notify is a truncation, and
    /// ends the connection. So does a peer that sends more than 1 MiB (or more than
    /// [`Policy::close_discard`](crate::Policy::close_discard), if that is less) before its close_notify:
    /// [`UpgradeError::NoEnd`].
    ///
    /// # Cancel safety
    ///
    /// If the future was dropped, call this method again: nothing is lost. Until then, only `close` and `abort` work.
    #[doc(alias = "CCC")]
    #[doc(alias = "unwrap")]
    pub async fn stop_tls(&mut self) -> Result<(), Error> {
        consume_budget().await;
        if !matches!(self.state.upgrade, Upgrade::Unwrapping) {
            self.check_secure()?;
        }
        self.state.upgrade.stop_tls().map_err(in_progress)?;
        let bound = after(self.state.control.policy().close_timeout);
        match until(bound, poll_fn(|cx| self.poll_unwrap(cx))).await {
            Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(self.fail(error_in(reason))),
            None => Err(self.fail(Reason::TimedOut(Phase::Close).into())),
        }
    }

    fn check_secure(&self) -> Result<(), Error> {
        let is_secure = matches!(self.stack, Stack::Tls(_));
        match self.check() {
            // The peer's close_notify may have come before this call. The socket stays open in this case too.
            Err(Error::Upgrade(UpgradeError::PeerEnded)) if is_secure => Ok(()),
            Ok(()) if !is_secure => Err(UpgradeError::NotSecure.into()),
            checked => checked,
        }
    }

    fn poll_unwrap(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        let Stack::Tls(session) = &mut self.stack else { return Poll::Ready(Err(Reason::Aborted)) };
        self.stack = ready!(session.poll_unwrap(cx))?;
        Poll::Ready(self.state.upgrade.unwrapped().map_err(|Refused| Reason::Aborted))
    }

    /// The change has failed, so the connection fails too: a partly secured connection must not be used.
    fn fail(&mut self, error: Error) -> Error {
        self.state.upgrade.fail(error.clone());
        if !self.state.control.is_close_asked() {
            let reason: Reason = error.clone().into();
            self.state.control.end(reason.clone());
            // A stream other than TCP sees its end only when it is polled, and no call of the application polls it from
            // now on. So it is released here.
            self.layer_mut(TOKEN).release(&reason);
        }
        match error {
            Error::Ended(reason) => UpgradeError::Failed(reason).into(),
            other => other,
        }
    }

    /// The stack, if bytes of the application may pass now.
    fn open(&mut self) -> io::Result<Pin<&mut Stack<T>>> {
        self.state.check_open()?;
        Ok(Pin::new(&mut self.stack))
    }

    /// As `open`, for a task: a refusal costs budget (rule: life-6).
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Stack<T>>>> {
        let open = self.open();
        if open.is_err() {
            ready!(poll_budget(cx));
        }
        Poll::Ready(open)
    }
}

/// Whether bytes may pass, and the error if they may not. Each split half has a copy.
#[derive(Clone)]
pub(crate) struct UpgradeState {
    pub(crate) control: Control,
    upgrade: Upgrade,
}

impl UpgradeState {
    /// An error while a change is in progress, and after a change has failed (rule: upgrade-5).
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.upgrade.is_settled() { Ok(()) } else { Err(self.refusal()) }
    }

    fn refusal(&self) -> Error {
        match &self.upgrade {
            Upgrade::Failed(failure) => (**failure).clone(),
            _ if self.control.is_aborted() => Reason::Aborted.into(),
            Upgrade::Settled | Upgrade::Quiescing | Upgrade::Handshaking | Upgrade::Unwrapping => {
                UpgradeError::InProgress.into()
            }
        }
    }
}

impl<T: Transport> UpgradableTransport for UpgradableConnection<T> {
    fn start_tls(&mut self, how: StartTls) -> Starting<'_> {
        Box::pin(self.start_tls(how))
    }

    fn may_start_tls(&self) -> Result<(), Error> {
        self.may_start_tls()
    }

    fn stop_tls(&mut self) -> Stopping<'_> {
        Box::pin(self.stop_tls())
    }
}

impl<T: UpgradableTransport + ?Sized> UpgradableTransport for Box<T> {
    fn start_tls(&mut self, how: StartTls) -> Starting<'_> {
        (**self).start_tls(how)
    }

    fn may_start_tls(&self) -> Result<(), Error> {
        (**self).may_start_tls()
    }

    fn stop_tls(&mut self) -> Stopping<'_> {
        (**self).stop_tls()
    }
}

impl<T: Transport> AsyncRead for UpgradableConnection<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }
}

impl<T: Transport> AsyncBufRead for UpgradableConnection<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        ready!(self.get_mut().poll_open(cx))?.poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        if let Ok(stack) = self.open() {
            stack.consume(n);
        }
    }
}

impl<T: Transport> AsyncWrite for UpgradableConnection<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.state.upgrade {
            Upgrade::Failed(failure) => poll_budget(cx).map(|()| Err((**failure).clone().into())),
            // A shutdown is allowed during an upgrade too: a close waits for the handshake, or ends it (rules: half-5,
            // close-9).
            Upgrade::Settled | Upgrade::Quiescing | Upgrade::Handshaking | Upgrade::Unwrapping => {
                Pin::new(&mut self.stack).poll_shutdown(cx)
            }
        }
    }
}

impl<T: Transport> fmt::Debug for UpgradableConnection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(self.layer(TOKEN), "UpgradableConnection", f)
    }
}

impl<T: Transport> AsLayer for UpgradableConnection<T> {
    fn layer(&self, token: Token) -> &dyn Layer {
        self.stack.layer(token)
    }

    fn layer_mut(&mut self, token: Token) -> &mut dyn Layer {
        self.stack.layer_mut(token)
    }

    fn as_transport(&mut self, _: Token) -> &mut dyn Transport {
        self
    }

    fn lend_tls(&self, _: Token) -> Option<&dyn TlsTransport> {
        Some(self)
    }

    /// The handshake of the transport that was passed in. An upgrade drives its own handshake.
    fn handshaking(&mut self, token: Token) -> Option<Starting<'_>> {
        if self.state.upgrade.is_settled() { self.stack.handshaking(token) } else { None }
    }

    fn as_upgradable(&mut self, _: Token) -> Option<&mut dyn Upgradable> {
        Some(self)
    }
}

impl<T: Transport> Transport for UpgradableConnection<T> {}

impl<T: TcpTransport> SocketOptions for UpgradableConnection<T> {
    fn socket(&self) -> TcpOptions<'_> {
        options(self)
    }
}

impl<T: TcpTransport> TcpTransport for UpgradableConnection<T> {}

impl<T: Transport> TlsTransport for UpgradableConnection<T> {}

impl<T: Transport> Upgradable for UpgradableConnection<T> {
    fn starting(&mut self, how: StartTls, deadline: Option<Instant>) -> Starting<'_> {
        Box::pin(self.start_tls_by(how, deadline))
    }

    fn stopping(&mut self) -> Stopping<'_> {
        Box::pin(self.stop_tls())
    }
}
