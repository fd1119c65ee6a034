//! Where a client connects to.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::arguments::{Argument, Given, print_seconds, seconds};
use super::host::{self, Inet, print_local, read_local};
use super::text::{Cursor, Mistake, escape};
use super::tls::{ClientText, Security};
use super::{EndpointKind, Side, check_path, print_arguments, read_kind, read_path, with_arguments};
use crate::config::ClientTls;
use crate::error::{EndpointError, Error};

/// Where a client connects to, and what is spoken there.
///
/// | string | connects |
/// |---|---|
/// | `tcp:HOST:PORT` | over TCP |
/// | `tls:HOST:PORT` | over TCP, in TLS from the first byte on |
/// | `starttls:HOST:PORT` | over TCP, in plaintext until it is upgraded |
/// | `unix:/run/x.sock` | to a Unix socket |
///
/// | argument | of | means |
/// |---|---|---|
/// | `timeout=SECONDS` | all | for the whole connect: resolving, connecting and, on `tls`, the handshake; fractions allowed; default 30 |
/// | `bind=IP` | `tcp`, `tls`, `starttls` | the local address, a port behind it or not: `bind=127.0.0.1\:4000` |
/// | `ca=FILE` | `tls`, `starttls` | whom to trust, PEM; default whom the platform trusts |
/// | `name=NAME` | `tls`, `starttls` | the name to ask for and to check; default the host |
/// | `cert=FILE`, `key=FILE` | `tls`, `starttls` | a certificate chain and its private key of our own, PEM |
/// | `alpn=h2,http/1.1` | `tls`, `starttls` | the protocols to offer, the preferred one first |
/// | `min=1.2`, `max=1.3` | `tls`, `starttls` | the versions of TLS |
///
/// A colon, an equals sign or a backslash that belongs to a value has a backslash before it: `ca=C\:\\ca.pem`. Paths may hold
/// anything but control characters; hosts are ASCII, an IPv6 address stands in brackets.
///
/// ```
/// use bowline::{ClientEndpoint, EndpointKind};
///
/// let endpoint: ClientEndpoint = "tls:[fe80::1%eth0]:7001:ca=certs/ca.pem:timeout=2.5".parse()?;
/// assert_eq!(endpoint.kind(), EndpointKind::Tls);
/// assert_eq!((endpoint.host(), endpoint.port()), (Some("fe80::1%eth0"), Some(7001)));
/// assert_eq!(endpoint.timeout(), Some(std::time::Duration::from_millis(2500)));
/// assert_eq!(endpoint.to_string(), "tls:[fe80::1%eth0]:7001:timeout=2.5:ca=certs/ca.pem");
///
/// let error = "tls:example.org".parse::<ClientEndpoint>().unwrap_err();
/// assert_eq!((error.at, error.problem.as_str()), (15, "the port is missing"));
/// # Ok::<(), bowline::EndpointError>(())
/// ```
#[doc(alias = "clientFromString")]
#[doc(alias = "HostnameEndpoint")]
#[doc(alias = "TCP4ClientEndpoint")]
#[doc(alias = "TCP6ClientEndpoint")]
#[doc(alias = "SSL4ClientEndpoint")]
#[doc(alias = "UNIXClientEndpoint")]
#[doc(alias = "wrapClientTLS")]
#[doc(alias = "IStreamClientEndpoint")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientEndpoint {
    place: ClientPlace,
    timeout: Option<Duration>,
}

/// Where it is, as whoever opens it needs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ClientPlace {
    Inet { inet: Inet, bind: Option<SocketAddr>, security: Security<ClientText> },
    Unix { path: String },
}

impl ClientEndpoint {
    /// A host over TCP: `tcp:HOST:PORT`. An IPv6 host may stand with or without brackets.
    ///
    /// # Errors
    /// The caller's fault: `host` is neither a name nor an address. `input` and `at` of the error speak of `host`.
    pub fn tcp(host: &str, port: u16) -> Result<Self, EndpointError> {
        Self::inet(host, port, Security::Plain)
    }

    /// A host over TLS: `tls:HOST:PORT`.
    ///
    /// # Errors
    /// As [`tcp`](Self::tcp).
    pub fn tls(host: &str, port: u16) -> Result<Self, EndpointError> {
        Self::inet(host, port, Security::Tls(ClientText::default()))
    }

    /// A host over TCP, to be upgraded to TLS: `starttls:HOST:PORT`.
    ///
    /// # Errors
    /// As [`tcp`](Self::tcp).
    pub fn starttls(host: &str, port: u16) -> Result<Self, EndpointError> {
        Self::inet(host, port, Security::StartTls(ClientText::default()))
    }

    fn inet(host: &str, port: u16, security: Security<ClientText>) -> Result<Self, EndpointError> {
        let inet = Inet::new(host, port).map_err(|mistake| mistake.of(host))?;
        Ok(Self { place: ClientPlace::Inet { inet, bind: None, security }, timeout: None })
    }

