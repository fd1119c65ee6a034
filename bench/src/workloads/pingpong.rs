//! A request, a response, the next request; on one connection or on many at once.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::{Run, meeting};
use crate::error::{Result, fail};
use crate::measure::{Mark, Sample, percentiles};
use crate::net;
use crate::peers::Stack;

pub async fn run<S: Stack>(stack: S, run: Run, size: usize, connections: usize) -> Result<Sample> {
    let listener = net::listen(run.regime)?;
    let begin = meeting(connections + 1);
    let mut clients = Vec::new();
    for _ in 0..connections {
        let (client, server) = net::pair(&listener, run.regime).await?;
        let (client, mut server) = tokio::try_join!(stack.connect(client), stack.accept(server))?;
        run.setup.check(S::facts(&client), false)?;
        tokio::spawn(async move { echo::<S>(&mut server, size).await });
        let begin = begin.clone();
        clients.push(tokio::spawn(async move {
            let mut client = client;
            // All connections are made before the first request, because handshakes would disturb the measurement.
            begin.wait().await;
            ask::<S>(&mut client, size, run.warm_time()).await?;
            begin.wait().await;
            ask::<S>(&mut client, size, run.time()).await
        }));
    }
    begin.wait().await;
    begin.wait().await;
    let mark = Mark::now()?;
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await??);
    }
    let mut sample = mark.sample(latencies.len() as f64)?;
    sample.latency = percentiles(latencies);
    Ok(sample)
}

async fn echo<S: Stack>(stream: &mut S::Stream, size: usize) -> std::io::Result<()> {
    let mut buf = vec![0; size];
    loop {
        stream.read_exact(&mut buf).await?;
        S::send(stream, &buf).await?;
    }
}

/// Latencies, in nanoseconds.
async fn ask<S: Stack>(stream: &mut S::Stream, size: usize, how_long: Duration) -> Result<Vec<u32>> {
    let request = vec![0x5a; size];
    let mut response = vec![0; size];
    let mut latencies = Vec::with_capacity(1 << 12);
    let begin = Instant::now();
    let mut last = begin;
    while last - begin < how_long {
        S::send(stream, &request).await?;
        stream.read_exact(&mut response).await?;
        let now = Instant::now();
        latencies.push(u32::try_from((now - last).as_nanos()).unwrap_or(u32::MAX));
        last = now;
    }
    // Without a warm-up, there is no response yet.
    if !latencies.is_empty() && response != request {
        return fail("the response is not the request");
    }
    Ok(latencies)
}
