//! Children, their output, and the tools that the tests need.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use bowline::testing::pki::{Pki, PkiFiles};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The longest wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The certificates that all consoles of a run use.
pub(crate) fn certs() -> &'static PkiFiles {
    static CERTS: OnceLock<PkiFiles> = OnceLock::new();
    CERTS.get_or_init(|| Pki::load_or_create(certs_dir()).unwrap())
}

pub(crate) fn certs_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("certs")
}

pub(crate) fn ca() -> String {
    certs().ca_path().to_str().unwrap().to_owned()
}

/// The path of an example of this crate. It is built if it is missing or older than its sources.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let dir = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(Path::parent).unwrap();
        let examples = profile.join("examples");
        if ["certs", "chat", "console", "netcat", "smtp", "terminator", "vsock"]
            .iter()
            .any(|name| is_stale(&examples.join(name)))
        {
            build(profile);
        }
        examples
    });
    dir.join(name)
}

fn is_stale(program: &Path) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let newest = newest(&root.join("src")).max(newest(&root.join("examples")));
    program.metadata().and_then(|meta| meta.modified()).map_or(true, |built| built < newest)
}

fn newest(path: &Path) -> SystemTime {
    let own = path.metadata().unwrap().modified().unwrap();
    let Ok(entries) = std::fs::read_dir(path) else { return own };
    entries.map(|entry| newest(&entry.unwrap().path())).max().unwrap_or(own)
}

fn build(profile: &Path) {
    let name = match profile.file_name().and_then(OsStr::to_str).unwrap() {
        "debug" => "dev",
        other => other,
    };
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--examples", "--profile", name, "--target-dir"])
        .arg(profile.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "the examples do not build");
}

/// Starts a child. If a tool is missing, the test fails and names its Debian package, which has the same name.
pub(crate) fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => {
            panic!("{0} is missing: install the Debian package {0}", command.get_program().to_string_lossy())
        }
        _ => panic!("{command:?}: {error}"),
    })
}

/// A child process. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

/// The output of a child process, and how it ended.
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{}: {}", self.status, self.stderr))
    }

    /// The last line on standard error, as JSON.
    pub(crate) fn report(&self) -> Value {
        let last = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", self.stderr))
    }
}

impl Running {
    /// Starts a tool, or the path of a program.
    pub(crate) fn start(program: impl AsRef<OsStr>, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        let pipe = Stdio::piped;
        let mut child = spawn(command.args(args).stdin(pipe()).stdout(pipe()).stderr(pipe()));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), stdout: Some(collect(stdout)), stderr: Some(collect(stderr)), child }
    }

    /// Writes to its standard input, which stays open.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).and_then(|()| stdin.flush()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the program ends, without closing its standard input.
    pub(crate) fn wait(mut self) -> Said {
        let status = ended(&mut self.child);
        let collected = |reader: &mut Option<JoinHandle<Vec<u8>>>| reader.take().unwrap().join().unwrap();
        let stdout = collected(&mut self.stdout);
        Said { status, stdout, stderr: String::from_utf8_lossy(&collected(&mut self.stderr)).into_owned() }
    }

    /// Writes to its standard input and closes it, then waits for its end.
    pub(crate) fn feed(mut self, bytes: &[u8]) -> Said {
        let mut stdin = self.stdin.take().unwrap();
        let bytes = bytes.to_vec();
        // A child that ends early does not read all bytes.
        let writing = thread::spawn(move || drop(stdin.write_all(&bytes)));
        let said = self.wait();
        writing.join().unwrap();
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // The child may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let patience = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < patience, "a child does not end");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn netcat(args: &[&str]) -> Running {
    Running::start(example("netcat"), args)
}

/// Runs a Python program that must succeed. It finds the console's address and the CA in `PORT` and `CA`, and the
/// helpers of `peer.py`.
pub(crate) fn python(program: &str, addr: SocketAddr) -> String {
    let preamble = format!("PORT = {}\nCA = {:?}\n{}\n", addr.port(), ca(), include_str!("peer.py"));
    let said = Running::start("python3", &["-c", &(preamble + program)]).feed(b"");
    assert!(said.status.success(), "{}{}", said.text(), said.stderr);
    said.text()
}

/// Lines of a child's standard output.
pub(crate) type Output = std::io::Lines<BufReader<ChildStdout>>;

/// A console on three ports of its own, and its log.
pub(crate) struct Console {
    child: Child,
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) starttls: SocketAddr,
    log: Arc<(Mutex<Vec<Value>>, Condvar)>,
}

