//! Sockets and limits.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::program::{Files, Program, s_client};

/// Passes this socket in as systemd does.
fn activate(files: &Files, socket: TcpListener, options: &[&str]) -> Child {
    let script = r#"exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#;
    let (cert, key) = (files.text("server.pem"), files.text("server.key"));
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_web"), "--cert", &cert, "--key", &key, "--log", "json"]);
    command.args(options).stdin(OwnedFd::from(socket)).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn sockets_that_are_passed_in_are_used() {
    let files = Files::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let web = Program::started(activate(&files, socket.try_clone().unwrap(), &[]));
    assert_eq!(web.https, addr);
    assert_eq!(files.get(&[&web.url("/health")]), "ok");
    for option in ["--listen=127.0.0.1:0", "--workers=2", "--upgrade-from=path"] {
        let output = activate(&files, socket.try_clone().unwrap(), &[option]).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("LISTEN_FDS"), "{said}");
    }
}

#[test]
fn workers_share_one_port() {
    let files = Files::new();
    let web = files.start(&["--workers", "3"]);
    for _ in 0..12 {
        assert_eq!(files.get(&[&web.url("/health")]), "ok");
    }
    web.signal(Signal::TERM);
    assert_eq!(web.end().1.code(), Some(0));
}

/// The system chooses the socket of each client.
#[test]
fn limits_count_the_connections_of_all_workers() {
    let files = Files::new();
    let web = files.start(&["--workers", "4", "--max-per-peer", "1"]);
    let _idle = idle(&web);
    for _ in 0..12 {
        is_reset(&web);
    }
    let web = files.start(&["--workers", "4", "--max-connections", "1"]);
    // An idle worker must not keep the permit that another one needs.
    for _ in 0..12 {
        assert_eq!(files.get(&[&web.url("/health")]), "ok");
    }
}

/// A connection that is open and idle.
fn idle(web: &Program) -> TcpStream {
    let idle = TcpStream::connect(web.https).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    web.event("made");
    idle
}

#[test]
fn at_the_limit_of_all_connections_the_next_one_waits() {
    let files = Files::new();
    for limit in ["--max-connections", "--max-unfinished"] {
        let web = files.start(&[limit, "1"]);
        let idle = idle(&web);
        let url = web.url("/health");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| files.get(&[&url]));
            std::thread::sleep(Duration::from_millis(200));
            assert!(!waiting.is_finished(), "{limit}");
            drop(idle);
            assert_eq!(waiting.join().unwrap(), "ok");
        });
    }
}

#[test]
fn at_the_limit_of_a_peer_its_next_connection_is_reset() {
    let files = Files::new();
    let web = files.start(&["--max-per-peer", "1"]);
    let _idle = idle(&web);
    is_reset(&web);
}

/// The next connection is reset.
fn is_reset(web: &Program) {
    let mut next = TcpStream::connect(web.https).unwrap();
    next.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let error = next.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_silent_client_has_a_limited_time() {
    let files = Files::new();
    let web = files.start(&["--handshake-timeout", "0.2"]);
    let mut silent = idle(&web);
    let _ = silent.read(&mut [0]);
    let lost = web.event("lost");
    assert_eq!((&lost["reason"], &lost["phase"]), (&"timed_out".into(), &"handshake".into()));
    let said = s_client(web.https, &files.path("ca.pem"), &["-ign_eof"], "GET /health HTTP/1.0\r\n\r\n");
    assert!(said.contains("\r\n\r\nok"), "{said}");
}
