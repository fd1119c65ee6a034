//! Ticket keys in Redis, which three processes rotate together, behind HAProxy.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bowline::TlsVersion;
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{Files, Program, command, s_client};
use crate::resume::every_client_resumes;
use crate::tickets::{Front, Ours, SetOnDrop};

/// A Redis server on a port of its own, without files. It is killed on drop.
struct Redis {
    child: Child,
    port: u16,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Redis {
    /// With the password `a:b@c`, and with TLS if asked for. `None`: it is not installed.
    fn start(files: &Files, port: u16, has_tls: bool) -> Option<Self> {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--requirepass", "a:b@c"]);
        command.args(["--dir", &files.text("")]);
        if has_tls {
            command.args(["--port", "0", "--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", &files.text("server.pem"), "--tls-key-file", &files.text("server.key")]);
            command.args(["--tls-ca-cert-file", &files.text("ca.pem")]);
        } else {
            command.args(["--port", &port.to_string()]);
        }
        let Ok(child) = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn() else {
            eprintln!("note: redis-server is not installed, so it was not tried");
            return None;
        };
        let redis = Self { child, port };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "redis-server does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        Some(redis)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Three processes with the keys of this URL, wrapped.
fn three(files: &Files, url: &str, options: &[&str]) -> Vec<Program> {
    std::fs::write(files.path("wrap"), (0..32).collect::<Vec<u8>>()).unwrap();
    let wrap = files.text("wrap");
    let mut all = vec!["--proxy", "require", "--trusted", "127.0.0.1", "--metrics", "127.0.0.1:0"];
    all.extend(["--ticket-keys", url, "--ticket-wrap", &wrap]);
    all.extend(options);
    (0..3).map(|_| files.start(&all)).collect()
}

/// rule: ticket-9
#[test]
fn sessions_are_resumed_on_each_of_three_processes_with_keys_in_redis() {
    let files = Files::new();
    let ca = files.text("ca.pem");
    for has_tls in [false, true] {
        let Some(redis) = Redis::start(&files, free_port(), has_tls) else { return };
        let scheme = if has_tls { "rediss" } else { "redis" };
        let url = format!("{scheme}://default:a%3Ab%40c@localhost:{}/www", redis.port);
        let options: &[&str] = if has_tls { &["--ticket-ca", &ca] } else { &[] };
        let nodes = three(&files, &url, options);
        let Some(front) = Front::start(&nodes) else { return };
        every_client_resumes(&files, &nodes, &front);
        let metrics = files.get(&[&nodes[2].metrics_url("/metrics")]);
        assert!(metrics.contains("\nbowline_ticket_key_age_seconds "), "{metrics}");
    }
}

/// Connects again and again. Every handshake has to succeed, and all but the first to resume.
fn client(files: &Files, addr: SocketAddr, version: TlsVersion, is_over: &AtomicBool) -> u64 {
    let ours = Ours::new(files, addr, version);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(!runtime.block_on(ours.resumes()).unwrap());
    let mut all = 1;
    while !is_over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        assert!(runtime.block_on(ours.resumes()).unwrap(), "{version}: handshake {all} is a full one");
        // The limit is longer than a handshake takes, and shorter than a look at a Redis that does not answer.
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        all += 1;
        thread::sleep(Duration::from_millis(40));
    }
    all
}

/// rule: ticket-9
#[test]
fn no_handshake_fails_or_waits_while_redis_is_away() {
    let files = Files::new();
    let port = free_port();
    let Some(redis) = Redis::start(&files, port, false) else { return };
    let url = format!("redis://:a%3Ab%40c@127.0.0.1:{port}/www?rotate=30&lifetime=600");
    let nodes = three(&files, &url, &["--reload-every", "0.1"]);
    let Some(front) = Front::start(&nodes) else { return };
    let is_over = AtomicBool::new(false);
    let told = |name: &str| nodes.iter().map(|node| node.event(name)).collect::<Vec<_>>();
    thread::scope(|scope| {
        let clients = [TlsVersion::V1_2, TlsVersion::V1_3].map(|version| {
            let (files, is_over, addr) = (&files, &is_over, front.addr);
            scope.spawn(move || client(files, addr, version, is_over))
        });
        let _over = SetOnDrop(&is_over);
        // Redis does not answer.
        redis.signal(Signal::STOP);
        for event in told("reload_failed") {
            assert!(event["detail"].as_str().unwrap().contains("has not answered within 5s"), "{event}");
        }
        redis.signal(Signal::CONT);
        told("reloaded");
        // Redis ends, and starts again without contents.
        drop(redis);
        for event in told("reload_failed") {
            assert!(event["detail"].as_str().unwrap().contains("cannot be reached"), "{event}");
        }
        let _redis = Redis::start(&files, port, false).unwrap();
        told("reloaded");
        // The clients continue for a while, now that all servers have the same keys again.
        thread::sleep(Duration::from_millis(500));
        is_over.store(true, Ordering::SeqCst);
        let all = clients.map(|client| client.join().unwrap());
        println!("handshakes in TLS 1.2 and TLS 1.3: {all:?}");
    });
}

/// rule: ticket-9
#[test]
fn two_terminators_share_the_keys_in_redis() {
    let files = Files::new();
    let Some(redis) = Redis::start(&files, free_port(), false) else { return };
    let service = files.start(&["--metrics", "127.0.0.1:0"]);
    std::fs::write(files.path("wrap"), (0..32).collect::<Vec<u8>>()).unwrap();
    let listen = format!("tls:127.0.0.1:0:cert={}:key={}", files.text("server.pem"), files.text("server.key"));
    let (url, connect) =
        (format!("redis://:a%3Ab%40c@127.0.0.1:{}/mail", redis.port), format!("tcp:{}", service.metrics.unwrap()));
    for (option, expected) in [("-sess_out", "\nNew, "), ("-sess_in", "\nReused, ")] {
        let mut terminator = Command::new(env!("CARGO_BIN_EXE_terminator"))
            .args(["--listen", &listen, "--connect", &connect, "--ticket-keys", &url])
            .args(["--ticket-wrap", &files.text("wrap")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(terminator.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening tls ").unwrap().parse().unwrap();
        let terminator = Running(terminator);
        let (session, request) = (files.text("session"), "GET /health HTTP/1.0\r\n\r\n");
        let arguments = ["-servername", "localhost", "-ign_eof", option, &session];
        let said = s_client(addr, &files.path("ca.pem"), &arguments, request);
        drop(terminator);
        assert!(said.contains(expected) && said.contains("\r\nok"), "{said}");
    }
}

/// A program that is killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn urls_that_cannot_be_used_end_with_status_2_and_show_no_password() {
    let files = Files::new();
    let (cert, key) = (files.text("server.pem"), files.text("server.key"));
    for (url, said_of) in [
        ("redis://:secret@host", "has no name after the host"),
        ("redis://:secret@host/", "needs a name after the host"),
        ("redis://:secret@host:port/www", "has a port that is not a number"),
        ("redis://:secret%4@host/www", "has credentials that are not encoded well"),
        ("redis://:secret@/www", "names no host"),
        ("redis://:secret@host/www?rotate=soon", "has a time that is not in seconds"),
        ("redis://:secret@host/www?rotate=0", "the next key seals after at least a second"),
        ("redis+unix://:secret@host/www", "begins with redis:// or rediss://"),
    ] {
        let output = command(&["--cert", &cert, "--key", &key, "--ticket-keys", url]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(said_of) && !said.contains("secret"), "{url}: {said}");
    }
    let output = command(&["--cert", &cert, "--key", &key, "--ticket-wrap", &key]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
