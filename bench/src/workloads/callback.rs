//! The same workloads on bowline's callback face, on both ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::protocol::{CallbackResult, Conn, Producer, Protocol, PullProducer, Runner};
use bowline::{StartTls, TcpConnection, UpgradableConnection};
use tokio::sync::oneshot;

use super::memory::{self, MESSAGE, Watch};
use super::{Run, meeting};
use crate::error::Result;
use crate::measure::{Mark, Sample, percentiles};
use crate::net;
use crate::peers::bowline::Bowline;
use crate::pki::Pki;
use crate::spec::Way;

type Dyn<'a> = &'a mut dyn Conn;

/// Runs a protocol on each end of a TLS connection, each in a task of its own.
async fn start<C: Protocol, S: Protocol>(stack: &Bowline, run: Run, client: C, server: S) -> Result<()> {
    let listener = net::listen(run.regime)?;
    let (ours, theirs) = net::pair(&listener, run.regime).await?;
    let how = StartTls::client(&stack.client, "localhost");
    let upgradable = |tcp| Ok::<_, crate::error::Error>(UpgradableConnection::<TcpConnection>::new(stack.tcp(tcp)?));
    tokio::spawn(Runner::new(client, upgradable(ours)?).begin_tls(how).run());
    tokio::spawn(Runner::new(server, upgradable(theirs)?).begin_tls(StartTls::server(&stack.server)).run());
    Ok(())
}

/// A pull producer that writes what fits below the high mark whenever the queue is empty.
struct Writer {
    chunk: Arc<[u8]>,
    /// The number of writes of the warm-up, after which the reader confirms that they have arrived.
    warm: usize,
    count: usize,
}

impl Writer {
    fn begin(&self, transport: Dyn<'_>, writes: usize) -> CallbackResult {
        let pieces = Pieces { chunk: self.chunk.clone(), left: writes, watch: None };
        Ok(transport.register_producer(Producer::pull(pieces))?)
    }
}

impl Protocol for Writer {
    fn handshake_completed(&mut self, transport: Dyn<'_>) -> CallbackResult {
        self.begin(transport, self.warm)
    }

    /// The reader sends one byte when the warm-up has arrived.
    fn data_received(&mut self, transport: Dyn<'_>, data: &[u8]) -> CallbackResult<usize> {
        self.begin(transport, self.count)?;
        Ok(data.len())
    }
}

struct Pieces {
    chunk: Arc<[u8]>,
    left: usize,
    watch: Option<Watch>,
}

impl PullProducer for Pieces {
    fn produce(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        const HIGH: usize = 64 << 10;
        while self.left > 0 && transport.queued() < HIGH {
            transport.write(&self.chunk);
            self.left -= 1;
            self.watch.iter().for_each(Watch::wrote);
        }
        if self.left == 0 {
            transport.unregister_producer();
        }
        Ok(())
    }

    fn stop(&mut self) {}
}

/// Counts the bytes that arrive.
struct Reader {
    warm: usize,
    left: usize,
    mark: Option<Mark>,
    done: Option<oneshot::Sender<Result<Sample>>>,
    units: f64,
}

impl Protocol for Reader {
    fn data_received(&mut self, transport: Dyn<'_>, data: &[u8]) -> CallbackResult<usize> {
        let Some(mark) = self.mark else {
            self.warm = self.warm.saturating_sub(data.len());
            if self.warm == 0 {
                self.mark = Some(Mark::now()?);
                transport.write(b"!");
            }
            return Ok(data.len());
        };
        self.left = self.left.saturating_sub(data.len());
        if let (0, Some(done)) = (self.left, self.done.take_if(|_| self.left == 0)) {
            let _ = done.send(mark.sample(self.units));
            transport.abort();
        }
        Ok(data.len())
    }
}

/// As [`bulk::run`](super::bulk::run).
pub async fn bulk(stack: Bowline, run: Run, size: usize, way: Way, count: usize, units: f64) -> Result<Sample> {
    let (done, sample) = oneshot::channel();
    let warm = run.warm_up(count);
    let writer = Writer { chunk: vec![0x5a; size].into(), warm, count };
    let reader = Reader { warm: warm * size, left: count * size, mark: None, done: Some(done), units };
    match way {
        Way::Up => start(&stack, run, writer, reader).await?,
        Way::Down => start(&stack, run, reader, writer).await?,
    }
    sample.await?
}

/// Echoes.
struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: Dyn<'_>, data: &[u8]) -> CallbackResult<usize> {
        transport.write(data);
        Ok(data.len())
    }
}

