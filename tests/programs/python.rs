//! The console against Python's `ssl`.

use crate::tools::{Console, python};

/// rule: upgrade-1, upgrade-9, upgrade-10
#[test]
fn python_upgrades_downgrades_and_upgrades_again() {
    let console = Console::start(&[]);
    python(
        r#"
import json
sock = connect()
line(sock)
assert ask(sock, b"STOPTLS").startswith(b"500 ")
for _ in range(2):
    assert ask(sock, b"STARTTLS") == b"220 go ahead"
    secure = context().wrap_socket(sock, server_hostname="localhost")
    info = json.loads(ask(secure, b"INFO"))
    assert info["secure"] and info["kind"] == "starttls" and info["sni"] == "localhost", info
    assert info["version"] == secure.version() and info["cipher"] == secure.cipher()[0], info
    assert ask(secure, b"STOPTLS") == b"220 going plain"
    sock = secure.unwrap()
    assert ask(sock, b"ECHO in the clear") == b"in the clear"
assert ask(sock, b"QUIT") == b"221 bye"
assert sock.recv(1) == b""
"#,
        console.starttls,
    );
    let (events, last) = console.lost(1);
    assert_eq!(events, ["made", "secured", "secured", "read_closed:clean", "write_closed", "lost"]);
    assert_eq!(last["reason"], "closed");
}

/// rule: half-2, half-6
#[test]
fn python_half_closes_and_reads_the_sum() {
    let console = Console::start(&[]);
    for (n, version) in ["TLSv1_2", "TLSv1_3"].iter().enumerate() {
        let program = format!("VERSION = ssl.TLSVersion.{version}\n")
            + r#"
import hashlib
peer = tls(VERSION)
assert ask(peer, b"SUM") == b"250 go"
data = b"ECHO swallowed\n" * 100_000
peer.sendall(data)
peer.close_write()
count, digest = line(peer).split()
assert int(count) == len(data)
assert digest.decode() == hashlib.sha256(data).hexdigest()
assert peer.recv(1) == b""
"#;
        python(&program, console.tls);
        let (events, last) = console.lost(n as u64 + 1);
        assert_eq!(events, ["made", "secured", "read_closed:clean", "write_closed", "lost"]);
        assert_eq!((&last["reason"], &last["received"]), (&"closed".into(), &1_500_005.into()));
    }
}

/// rule: abort-1, abort-2
#[test]
fn python_sees_an_abort_as_a_reset_and_never_as_an_end() {
    let console = Console::start(&[]);
    let program = r#"
for n in range(20):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        peer = tls(version)
        peer.sendall(b"ABORT %d\r\n" % (n * n * 1000))
        try:
            peer.read_all()
        except ConnectionResetError:
            continue
        raise AssertionError("a clean end")
"#;
    python(program, console.tls);
    for conn in 1..=40 {
        let (events, last) = console.lost(conn);
        assert_eq!(events, ["made", "secured", "lost"]);
        assert_eq!(last["reason"], "aborted");
    }
}

/// rule: upgrade-9
#[test]
fn plaintext_right_after_the_close_notify_of_a_downgrade_is_processed() {
    let console = Console::start(&[]);
    let program = r#"
peer = tls()
peer.tls.write(b"STOPTLS\r\n")
try:
    peer.tls.unwrap()
except ssl.SSLWantReadError:
    pass
# The command, close_notify and the plaintext in one segment.
peer.sock.sendall(peer.out.read() + b"ECHO glued\r\nQUIT\r\n")
assert line(peer) == b"220 going plain"
while True:
    try:
        peer.tls.unwrap()
        break
    except ssl.SSLWantReadError:
        peer.inp.write(peer.sock.recv(65536))
plain = peer.inp.read()
while part := peer.sock.recv(65536):
    plain += part
assert plain == b"glued\r\n221 bye\r\n", plain
"#;
    python(program, console.tls);
    assert_eq!(console.lost(1).1["reason"], "closed");
}

/// rule: upgrade-2, upgrade-3
#[test]
fn a_command_injected_after_starttls_is_never_carried_out() {
    for (args, injected) in [
        (&[][..], r#"b"ECHO injected\r\n""#),
        (&[], r#"b"\x16ECHO injected\r\n""#),
        (&["--leftover", "refuse"], r#"b"\x16\x03\x01""#),
    ] {
        let console = Console::start(args);
        let program = format!("INJECTED = {injected}\n")
            + r#"
sock = connect()
line(sock)
sock.sendall(b"STARTTLS\r\n" + INJECTED)
got = b""
try:
    while part := sock.recv(65536):
        got += part
except ConnectionResetError:
    pass
assert got in (b"", b"220 go ahead\r\n"), got
"#;
        python(&program, console.starttls);
        let (events, last) = console.lost(1);
        assert_eq!((events.as_slice(), &last["reason"]), (&["made".into(), "lost".into()][..], &"protocol".into()));
    }
}

/// rule: upgrade-2
#[test]
fn a_client_hello_glued_to_starttls_is_fed_to_tls() {
    let console = Console::start(&[]);
    let program = r#"
sock = connect()
line(sock)
inp, out = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context().wrap_bio(inp, out, server_hostname="localhost")
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    sock.sendall(b"STARTTLS\r\n" + out.read())
assert line(sock) == b"220 go ahead"
while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        sock.sendall(out.read())
        inp.write(sock.recv(65536))
sock.sendall(out.read())
"#;
    python(program, console.starttls);
    assert!(console.lost(1).0.contains(&"secured".to_owned()));
}

/// rule: end-2, end-6
#[test]
fn ends_without_close_notify_are_reported_as_truncations() {
    let console = Console::start(&[]);
    let program = r#"
def truncate(sock):
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(65536):
        pass

def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

peer = tls()
assert ask(peer, b"ECHO x") == b"x"
truncate(peer.sock)
peer = tls()
assert ask(peer, b"ECHO x") == b"x"
reset(peer.sock)
for end in (truncate, reset):
    sock = connect()
    sock.sendall(b"\x16\x03\x01")
    time.sleep(0.2)
    end(sock)
"#;
    python(program, console.tls);
    let ends: Vec<_> = (1..=4).map(|conn| console.lost(conn)).collect();
    assert_eq!(ends[0].0, ["made", "secured", "read_closed:truncated", "write_closed", "lost"]);
    let reasons: Vec<_> = ends.iter().map(|(_, last)| last["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["truncated", "reset", "truncated", "reset"]);
    let phases: Vec<_> = ends.iter().map(|(_, last)| last["phase"].as_str()).collect();
    assert_eq!(phases, [None, None, Some("handshake"), Some("handshake")]);
}

/// rule: write-7
#[test]
fn a_thousand_tiny_writes_of_one_turn_are_at_most_two_records() {
    let console = Console::start(&[]);
    let program = r#"
peer = tls(ssl.TLSVersion.TLSv1_2)
peer.sendall(b"TINY 1000\r\n")
raw, sizes = b"", []
while sum(sizes) < 1000:
    raw += peer.sock.recv(65536)
    while len(raw) >= 5 and len(raw) >= 5 + int.from_bytes(raw[3:5], "big"):
        length = int.from_bytes(raw[3:5], "big")
        assert raw[0] == 23
        # Eight bytes of nonce, sixteen of tag (AES-GCM in TLS 1.2).
        sizes.append(length - 24 if peer.tls.cipher()[0].find("GCM") > 0 else length - 16)
        raw = raw[5 + length:]
assert sum(sizes) == 1000 and len(sizes) <= 2, sizes
"#;
    python(program, console.tls);
}
