//! The PROXY protocol, versions 1 and 2: a proxy sends the address of its client in a header before the first byte of
//! the connection.
//!
//! A proxy that opens a connection to a service hides the client's address. A [`ProxyHeader`] at the start of the
//! connection contains this address, and in version 2 also the properties of the client's TLS session. The
//! specification is HAProxy's [proxy-protocol.txt](https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt).
//!
//! Anyone who can connect can send such a header. Believe it only from addresses of your own proxies.

mod crc32c;
mod decode;
mod encode;
mod error;
#[cfg(feature = "tokio")]
mod policy;
#[cfg(test)]
mod tests;
mod tlv;
mod trusted;

pub use self::decode::Decoded;
pub use self::error::{ProxyError, ProxyHeaderError};
#[cfg(feature = "tokio")]
pub(crate) use self::policy::Expected;
#[cfg(feature = "tokio")]
pub use self::policy::ProxyProtocol;
pub use self::tlv::{ProxyTls, Tlv, Tlvs};
pub use self::trusted::{NetworkError, TrustedNetworks};
use crate::address::Address;

/// The first bytes of a header of version 1.
const V1_SIGNATURE: &[u8] = b"PROXY ";
/// The first bytes of a header of version 2.
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, the version and command, the family, and the length of what follows.
const V2_FIXED: usize = 16;

/// The header of the PROXY protocol at the start of a connection.
///
/// ```
/// use bowline::proxy::{Decoded, ProxyHeader};
///
/// let received = b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\nand then the client's bytes";
/// let Decoded::Complete { header, len } = ProxyHeader::decode(received)? else { panic!("incomplete") };
/// assert_eq!(header.source().unwrap().to_string(), "192.0.2.7:51000");
/// assert_eq!(&received[len..], b"and then the client's bytes");
/// # Ok::<_, bowline::proxy::ProxyHeaderError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    command: Command,
    /// The TLVs of version 2 as they are on the wire. They were checked.
    tlvs: Vec<u8>,
}

/// The origin of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Command {
    /// A connection of the proxy itself, for example a health check.
    Local,
    /// The connection of a client. The header does not contain its addresses.
    Unknown,
    /// The connection of a client, from `source` to `destination`.
    Proxied { source: Address, destination: Address },
}

impl ProxyHeader {
    /// The largest header of version 1 in bytes, as the specification defines it. A longer one is an error.
    pub const MAX_V1_LEN: usize = 107;
    /// The largest header of version 2 in bytes that [`decode`](Self::decode) accepts. HAProxy's limit is the same, by
    /// its default buffer size; the format itself would allow 65,551.
    pub const MAX_V2_LEN: usize = 16_384;

    /// A header for a connection that a client at `source` made to `destination`.
    pub fn new(source: impl Into<Address>, destination: impl Into<Address>) -> Self {
        Self { command: Command::Proxied { source: source.into(), destination: destination.into() }, tlvs: Vec::new() }
    }

    /// A header for a connection of the proxy itself, for example a health check.
    pub fn local() -> Self {
        Self { command: Command::Local, tlvs: Vec::new() }
    }

    /// A header for a connection of a client whose addresses are not known.
    pub fn unknown() -> Self {
        Self { command: Command::Unknown, tlvs: Vec::new() }
    }

    /// Whether this is a connection of the proxy itself, for example a health check (the command `LOCAL`). Its
    /// addresses are those of the socket.
    pub fn is_local(&self) -> bool {
        self.command == Command::Local
    }

    /// The address of the client. `None`: the header does not contain it, or the connection is the proxy's own.
    pub fn source(&self) -> Option<&Address> {
        match &self.command {
            Command::Proxied { source, .. } => Some(source),
            Command::Local | Command::Unknown => None,
        }
    }

    /// The address to which the client has connected. `None` as for [`source`](Self::source).
    pub fn destination(&self) -> Option<&Address> {
        match &self.command {
            Command::Proxied { destination, .. } => Some(destination),
            Command::Local | Command::Unknown => None,
        }
    }
}
