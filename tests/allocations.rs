//! Counts the allocations of the callback face, and the memory that it keeps. This is a program of its own, because the
//! allocator and the descriptors belong to the whole process.
//!
//! Measured in the steady state: an echo over TCP allocates nothing. An echo over TLS 1.3 makes four allocations,
//! counted at both ends together, all by rustls.
#![allow(clippy::unwrap_used)]

#[path = "faults/heap.rs"]
mod heap;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bowline::protocol::{CallbackResult, Conn, Framed, MessageConn, MessageProtocol, Protocol, Runner};
use bowline::rustls::ContentType;
use bowline::testing::peer::RawTls;
use bowline::testing::{BoxTransport, Kind, pair, raw_tcp_pair, shared_pki, tcp_pair};
use bowline::{
    ClientTls, CloseReport, Connector, Listener, Phase, Policy, Reason, ServerTls, SocketOptions as _, TcpConnection,
    TlsConnection, Transport,
};
use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::codec::LinesCodec;

/// The counters belong to the whole process, so only one test runs at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for this test's turn. A test that has failed in its turn does not make the others fail.
fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        transport.write(data);
        Ok(data.len())
    }
}

const ROUNDS: u64 = 1_000;

async fn exchange(peer: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), rounds: u64) -> u64 {
    let before = heap::allocations();
    let mut answer = [0; 100];
    for _ in 0..rounds {
        peer.write_all(&[7; 100]).await.unwrap();
        peer.read_exact(&mut answer).await.unwrap();
    }
    heap::allocations() - before
}

/// The allocations for each echo. They include those of the peer if it is one of ours.
async fn for_each_echo(kind: Kind) -> f64 {
    let (mut peer, ours) = pair(kind).await.unwrap();
    let running = tokio::spawn(Runner::new(Echo, ours).run());
    exchange(&mut peer, 100).await;
    let count = exchange(&mut peer, ROUNDS).await;
    peer.close().await;
    running.await.unwrap();
    count as f64 / ROUNDS as f64
}

/// rule: life-4, write-7
#[test]
fn an_echo_costs_no_allocation_of_ours() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (tcp, tls) = runtime.block_on(async { (for_each_echo(Kind::Tcp).await, for_each_echo(Kind::Tls13).await) });
    println!("allocations for each echo: {tcp:.2} over TCP, {tls:.2} over TLS 1.3, both ends together");
    assert!(tcp <= 0.01, "{tcp} allocations for each echo over TCP");
    assert!(tls <= 4.5, "{tls} allocations for each echo over TLS 1.3, both ends together");
}

#[derive(Debug, Clone, Copy)]
enum Over {
    Tcp,
    Tls,
    TlsExpress,
}

/// The code that serves one end.
#[derive(Debug, Clone, Copy)]
enum Face {
    /// A task that reads and writes.
    Async,
    Callback,
}

async fn connect(over: Over, client_tls: &ClientTls, server_tls: &ServerTls) -> (BoxTransport, BoxTransport) {
    let (client, server) = tcp_pair().await.unwrap();
    if let Over::Tcp = over {
        return (Box::new(client), Box::new(server));
    }
    let connecting = TlsConnection::connect(client, client_tls, "localhost");
    let (client, server) = tokio::join!(connecting, TlsConnection::accept(server, server_tls));
    (Box::new(client.unwrap()), Box::new(server.unwrap()))
}

/// Without tickets, because the memory that a client keeps to resume a session does not belong to the connection.
fn without_tickets() -> ServerTls {
    let mut config = shared_pki().server_tls().config().as_ref().clone();
    config.send_tls13_tickets = 0;
    Arc::new(config).into()
}

