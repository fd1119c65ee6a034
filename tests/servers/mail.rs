//! Dovecot and Postfix.

use std::fs;
use std::process::Command;

use crate::between::GoAhead;
use crate::server::{Server, directory, folder, free_port, installed, must_be_root, package_version, user};
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

fn postfix() -> Option<Server> {
    let master = installed("postfix", &["/usr/lib/postfix/sbin/master"])?;
    if !must_be_root("postfix") {
        return None;
    }
    let (owner, dir, port) = (user("postfix")?, directory(), free_port());
    let path = dir.path().display();
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {path}/queue\ndata_directory = {path}/data\nmail_owner = postfix\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = localhost.localdomain\nsmtpd_peername_lookup = no\n\
         smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {path}/cert.pem\nsmtpd_tls_key_file = {path}/key.pem\n\
         alias_maps =\nalias_database =\nlocal_recipient_maps =\nsmtpd_client_connection_rate_limit = 0\n"
    );
    let services = format!(
        "127.0.0.1:{port} inet n - n - - smtpd\nanvil unix - - n - 1 anvil\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
         rewrite unix - - n - - trivial-rewrite\ncleanup unix n - n - 0 cleanup\n"
    );
    fs::write(dir.path().join("main.cf"), main).unwrap();
    fs::write(dir.path().join("master.cf"), services).unwrap();
    folder(&dir, "data", Some(owner));
    for name in ["active", "bounce", "corrupt", "defer", "deferred", "hold", "incoming", "private", "public"] {
        folder(&dir, &format!("queue/{name}"), Some(owner));
    }
    folder(&dir, "queue/pid", None);
    let mut command = Command::new(master);
    command.arg("-c").arg(dir.path()).arg("-d");
    Some(Server::start(dir, command, package_version("postfix"), vec![("smtp", port)]))
}

#[tokio::test]
async fn postfix_upgrades() {
    let Some(server) = postfix() else { return };
    let go_ahead = GoAhead::From(b"220 2.0.0", b'\n');
    check(&server, Check { dialogue: "smtp", go_ahead, question: b"EHLO me\r\n".to_vec(), answer: b"250 " }).await;
}
