//! The terminator as the front of a service: PROXY headers, identities, client certificates, metrics, and how it
//! drains.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bowline::proxy::{Decoded, ProxyHeader};
use bowline::testing::pki::{Identity, Pki};
use rustix::process::Signal;

use crate::terminator::{ANY, Service, Terminator, capitals, client, identity, s_client};
use crate::tools::{PATIENCE, ca, certs, example};

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

fn header_then_capitals(mut socket: BufReader<TcpStream>) -> ProxyHeader {
    let header = header(&mut socket);
    capitals(socket);
    header
}

/// rule: proxy-4
#[test]
fn the_service_gets_a_header_that_describes_the_client() {
    let (cert, key) = certs().client_paths();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    for version in ["v1", "v2"] {
        let service = Service::new(header_then_capitals);
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
    let with_reload = format!("{with_cert}:reload=5");
    let with_proxy = format!("tcp:{ANY}:proxy=accept:trusted=127.0.0.1");
    for (listen, options) in [
        (&with_cert, &["--identities", "/nowhere"][..]),
        (&with_ca, &["--client-ca", "ca.pem"]),
        (&with_cert, &["--client-optional"]),
        (&with_cert, &["--crl", "list.pem"]),
        (&with_cert, &["--proxy", "accept"]),
        (&with_cert, &["--proxy-out", "v3"]),
        (&with_cert, &["--trusted", "127.0.0.1"]),
        (&with_cert, &["--reload-every", "0"]),
        (&with_reload, &["--reload-every", "6"]),
        (&with_proxy, &["--proxy", "accept", "--trusted", "127.0.0.1"]),
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

/// rule: proxy-1
#[test]
fn a_trusted_proxy_names_the_client() {
    let service = Service::new(header_then_capitals);
    let options = ["--proxy", "require", "--trusted", "127.0.0.1", "--proxy-out", "v1"];
    let terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &options);
    let mut front = client(terminator.addr());
    front.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\nquit\n").unwrap();
    let mut said = String::new();
    front.read_to_string(&mut said).unwrap();
    assert_eq!(said, "QUIT\n");
    drop(front);
    assert_eq!(terminator.ended()["client"], "192.0.2.7:4711");
    // The service gets the client's address too, and the address to which the client had connected.
    let header = service.served.join().unwrap();
    assert_eq!(header.source().unwrap().to_string(), "192.0.2.7:4711");
    assert_eq!(header.destination().unwrap().to_string(), "192.0.2.1:443");
    let mut without = client(terminator.addr());
    without.write_all(b"quit\n").unwrap();
    assert!(without.read_to_string(&mut said).is_err());
}

/// rule: reload-1, reload-2, reload-6, reload-7
#[test]
fn sighup_reloads_the_identities_and_keeps_them_after_a_mistake() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let write = |name: &str| {
        let identity = pki.server(&[name]);
        std::fs::write(dir.path().join("tls.crt"), identity.chain_pem()).unwrap();
        std::fs::write(dir.path().join("tls.key"), identity.key_pem()).unwrap();
    };
    write("first.example");
    let options = ["--identities", dir.path().to_str().unwrap(), "--reload-every", "600", "--metrics", ANY];
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let terminator = Terminator::start(&format!("tls:{ANY}"), &format!("tcp:{nobody}"), &options);
    let hangup = || terminator.send(Signal::HUP);
    hangup();
    assert_eq!(terminator.event("reloaded")["generation"], 1);
    write("second.example");
    hangup();
    let told = terminator.event("reloaded");
    assert_eq!(told["generation"], 2);
    assert!(told["not_after"].as_str().unwrap().ends_with('Z'), "{told}");
    std::fs::write(dir.path().join("tls.key"), "no key").unwrap();
    hangup();
    let detail = terminator.event("reload_failed")["detail"].to_string();
    assert!(detail.contains("tls.key"), "{detail}");
    let said = curl(terminator.metrics.unwrap(), "/metrics");
    for sample in [
        "bowline_identity_generation 2\n",
        "bowline_certificate_expiry_seconds{name=",
        "bowline_reloads_total{outcome=\"failed\"} 1\n",
        "bowline_reloads_total{outcome=\"ok\"} 1\n",
        "bowline_reloads_total{outcome=\"unchanged\"} 1\n",
    ] {
        assert!(said.contains(sample), "{sample}: {said}");
    }
}

/// rule: ticket-1
/// rule: ticket-8
#[test]
fn a_session_is_resumed_at_another_terminator_with_the_same_ticket_keys() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("tickets"), (0..80).collect::<Vec<u8>>()).unwrap();
    let start = |service: &Service| {
        let options = ["--ticket-keys", &path("tickets"), "--metrics", ANY, "--reload-every", "600"];
        Terminator::start(&format!("tls:{ANY}{}", identity()), &service.endpoint(), &options)
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let resumed = |arguments: &[&str]| {
            let service = Service::new(capitals);
            let terminator = start(&service);
            let arguments = [arguments, &[version, "-servername", "localhost"]].concat();
            assert_eq!(s_client(terminator.addr(), &arguments, b"quit\n").text(), "QUIT\n");
            terminator.ended();
            let metrics = curl(terminator.metrics.unwrap(), "/metrics");
            assert!(metrics.contains("\nbowline_ticket_key_age_seconds "), "{metrics}");
            metrics.contains("resumed=\"true\"} 1\n")
        };
        assert!(!resumed(&["-sess_out", &path("session")]));
        assert!(resumed(&["-sess_in", &path("session")]), "{version}");
        let old = std::fs::read(path("tickets")).unwrap();
        std::fs::write(path("tickets"), (1..81).collect::<Vec<u8>>()).unwrap();
        assert!(!resumed(&["-sess_in", &path("session")]), "{version}");
        std::fs::write(path("tickets"), old).unwrap();
    }
}

