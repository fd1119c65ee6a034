//! Three processes with the same ticket keys, behind HAProxy with the configuration of `deploy/`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bowline::testing::pki::{Identity, Pki};
use bowline::{ClientTls, Connector, TlsConnection, TlsTransport, TlsVersion, Transport};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::program::{Files, Program};
use crate::resume::every_client_resumes;

/// HAProxy, which is killed on drop.
pub(crate) struct Front {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Front {
    /// `None`: HAProxy is not installed.
    pub(crate) fn start(nodes: &[Program]) -> Option<Self> {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new("haproxy");
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy.cfg");
        command.args(["-db", "-f"]).arg(config).env("BOWLINE_BIND", addr.to_string());
        for (number, node) in nodes.iter().enumerate() {
            command.env(format!("BOWLINE_WEB_{}", number + 1), node.https.to_string());
        }
        let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
            eprintln!("note: haproxy is not installed, so it was not tried");
            return None;
        };
        let front = Self { child, addr };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(front.addr).is_err() {
            assert!(Instant::now() < until, "haproxy does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Some(front)
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/whoami", self.addr.port())
    }
}

/// Ticket keys for HAProxy, with these numbers. The last but one seals.
fn write_keys(files: &Files, numbers: [u8; 3]) {
    let text = numbers.map(|number| base64(&key(number))).join("\n");
    // The file is replaced by a rename, because the service watches it and must not read half of it.
    files.write("tickets.new", &text);
    std::fs::rename(files.path("tickets.new"), files.path("tickets")).unwrap();
}

/// A key in nginx's form. A line of HAProxy's form is the same in base64.
fn key(number: u8) -> Vec<u8> {
    (0..48).map(|n| if n < 16 { number } else { n ^ number }).collect()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunk = |chunk: &[u8]| {
        let number = chunk.iter().fold(0, |all, byte| all << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[number >> shift & 63])).iter().collect::<String>()
    };
    bytes.chunks(3).map(chunk).collect()
}

/// Three processes with these ticket keys.
fn three(files: &Files, keys: &str, options: &[&str]) -> Vec<Program> {
    let mut all = vec!["--proxy", "require", "--trusted", "127.0.0.1", "--metrics", "127.0.0.1:0"];
    all.extend(["--ticket-keys", keys]);
    all.extend(options);
    (0..3).map(|_| files.start(&all)).collect()
}

/// Our own client, which keeps its sessions.
pub(crate) struct Ours {
    tls: ClientTls,
    addr: SocketAddr,
}

impl Ours {
    pub(crate) fn new(files: &Files, addr: SocketAddr, version: TlsVersion) -> Self {
        let builder = files.pki.client_tls_builder().min_version(version).max_version(version);
        Self { tls: builder.build().unwrap(), addr }
    }

    /// With a client certificate.
    fn with(files: &Files, addr: SocketAddr, version: TlsVersion, identity: &Identity) -> Self {
        let builder = files.pki.client_tls_builder().min_version(version).max_version(version);
        Self { tls: builder.identity(identity.chain_der(), identity.key_der()).build().unwrap(), addr }
    }

    /// The same sessions, with another process.
    fn at(&self, node: &Program) -> Self {
        Self { tls: self.tls.clone(), addr: node.https }
    }

