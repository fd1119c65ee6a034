//! Splits any transport into two halves for two tasks.

use std::fmt;

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};

use crate::conn::control::Control;
use crate::core::half::{RecvHalf, SendHalf};
use crate::transport::Transport;

/// Splits a transport into two owned halves for two tasks, and joins them again.
///
/// The halves of TCP share no lock, and neither do those of an upgradable connection in plaintext over TCP. The halves
/// of a TLS session share the session under a lock.
///
/// No bytes are lost: the read half keeps bytes that were received and not read, and accepted bytes leave even if no
/// task waits for that. Dropping one half ends nothing. When both are dropped, the connection ends like a dropped
/// connection (rule: close-12). The write half's `shutdown` is [`close_write`](Transport::close_write).
/// [`close`](Transport::close), `start_tls` and `stop_tls` need the whole connection, so call
/// [`reunite`](Self::reunite) first. An abort needs only the [`Control`].
///
/// A [`Stream`](crate::Stream) cannot be split without a lock, because it is a single object. So it does not
/// implement this trait; use `tokio::io::split` for it. TLS on top of a `Stream` can be split, but an upgradable
/// connection on top of it cannot.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// use bowline::{Split, Transport};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// /// Sends all bytes while the peer may be sending too, then returns the connection.
/// async fn exchange<T: Split>(connection: T, question: Vec<u8>) -> std::io::Result<(T, Vec<u8>)> {
///     let (mut read, mut write) = connection.into_split();
///     let asking = tokio::spawn(async move {
///         write.write_all(&question).await?;
///         write.shutdown().await?; // our half only
///         Ok::<_, std::io::Error>(write)
///     });
///     let mut answer = Vec::new();
///     read.read_to_end(&mut answer).await?;
///     let write = asking.await??;
///     Ok((T::reunite(read, write).expect("both are halves of this connection"), answer))
/// }
///
/// let (client, server) = bowline::testing::tcp_pair().await?;
/// let client = tokio::spawn(exchange(client, vec![1; 1_000_000]));
/// let (mut server, question) = exchange(server, vec![2; 1_000_000]).await?;
/// let (mut client, answer) = client.await??;
/// assert_eq!((question.len(), answer.len()), (1_000_000, 1_000_000));
/// let (ours, theirs) = tokio::join!(server.close(), client.close());
/// assert!(ours.is_clean() && theirs.is_clean());
/// # Ok(()) }
/// ```
pub trait Split: Transport + Sized {
    /// The half that reads.
    type ReadHalf: OwnedReadHalf;
    /// The half that writes.
    type WriteHalf: OwnedWriteHalf;

    /// Two halves for two tasks.
    fn into_split(self) -> (Self::ReadHalf, Self::WriteHalf);

    /// Makes one connection of the two halves again.
    ///
    /// # Errors
    /// [`ReuniteError`], which returns both halves, if they belong to different connections. The caller has caused
    /// this.
    #[doc(alias = "unsplit")]
    fn reunite(
        read: Self::ReadHalf,
        write: Self::WriteHalf,
    ) -> Result<Self, ReuniteError<Self::ReadHalf, Self::WriteHalf>>;
}

/// The two halves do not belong to the same connection. They are unchanged.
pub struct ReuniteError<R, W>(Box<(R, W)>);

impl<R, W> ReuniteError<R, W> {
    pub(crate) fn new(read: R, write: W) -> Self {
        Self(Box::new((read, write)))
    }

    /// Returns the halves.
    pub fn into_halves(self) -> (R, W) {
        *self.0
    }
}

impl<R, W> fmt::Debug for ReuniteError<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReuniteError").finish_non_exhaustive()
    }
}

impl<R, W> fmt::Display for ReuniteError<R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("these are halves of different connections")
    }
}

impl<R, W> std::error::Error for ReuniteError<R, W> {}

/// The half of a connection that reads.
pub trait OwnedReadHalf: AsyncRead + AsyncBufRead + fmt::Debug + Send + Unpin + 'static {
    /// The [`Control`] of the connection.
    fn control(&self) -> Control;
    /// The state of the half.
    fn status(&self) -> RecvHalf;
}

/// The half of a connection that writes. Its `shutdown` is [`close_write`](Transport::close_write): the connection
/// stays open.
pub trait OwnedWriteHalf: AsyncWrite + fmt::Debug + Send + Unpin + 'static {
    /// The [`Control`] of the connection.
    fn control(&self) -> Control;
    /// The state of the half.
    fn status(&self) -> SendHalf;
}
