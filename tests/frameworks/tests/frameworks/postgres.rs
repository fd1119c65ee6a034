//! tokio-postgres over TLS, with PostgreSQL.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline::postgres::MakeTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use crate::common::{Certs, SOON};

/// The folder with the programs of the server; `None` if PostgreSQL is not installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    folders.find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
}

/// PostgreSQL refuses to run as root. The program ends with the thread that started it.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "INT", "--"]).arg(program).stdin(Stdio::null()).env("LC_ALL", "C");
    command
}

struct Postgres {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Postgres {
    async fn start(bin: &Path, certs: &Certs) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let identity = certs.pki.server(&["localhost"]);
        fs::write(at("password"), "correct horse").unwrap();
        fs::write(at("cert.pem"), identity.chain_pem()).unwrap();
        fs::write(at("key.pem"), identity.key_pem()).unwrap();
        fs::set_permissions(at("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
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
        // A port that was free just now.
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let log = fs::File::create(at("log")).unwrap();
        let child = unprivileged(&bin.join("postgres"))
            .arg("-D")
            .arg(at("data"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"])
            .args(["-c", "ssl=on", "-c", &format!("port={port}")])
            .args(["-c", &format!("ssl_cert_file={}", at("cert.pem").display())])
            .args(["-c", &format!("ssl_key_file={}", at("key.pem").display())])
            .current_dir(folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let this = Self { child, port, folder };
        let up = async {
            while !this.log().contains("ready to accept connections") {
                sleep(Duration::from_millis(50)).await;
            }
        };
        assert!(timeout(SOON, up).await.is_ok(), "{}", this.log());
        this
    }

    fn log(&self) -> String {
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

fn config(port: u16) -> String {
    let at = "host=localhost hostaddr=127.0.0.1 user=postgres dbname=postgres password='correct horse'";
    format!("{at} port={port} sslmode=require channel_binding=require")
}

/// rule: secure-15
#[tokio::test]
async fn a_client_of_postgresql_requires_channel_binding() {
    let Some(bin) = programs() else {
        return eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
    };
    let certs = Certs::new();
    let postgres = Postgres::start(&bin, &certs).await;
    let make = MakeTls::new(certs.client_tls(&[]));
    let (client, connection) = tokio_postgres::connect(&config(postgres.port), make).await.unwrap();
    let connection = tokio::spawn(connection);
    let row = client.query_one("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "TLSv1.3");
    let size: i64 = client.query_one("SELECT sum(length(repeat('x', 1000000)))::bigint", &[]).await.unwrap().get(0);
    assert_eq!(size, 1_000_000);
    drop(client);
    connection.await.unwrap().unwrap();

    // A server of another authority.
    let make = MakeTls::new(Certs::new().client_tls(&[]));
    let error = tokio_postgres::connect(&config(postgres.port), make).await.err().unwrap();
    assert!(bowline::chain(&error).to_string().contains("certificate"), "{error:?}");
}

/// Plaintext that somebody adds to the server's answer to the request for TLS is not taken for the server's.
///
/// rule: upgrade-2
#[tokio::test]
async fn plaintext_after_the_answer_of_postgresql_ends_the_connection() {
    let certs = Certs::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let injecting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        // "TLS is accepted", and "you are logged in".
        stream.write_all(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let make = MakeTls::new(certs.client_tls(&[]));
    let error = timeout(SOON, tokio_postgres::connect(&config(port), make)).await.unwrap().err().unwrap();
    assert!(bowline::chain(&error).to_string().contains("TLS"), "{error:?}");
    injecting.await.unwrap();
}
