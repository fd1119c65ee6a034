//! hyper answers 413 without reading the body. The answer reaches clients that send the whole body first (rule: close-15).
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::path::Path;
use std::process::Stdio;

use bowline::testing::pki::Pki;
use bowline::{Lingering, Listener, ServerTls, TlsListener, Transport};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::process::Command;

const TIMES: usize = 50;
const ANSWER: usize = 300_000;

async fn refuse(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = Response::builder().status(StatusCode::PAYLOAD_TOO_LARGE);
    Ok(answer.header("connection", "close").body(Full::from(vec![b'x'; ANSWER])).unwrap())
}

async fn serve(connection: impl Transport) {
    let io = TokioIo::new(Lingering::new(connection));
    let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(io, hyper::service::service_fn(refuse)).await;
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

async fn python(port: u16, ca: &str) -> usize {
    let mut command = Command::new("python3");
    let (port, times, answer) = (port.to_string(), TIMES.to_string(), ANSWER.to_string());
    command.args(["-c", PYTHON, &port, &times, ca, &answer]).stderr(Stdio::inherit()).kill_on_drop(true);
    String::from_utf8(command.output().await.unwrap().stdout).unwrap().trim().parse().unwrap()
}

async fn curl(port: u16, ca: &str, body: &Path) -> usize {
    let mut lost = 0;
    for _ in 0..TIMES {
        let scheme = if ca.is_empty() { "http" } else { "https" };
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", "-H", "Expect:"]);
        // With --http2, curl asks for an upgrade in plaintext, and hyper drops a connection whose client has asked for one without
        // a shutdown.
        command.arg("--http1.1");
        if !ca.is_empty() {
            command.args(["--cacert", ca]);
        }
        command.arg("--data-binary").arg(format!("@{}", body.display()));
        let output = command.arg(format!("{scheme}://localhost:{port}/")).kill_on_drop(true).output().await.unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        if !output.status.success() || told != format!("413 {ANSWER}") {
            eprintln!("{told}: {}", String::from_utf8_lossy(&output.stderr));
            lost += 1;
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_body_that_is_refused_reaches_every_client() {
    let pki = Pki::new();
    let identity = pki.server(&["localhost"]);
    let dir = tempfile::tempdir().unwrap();
    let (ca, body) = (dir.path().join("ca.pem"), dir.path().join("body"));
    std::fs::write(&ca, pki.ca_pem()).unwrap();
    std::fs::write(&body, vec![0; 600_000]).unwrap();

    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().as_inet().unwrap().port();
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            tokio::spawn(serve(incoming.into_tcp()));
        }
    });
    let tls = ServerTls::builder().identity_pem(identity.chain_pem(), identity.key_pem()).alpn(["http/1.1"]);
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = TlsListener::new(listener, tls.build().unwrap());
    let tls = listener.local_addr().as_inet().unwrap().port();
    tokio::spawn(async move {
        while let Ok(connection) = listener.accept().await {
            tokio::spawn(serve(connection));
        }
    });

    let ca = ca.to_str().unwrap();
    let lost =
        (python(plain, "").await, python(tls, ca).await, curl(plain, "", &body).await, curl(tls, ca, &body).await);
    assert_eq!(lost, (0, 0, 0, 0));
}
