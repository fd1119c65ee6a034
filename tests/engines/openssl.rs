//! The express engine against `openssl s_client`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use bowline::testing::shared_pki;
use bowline::{Policy, TcpConnection, TlsConnection, TlsTransport, TlsVersion, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::setup::SOON;
use crate::wires::server;

/// The program, and its output line by line.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Client {
    fn start(addr: std::net::SocketAddr, args: &[&str]) -> Self {
        let addr = addr.to_string();
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &addr, "-servername", "localhost"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is there (Debian: openssl)");
        let (sender, lines) = channel();
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        let stdin = child.stdin.take();
        Self { child, stdin, lines }
    }

    /// Types `text`, and waits for a line that starts with the expected text.
    fn type_and_wait(&mut self, typed: &str, expected: &str) {
        self.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        let mut said = Vec::new();
        loop {
            let line = self.lines.recv_timeout(SOON);
            let line = line.unwrap_or_else(|_| panic!("no {expected:?} behind {typed:?}: {said:?}"));
            if line.starts_with(expected) {
                return;
            }
            said.push(line);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An echo server with the express engine, for one client.
async fn echo(listener: TcpListener, version: TlsVersion) -> (String, Vec<u8>, bool) {
    let tls = server(shared_pki(), true, None);
    let (stream, _) = listener.accept().await.unwrap();
    let tcp = TcpConnection::new(stream, Policy::default()).unwrap();
    let mut ours = TlsConnection::accept(tcp, &tls).await.unwrap();
    let facts = ours.tls().unwrap();
    assert_eq!(facts.version_name(), if version == TlsVersion::V1_3 { "TLSv1.3" } else { "TLSv1.2" });
    let (mut all, mut buf) = (Vec::new(), [0; 1000]);
    loop {
        let n = ours.read(&mut buf).await.unwrap();
        if n == 0 {
            break;
        }
        all.extend_from_slice(&buf[..n]);
        ours.write_all(&buf[..n]).await.unwrap();
    }
    (facts.cipher_name(), all, ours.close().await.is_clean())
}

async fn converse(
    version: TlsVersion,
    args: &[&str],
    talk: impl FnOnce(&mut Client) + Send + 'static,
) -> (String, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let talking = tokio::task::spawn_blocking(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut client = Client::start(addr, &args);
        talk(&mut client);
        // s_client ends when its input ends.
        client.stdin = None;
        let _ = client.child.wait();
    });
    let (cipher, all, is_clean) = tokio::time::timeout(SOON, echo(listener, version)).await.unwrap();
    talking.await.unwrap();
    assert!(is_clean);
    (cipher, all)
}

/// rule: secure-7
#[tokio::test]
async fn openssl_changes_its_keys_and_asks_us_to() {
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        let args = ["-tls1_3", "-ciphersuites", suite];
        let (cipher, all) = converse(TlsVersion::V1_3, &args, |client| {
            client.type_and_wait("one\n", "one");
            // At `K`, s_client updates its own key and requests an update of ours. At `k`, it updates only its own key.
            client.type_and_wait("K\n", "KEYUPDATE");
            client.type_and_wait("two\n", "two");
            client.type_and_wait("k\n", "KEYUPDATE");
            client.type_and_wait("three\n", "three");
            client.type_and_wait("K\n", "KEYUPDATE");
            client.type_and_wait("K\n", "KEYUPDATE");
            client.type_and_wait("four\n", "four");
        })
        .await;
        assert_eq!((cipher.as_str(), &all[..]), (suite, &b"one\ntwo\nthree\nfour\n"[..]));
    }
}

/// rule: write-1
#[tokio::test]
async fn openssl_talks_to_us_with_every_suite_of_tls_1_2() {
    let suites = [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ];
    for (theirs, ours) in suites {
        let (cipher, all) = converse(TlsVersion::V1_2, &["-tls1_2", "-cipher", theirs], |client| {
            client.type_and_wait("one\n", "one");
            client.type_and_wait("two\n", "two");
        })
        .await;
        assert_eq!((cipher.as_str(), &all[..]), (ours, &b"one\ntwo\n"[..]));
    }
}
