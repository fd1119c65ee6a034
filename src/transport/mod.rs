//! The traits of transports: what every transport does, and what the special ones add.
//!
//! | operation | when it is done |
//! |---|---|
//! | write | the transport holds the bytes |
//! | flush | the kernel has the bytes |
//! | [`close_write`](Transport::close_write) | the kernel has the bytes and our end marker |
//! | [`close`](Transport::close), with a clean report | all bytes have arrived, and the peer has ended in order too |
//!
//! [`TcpTransport`](tcp::TcpTransport) is implemented if TCP is at the bottom, [`TlsTransport`] by TLS and upgradable
//! connections, and [`UpgradableTransport`] by upgradable ones. All methods can be called on the concrete types and on
//! trait objects.

pub(crate) mod close;
mod exclusive;
pub(crate) mod futures;
pub(crate) mod layer;
pub(crate) mod lingering;
pub(crate) mod split;
pub(crate) mod tcp;

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};

use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::options::TcpOptions;
use crate::core::facts::SessionFacts;
use crate::core::half::{self, RecvHalf, SendHalf};
use crate::error::{Error, Reason};
use crate::transport::close::Close;
use crate::transport::futures::{CloseWrite, Corked, WriteSequence};
use crate::transport::layer::{AsLayer, TOKEN};

/// The state of the topmost layer of a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Our send half.
    pub send: SendHalf,
    /// Our receive half.
    pub recv: RecvHalf,
    /// The number of bytes that were accepted and have not reached the kernel (rule: write-8).
    pub queued: usize,
    /// The reason of the end; `None` while the connection has not ended.
    pub reason: Option<Reason>,
}

