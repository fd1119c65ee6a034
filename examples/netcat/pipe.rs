//! Standard input to the peer, the peer to standard output.

use std::io;
use std::time::Duration;

use bowline::{
    CloseReport, OwnedWriteHalf, Split, TcpConnection, Transport, UpgradableConnection, UpgradableReadHalf,
    UpgradableWriteHalf,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::args::Args;
use crate::run::Progress;

/// How long standard input may be silent before the run ends, once the peer has ended. Bytes that are ready in a pipe
/// are still sent.
const SILENCE: Duration = Duration::from_millis(200);
/// How long a process manager may take to signal all processes of a pipeline, one after the other.
const ONE_AFTER_THE_OTHER: Duration = Duration::from_millis(30);
const CHUNK: usize = 64 << 10;

type Connection = UpgradableConnection<TcpConnection>;
type Reader = UpgradableReadHalf<TcpConnection>;
type Writer = UpgradableWriteHalf<TcpConnection>;

/// Copies bytes until the peer has ended, or until our own end closes; then closes. Fails only if standard input or
/// output fails.
pub(crate) async fn pipe(args: &Args, progress: &Progress, connection: Connection) -> io::Result<CloseReport> {
    let (mut reader, mut writer) = connection.into_split();
    let (peer_ended, ended) = watch::channel(false);
    let piped = {
        let upload = upload(args, progress, &mut writer, ended);
        let download = async {
            let downloaded = download(args, progress, &mut reader).await;
            peer_ended.send_replace(true);
            downloaded
        };
        tokio::pin!(upload, download);
        tokio::select! {
            // `--abort-after` comes before an end of our input.
            biased;
            downloaded = &mut download => match downloaded {
                Ok(End::InOrder) => upload.await,
                Ok(End::Enough | End::Failed) => Ok(()),
                Err(error) => Err(error),
            },
            uploaded = &mut upload => match uploaded {
                Ok(()) if args.half_close => download.await.map(|_| ()),
                other => other,
            },
        }
    };
    if piped.is_err() || args.abort_after.is_some_and(|n| progress.received.get() >= n) {
        writer.control().abort();
    }
    let mut connection = UpgradableConnection::reunite(reader, writer).expect("both are halves of this connection");
    let report = connection.close().await;
    piped.map(|()| report)
}

/// Sends standard input. A failed write is not reported here, because the next read reports the cause.
async fn upload(
    args: &Args,
    progress: &Progress,
    writer: &mut Writer,
    mut ended: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut stdin = tokio::io::stdin();
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = tokio::select! {
            n = stdin.read(&mut chunk) => n.map_err(|error| named("standard input", &error))?,
            () = silence(&mut ended) => return Ok(()),
        };
        if n == 0 {
            end_of_input().await;
            break;
        }
        let mut left = &chunk[..n];
        while !left.is_empty() {
            let Ok(n) = writer.write(left).await else { return Ok(()) };
            progress.sent.set(progress.sent.get() + n as u64);
            left = &left[n..];
        }
    }
    progress.input_ended.set(true);
    if args.half_close && !args.ignore_eof {
        let _ = writer.shutdown().await;
    }
    Ok(())
}

/// Waits until an interrupt that caused the end of our input would have been seen.
///
/// Ctrl-C at `producer | netcat` goes to both processes. The producer dies, and that ends our input. If netcat acted on
/// the end before the signal, the peer would take a truncated message for a complete one (rule: abort-2). So the
/// runtime checks for signals once more, and the `select!` in main checks the signal before the input. If another
/// process may have ended our input, netcat waits a moment longer, because a process manager signals its processes one
/// after the other.
async fn end_of_input() {
    if is_fed_by_a_process() {
        sleep(ONE_AFTER_THE_OTHER).await;
    }
    // Before a yielded task continues, the runtime polls its drivers, including the signal driver.
    tokio::task::yield_now().await;
}

#[cfg(unix)]
fn is_fed_by_a_process() -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileTypeExt;
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let kind = stdin.and_then(|stdin| stdin.metadata()).map(|meta| meta.file_type());
    kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
}

#[cfg(not(unix))]
fn is_fed_by_a_process() -> bool {
    true
}

async fn silence(ended: &mut watch::Receiver<bool>) {
    // The wait cannot fail, because the sender lives as long as the upload.
    let _ = ended.wait_for(|ended| *ended).await;
    sleep(SILENCE).await;
}

/// The reason for the end of reading.
enum End {
    InOrder,
    Failed,
    /// `--abort-after`
    Enough,
}

/// Writes the peer's bytes to standard output. Fails if standard output fails.
async fn download(args: &Args, progress: &Progress, reader: &mut Reader) -> io::Result<End> {
    let mut stdout = tokio::io::stdout();
    let mut chunk = vec![0; CHUNK];
    let stdout_failed = |error| named("standard output", &error);
    loop {
        let left = args.abort_after.map_or(u64::MAX, |bound| bound.saturating_sub(progress.received.get()));
        let room = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        if room == 0 {
            return Ok(End::Enough);
        }
        match reader.read(&mut chunk[..room]).await {
            Ok(0) => return Ok(End::InOrder),
            Ok(n) => {
                progress.received.set(progress.received.get() + n as u64);
                stdout.write_all(&chunk[..n]).await.map_err(stdout_failed)?;
                stdout.flush().await.map_err(stdout_failed)?;
            }
            Err(_) => return Ok(End::Failed),
        }
    }
}

fn named(which: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{which}: {error}"))
}
