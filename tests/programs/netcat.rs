//! Netcat against the console and against `openssl s_server`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::tools::{Console, Running, ca, certs, example, netcat, pattern, spawn};

fn endpoint(kind: &str, addr: std::net::SocketAddr) -> String {
    format!("{kind}:localhost:{}", addr.port())
}

/// rule: half-2, half-6
#[test]
fn the_end_of_standard_input_ends_one_half_only() {
    let console = Console::start(&[]);
    for (kind, addr) in [("tcp", console.tcp), ("tls", console.tls)] {
        let input = [b"SUM\n".as_slice(), &pattern(3_000_000)].concat();
        let said = netcat(&["--ca", &ca(), "--report", &endpoint(kind, addr)]).feed(&input);
        assert_eq!(said.code(), 0, "{}", said.stderr);
        assert!(said.text().contains("\r\n3000000 "), "{}", said.text());
        let report = said.report();
        assert_eq!((&report["reason"], &report["sent"]), (&"closed".into(), &3_000_004.into()));
        assert_eq!(report["received"], said.stdout.len());
    }
    assert_eq!(console.lost(2).1["reason"], "closed");
}

/// rule: secure-12
#[test]
fn roots_of_the_platform_that_were_joined_are_all_trusted() {
    let console = Console::start(&[]);
    let strangers = bowline::testing::pki::Pki::new();
    let ours = std::fs::read_to_string(ca()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("roots.pem");
    std::fs::write(&file, format!("{}{ours}", strangers.ca_pem().trim_end())).unwrap();
    let roots = format!("SSL_CERT_FILE={}", file.display());
    let program = example("netcat").to_str().unwrap().to_owned();
    let said = Running::start("env", &[&roots, &program, "--report", &endpoint("tls", console.tls)]).feed(b"QUIT\n");
    assert_eq!(said.code(), 0, "{}", said.stderr);
}

#[test]
fn the_report_has_its_fields_in_order() {
    let console = Console::start(&[]);
    let said = netcat(&["--ca", &ca(), "--report", &endpoint("tls", console.tls)]).feed(b"INFO\n");
    let last = said.stderr.lines().last().unwrap();
    let order = [
        "reason",
        "detail",
        "sent",
        "received",
        "kind",
        "secure",
        "host",
        "peer",
        "version",
        "cipher",
        "group",
        "alpn",
        "sni",
        "resumed",
        "peer_subject",
    ];
    let places: Vec<_> = order.iter().map(|name| last.find(&format!("\"{name}\":")).unwrap()).collect();
    assert!(places.is_sorted(), "{last}");
    let theirs: Value = serde_json::from_str(said.text().lines().nth(1).unwrap()).unwrap();
    let ours = said.report();
    assert_eq!((&ours["host"], &ours["peer"]), (&theirs["peer"], &theirs["host"]));
    for same in ["version", "cipher", "group", "sni"] {
        assert_eq!(ours[same], theirs[same]);
    }
    assert_eq!(ours["peer_subject"], "CN=localhost,O=bowline test PKI");
}

#[test]
fn a_client_certificate_and_a_name_are_sent() {
    let console = Console::start(&["--client-ca", &ca(), "--client-optional", "--alpn", "rope"]);
    let (chain, key) = certs().client_paths();
    let endpoint = format!("tls:127.0.0.1:{}", console.tls.port());
    let args = ["--ca", &ca(), "--cert", chain.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let more = ["--name", "localhost", "--alpn", "knot,rope", "--tls12", &endpoint];
    let text = netcat(&[&args[..], &more].concat()).feed(b"INFO\n").text();
    let info: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&info["sni"], &info["alpn"]), (&"localhost".into(), &"rope".into()));
    assert_eq!(
        (&info["version"], &info["peer_subject"]),
        (&"TLSv1.2".into(), &"CN=development client,O=bowline test PKI".into(),)
    );
}

#[test]
fn the_peers_end_ends_netcat_although_standard_input_is_open() {
    let console = Console::start(&[]);
    let mut running = netcat(&["--ca", &ca(), &endpoint("tls", console.tls)]);
    running.write(b"CLOSE 100000\n");
    let said = running.wait();
    assert_eq!((said.code(), said.stdout.len()), (0, 100_000 + 25));
}

/// rule: half-6
#[test]
fn standard_input_is_sent_even_after_the_peers_end() {
    let console = Console::start(&[]);
    let input = [b"HALF 10\n".as_slice(), &pattern(5_000_000)].concat();
    assert_eq!(netcat(&["--ca", &ca(), &endpoint("tls", console.tls)]).feed(&input).code(), 0);
    assert_eq!(console.lost(1).1["received"], input.len());
}

