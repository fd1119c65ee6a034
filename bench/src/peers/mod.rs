//! The peers: each is a way to make a stream of bytes out of a TCP connection.

#[cfg(feature = "boring")]
pub mod boring;
pub mod bowline;
pub mod buffered;
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

use crate::Result;

/// A peer whose connections are read and written by tokio's traits.
pub trait Stack: Clone + Send + Sync + 'static {
    /// A connection, its handshake done.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Whether a message has to be flushed to leave.
    const FLUSHES: bool;

    /// Whether it turns no-delay on by itself; for the others the harness does.
    const SETS_NODELAY: bool = false;

    /// Whether it limits the time of a handshake by itself; for the others the harness does, with tokio's timer. No server
    /// can do without.
    const SETS_DEADLINE: bool = false;

    /// Whether there is no TLS in it.
    const PLAIN: bool = false;

    /// The client's end.
    fn connect(&self, tcp: TcpStream) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// The server's end.
    fn accept(&self, tcp: TcpStream) -> impl Future<Output = Result<Self::Stream>> + Send;

    /// What the handshake agreed on; `None` in plaintext.
    fn facts(stream: &Self::Stream) -> Option<Facts>;

    /// Writes one message such that it leaves.
    fn send(stream: &mut Self::Stream, message: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            stream.write_all(message).await?;
            if Self::FLUSHES {
                stream.flush().await?;
            }
            Ok(())
        }
    }

    /// Writes this chunk so many times, and flushes behind the last.
    fn send_many(stream: &mut Self::Stream, chunk: &[u8], count: usize) -> impl Future<Output = io::Result<()>> + Send {
        async move {
            for _ in 0..count {
                stream.write_all(chunk).await?;
            }
            stream.flush().await
        }
    }

    /// The end of a connection whose both halves have ended.
    fn finish(stream: Self::Stream) -> impl Future<Output = ()> + Send {
        async move { drop(stream) }
    }
}

/// What a handshake agreed on, in words that all peers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `1.3` or `1.2`.
    pub version: String,
    /// Whether the suite is one of AES-128-GCM.
    pub aes128: bool,
    /// Whether a session was resumed.
    pub resumed: bool,
}
