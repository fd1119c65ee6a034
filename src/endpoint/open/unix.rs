//! Unix sockets. Only their files need special treatment.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::{fd::AsRawFd, unix::fs::OpenOptionsExt};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::BoxConnection;
use crate::address::Address;
use crate::conn::control::Control;
use crate::conn::group::{DrainGroup, Drainable};
use crate::conn::time::{after, until};
use crate::error::Error;
use crate::error::{BindError, ConnectAttempt, ConnectError};
use crate::layers::stream::Stream;
use crate::layers::upgradable::UpgradableConnection;
use crate::policy::Policy;
use crate::server::acceptor::Acceptor;
use crate::server::builder::ListenerBuilder;
use crate::server::header_gate::HeaderGate;
use crate::server::listening_socket::Listens;
use crate::server::status::ListenerStatus;
use crate::transport::Transport;

/// A connection in plaintext.
pub(super) type Plain = Stream<UnixStream>;

/// Makes the connection that the application gets.
pub(super) fn begun(plain: Plain) -> BoxConnection {
    Box::new(UpgradableConnection::new(plain))
}

/// Reads the PROXY header at the start of the connection.
pub(super) async fn pass(plain: &mut Plain, gate: &HeaderGate) -> Result<(), Error> {
    gate.pass(plain).await
}

/// An accepted connection. It counts as unfinished until it is started.
pub(super) struct Accepted {
    connection: Plain,
    deadline: Option<Instant>,
    unfinished: OwnedSemaphorePermit,
    /// Whether a drain lets handshakes finish.
    finishes: bool,
    /// Reads the PROXY header, if one is expected.
    gate: Option<Arc<HeaderGate>>,
}

impl Accepted {
    /// Reads the PROXY header, if the listener expects one.
    pub(super) async fn begin(mut self) -> Result<BoxConnection, Error> {
        if let Some(gate) = &self.gate {
            gate.pass_by(&mut self.connection, self.deadline, self.finishes).await?;
        }
        Ok(begun(self.connection))
    }

    /// The deadline of a handshake, the permit that counts the connection as unfinished, and the connection.
    pub(super) fn into_parts(self) -> (Option<Instant>, OwnedSemaphorePermit, Plain) {
        (self.deadline, self.unfinished, self.connection)
    }

    pub(super) fn gate(&self) -> Option<Arc<HeaderGate>> {
        self.gate.clone()
    }

    pub(super) fn control(&self) -> Control {
        self.connection.control()
    }
}

pub(crate) async fn connect(
    path: &Path,
    timeout: Option<Duration>,
    policy: Arc<Policy>,
    from: &'static Location<'static>,
) -> Result<BoxConnection, Error> {
    let place = UnixPath::of(path);
    let error = match until(after(timeout), place.dial()).await {
        Some(Ok(stream)) => {
            let connection = Stream::unix(stream, policy);
            connection.control().set_connected();
            connection.control().announce(from);
            return Ok(Box::new(UpgradableConnection::new(connection)));
        }
        Some(Err(error)) => error,
        None => io::ErrorKind::TimedOut.into(),
    };
    let timed_out = error.kind() == io::ErrorKind::TimedOut;
    let addr = place.address();
    let target = addr.to_string();
    Err(ConnectError { target, attempts: vec![ConnectAttempt { addr, error: error.into() }], resolve: None, timed_out }
        .into())
}

/// The time between two attempts while the listener's backlog is full.
const RETRY: Duration = Duration::from_millis(10);

/// The place of a Unix socket.
enum UnixPath<'a> {
    File(&'a Path),
    /// A name of Linux's abstract namespace.
    Abstract(&'a [u8]),
}

impl<'a> UnixPath<'a> {
    fn of(path: &'a Path) -> Self {
        path.as_os_str().as_bytes().strip_prefix(b"@").map_or(Self::File(path), Self::Abstract)
    }

    fn address(&self) -> Address {
        match self {
            Self::File(path) => Address::Unix(Some(path.to_path_buf())),
            Self::Abstract(name) => Address::UnixAbstract(name.to_vec()),
        }
    }

    /// If the backlog is full, connecting a non-blocking socket fails with EAGAIN, and no event reports when the
    /// backlog has space. A blocking socket would wait, so this function retries.
    async fn dial(&self) -> io::Result<UnixStream> {
        let path = match self {
            Self::File(path) => path.to_path_buf(),
            Self::Abstract(name) => abstract_path(name)?,
        };
        loop {
            match UnixStream::connect(&path).await {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(RETRY).await,
                dialled => return dialled,
            }
        }
    }

    /// Binds a socket. A file is made for it, unless it is abstract.
    fn bind(&self, mode: Option<u32>) -> io::Result<(Socket, Option<SocketFile>)> {
        match self {
            Self::File(path) => bind(path, mode).map(|(socket, file)| (socket, Some(file))),
            Self::Abstract(name) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(abstract_path(name)?)?)?;
                Ok((socket, None))
            }
        }
    }
}

