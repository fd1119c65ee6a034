//! A server answers 413 without reading the body. The answer reaches clients that send the whole body first
//! (rule: close-15).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use bowline::Listener;
use bowline::hyper::{HttpConnector, Server};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Child;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::common::{Certs, example, program};

/// Requests of each client to each server.
const TIMES: usize = 25;
/// The same in a test that is not run by default.
const MANY: usize = 100;
const BODY: usize = 600_000;
const ANSWER: usize = 300_000;

async fn refuse<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE);
    if request.version() <= Version::HTTP_11 {
        answer = answer.header("connection", "close");
    }
    Ok(answer.body(Full::from(vec![b'x'; ANSWER])).unwrap())
}

/// Sends all of a body before it reads, and prints how many answers were not whole.
const PYTHON: &str = "
import socket, ssl, sys
port, times, ca, expected = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
lost = 0
for _ in range(times):
    try:
        s = socket.create_connection(('localhost', port), timeout=20)
        if ca:
            s = ssl.create_default_context(cafile=ca).wrap_socket(s, server_hostname='localhost')
        s.sendall(b'POST / HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 600000\\r\\n\\r\\n' + bytes(600000))
        answer = b''
        while part := s.recv(65536):
            answer += part
        head, _, body = answer.partition(b'\\r\\n\\r\\n')
        lost += not head.startswith(b'HTTP/1.1 413') or len(body) != expected
    except OSError as error:
        print(error, file=sys.stderr)
        lost += 1
print(lost)
";

/// One port of a server, as its clients reach it.
struct Place {
    name: &'static str,
    port: u16,
    is_tls: bool,
    times: usize,
}

impl Place {
    fn url(&self) -> String {
        format!("{}://localhost:{}/", if self.is_tls { "https" } else { "http" }, self.port)
    }

