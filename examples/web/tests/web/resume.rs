//! Three clients that resume their sessions on each of three processes: OpenSSL's, curl, and our own.

use std::path::PathBuf;
use std::process::Command;

use bowline::TlsVersion;

use crate::program::{Files, Program, s_client};
use crate::tickets::{Front, Ours};

/// A client that finds no process without its resumed session in this many connections has failed.
const MOST: usize = 12;

/// Each client does one full handshake, and then resumes on each of the processes behind HAProxy, in TLS 1.2 and 1.3.
pub(crate) fn every_client_resumes(files: &Files, nodes: &[Program], front: &Front) {
    for version in ["-tls1_2", "-tls1_3"] {
        openssl(files, nodes, front, version);
    }
    curl(files, nodes, front, &["--tlsv1.3"], None, 1);
    if let Some(with_tickets) = curl_with_tickets(files) {
        // rustls renews the ticket in each resumed handshake. In TLS 1.2, OpenSSL then gives up the old session, and
        // gives the new one only to programs that ask for it. curl does not, so its next handshake is a full one.
        curl(files, nodes, front, &["--tls-max", "1.2"], Some(with_tickets), MOST / 2);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let ours = Ours::new(files, front.addr, version);
        let name = format!("our client, {version}");
        on_each(files, nodes, &name, || runtime.block_on(ours.resumes()).unwrap());
    }
}

/// Asks until each process has resumed a session of this client. `ask` returns whether it has resumed.
fn on_each(files: &Files, nodes: &[Program], client: &str, mut ask: impl FnMut() -> bool) {
    let before = resumed(files, nodes);
    assert!(!ask(), "{client}: the first handshake is a full one");
    for number in 1..MOST {
        assert!(ask(), "{client}: has not resumed");
        if number >= nodes.len() && resumed(files, nodes).iter().zip(&before).all(|(now, before)| now > before) {
            return;
        }
    }
    panic!("{client}: not resumed on each process: {before:?}, and then {:?}", resumed(files, nodes));
}

/// The number of resumed handshakes of each process.
fn resumed(files: &Files, nodes: &[Program]) -> Vec<u64> {
    let of = |node: &Program| {
        let text = files.get(&[&node.metrics_url("/metrics")]);
        let lines = text.lines().filter(|line| line.starts_with("bowline_handshakes_total{"));
        let resumed = lines.filter(|line| line.contains("resumed=\"true\""));
        resumed.map(|line| line.split(' ').next_back().unwrap().parse::<u64>().unwrap()).sum()
    };
    nodes.iter().map(of).collect()
}

/// `openssl s_client`, which writes its session to a file and reads it again.
fn openssl(files: &Files, nodes: &[Program], front: &Front, version: &str) {
    let (ca, session) = (files.path("ca.pem"), files.text("session"));
    let request = "GET /whoami HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut option = "-sess_out";
    on_each(files, nodes, &format!("s_client {version}"), || {
        let arguments = [version, "-servername", "localhost", "-ign_eof", option, &session];
        let said = s_client(front.addr, &ca, &arguments, request);
        option = "-sess_in";
        assert!(said.contains("\"resumed\":"), "{said}");
        let has_resumed = said.contains("\"resumed\":true");
        // Early data is not offered.
        assert!(!has_resumed || version == "-tls1_2" || said.contains("Max Early Data: 0"), "{said}");
        has_resumed
    });
}

/// curl keeps a session for the URLs of one command. Each URL has a connection of its own. `full` of the handshakes are
/// full ones.
fn curl(files: &Files, nodes: &[Program], front: &Front, version: &[&str], preload: Option<PathBuf>, full: usize) {
    let before = resumed(files, nodes);
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "20", "--http1.1", "-H", "connection: close", "--cacert", &files.text("ca.pem")]);
    command.args(version).args(vec![front.url(); MOST]);
    if let Some(library) = preload {
        command.env("LD_PRELOAD", library);
    }
    let output = command.output().expect("curl is installed (Debian: curl)");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches("\"resumed\":false").count(), full, "curl {version:?}: {said}");
    assert_eq!(said.matches("\"resumed\":true").count(), MOST - full, "curl {version:?}: {said}");
    let after = resumed(files, nodes);
    let is_on_each = after.iter().zip(&before).all(|(now, before)| now > before);
    assert!(is_on_each, "curl {version:?}: not resumed on each process: {before:?}, and then {after:?}");
}

/// curl asks for no tickets in TLS 1.2: it sets `SSL_OP_NO_TICKET`. This library removes that option, so that the rest
/// of curl is tested in TLS 1.2 too. `None`: it cannot be built here, or this curl does not use OpenSSL.
fn curl_with_tickets(files: &Files) -> Option<PathBuf> {
    const LIBRARY: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdint.h>
        uint64_t SSL_CTX_set_options(void *context, uint64_t options) {
            uint64_t (*next)(void *, uint64_t) = dlsym(RTLD_NEXT, "SSL_CTX_set_options");
            return next(context, options & ~(UINT64_C(1) << 14)); /* SSL_OP_NO_TICKET */
        }
    "#;
    let library = files.path("tickets.so");
    files.write("tickets.c", LIBRARY);
    let version = String::from_utf8(Command::new("curl").arg("--version").output().ok()?.stdout).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(files.path("tickets.c"));
    if version.contains(" OpenSSL/3") && cc.status().is_ok_and(|status| status.success()) {
        return Some(library);
    }
    eprintln!("note: without cc, and a curl with OpenSSL 3, curl was not tried in TLS 1.2");
    None
}