/// The name as std, tokio and socket2 take it: a path that begins with NUL.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_path(name: &[u8]) -> io::Result<PathBuf> {
    Ok(PathBuf::from(std::ffi::OsString::from_vec([b"\0", name].concat())))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn abstract_path(_: &[u8]) -> io::Result<PathBuf> {
    let problem = "only Linux and Android have abstract Unix sockets; unix:./@NAME is a file";
    Err(io::Error::new(io::ErrorKind::Unsupported, problem))
}

/// Accepts connections at a Unix socket.
pub(super) struct Listening {
    acceptor: Acceptor<UnixSocket>,
    local: Address,
}

/// A listening Unix socket. The socket and its file are removed when the listener is dropped or closed by a drain.
struct UnixSocket {
    /// Dropped before the socket: while the socket exists, no other file can have its inode number.
    file: Option<SocketFile>,
    socket: UnixListener,
}

impl Listens for UnixSocket {
    type Accepted = UnixStream;
    type Waiting = std::os::unix::net::UnixStream;

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        self.socket.poll_accept(cx).map_ok(|(stream, _)| stream)
    }

    fn tcp(_: &UnixStream) -> Option<(&TcpStream, SocketAddr)> {
        None
    }

    fn take_backlog(&mut self) -> Vec<Self::Waiting> {
        // From now on, new clients find no socket.
        self.file = None;
        let mut all = Vec::new();
        while let Ok((stream, _)) = SockRef::from(&self.socket).accept() {
            if stream.set_nonblocking(true).is_ok() {
                all.push(stream.into());
            }
        }
        all
    }

    fn resume(waiting: Self::Waiting) -> io::Result<UnixStream> {
        UnixStream::from_std(waiting)
    }

    fn reset_on_drop(_: &Self::Waiting) {}

    fn sockets(&self) -> Vec<SockRef<'_>> {
        vec![SockRef::from(&self.socket)]
    }
}

impl Listening {
    pub(super) fn open(path: &Path, mode: Option<u32>, chosen: ListenerBuilder) -> Result<Self, Error> {
        chosen.check_unix()?;
        let place = UnixPath::of(path);
        let failed = |error: io::Error| BindError { addr: place.address(), error: error.into() };
        let (socket, file) = place.bind(mode).map_err(failed)?;
        let local = file.as_ref().map_or_else(|| place.address(), |file| Address::Unix(Some(file.path.clone())));
        let listen = || {
            // No client can connect before `listen`, so no client connects under another mode.
            if let (Some(mode), Some(file)) = (mode, &file) {
                set_mode(&file.path, &socket, mode)?;
            }
            socket.listen(chosen.system_backlog())?;
            socket.set_nonblocking(true)?;
            UnixListener::from_std(socket.into())
        };
        let socket = listen().map_err(failed)?;
        let bound = UnixSocket { file, socket };
        Ok(Self { acceptor: Acceptor::new(bound, local.clone(), chosen), local })
    }

    /// Takes over a socket that already listens.
    pub(super) fn from_std(socket: std::os::unix::net::UnixListener, chosen: ListenerBuilder) -> Result<Self, Error> {
        chosen.check_unix()?;
        socket.set_nonblocking(true)?;
        let socket = UnixListener::from_std(socket)?;
        let local = crate::layers::stream::unix::name(socket.local_addr());
        let bound = UnixSocket { file: None, socket };
        Ok(Self { acceptor: Acceptor::new(bound, local.clone(), chosen), local })
    }

    pub(super) fn local_addr(&self) -> Address {
        self.local.clone()
    }

    pub(super) fn status(&self) -> ListenerStatus {
        self.acceptor.status()
    }

    pub(super) fn group(&self) -> &DrainGroup {
        self.acceptor.group()
    }

    pub(super) fn socket(&self) -> Arc<dyn Drainable> {
        self.acceptor.socket()
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        self.acceptor.policy()
    }

    pub(super) fn finishes(&self) -> bool {
        self.acceptor.finishes()
    }

    pub(super) fn set_finishes(&self, finishes: bool) {
        self.acceptor.set_finishes(finishes);
    }

