//! What a connection costs a server in memory: idle, and with a peer that does not read. The clients are another process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::Run;
use crate::measure::{Sample, resident_and_heap};
use crate::peers::Stack;
use crate::pki::Pki;
use crate::{Result, fail, net};

/// The word that makes a process the clients.
pub const COMMAND: &str = "clients";
/// Connections that come before what is counted: what is made once, is made.
const FIRST: usize = 64;
/// Of a request and its response, exchanged once ahead of idleness.
const MESSAGE: usize = 64;
/// How many clients shake hands at a time.
const AT_ONCE: usize = 32;

/// `count` connections that have exchanged a message, and wait for the next.
pub async fn idle<S: Stack>(stack: S, run: Run, pki: &Pki, id: &str, peer: &str, count: usize) -> Result<Sample> {
    measure(stack, run, pki, id, peer, count, false).await
}

/// `count` connections that are written to until nothing goes any more.
pub async fn stalled<S: Stack>(stack: S, run: Run, pki: &Pki, id: &str, peer: &str, count: usize) -> Result<Sample> {
    measure(stack, run, pki, id, peer, count, true).await
}

async fn measure<S: Stack>(
    stack: S,
    run: Run,
    pki: &Pki,
    id: &str,
    peer: &str,
    count: usize,
    stall: bool,
) -> Result<Sample> {
    let listener = net::listen(run.regime)?;
    let mut clients = Command::new(std::env::current_exe()?)
        .args([COMMAND, id, peer, &listener.local_addr()?.to_string(), &(FIRST + count).to_string()])
        .env("BENCH_PKI", pki.to_json())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let progress = Arc::new(AtomicUsize::new(0));
    let (ready, mut all_ready) = tokio::sync::mpsc::channel(FIRST + count);
    let mut before = (0.0, 0.0);
    let mark = crate::measure::Mark::now()?;
    for accepted in 0..FIRST + count {
        let tcp = net::accept(&listener).await?;
        let (stack, ready, counter) = (stack.clone(), ready.clone(), Arc::clone(&progress));
        tokio::spawn(async move {
            let served = serve(stack, tcp, ready, &counter, stall).await;
            if let Err(error) = served {
                eprintln!("a connection failed: {error}");
            }
        });
        if accepted + 1 == FIRST {
            for _ in 0..FIRST {
                all_ready.recv().await;
            }
            settle(&progress).await;
            before = resident_and_heap()?;
        }
    }
    for _ in 0..count {
        all_ready.recv().await.ok_or("a connection failed")?;
    }
    settle(&progress).await;
    let after = resident_and_heap()?;
    let mut sample = mark.sample(count as f64)?;
    sample.memory = Some(((after.0 - before.0) / count as f64, (after.1 - before.1) / count as f64));
    drop(clients.stdin.take());
    if !clients.wait()?.success() {
        return fail("the clients failed");
    }
    Ok(sample)
}

/// Until nothing moves for a while.
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

async fn serve<S: Stack>(
    stack: S,
    tcp: tokio::net::TcpStream,
    ready: tokio::sync::mpsc::Sender<()>,
    progress: &AtomicUsize,
    stall: bool,
) -> Result<()> {
    let mut stream = stack.accept(tcp).await?;
    let mut message = [0; MESSAGE];
    stream.read_exact(&mut message).await?;
    S::send(&mut stream, &message).await?;
    ready.send(()).await?;
    drop(ready);
    if stall {
        return write_for_ever(stream, progress).await;
    }
    let _ = stream.read(&mut message).await;
    Ok(())
}

async fn write_for_ever(mut stream: impl AsyncWriteExt + Unpin, progress: &AtomicUsize) -> Result<()> {
    static PIECE: [u8; 16 << 10] = [0; 16 << 10];
    loop {
        stream.write_all(&PIECE).await?;
        progress.fetch_add(1, Ordering::Relaxed);
    }
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
            Ok::<_, crate::Error>(stream)
        }));
        if at + 1 == FIRST {
            // Time for the server to look at itself.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
    }
    let mut streams = Vec::new();
    for task in tasks {
        streams.push(task.await??);
    }
    tokio::task::spawn_blocking(|| BufReader::new(std::io::stdin()).read_line(&mut String::new())).await??;
    drop(streams);
    Ok(())
}
