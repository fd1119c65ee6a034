//! PROXY headers before TLS.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::{Files, python};

#[test]
fn a_header_of_a_trusted_proxy_names_the_client() {
    let files = Files::new();
    for how in ["accept", "require"] {
        let web = files.start(&["--proxy", how, "--trusted", "127.0.0.0/8,::1"]);
        let facts = files.json(&["--haproxy-protocol", &web.url("/whoami")]);
        // curl writes the addresses of its own socket into the header.
        assert_eq!(facts["peer"].as_str().unwrap().split(':').next(), Some("127.0.0.1"), "{facts}");
        assert_eq!(facts["via"], facts["peer"], "{facts}");
        let made = web.event("made");
        let secured = web.event("secured");
        assert_eq!((&made["peer"], &secured["via"]), (&facts["via"], &facts["via"]));
        let without = files.curl(&[&web.url("/whoami")]);
        assert_eq!(without.status.success(), how == "accept");
    }
}

#[test]
fn nothing_is_read_from_other_peers() {
    let files = Files::new();
    let web = files.start(&["--proxy", "accept", "--trusted", "192.0.2.0/24"]);
    assert!(files.json(&[&web.url("/whoami")])["via"].is_null());
    assert!(!files.curl(&["--haproxy-protocol", &web.url("/whoami")]).status.success());
    let web = files.start(&["--proxy", "require", "--trusted", "192.0.2.0/24"]);
    assert!(!files.curl(&["--haproxy-protocol", &web.url("/whoami")]).status.success());
    assert!(!files.curl(&[&web.url("/whoami")]).status.success());
}

/// A proxy from Debian, which is killed on drop.
struct Front {
    child: Child,
    url: String,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the program with a configuration that has the free port instead of `PORT`. `None`: it is not installed.
fn front(files: &Files, program: &str, arguments: &[&str], config: &str) -> Option<Front> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    files.write("front.conf", &config.replace("PORT", &port.to_string()));
    let mut command = Command::new(program);
    command.args(arguments).arg(files.path("front.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        eprintln!("note: {program} is not installed, so it was not tried");
        return None;
    };
    let front = Front { child, url: format!("https://localhost:{port}/whoami") };
    let until = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "{program} does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Some(front)
}

fn client_and_proxy(facts: &Value) {
    let (peer, via) = (facts["peer"].as_str().unwrap(), facts["via"].as_str().unwrap());
    assert!(peer.starts_with("127.0.0.1:") && via.starts_with("127.0.0.1:") && peer != via, "{facts}");
}

#[test]
fn haproxy_passes_the_client_on() {
    let files = Files::new();
    let web = files.start(&["--proxy", "require", "--trusted", "127.0.0.1"]);
    for version in ["send-proxy", "send-proxy-v2"] {
        let config = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen front\n bind 127.0.0.1:PORT\n server web {} {version}\n",
            web.https
        );
        let Some(front) = front(&files, "haproxy", &["-db", "-f"], &config) else { return };
        client_and_proxy(&files.json(&[&front.url]));
    }
}

#[test]
fn nginx_passes_the_client_on() {
    let files = Files::new();
    let web = files.start(&["--proxy", "require", "--trusted", "127.0.0.1"]);
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if !Path::new(module).exists() {
        return eprintln!("note: libnginx-mod-stream is not installed, so it was not tried");
    }
    let dir = files.text("");
    let config = format!(
        "load_module {module}; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;\n\
         events {{}} stream {{ server {{ listen 127.0.0.1:PORT; proxy_pass {}; proxy_protocol on; }} }}\n",
        web.https
    );
    let arguments = ["-p", &dir, "-e", &format!("{dir}/nginx.log"), "-c"];
    let Some(front) = front(&files, "nginx", &arguments, &config) else { return };
    client_and_proxy(&files.json(&[&front.url]));
}

/// Connects three times through a proxy: twice for one client, then for another one. Prints how each of them went.
const THROUGH_A_PROXY: &str = "
import socket, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
context = ssl.create_default_context(cafile=ca)
held = []
for client in ['192.0.2.1', '192.0.2.1', '192.0.2.2']:
    s = socket.create_connection(('127.0.0.1', port), timeout=20)
    s.sendall(f'PROXY TCP4 {client} 192.0.2.9 1000 443\\r\\n'.encode())
    try:
        s = context.wrap_socket(s, server_hostname='localhost')
        s.sendall(b'GET /health HTTP/1.1\\r\\nhost: localhost\\r\\n\\r\\n')
        print(s.recv(65536).split(b'\\r\\n')[0].decode())
        held.append(s)
    except ConnectionResetError:
        print('reset')
";

#[test]
fn the_limit_of_a_peer_counts_the_client_that_the_header_names() {
    let files = Files::new();
    for how in ["accept", "require"] {
        let web = files.start(&["--max-per-peer", "1", "--proxy", how, "--trusted", "127.0.0.1"]);
        let said = python(THROUGH_A_PROXY, &[&web.https.port().to_string(), &files.text("ca.pem")]);
        assert_eq!(said.lines().collect::<Vec<_>>(), ["HTTP/1.1 200 OK", "reset", "HTTP/1.1 200 OK"], "{how}");
    }
}