/// rule: close-1
#[test]
fn without_half_close_the_end_of_standard_input_closes() {
    let console = Console::start(&[]);
    let said = netcat(&["--ca", &ca(), "--no-half-close", "--report", &endpoint("tls", console.tls)]).feed(b"SUM\n");
    assert_eq!((said.code(), &said.report()["reason"]), (0, &"closed".into()));
    assert_eq!(console.lost(1).1["reason"], "closed");
}

/// rule: abort-1
#[test]
fn abort_after_and_sigint_reset_the_connection() {
    let console = Console::start(&[]);
    let mut running = netcat(&["--ca", &ca(), "--abort-after", "1000", "--report", &endpoint("tls", console.tls)]);
    running.write(b"SEND 100000000\n");
    let said = running.wait();
    assert_eq!((said.code(), said.stdout.len(), &said.report()["reason"]), (0, 1000, &"aborted".into()));
    assert_eq!(console.lost(1).1["reason"], "reset");

    let mut running = netcat(&["--ca", &ca(), "--report", &endpoint("tls", console.tls)]);
    running.write(b"SUM\n");
    while console.log().iter().filter(|event| event["event"] == "secured").count() < 2 {
        thread::yield_now();
    }
    running.signal(Signal::INT);
    let said = running.wait();
    assert_eq!((said.code(), &said.report()["reason"]), (130, &"aborted".into()));
    assert_eq!(console.lost(2).1["reason"], "reset");
}

/// An `openssl s_server` that reverses lines.
struct Reverser(Child, u16);

impl Reverser {
    fn start(version: &str) -> Self {
        // s_server does not report the port that the system chose, so the test looks for a free one.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (chain, key) = certs().server_paths();
        let mut child = spawn(
            Command::new("openssl")
                .args(["s_server", "-rev", version, "-accept", &format!("127.0.0.1:{port}"), "-cert"])
                .args([chain.as_os_str(), "-cert_chain".as_ref(), chain.as_os_str(), "-key".as_ref(), key.as_os_str()])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        );
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.starts_with("ACCEPT")), "s_server does not listen");
        // The output of s_server is read, so that the program does not stop at a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self(child, port)
    }
}

impl Drop for Reverser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// rule: close-11
#[test]
fn netcat_talks_to_s_server() {
    for (flag, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let server = Reverser::start(flag);
        let endpoint = format!("tls:localhost:{}", server.1);
        let mut running = netcat(&["--ca", &ca(), "--report", &endpoint]);
        running.write(b"stressed\n");
        running.write(b"CLOSE\n");
        let said = running.wait();
        assert_eq!((said.text().as_str(), said.code()), ("desserts\n", 0), "{}", said.stderr);
        assert_eq!(said.report()["version"], version);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_endpoint_sets_the_local_address_and_the_timeout() {
    let console = Console::start(&[]);
    let endpoint = format!("tcp:127.0.0.1:{}:timeout=5.5:bind=127.0.0.2", console.tcp.port());
    let said = netcat(&["--report", &endpoint]).feed(b"INFO\n");
    assert_eq!(said.code(), 0, "{}", said.stderr);
    assert!(said.report()["host"].as_str().unwrap().starts_with("127.0.0.2:"), "{}", said.stderr);
}

/// A TLS server that treats the end of the other half as the end of the connection, like servers whose TLS has no
/// half-close. It answers a line only if that end does not come first. Returns its port.
fn without_half_close() -> u16 {
    use bowline::{Listener, Transport};
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
    let tls = certs().server_tls_builder().build().unwrap();
    let (tell, port) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = Listener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().as_inet().unwrap().port()).unwrap();
            for _ in 0..2 {
                let mut connection = listener.accept().await.unwrap().handshake(&tls).await.unwrap();
                let mut line = String::new();
                connection.read_line(&mut line).await.unwrap();
                let mut byte = [0];
                let end = connection.read(&mut byte);
                if tokio::time::timeout(std::time::Duration::from_millis(500), end).await.is_err() {
                    connection.write_all(format!("answer to {line}").as_bytes()).await.unwrap();
                }
                connection.close().await;
            }
        });
    });
    port.recv().unwrap()
}

/// rule: half-1
#[test]
fn an_answer_comes_from_a_server_without_half_close_if_the_end_of_input_is_ignored() {
    let endpoint = format!("tls:127.0.0.1:{}", without_half_close());
    let args = ["--ca", &ca(), "--name", "localhost", &endpoint];
    let said = netcat(&args).feed(b"question\n");
    assert_eq!((said.code(), said.text().as_str()), (0, ""));
    assert!(said.stderr.contains("nothing was received") && said.stderr.contains("--ignore-eof"), "{}", said.stderr);
    let said = netcat(&[&["--ignore-eof", "--report"], &args[..]].concat()).feed(b"question\n");
    assert_eq!((said.code(), said.text().as_str()), (0, "answer to question\n"));
    assert_eq!(said.report()["reason"], "closed");
}
