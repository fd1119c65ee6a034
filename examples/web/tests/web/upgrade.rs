//! The program is replaced by its next version.

use std::time::Duration;

use rustix::process::Signal;

use crate::program::{Files, Program, python};

impl Files {
    /// The next version of the program, at the same path.
    fn next(&self, path: &str, options: &[&str]) -> Program {
        self.start(&[&["--upgrade-from", path], options].concat())
    }
}

/// Clients that connect as fast as they can, some of them with requests on a connection that stays open, until a file
/// is there. It prints how many requests were answered, how many connections were refused, and how many answers were
/// cut off. A connection that the server ends between two requests is no fault: the server says so (`connection:
/// close`), or ends it in order, and the client opens another one.
const CLIENTS: &str = "
import os, socket, ssl, sys, threading
port, ca, stop = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=ca)
lock = threading.Lock()
count = {'answered': 0, 'refused': 0, 'cut': 0}
def note(what, why=None):
    with lock:
        count[what] += 1
    if why:
        print(what, why, file=sys.stderr)
def connect():
    s = socket.create_connection(('127.0.0.1', port), 20)
    return context.wrap_socket(s, server_hostname='localhost')
def ask(s, close):
    s.sendall(b'GET /bytes?n=30000 HTTP/1.1\\r\\nhost: localhost\\r\\n' + (b'connection: close\\r\\n' if close else b'') + b'\\r\\n')
    answer = b''
    while b'\\r\\n\\r\\n' not in answer or len(answer.split(b'\\r\\n\\r\\n', 1)[1]) < 30000:
        part = s.recv(65536)
        if not part:
            return answer
        answer += part
    return answer
def clients(keep):
    while not os.path.exists(stop):
        try:
            s = connect()
        except OSError as error:
            note('refused', repr(error))
            continue
        asked = 0
        while not os.path.exists(stop):
            try:
                answer = ask(s, not keep)
            except OSError as error:
                # The server may end an idle connection while the next request is on its way.
                note('cut', repr(error)) if asked == 0 else None
                break
            if len(answer) < 30000:
                note('cut', f'{len(answer)} bytes') if answer or asked == 0 else None
                break
            asked += 1
            note('answered')
            if not keep or b'connection: close' in answer.split(b'\\r\\n\\r\\n', 1)[0]:
                break
        s.close()
threads = [threading.Thread(target=clients, args=(n % 2 == 0,)) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join(600)
print(count['answered'], count['refused'], count['cut'])
";

#[test]
fn a_service_is_replaced_without_refusing_or_cutting_off_a_client() {
    let times = std::env::var("WEB_UPGRADES").ok().and_then(|times| times.parse().ok()).unwrap_or(3);
    let files = Files::new();
    let path = files.text("upgrade.sock");
    let options = ["--metrics", "127.0.0.1:0", "--drain-timeout", "20", "--drain-delay", "30"];
    let mut web = files.next(&path, &options);
    let (https, metrics) = (web.https, web.metrics);
    let (port, ca, stop) = (https.port().to_string(), files.text("ca.pem"), files.text("stop"));
    let clients = std::thread::spawn(move || python(CLIENTS, &[&port, &ca, &stop]));
    for _ in 0..times {
        for _ in 0..20 {
            web.event("secured");
        }
        let next = files.next(&path, &options);
        assert_eq!((next.https, next.metrics), (https, metrics));
        web.event("draining");
        assert_eq!(files.get(&[&next.metrics_url("/health")]), "ok");
        let (events, status) = web.end();
        let drained = events.last().unwrap();
        assert_eq!((&drained["event"], status.code()), (&"drained".into(), Some(0)), "{events:?}");
        web = next;
    }
    web.event("secured");
    files.write("stop", "");
    let said = clients.join().unwrap();
    println!("answered, refused, cut off: {}", said.trim());
    let counts: Vec<u32> = said.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(counts[1..], [0, 0], "{said}");
    web.signal(Signal::INT);
    // The system passes two signals at once as one.
    web.event("draining");
    web.signal(Signal::INT);
    assert_eq!(web.end().1.code(), Some(0));
    assert!(!files.path("upgrade.sock").exists());
}

#[test]
fn workers_and_another_address_are_taken_over_as_far_as_they_fit() {
    let files = Files::new();
    let path = files.text("upgrade.sock");
    let first = files.next(&path, &["--workers", "3"]);
    let second = files.next(&path, &["--workers", "2"]);
    assert_eq!(second.https, first.https);
    assert_eq!(first.end().1.code(), Some(0));
    for _ in 0..12 {
        assert_eq!(files.get(&[&second.url("/health")]), "ok");
    }
    // The next version listens elsewhere: it opens that port, and the old one is closed.
    let third = files.next(&path, &["--listen", "127.0.0.2:0"]);
    assert_ne!(third.https, second.https);
    let old = second.https;
    assert_eq!(second.end().1.code(), Some(0));
    assert!(std::net::TcpStream::connect_timeout(&old, Duration::from_secs(5)).is_err());
    third.signal(Signal::TERM);
    assert_eq!(third.end().1.code(), Some(0));
}
