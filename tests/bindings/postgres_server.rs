//! A server of PostgreSQL, for the tests of the channel binding and of the adapter.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline::testing::pki::Identity;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// The time in which the server must be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder with the programs of the server; `None` if PostgreSQL is not installed.
pub(crate) fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    folders.find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program that PostgreSQL refuses to run as root. It ends with the thread that started it.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "INT", "--"]).arg(program).stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

/// A server in a folder of its own, with TLS and SCRAM. Its user is `postgres`.
pub(crate) struct Postgres {
    child: Child,
    pub(crate) addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Postgres {
    pub(crate) async fn start(bin: &Path, identity: &Identity, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("password"), password).unwrap();
        fs::write(at("cert.pem"), identity.chain_pem()).unwrap();
        fs::write(at("key.pem"), identity.key_pem()).unwrap();
        fs::set_permissions(at("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        if is_root() {
            assert!(Command::new("chown").args(["-R", "postgres"]).arg(folder.path()).status().unwrap().success());
        }
        let made = unprivileged(&bin.join("initdb"))
            .args(["--no-sync", "-A", "scram-sha-256", "-U", "postgres", "-D"])
            .arg(at("data"))
            .arg("--pwfile")
            .arg(at("password"))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // PostgreSQL cannot choose a free port itself, so this port is one that was free a moment ago.
        let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let child = unprivileged(&bin.join("postgres"))
            .arg("-D")
            .arg(at("data"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"])
            .args(["-c", "ssl=on", "-c", &format!("port={}", addr.port())])
            .args(["-c", &format!("ssl_cert_file={}", at("cert.pem").display())])
            .args(["-c", &format!("ssl_key_file={}", at("key.pem").display())])
            .current_dir(folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let this = Self { child, addr, folder };
        // PostgreSQL listens before it accepts logins, so an open port is not enough.
        let up = async {
            while !this.log().contains("ready to accept connections") {
                sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(timeout(PATIENCE, up).await.is_ok(), "{}", this.log());
        this
    }

    /// The text that the server has written to its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // SIGINT ends all processes of the server, in order.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.child.wait();
    }
}
