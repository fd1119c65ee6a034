//! The terminator between other programs' clients and plaintext services.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::tools::{
    A_LITTLE, Console, PATIENCE, Running, Said, ca, certs, ended, example, flood, pattern, peak, python,
};

/// A terminator, and its log.
pub(crate) struct Terminator {
    child: Child,
    /// The kind and the address that it prints when it listens.
    local: String,
    /// The address that it prints for `--metrics`.
    pub(crate) metrics: Option<SocketAddr>,
    log: Receiver<Value>,
}

impl Terminator {
    pub(crate) fn start(listen: &str, connect: &str, args: &[&str]) -> Self {
        Self::run(Command::new(example("terminator")), listen, connect, args)
    }

    fn run(mut program: Command, listen: &str, connect: &str, args: &[&str]) -> Self {
        let mut child = program
            .args(["--log", "json", "--listen", listen, "--connect", connect])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let local = lines.next().unwrap().strip_prefix("listening ").unwrap().to_owned();
        let mut line = lines.next().unwrap();
        let metrics = line.strip_prefix("listening metrics ").map(|addr| addr.parse().unwrap());
        if metrics.is_some() {
            line = lines.next().unwrap();
        }
        assert_eq!(line, "ready");
        let (told, log) = channel();
        thread::spawn(move || lines.for_each(|line| told.send(serde_json::from_str(&line).unwrap()).unwrap()));
        Self { child, local, metrics, log }
    }

    /// In front of this service, TLS from the first byte on.
    fn tls<T: Send + 'static>(service: &Service<T>, args: &[&str]) -> Self {
        Self::start(&format!("tls:{ANY}{}", identity()), &service.endpoint(), args)
    }

    /// In front of this service, TLS by STARTTLS.
    fn starttls<T: Send + 'static>(service: &Service<T>, how: &str) -> Self {
        Self::start(&format!("starttls:{ANY}{}", identity()), &service.endpoint(), &["--starttls", how])
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.local.split(' ').next_back().unwrap().parse().unwrap()
    }

    /// The log entry of the next connection that ends.
    pub(crate) fn ended(&self) -> Value {
        std::iter::repeat_with(|| self.next()).find(|line| line["event"].is_null()).unwrap()
    }

    /// The next event of the whole service with this name.
    pub(crate) fn event(&self, name: &str) -> Value {
        std::iter::repeat_with(|| self.next()).find(|line| line["event"] == name).unwrap()
    }

    fn next(&self) -> Value {
        self.log.recv_timeout(PATIENCE).expect("a connection does not end, or an event does not come")
    }

    pub(crate) fn signal(&self) {
        self.send(Signal::TERM);
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child)
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        // The child may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const ANY: &str = "127.0.0.1:0";

/// Arguments of a TLS server.
pub(crate) fn identity() -> String {
    let (chain, key) = certs().server_paths();
    format!(":cert={}:key={}", chain.display(), key.display())
}

/// A plain service that serves one connection.
pub(crate) struct Service<T = ()> {
    pub(crate) addr: SocketAddr,
    pub(crate) served: JoinHandle<T>,
}

impl<T: Send + 'static> Service<T> {
    pub(crate) fn new(serve: impl FnOnce(BufReader<TcpStream>) -> T + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let served = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            serve(BufReader::new(socket))
        });
        Self { addr, served }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("tcp:{}", self.addr)
    }
}

/// Answers each line in capital letters, until the line QUIT or the end.
pub(crate) fn capitals(mut socket: BufReader<TcpStream>) {
    let mut line = String::new();
    while socket.read_line(&mut line).unwrap() > 0 {
        socket.get_mut().write_all(line.to_uppercase().as_bytes()).unwrap();
        if line.trim().eq_ignore_ascii_case("quit") {
            return;
        }
        line.clear();
    }
}

