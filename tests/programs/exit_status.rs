//! Netcat's exit status for each kind of end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::tools::{Console, Said, ca, netcat, python};

fn run(args: &[&str], kind: &str, addr: SocketAddr, input: &[u8]) -> Said {
    let endpoint = format!("{kind}:localhost:{}", addr.port());
    netcat(&[&["--ca", &ca(), "--report"], args, &[&endpoint]].concat()).feed(input)
}

fn is(said: &Said, code: i32, reason: &str) {
    assert_eq!((said.code(), &said.report()["reason"]), (code, &reason.into()), "{}", said.stderr);
}

/// A server that accepts one connection and runs this function with it.
fn server(serve: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0));
    addr
}

/// rule: end-2
#[test]
fn three_is_truncated() {
    let (port, listening) = std::sync::mpsc::channel();
    let serving = thread::spawn(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // The port is free now for a Python server, which closes its socket without close_notify.
        drop(listener);
        port.send(addr).unwrap();
        let (chain, key) = crate::tools::certs().server_paths();
        let program = format!(
            r#"
ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
ctx.load_cert_chain({chain:?}, {key:?})
listener = socket.create_server(("127.0.0.1", PORT))
sock = ctx.wrap_socket(listener.accept()[0], server_side=True)
sock.sendall(b"a part of ")
socket.socket.shutdown(sock, socket.SHUT_WR)
while socket.socket.recv(sock, 65536):
    pass
"#
        );
        python(&program, addr)
    });
    let addr = listening.recv().unwrap();
    let said = loop {
        let said = run(&[], "tls", addr, b"");
        if said.code() != 7 {
            break said;
        }
    };
    is(&said, 3, "truncated");
    assert_eq!(said.text(), "a part of ");
    serving.join().unwrap();
}

/// rule: end-6
#[test]
fn an_end_or_silence_during_the_handshake_sets_its_exit_status() {
    is(&run(&[], "tls", server(|mut peer| drop(peer.read(&mut [0; 4096]))), b""), 3, "truncated");
    let silent = server(|mut peer| drop(peer.read_to_end(&mut Vec::new())));
    let said = run(&["--timeout", "0.3"], "tls", silent, b"");
    is(&said, 6, "timed_out");
    assert!(said.report()["detail"].as_str().unwrap().contains("handshake"));
    // The endpoint's timeout limits the handshake too.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tls:{}:timeout=0.3", silent.local_addr().unwrap());
    let said = netcat(&["--ca", &ca(), "--report", &endpoint]).feed(b"");
    is(&said, 6, "timed_out");
    // The endpoint's timeout also limits the plaintext part before an upgrade.
    let endpoint = format!("tcp:{}:timeout=0.3", silent.local_addr().unwrap());
    let said = netcat(&["--ca", &ca(), "--report", "--starttls", "smtp", &endpoint]).feed(b"");
    is(&said, 6, "timed_out");
}

#[test]
fn four_is_reset_and_six_is_time() {
    let console = Console::start(&[]);
    is(&run(&[], "tls", console.tls, b"ABORT 100\n"), 4, "reset");
    is(&run(&[], "tcp", console.tcp, b"ABORT 100\n"), 4, "reset");
    is(&run(&["--timeout", "0.3"], "tls", console.tls, b"PAUSE 3600000\n"), 6, "timed_out");
    let silent = server(|mut peer| drop(peer.read_to_end(&mut Vec::new())));
    is(&run(&["--no-half-close", "--close-timeout", "0.3"], "tcp", silent, b""), 0, "closed");
}

/// rule: secure-4, secure-8
#[test]
fn five_is_a_failure_of_tls() {
    let console = Console::start(&[]);
    let said = run(&["--name", "elsewhere.invalid"], "tls", console.tls, b"");
    is(&said, 5, "tls");
    assert!(said.report()["detail"].as_str().unwrap().contains("elsewhere.invalid"));
    is(&run(&[], "tls", console.tcp, b""), 5, "tls");
    let strict = Console::start(&["--client-ca", &ca()]);
    is(&run(&["--tls13"], "tls", strict.tls, b"INFO\n"), 5, "tls");
    is(&run(&["--tls12"], "tls", strict.tls, b"INFO\n"), 5, "tls");
    assert_eq!(strict.lost(1).1["phase"], "handshake");
}

#[test]
fn seven_is_no_connection() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = run(&[], "tls", unused, b"");
    is(&said, 7, "io");
    assert!(said.report()["detail"].as_str().unwrap().ends_with("(os error 111)") || !cfg!(target_os = "linux"));
    assert_eq!(said.report()["host"], serde_json::Value::Null);
}

/// rule: upgrade-2
#[test]
fn eight_is_a_refused_upgrade() {
    let console = Console::start(&[]);
    let by_line = ["--starttls", "line:STARTTLS"];
    is(&run(&by_line, "tcp", console.tcp, b""), 8, "protocol");
    let glued = || {
        server(|mut peer| {
            peer.write_all(b"220 hello\r\n").unwrap();
            let _ = peer.read(&mut [0; 100]);
            peer.write_all(b"220 go ahead\r\n220 injected\r\n").unwrap();
            let _ = peer.read_to_end(&mut Vec::new());
        })
    };
    let said = run(&by_line, "tcp", glued(), b"");
    is(&said, 8, "protocol");
    assert!(said.report()["detail"].as_str().unwrap().starts_with("14 bytes"), "{}", said.stderr);
    is(&run(&["--leftover", "feed", by_line[0], by_line[1]], "tcp", glued(), b""), 8, "protocol");
    is(&run(&by_line, "tcp", server(drop), b""), 3, "truncated");
}
