//! Many connections at once, each a protocol, in one process.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline::protocol::{CallbackResult, Conn, Protocol, Server, every};
use bowline::testing::shared_pki;
use bowline::{ClientTls, Connector, Listener, Reason, TcpConnection, TlsConnection, Transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

#[derive(Default)]
struct Count {
    clean: AtomicUsize,
    lost: AtomicUsize,
}

struct Echo(Arc<Count>);

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        transport.write(data);
        Ok(data.len())
    }

    fn connection_lost(&mut self, reason: &Reason) {
        if reason.is_clean() {
            self.0.clean.fetch_add(1, Ordering::Relaxed);
        }
        self.0.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Another process opens this many connections, and all of them echo. Then the memory of the idle connections is
/// measured, all of them echo again, and are closed.
async fn crowd(len: usize, tls: bool) {
    raise_descriptor_limit(len + 200);
    let count = Arc::new(Count::default());
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().as_inet().unwrap();
    let counted = Arc::clone(&count);
    let server = Server::new(listener, every(move || Echo(Arc::clone(&counted))));
    let server = if tls { server.tls(&shared_pki().server_tls()) } else { server };
    let serving = tokio::spawn(server.run());
    let before = resident();

    let mut peers = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_peers", "--ignored", "--nocapture"])
        .env("CROWD", format!("{address} {len} {tls}"))
        .env("CROWD_CA", shared_pki().ca_pem())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(peers.stdout.take().unwrap()).lines();
    until(&mut lines, "idle").await;
    assert_eq!(count.lost.load(Ordering::Relaxed), 0);
    if let (Some(before), Some(now)) = (before, resident()) {
        let each = now.saturating_sub(before) as f64 / len as f64;
        println!("{len} connections, tls {tls}: {each:.1} KiB for each");
    }
    peers.stdin.take().unwrap().write_all(b"close\n").await.unwrap();
    until(&mut lines, "closed").await;
    assert!(peers.wait().await.unwrap().success());
    while count.lost.load(Ordering::Relaxed) < len {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count.clean.load(Ordering::Relaxed), len);
    serving.abort();
}

async fn until(lines: &mut Lines<BufReader<ChildStdout>>, wanted: &str) {
    while lines.next_line().await.unwrap().expect("the peers failed") != wanted {}
}

/// The other process. Its environment variables contain its task.
#[tokio::test]
#[ignore = "the other tests start it, in a process of its own"]
async fn the_peers() {
    let Ok(task) = std::env::var("CROWD") else { return };
    let [address, len, tls] = task.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (address, len, tls): (SocketAddr, usize, bool) =
        (address.parse().unwrap(), len.parse().unwrap(), tls.parse().unwrap());
    raise_descriptor_limit(len + 200);
    let client_tls = ClientTls::builder().roots_pem(std::env::var("CROWD_CA").unwrap()).build().unwrap();
    let mut peers: Vec<Box<dyn Transport>> = Vec::new();
    for _ in 0..len {
        let tcp: TcpConnection = Connector::new().connect_addr(address).await.unwrap();
        peers.push(match tls {
            true => Box::new(TlsConnection::connect(tcp, &client_tls, "localhost").await.unwrap()),
            false => Box::new(tcp),
        });
    }
    echo(&mut peers).await;
    println!("\nidle");
    BufReader::new(tokio::io::stdin()).read_line(&mut String::new()).await.unwrap();
    echo(&mut peers).await;
    for peer in &mut peers {
        peer.close_write().await.unwrap();
    }
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        assert!(peer.close().await.is_clean());
    }
    println!("\nclosed");
}

/// All connections send a request first, so that all are busy at once. Then all are answered.
async fn echo(peers: &mut [Box<dyn Transport>]) {
    for peer in &mut *peers {
        peer.write_all(b"anybody there?").await.unwrap();
    }
    for peer in peers {
        let mut answer = [0; 14];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"anybody there?");
    }
}

/// The memory of this process, in KiB, if the system reports it.
fn resident() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

fn raise_descriptor_limit(needed: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|maximum| maximum >= needed as u64), "too few descriptors are allowed here");
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

async fn bounded(check: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(240), check).await.expect("it ends");
}

/// rule: life-1, close-8
#[tokio::test]
async fn ten_thousand_connections_echo_and_close_clean() {
    bounded(crowd(10_000, false)).await;
}

/// rule: life-1, close-8
#[tokio::test]
async fn a_thousand_tls_connections_echo_and_close_clean() {
    bounded(crowd(1_000, true)).await;
}

/// `cargo test --release --all-features --test crowd -- --ignored --nocapture ten_thousand`
#[tokio::test]
#[ignore = "takes a release build to be quick"]
async fn ten_thousand_tls_connections_echo_and_close_clean() {
    bounded(crowd(10_000, true)).await;
}
