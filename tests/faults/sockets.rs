//! Faults on real sockets: while connecting, and inside a PROXY header.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::proxy::{ProxyHeader, ProxyProtocol};
use bowline::testing::peer::RawTcp;
use bowline::testing::{raw_tcp_pair, shared_pki};
use bowline::{Connector, Error, Listener, Outcome, Phase, Policy, Reason, TcpConnection, TlsConnection};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cell::{Fault, Kind, Shape, Side};

/// This limit only ends a test that hangs. It is no test of speed.
const HANG: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_millis(300);

/// The time limit of a handshake. Only a silent peer reaches it.
fn limit(fault: Fault) -> Duration {
    if fault == Fault::Silence { LIMIT } else { HANG }
}

const FAULTS: [Fault; 6] = [Fault::Fin, Fault::Rst, Fault::Silence, Fault::Garbage, Fault::Pieces(1), Fault::TalkRaw];

/// Waits until no other test of this program uses sockets.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The peer sends the first bytes of a header, if there are any, and then causes the fault. Returns the peer, because a
/// drop would end the connection.
async fn cause(fault: Fault, stream: TcpStream, sent: &[u8], rest: &[u8]) -> RawTcp {
    let mut peer = RawTcp::new(stream).patience(Duration::from_millis(10));
    let _ = peer.send(sent).await;
    let _ = match fault {
        Fault::Fin => peer.fin(),
        Fault::Rst => {
            peer.reset().await;
            Ok(())
        }
        Fault::Garbage => peer.send(&b"GARBAGE\r\n\r\n".repeat(100)).await,
        Fault::TalkRaw => {
            peer.talk(1 << 20).await;
            Ok(())
        }
        Fault::Pieces(_) => peer.trickle(rest).await,
        _ => Ok(()),
    };
    peer
}

/// The kind of a failure, for comparisons.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Success,
    Refused,
    Reason(Outcome, Option<Phase>),
    NotConnected { timed_out: bool },
}

fn end<T>(done: Result<T, Error>) -> End {
    match done {
        Ok(_) => End::Success,
        Err(Error::Proxy(_)) => End::Refused,
        Err(Error::Connect(error)) => End::NotConnected { timed_out: error.timed_out },
        Err(error) => {
            let reason: Reason = error.into();
            End::Reason(Outcome::of(&reason), reason.phase())
        }
    }
}

fn due(fault: Fault) -> End {
    let handshake = Some(Phase::Handshake);
    match fault {
        Fault::Fin => End::Reason(Outcome::Truncated, handshake),
        Fault::Rst => End::Reason(Outcome::Reset, handshake),
        Fault::Silence => End::Reason(Outcome::TimedOut, handshake),
        Fault::Pieces(_) => End::Success,
        _ => End::Reason(Outcome::Tls, handshake),
    }
}

type Cell = Pin<Box<dyn Future<Output = (String, End, End)>>>;

/// A header that stops in this place, for each way in which a connection begins.
fn headers(cells: &mut Vec<Cell>) {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let header = ProxyHeader::new(addr("192.0.2.7:51000"), addr("198.51.100.1:443"));
    for (version, bytes) in [(1, header.encode_v1()), (2, header.encode_v2())] {
        for (at, fault) in [0, 10].into_iter().flat_map(|at| FAULTS.map(|fault| (at, fault))) {
            for way in ["plaintext", "TLS", "upgradable"] {
                // With this fault, the header is complete, and in TLS a handshake would have to follow. So only
                // plaintext is tested.
                if matches!(fault, Fault::Pieces(_)) && way != "plaintext" {
                    continue;
                }
                let bytes = bytes.clone();
                cells.push(Box::pin(async move {
                    let policy = Policy::default().handshake_timeout(limit(fault));
                    let proxy = ProxyProtocol::require("127.0.0.0/8".parse().unwrap());
                    let builder = Listener::builder().policy(policy).proxy(proxy);
                    let listener = builder.bind("127.0.0.1:0").await.unwrap();
                    let stream = TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
                    let incoming = listener.accept().await.unwrap();
                    let tls = shared_pki().server_tls();
                    let begin = async {
                        match way {
                            "plaintext" => end(incoming.begin_plaintext().await),
                            "TLS" => end(incoming.handshake(&tls).await),
                            _ => end(incoming.handshake_upgradable(&tls).await),
                        }
                    };
                    let (seen, _peer) = tokio::join!(begin, cause(fault, stream, &bytes[..at], &bytes[at..]));
                    let due = match fault {
                        Fault::Garbage | Fault::TalkRaw => End::Refused,
                        // The reason may name another phase, because a plaintext connection counts as open.
                        Fault::Rst => match seen {
                            End::Reason(Outcome::Reset, phase) => End::Reason(Outcome::Reset, phase),
                            _ => due(fault),
                        },
                        _ => due(fault),
                    };
                    (format!("PROXY v{version} at {at}, {way}, {fault:?}"), due, seen)
                }));
            }
        }
    }
}

/// A server that fails as soon as it has accepted, and one that never accepts.
fn connects(cells: &mut Vec<Cell>) {
    for kind in Kind::all().into_iter().filter(|kind| kind.shape == Shape::Tls && kind.side == Side::Client) {
        for fault in FAULTS.into_iter().filter(|fault| !matches!(fault, Fault::Pieces(_))) {
            cells.push(Box::pin(async move {
                let (ours, theirs) = raw_tcp_pair().await.unwrap();
                let tcp = TcpConnection::new(ours, Policy::default().handshake_timeout(limit(fault))).unwrap();
                let (tls, _) = kind.configs_of_engine();
                let connecting = async { end(TlsConnection::connect(tcp, &tls, "localhost").await) };
                let (seen, _peer) = tokio::join!(connecting, cause(fault, theirs, &[], &[]));
                (format!("connecting, {kind:?}, {fault:?}"), due(fault), seen)
            }));
        }
    }
    cells.push(Box::pin(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let seen = end(Connector::new().timeout(HANG).connect_addr(addr).await);
        ("a port that nobody listens on".into(), End::NotConnected { timed_out: false }, seen)
    }));
    #[cfg(target_os = "linux")]
    cells.push(Box::pin(async {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        // When the backlog is full, the system drops every further SYN.
        let mut waiting = Vec::new();
        while let Ok(stream) = timeout(LIMIT, TcpStream::connect(addr)).await {
            waiting.push(stream);
        }
        let seen = end(Connector::new().timeout(LIMIT).connect_addr(addr).await);
        ("a server that never accepts".into(), End::NotConnected { timed_out: true }, seen)
    }));
}

/// rule: end-6, proxy-3, secure-5, tcp-4
#[test]
fn every_fault_while_connecting_and_in_a_proxy_header_ends_in_time_with_the_right_reason() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let mut cells = Vec::new();
    headers(&mut cells);
    connects(&mut cells);
    let count = cells.len();
    // All cells run at the same time, because most of them wait for a limit.
    let wrong = local.block_on(&runtime, async {
        let tasks: Vec<_> = cells.into_iter().map(|cell| tokio::task::spawn_local(timeout(HANG, cell))).collect();
        let mut wrong = Vec::new();
        for task in tasks {
            let (name, due, seen) = task.await.unwrap().unwrap();
            if due != seen {
                wrong.push(format!("{name}: due {due:?}, seen {seen:?}"));
            }
        }
        wrong
    });
    println!("Sockets: {count} of {count} cells");
    assert!(wrong.is_empty(), "{} of {count} cells:\n{}", wrong.len(), wrong.join("\n"));
}