/// A client that waits only a bounded time for an answer.
pub(crate) fn client(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn wait_until_shut(addr: SocketAddr) {
    let patience = Instant::now() + PATIENCE;
    while TcpStream::connect(addr).is_ok() {
        assert!(Instant::now() < patience, "it goes on listening");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn s_client(addr: SocketAddr, args: &[&str], input: &[u8]) -> Said {
    let (addr, ca) = (addr.to_string(), ca());
    let all = ["s_client", "-connect", &addr, "-CAfile", &ca, "-quiet", "-verify_return_error", "-ign_eof"];
    Running::start("openssl", &[&all, args].concat()).feed(input)
}

pub(crate) fn ends(ended: &Value) -> (&str, &str) {
    (ended["client_end"].as_str().unwrap_or_default(), ended["service_end"].as_str().unwrap_or_default())
}

/// rule: flow-6, secure-3
#[test]
fn s_client_talks_to_a_plain_service() {
    for version in ["-tls1_2", "-tls1_3"] {
        let service = Service::new(capitals);
        let listen = format!("tls:{ANY}{}:alpn=knot,rope", identity());
        let terminator = Terminator::start(&listen, &service.endpoint(), &[]);
        assert!(terminator.local.starts_with("tls 127.0.0.1:"), "{}", terminator.local);
        let said = s_client(terminator.addr(), &[version, "-alpn", "rope"], b"hello\nquit\n");
        assert_eq!(said.text(), "HELLO\nQUIT\n", "{}", said.stderr);
        let ended = terminator.ended();
        assert_eq!(ends(&ended), ("closed", "closed"), "{ended}");
        assert_eq!((&ended["there"], &ended["back"], &ended["alpn"]), (&11.into(), &11.into(), &"rope".into()));
        service.served.join().unwrap();
    }
}

/// rule: flow-6, upgrade-1
#[test]
fn s_client_upgrades_by_three_protocols_after_the_greeting() {
    for (protocol, greeting) in [
        ("smtp", "220-mail.example\r\n220 ESMTP\r\n"),
        ("imap", "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hello\r\n"),
        ("pop3", "+OK hello\r\n"),
    ] {
        let service = Service::new(move |mut socket| {
            socket.get_mut().write_all(greeting.as_bytes()).unwrap();
            capitals(socket);
        });
        let terminator = Terminator::starttls(&service, protocol);
        let said = s_client(terminator.addr(), &["-starttls", protocol], b"hello\nquit\n");
        assert!(said.text().ends_with("HELLO\nQUIT\n"), "{protocol}: {}{}", said.text(), said.stderr);
        assert_eq!(ends(&terminator.ended()), ("closed", "closed"), "{protocol}");
        service.served.join().unwrap();
    }
}

/// rule: upgrade-2, upgrade-3
#[test]
fn a_command_right_after_starttls_does_not_reach_the_service() {
    let service = Service::new(|mut socket| {
        socket.get_mut().write_all(b"hello\r\n").unwrap();
        let mut heard = Vec::new();
        let _ = socket.read_to_end(&mut heard);
        heard
    });
    let terminator = Terminator::starttls(&service, "line:XTLS now");
    let mut client = BufReader::new(TcpStream::connect(terminator.addr()).unwrap());
    client.get_mut().write_all(b"what\r\nxtls NOW\r\ninjected\r\n").unwrap();
    let mut said = String::new();
    let _ = client.read_to_string(&mut said);
    assert_eq!(said, "hello\r\n500 XTLS now first\r\n");
    let ended = terminator.ended();
    assert_eq!((&ended["failed"], &ended["how"]), (&"client".into(), &"protocol".into()), "{ended}");
    assert!(service.served.join().unwrap().is_empty());
}

/// rule: flow-6
#[test]
fn a_plain_client_reaches_a_tls_service_directly_and_by_starttls() {
    let console = Console::start(&[]);
    let trust = format!(":ca={}:name=localhost", ca());
    for (connect, args, kind) in [
        (format!("tls:{}{trust}", console.tls), &[][..], "tls"),
        (format!("starttls:{}{trust}", console.starttls), &["--connect-starttls", "line:STARTTLS"][..], "starttls"),
    ] {
        let terminator = Terminator::start(&format!("tcp:{ANY}"), &connect, args);
        let mut client = TcpStream::connect(terminator.addr()).unwrap();
        client.write_all(b"CLOSE 100000\n").unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
        let greeting = format!("220 bowline console {kind}\r\n");
        assert!(said == [greeting.as_bytes(), &pattern(100_000)].concat(), "{kind}");
        drop(client);
        assert_eq!(ends(&terminator.ended()), ("closed", "closed"));
    }
}

/// rule: flow-6, end-2
#[test]
fn a_client_that_goes_without_close_notify_is_a_reset_to_the_service() {
    const GO: &str = r#"
context = ssl.create_default_context(cafile=CA)
peer = context.wrap_socket(socket.create_connection(("127.0.0.1", PORT)), server_hostname="localhost")
peer.sendall(b"half of a mess")
assert peer.recv(1) == b"!"
peer.shutdown(socket.SHUT_WR)
"#;
    for (args, due, end) in
        [(&[][..], Err(ErrorKind::ConnectionReset), "truncated"), (&["--tolerate-truncation"], Ok(0), "truncated")]
    {
        let service = Service::new(|mut socket| {
            let mut half = [0; 14];
            socket.read_exact(&mut half).unwrap();
            socket.get_mut().write_all(b"!").unwrap();
            socket.read(&mut half).map_err(|error| error.kind())
        });
        let terminator = Terminator::tls(&service, args);
        python(GO, terminator.addr());
        let ended = terminator.ended();
        assert_eq!(ended["client_end"], end, "{ended}");
        assert_eq!(service.served.join().unwrap(), due);
    }
}

/// rule: flow-6, abort-2
#[test]
fn a_service_that_resets_is_no_end_in_order_to_s_client() {
    let service = Service::new(|mut socket| {
        let mut line = String::new();
        socket.read_line(&mut line).unwrap();
        socket.get_mut().write_all(b"half of an ans").unwrap();
        thread::sleep(Duration::from_millis(100));
        socket2::SockRef::from(socket.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let terminator = Terminator::tls(&service, &[]);
    let said = s_client(terminator.addr(), &[], b"question\n");
    assert!(said.stderr.contains("errno=104"), "{}", said.stderr);
    assert_eq!(said.text(), "half of an ans");
    assert_eq!(ends(&terminator.ended()), ("aborted", "reset"));
}

/// rule: flow-6
#[test]
fn a_client_whose_service_is_not_there_is_reset() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let terminator = Terminator::start(&format!("tls:{ANY}{}", identity()), &format!("tcp:{nobody}"), &[]);
    let said = s_client(terminator.addr(), &[], b"question\n");
    assert!(said.stderr.contains("errno=104"), "{}", said.stderr);
    let ended = terminator.ended();
    assert_eq!((&ended["failed"], &ended["how"]), (&"service".into(), &"connect".into()), "{ended}");
}

/// rule: secure-5, tcp-6
#[test]
fn a_handshake_that_stalls_is_given_up_and_connections_are_bounded() {
    let service = Service::new(capitals);
    let terminator = Terminator::tls(&service, &["--handshake-timeout", "0.3", "--max-connections", "1"]);
    let stalled = TcpStream::connect(terminator.addr()).unwrap();
    // The connection waits until the limit allows it.
    let said = s_client(terminator.addr(), &[], b"quit\n");
    assert_eq!(said.text(), "QUIT\n");
    let ended = terminator.ended();
    assert_eq!((&ended["failed"], &ended["how"]), (&"client".into(), &"timed_out".into()), "{ended}");
    assert_eq!(ends(&terminator.ended()), ("closed", "closed"));
    drop(stalled);
}

/// rule: close-1
#[test]
fn sigterm_lets_open_connections_continue_and_accepts_no_new_ones() {
    let service = Service::new(capitals);
    let mut terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &[]);
    let mut client = BufReader::new(TcpStream::connect(terminator.addr()).unwrap());
    let mut ask = |line: &str| {
        let mut answer = String::new();
        client.get_mut().write_all(line.as_bytes()).unwrap();
        client.read_line(&mut answer).unwrap();
        answer
    };
    assert_eq!(ask("one\n"), "ONE\n");
    terminator.signal();
    wait_until_shut(terminator.addr());
    assert_eq!(ask("two\n"), "TWO\n");
    assert_eq!(ask("quit\n"), "QUIT\n");
    drop(client);
    // The log also has a line for the connection that checked whether the terminator listens. It is skipped.
    let ended = std::iter::repeat_with(|| terminator.ended()).find(|ended| ended["conn"] == 1).unwrap();
    assert_eq!((ends(&ended), &ended["there"]), (("closed", "closed"), &13.into()));
    assert_eq!(terminator.wait().code(), Some(0));
}

/// rule: abort-1, abort-2
#[test]
fn connections_open_after_the_drain_are_aborted() {
    let (joined, is_joined) = channel();
    let service = Service::new(move |mut socket| {
        socket.read_exact(&mut [0; 4]).unwrap();
        joined.send(()).unwrap();
        socket.read(&mut [0]).map_err(|error| error.kind())
    });
    let mut terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &["--drain-timeout", "0.2"]);
    let mut client = TcpStream::connect(terminator.addr()).unwrap();
    client.write_all(b"half").unwrap();
    is_joined.recv_timeout(PATIENCE).unwrap();
    terminator.signal();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(service.served.join().unwrap(), Err(ErrorKind::ConnectionReset));
    let ended = terminator.ended();
    assert_eq!(ends(&ended), ("aborted", "aborted"));
    assert_eq!(ended["there"], 4);
    assert_eq!(terminator.wait().code(), Some(0));
}

/// rule: drain-5
#[test]
fn a_handshake_that_is_not_done_is_finished_by_a_drain() {
    let service = Service::new(capitals);
    let mut terminator = Terminator::tls(&service, &[]);
    let finish = r#"
import os, time
early = socket.create_connection(("127.0.0.1", PORT))
os.kill(PID, 15)
time.sleep(0.3)
context = ssl.create_default_context(cafile=CA)
peer = context.wrap_socket(early, server_hostname="localhost")
peer.sendall(b"quit\n")
assert peer.recv(100) == b"QUIT\n"
"#;
    python(&finish.replace("PID", &terminator.child.id().to_string()), terminator.addr());
    assert_eq!(terminator.wait().code(), Some(0));
}

/// rule: drain-3, abort-1
#[test]
fn a_second_signal_aborts_what_is_open() {
    let (joined, is_joined) = channel();
    let service = Service::new(move |mut socket| {
        socket.read_exact(&mut [0; 4]).unwrap();
        joined.send(()).unwrap();
        socket.read(&mut [0]).map_err(|error| error.kind())
    });
    let mut terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &["--drain-timeout", "600"]);
    let mut client = TcpStream::connect(terminator.addr()).unwrap();
    client.write_all(b"half").unwrap();
    is_joined.recv_timeout(PATIENCE).unwrap();
    terminator.signal();
    wait_until_shut(terminator.addr());
    terminator.signal();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(service.served.join().unwrap(), Err(ErrorKind::ConnectionReset));
    assert_eq!(terminator.wait().code(), Some(0));
}

/// rule: flow-7, abort-2
#[test]
fn both_sides_of_a_killed_terminator_see_a_reset() {
    for listen in [format!("tcp:{ANY}"), format!("tls:{ANY}{}", identity())] {
        let (joined, is_joined) = channel();
        let service = Service::new(move |mut socket| {
            socket.read_exact(&mut [0; 4]).unwrap();
            joined.send(()).unwrap();
            socket.read(&mut [0]).map_err(|error| error.kind())
        });
        let mut terminator = Terminator::start(&listen, &service.endpoint(), &[]);
        let mut running = None;
        let mut client = client(terminator.addr());
        if listen.starts_with("tcp") {
            client.write_all(b"half").unwrap();
        } else {
            let addr = terminator.addr().to_string();
            let s_client = ["s_client", "-connect", &addr, "-CAfile", &ca(), "-quiet"];
            running.insert(Running::start("openssl", &s_client)).write(b"half");
        }
        is_joined.recv_timeout(PATIENCE).unwrap();
        terminator.child.kill().unwrap();
        terminator.wait();
        assert_eq!(service.served.join().unwrap(), Err(ErrorKind::ConnectionReset), "{listen}");
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{listen}");
        if let Some(running) = running {
            let said = running.wait();
            assert!(said.stderr.contains("errno=104"), "{}", said.stderr);
        }
    }
}

/// rule: write-10, flow-6
#[cfg(target_os = "linux")]
#[test]
fn a_side_that_does_not_read_uses_no_memory() {
    let (leave, is_over) = channel();
    let service = Service::new(move |socket| {
        flood(socket.get_ref(), b"what nobody reads");
        is_over.recv_timeout(PATIENCE).unwrap();
    });
    let terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &[]);
    let before = peak(&terminator.child);
    let client = client(terminator.addr());
    flood(&client, b"what nobody reads either");
    let grown = peak(&terminator.child) - before;
    leave.send(()).unwrap();
    assert!(grown < A_LITTLE, "{grown} bytes");
    service.served.join().unwrap();
}

/// rule: idle-1
#[test]
fn an_idle_connection_is_ended() {
    let service = Service::new(|mut socket| {
        let mut half = [0; 4];
        socket.read_exact(&mut half).unwrap();
        socket.read(&mut half).map_err(|error| error.kind())
    });
    let terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &["--idle-timeout", "0.3"]);
    let mut client = client(terminator.addr());
    client.write_all(b"half").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(service.served.join().unwrap(), Err(ErrorKind::ConnectionReset));
    let ended = terminator.ended();
    assert!(ends(&ended).0 == "timed_out" || ends(&ended).1 == "timed_out", "{ended}");
}

