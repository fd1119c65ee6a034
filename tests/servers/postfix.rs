//! Postfix: receives mail, and keeps it in its queue. The tests with lettre use this file too.

use std::fs;
use std::process::Command;

use crate::server::{Server, directory, folder, free_port, installed, must_be_root, package_version, user};

pub(crate) fn postfix() -> Option<Server> {
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
