//! PROXY headers before TLS.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::program::Files;

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
