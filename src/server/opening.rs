//! Opens the sockets of a listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::builder::ListenerBuilder;
use crate::conn::socket;
use crate::error::{BindError, Error};

/// A listening socket, and whether sockets that are accepted from it have `TCP_NODELAY` set.
pub(super) type Opened = (std::net::TcpListener, bool);

/// The number of free ports that are tried if several addresses must have the same port.
const PORTS: usize = 16;

/// Whether this computer has no such address, or does not use its family.
fn is_missing(error: &io::Error) -> bool {
    #[cfg(unix)]
    let family_is_off = error.raw_os_error() == Some(libc::EAFNOSUPPORT);
    // 10047 is the error WSAEAFNOSUPPORT of Windows.
    #[cfg(not(unix))]
    let family_is_off = error.raw_os_error() == Some(10047);
    family_is_off || error.kind() == io::ErrorKind::AddrNotAvailable
}

impl ListenerBuilder {
    /// Opens a socket for each address. All addresses with port 0 get the same port.
    pub(super) fn open_all(&self, addrs: &[SocketAddr]) -> Result<Vec<Opened>, Error> {
        let mut wanted: Vec<SocketAddr> = Vec::new();
        for addr in addrs {
            if self.family.is_none_or(|family| family.has(*addr)) && !wanted.contains(addr) {
                wanted.push(*addr);
            }
        }
        let addrs = &wanted[..];
        if addrs.is_empty() {
            let problem = match self.family {
                Some(family) => format!("the name has no {family} address"),
                None => "there is no address to listen on".into(),
            };
            return Err(io::Error::new(io::ErrorKind::NotFound, problem).into());
        }
        for _ in 1..PORTS {
            match self.open_once(addrs) {
                // The port was free for the first address, but is in use on another one: try another port.
                Err((true, error)) if error.error.kind() == io::ErrorKind::AddrInUse => {}
                opened => return opened.map_err(|(_, error)| error.into()),
            }
        }
        self.open_once(addrs).map_err(|(_, error)| error.into())
    }

    /// An error includes whether another port may succeed.
    fn open_once(&self, addrs: &[SocketAddr]) -> Result<Vec<Opened>, (bool, BindError)> {
        let mut opened: Vec<Opened> = Vec::new();
        let mut port = None;
        let mut skipped = None;
        for addr in addrs {
            let mut addr = *addr;
            let is_any = addr.port() == 0 && port.is_some();
            if let Some(port) = port.filter(|_| is_any) {
                addr.set_port(port);
            }
            match self.open(addr) {
                Ok(socket) => {
                    port = port.or_else(|| socket.0.local_addr().ok().map(|addr| addr.port()));
                    opened.push(socket);
                }
                Err(error) => {
                    let is_missing = is_missing(&error);
                    let error = BindError { addr: addr.into(), error: Arc::new(error) };
                    if !is_missing {
                        return Err((is_any, error));
                    }
                    skipped = Some(error);
                }
            }
        }
        match skipped {
            Some(error) if opened.is_empty() => Err((false, error)),
            _ => Ok(opened),
        }
    }

    fn open(&self, addr: SocketAddr) -> io::Result<Opened> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        if self.reuse_port {
            #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin"))))]
            socket.set_reuse_port(true)?;
            #[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos", target_os = "cygwin")))))]
            return Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no SO_REUSEPORT"));
        }
        if addr.is_ipv6() {
            socket.set_only_v6(!self.dual_stack)?;
        }
        socket.bind(&addr.into())?;
        let gives_nodelay = socket::give_nodelay_to_accepted(&socket);
        socket.listen(self.system_backlog())?;
        Ok((socket.into(), gives_nodelay))
    }
}
