//! A peer under tokio's `BufWriter`, as an application would buffer small writes.

use tokio::io::BufWriter;
use tokio::net::TcpStream;

use super::{Facts, Stack};
use crate::error::Result;

/// `CAPACITY` is the size of the buffer. tokio's default is 8 KiB.
#[derive(Clone)]
pub struct Buffered<S, const CAPACITY: usize>(pub S);

impl<S: Stack, const CAPACITY: usize> Stack for Buffered<S, CAPACITY> {
    type Stream = BufWriter<S::Stream>;
    const FLUSHES: bool = true;

    async fn connect(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(BufWriter::with_capacity(CAPACITY, self.0.connect(tcp).await?))
    }

    async fn accept(&self, tcp: TcpStream) -> Result<Self::Stream> {
        Ok(BufWriter::with_capacity(CAPACITY, self.0.accept(tcp).await?))
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        S::facts(stream.get_ref())
    }
}
