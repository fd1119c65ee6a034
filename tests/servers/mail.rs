//! Dovecot and Postfix.

use std::fs;
use std::process::Command;

use crate::between::GoAhead;
use crate::postfix::postfix;
use crate::server::{Server, directory, free_port, installed, must_be_root, package_version};
use crate::{Check, check};

fn dovecot() -> Option<Server> {
    let program = installed("dovecot-imapd", &["dovecot"])?;
    if !must_be_root("dovecot") {
        return None;
    }
    let dir = directory();
    let path = dir.path().display();
    let services = [
        ("imap", "imap-login", "imap", "imap"),
        ("pop3", "pop3-login", "pop3", "pop3"),
        ("smtp", "submission-login", "submission", "submission"),
        ("sieve", "managesieve-login", "sieve", "sieve"),
        ("lmtp", "lmtp", "lmtp", "lmtp"),
    ];
    let (mut text, mut protocols, mut ports) = (String::new(), Vec::new(), Vec::new());
    for (dialogue, service, listener, protocol) in services {
        let executable = format!("/usr/lib/dovecot/{service}");
        if installed(&format!("dovecot's {service}"), &[&executable]).is_none() {
            continue;
        }
        let port = free_port();
        text += &format!("service {service} {{\n inet_listener {listener} {{\n  port = {port}\n }}\n");
        if matches!(dialogue, "imap" | "pop3") {
            text += &format!(" inet_listener {listener}s {{\n  port = 0\n }}\n");
        }
        text += "}\n";
        protocols.push(protocol);
        ports.push((dialogue, port));
    }
    let config = format!(
        "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = {path}/log\nprotocols = {}\nlisten = 127.0.0.1\n\
         ssl = yes\nssl_cert = <{path}/cert.pem\nssl_key = <{path}/key.pem\n\
         passdb {{\n driver = static\n args = nopassword=y\n}}\n\
         userdb {{\n driver = static\n args = uid=65534 gid=65534 home={path}\n}}\n{text}",
        protocols.join(" "),
    );
    let file = dir.path().join("dovecot.conf");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(&program);
    command.arg("-F").arg("-c").arg(&file);
    let version = package_version("dovecot-core");
    Some(Server::start(dir, command, version, ports))
}

#[tokio::test]
async fn dovecot_upgrades_in_five_protocols() {
    let Some(server) = dovecot() else { return };
    for (dialogue, begin, question, answer) in [
        ("imap", &b"a1 OK"[..], &b"a NOOP\r\n"[..], &b"a OK"[..]),
        ("pop3", b"+OK Begin", b"CAPA\r\n", b"+OK"),
        ("smtp", b"220 2.0.0", b"EHLO me\r\n", b"250 "),
        // The server lists its capabilities again without a request.
        ("sieve", b"OK \"Begin", b"", b"\"IMPLEMENTATION\""),
        ("lmtp", b"220 2.0.0", b"LHLO me\r\n", b"250 "),
    ] {
        let go_ahead = GoAhead::From(begin, b'\n');
        check(&server, Check { dialogue, go_ahead, question: question.to_vec(), answer }).await;
    }
}

#[tokio::test]
async fn postfix_upgrades() {
    let Some(server) = postfix() else { return };
    let go_ahead = GoAhead::From(b"220 2.0.0", b'\n');
    check(&server, Check { dialogue: "smtp", go_ahead, question: b"EHLO me\r\n".to_vec(), answer: b"250 " }).await;
}