impl Console {
    pub(crate) fn start(args: &[&str]) -> Self {
        let (console, lines) = Self::start_unread(args);
        let told = Arc::clone(&console.log);
        thread::spawn(move || {
            for line in lines.map(Result::unwrap) {
                told.0.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                told.1.notify_all();
            }
        });
        console
    }

    /// A console whose log is not read, and the rest of its output.
    pub(crate) fn start_unread(args: &[&str]) -> (Self, Output) {
        certs();
        let any = "127.0.0.1:0";
        let mut child = Command::new(example("console"))
            .args(["--face", crate::FACE, "--log", "json", "--tcp", any, "--tls", any, "--starttls", any, "--certs"])
            .arg(certs_dir())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut port = |kind: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(&format!("listening {kind} ")).unwrap_or_else(|| panic!("{line}")).parse().unwrap()
        };
        let (tcp, tls, starttls) = (port("tcp"), port("tls"), port("starttls"));
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        let log = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        (Self { child, tcp, tls, starttls, log }, lines)
    }

    /// All events of a connection, once it is lost.
    pub(crate) fn events(&self, conn: u64) -> Vec<Value> {
        let of_conn =
            |log: &Vec<Value>| -> Vec<Value> { log.iter().filter(|event| event["conn"] == conn).cloned().collect() };
        let is_open = |log: &mut Vec<Value>| of_conn(log).last().is_none_or(|event| event["event"] != "lost");
        let (log, waited) = self.log.1.wait_timeout_while(self.log.0.lock().unwrap(), PATIENCE, is_open).unwrap();
        assert!(!waited.timed_out(), "connection {conn} is not lost: {:?}", of_conn(&log));
        of_conn(&log)
    }

    /// Waits until a connection of this kind was accepted.
    pub(crate) fn accepted(&self, kind: &str) {
        let is_missing =
            |log: &mut Vec<Value>| !log.iter().any(|event| event["event"] == "made" && event["kind"] == kind);
        let (log, waited) = self.log.1.wait_timeout_while(self.log.0.lock().unwrap(), PATIENCE, is_missing).unwrap();
        drop(log);
        assert!(!waited.timed_out(), "no {kind} connection was accepted");
    }

    /// The names of the events of a connection, and the last one.
    pub(crate) fn lost(&self, conn: u64) -> (Vec<String>, Value) {
        let events = self.events(conn);
        let name = |event: &Value| match event["how"].as_str() {
            Some(how) => format!("{}:{how}", event["event"].as_str().unwrap()),
            None => event["event"].as_str().unwrap().to_owned(),
        };
        (events.iter().map(name).collect(), events.last().unwrap().clone())
    }

    /// The log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        self.log.0.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        ended(&mut self.child)
    }

    /// The peak of its resident memory so far, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        peak(&self.child)
    }
}

/// The peak of a child's resident memory so far, in bytes.
pub(crate) fn peak(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

impl Drop for Console {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A plain client that has read the greeting.
pub(crate) fn connect(addr: SocketAddr) -> BufReader<TcpStream> {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut socket = BufReader::new(socket);
    let greeting = line(&mut socket);
    assert!(greeting.starts_with("220 bowline console "), "{greeting}");
    socket
}

/// Sends, and reads one line.
pub(crate) fn ask(socket: &mut BufReader<TcpStream>, command: &str) -> String {
    socket.get_mut().write_all(command.as_bytes()).unwrap();
    line(socket)
}

/// One line, without its CRLF, which is checked.
pub(crate) fn line(socket: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    socket.read_line(&mut line).unwrap();
    line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{line:?} does not end in CRLF")).to_owned()
}

/// The pattern that the console sends.
pub(crate) fn pattern(n: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(n).collect()
}

/// Sends this repeatedly, up to 50 MB, until the program stops reading. Reads nothing.
pub(crate) fn flood(socket: &TcpStream, what: &[u8]) {
    const ALL: usize = 50_000_000;
    // After this time without progress, the program has stopped reading.
    socket.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let piece = what.repeat((64 << 10) / what.len());
    let mut socket = socket;
    for _ in 0..ALL / piece.len() {
        if socket.write_all(&piece).is_err() {
            return;
        }
    }
}

/// The largest number of bytes that a program may hold for one peer, including its buffers.
pub(crate) const A_LITTLE: u64 = 8 << 20;
