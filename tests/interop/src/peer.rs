//! The steps of a script, for the peers whose library has `AsyncRead` and `AsyncWrite`.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Options, Report, Sockets, Step, dialogue, pattern};

/// A library, with its settings.
#[expect(async_fn_in_trait, reason = "only the programs of this workspace implement it")]
pub trait Library {
    /// A connection. `shutdown` sends close_notify and FIN, and reading continues.
    type Stream: AsyncRead + AsyncWrite + Unpin;

    /// Does the handshake.
    async fn open(&self, tcp: TcpStream) -> Result<Self::Stream>;

    /// Reports the facts of the session.
    fn facts(&self, stream: &Self::Stream, report: &mut Report);

    /// Sends FIN without close_notify.
    async fn fin(&self, stream: &mut Self::Stream) -> Result<()>;

    /// Makes the close of the socket send RST.
    fn reset_on_close(&self, stream: &Self::Stream) -> Result<()>;

    /// Sends a KeyUpdate, at the latest together with the next bytes.
    fn update(&self, stream: &mut Self::Stream, report: &mut Report) -> Result<()>;
}

/// Plays the script on each connection, and prints the reports.
pub async fn serve(options: &Options, library: &impl Library) {
    let sockets = Sockets::open(options).await;
    for _ in 0..options.connections {
        let mut report = Report::default();
        let mut tcp = sockets.next().await;
        if options.starttls {
            dialogue(options, &mut tcp).await;
        }
        if let Err(error) = run(options, library, tcp, &mut report).await {
            let end = match error.kind() {
                ErrorKind::UnexpectedEof => "truncated",
                ErrorKind::ConnectionReset => "reset",
                _ => "failed",
            };
            report.set("end", end);
            report.set("error", error.to_string());
        }
        report.print();
    }
}

async fn run(options: &Options, library: &impl Library, tcp: TcpStream, report: &mut Report) -> Result<()> {
    let mut stream = library.open(tcp).await?;
    let played = play(options, library, &mut stream, report).await;
    library.facts(&stream, report);
    played
}

async fn play<L: Library>(options: &Options, library: &L, stream: &mut L::Stream, report: &mut Report) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    for step in &options.script {
        match *step {
            Step::Send(n) => stream.write_all(&pattern(n)).await?,
            Step::Tiny(n) => {
                for _ in 0..n {
                    stream.write_all(b"x").await?;
                    stream.flush().await?;
                }
            }
            Step::Recv(mut left) => {
                stream.flush().await?;
                while left > 0 {
                    let most = left.min(buffer.len());
                    let read = stream.read(&mut buffer[..most]).await?;
                    report.receive(&buffer[..read]);
                    if read == 0 {
                        return Err(Error::other("a clean end, too early"));
                    }
                    left -= read;
                }
            }
            Step::End => loop {
                stream.flush().await?;
                let read = stream.read(&mut buffer).await?;
                report.receive(&buffer[..read]);
                if read == 0 {
                    report.set("end", "clean");
                    break;
                }
            },
            Step::Half | Step::Close => stream.shutdown().await?,
            Step::Fin => {
                stream.flush().await?;
                library.fin(stream).await?;
            }
            Step::Abort => {
                stream.flush().await?;
                library.reset_on_close(stream)?;
                return Ok(());
            }
            Step::Update => library.update(stream, report)?,
        }
    }
    Ok(())
}