/// rule: end-1
#[test]
fn a_failure_before_tls_is_blamed_on_the_right_side() {
    let greets = |mut socket: BufReader<TcpStream>| {
        socket.get_mut().write_all(b"hello\r\n").unwrap();
        let _ = socket.read(&mut [0]);
    };
    let says_nothing = |mut socket: BufReader<TcpStream>| drop(socket.read(&mut [0]));
    let leaves = |_: BufReader<TcpStream>| {};
    type Case<'a> = (fn(BufReader<TcpStream>), &'a [u8], bool, [&'a str; 2]);
    let services: [Case<'_>; 6] = [
        (greets, b"half a li", true, ["client", "truncated"]),
        (greets, &b"what\r\n".repeat(200), false, ["client", "protocol"]),
        (greets, b"XTLS\r\n\x16\x03\x01", true, ["client", "truncated"]),
        (greets, b"", false, ["client", "timed_out"]),
        (says_nothing, b"", false, ["service", "timed_out"]),
        (leaves, b"", false, ["service", "truncated"]),
    ];
    for (serve, sent, ends, [side, how]) in services {
        let service = Service::new(serve);
        let listen = format!("starttls:{ANY}{}", identity());
        let args = ["--starttls", "line:XTLS", "--handshake-timeout", "0.5"];
        let terminator = Terminator::start(&listen, &service.endpoint(), &args);
        let mut client = client(terminator.addr());
        client.write_all(sent).unwrap();
        if ends {
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let ended = terminator.ended();
        assert_eq!((&ended["failed"], &ended["how"]), (&side.into(), &how.into()), "{ended}");
        let mut said = Vec::new();
        let end = client.read_to_end(&mut said).map_err(|error| error.kind());
        if side == "service" {
            // An orderly end would tell the client that the answer is complete.
            assert_eq!(end, Err(ErrorKind::ConnectionReset), "{ended}");
        }
        drop(client);
        service.served.join().unwrap();
    }
}

/// rule: limit-1
#[test]
fn connections_are_limited_by_the_number_of_descriptors() {
    let service = TcpListener::bind(ANY).unwrap();
    let connect = format!("tcp:{}", service.local_addr().unwrap());
    thread::spawn(move || {
        for socket in service.incoming() {
            thread::spawn(move || capitals(BufReader::new(socket.unwrap())));
        }
    });
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(example("terminator"));
    let terminator = Terminator::run(limited, &format!("tcp:{ANY}"), &connect, &[]);
    let mut clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = BufReader::new(client(terminator.addr()));
            client.get_mut().write_all(b"quit\n").unwrap();
            client
        })
        .collect();
    // Some connections wait until others are done, but all are served.
    for client in &mut clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "QUIT\n");
        client.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }
    for _ in clients {
        let ended = terminator.ended();
        assert_eq!(ends(&ended), ("closed", "closed"), "{ended}");
    }
}

