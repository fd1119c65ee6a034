//! The CPU time of a hyper server for a request of h2load: over tokio-rustls, and over this crate's connections bare,
//! in `Lingering` and in `hyper::Server`. The servers take turns, so that other load on the machine falls on all of
//! them.
//!
//! `cargo bench --manifest-path tests/frameworks/Cargo.toml`
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bowline::hyper::Server;
use bowline::testing::pki::Pki;
use bowline::{Lingering, Listener, ServerTls, TlsListener};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const SERVERS: [&str; 4] = ["tokio-rustls", "bare", "Lingering", "Server"];
const ROUNDS: usize = 9;
const REQUESTS: u32 = 20_000;

async fn answer<B>(_: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from(&[b'x'; 1024][..])))
}

fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    tokio::spawn(async move {
        let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service_fn(answer)).await;
    });
}

/// Starts a server in a thread of its own. Each message to the thread is answered by the CPU time that the thread has
/// used.
fn start(
    kind: &'static str,
    chain: String,
    key: String,
) -> (u16, tokio::sync::mpsc::UnboundedSender<()>, Receiver<Duration>) {
    let (port, started) = channel();
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listen(kind, &chain, &key, &port).await;
            while asked.recv().await.is_some() {
                let used = clock_gettime(ClockId::ThreadCPUTime);
                tell.send(Duration::try_from(used).unwrap()).unwrap();
            }
        });
    });
    (started.recv().unwrap(), ask, told)
}

async fn listen(kind: &'static str, chain: &str, key: &str, port: &Sender<u16>) {
    if kind == "tokio-rustls" {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain.unwrap(), key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (acceptor, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
        port.send(listener.local_addr().unwrap().port()).unwrap();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                serve(acceptor.accept(tcp).await.unwrap());
            }
        });
        return;
    }
    let tls = ServerTls::builder().identity_pem(chain, key).alpn(["h2", "http/1.1"]).build().unwrap();
    let mut listener = TlsListener::new(Listener::bind("127.0.0.1:0").await.unwrap(), tls);
    port.send(listener.local_addr().as_inet().unwrap().port()).unwrap();
    tokio::spawn(async move {
        if kind == "Server" {
            return Server::new().serve(listener, service_fn(answer)).await.unwrap();
        }
        loop {
            let connection = listener.accept().await.unwrap();
            if kind == "bare" { serve(connection) } else { serve(Lingering::new(connection)) }
        }
    });
}

fn main() {
    let pki = Pki::new();
    let identity = pki.server(&["localhost"]);
    let servers = SERVERS.map(|kind| start(kind, identity.chain_pem().to_owned(), identity.key_pem().to_owned()));
    println!(
        "microseconds of CPU for a request, median of {ROUNDS} rounds; requests per CPU second against tokio-rustls"
    );
    for (version, arguments) in [("HTTP/1.1", &["--h1", "-c", "64"][..]), ("HTTP/2", &["-m", "10", "-c", "8"])] {
        let mut used = SERVERS.map(|_| Vec::new());
        for round in 0..ROUNDS {
            for turn in 0..servers.len() {
                // In each round, another server is measured first.
                let number = (turn + round) % servers.len();
                let (port, ask, told) = &servers[number];
                let now = || {
                    ask.send(()).unwrap();
                    told.recv().unwrap()
                };
                let before = now();
                let mut h2load = Command::new("h2load");
                h2load.args(arguments).args(["-n", &REQUESTS.to_string(), &format!("https://127.0.0.1:{port}/")]);
                assert!(h2load.stdout(Stdio::null()).status().unwrap().success());
                used[number].push((now() - before) / REQUESTS);
            }
        }
        let medians = used.map(|mut used| {
            used.sort();
            used[ROUNDS / 2].as_secs_f64() * 1e6
        });
        for (kind, median) in SERVERS.iter().zip(medians) {
            println!("{version} {kind}: {median:.2} {:.2}", medians[0] / median);
        }
    }
}
