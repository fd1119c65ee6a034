//! The console against `openssl s_client` and `curl`.

use serde_json::Value;

use crate::tools::{Console, Running, ca, certs, pattern};

const VERSIONS: [(&str, &str); 2] = [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")];

fn s_client(addr: std::net::SocketAddr, args: &[&str]) -> Running {
    let (addr, ca) = (addr.to_string(), ca());
    let all = ["s_client", "-connect", &addr, "-CAfile", &ca, "-quiet", "-verify_return_error", "-ign_eof"];
    Running::start("openssl", &[&all, args].concat())
}

/// rule: secure-3
#[test]
fn s_client_gets_an_echo_and_the_facts() {
    let console = Console::start(&["--alpn", "knot,rope"]);
    for (n, (flag, version)) in VERSIONS.into_iter().enumerate() {
        let said = s_client(console.tls, &[flag, "-servername", "localhost", "-alpn", "rope"])
            .feed(b"echo Hello, World\nINFO\r\nQUIT\n");
        let text = said.text();
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("220 bowline console tls", "Hello, World", "221 bye"));
        let info: Value = serde_json::from_str(lines[2]).unwrap();
        assert_eq!((&info["version"], &info["alpn"]), (&version.into(), &"rope".into()));
        assert_eq!((&info["sni"], &info["host"]), (&"localhost".into(), &console.tls.to_string().into()));
        let order = ["kind", "secure", "host", "peer", "version", "cipher", "group", "alpn", "sni", "resumed"];
        let places: Vec<_> = order.iter().map(|name| lines[2].find(&format!("\"{name}\":")).unwrap()).collect();
        assert!(places.is_sorted() && lines[2].contains(r#""peer_subject":null"#), "{}", lines[2]);
        let events = console.events(n as u64 + 1);
        assert_eq!(events[1]["cipher"], info["cipher"]);
        assert_eq!(events.last().unwrap()["reason"], "closed");
    }
}

/// rule: close-1, close-2
#[test]
fn s_client_gets_five_megabytes_although_the_server_closes_after_them() {
    let console = Console::start(&[]);
    for (flag, _) in VERSIONS {
        let said = s_client(console.tls, &[flag]).feed(b"CLOSE 5000000\nnobody reads this\n");
        assert!(said.stdout == [&b"220 bowline console tls\r\n"[..], &pattern(5_000_000)].concat());
    }
}

/// rule: abort-1, abort-2
#[test]
fn s_client_sees_an_abort_as_a_reset() {
    let console = Console::start(&[]);
    for (flag, _) in VERSIONS {
        let said = s_client(console.tls, &[flag]).feed(b"ABORT 100\n");
        assert!(said.stderr.contains("errno=104"), "{}", said.stderr);
    }
    assert_eq!(console.lost(2).1["reason"], "aborted");
}

/// The console answers EHLO with a 500, but OpenSSL tries STARTTLS anyway.
///
/// rule: upgrade-1
#[test]
fn s_client_upgrades_by_starttls() {
    let console = Console::start(&[]);
    for (flag, version) in VERSIONS {
        let said = s_client(console.starttls, &["-starttls", "smtp", flag]).feed(b"INFO\nQUIT\n");
        assert!(said.text().contains(&format!(r#""version":"{version}""#)), "{}{}", said.text(), said.stderr);
    }
}

/// rule: secure-4, secure-6
#[test]
fn a_client_certificate_is_requested_and_reported() {
    let console = Console::start(&["--client-ca", &ca()]);
    let (chain, key) = certs().client_paths();
    let own = ["-cert", chain.to_str().unwrap(), "-key", key.to_str().unwrap(), "-cert_chain", chain.to_str().unwrap()];
    let said = s_client(console.tls, &own).feed(b"INFO\nQUIT\n");
    assert!(said.text().contains(r#""peer_subject":"CN=development client,O=bowline test PKI""#), "{}", said.text());
    let said = s_client(console.tls, &[]).feed(b"INFO\nQUIT\n");
    assert!(said.stderr.contains("alert certificate required"), "{}", said.stderr);
    let (_, last) = console.lost(2);
    assert_eq!((&last["reason"], &last["phase"]), (&"tls".into(), &"handshake".into()));
}

/// rule: secure-9
#[test]
fn only_the_chosen_version_is_used() {
    let console = Console::start(&["--tls12"]);
    assert_eq!(s_client(console.tls, &["-tls1_3"]).feed(b"QUIT\n").text(), "");
    assert!(s_client(console.tls, &["-tls1_2"]).feed(b"QUIT\n").text().ends_with("221 bye\r\n"));
    assert_eq!(console.lost(1).1["phase"], "handshake");
}

/// rule: close-1
#[test]
fn curl_gets_five_megabytes_whole() {
    let console = Console::start(&[]);
    for (scheme, addr) in [("gopher", console.tcp), ("gophers", console.tls)] {
        let url = format!("{scheme}://{addr}/_CLOSE%205000000");
        let said = Running::start("curl", &["--silent", "--show-error", "--cacert", &ca(), &url]).feed(b"");
        assert!(said.status.success(), "{}", said.stderr);
        assert_eq!(said.stdout.len(), 5_000_000 + "220 bowline console ???\r\n".len());
    }
}