/// rule: flow-5, flow-6
#[test]
fn a_service_is_not_waited_for_when_the_client_is_gone() {
    let (joined, is_joined) = channel();
    let service = Service::new(move |mut socket| {
        joined.send(()).unwrap();
        // This service sends no greeting.
        socket.read(&mut [0]).map_err(|error| error.kind())
    });
    let terminator = Terminator::starttls(&service, "smtp");
    let client = TcpStream::connect(terminator.addr()).unwrap();
    is_joined.recv_timeout(PATIENCE).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let ended = terminator.ended();
    assert_eq!((&ended["failed"], &ended["how"]), (&"client".into(), &"reset".into()), "{ended}");
    assert_eq!(service.served.join().unwrap(), Err(ErrorKind::ConnectionReset));
}

/// rule: limit-2
#[test]
fn an_address_has_at_most_the_allowed_connections() {
    let service = Service::new(capitals);
    let terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &["--max-per-peer", "1"]);
    let mut first = BufReader::new(TcpStream::connect(terminator.addr()).unwrap());
    let mut second = TcpStream::connect(terminator.addr()).unwrap();
    assert_eq!(second.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut answer = String::new();
    first.get_mut().write_all(b"quit\n").unwrap();
    first.read_line(&mut answer).unwrap();
    assert_eq!(answer, "QUIT\n");
}