    async fn python(&self, certs: &Certs) -> usize {
        let ca = certs.path("ca.pem");
        let ca = if self.is_tls { ca.to_str().unwrap() } else { "" };
        let (port, times, answer) = (self.port.to_string(), self.times.to_string(), ANSWER.to_string());
        let output = program("python3", &["-c", PYTHON, &port, &times, ca, &answer]).output().await.unwrap();
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    async fn curl(&self, certs: &Certs, version: &str) -> usize {
        let body = format!("@{}", certs.path("body").display());
        let is_http2 = self.is_tls && version == "--http2" || version == "--http2-prior-knowledge";
        let mut lost = 0;
        for _ in 0..self.times {
            let url = self.url();
            let arguments = ["-o", "/dev/null", "-w", "%{http_code} %{size_download}", "-H", "Expect:", version];
            let mut arguments = [&arguments[..], &["--data-binary", &body, &url]].concat();
            if is_http2 {
                // curl ends the body when it reads the status. If it had told a length, that would be a protocol error,
                // and the answer is lost if the server finds it before the answer is queued.
                arguments.extend(["-H", "Transfer-Encoding: chunked"]);
            }
            let mut curl = certs.curl(&arguments);
            let output = curl.output().await.unwrap();
            let told = String::from_utf8(output.stdout).unwrap();
            if !output.status.success() || told != format!("413 {ANSWER}") {
                eprintln!("{} {version}: {told}: {}", self.name, String::from_utf8_lossy(&output.stderr));
                lost += 1;
            }
        }
        lost
    }

    async fn hyper(&self, certs: &Certs, alpn: &str) -> usize {
        let mut lost = 0;
        for _ in 0..self.times {
            let connector = HttpConnector::new(certs.client_tls(&[alpn]));
            let mut client = Client::builder(TokioExecutor::new());
            client.http2_only(alpn == "h2");
            let client = client.build::<_, Full<Bytes>>(connector);
            let request = Request::post(self.url()).body(Full::from(vec![0; BODY])).unwrap();
            let asked = async {
                let answer = client.request(request).await?;
                let status = answer.status();
                let body = answer.into_body().collect().await?.to_bytes();
                Ok::<_, Box<dyn std::error::Error>>((status, body.len()))
            };
            match asked.await {
                Ok((StatusCode::PAYLOAD_TOO_LARGE, ANSWER)) => {}
                Ok(other) => {
                    eprintln!("{} hyper {alpn}: {other:?}", self.name);
                    lost += 1;
                }
                Err(error) => {
                    eprintln!("{} hyper {alpn}: {}", self.name, bowline::chain(&*error));
                    lost += 1;
                }
            }
        }
        lost
    }
}

/// A server in plaintext, one over TLS, and one in plaintext after the terminator, which ends TLS in a process of its
/// own.
async fn places(certs: &Certs, times: usize) -> ([Place; 3], Child) {
    let plain = Listener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr();
    tokio::spawn(async move { Server::new().serve(plain, service_fn(refuse)).await });
    let (listener, tls, _) = certs.listener().await;
    tokio::spawn(async move { Server::new().serve(listener, service_fn(refuse)).await });
    let (cert, key) = (certs.path("server.pem"), certs.path("server.key"));
    let listen = format!("tls:127.0.0.1:0:cert={}:key={}:alpn=h2,http/1.1", cert.display(), key.display());
    let terminator = tokio::task::spawn_blocking(|| example("terminator")).await.unwrap();
    let mut terminator = program(terminator.to_str().unwrap(), &["--listen", &listen, "--connect"]);
    let mut terminator = terminator.arg(format!("tcp:{address}")).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(terminator.stdout.take().unwrap()).lines();
    let listening = lines.next_line().await.unwrap().unwrap();
    let relayed: SocketAddr = listening.strip_prefix("listening tls ").unwrap().parse().unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let places = [
        Place { name: "plaintext", port: address.as_inet().unwrap().port(), is_tls: false, times },
        Place { name: "TLS", port: tls, is_tls: true, times },
        Place { name: "after the terminator", port: relayed.port(), is_tls: true, times },
    ];
    (places, terminator)
}

/// The answers that each client has lost.
async fn lost(certs: &Certs, places: impl IntoIterator<Item = Place>) -> Vec<(String, usize)> {
    std::fs::write(certs.path("body"), vec![0; BODY]).unwrap();
    let mut all = Vec::new();
    for place in places {
        let mut note = |client: &str, lost| all.push((format!("{}, {client}", place.name), lost));
        note("Python", place.python(certs).await);
        note("curl, HTTP/1.1", place.curl(certs, "--http1.1").await);
        let version = if place.is_tls { "--http2" } else { "--http2-prior-knowledge" };
        note("curl, HTTP/2", place.curl(certs, version).await);
        if !place.is_tls {
            // curl asks for an upgrade that does not happen.
            note("curl, HTTP/2 by upgrade", place.curl(certs, "--http2").await);
        }
        note("hyper, HTTP/1.1", place.hyper(certs, "http/1.1").await);
        note("hyper, HTTP/2", place.hyper(certs, "h2").await);
    }
    all.retain(|(_, lost)| *lost > 0);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_body_that_is_refused_reaches_every_client() {
    let certs = Certs::new();
    let (places, _terminator) = places(&certs, TIMES).await;
    let lost = lost(&certs, places).await;
    assert!(lost.is_empty(), "of {TIMES} answers each, lost: {lost:?}");
}

/// Measures the row "under hyper" of the README.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: cargo test --manifest-path tests/frameworks/Cargo.toml -- --ignored --nocapture"]
async fn the_answers_that_are_lost_here_and_over_tokio_rustls() {
    let certs = Certs::new();
    let identity = certs.pki.server(&["localhost"]);
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(identity.chain_der(), identity.key_der()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let io = TokioIo::new(acceptor.accept(tcp).await?);
                Builder::new(TokioExecutor::new()).serve_connection(io, service_fn(refuse)).await
            });
        }
    });
    let theirs = lost(&certs, [Place { name: "tokio-rustls", port, is_tls: true, times: MANY }]).await;
    println!("of {MANY} answers each, lost over tokio-rustls: {theirs:?}");
    let (places, _terminator) = places(&certs, MANY).await;
    let ours = lost(&certs, places).await;
    println!("here: {ours:?}");
    assert!(ours.is_empty(), "of {MANY} answers each, lost: {ours:?}");
}
