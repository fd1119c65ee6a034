//! LDAP, FTP, XMPP, databases, IRC, NNTP.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::between::GoAhead;
use crate::server::{
    Server, directory, folder, free_port, installed, is_root, must_be_root, package_version, skip, user, version,
};
use crate::{Check, PATIENCE, check};

#[tokio::test]
async fn slapd_upgrades() {
    let Some(program) = installed("slapd", &["slapd"]) else { return };
    let (dir, port) = (directory(), free_port());
    let path = dir.path().display();
    let config = format!(
        "include /etc/ldap/schema/core.schema\npidfile {path}/pid\nTLSCertificateFile {path}/cert.pem\n\
         TLSCertificateKeyFile {path}/key.pem\n"
    );
    fs::write(dir.path().join("slapd.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-h").arg(format!("ldap://127.0.0.1:{port}")).arg("-f").arg(dir.path().join("slapd.conf"));
    command.args(["-d", "0"]);
    let server = Server::start(dir, command, package_version("slapd"), vec![("ldap", port)]);
    // The test asks for an anonymous bind with message id 2, and expects the response to it.
    let question = b"\x30\x0c\x02\x01\x02\x60\x07\x02\x01\x03\x04\x00\x80\x00".to_vec();
    let answer = b"\x30\x0c\x02\x01\x02\x61\x07\x0a\x01\x00";
    check(&server, Check { dialogue: "ldap", go_ahead: GoAhead::First, question, answer }).await;
}

#[tokio::test]
async fn vsftpd_upgrades() {
    let Some(program) = installed("vsftpd", &["vsftpd"]) else { return };
    if !must_be_root("vsftpd") {
        return;
    }
    let (dir, port) = (directory(), free_port());
    let path = dir.path().display();
    let config = format!(
        "listen=YES\nbackground=NO\nlisten_address=127.0.0.1\nlisten_port={port}\nanonymous_enable=YES\nssl_enable=YES\n\
         allow_anon_ssl=YES\nrsa_cert_file={path}/cert.pem\nrsa_private_key_file={path}/key.pem\nssl_ciphers=HIGH\n\
         seccomp_sandbox=NO\nsecure_chroot_dir={path}/empty\n"
    );
    folder(&dir, "empty", None);
    fs::write(dir.path().join("vsftpd.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.arg(dir.path().join("vsftpd.conf"));
    let server = Server::start(dir, command, package_version("vsftpd"), vec![("ftp", port)]);
    let go_ahead = GoAhead::From(b"234", b'\n');
    check(&server, Check { dialogue: "ftp", go_ahead, question: b"FEAT\r\n".to_vec(), answer: b"211 " }).await;
}

#[tokio::test]
async fn prosody_upgrades_clients_and_servers() {
    let Some(program) = installed("prosody", &["prosody"]) else { return };
    let (dir, clients, servers) = (directory(), free_port(), free_port());
    let path = dir.path().display();
    let config = format!(
        r#"run_as_root = true
data_path = "{path}"
pidfile = "{path}/pid"
log = {{ info = "{path}/log" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {clients} }}
s2s_ports = {{ {servers} }}
c2s_require_encryption = true
s2s_require_encryption = true
modules_enabled = {{ "saslauth", "tls", "dialback" }}
authentication = "internal_hashed"
ssl = {{ certificate = "{path}/cert.pem", key = "{path}/key.pem" }}
VirtualHost "localhost"
"#
    );
    fs::write(dir.path().join("prosody.cfg.lua"), config).unwrap();
    let mut command = Command::new(program);
    command.arg("-F").arg("--config").arg(dir.path().join("prosody.cfg.lua"));
    let ports = vec![("xmpp", clients), ("xmpp-server", servers)];
    let server = Server::start(dir, command, package_version("prosody"), ports);
    for (dialogue, namespace) in [("xmpp", "client"), ("xmpp-server", "server")] {
        let question = format!(
            "<?xml version='1.0'?><stream:stream to='localhost' version='1.0' xmlns='jabber:{namespace}' \
             xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        let go_ahead = GoAhead::From(b"<proceed", b'>');
        check(&server, Check { dialogue, go_ahead, question: question.into(), answer: b"<stream:stream" }).await;
    }
}

/// The folder of PostgreSQL's programs: that of the highest version.
fn postgres_programs() -> Option<std::path::PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let mut versions: Vec<_> = versions.filter(|path| path.join("initdb").exists()).collect();
    versions.sort();
    versions.pop()
}

/// A command as the user of a server that does not run as root.
fn as_user(program: &Path, name: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", name, "--regid", name, "--clear-groups"]).arg(program);
    command
}

#[tokio::test]
async fn postgresql_upgrades() {
    let Some(programs) = postgres_programs() else { return skip("postgresql is not installed") };
    let (dir, port, owner) = (directory(), free_port(), user("postgres"));
    let data = folder(&dir, "data", owner);
    let made = as_user(&programs.join("initdb"), "postgres").args(["-A", "trust", "-N", "-D"]).arg(&data).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // The server's user must own the key.
    for name in ["cert.pem", "key.pem"] {
        fs::copy(dir.path().join(name), data.join(name)).unwrap();
        fs::set_permissions(data.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if let Some((user, group)) = owner.filter(|_| is_root()) {
            std::os::unix::fs::chown(data.join(name), Some(user), Some(group)).unwrap();
        }
    }
    let mut command = as_user(&programs.join("postgres"), "postgres");
    command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
    command.args(["-c", "ssl=on", "-c", "ssl_cert_file=cert.pem", "-c", "ssl_key_file=key.pem", "-c", "fsync=off"]);
    let version = version(&programs.join("postgres"), &["--version"]);
    // At SIGTERM, PostgreSQL would wait for its clients to leave. At SIGINT, it ends at once.
    let server = Server::start(dir, command, version, vec![("postgres", port)]).stopped_by(Signal::INT);
    // The port is open before the database is.
    let patience = Instant::now() + PATIENCE;
    while !fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|status| status.contains("ready")) {
        assert!(Instant::now() < patience, "PostgreSQL does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The test sends the startup message of protocol 3.0, and expects AuthenticationOk.
    let parameters = b"\0\x03\0\0user\0postgres\0\0";
    let question = [&(4 + parameters.len() as u32).to_be_bytes()[..], parameters].concat();
    let answer = b"R\0\0\0\x08\0\0\0\0";
    check(&server, Check { dialogue: "postgres", go_ahead: GoAhead::Byte, question, answer }).await;
}

#[tokio::test]
async fn mariadb_upgrades() {
    let Some(program) = installed("mariadb-server", &["mariadbd"]) else { return };
    let (dir, port) = (directory(), free_port());
    let data = folder(&dir, "data", None);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut command = Command::new(&program);
    // Without the tables of users, any user may log in.
    command.args(["--no-defaults", "--skip-grant-tables", "--bind-address=127.0.0.1"]);
    command.args(["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M"]).arg(format!("--port={port}"));
    command.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", at("socket")));
    command.arg(format!("--pid-file={}", at("pid"))).arg(format!("--ssl-cert={}", at("cert.pem")));
    command.arg(format!("--ssl-key={}", at("key.pem")));
    if is_root() {
        command.arg("--user=root");
    }
    let server = Server::start(dir, command, version(&program, &["--version"]), vec![("mysql", port)]);
    // The test sends HandshakeResponse41 with the packet number 2, and expects OK with the number 3.
    let mut login = 0x8a00_u32.to_le_bytes().to_vec();
    login.extend(0x0100_0000_u32.to_le_bytes());
    login.push(45);
    login.extend([0; 23]);
    login.extend(b"root\0\0");
    let question = [&[login.len() as u8, 0, 0, 2][..], &login].concat();
    check(&server, Check { dialogue: "mysql", go_ahead: GoAhead::First, question, answer: b"\0\0\x03\0\0\0" }).await;
}

#[tokio::test]
async fn inspircd_upgrades() {
    let Some(program) = installed("inspircd", &["inspircd"]) else { return };
    let (dir, port) = (directory(), free_port());
    let path = dir.path().display();
    let config = format!(
        r#"<server name="irc.localhost" description="x" network="x">
<admin name="x" email="x@localhost">
<bind address="127.0.0.1" port="{port}" type="clients">
<performance clonesonconnect="no">
<connect allow="*" timeout="30" resolvehostnames="no" localmax="1000" globalmax="1000">
<module name="ssl_gnutls">
<module name="starttls">
<sslprofile name="Clients" provider="gnutls" certfile="{path}/cert.pem" keyfile="{path}/key.pem">
<starttls provider="Clients">
<pid file="{path}/pid">
<log method="file" type="*" level="default" target="{path}/log">
<path datadir="{path}" logdir="{path}" runtimedir="{path}">
"#
    );
    fs::write(dir.path().join("inspircd.conf"), config).unwrap();
    let mut command = Command::new(program);
    command.args(["--nofork", "--runasroot"]).arg(format!("--config={}", dir.path().join("inspircd.conf").display()));
    let server = Server::start(dir, command, package_version("inspircd"), vec![("irc", port)]);
    let go_ahead = GoAhead::From(b"670 ", b'\n');
    check(&server, Check { dialogue: "irc", go_ahead, question: b"PING x\r\nQUIT\r\n".to_vec(), answer: b"ERROR" })
        .await;
}

#[tokio::test]
async fn inn_upgrades() {
    let Some(program) = installed("inn2", &["/usr/lib/news/bin/nnrpd"]) else { return };
    if !must_be_root("inn2") {
        return;
    }
    let (dir, port, owner) = (directory(), free_port(), user("news"));
    let own = folder(&dir, "news", owner);
    let path = dir.path().display();
    let key = own.join("key.pem");
    let config = format!(
        "mta: \"/bin/true %s\"\ndomain: localhost.localdomain\npathhost: localhost\nhismethod: hisv6\novmethod: tradindexed\n\
         enableoverview: true\npathnews: /usr/lib/news\npathdb: {path}/news\npathetc: {path}/news\npathspool: {path}/news\n\
         pathrun: {path}/news\npathtmp: {path}/news\npathlog: {path}/news\npathoverview: {path}/news\n\
         tlscertfile: {path}/cert.pem\ntlscafile: {path}/cert.pem\ntlscapath: {path}\ntlskeyfile: {path}/news/key.pem\n"
    );
    fs::write(dir.path().join("inn.conf"), config).unwrap();
    let readers =
        "auth \"x\" { hosts: \"127.0.0.1\" default: \"x\" }\naccess \"x\" { users: \"*\" newsgroups: \"*\" }\n";
    // The index has no groups: its magic number, and an empty list for each hash and for the free entries.
    let index = [&0x0e0f_0cc2_u32.to_le_bytes()[..], &[0xff; 4 * 16_385]].concat();
    for (name, content) in [
        ("readers.conf", readers.as_bytes()),
        ("storage.conf", b"method trash {\n  class: 0\n  newsgroups: *\n}\n"),
        ("group.index", &index),
        ("active", b""),
        ("newsgroups", b""),
        ("history", b""),
        ("key.pem", &fs::read(dir.path().join("key.pem")).unwrap()),
    ] {
        fs::write(own.join(name), content).unwrap();
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(own.join(name), Some(user), Some(group)).unwrap();
        }
    }
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = as_user(&program, "news");
    command.env("INNCONF", dir.path().join("inn.conf")).args(["-D", "-f", "-4", "127.0.0.1", "-p", &port.to_string()]);
    command.arg("-c").arg(own.join("readers.conf"));
    let server = Server::start(dir, command, package_version("inn2"), vec![("nntp", port)]);
    let go_ahead = GoAhead::From(b"382", b'\n');
    let question = b"CAPABILITIES\r\nQUIT\r\n".to_vec();
    check(&server, Check { dialogue: "nntp", go_ahead, question, answer: b"IMPLEMENTATION INN" }).await;
}