/// rule: flow-6
#[test]
fn unix_sockets_work_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let [front, behind] = ["front", "behind"].map(|name| dir.path().join(name));
    let service = UnixListener::bind(&behind).unwrap();
    let serving = thread::spawn(move || {
        let (mut socket, _) = service.accept().unwrap();
        let mut heard = String::new();
        socket.read_to_string(&mut heard).unwrap();
        socket.write_all(heard.to_uppercase().as_bytes()).unwrap();
    });
    let [listen, connect] = [&front, &behind].map(|path| format!("unix:{}", path.display()));
    let mut terminator = Terminator::start(&listen, &connect, &[]);
    assert_eq!(terminator.local, format!("unix {listen}"));
    let mut client = UnixStream::connect(&front).unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HELLO");
    assert_eq!(ends(&terminator.ended()), ("closed", "closed"));
    serving.join().unwrap();
    terminator.signal();
    assert_eq!(terminator.wait().code(), Some(0));
    assert!(!front.exists());
}

#[test]
fn a_wrong_command_line_is_reported_in_one_sentence() {
    let run = |args: &[&str]| {
        let said = Running::start(example("terminator"), args).feed(b"");
        (said.code(), said.stderr)
    };
    let both = |listen: &str, connect: &str| ["--listen", listen, "--connect", connect].map(str::to_owned).to_vec();
    let (tcp, starttls) = (format!("tcp:{ANY}"), format!("starttls:{ANY}{}", identity()));
    let plain = both(&tcp, "tcp:127.0.0.1:1");
    let and =
        |args: &[String], more: &[&str]| [args, &more.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>()].concat();
    for (args, text) in [
        (vec![], "--listen is missing"),
        (plain[..2].to_vec(), "--connect is missing"),
        (both("udp:127.0.0.1:0", "tcp:127.0.0.1:1"), "\"udp\" is not a kind"),
        (both("tls:127.0.0.1:0", "tcp:127.0.0.1:1"), "a tls server needs cert="),
        (both("tls:127.0.0.1:0:cert=x", "tcp:127.0.0.1:1"), "a tls server needs key="),
        (both("tls:127.0.0.1:0:cert=no such file:key=x", "tcp:127.0.0.1:1"), "no such file"),
        (both(&tcp, "tls:127.0.0.1:1:ca=no such file"), "no such file"),
        (both(&tcp, "tcp:127.0.0.1:1:name=x"), "name is an argument of tls, starttls only"),
        (both(&starttls, "tcp:127.0.0.1:1"), "--listen starttls:… needs --starttls"),
        (both(&tcp, "starttls:127.0.0.1:1"), "--connect starttls:… needs --connect-starttls"),
        (and(&plain, &["--starttls", "smtp"]), "--starttls is for --listen starttls:…"),
        (and(&plain, &["--connect-starttls", "smtp"]), "--connect-starttls is for --connect starttls:…"),
        (and(&plain, &["--starttls", "http"]), "\"http\" is not a protocol that begins in plaintext"),
        (and(&plain, &["--starttls", "sieve"]), "sieve"),
        (and(&plain, &["--connect-starttls", "mysql"]), "mysql"),
        (and(&plain, &["--max-connections", "0"]), "is not a number of connections"),
        (and(&plain, &["--nonsense"]), "--nonsense"),
    ] {
        let (code, said) = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(code == 2 && said.contains(text) && said.lines().count() == 1, "{args:?}: {code}: {said}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("tcp:{}", taken.local_addr().unwrap());
    let (code, said) = run(&["--listen", &listen, "--connect", "tcp:127.0.0.1:1"]);
    assert!(code == 1 && said.contains(&listen[4..]), "{said}");
    let help = Running::start(example("terminator"), &["--help"]).feed(b"");
    assert!(help.code() == 0 && help.text().contains("--drain-timeout"));
}
