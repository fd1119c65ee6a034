//! The halves of an upgradable connection: the halves of its plaintext layer, or of its topmost TLS session.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::conn::control::Control;
use crate::core::half::{RecvHalf, SendHalf};
use crate::error::{Error, Reason};
use crate::layers::tls::{TlsConnection, TlsReadHalf, TlsWriteHalf};
use crate::layers::upgradable::destroyed::Destroyed;
use crate::layers::upgradable::stack::Stack;
use crate::layers::upgradable::{UpgradableConnection, UpgradeState};
use crate::transport::layer::poll_budget;
use crate::transport::split::{OwnedReadHalf, OwnedWriteHalf, ReuniteError, Split};

/// The receiving half of an [`UpgradableConnection`].
pub struct UpgradableReadHalf<T: Split>(Side<Reading<T>>);

/// The sending half of an [`UpgradableConnection`].
pub struct UpgradableWriteHalf<T: Split>(Side<Writing<T>>);

/// A half of the topmost layer, and whether bytes may pass.
struct Side<H> {
    /// `None` if a failed change has already dropped the stack.
    half: Option<H>,
    state: UpgradeState,
}

impl<H> Side<H> {
    /// The half, if bytes may pass now.
    fn open(&mut self) -> Result<&mut H, Error> {
        self.state.check_open()?;
        self.half.as_mut().ok_or(Error::Ended(Reason::Aborted))
    }

    /// As `open`, for a task: a refusal costs budget (rule: life-6).
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut H, Error>> {
        let open = self.open();
        if open.is_err() {
            ready!(poll_budget(cx));
        }
        Poll::Ready(open)
    }
}

/// A half of the topmost layer.
enum Half<P, S> {
    Plain(P),
    Tls(S),
}

type Reading<T> = Half<<T as Split>::ReadHalf, TlsReadHalf<Stack<T>>>;
type Writing<T> = Half<<T as Split>::WriteHalf, TlsWriteHalf<Stack<T>>>;

/// Forwards a call to the half of the topmost layer.
macro_rules! topmost {
    ($of:expr, $half:ident => $call:expr) => {
        match $of {
            Half::Plain($half) => $call,
            Half::Tls($half) => $call,
        }
    };
}

type Halves<T> = (Option<Reading<T>>, Option<Writing<T>>);

/// Makes a stack of its two halves, or returns them unchanged.
fn join<T: Split>(read: Option<Reading<T>>, write: Option<Writing<T>>) -> Result<Option<Stack<T>>, Halves<T>> {
    match (read, write) {
        (Some(Half::Plain(read)), Some(Half::Plain(write))) => match T::reunite(read, write) {
            Ok(plain) => Ok(Some(Stack::Plain(plain))),
            Err(error) => {
                let (read, write) = error.into_halves();
                Err((Some(Half::Plain(read)), Some(Half::Plain(write))))
            }
        },
        (Some(Half::Tls(read)), Some(Half::Tls(write))) => match TlsConnection::reunite(read, write) {
            Ok(session) => Ok(Some(Stack::Tls(Box::new(session)))),
            Err(error) => {
                let (read, write) = error.into_halves();
                Err((Some(Half::Tls(read)), Some(Half::Tls(write))))
            }
        },
        (None, None) => Ok(None),
        apart => Err(apart),
    }
}

/// The halves are those of the plaintext layer, or of the topmost TLS session. In plaintext over TCP, they share no
/// lock. The reunited connection can be upgraded and downgraded as before.
///
/// While a change between plaintext and TLS is in progress, and after a change has failed, the halves refuse to read,
/// write and shut down, with the error that the connection returns: [`UpgradeError::InProgress`](crate::UpgradeError),
/// or the failure of the change. The reunited connection can be closed, or can resume a `stop_tls` whose future was
/// dropped.
impl<T: Split> Split for UpgradableConnection<T> {
    type ReadHalf = UpgradableReadHalf<T>;
    type WriteHalf = UpgradableWriteHalf<T>;

    fn into_split(self) -> (UpgradableReadHalf<T>, UpgradableWriteHalf<T>) {
        let (stack, state) = self.into_parts();
        let (read, write) = match stack {
            Stack::Destroyed(_) => (None, None),
            Stack::Plain(plain) => {
                let (read, write) = plain.into_split();
                (Some(Half::Plain(read)), Some(Half::Plain(write)))
            }
            Stack::Tls(session) => {
                let (read, write) = session.into_split();
                (Some(Half::Tls(read)), Some(Half::Tls(write)))
            }
        };
        let read = Side { half: read, state: state.clone() };
        (UpgradableReadHalf(read), UpgradableWriteHalf(Side { half: write, state }))
    }

    fn reunite(
        read: UpgradableReadHalf<T>,
        write: UpgradableWriteHalf<T>,
    ) -> Result<Self, ReuniteError<UpgradableReadHalf<T>, UpgradableWriteHalf<T>>> {
        if !read.0.state.control.is_same(&write.0.state.control) {
            return Err(ReuniteError::new(read, write));
        }
        let (ours, theirs) = (read.0.state, write.0.state);
        match join(read.0.half, write.0.half) {
            Ok(stack) => {
                let stack = stack.unwrap_or_else(|| Stack::Destroyed(Destroyed(ours.control.clone())));
                Ok(Self::from_parts(stack, ours))
            }
            Err((read, write)) => {
                let read = UpgradableReadHalf(Side { half: read, state: ours });
                Err(ReuniteError::new(read, UpgradableWriteHalf(Side { half: write, state: theirs })))
            }
        }
    }
}

impl<T: Split> OwnedReadHalf for UpgradableReadHalf<T> {
    fn control(&self) -> Control {
        self.0.state.control.clone()
    }

    fn status(&self) -> RecvHalf {
        self.0.half.as_ref().map_or(RecvHalf::Aborted, |half| topmost!(half, half => half.status()))
    }
}

impl<T: Split> OwnedWriteHalf for UpgradableWriteHalf<T> {
    fn control(&self) -> Control {
        self.0.state.control.clone()
    }

    fn status(&self) -> SendHalf {
        self.0.half.as_ref().map_or(SendHalf::Aborted, |half| topmost!(half, half => half.status()))
    }
}

impl<T: Split> fmt::Debug for UpgradableReadHalf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradableReadHalf").field("half", &self.status()).finish_non_exhaustive()
    }
}

impl<T: Split> fmt::Debug for UpgradableWriteHalf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradableWriteHalf").field("half", &self.status()).finish_non_exhaustive()
    }
}

impl<T: Split> AsyncRead for UpgradableReadHalf<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        topmost!(ready!(self.get_mut().0.poll_open(cx))?, half => Pin::new(half).poll_read(cx, buf))
    }
}

impl<T: Split> AsyncBufRead for UpgradableReadHalf<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        topmost!(ready!(self.get_mut().0.poll_open(cx))?, half => Pin::new(half).poll_fill_buf(cx))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        if let Ok(half) = self.get_mut().0.open() {
            topmost!(half, half => Pin::new(half).consume(n));
        }
    }
}

impl<T: Split> AsyncWrite for UpgradableWriteHalf<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        topmost!(ready!(self.get_mut().0.poll_open(cx))?, half => Pin::new(half).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        topmost!(ready!(self.get_mut().0.poll_open(cx))?, half => Pin::new(half).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(ready!(self.get_mut().0.poll_open(cx))?, half => Pin::new(half).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        topmost!(ready!(self.get_mut().0.poll_open(cx))?, half => Pin::new(half).poll_shutdown(cx))
    }
}
