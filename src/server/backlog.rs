//! Takes the connections out of the backlog of a listening TCP socket that is about to be closed (rule: drain-5).

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;

/// A connection of the backlog. It belongs to no runtime yet.
pub(super) struct Waiting {
    pub(super) stream: std::net::TcpStream,
    pub(super) peer: SocketAddr,
}

/// How many connections in a row may fail. The system removes each of them from its backlog.
const MOST_FAILURES: usize = 1024;

/// Accepts the connections that are in the backlog now. If the system has run out of descriptors, the rest stays there.
pub(super) fn take_all(socket: &SockRef<'_>) -> Vec<Waiting> {
    let (mut all, mut failures) = (Vec::new(), 0);
    while failures < MOST_FAILURES {
        match take(socket) {
            Ok(waiting) => all.push(waiting),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted => {
                    failures += 1;
                }
                _ => break,
            },
        }
    }
    all
}

fn take(socket: &SockRef<'_>) -> io::Result<Waiting> {
    let (stream, peer) = socket.accept()?;
    stream.set_nonblocking(true)?;
    // An accepted socket inherits the filter of the listening socket.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = stream.detach_filter();
    let peer = peer.as_socket().ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok(Waiting { stream: stream.into(), peer })
}

/// Makes the system ignore new clients, but finish the connections that it has begun to accept. Otherwise a client
/// could connect after the last accept and before the socket is closed, and its connection would be reset. An ignored
/// client tries again after a second, and is then refused. Returns whether the system can do this.
///
/// The caller must close the socket afterwards, and there must be no other holder of the socket.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn ignore_new(socket: &SockRef<'_>) -> bool {
    use socket2::SockFilter;

    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The flags are the 14th byte of a TCP header (RFC 9293 section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    socket.attach_filter(&program).is_ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn ignore_new(_: &SockRef<'_>) -> bool {
    false
}
