//! Headers from HAProxy, nginx and curl. A program that is not installed is reported, and its test does nothing.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline::proxy::ProxyHeader;
use bowline::{EndpointListener, Listener, ServerEndpoint, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{BOUND, loopback};

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_there(program: &str, flag: &str) -> bool {
    let found = Command::new(program).arg(flag).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(program: &str, args: &[&str]) -> Running {
    Running(Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// An nginx that passes connections on to `back`, each with a header.
fn start_nginx(dir: &Path, port: u16, back: &str) -> Running {
    let (config, place) = (dir.join("nginx.conf"), dir.display());
    let text = format!(
        "load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\npid {place}/pid;\nerror_log {place}/log;\n\
         events {{}}\n\
         stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass {back}; proxy_protocol on; }} }}\n"
    );
    std::fs::write(&config, text).unwrap();
    start("nginx", &["-e", &format!("{place}/log"), "-p", &place.to_string(), "-c", config.to_str().unwrap()])
}

async fn connect(port: u16) -> TcpStream {
    let connected = async {
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(BOUND, connected).await.expect("the proxy does not listen")
}

/// The header of the next connection, and our peer after it was read. `hello` follows the header.
async fn next_header(listener: &Listener) -> (ProxyHeader, String) {
    loop {
        let incoming = listener.accept().await.unwrap();
        let read = incoming.finish(|mut tcp| async move {
            let header = loopback().read(&mut tcp).await?.expect("a header");
            if header.is_local() {
                return Ok(None);
            }
            let mut hello = [0; 5];
            tcp.read_exact(&mut hello).await?;
            assert_eq!(&hello, b"hello");
            Ok(Some(((*header).clone(), tcp.peer_addr().to_string())))
        });
        if let Some(found) = timeout(BOUND, read).await.unwrap().unwrap() {
            return found;
        }
    }
}

/// rule: proxy-4
#[tokio::test]
async fn haproxy_sends_headers_of_both_versions_and_checks_by_local_ones() {
    if !is_there("haproxy", "-v") {
        return;
    }
    for option in ["send-proxy", "send-proxy-v2", "send-proxy-v2 check check-send-proxy inter 100"] {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let back = listener.local_addr();
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s {back} {option}\n"
        );
        std::fs::write(&config, text).unwrap();
        let _haproxy = start("haproxy", &["-db", "-q", "-f", config.to_str().unwrap()]);
        let mut client = connect(port).await;
        client.write_all(b"hello").await.unwrap();
        let (header, peer) = next_header(&listener).await;
        assert_eq!(peer, client.local_addr().unwrap().to_string(), "{option}");
        assert_eq!(header.destination().unwrap().as_inet().unwrap().port(), port);
    }
}

/// rule: proxy-4
#[tokio::test]
async fn haproxy_says_what_it_knows_of_the_clients_session() {
    if !is_there("haproxy", "-v") || !is_there("openssl", "version") {
        return;
    }
    let pki = bowline::testing::pki::Pki::new();
    let (server, user) = (pki.server(&["localhost"]), pki.client("alice"));
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, parts: &[&str]| std::fs::write(dir.path().join(name), parts.concat()).unwrap();
    write("ca.pem", &[&pki.ca_pem()]);
    write("server.pem", &[server.chain_pem(), server.key_pem()]);
    write("client.pem", &[user.chain_pem(), user.key_pem()]);

    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let (back, port) = (listener.local_addr(), free_port());
    let text = format!(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         frontend f\n bind 127.0.0.1:{port} ssl crt {} ca-file {} verify required alpn h2\n default_backend b\n\
         backend b\n server s {back} send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,authority,crc32c,unique-id\n",
        path("server.pem"),
        path("ca.pem"),
    );
    std::fs::write(path("haproxy.cfg"), text).unwrap();
    let _haproxy = start("haproxy", &["-db", "-q", "-f", &path("haproxy.cfg")]);
    drop(connect(port).await);
    let args =
        format!("s_client -quiet -connect 127.0.0.1:{port} -servername localhost -alpn h2 -tls1_3 -verify_quiet");
    let mut args: Vec<String> = args.split(' ').map(str::to_owned).collect();
    args.extend([
        "-CAfile".into(),
        path("ca.pem"),
        "-cert".into(),
        path("client.pem"),
        "-cert_chain".into(),
        path("client.pem"),
    ]);
    let mut openssl =
        Running(Command::new("openssl").args(&args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    std::io::Write::write_all(openssl.0.stdin.as_mut().unwrap(), b"hello").unwrap();
    let (header, _) = next_header(&listener).await;
    let tls = header.tls().unwrap();
    assert!(tls.is_tls && tls.has_certificate && tls.is_verified, "{tls:?}");
    assert_eq!(tls.version.as_deref(), Some("TLSv1.3"));
    assert_eq!(tls.common_name.as_deref(), Some("alice"));
    assert_eq!(header.authority(), Some("localhost"));
    assert!(header.tlvs().any(|tlv| tlv.kind == 0x03), "the checksum, which was checked");
}

/// rule: proxy-4
#[tokio::test]
async fn nginx_sends_a_header() {
    if !is_there("nginx", "-v") || !Path::new(NGINX_STREAM).exists() {
        println!("skipped: nginx with its stream module is not installed");
        return;
    }
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let (back, port) = (listener.local_addr(), free_port());
    let dir = tempfile::tempdir().unwrap();
    let _nginx = start_nginx(dir.path(), port, &back.to_string());
    let mut client = connect(port).await;
    client.write_all(b"hello").await.unwrap();
    let (_, peer) = next_header(&listener).await;
    assert_eq!(peer, client.local_addr().unwrap().to_string());
}

/// rule: proxy-4
#[tokio::test]
async fn curl_sends_a_header() {
    if !is_there("curl", "--version") {
        return;
    }
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr());
    let _curl = start("curl", &["-s", "-m", "30", "--haproxy-protocol", "-X", "hello", &url]);
    let (header, peer) = next_header(&listener).await;
    assert_eq!(header.source().unwrap().to_string(), peer);
    assert_eq!(header.destination().unwrap(), &listener.local_addr());
}

/// The client that the header of the next connection names. `hello` follows the header.
async fn next_client(listener: &EndpointListener) -> String {
    loop {
        let mut connection = timeout(BOUND, async { listener.accept().await?.begin().await }).await.unwrap().unwrap();
        if connection.control().via().is_none() {
            continue; // A health check.
        }
        let mut hello = [0; 5];
        connection.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        return connection.peer_addr().to_string();
    }
}

async fn on_unix(dir: &Path) -> (EndpointListener, String) {
    let path = dir.join("back.sock").to_str().unwrap().to_owned();
    let endpoint: ServerEndpoint = format!("unix:{path}:proxy=require:trusted=unix").parse().unwrap();
    (endpoint.listen(bowline::Policy::default()).await.unwrap(), path)
}

/// rule: proxy-4, proxy-5
#[tokio::test]
async fn haproxy_sends_headers_of_both_versions_to_a_unix_socket() {
    if !is_there("haproxy", "-v") {
        return;
    }
    for option in ["send-proxy", "send-proxy-v2 check check-send-proxy inter 200ms"] {
        let dir = tempfile::tempdir().unwrap();
        let ((listener, back), port) = (on_unix(dir.path()).await, free_port());
        let config = dir.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s unix@{back} {option}\n"
        );
        std::fs::write(&config, text).unwrap();
        let _haproxy = start("haproxy", &["-db", "-q", "-f", config.to_str().unwrap()]);
        let mut client = connect(port).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(next_client(&listener).await, client.local_addr().unwrap().to_string(), "{option}");
    }
}

/// rule: proxy-4, proxy-5
#[tokio::test]
async fn nginx_sends_a_header_to_a_unix_socket() {
    if !is_there("nginx", "-v") || !Path::new(NGINX_STREAM).exists() {
        println!("skipped: nginx with its stream module is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (listener, back) = on_unix(dir.path()).await;
    let port = free_port();
    let _nginx = start_nginx(dir.path(), port, &format!("unix:{back}"));
    let mut client = connect(port).await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(next_client(&listener).await, client.local_addr().unwrap().to_string());
}
