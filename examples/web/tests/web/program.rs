//! Starts the program, reads its lines, and asks it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bowline::testing::pki::{Pki, Profile};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// A PKI, and files of it in a directory.
pub(crate) struct Files {
    pub(crate) pki: Pki,
    pub(crate) dir: TempDir,
}

impl Files {
    /// `ca.pem`, `server.pem` with `server.key` for localhost, `client.pem` with `client.key`.
    pub(crate) fn new() -> Self {
        let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("ca.pem"), pki.ca_pem()).unwrap();
        let files = Self { pki, dir };
        files.issue("server", &["localhost", "127.0.0.1"]);
        let client = files.pki.issue(Profile::client("client.example").uri("spiffe://example/client"));
        files.write("client.pem", client.chain_pem());
        files.write("client.key", client.key_pem());
        files
    }

    /// `NAME.pem` and `NAME.key` for a server with these names.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) {
        let identity = self.pki.server(names);
        self.write(&format!("{file}.pem"), identity.chain_pem());
        self.write(&format!("{file}.key"), identity.key_pem());
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The program with the server's certificate on free ports, with JSON events, and ready.
    pub(crate) fn start(&self, options: &[&str]) -> Program {
        let (cert, key) = (self.text("server.pem"), self.text("server.key"));
        let mut all = vec!["--cert", &cert, "--key", &key, "--listen", "127.0.0.1:0", "--log", "json"];
        all.extend(options);
        Program::start(&all)
    }

    /// curl that trusts the CA, and ends in bounded time.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", "--cacert", &self.text("ca.pem")]).args(arguments);
        command.output().expect("curl is installed (Debian: curl)")
    }

    /// Runs curl, which must succeed, and returns its standard output.
    pub(crate) fn get(&self, arguments: &[&str]) -> String {
        let output = self.curl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.get(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// The running program. It is killed on drop.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    pub(crate) https: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
}

/// The program, not started yet.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_web"));
    command.args(arguments).stdin(Stdio::null());
    command
}

impl Program {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::started(command(arguments).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Waits until it is ready.
    pub(crate) fn started(mut child: Child) -> Self {
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let (mut https, mut metrics) = (None, None);
        loop {
            let line = lines.recv_timeout(PATIENCE).expect("the program says that it is ready");
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["ready"] => break,
                ["listening", "https", addr] => https = https.or(Some(addr.parse().unwrap())),
                ["listening", "metrics", addr] => metrics = Some(addr.parse().unwrap()),
                _ => panic!("{line}"),
            }
        }
        Self { child, lines, https: https.unwrap(), metrics }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https.port())
    }

    pub(crate) fn metrics_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.metrics.unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The next event with this name.
    pub(crate) fn event(&self, name: &str) -> serde_json::Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("there is no event {name}"));
            let event: serde_json::Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    /// All events until the program ends, and its exit status.
    pub(crate) fn end(mut self) -> (Vec<serde_json::Value>, ExitStatus) {
        let until = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => events.push(serde_json::from_str(&line).unwrap()),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("the program does not end: {events:?}"),
            }
        }
        (events, self.child.wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a Python program to its end, and returns what it printed.
pub(crate) fn python(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("python3");
    let output = command.args(["-c", program]).args(arguments).stderr(Stdio::inherit()).output();
    let output = output.expect("python3 is installed (Debian: python3)");
    assert!(output.status.success(), "{program}");
    String::from_utf8(output.stdout).unwrap()
}

/// `openssl s_client`: sends these bytes after the handshake, and returns all that it printed.
pub(crate) fn s_client(addr: SocketAddr, ca: &Path, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string(), "-CAfile"]).arg(ca).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl is installed (Debian: openssl)");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let mut text = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
    drop(stdin);
    child.wait().unwrap();
    String::from_utf8_lossy(&text).into_owned()
}
