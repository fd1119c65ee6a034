//! The drain that SIGTERM begins.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::program::{Files, python};

#[test]
fn health_says_so_while_connections_are_still_accepted() {
    let files = Files::new();
    let web = files.start(&["--metrics", "127.0.0.1:0", "--drain-delay", "1.5"]);
    assert_eq!(files.get(&[&web.metrics_url("/health")]), "ok");
    web.signal(Signal::TERM);
    web.event("draining");
    for url in [web.url("/health"), web.metrics_url("/health")] {
        assert_eq!(files.get(&["-w", " %{http_code}", &url]), "draining 503");
    }
    assert_eq!(files.get(&[&web.url("/slow?ms=10")]), "done");
    let (_, status) = web.end();
    assert_eq!(status.code(), Some(0));
}

/// `--drain-timeout` is not reached, so curl has closed its connections after the last answer.
#[test]
fn slow_requests_are_answered_and_their_connections_end() {
    let files = Files::new();
    let web = files.start(&["--drain-timeout", "60"]);
    let curls: Vec<_> = ["--http1.1", "--http2"]
        .map(|version| {
            let mut curl = Command::new("curl");
            curl.args(["-sSi", "-m", "30", "--cacert", &files.text("ca.pem"), version, &web.url("/slow?ms=1000")]);
            curl.stdout(Stdio::piped()).spawn().unwrap()
        })
        .into_iter()
        .collect();
    (0..2).for_each(|_| drop(web.event("secured")));
    web.signal(Signal::TERM);
    let said: Vec<_> =
        curls.into_iter().map(|curl| String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap()).collect();
    assert!(said[0].starts_with("HTTP/1.1 200") && said[0].contains("connection: close"), "{said:?}");
    assert!(said[1].starts_with("HTTP/2 200"), "{said:?}");
    assert!(said.iter().all(|said| said.ends_with("done")), "{said:?}");
    let (events, status) = web.end();
    assert_eq!(status.code(), Some(0));
    assert_eq!(events.last().unwrap()["aborted"], 0, "{events:?}");
}

#[test]
fn what_is_left_at_the_limit_is_aborted() {
    let files = Files::new();
    for second_signal in [false, true] {
        let limit = if second_signal { "60" } else { "0.2" };
        let web = files.start(&["--drain-timeout", limit]);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m", "20", "--cacert", &files.text("ca.pem"), &web.url("/slow?ms=100000")]);
        let mut curl = curl.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        web.event("secured");
        web.signal(Signal::TERM);
        web.event("draining");
        if second_signal {
            web.signal(Signal::TERM);
        }
        let (events, status) = web.end();
        assert_eq!(status.code(), Some(0));
        assert!(!curl.wait().unwrap().success());
        let drained = events.last().unwrap();
        assert_eq!((&drained["event"], &drained["aborted"]), (&"drained".into(), &1.into()), "{events:?}");
    }
}

/// 50 slow requests, and clients that connect as fast as they can. Each client whose connection was accepted must get
/// its whole answer. It prints how many slow requests were answered, how many other clients were answered, and how many
/// of all were cut off.
const CLIENTS: &str = "
import socket, ssl, sys, threading
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
lock, stop = threading.Lock(), threading.Event()
count = {'slow': 0, 'quick': 0, 'cut': 0}
def note(what):
    with lock:
        count[what] += 1
def ask(path):
    s = socket.socket()
    s.settimeout(20)
    try:
        s.connect(('127.0.0.1', port))
    except OSError:
        return None
    try:
        s = context.wrap_socket(s, server_hostname='localhost')
        s.sendall(f'GET {path} HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n'.encode())
        answer = b''
        while part := s.recv(65536):
            answer += part
        return answer
    except OSError as error:
        print(path, repr(error), file=sys.stderr)
        return b''
def slow():
    answer = ask('/slow?ms=1000')
    note('slow' if answer and answer.startswith(b'HTTP/1.1 200') and answer.endswith(b'done') else 'cut')
def quick():
    while not stop.is_set():
        answer = ask('/bytes?n=50000')
        if answer is None:
            return
        note('quick' if answer.startswith(b'HTTP/1.1 200') and len(answer) > 50000 else 'cut')
threads = [threading.Thread(target=slow) for _ in range(50)] + [threading.Thread(target=quick) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(30)
print(count['slow'], count['quick'], count['cut'])
";

#[test]
fn a_drain_answers_every_client_that_was_accepted() {
    let times = std::env::var("WEB_DRAINS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let files = Files::new();
    for _ in 0..times {
        let web = files.start(&["--drain-timeout", "20"]);
        let (port, ca) = (web.https.port().to_string(), files.text("ca.pem"));
        let clients = std::thread::spawn(move || python(CLIENTS, &[&port, &ca]));
        for _ in 0..54 {
            web.event("secured");
        }
        web.signal(Signal::TERM);
        let begun = Instant::now();
        let (events, status) = web.end();
        let said = clients.join().unwrap();
        println!(
            "slow, quick, cut off: {}; {} ms; {}",
            said.trim(),
            begun.elapsed().as_millis(),
            events.last().unwrap()
        );
        let counts: Vec<u32> = said.split_whitespace().map(|number| number.parse().unwrap()).collect();
        assert_eq!((counts[0], counts[2]), (50, 0), "{said}");
        assert_eq!(status.code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}
