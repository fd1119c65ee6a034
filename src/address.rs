//! The addresses of the two ends of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::escape::printable;

/// The address of one end of a connection. It is numeric: this crate never resolves an address to a name (rule: tcp-1).
#[doc(alias = "IPv4Address")]
#[doc(alias = "IPv6Address")]
#[doc(alias = "UNIXAddress")]
#[doc(alias = "IAddress")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An IP address and a port; IPv6 keeps its scope.
    Inet(SocketAddr),
    /// A Unix socket; `None` if it has no name.
    Unix(Option<PathBuf>),
    /// A Unix socket with a name of Linux's abstract namespace: it has no file. The name may be any bytes.
    UnixAbstract(Vec<u8>),
    /// Another stream, for example an in-memory pipe or a stream of the application.
    Other(String),
}

impl Address {
    /// The IP address and port, if this is an IP address.
    pub fn as_inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(addr) => Some(*addr),
            Self::Unix(_) | Self::UnixAbstract(_) | Self::Other(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Inet(addr)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(addr) => addr.fmt(f),
            // rule: tcp-11: the peer chooses the path of its own socket, so the path is escaped.
            Self::Unix(Some(path)) => write!(f, "unix:{}", printable(path.display())),
            Self::UnixAbstract(name) => write!(f, "unix:@{}", printable(String::from_utf8_lossy(name))),
            Self::Unix(None) => f.write_str("unix:"),
            Self::Other(what) => printable(what).fmt(f),
        }
    }
}

/// A version of IP.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

#[cfg(feature = "tokio")]
impl IpFamily {
    /// Whether the address is of this version. An IPv4 address that is written as an IPv6 address is IPv6.
    pub(crate) fn has(self, addr: SocketAddr) -> bool {
        match self {
            Self::V4 => addr.is_ipv4(),
            Self::V6 => addr.is_ipv6(),
        }
    }
}

#[cfg(feature = "tokio")]
impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
