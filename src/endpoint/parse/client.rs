//! The endpoint of a client.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use super::arguments::{Argument, Given, print_seconds, seconds};
use super::families::Families;
use super::host::{self, Inet, print_local, read_local};
use super::text::{Cursor, Mistake, escape};
use super::tls::{ClientText, Security};
use super::{EndpointKind, Side, abstract_name, check_path, print_arguments, read_kind, read_path, with_arguments};
use crate::config::ClientTls;
use crate::error::{EndpointError, Error};

/// The endpoint of a client: the address to connect to, and whether to use TLS.
///
/// | string | connects |
/// |---|---|
/// | `tcp:HOST:PORT` | over TCP |
/// | `tls:HOST:PORT` | over TCP, in TLS from the first byte on |
/// | `starttls:HOST:PORT` | over TCP, in plaintext until the connection is upgraded |
/// | `unix:/run/x.sock` | to a Unix socket |
/// | `unix:@NAME` | to an abstract Unix socket (Linux and Android); `unix:./@NAME` is a file |
///
/// | argument | of | means |
/// |---|---|---|
/// | `timeout=SECONDS` | all | for the whole connect: resolving, connecting and, on `tls`, the handshake; fractions allowed; default 30 |
/// | `bind=IP` | `tcp`, `tls`, `starttls` | the local address, with an optional port: `bind=127.0.0.1\:4000` |
/// | `ipv4-only`, `ipv6-only` | `tcp`, `tls`, `starttls` | only these addresses of a name |
/// | `ca=FILE` | `tls`, `starttls` | the roots to trust, PEM; default: the roots of the platform |
/// | `name=NAME` | `tls`, `starttls` | the name to send as SNI and to check; default: the host |
/// | `cert=FILE`, `key=FILE` | `tls`, `starttls` | our certificate chain and its private key, PEM |
/// | `alpn=h2,http/1.1` | `tls`, `starttls` | the protocols to offer, the preferred one first |
/// | `min=1.2`, `max=1.3` | `tls`, `starttls` | the versions of TLS |
/// | `reload=SECONDS` | `tls`, `starttls` | a connector reads the files again at this interval, and uses new contents (a [`Reloader`](crate::Reloader)); fractions allowed; default: the files are read once |
///
/// Put a backslash before a colon, an equals sign or a backslash that belongs to a value: `ca=C\:\\ca.pem`. Paths may
/// contain anything but control characters. Hosts are ASCII, and an IPv6 address is written in brackets.
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

/// The address, in the form that connecting needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ClientPlace {
    Inet { inet: Inet, bind: Option<SocketAddr>, families: Families, security: Security<ClientText> },
    Unix { path: String },
}

impl ClientEndpoint {
    /// A host over TCP: `tcp:HOST:PORT`. An IPv6 host may be written with or without brackets.
    ///
    /// # Errors
    /// `host` is neither a name nor an address. `input` and `at` of the error refer to `host`.
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
        Ok(Self { place: ClientPlace::Inet { inet, bind: None, families: Families::Given, security }, timeout: None })
    }

    /// A Unix socket: `unix:PATH`, or `unix:@NAME` for an abstract one. The path is taken as it is, without escapes.
    ///
    /// # Errors
    /// The path is empty or contains a control character. `input` and `at` of the error refer to `path`.
    pub fn unix(path: &str) -> Result<Self, EndpointError> {
        let path = check_path(path).map_err(|mistake| mistake.of(path))?;
        Ok(Self { place: ClientPlace::Unix { path }, timeout: None })
    }

    /// Adds arguments, each a name and a value. The values are taken as they are, without escapes. The value of a flag
    /// is empty.
    ///
    /// # Errors
    /// A mistake in the arguments. `input` of the error is the string that would be printed.
    ///
    /// ```
    /// let endpoint = bowline::ClientEndpoint::tls("example.org", 443)?.with([("ca", "odd:name.pem"), ("timeout", "5")])?;
    /// assert_eq!(endpoint.to_string(), r"tls:example.org:443:timeout=5:ca=odd\:name.pem");
    /// # Ok::<(), bowline::EndpointError>(())
    /// ```
    pub fn with<'a>(&self, arguments: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, EndpointError> {
        with_arguments(self.to_string(), arguments).parse()
    }

    /// The kind of the endpoint.
    pub fn kind(&self) -> EndpointKind {
        match &self.place {
            ClientPlace::Inet { security, .. } => security.kind(),
            ClientPlace::Unix { .. } => EndpointKind::Unix,
        }
    }

    /// The name or the address. An IPv6 address has no brackets; its scope follows a `%`. `None` for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            ClientPlace::Inet { inet, .. } => Some(&inet.host),
            ClientPlace::Unix { .. } => None,
        }
    }

    /// The port. `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match &self.place {
            ClientPlace::Inet { inet, .. } => Some(inet.port),
            ClientPlace::Unix { .. } => None,
        }
    }

    /// The path of a Unix socket. `None` if the socket is abstract.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            ClientPlace::Inet { .. } => None,
            ClientPlace::Unix { path } => abstract_name(path).is_none().then(|| Path::new(path)),
        }
    }

    /// The name of an abstract Unix socket, without the `@`.
    pub fn abstract_name(&self) -> Option<&str> {
        match &self.place {
            ClientPlace::Inet { .. } => None,
            ClientPlace::Unix { path } => abstract_name(path),
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

    /// The name that the server's certificate is checked against: `name=`, or else the host. `None` without TLS.
    pub fn name(&self) -> Option<&str> {
        self.security().get().and_then(|tls| tls.name.as_deref().or(self.host()))
    }

    /// Every argument with its value, without escapes. The value of a flag is empty.
    pub fn arguments(&self) -> Vec<(&'static str, String)> {
        let mut all =
            vec![(Argument::Timeout, self.timeout.map(print_seconds)), (Argument::Bind, self.bind().map(print_local))];
        if let ClientPlace::Inet { families, .. } = &self.place {
            all.extend(families.flag().map(|flag| (flag, Some(String::new()))));
        }
        all.extend(self.security().get().map(ClientText::arguments).unwrap_or_default());
        all.into_iter().filter_map(|(argument, value)| Some((argument.name(), value?))).collect()
    }

    /// Reads and checks the files that the arguments name. `None` without TLS.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the file. Without `ca=`, the roots of the platform are trusted; if
    /// the feature `platform-roots` is not enabled, that is an error too.
    pub fn client_tls(&self) -> Result<Option<ClientTls>, Error> {
        self.security().get().map(ClientText::load).transpose()
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn place(&self) -> &ClientPlace {
        &self.place
    }

    pub(crate) fn security(&self) -> &Security<ClientText> {
        match &self.place {
            ClientPlace::Inet { security, .. } => security,
            ClientPlace::Unix { .. } => &Security::Plain,
        }
    }
}

/// Prints the endpoint so that [`FromStr`] parses an equal one from it.
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

    /// Parses an endpoint.
    ///
    /// # Errors
    /// A mistake in the string, with its byte offset.
    fn from_str(input: &str) -> Result<Self, EndpointError> {
        read(&mut Cursor::new(input)).map_err(|mistake| mistake.of(input))
    }
}

fn read(cursor: &mut Cursor<'_>) -> Result<ClientEndpoint, Mistake> {
    let kind = read_kind(cursor, Side::Client)?;
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
    let families = Families::read(&given, Some(&inet.host))?;
    let security = Security::new(kind, || ClientText::read(&given))?;
    Ok(ClientEndpoint { place: ClientPlace::Inet { inet, bind, families, security }, timeout })
}