    pub(super) async fn accept(&self) -> Result<Accepted, Error> {
        let (stream, permits) = self.acceptor.accept().await?;
        let connection = Stream::unix(stream, self.acceptor.policy());
        let unfinished = permits.hand_to(&connection.control());
        let deadline = after(self.acceptor.policy().handshake_timeout);
        let (finishes, gate) = (self.acceptor.finishes(), self.acceptor.gate());
        Ok(Accepted { connection, deadline, unfinished, finishes, gate })
    }
}

/// A Unix socket that only this user can connect to, for other processes of the same service.
#[derive(Debug)]
pub(crate) struct PrivateSocket {
    /// Dropped before the socket, as in [`UnixSocket`].
    _file: Option<SocketFile>,
    socket: UnixListener,
}

impl PrivateSocket {
    pub(crate) fn listen(path: &Path) -> Result<Self, Error> {
        const MODE: u32 = 0o600;
        const BACKLOG: i32 = 8;
        let place = UnixPath::of(path);
        let listen = || {
            let (socket, file) = place.bind(Some(MODE))?;
            if let Some(file) = &file {
                set_mode(&file.path, &socket, MODE)?;
            }
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(Self { _file: file, socket: UnixListener::from_std(socket.into())? })
        };
        listen().map_err(|error: io::Error| BindError { addr: place.address(), error: error.into() }.into())
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }
}

/// Connects to a Unix socket of another process of the same service.
pub(crate) async fn dial(path: &Path) -> io::Result<UnixStream> {
    UnixPath::of(path).dial().await
}

/// The file of a socket that we have bound. It is removed with the socket, unless the path is now another file.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    made: FileId,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| FileId::of(&found) == self.made) {
            // If the file cannot be removed, the next listener at this path replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Identifies a file independently of its name.
#[derive(Debug, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

fn bind(path: &Path, mode: Option<u32>) -> io::Result<(Socket, SocketFile)> {
    let addr = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Some(mode) = mode.filter(|_| KEEPS_MODE) {
        handle_of(&socket)?.set_permissions(Permissions::from_mode(mode))?;
    }
    match socket.bind(&addr) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_dead(path, &addr)?;
            socket.bind(&addr)?;
        }
        bound => bound?,
    }
    // The working directory may have changed by the time the file is removed.
    let path = std::path::absolute(path)?;
    let made = FileId::of(&fs::symlink_metadata(&path)?);
    Ok((socket, SocketFile { path, made }))
}

/// Whether the file of a socket gets the mode that the socket had before bind, without the bits in the umask.
const KEEPS_MODE: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The socket as a file, for fstat and fchmod.
fn handle_of(socket: &Socket) -> io::Result<fs::File> {
    Ok(fs::File::from(OwnedFd::from(socket.try_clone()?)))
}

/// Gives the file of a socket this mode, even if the umask has removed some bits. Other users may be allowed to rename
/// files in the directory. If the path is now a link, or is not our socket any more, nothing is changed, and this is an
/// error.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_mode(path: &Path, socket: &Socket, mode: u32) -> io::Result<()> {
    // O_PATH identifies the file and follows no link. chmod then changes this file, even if the path is replaced
    // meanwhile.
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if !found.file_type().is_socket() || found.uid() != handle_of(socket)?.metadata()?.uid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another process has put another file in its place",
        ));
    }
    if found.mode() & 0o7777 == mode & 0o7777 {
        return Ok(());
    }
    fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), Permissions::from_mode(mode))
}

/// Gives the file of a socket this mode. Follows no link.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn set_mode(path: &Path, _: &Socket, mode: u32) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Mode, chmodat};
    Ok(chmodat(CWD, path, Mode::from_bits_truncate(mode as _), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Removes a socket on which nobody listens. Anything else stays, and is an error.
fn remove_dead(path: &Path, addr: &SockAddr) -> io::Result<()> {
    let taken = |why: String| io::Error::new(io::ErrorKind::AddrInUse, why);
    let found = fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        return Err(taken("the file there is not a socket, and is not removed".into()));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full backlog also means that a process listens.
    probe.set_nonblocking(true)?;
    match probe.connect(addr) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            return Err(taken(format!("the socket there cannot be tested, and is not removed: {error}")));
        }
        Ok(()) | Err(_) => return Err(taken("another listener uses this path".into())),
    }
    let now = fs::symlink_metadata(path)?;
    if FileId::of(&now) != FileId::of(&found) || (now.ctime(), now.ctime_nsec()) != (found.ctime(), found.ctime_nsec())
    {
        return Err(taken("another process has just opened it".into()));
    }
    fs::remove_file(path)
}
