//! The TCP socket: its options, and the calls that send RST and FIN.

use std::io::{self, IoSlice, Read};
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::tcp_info::TcpInfo;

/// The timing of the system's probes of an idle connection (rule: tcp-2). `None` leaves the system's own value.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use bowline::{Connector, Keepalive, SocketOptions};
///
/// let connection = Connector::new().connect("db.internal", 5432).await?;
/// // The connection ends 90 seconds after the peer has vanished: 60 s, and three probes at 10 s.
/// let probes = Keepalive::new().idle(Duration::from_secs(60)).interval(Duration::from_secs(10)).count(3);
/// connection.set_keepalive(Some(probes))?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Keepalive {
    /// The idle time before the first probe.
    pub idle: Option<Duration>,
    /// The time between probes.
    pub interval: Option<Duration>,
    /// The number of unanswered probes after which the connection ends.
    pub count: Option<u32>,
}

impl Keepalive {
    /// The system's own values.
    pub fn new() -> Self {
        Self::default()
    }

    /// The idle time before the first probe. Most systems count whole seconds, and cut off a fraction.
    pub fn idle(self, idle: Duration) -> Self {
        Self { idle: Some(idle), ..self }
    }

    /// The time between probes. Most systems count whole seconds, and cut off a fraction.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: Some(interval), ..self }
    }

    /// The number of unanswered probes after which the connection ends.
    pub fn count(self, count: u32) -> Self {
        Self { count: Some(count), ..self }
    }
}

/// The options of one socket.
pub(crate) struct Options<'a>(SockRef<'a>);

impl<'a> Options<'a> {
    pub(crate) fn of(stream: &'a TcpStream) -> Self {
        Self(SockRef::from(stream))
    }

    /// The descriptor itself.
    #[cfg(unix)]
    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&*self.0)
    }

    /// The socket itself.
    #[cfg(windows)]
    pub(crate) fn socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        std::os::windows::io::AsSocket::as_socket(&*self.0)
    }

    pub(crate) fn nodelay(&self) -> io::Result<bool> {
        self.0.tcp_nodelay()
    }

    pub(crate) fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.0.set_tcp_nodelay(on)
    }

    pub(crate) fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        if !self.0.keepalive()? {
            return Ok(None);
        }
        // Windows does not report the times.
        #[cfg(any(windows, bowline_portable))]
        let (idle, interval) = (None, None);
        #[cfg(not(any(windows, bowline_portable)))]
        let (idle, interval) = (self.0.tcp_keepalive_time().ok(), self.0.tcp_keepalive_interval().ok());
        Ok(Some(Keepalive { idle, interval, count: self.0.tcp_keepalive_retries().ok() }))
    }

    pub(crate) fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        let Some(wanted) = keepalive else { return self.0.set_keepalive(false) };
        if wanted == Keepalive::default() {
            return self.0.set_keepalive(true);
        }
        let mut system = TcpKeepalive::new();
        if let Some(idle) = wanted.idle {
            system = system.with_time(idle);
        }
        if let Some(interval) = wanted.interval {
            system = system.with_interval(interval);
        }
        if let Some(count) = wanted.count {
            system = system.with_retries(count);
        }
        self.0.set_tcp_keepalive(&system)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn user_timeout(&self) -> io::Result<Option<Duration>> {
        self.0.tcp_user_timeout()
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn user_timeout(&self) -> io::Result<Option<Duration>> {
        Err(crate::error::Error::Unsupported("user timeout").into())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.0.set_tcp_user_timeout(timeout)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn set_user_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        Err(crate::error::Error::Unsupported("user timeout").into())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn tcp_info(&self) -> io::Result<TcpInfo> {
        tcp_info::of(self.fd())
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn tcp_info(&self) -> io::Result<TcpInfo> {
        Err(crate::error::Error::Unsupported("TCP_INFO").into())
    }

    pub(crate) fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        Ok((self.0.send_buffer_size()?, self.0.recv_buffer_size()?))
    }

    pub(crate) fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.0.set_send_buffer_size(bytes.min(LARGEST_BUFFER))
    }

    pub(crate) fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.0.set_recv_buffer_size(bytes.min(LARGEST_BUFFER))
    }

    /// Makes the kernel gather small writes until the option is turned off. Systems without this option gather nothing.
    pub(crate) fn set_cork(&self, on: bool) {
        #[cfg(target_os = "linux")]
        let _ = self.0.set_tcp_cork(on);
        #[cfg(not(target_os = "linux"))]
        let _ = on;
    }

    /// Makes the kernel send RST instead of FIN when the socket is dropped. Zero is the only linger time that does not
    /// block the dropping thread.
    pub(crate) fn reset_on_drop(&self) {
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }

    /// Makes the kernel end the connection cleanly, with FIN, when the socket is dropped.
    pub(crate) fn end_on_drop(&self) {
        let _ = self.0.set_linger(None);
    }

    /// Half-closes: sends FIN after the written bytes.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Write)
    }
}

/// The option is an int, so a larger number would lose its upper bits. The system limits the size anyway.
const LARGEST_BUFFER: usize = i32::MAX as usize;

