//! The terminator as the front of a service: PROXY headers, identities, client certificates, metrics, and how it drains.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use bowline::proxy::{Decoded, ProxyHeader};
use bowline::testing::pki::Pki;

use crate::terminator::{ANY, Service, Terminator, capitals, client, identity, s_client};
use crate::tools::{ca, certs, example};

/// Reads a header.
fn header(socket: &mut BufReader<TcpStream>) -> ProxyHeader {
    let mut received = Vec::new();
    loop {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
        if let Decoded::Complete { header, .. } = ProxyHeader::decode(&received).unwrap() {
            return header;
        }
    }
}

/// rule: proxy-4
#[test]
fn the_service_gets_a_header_that_describes_the_client() {
    let (cert, key) = certs().client_paths();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    for version in ["v1", "v2"] {
        let service = Service::new(|mut socket| {
            let header = header(&mut socket);
            capitals(socket);
            header
        });
        let listen = format!("tls:{ANY}{}:alpn=knot", identity());
        let options = ["--client-ca", &ca(), "--client-optional", "--proxy-out", version];
        let terminator = Terminator::start(&listen, &service.endpoint(), &options);
        let arguments = ["-alpn", "knot", "-servername", "localhost", "-cert", cert, "-cert_chain", cert, "-key", key];
        let said = s_client(terminator.addr(), &arguments, b"quit\n");
        assert_eq!(said.text(), "QUIT\n", "{}", said.stderr);
        let header = service.served.join().unwrap();
        assert_eq!(header.source().unwrap().to_string(), terminator.ended()["client"]);
        assert_eq!(header.destination().unwrap().as_inet(), Some(terminator.addr()));
        let tls = header.tls();
        assert_eq!(tls.is_some(), version == "v2");
        if let Some(tls) = tls {
            assert_eq!((header.alpn(), header.authority()), (Some(&b"knot"[..]), Some("localhost")));
            assert!(tls.is_verified && tls.common_name.is_some() && tls.cipher.is_some(), "{tls:?}");
            assert_eq!(tls.version.as_deref(), Some("TLSv1.3"));
        }
    }
}

/// rule: proxy-4
#[test]
fn before_starttls_the_header_knows_nothing_of_tls() {
    let service = Service::new(|mut socket| {
        let header = header(&mut socket);
        socket.get_mut().write_all(b"hello\r\n").unwrap();
        let _ = socket.read(&mut [0]);
        header
    });
    let options = ["--starttls", "line:GO", "--proxy-out", "v2"];
    let terminator = Terminator::start(&format!("starttls:{ANY}{}", identity()), &service.endpoint(), &options);
    let mut client = BufReader::new(client(terminator.addr()));
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert_eq!(line, "hello\r\n");
    drop(client);
    let header = service.served.join().unwrap();
    assert!(header.source().is_some() && header.tls().is_none());
}

/// rule: identity-1
#[test]
fn a_directory_of_identities_serves_the_name_that_is_asked_for() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let roots = dir.path().join("roots.crt");
    std::fs::write(&roots, pki.ca_pem()).unwrap();
    for name in ["first.example", "second.example"] {
        let identity = pki.server(&[name]);
        std::fs::write(dir.path().join(format!("{name}.pem")), identity.chain_pem()).unwrap();
        std::fs::write(dir.path().join(format!("{name}.key")), identity.key_pem()).unwrap();
    }
    let roots = roots.to_str().unwrap();
    let options = ["--identities", dir.path().to_str().unwrap()];
    for (asked, served) in [("second.example", "second.example"), ("other.example", "first.example")] {
        let service = Service::new(capitals);
        let terminator = Terminator::start(&format!("tls:{ANY}"), &service.endpoint(), &options);
        let arguments = ["-servername", asked, "-verify_hostname", served, "-CAfile", roots];
        assert_eq!(s_client(terminator.addr(), &arguments, b"quit\n").text(), "QUIT\n");
    }
}

fn curl(addr: SocketAddr, path: &str) -> String {
    let url = format!("http://{addr}{path}");
    let output = Command::new("curl").args(["-sS", "-m", "20", "-w", " %{http_code}", &url]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// rule: observe-1
#[test]
fn metrics_and_health_are_answered_in_plain_http() {
    let service = Service::new(capitals);
    let options = ["--metrics", ANY, "--drain-delay", "1.5"];
    let terminator = Terminator::start(&format!("tls:{ANY}{}", identity()), &service.endpoint(), &options);
    let metrics = terminator.metrics.unwrap();
    assert_eq!(s_client(terminator.addr(), &[], b"quit\n").text(), "QUIT\n");
    terminator.ended();
    let said = curl(metrics, "/metrics");
    for sample in [
        "bowline_connections_open 0\n",
        "bowline_connections_total{outcome=\"closed\"} 1\n",
        "bowline_handshakes_total{outcome=\"ok\",version=\"TLSv1.3\",resumed=\"false\"} 1\n",
        "bowline_handshake_seconds_count 1\n",
        "bowline_bytes_total{direction=\"in\"} 5\n",
        "bowline_bytes_total{direction=\"out\"} 5\n",
        "bowline_identity_generation 1\n",
        "bowline_certificate_expiry_seconds{name=",
    ] {
        assert!(said.contains(sample), "{sample}: {said}");
    }
    assert_eq!((curl(metrics, "/health"), curl(metrics, "/other")), ("ok 200".into(), " 404".into()));
    terminator.signal();
    while curl(metrics, "/health") != "draining 503" {}
    // Connections are still accepted.
    assert!(TcpStream::connect(terminator.addr()).is_ok());
}

#[test]
fn options_that_contradict_the_endpoint_are_usage_errors() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let with_cert = format!("tls:{ANY}{}", identity());
    let with_ca = format!("{with_cert}:client-ca={}", ca());
    let bare = format!("tls:{ANY}");
    for (listen, options) in [
        (&with_cert, &["--identities", "/nowhere"][..]),
        (&with_ca, &["--client-ca", "ca.pem"]),
        (&with_cert, &["--client-optional"]),
        (&with_cert, &["--crl", "list.pem"]),
        (&with_cert, &["--proxy", "accept"]),
        (&with_cert, &["--proxy-out", "v3"]),
        (&with_cert, &["--trusted", "127.0.0.1"]),
        (&with_cert, &["--reload-every", "0"]),
        (&bare, &["--identities", "/nowhere"]),
        (&bare, &[]),
    ] {
        let mut command = Command::new(example("terminator"));
        command.args(["--listen", listen, "--connect", &format!("tcp:{nobody}")]).args(options);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {said}");
    }
}