/// The bytes that each of many idle connections holds: both ends, and the task that serves one of them.
async fn held_by_each(over: Over, face: Face) -> i64 {
    const COUNT: usize = 16;
    let (mut client_tls, mut server_tls) = (shared_pki().client_tls(), without_tickets());
    if let Over::TlsExpress = over {
        (client_tls, server_tls) = (client_tls.express().unwrap(), server_tls.express().unwrap());
    }
    /// One-time allocations are done after this many connections.
    const FIRST: usize = 4;
    let (mut kept, mut before) = (Vec::with_capacity(FIRST + COUNT), 0);
    for at in 0..FIRST + COUNT {
        if at == FIRST {
            before = heap::held();
        }
        let (mut peer, mut ours) = connect(over, &client_tls, &server_tls).await;
        let task = match face {
            Face::Callback => tokio::spawn(async { drop(Runner::new(Echo, ours).run().await) }),
            Face::Async => tokio::spawn(async move {
                let mut message = [0; 100];
                while ours.read_exact(&mut message).await.is_ok() {
                    ours.write_all(&message).await.unwrap();
                }
            }),
        };
        exchange(&mut peer, 3).await;
        // This read finds no bytes. The connection releases its buffer after such a read.
        let more = poll_fn(|cx| Poll::Ready(Pin::new(&mut peer).poll_fill_buf(cx).is_ready())).await;
        assert!(!more);
        kept.push((peer, task));
    }
    (heap::held() - before) / COUNT as i64
}

/// The bounds are a tenth above the measured sizes, so that a change that makes a connection larger fails here.
#[test]
fn an_idle_connection_holds_little() {
    let _turn = turn();
    let mut too_much = Vec::new();
    for (over, face, bound) in [
        (Over::Tcp, Face::Async, 2_740),
        (Over::Tcp, Face::Callback, 3_490),
        (Over::Tls, Face::Async, 20_300),
        (Over::Tls, Face::Callback, 20_900),
        (Over::TlsExpress, Face::Async, 8_700),
        (Over::TlsExpress, Face::Callback, 9_400),
    ] {
        // Each run has a runtime of its own, so that its tasks end with it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let held = runtime.block_on(held_by_each(over, face));
        println!("{over:?}, {face:?}: {held} bytes, both ends together");
        if held > bound {
            too_much.push((over, face, held, bound));
        }
    }
    assert!(too_much.is_empty(), "{too_much:?}");
}

/// Answers each line with a hundred bytes.
struct Help;

impl MessageProtocol for Help {
    type Codec = LinesCodec;

    fn codec(&self) -> LinesCodec {
        LinesCodec::new_with_max_length(1_000)
    }

    fn message_received(&mut self, transport: &mut MessageConn<'_, LinesCodec>, _: String) -> CallbackResult {
        transport.send("h".repeat(99))
    }
}

/// The number of peers that send and do not read.
const DEAF: usize = 16;

/// Serves this many connections until their peers have closed. Returns the most bytes that each of them held.
fn most_held(listener: std::net::TcpListener, over: Over, is_framed: bool) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server_tls = match over {
        Over::Tcp | Over::Tls => without_tickets(),
        Over::TlsExpress => without_tickets().express().unwrap(),
    };
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = Listener::from_std(listener).unwrap();
        let mut tasks = Vec::new();
        let before = heap::held();
        for _ in 0..DEAF {
            let incoming = listener.accept().await.unwrap();
            let tls = (!matches!(over, Over::Tcp)).then_some(&server_tls);
            tasks.push(match is_framed {
                true => tokio::spawn(async_drop(Runner::accept(Framed::new(Help), incoming, tls).run())),
                false => tokio::spawn(async_drop(Runner::accept(Echo, incoming, tls).run())),
            });
        }
        heap::forget_most();
        for task in tasks {
            task.await.unwrap();
        }
        (heap::most_held() - before) / DEAF as i64
    })
}

async fn async_drop(running: impl Future<Output = CloseReport>) {
    drop(running.await);
}

/// Sends lines until no more are accepted, and never reads.
async fn send_and_do_not_read(address: std::net::SocketAddr, over: Over) -> BoxTransport {
    let tcp = Connector::new().connect_addr(address).await.unwrap();
    tcp.set_recv_buffer_size(64 << 10).unwrap();
    let mut peer: BoxTransport = match over {
        Over::Tcp => Box::new(tcp),
        Over::Tls | Over::TlsExpress => {
            Box::new(TlsConnection::connect(tcp, &shared_pki().client_tls(), "localhost").await.unwrap())
        }
    };
    let lines = "HELP\n".repeat(4_000);
    while let Ok(written) = timeout(Duration::from_millis(500), peer.write_all(lines.as_bytes())).await {
        written.unwrap();
    }
    peer
}

