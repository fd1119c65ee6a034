//! A peer that starts in plaintext: a greeting line, the command, the answer, then TLS. Both ends know the length of
//! each line, so that they do not read too far.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Facts, Stack};
use crate::error::{Result, fail};

pub const GREETING: &[u8] = b"220 bench\r\n";
pub const COMMAND: &[u8] = b"STARTTLS\r\n";
pub const ANSWER: &[u8] = b"220 go ahead\r\n";

#[derive(Clone)]
pub struct Starttls<S>(pub S);

impl<S: Stack> Stack for Starttls<S> {
    type Stream = S::Stream;
    const FLUSHES: bool = S::FLUSHES;

    async fn connect(&self, mut tcp: TcpStream) -> Result<Self::Stream> {
        expect(&mut tcp, GREETING).await?;
        tcp.write_all(COMMAND).await?;
        expect(&mut tcp, ANSWER).await?;
        self.0.connect(tcp).await
    }

    async fn accept(&self, mut tcp: TcpStream) -> Result<Self::Stream> {
        tcp.write_all(GREETING).await?;
        expect(&mut tcp, COMMAND).await?;
        tcp.write_all(ANSWER).await?;
        self.0.accept(tcp).await
    }

    fn facts(stream: &Self::Stream) -> Option<Facts> {
        S::facts(stream)
    }

    async fn finish(stream: Self::Stream) {
        S::finish(stream).await;
    }
}

async fn expect(tcp: &mut TcpStream, line: &[u8]) -> Result<()> {
    let mut buf = [0; 32];
    let buf = &mut buf[..line.len()];
    tcp.read_exact(buf).await?;
    if buf == line { Ok(()) } else { fail("another line was expected") }
}