/// The operations of every transport: it sends bytes in order, closes in order without losing data, and aborts in a
/// way that the peer cannot mistake for an orderly close.
///
/// Read and write with tokio's `AsyncRead`, `AsyncBufRead` and `AsyncWrite`. `poll_shutdown` is
/// [`close_write`](Self::close_write). You need not flush: accepted bytes leave as soon as the socket takes them, even
/// if no task waits for that (rule: write-6).
///
/// If a transport is dropped without a close, the peer sees a truncation: RST on TCP, an end without close_notify on
/// TLS (rule: close-12).
///
/// # Sealed
///
/// Only the transports of this crate implement this trait. To use a stream of your own, wrap it in a
/// [`Stream`](crate::Stream). The methods by which layers call each other cannot be called from outside:
///
/// ```compile_fail,E0599
/// fn release(transport: &mut dyn bowline::Transport) {
///     transport.handle_abort();
/// }
/// ```
///
/// ```compile_fail,E0277
/// fn reach(transport: &dyn bowline::Transport) {
///     let _ = transport.layer(Default::default()); // it takes a token that cannot be made
/// }
/// ```
///
/// # Cancel safety
///
/// `read` and `write` of tokio's extension traits are cancel safe: a future that is dropped has read or written
/// nothing. `write_all`, `read_exact` and similar methods are not cancel safe, as with any stream.
#[doc(alias = "ITransport")]
#[doc(alias = "ITCPTransport")]
pub trait Transport: AsLayer + AsyncRead + AsyncBufRead + AsyncWrite + Send + Unpin + 'static {
    /// Our address. It is numeric, and also available after the end (rule: tcp-1).
    #[doc(alias = "getHost")]
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "host")]
    fn local_addr(&self) -> Address {
        self.layer(TOKEN).control().local_addr()
    }

    /// The peer's address. It is numeric, and also available after the end (rule: tcp-1).
    #[doc(alias = "getPeer")]
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "peer")]
    fn peer_addr(&self) -> Address {
        self.layer(TOKEN).control().peer_addr()
    }

    /// A handle for other tasks. It can abort the connection, and it knows the addresses and how the connection
    /// ended. It is cheap to clone.
    fn control(&self) -> Control {
        self.layer(TOKEN).control().clone()
    }

    /// The state of the connection.
    fn status(&self) -> Status {
        let (send, recv) = self.layer(TOKEN).halves();
        let reason = match self.layer(TOKEN).control().kept_report() {
            Some(report) => Some(report.reason.clone()),
            None if self.layer(TOKEN).control().is_aborted() => Some(Reason::Aborted),
            None => half::reason(&send, &recv).and_then(|reason| self.layer(TOKEN).control().judged_so_far(reason)),
        };
        Status { send, recv, queued: self.queued(), reason }
    }

    /// Ends our send half. Accepted bytes leave first, then this layer's marker (close_notify on TLS), then FIN.
    /// Reading continues as long as the peer sends (rules: half-1, half-2). A second call changes nothing (rule:
    /// half-3).
    ///
    /// Success means that the kernel has the bytes and the marker. If the connection was lost before that, this fails
    /// with the reason. If the peer accepts nothing for [`Policy::close_timeout`](crate::Policy::close_timeout), the
    /// connection is reset, and this fails with [`Reason::TimedOut`] in [`Phase::Close`](crate::Phase::Close) (rule:
    /// half-12).
    ///
    /// # Signals and the end of an input
    ///
    /// Call this only when you know that your own input is complete, because an input may also end because it was cut
    /// off. For example, Ctrl-C at `producer | program` sends SIGINT to both processes. The producer dies, and the
    /// program sees the end of its standard input together with the signal. If the program handles the end first, the
    /// peer takes an incomplete message for a complete one. A `select!` over the input and the signal polls its
    /// branches in random order, so:
    ///
    /// - put the signal first, with `biased;`,
    /// - when the input has ended, `yield_now` (a single-threaded runtime then sees signals that have arrived) or wait
    ///   a few milliseconds (another process may be signalled just before this one), and only then call this,
    /// - on the signal, [`abort`](Self::abort).
    ///
    /// The example `netcat` does this.
    ///
    /// # Cancel safety
    /// The first poll ends the send half: dropping the future after that changes nothing, and the marker leaves as
    /// soon as the socket accepts it.
    #[doc(alias = "loseWriteConnection")]
    #[doc(alias = "write_eof")]
    #[doc(alias = "CloseWrite")]
    #[doc(alias = "shutdown")]
    fn close_write(&mut self) -> CloseWrite<'_> {
        CloseWrite::new(self.as_transport(TOKEN))
    }

    /// Closes the connection in order. Accepted bytes leave, then the end markers. Then the close waits for the
    /// peer's end, discards input that still arrives, and closes the socket. It never fails: it returns a report
    /// (rules: close-1 to close-11). If the peer ended first, the close waits until the peer's system has received
    /// our last bytes, as far as our system reports that (rule: close-14).
    ///
    /// [`Policy::close_timeout`](crate::Policy::close_timeout) and
    /// [`Policy::close_discard`](crate::Policy::close_discard) limit the wait. A second call returns the same report.
    ///
    /// # Cancel safety
    ///
    /// You may drop the future and call this again. The limits then start again too.
    #[doc(alias = "loseConnection")]
    fn close(&mut self) -> Close<'_> {
        Close::new(self.as_transport(TOKEN), &[])
    }

    /// Writes these last bytes and closes, within the limits of [`close`](Self::close): a peer that does not read
    /// cannot prolong the wait (rule: close-3). If a limit is reached, the report shows that our marker did not
    /// leave.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: some of the bytes may have been accepted.
    #[doc(alias = "finish")]
    fn close_with<'a>(&'a mut self, last: &'a [u8]) -> Close<'a> {
        Close::new(self.as_transport(TOKEN), last)
    }

    /// Ends the connection now: queued bytes are discarded, and the peer gets RST. Returns at once, from any state
    /// (rules: abort-1 to abort-5).
    #[doc(alias = "abortConnection")]
    #[doc(alias = "SetLinger")]
    fn abort(&mut self) {
        self.layer(TOKEN).control().abort();
        if self.layer(TOKEN).control().is_aborted() {
            self.layer_mut(TOKEN).handle_abort();
        }
    }

    /// Writes all parts as one write: in order, and without copies if the kernel can gather them. If our send half
    /// has ended, no byte is written (rule: write-2).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: some of the parts may have been accepted.
    #[doc(alias = "writeSequence")]
    #[doc(alias = "writelines")]
    fn write_sequence<'a>(&'a mut self, parts: &'a [IoSlice<'a>]) -> WriteSequence<'a> {
        WriteSequence::new(self.as_transport(TOKEN), parts)
    }

    /// Holds small writes back until the guard is dropped, so that they are merged (rule: write-7). A flush sends
    /// them even while the guard exists.
    fn cork(&mut self) -> Corked<'_> {
        Corked::new(self.as_transport(TOKEN))
    }

    /// The options of the TCP socket at the bottom; `None` if the bottom is another stream. See
    /// [`TcpTransport`](crate::TcpTransport).
    fn as_tcp(&self) -> Option<TcpOptions<'_>> {
        let control = self.layer(TOKEN).control();
        control.is_tcp().then_some(TcpOptions(control))
    }

    /// This transport with its TLS methods, if it is a TLS or an upgradable connection.
    fn as_tls(&self) -> Option<&dyn TlsTransport> {
        self.lend_tls(TOKEN)
    }

    /// The number of bytes that were accepted and have not reached the kernel (rule: write-8).
    #[doc(alias = "get_write_buffer_size")]
    fn queued(&self) -> usize {
        self.layer(TOKEN).queued_bytes()
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {}

/// Adds the facts of the TLS session. TLS connections and upgradable connections implement this trait, on top of any
/// transport. If the type is not known, use [`Transport::as_tls`].
///
/// ```
/// use bowline::TlsTransport;
///
/// fn describe<T: TlsTransport>(connection: &T) -> String {
///     match connection.tls() {
///         Some(session) => format!("{} {}", session.version_name(), session.cipher_name()),
///         None => "plaintext".to_owned(),
///     }
/// }
/// ```
#[doc(alias = "ISSLTransport")]
#[doc(alias = "INegotiated")]
pub trait TlsTransport: Transport {
    /// The result of the topmost TLS session's handshake; `None` in plaintext, and until the handshake is done. It
    /// can be read after the end too (rule: secure-3).
    #[doc(alias = "getPeerCertificate")]
    #[doc(alias = "negotiatedProtocol")]
    #[doc(alias = "ConnectionState")]
    fn tls(&self) -> Option<Arc<SessionFacts>> {
        self.layer(TOKEN).session_facts()
    }

    /// Fills `out` with keying material of the topmost TLS session (RFC 5705; RFC 8446, section 7.5): bytes that only
    /// the two sides of this session can compute. The label says what they are for; IANA has a registry of labels, and
    /// private ones begin with `EXPERIMENTAL`. In TLS 1.2 an empty context gives other bytes than none; in TLS 1.3 it
    /// does not.
    ///
    /// It works from the end of the handshake on, until the connection is dropped. For the channel binding
    /// `tls-exporter`, use [`SessionFacts::channel_binding`].
    ///
    /// # Errors
    /// [`Error::Session`]: there is no session, it has no secret that may be exported ([`SessionError`]), or it has
    /// failed and rustls no longer exports anything. `out` has to have 1 to 8160 bytes, the label 1 to 249, and the
    /// context at most 65,535; a label that TLS itself uses is refused.
    ///
    /// [`SessionError`]: crate::SessionError
    #[doc(alias = "ExportKeyingMaterial")]
    #[doc(alias = "SSL_export_keying_material")]
    fn export_keying_material(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), Error> {
        Ok(self.layer(TOKEN).export(out, label, context)?)
    }

    /// Whether application data is encrypted.
    fn is_secure(&self) -> bool {
        self.layer(TOKEN).session_facts().is_some()
    }
}

impl<T: TlsTransport + ?Sized> TlsTransport for Box<T> {}

/// An upgrade or a handshake in progress, in the form that a trait object needs.
pub type Starting<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;
/// A downgrade in progress, in the form that a trait object needs.
pub type Stopping<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Adds the changes between plaintext and TLS.
///
/// ```
/// use bowline::{Error, ServerTls, StartTls, UpgradableTransport};
/// use tokio::io::AsyncWriteExt;
///
/// /// Answers a STARTTLS command on any upgradable transport.
/// async fn upgrade<T: UpgradableTransport + ?Sized>(connection: &mut T, tls: &ServerTls) -> Result<(), Error> {
///     connection.may_start_tls()?; // before the go-ahead, which cannot be taken back
///     connection.write_all(b"220 go ahead\r\n").await?;
///     connection.start_tls(StartTls::server(tls)).await
/// }
/// ```
#[doc(alias = "ITLSTransport")]
pub trait UpgradableTransport: TlsTransport {
    /// Starts TLS, also inside TLS, and waits for the outcome (rules: upgrade-1 to upgrade-8).
    ///
    /// Its errors, and what happens if the future is dropped, are those of
    /// [`UpgradableConnection::start_tls`](crate::UpgradableConnection::start_tls).
    #[doc(alias = "startTLS")]
    #[doc(alias = "STARTTLS")]
    fn start_tls(&mut self, how: StartTls) -> Starting<'_>;

    /// Whether `start_tls` could start now. A service should check this before it sends the go-ahead, which it cannot
    /// take back.
    ///
    /// # Errors
    ///
    /// The [`UpgradeError`](crate::UpgradeError) that `start_tls` would return now (rule: upgrade-5), for example
    /// [`TooManyLayers`](crate::UpgradeError::TooManyLayers) (rule: upgrade-12). Nothing changes.
    fn may_start_tls(&self) -> Result<(), Error>;

    /// Ends the topmost TLS session, and continues on the layer beneath (rule: upgrade-9).
    ///
    /// Its errors, and what happens if the future is dropped, are those of
    /// [`UpgradableConnection::stop_tls`](crate::UpgradableConnection::stop_tls).
    #[doc(alias = "CCC")]
    #[doc(alias = "unwrap")]
    fn stop_tls(&mut self) -> Stopping<'_>;
}