/// A front with files of its own: `tls.crt` and `tls.key` for localhost, `roots.pem`, and the certificate of a client.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(pki: &Pki, client: &Identity) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        let server = pki.server(&["localhost"]);
        for (name, text) in [
            ("tls.crt", server.chain_pem()),
            ("tls.key", server.key_pem()),
            ("roots.pem", &pki.ca_pem()),
            ("client.pem", &[client.chain_pem(), client.key_pem()].concat()),
        ] {
            files.write(name, text);
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

/// rule: reload-1, secure-6
#[test]
fn client_certificates_are_required_until_they_are_revoked() {
    let pki = Pki::new();
    let alice = pki.client("alice");
    let files = Files::new(&pki, &alice);
    files.write("list.crl", &pki.crl_pem());
    let (roots, list, cert) = (files.path("roots.pem"), files.path("list.crl"), files.path("client.pem"));
    let identity = format!(":cert={}:key={}", files.path("tls.crt"), files.path("tls.key"));
    let service = Service::new(capitals);
    let options = ["--client-ca", &roots, "--crl", &list, "--reload-every", "600"];
    let terminator = Terminator::start(&format!("tls:{ANY}{identity}"), &service.endpoint(), &options);
    let ask = |arguments: &[&str]| s_client(terminator.addr(), &[&["-CAfile", &roots], arguments].concat(), b"quit\n");
    let with = ["-cert", &cert, "-cert_chain", &cert, "-key", &cert];
    let refused = |alert: &str| {
        let ended = terminator.ended();
        assert_eq!((&ended["failed"], &ended["how"]), (&"client".into(), &"tls".into()), "{ended}");
        assert!(ended["detail"].as_str().unwrap().to_lowercase().contains(alert), "{ended}");
    };
    assert_ne!(ask(&[]).text(), "QUIT\n");
    refused("certificate");
    assert_eq!(ask(&with).text(), "QUIT\n");
    assert_eq!(terminator.ended()["client_end"], "closed");
    pki.revoke(&alice);
    files.write("list.crl", &pki.crl_pem());
    terminator.send(Signal::HUP);
    assert_eq!(terminator.event("reloaded")["generation"], 2);
    assert_ne!(ask(&with).text(), "QUIT\n");
    refused("revoked");
}

/// A proxy from Debian in front of the terminator. It is killed on drop.
struct Front {
    child: Child,
    addr: SocketAddr,
    /// The connection that has shown that the proxy listens.
    first: Option<TcpStream>,
    _dir: tempfile::TempDir,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Front {
    /// Starts a proxy with the configuration that `config` makes of its address and its directory. `None`: it is not
    /// installed.
    fn start(program: &str, arguments: &[&str], config: impl FnOnce(SocketAddr, &str) -> String) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let addr = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
        let file = dir.path().join("proxy.conf");
        std::fs::write(&file, config(addr, dir.path().to_str().unwrap())).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            eprintln!("note: {program} is not installed, so it was not tried");
            return None;
        };
        let mut front = Self { child, addr, first: None, _dir: dir };
        let until = Instant::now() + PATIENCE;
        while front.first.is_none() {
            assert!(Instant::now() < until, "{program} does not listen");
            thread::sleep(Duration::from_millis(10));
            front.first = TcpStream::connect(addr).ok();
        }
        Some(front)
    }

    fn haproxy(server: &str) -> Option<Self> {
        Self::start("haproxy", &["-db", "-q", "-f"], |addr, _| {
            format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 listen front\n bind {addr}\n server terminator {server}\n"
            )
        })
    }

    fn nginx(server: &str) -> Option<Self> {
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        if !Path::new(module).exists() {
            eprintln!("note: libnginx-mod-stream is not installed, so it was not tried");
            return None;
        }
        Self::start("nginx", &["-e", "/dev/null", "-c"], |addr, dir| {
            format!(
                "load_module {module}; daemon off; master_process off; pid {dir}/nginx.pid;\n\
                 events {{}} stream {{ server {{ listen {addr}; proxy_pass {server}; proxy_protocol on; }} }}\n"
            )
        })
    }
}

