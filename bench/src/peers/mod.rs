//! The peers. Each makes a stream of bytes out of a TCP connection.

#[cfg(feature = "boring")]
pub mod boring;
pub mod bowline;
pub mod buffered;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "openssl")]
pub mod openssl;
pub mod rustls;
#[cfg(feature = "s2n")]
pub mod s2n;
pub mod starttls;
pub mod tcp;

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::Result;
pub use crate::facts::Facts;

/// A peer whose connections are read and written with tokio's traits.
pub trait Stack: Clone + Send + Sync + 'static {
    /// A connection after its handshake.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Whether a message must be flushed to be sent.
    const FLUSHES: bool;

    /// Whether the peer sets no-delay by itself. Otherwise the harness sets it.
    const SETS_NODELAY: bool = false;

    /// Whether the peer limits the time of a handshake by itself. Otherwise the harness does, with tokio's timer,
    /// because every server needs such a limit.
    const SETS_DEADLINE: bool = false;

    /// Whether the peer uses no TLS.
    const PLAIN: bool = false;

    /// The client's end.
    fn connect(&self, tcp: TcpStream) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// The server's end.
    fn accept(&self, tcp: TcpStream) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// The facts of the handshake; `None` in plaintext.
    fn facts(stream: &Self::Stream) -> Option<Facts>;

    /// Writes one message, and makes sure that it is sent.
    fn send(stream: &mut Self::Stream, message: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            stream.write_all(message).await?;
            if Self::FLUSHES {
                stream.flush().await?;
            }
            Ok(())
        }
    }

    /// Writes this chunk `count` times, and flushes after the last one.
    fn send_many(stream: &mut Self::Stream, chunk: &[u8], count: usize) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            for _ in 0..count {
                stream.write_all(chunk).await?;
            }
            stream.flush().await
        }
    }

    /// Serves HTTP over a connection, with hyper.
    #[cfg(feature = "hyper")]
    fn serve_http(
        stream: Self::Stream,
        http: crate::spec::Http,
        answer: hyper::Answer,
    ) -> impl Future<Output = Result<()>> + Send {
        hyper::serve(stream, http, answer)
    }

    /// Ends a connection of which both halves have ended.
    fn finish(stream: Self::Stream) -> impl Future<Output = ()> + Send {
        async move { drop(stream) }
    }
}