    /// A Unix socket: `unix:PATH`, the path as it is, without escapes.
    ///
    /// # Errors
    /// The caller's fault: the path is empty or holds a control character. `input` and `at` of the error speak of `path`.
    pub fn unix(path: &str) -> Result<Self, EndpointError> {
        let path = check_path(path).map_err(|mistake| mistake.of(path))?;
        Ok(Self { place: ClientPlace::Unix { path }, timeout: None })
    }

    /// The same with more arguments, each a name and a value as it is, without escapes.
    ///
    /// # Errors
    /// The caller's fault: what is wrong with the arguments. `input` of the error is the string that would be printed.
    ///
    /// ```
    /// let endpoint = bowline::ClientEndpoint::tls("example.org", 443)?.with([("ca", "odd:name.pem"), ("timeout", "5")])?;
    /// assert_eq!(endpoint.to_string(), r"tls:example.org:443:timeout=5:ca=odd\:name.pem");
    /// # Ok::<(), bowline::EndpointError>(())
    /// ```
    pub fn with<'a>(&self, arguments: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, EndpointError> {
        with_arguments(self.to_string(), arguments).parse()
    }

    /// What is spoken there.
    pub fn kind(&self) -> EndpointKind {
        match &self.place {
            ClientPlace::Inet { security, .. } => security.kind(),
            ClientPlace::Unix { .. } => EndpointKind::Unix,
        }
    }

    /// The name or the address, an IPv6 address without brackets, its scope behind a `%`. `None`: a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            ClientPlace::Inet { inet, .. } => Some(&inet.host),
            ClientPlace::Unix { .. } => None,
        }
    }

    /// The port. `None`: a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match &self.place {
            ClientPlace::Inet { inet, .. } => Some(inet.port),
            ClientPlace::Unix { .. } => None,
        }
    }

    /// The path of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            ClientPlace::Inet { .. } => None,
            ClientPlace::Unix { path } => Some(Path::new(path)),
        }
    }

    /// `timeout=`: the time for the whole connect: resolving, connecting and, on `tls`, the handshake.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// `bind=`: the local address to connect from; port 0 is any.
    pub fn bind(&self) -> Option<SocketAddr> {
        match &self.place {
            ClientPlace::Inet { bind, .. } => *bind,
            ClientPlace::Unix { .. } => None,
        }
    }

    /// The name that the server's certificate is checked against: `name=`, else the host. `None` where no TLS is spoken.
    pub fn name(&self) -> Option<&str> {
        self.security().get().and_then(|tls| tls.name.as_deref().or(self.host()))
    }

    /// Every argument with its value, without escapes.
    pub fn arguments(&self) -> Vec<(&'static str, String)> {
        let mut all =
            vec![(Argument::Timeout, self.timeout.map(print_seconds)), (Argument::Bind, self.bind().map(print_local))];
        all.extend(self.security().get().map(ClientText::arguments).unwrap_or_default());
        all.into_iter().filter_map(|(argument, value)| Some((argument.name(), value?))).collect()
    }

    /// Reads the files that the arguments name, and checks them. `None` where no TLS is spoken.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the file: the fault of whoever configured it. Without `ca=` the roots
    /// of the platform are trusted; where the feature `platform-roots` is not enabled, that is an error too.
    pub fn client_tls(&self) -> Result<Option<ClientTls>, Error> {
        self.security().get().map(ClientText::load).transpose()
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn place(&self) -> &ClientPlace {
        &self.place
    }

    fn security(&self) -> &Security<ClientText> {
        match &self.place {
            ClientPlace::Inet { security, .. } => security,
            ClientPlace::Unix { .. } => &Security::Plain,
        }
    }
}

/// Prints what [`FromStr`] reads: printed and read again, an endpoint is equal to itself.
impl fmt::Display for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind())?;
        match &self.place {
            ClientPlace::Inet { inet, .. } => f.write_str(&host::print(&inet.host, inet.port))?,
            ClientPlace::Unix { path } => f.write_str(&escape(path))?,
        }
        print_arguments(&self.arguments(), f)
    }
}

impl FromStr for ClientEndpoint {
    type Err = EndpointError;

    /// Reads an endpoint.
    ///
    /// # Errors
    /// The fault of who wrote the string: a mistake in it, with its byte offset.
    fn from_str(input: &str) -> Result<Self, EndpointError> {
        read(&mut Cursor::new(input)).map_err(|mistake| mistake.of(input))
    }
}

fn read(cursor: &mut Cursor<'_>) -> Result<ClientEndpoint, Mistake> {
    let kind = read_kind(cursor)?;
    if kind == EndpointKind::Unix {
        let path = read_path(cursor)?;
        let given = Given::read(cursor, Side::Client, kind)?;
        return Ok(ClientEndpoint {
            place: ClientPlace::Unix { path },
            timeout: given.value(Argument::Timeout, seconds)?,
        });
    }
    let inet = Inet::read(cursor)?;
    let given = Given::read(cursor, Side::Client, kind)?;
    let timeout = given.value(Argument::Timeout, seconds)?;
    let bind = given.value(Argument::Bind, read_local)?;
    let security = Security::new(kind, || ClientText::read(&given))?;
    Ok(ClientEndpoint { place: ClientPlace::Inet { inet, bind, security }, timeout })
}