/// As [`Options::reset_on_drop`], for a socket that is not connected yet.
pub(crate) fn reset_on_drop(socket: &tokio::net::TcpSocket) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Sets `TCP_NODELAY` on a listening socket, and returns whether accepted sockets have the option too. Linux copies
/// the option to them; for other systems we do not assume it.
pub(crate) fn give_nodelay_to_accepted(listener: &Socket) -> bool {
    cfg!(any(target_os = "linux", target_os = "android")) && listener.set_tcp_nodelay(true).is_ok()
}

/// Whether readiness is edge-triggered. If it is, a short read or write means that the next call would return
/// `WouldBlock`.
pub(crate) const TELLS_BY_EDGES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The largest number of bytes that one call transfers on Linux (`MAX_RW_COUNT`, read(2)). A call that transfers this
/// many bytes may be limited by this number, and does not count as a short one.
pub(crate) const MAX_AT_ONCE: usize = 0x7fff_f000;

/// The largest number of slices that one call accepts: `IOV_MAX` on every system that defines it (writev(2)).
const MAX_PARTS: usize = 1024;

/// The largest number of bytes that we give to the system at once. Windows accepts all bytes of a call, however many,
/// if its buffer was not full before, and keeps them in memory.
pub(crate) const MAX_SENT_AT_ONCE: usize =
    if cfg!(any(windows, bowline_portable)) { 64 << 10 } else { isize::MAX as usize };

/// The bytes for one call.
#[inline]
pub(crate) fn first_bytes(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(MAX_SENT_AT_ONCE)]
}

/// The slices for one call: they start at the first non-empty slice, and there are no more than the system accepts. The
/// first one is included even if it is longer than [`MAX_SENT_AT_ONCE`].
pub(crate) fn first_parts<'a, 'b>(parts: &'a [IoSlice<'b>]) -> &'a [IoSlice<'b>] {
    let begin = parts.iter().position(|part| !part.is_empty()).unwrap_or(parts.len());
    let parts = &parts[begin..];
    let parts = &parts[..parts.len().min(MAX_PARTS)];
    if MAX_SENT_AT_ONCE == isize::MAX as usize {
        return parts;
    }
    let mut bytes = 0;
    let fitting = parts.iter().take_while(|part| {
        bytes += part.len();
        bytes <= MAX_SENT_AT_ONCE
    });
    &parts[..fitting.count().max(1).min(parts.len())]
}

/// Reads the bytes in the kernel without waiting. tokio reads only after it has received an event, and the event may
/// come later than the bytes.
pub(crate) fn receive(stream: &TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(stream)).read(buf)
}

/// As [`receive`], for a Unix socket.
#[cfg(unix)]
pub(crate) fn receive_unix(stream: &tokio::net::UnixStream, buf: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(stream)).read(buf)
}

/// Sends inside [`TcpStream::try_io`], which has already checked readiness. tokio's own call would check it again.
#[inline]
pub(crate) fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::send(stream, bytes, rustix::net::SendFlags::NOSIGNAL)?);
    #[cfg(not(target_os = "linux"))]
    stream.try_write(bytes)
}

/// Receives inside [`TcpStream::try_io`], like [`send`]. `recv` needs initialised memory; for other memory, tokio's
/// own call is used.
#[inline]
pub(crate) fn recv(stream: &TcpStream, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    if buf.initialized().len() == buf.capacity() {
        let (n, _) = rustix::net::recv(stream, buf.initialize_unfilled(), rustix::net::RecvFlags::empty())?;
        buf.advance(n);
        return Ok(n);
    }
    stream.try_read_buf(buf)
}

/// Sends bytes that are followed by FIN immediately. The kernel holds the bytes back until FIN, so that they share a
/// segment.
pub(crate) fn send_ahead_of_end(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::net::send(stream, bytes, rustix::net::SendFlags::MORE | rustix::net::SendFlags::NOSIGNAL)?);
    #[cfg(not(target_os = "linux"))]
    stream.try_write(bytes)
}

/// The number of bytes that the peer's kernel has not acknowledged. Our FIN counts as one byte. `None` if the system
/// does not report it.
pub(crate) fn in_flight(stream: &TcpStream) -> Option<u64> {
    unacked::of(stream)
}

/// Whether the send buffer has space for this many bytes. Unacknowledged bytes occupy the buffer too. The kernel's
/// bookkeeping uses the same memory, so each byte counts twice, as for `SO_SNDBUF` (socket(7)). `false` if the system
/// cannot tell.
pub(crate) fn has_space(stream: &TcpStream, bytes: usize) -> bool {
    let (Some(unacked), Ok(memory)) = (in_flight(stream), SockRef::from(stream).send_buffer_size()) else {
        return false;
    };
    (unacked + bytes as u64) * 2 <= memory as u64
}

/// Takes over a listening socket that the process was started with.
///
/// # Errors
/// The descriptor is not open, was opened by this process, or is not a listening socket. It stays as it is.
#[cfg(unix)]
pub(crate) fn take_inherited(number: std::os::fd::RawFd) -> io::Result<std::os::fd::OwnedFd> {
    inherited::take(number)
}