    /// Asks for `/whoami`, and returns whether the session was resumed.
    pub(crate) async fn resumes(&self) -> Result<bool, bowline::Error> {
        let tcp = Connector::new().connect_addr(self.addr).await?;
        let mut connection = TlsConnection::connect(tcp, &self.tls, "localhost").await?;
        connection.write_all(b"GET /whoami HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        let ours = connection.tls().is_some_and(|facts| facts.resumed);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
        let theirs: Value = serde_json::from_str(body).unwrap();
        assert_eq!(theirs["resumed"], ours);
        connection.close().await;
        Ok(ours)
    }
}

/// rule: ticket-1
#[test]
fn openssl_curl_and_our_client_resume_on_each_of_three_processes() {
    let files = Files::new();
    write_keys(&files, [1, 2, 3]);
    let nodes = three(&files, &files.text("tickets"), &[]);
    let Some(front) = Front::start(&nodes) else { return };
    every_client_resumes(&files, &nodes, &front);
    let metrics = files.get(&[&nodes[0].metrics_url("/metrics")]);
    let age = metrics.lines().find_map(|line| line.strip_prefix("bowline_ticket_key_age_seconds ")).unwrap();
    assert!((0.0..600.0).contains(&age.parse::<f64>().unwrap()), "{age}");
}

/// rule: ticket-1
#[test]
fn every_client_resumes_on_each_process_with_key_files_of_nginx() {
    let files = Files::new();
    let keys = ["current", "next", "previous"].map(|name| files.text(name));
    for (number, path) in (1..).zip(&keys) {
        std::fs::write(path, key(number)).unwrap();
    }
    let nodes = three(&files, &keys.join(","), &[]);
    let Some(front) = Front::start(&nodes) else { return };
    every_client_resumes(&files, &nodes, &front);
}

/// rule: ticket-5
#[test]
fn nothing_is_resumed_past_a_changed_revocation_list_or_client_ca_on_any_process() {
    let files = Files::new();
    write_keys(&files, [1, 2, 3]);
    files.write("crl.pem", &files.pki.crl_pem());
    files.write("clients.pem", &files.pki.ca_pem());
    let (keys, ca, crl) = (files.text("tickets"), files.text("clients.pem"), files.text("crl.pem"));
    let options = ["--ticket-keys", &keys, "--client-ca", &ca, "--crl", &crl, "--reload-every", "0.1"];
    let nodes: Vec<Program> = (0..3).map(|_| files.start(&options)).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |client: &Ours| nodes.iter().map(|node| runtime.block_on(client.at(node).resumes()).ok()).collect();
    let changed = || nodes.iter().for_each(|node| drop(node.event("reloaded")));
    let begins_anew = [Some(false), Some(true), Some(true)];
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let (good, bad) = (files.pki.client("good"), files.pki.client("bad"));
        let with = |identity| Ours::with(&files, nodes[0].https, version, identity);
        let (of_good, of_bad) = (with(&good), with(&bad));
        let asked: [Vec<_>; 2] = [ask(&of_good), ask(&of_bad)];
        assert_eq!(asked, [begins_anew, begins_anew], "{version}");
        files.pki.revoke(&bad);
        files.write("crl.new", &files.pki.crl_pem());
        std::fs::rename(files.path("crl.new"), &crl).unwrap();
        changed();
        let asked: [Vec<_>; 2] = [ask(&of_bad), ask(&of_good)];
        assert_eq!(asked, [[None; 3], begins_anew], "{version}");
        let both = [std::fs::read_to_string(&ca).unwrap(), Pki::new().ca_pem().to_owned()].concat();
        files.write("clients.new", &both);
        std::fs::rename(files.path("clients.new"), &ca).unwrap();
        changed();
        let asked: Vec<_> = ask(&of_good);
        assert_eq!(asked, begins_anew, "{version}");
    }
}

/// `BOWLINE_ROTATIONS=100` is the whole test.
///
/// rule: ticket-2
/// rule: ticket-8
#[test]
fn no_handshake_fails_or_is_a_full_one_during_rotations() {
    let rotations: u8 = std::env::var("BOWLINE_ROTATIONS").ok().and_then(|number| number.parse().ok()).unwrap_or(4);
    let files = Files::new();
    write_keys(&files, [1, 2, 3]);
    let nodes = three(&files, &files.text("tickets"), &["--reload-every", "0.1"]);
    let Some(front) = Front::start(&nodes) else { return };
    let (is_over, done) = (AtomicBool::new(false), [AtomicU64::new(0), AtomicU64::new(0)]);
    let clients: Vec<(u64, u64)> = thread::scope(|scope| {
        let clients: Vec<_> = [(TlsVersion::V1_2, &done[0]), (TlsVersion::V1_3, &done[1])]
            .map(|(version, done)| {
                let (ours, is_over) = (Ours::new(&files, front.addr, version), &is_over);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let (mut full, mut all) = (0, 0);
                    while !is_over.load(Ordering::SeqCst) {
                        let resumed = runtime.block_on(ours.resumes()).unwrap();
                        (full, all) = (full + u64::from(!resumed), all + 1);
                        done.store(all, Ordering::SeqCst);
                        // This pause limits both clients to 50 handshakes a second together.
                        thread::sleep(Duration::from_millis(40));
                    }
                    (full, all)
                })
            })
            .into();
        let _over = SetOnDrop(&is_over);
        for number in 2..2 + rotations {
            // Each client has a ticket that is not older than the last rotation.
            for done in &done {
                let before = done.load(Ordering::SeqCst);
                while done.load(Ordering::SeqCst) < before + 2 && !clients.iter().any(|client| client.is_finished()) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            write_keys(&files, [number, number + 1, number + 2]);
            // This waits until each process has the new keys, so that no two processes are more than one rotation
            // apart.
            for node in &nodes {
                assert_eq!(node.event("reloaded")["generation"], number);
            }
        }
        is_over.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    println!("{rotations} rotations: {clients:?} (full handshakes, all handshakes) in TLS 1.2 and TLS 1.3");
    for (full, all) in clients {
        assert!(full == 1 && all > 1, "{full} of {all}");
    }
}

/// Ends the other threads after a failed assertion too.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