/// The limit that the documentation of `bowline::protocol` promises, with the default marks.
///
/// rule: write-10
#[test]
fn a_peer_that_sends_and_does_not_read_uses_little_memory() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (over, bound) in [(Over::Tcp, 256 << 10), (Over::Tls, 512 << 10), (Over::TlsExpress, 512 << 10)] {
        for is_framed in [true, false] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            // Accepted connections inherit this small send buffer, so that the bytes queue in our process and not in
            // the kernel.
            socket2::SockRef::from(&listener).set_send_buffer_size(64 << 10).unwrap();
            let address = listener.local_addr().unwrap();
            // The server needs a thread of its own, because the counters are per thread.
            let serving = std::thread::spawn(move || most_held(listener, over, is_framed));
            runtime.block_on(async {
                let peers: Vec<_> = (0..DEAF).map(|_| tokio::spawn(send_and_do_not_read(address, over))).collect();
                for peer in peers {
                    peer.await.unwrap().abort();
                }
            });
            let held = serving.join().unwrap();
            println!("{over:?}, messages {is_framed}: {held} bytes for each peer that does not read");
            assert!(held < bound, "{over:?}, messages {is_framed}: {held} bytes for each peer");
        }
    }
}

/// The first part of a message stays in place and grows. It is not copied for each record that adds a part.
///
/// rule: write-10
#[test]
fn a_message_in_records_of_one_byte_is_not_copied_for_each() {
    const RECORDS: usize = 10_000;
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (count, reason) = runtime.block_on(async {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let client = ClientTls::builder().root(shared_pki().ca_der()).express().build().unwrap();
        let server = shared_pki().server_tls();
        let ours = TcpConnection::new(ours, Policy::default()).unwrap();
        let (ours, peer) =
            tokio::join!(TlsConnection::connect(ours, &client, "localhost"), RawTls::server(theirs, &server));
        let (mut ours, mut peer) = (ours.unwrap(), peer.unwrap());
        // The peer begins a ticket of 60 kB, and never ends it.
        peer.record(ContentType::Handshake, &[4, 0, 0xea, 0x60]);
        for _ in 0..RECORDS {
            peer.record(ContentType::Handshake, &[0]);
        }
        peer.data(b"instead");
        let before = heap::allocations();
        let (sent, read) = tokio::join!(peer.send(), ours.read_u8());
        sent.unwrap();
        (heap::allocations() - before, Reason::from_io(read.unwrap_err(), Phase::Open))
    });
    assert!(matches!(reason, Reason::Tls(_)), "{reason:?}");
    assert!(count < RECORDS as u64 / 10, "{count} allocations for {RECORDS} records");
}

#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A handle is kept for each way to end.
///
/// rule: life-4
#[cfg(target_os = "linux")]
#[test]
fn kept_handles_leave_no_descriptor_and_no_task_after_the_end() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let before = (descriptors(), tokio::runtime::Handle::current().metrics().num_alive_tasks());
        let mut handles = Vec::new();
        for kind in Kind::ALL {
            for how in 0..4 {
                let (mut peer, ours) = pair(kind).await.unwrap();
                let runner = Runner::new(Echo, ours);
                let handle = runner.handle();
                let task = tokio::spawn(runner.run());
                handle.set_timer(Some(std::time::Duration::from_secs(3_600)));
                exchange(&mut peer, 1).await;
                match how {
                    0 => handle.close(),
                    1 => handle.abort(),
                    2 => handle.fail("mine"),
                    _ => task.abort(),
                }
                peer.close().await;
                drop(peer);
                let _ = task.await;
                handles.push(handle);
            }
        }
        let after = (descriptors(), tokio::runtime::Handle::current().metrics().num_alive_tasks());
        assert_eq!(after, before);
        assert!(handles.iter().all(|handle| handle.is_lost()));
    });
}