/// Whether this is a listening stream socket, as far as the system says.
///
/// # Errors
/// The descriptor is not a listening stream socket.
#[cfg(unix)]
pub(crate) fn check_listening(descriptor: &std::os::fd::OwnedFd) -> io::Result<()> {
    if inherited::is_listening(std::os::fd::AsFd::as_fd(descriptor)) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "one of the descriptors is not a listening stream socket"))
}

/// Closes the descriptor in a child that executes another program.
#[cfg(unix)]
pub(crate) fn close_on_exec(descriptor: &std::os::fd::OwnedFd) -> io::Result<()> {
    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
    Ok(fcntl_setfd(descriptor, fcntl_getfd(descriptor)? | FdFlags::CLOEXEC)?)
}

#[cfg(unix)]
mod inherited {
    //! Takes over descriptors by their number. std offers no safe function for this, because a number does not show
    //! which part of the program owns the descriptor.

    use std::io;
    use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
    use socket2::SockRef;

    pub(super) fn is_listening(descriptor: BorrowedFd<'_>) -> bool {
        let socket = SockRef::from(&descriptor);
        let is_stream = socket.r#type().is_ok_and(|found| found == socket2::Type::STREAM);
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        let is_stream = is_stream && socket.is_listener().unwrap_or(false);
        is_stream
    }

    /// Takes over a descriptor that the process was started with. The close-on-exec flag shows whether it is one: a
    /// descriptor that came through exec cannot have the flag, while std, tokio and socket2 set it on every descriptor
    /// that they open. A descriptor with the flag is refused, and this function sets the flag on each descriptor that
    /// it takes. So it takes no descriptor that has an owner in this process, and none twice.
    #[allow(unsafe_code)]
    pub(super) fn take(number: RawFd) -> io::Result<OwnedFd> {
        let refused = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        if number <= 2 {
            return refused(format!("descriptor {number} is a standard stream"));
        }
        // SAFETY: the borrow ends with this function. Until `from_raw_fd` the descriptor is only asked for its flags
        // and options; if nothing is open under the number, each of these calls fails. -1 is excluded above.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        let Ok(flags) = fcntl_getfd(borrowed) else { return refused(format!("descriptor {number} is not open")) };
        if flags.contains(FdFlags::CLOEXEC) {
            return refused(format!(
                "descriptor {number} was not passed in: this process has opened it, or has taken it over"
            ));
        }
        if !is_listening(borrowed) {
            return refused(format!("descriptor {number} is not a listening stream socket"));
        }
        fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is open. It was inherited, as its flag has shown, and from now on the flag keeps any
        // other call of this function from taking it: this is its only owner.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

#[cfg(all(target_os = "linux", not(bowline_portable)))]
mod unacked {
    //! `SIOCOUTQ`: no crate offers a safe wrapper for it.

    use std::os::fd::{AsRawFd, BorrowedFd};

    use tokio::net::TcpStream;

    pub(super) fn of(stream: &TcpStream) -> Option<u64> {
        query(std::os::fd::AsFd::as_fd(stream))
    }

    /// The number of bytes in the send queue of a socket: sent but not acknowledged, or not sent yet (tcp(7)).
    #[allow(unsafe_code)]
    fn query(fd: BorrowedFd<'_>) -> Option<u64> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (the same number as TIOCOUTQ) writes one int to the address given and keeps no pointer;
        // `bytes` is an int that lives across the call, and the borrow keeps the descriptor open meanwhile. On a
        // descriptor that is no TCP socket the call fails and writes nothing.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
        if result == 0 { u64::try_from(bytes).ok() } else { None }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod tcp_info {
    //! `TCP_INFO`: no crate offers a safe wrapper for it.

    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};

    use super::TcpInfo;

    pub(super) fn of(fd: BorrowedFd<'_>) -> io::Result<TcpInfo> {
        let mut bytes = [0; 256];
        let len = query(fd, &mut bytes)?;
        TcpInfo::parse(&bytes[..len]).ok_or_else(|| crate::error::Error::Unsupported("TCP_INFO").into())
    }

    /// Fills `out` with the kernel's `struct tcp_info`, or as much of it as fits. Returns the number of bytes.
    #[allow(unsafe_code)]
    fn query(fd: BorrowedFd<'_>, out: &mut [u8; 256]) -> io::Result<usize> {
        let mut len = out.len() as libc::socklen_t;
        // SAFETY: getsockopt writes at most `len` bytes to the address given, and the new length to `len`; it keeps no
        // pointer. `out` has that many bytes, any value of a byte is valid, and the borrow keeps the descriptor open
        // meanwhile.
        let result = unsafe {
            libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, out.as_mut_ptr().cast(), &mut len)
        };
        if result == 0 { Ok((len as usize).min(out.len())) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(any(not(target_os = "linux"), bowline_portable))]
mod unacked {
    pub(super) fn of(_: &tokio::net::TcpStream) -> Option<u64> {
        None
    }
}