/// Sends a request, and the next one when the answer is complete.
struct Asker {
    request: Vec<u8>,
    /// The phase of the run, and when it ends.
    phase: Phase,
    last: Instant,
    latencies: Vec<u32>,
    begin: Arc<tokio::sync::Barrier>,
    warm: Duration,
    full: Duration,
    done: Option<oneshot::Sender<Vec<u32>>>,
}

enum Phase {
    Warm { until: Instant },
    Waiting,
    Full { until: Instant },
}

impl Asker {
    fn ask(&mut self, transport: Dyn<'_>, now: Instant) {
        self.last = now;
        transport.write(&self.request);
    }
}

impl Protocol for Asker {
    fn handshake_completed(&mut self, transport: Dyn<'_>) -> CallbackResult {
        let now = Instant::now();
        self.phase = Phase::Warm { until: now + self.warm };
        self.ask(transport, now);
        Ok(())
    }

    fn data_received(&mut self, transport: Dyn<'_>, data: &[u8]) -> CallbackResult<usize> {
        if data.len() < self.request.len() {
            return Ok(0);
        }
        let now = Instant::now();
        match self.phase {
            Phase::Warm { until } if now >= until => {
                self.phase = Phase::Waiting;
                // All protocols start at the same time, from a timer's callback.
                let (begin, handle) = (self.begin.clone(), transport.handle());
                tokio::spawn(async move {
                    begin.wait().await;
                    handle.set_timer(Some(Duration::ZERO));
                });
            }
            Phase::Full { until } => {
                self.latencies.push(u32::try_from((now - self.last).as_nanos()).unwrap_or(u32::MAX));
                if now < until {
                    self.ask(transport, now);
                } else if let Some(done) = self.done.take() {
                    let _ = done.send(std::mem::take(&mut self.latencies));
                }
            }
            Phase::Warm { .. } => self.ask(transport, now),
            Phase::Waiting => {}
        }
        Ok(data.len())
    }

    fn timer_fired(&mut self, transport: Dyn<'_>) -> CallbackResult {
        let now = Instant::now();
        self.phase = Phase::Full { until: now + self.full };
        self.ask(transport, now);
        Ok(())
    }
}

/// As [`pingpong::run`](super::pingpong::run).
pub async fn pingpong(stack: Bowline, run: Run, size: usize, connections: usize) -> Result<Sample> {
    let begin = meeting(connections + 1);
    let mut clients = Vec::new();
    for _ in 0..connections {
        let (done, latencies) = oneshot::channel();
        let asker = Asker {
            request: vec![0x5a; size],
            phase: Phase::Waiting,
            last: Instant::now(),
            latencies: Vec::with_capacity(1 << 12),
            begin: begin.clone(),
            warm: run.warm_time(),
            full: run.time(),
            done: Some(done),
        };
        start(&stack, run, asker, Echo).await?;
        clients.push(latencies);
    }
    begin.wait().await;
    let mark = Mark::now()?;
    let mut latencies = Vec::new();
    for client in clients {
        latencies.extend(client.await?);
    }
    let mut sample = mark.sample(latencies.len() as f64)?;
    sample.latency = percentiles(latencies);
    Ok(sample)
}

/// Echoes one message, and then waits for another, or writes until it stalls.
struct Waiter {
    watch: Watch,
    /// The bytes to write until it stalls, shared by all connections.
    stall: Option<Arc<[u8]>>,
}

impl Protocol for Waiter {
    fn data_received(&mut self, transport: Dyn<'_>, data: &[u8]) -> CallbackResult<usize> {
        if data.len() < MESSAGE {
            return Ok(0);
        }
        transport.write(data);
        self.watch.ready();
        if let Some(chunk) = self.stall.take() {
            let pieces = Pieces { chunk, left: usize::MAX, watch: Some(self.watch.clone()) };
            transport.register_producer(Producer::pull(pieces))?;
        }
        Ok(data.len())
    }
}

/// As [`memory::idle`] and [`memory::stalled`].
pub async fn memory(stack: Bowline, run: Run, pki: &Pki, id: &str, count: usize, stall: bool) -> Result<Sample> {
    let piece: Arc<[u8]> = vec![0; 16 << 10].into();
    memory::measure(run, pki, id, count, false, |tcp, watch| {
        let stall = stall.then(|| piece.clone());
        let runner = Runner::new(Waiter { watch, stall }, UpgradableConnection::<TcpConnection>::new(stack.tcp(tcp)?));
        tokio::spawn(runner.begin_tls(StartTls::server(&stack.server)).run());
        Ok(())
    })
    .await
}
