//! The traits of transports: what every transport does, and what the special ones add.
//!
//! | asked for | done means |
//! |---|---|
//! | write | we hold the bytes |
//! | flush | the kernel holds them |
//! | [`close_write`](Transport::close_write) | the kernel also holds our marker, after the bytes |
//! | [`close`](Transport::close), reported clean | all bytes have arrived, and the peer has ended in order too |
//!
//! [`TcpTransport`](tcp::TcpTransport) is implemented if TCP is at the bottom, [`TlsTransport`] by TLS and upgradable
//! connections, and [`UpgradableTransport`] by upgradable ones. All methods can be called on the concrete types and on
//! trait objects.

pub(crate) mod close;
pub(crate) mod futures;
pub(crate) mod layer;
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
    /// Bytes that were accepted and have not left for the kernel (rule: write-8).
    pub queued: usize,
    /// How the connection ended, once it has.
    pub reason: Option<Reason>,
}

/// The operations of every transport: bytes in order, an orderly close that loses no data, and an abort that the peer
/// cannot mistake for one.
///
/// Read and write with tokio's `AsyncRead`, `AsyncBufRead` and `AsyncWrite`. `poll_shutdown` is
/// [`close_write`](Self::close_write). You need not flush: accepted bytes leave as soon as the socket takes them, even if
/// no task waits for that (rule: write-6).
///
/// Dropping a transport that was not closed is a truncation, and the peer sees it as one: RST on TCP, an end without
/// close_notify on TLS (rule: close-12).
///
/// # What it has beneath
///
/// Only the transports of this crate implement this trait. Use [`Stream`](crate::Stream) to make one of your own stream.
/// The methods that layers use among each other cannot be called from outside:
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
/// `read` and `write` of tokio's extension traits are cancel safe: a future that is dropped has read or written nothing.
/// `write_all`, `read_exact` and similar methods are not cancel safe, as with any stream.
#[doc(alias = "ITransport")]
#[doc(alias = "ITCPTransport")]
pub trait Transport: AsLayer + AsyncRead + AsyncBufRead + AsyncWrite + Send + Unpin + 'static {
    /// Our address; numeric, also after the end (rule: tcp-1).
    #[doc(alias = "getHost")]
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "host")]
    fn local_addr(&self) -> Address {
        self.layer(TOKEN).control().local_addr()
    }

    /// The peer's address; numeric, also after the end (rule: tcp-1).
    #[doc(alias = "getPeer")]
    #[doc(alias = "get_extra_info")]
    #[doc(alias = "peer")]
    fn peer_addr(&self) -> Address {
        self.layer(TOKEN).control().peer_addr()
    }

    /// A handle for other tasks: it can abort, and it knows the addresses and how the connection ended. Cheap to clone.
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

    /// Ends our send half: accepted bytes leave first, then this layer's marker (close_notify on TLS), then FIN beneath it.
    /// Reading goes on for as long as the peer sends (rules: half-1, half-2). A second call changes nothing (rule: half-3).
    ///
    /// Success means that the kernel has all of it. Fails with the reason if the connection was lost before. If the peer takes
    /// nothing for [`Policy::close_timeout`](crate::Policy::close_timeout), the connection is reset, and this fails
    /// with [`Reason::TimedOut`] in [`Phase::Close`](crate::Phase::Close) (rule: half-12).
    ///
    /// # Signals and the end of an input
    ///
    /// Call it only when you know that your own input is complete. An input that ends may have been cut off: Ctrl-C at
    /// `producer | program` goes to both processes, the producer dies, and the program sees the end of its standard input
    /// together with the signal. If the program acts on the end first, the peer takes half a message for a complete one. A
    /// `select!` over the input and the signal polls its branches in random order, so:
    ///
    /// - put the signal first, with `biased;`,
    /// - when the input has ended, `yield_now` (a single-threaded runtime then sees signals that have arrived) or wait
    ///   a few milliseconds (another process may be signalled just before this one), and only then call this,
    /// - on the signal, [`abort`](Self::abort).
    ///
    /// The example `netcat` does this.
    ///
    /// # Cancel safety
    /// The first poll decides the end: dropping the future after it changes nothing, and the marker leaves as soon as the
    /// socket takes it.
    #[doc(alias = "loseWriteConnection")]
    #[doc(alias = "write_eof")]
    #[doc(alias = "CloseWrite")]
    #[doc(alias = "shutdown")]
    fn close_write(&mut self) -> CloseWrite<'_> {
        CloseWrite::new(self.as_transport(TOKEN))
    }

    /// Ends the connection in order. Accepted bytes leave, then the markers; after that it waits for the peer's end,
    /// discards the input that still comes, and closes the socket. It never fails: it returns a report (rules: close-1 to
    /// close-11). If the peer ended first, it waits until the peer's system has our last bytes, as far as our system
    /// reports that (rule: close-14).
    ///
    /// The wait is bounded by [`Policy::close_timeout`](crate::Policy::close_timeout) and
    /// [`Policy::close_discard`](crate::Policy::close_discard). A second call gives the same report.
    ///
    /// # Cancel safety
    ///
    /// You may drop it and call it again; the bounds then start anew.
    #[doc(alias = "loseConnection")]
    fn close(&mut self) -> Close<'_> {
        Close::new(self.as_transport(TOKEN), &[])
    }

    /// Writes these last bytes and closes, within the bounds of [`close`](Self::close): a peer that does not read cannot
    /// make it wait longer (rule: close-3). If a bound ends it, the report shows that our marker did not leave.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of the bytes may have been accepted.
    #[doc(alias = "finish")]
    fn close_with<'a>(&'a mut self, last: &'a [u8]) -> Close<'a> {
        Close::new(self.as_transport(TOKEN), last)
    }

    /// Ends the connection now: queued bytes are discarded, and the peer gets RST. Returns at once, from any state (rules:
    /// abort-1 to abort-5).
    #[doc(alias = "abortConnection")]
    #[doc(alias = "SetLinger")]
    fn abort(&mut self) {
        self.layer(TOKEN).control().abort();
        if self.layer(TOKEN).control().is_aborted() {
            self.layer_mut(TOKEN).handle_abort();
        }
    }

    /// Writes all parts as one: in order, and without copies if the kernel can gather them. No byte is written if our send
    /// half has ended (rule: write-2).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of it may have been accepted.
    #[doc(alias = "writeSequence")]
    #[doc(alias = "writelines")]
    fn write_sequence<'a>(&'a mut self, parts: &'a [IoSlice<'a>]) -> WriteSequence<'a> {
        WriteSequence::new(self.as_transport(TOKEN), parts)
    }

    /// Holds small writes back, to be merged, until the guard is dropped (rule: write-7). A flush under a cork sends.
    fn cork(&mut self) -> Corked<'_> {
        Corked::new(self.as_transport(TOKEN))
    }

    /// The options of the TCP socket at the bottom; `None` where the bottom is another stream. See
    /// [`TcpTransport`](crate::TcpTransport).
    fn as_tcp(&self) -> Option<TcpOptions<'_>> {
        let control = self.layer(TOKEN).control();
        control.is_tcp().then_some(TcpOptions(control))
    }

    /// This transport with its TLS methods, if it is a TLS or an upgradable connection.
    fn as_tls(&self) -> Option<&dyn TlsTransport> {
        self.lend_tls(TOKEN)
    }

    /// Bytes that were accepted and have not left for the kernel (rule: write-8).
    #[doc(alias = "get_write_buffer_size")]
    fn queued(&self) -> usize {
        self.layer(TOKEN).queued_bytes()
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {}

/// Adds the facts of the TLS session. TLS and upgradable connections implement it, on top of any transport. If the type is not
/// known, use [`Transport::as_tls`].
#[doc(alias = "ISSLTransport")]
#[doc(alias = "INegotiated")]
pub trait TlsTransport: Transport {
    /// The result of the handshake of the topmost TLS layer; `None` in plaintext, and until the handshake is done. It can
    /// be read after the end too (rule: secure-3).
    #[doc(alias = "getPeerCertificate")]
    #[doc(alias = "negotiatedProtocol")]
    #[doc(alias = "ConnectionState")]
    fn tls(&self) -> Option<Arc<SessionFacts>> {
        self.layer(TOKEN).session_facts()
    }

    /// Whether application data travels encrypted.
    fn is_secure(&self) -> bool {
        self.layer(TOKEN).session_facts().is_some()
    }
}

impl<T: TlsTransport + ?Sized> TlsTransport for Box<T> {}

/// An upgrade or a handshake under way, as trait objects have it.
pub type Starting<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;
/// A downgrade under way, as trait objects have it.
pub type Stopping<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// What an upgradable transport adds: into TLS, and back.
#[doc(alias = "ITLSTransport")]
pub trait UpgradableTransport: TlsTransport {
    /// Starts TLS, also inside TLS. Waits for the outcome (rules: upgrade-1 to upgrade-8).
    #[doc(alias = "startTLS")]
    #[doc(alias = "STARTTLS")]
    fn start_tls(&mut self, how: StartTls) -> Starting<'_>;

    /// Whether `start_tls` could begin now. A service checks this before it sends the go-ahead, which it cannot take back.
    ///
    /// # Errors
    ///
    /// The [`UpgradeError`](crate::UpgradeError) that `start_tls` would return now (rule: upgrade-5), for example
    /// [`TooManyLayers`](crate::UpgradeError::TooManyLayers) (rule: upgrade-12). Nothing changes.
    fn may_start_tls(&self) -> Result<(), Error>;

    /// Ends the topmost TLS session and goes on beneath it (rule: upgrade-9).
    #[doc(alias = "CCC")]
    #[doc(alias = "unwrap")]
    fn stop_tls(&mut self) -> Stopping<'_>;
}
