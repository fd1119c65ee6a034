//! The memory of a connection in a server: idle, and with a peer that does not read. The clients are in another
//! process.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::Run;
use crate::error::{Result, fail};
use crate::measure::{Mark, Sample, resident_and_heap};
use crate::net;
use crate::peers::Stack;
use crate::pki::Pki;

/// The subcommand of the process with the clients.
pub const COMMAND: &str = "clients";
/// The number of connections that are not counted, so that one-time allocations are left out.
const FIRST: usize = 64;
/// The size of the request and the response that are exchanged once before the connection is idle.
pub const MESSAGE: usize = 64;
/// The number of simultaneous handshakes.
const AT_ONCE: usize = 32;

/// `count` connections that have exchanged a message, and wait for the next.
pub async fn idle<S: Stack>(stack: S, run: Run, pki: &Pki, id: &str, count: usize) -> Result<Sample> {
    measure(run, pki, id, count, S::PLAIN, |tcp, watch| spawn(serve(stack.clone(), tcp, watch, false))).await
}

/// `count` connections that are written to until no write completes.
pub async fn stalled<S: Stack>(stack: S, run: Run, pki: &Pki, id: &str, count: usize) -> Result<Sample> {
    measure(run, pki, id, count, S::PLAIN, |tcp, watch| spawn(serve(stack.clone(), tcp, watch, true))).await
}

/// Tracks the progress of each connection.
#[derive(Clone)]
pub struct Watch {
    ready: UnboundedSender<()>,
    progress: Arc<AtomicUsize>,
}

impl Watch {
    /// Called when the message was exchanged.
    pub fn ready(&self) {
        let _ = self.ready.send(());
    }

    /// Called when bytes were written.
    pub fn wrote(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// `begin` serves a connection in a task of its own.
pub async fn measure(
    run: Run,
    pki: &Pki,
    id: &str,
    count: usize,
    plain: bool,
    begin: impl Fn(TcpStream, Watch) -> Result<()>,
) -> Result<Sample> {
    let listener = net::listen(run.regime)?;
    let mut clients = Command::new(std::env::current_exe()?)
        .args([COMMAND, id, &listener.local_addr()?.to_string(), &(FIRST + count).to_string()])
        .arg(if plain { "tcp" } else { "tls" })
        .env("BENCH_PKI", pki.to_json())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut signal = clients.stdin.take().ok_or("no standard input")?;
    let (ready, mut all_ready) = unbounded_channel();
    let watch = Watch { ready, progress: Arc::default() };
    let mut before = (0.0, 0.0);
    let mark = Mark::now()?;
    for accepted in 0..FIRST + count {
        begin(net::accept(&listener).await?, watch.clone())?;
        if accepted + 1 == FIRST {
            for _ in 0..FIRST {
                all_ready.recv().await;
            }
            settle(&watch.progress).await;
            before = resident_and_heap()?;
            signal.write_all(b"\n")?;
        }
    }
    for _ in 0..count {
        all_ready.recv().await.ok_or("a connection failed")?;
    }
    settle(&watch.progress).await;
    let after = resident_and_heap()?;
    let mut sample = mark.sample(count as f64)?;
    sample.memory = Some(((after.0 - before.0) / count as f64, (after.1 - before.1) / count as f64));
    drop(signal);
    if !clients.wait()?.success() {
        return fail("the clients failed");
    }
    Ok(sample)
}

/// Waits until there is no progress for a while.
async fn settle(progress: &AtomicUsize) {
    let mut last = usize::MAX;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        match progress.load(Ordering::Relaxed) {
            now if now == last => return,
            now => last = now,
        }
    }
}

/// Reports an error to standard error, and does not end the measurement.
fn spawn(serving: impl Future<Output = Result<()>> + Send + 'static) -> Result<()> {
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            eprintln!("a connection failed: {error}");
        }
    });
    Ok(())
}

async fn serve<S: Stack>(stack: S, tcp: TcpStream, watch: Watch, stall: bool) -> Result<()> {
    static PIECE: [u8; 16 << 10] = [0; 16 << 10];
    let mut stream = stack.accept(tcp).await?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message).await?;
    S::send(&mut stream, &message).await?;
    watch.ready();
    if stall {
        loop {
            stream.write_all(&PIECE).await?;
            watch.wrote();
        }
    }
    // An error is ignored, because the clients may have ended.
    let _ = stream.read(&mut message).await;
    Ok(())
}

/// The other process: `count` connections, held until the end of standard input.
pub async fn clients<S: Stack>(stack: S, run: Run, address: SocketAddr, count: usize) -> Result<()> {
    let limit = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = Vec::new();
    for at in 0..count {
        let (stack, limit) = (stack.clone(), Arc::clone(&limit));
        let permit = limit.acquire_owned().await?;
        tasks.push(tokio::spawn(async move {
            let tcp = net::connect(address, run.regime).await?;
            net::reset_on_drop(&tcp)?;
            let mut stream = stack.connect(tcp).await?;
            S::send(&mut stream, &[0x5a; MESSAGE]).await?;
            stream.read_exact(&mut [0; MESSAGE]).await?;
            drop(permit);
            Ok::<_, crate::error::Error>(stream)
        }));
        if at + 1 == FIRST {
            // The server measures its memory, and then sends a line.
            wait_for_line().await?;
        }
    }
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(task.await??);
    }
    wait_for_line().await?;
    drop(streams);
    Ok(())
}

/// Waits for a line, or for the end of standard input.
async fn wait_for_line() -> Result<()> {
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    Ok(())
}
