//! A server from a Debian package, as a child process.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bowline::testing::shared_pki;
use rustix::process::{Pid, Signal, getuid, kill_process};
use tempfile::TempDir;

use crate::PATIENCE;

/// Prints a line to standard error, even if the test passes and its output is not shown.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "note: {text}");
}

/// The first of these programs that is there, with a note if none is.
pub(crate) fn installed(package: &str, programs: &[&str]) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/bin", ""];
    let found = programs.iter().flat_map(|name| folders.map(|folder| Path::new(folder).join(name)));
    let found = found.into_iter().find(|path| path.is_absolute() && path.exists());
    if found.is_none() {
        skip(&format!("{package} is not installed"));
    }
    found
}

/// Reports that a test is skipped. In a run that requires all servers, this is a failure.
pub(crate) fn skip(why: &str) {
    note(&format!("SKIPPED: {why}"));
    assert!(std::env::var_os("BOWLINE_SERVERS").is_none(), "{why}");
}

pub(crate) fn is_root() -> bool {
    getuid().is_root()
}

/// Whether this runs as root, which a server of several users needs, with a note if not.
pub(crate) fn must_be_root(package: &str) -> bool {
    if !is_root() {
        skip(&format!("{package} needs root"));
    }
    is_root()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A temporary directory with a certificate in `cert.pem` and its key in `key.pem`. All users can read them.
pub(crate) fn directory() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let identity = shared_pki().server(&["localhost"]);
    fs::write(dir.path().join("cert.pem"), identity.chain_pem()).unwrap();
    fs::write(dir.path().join("key.pem"), identity.key_pem()).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A folder in it for this user.
pub(crate) fn folder(dir: &TempDir, name: &str, user: Option<(u32, u32)>) -> PathBuf {
    let path = dir.path().join(name);
    fs::create_dir_all(&path).unwrap();
    if let Some((user, group)) = user.filter(|_| is_root()) {
        chown(&path, Some(user), Some(group)).unwrap();
    }
    path
}

/// The numbers of a user and its group.
pub(crate) fn user(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2).map(|number| number.parse().ok());
    Some((fields.next()??, fields.next()??))
}

pub(crate) struct Server {
    child: Child,
    version: String,
    ports: Vec<(&'static str, u16)>,
    dir: TempDir,
    stop: Signal,
}

impl Server {
    /// Starts the command, and waits until all its ports are open. Its output is in the directory.
    pub(crate) fn start(dir: TempDir, mut command: Command, version: String, ports: Vec<(&'static str, u16)>) -> Self {
        let log = fs::File::create(dir.path().join("output")).unwrap();
        // The working directory is the temporary one, so that a core dump goes there too.
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = Self { child: command.spawn().unwrap(), version, ports, dir, stop: Signal::TERM };
        let patience = Instant::now() + PATIENCE;
        while !server.ports.iter().all(|(_, port)| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < patience, "{ended:?}: {}", server.output());
            sleep(Duration::from_millis(50));
        }
        server
    }

    /// The signal that ends it, if that is not SIGTERM.
    pub(crate) fn stopped_by(mut self, signal: Signal) -> Self {
        self.stop = signal;
        self
    }

    pub(crate) fn port(&self, dialogue: &str) -> u16 {
        self.ports.iter().find(|(name, _)| *name == dialogue).unwrap().1
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), self.stop);
        let patience = Instant::now() + Duration::from_secs(10);
        while Instant::now() < patience && matches!(self.child.try_wait(), Ok(None)) {
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line that a program prints about its version.
pub(crate) fn version(program: &Path, args: &[&str]) -> String {
    let said = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// The version of an installed package.
pub(crate) fn package_version(package: &str) -> String {
    let query = ["-W", "-f", "${Package} ${Version}", package];
    let said = Command::new("dpkg-query").args(query).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_else(|_| package.to_owned())
}