/// The client's address is that of the client's own socket, as the log and the header for the service say.
fn names_the_client(terminator: &Terminator, service: Service<ProxyHeader>, front: &Front) {
    let header = service.served.join().unwrap();
    assert_eq!(header.destination().unwrap().as_inet(), Some(front.addr));
    let client = header.source().unwrap().to_string();
    assert!(std::iter::repeat_with(|| terminator.ended()).any(|ended| ended["client"] == client));
}

/// rule: proxy-4
#[test]
fn haproxy_and_nginx_in_front_name_the_client_in_both_versions() {
    let haproxy = |version: &'static str| move |addr: SocketAddr| Front::haproxy(&format!("{addr} {version}"));
    let fronts: [Box<dyn Fn(SocketAddr) -> Option<Front>>; 3] = [
        Box::new(haproxy("send-proxy")),
        Box::new(haproxy("send-proxy-v2")),
        Box::new(|addr| Front::nginx(&addr.to_string())),
    ];
    for start in fronts {
        let service = Service::new(header_then_capitals);
        let options = ["--proxy", "require", "--trusted", "127.0.0.1", "--proxy-out", "v2"];
        let terminator = Terminator::start(&format!("tls:{ANY}{}", identity()), &service.endpoint(), &options);
        let Some(front) = start(terminator.addr()) else { continue };
        let said = s_client(front.addr, &[], b"quit\n");
        assert_eq!(said.text(), "QUIT\n", "{}", said.stderr);
        names_the_client(&terminator, service, &front);
    }
}

/// rule: proxy-1, proxy-4
#[test]
fn haproxy_in_front_names_the_client_on_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front").to_str().unwrap().to_owned();
    let service = Service::new(header_then_capitals);
    let options = ["--proxy", "require", "--trusted", "unix", "--proxy-out", "v1"];
    let terminator = Terminator::start(&format!("unix:{path}"), &service.endpoint(), &options);
    let Some(mut front) = Front::haproxy(&format!("unix@{path} send-proxy-v2")) else { return };
    // The service serves one connection. In plaintext, this one has reached it already.
    let mut client = front.first.take().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"quit\n").unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "QUIT\n");
    drop(client);
    names_the_client(&terminator, service, &front);
}

/// rule: proxy-1, proxy-2
#[test]
fn a_client_of_a_trusted_network_may_leave_the_header_out() {
    for header in ["PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n", ""] {
        let service = Service::new(header_then_capitals);
        let options = ["--proxy", "accept", "--trusted", "127.0.0.0/8", "--proxy-out", "v1"];
        let terminator = Terminator::start(&format!("tcp:{ANY}"), &service.endpoint(), &options);
        let mut direct = client(terminator.addr());
        let own = direct.local_addr().unwrap().to_string();
        direct.write_all(format!("{header}quit\n").as_bytes()).unwrap();
        let mut said = String::new();
        direct.read_to_string(&mut said).unwrap();
        assert_eq!(said, "QUIT\n");
        drop(direct);
        let named = if header.is_empty() { own } else { "192.0.2.7:4711".to_owned() };
        assert_eq!(terminator.ended()["client"], named);
        assert_eq!(service.served.join().unwrap().source().unwrap().to_string(), named);
    }
}
