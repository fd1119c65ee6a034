//! A PKI in files, and the programs that the tests start.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime};

use bowline::testing::pki::Pki;
use bowline::{ClientTls, Connector, DrainGroup, Listener, ServerTls, TcpConnection, TlsConnection, TlsListener};
use tokio::process::Command;

/// Longer than any wait of a test that passes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) struct Certs {
    pub(crate) pki: Pki,
    folder: tempfile::TempDir,
}

impl Certs {
    pub(crate) fn new() -> Self {
        let (pki, folder) = (Pki::new(), tempfile::tempdir().unwrap());
        let client = pki.client("alice");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", &pki.ca_pem());
        write("client.pem", &format!("{}{}", client.chain_pem(), client.key_pem()));
        let server = pki.server(&["localhost"]);
        write("server.pem", server.chain_pem());
        write("server.key", server.key_pem());
        Self { pki, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The TLS configuration of a server for `localhost`, with ALPN for both versions of HTTP. It accepts client
    /// certificates.
    pub(crate) fn server_tls(&self) -> ServerTls {
        let identity = self.pki.server(&["localhost"]);
        let tls = ServerTls::builder().identity_pem(identity.chain_pem(), identity.key_pem());
        tls.client_ca_pem(self.pki.ca_pem()).client_auth_optional().alpn(["h2", "http/1.1"]).build().unwrap()
    }

    pub(crate) fn client_tls(&self, alpn: &[&str]) -> ClientTls {
        ClientTls::builder().roots_pem(self.pki.ca_pem()).alpn(alpn).build().unwrap()
    }

    pub(crate) async fn listener(&self) -> (TlsListener, u16, DrainGroup) {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let listener = TlsListener::new(listener, self.server_tls());
        let (port, group) = (listener.local_addr().as_inet().unwrap().port(), listener.group().clone());
        (listener, port, group)
    }

    /// A client of a server for `localhost`.
    pub(crate) async fn connect(&self, port: u16) -> TlsConnection<TcpConnection> {
        let tcp = Connector::new().connect("localhost", port).await.unwrap();
        TlsConnection::connect(tcp, &self.client_tls(&[]), "localhost").await.unwrap()
    }

    /// curl, with the root certificate.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Command {
        let mut curl = program("curl", &["-sS", "-m", "60", "--cacert"]);
        curl.arg(self.path("ca.pem")).args(arguments);
        curl
    }

    /// The output of curl.
    pub(crate) async fn curled(&self, arguments: &[&str]) -> String {
        finished(&mut self.curl(arguments)).await
    }
}

pub(crate) fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Whether a program is installed.
pub(crate) fn has(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// The output of a program that has succeeded.
pub(crate) async fn finished(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}: {out}{err}");
    out.into_owned()
}

/// The example with this name. It is built if it is missing or older than its sources.
pub(crate) fn example(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let newest = newest(&root.join("src")).max(newest(&root.join("examples").join(name)));
    let mut built = ["debug", "release"].map(|profile| target.join(profile).join("examples").join(name)).into_iter();
    let is_new = |program: &PathBuf| program.metadata().and_then(|file| file.modified()).is_ok_and(|at| at >= newest);
    built.find(is_new).unwrap_or_else(|| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--example", name, "--target-dir"]).arg(target);
        assert!(cargo.current_dir(root).status().unwrap().success(), "the example {name} does not build");
        target.join("debug/examples").join(name)
    })
}

fn newest(path: &Path) -> SystemTime {
    let own = path.metadata().unwrap().modified().unwrap();
    let Ok(entries) = std::fs::read_dir(path) else { return own };
    entries.map(|entry| newest(&entry.unwrap().path())).max().unwrap_or(own)
}
