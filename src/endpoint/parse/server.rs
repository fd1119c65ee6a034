//! The endpoint of a server.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::arguments::{Argument, Given, backlog, mode};
use super::families::Families;
use super::host::{self, Inet, looks_like_bare_ipv6, read_host, read_port};
use super::proxy::ProxyText;
use super::text::{Cursor, Mistake, escape};
use super::tls::{Security, ServerText};
use super::{EndpointKind, Side, abstract_name, check_path, print_arguments, read_kind, read_path, with_arguments};
use crate::config::{ServerTls, TicketKeys};
use crate::error::{EndpointError, Error};

/// The endpoint of a server: the address to listen on, and whether to use TLS.
///
/// | string | listens |
/// |---|---|
/// | `tcp:8080`, `tcp:127.0.0.1:8080`, `tcp:8080:interface=127.0.0.1` | on TCP; without a host, on every IPv4 address |
/// | `tls:8443:cert=FILE:key=FILE` | the same, in TLS from the first byte on |
/// | `starttls:2525:cert=FILE:key=FILE` | the same, in plaintext until the connection is upgraded |
/// | `unix:/run/x.sock` | on a Unix socket |
/// | `unix:@NAME` | on an abstract Unix socket, which has no file (Linux and Android); `unix:./@NAME` is a file |
///
/// | `fd:3` | on a listening socket that the process was started with, by its number |
/// | `systemd:NAME` | on the sockets that systemd has passed in under this name (`FileDescriptorName=`; default: the name of the unit, `web.socket`) |
///
/// | argument | of | means |
/// |---|---|---|
/// | `interface=HOST` | `tcp`, `tls`, `starttls` | the same as a host before the port; `[::]` is every IPv6 address |
/// | `dual-stack` | `tcp`, `tls`, `starttls` | with `[::]`, or without a host: one socket for IPv6 and IPv4 |
/// | `ipv4-only`, `ipv6-only` | `tcp`, `tls`, `starttls` | only these addresses of a name; without a host, every address of that family |
/// | `reuse-port` | `tcp`, `tls`, `starttls` | other sockets with this option may listen on the same port (`SO_REUSEPORT`; not on Windows) |
/// | `backlog=N` | all | the length of the system's backlog; default 1024 |
/// | `mode=660` | `unix` | the permissions of the socket, octal; default: according to the umask |
/// | `starttls` | `fd`, `systemd` | with `cert` and `key`, or `identities`: TLS after an upgrade, not from the first byte on |
/// | `cert=FILE`, `key=FILE` | `tls`, `starttls`, `fd`, `systemd` | certificate chain and private key, PEM; both are needed |
/// | `identities=DIR` | `tls`, `starttls`, `fd`, `systemd` | instead of them: all identities of a directory; the name that the client asks for chooses ([`identities_dir`](crate::config::ServerTlsBuilder::identities_dir)) |
/// | `client-ca=FILE` | `tls`, `starttls` | require a client certificate that this CA has issued, PEM |
/// | `client-optional` | `tls`, `starttls` | ... and also accept clients without a certificate |
/// | `crl=FILE` | `tls`, `starttls` | refuse client certificates that this list revokes, PEM; needs `client-ca=` |
/// | `ticket-keys=FILE,FILE` | `tls`, `starttls`, `fd`, `systemd` | the keys of session tickets, which several servers share; the first file has the key that seals new tickets ([`ticket_key_files`](crate::config::ServerTlsBuilder::ticket_key_files)) |
/// | `alpn=h2,http/1.1` | `tls`, `starttls` | the protocols to agree on, the preferred one first |
/// | `min=1.2`, `max=1.3` | `tls`, `starttls` | the versions of TLS |
/// | `reload=SECONDS` | `tls`, `starttls`, `fd`, `systemd` | read the files again at this interval, and use new contents (a [`Reloader`](crate::Reloader)); fractions allowed; default: the files are read once |
/// | `proxy=accept`, `proxy=require` | all | connections of the proxies may or must begin with a PROXY header (feature `proxy`); `proxy=off`: never |
/// | `trusted=NETWORK,...` | all | the networks of the proxies: `trusted=10.0.0.0/8,2001\:db8\:\:/32`; `unix`: every peer of a Unix socket, which needs it; needed with `proxy=accept` and `proxy=require` |
///
/// Put a backslash before a colon, an equals sign or a backslash that belongs to a value: `cert=C\:\\server.pem`. Port
/// 0 is any free port. Paths may contain anything but control characters. Hosts are ASCII.
///
/// ```
/// use bowline::{EndpointKind, ServerEndpoint};
///
/// let endpoint: ServerEndpoint = "tls:8443:interface=127.0.0.1:cert=server.pem:key=server.key:alpn=h2,http/1.1".parse()?;
/// assert_eq!(endpoint.kind(), EndpointKind::Tls);
/// assert_eq!((endpoint.host(), endpoint.port()), (Some("127.0.0.1"), Some(8443)));
/// assert_eq!(endpoint.to_string(), "tls:127.0.0.1:8443:cert=server.pem:key=server.key:alpn=h2,http/1.1");
///
/// let error = "tcp:8080:timeout=5".parse::<ServerEndpoint>().unwrap_err();
/// assert_eq!(error.at, 9);
/// assert_eq!(
///     error.problem,
///     "timeout is an argument of clients, and this is a server; a tcp server takes interface, backlog, dual-stack, ipv4-only, ipv6-only, reuse-port, proxy, trusted"
/// );
/// # Ok::<(), bowline::EndpointError>(())
/// ```
#[doc(alias = "serverFromString")]
#[doc(alias = "TCP4ServerEndpoint")]
#[doc(alias = "TCP6ServerEndpoint")]
#[doc(alias = "SSL4ServerEndpoint")]
#[doc(alias = "UNIXServerEndpoint")]
#[doc(alias = "IStreamServerEndpoint")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerEndpoint {
    place: ServerPlace,
    backlog: Option<u32>,
    proxy: Option<ProxyText>,
}

/// The address, in the form that listening needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ServerPlace {
    Inet { host: Option<String>, port: u16, families: Families, reuse_port: bool, security: Security<ServerText> },
    Unix { path: String, mode: Option<u32> },
    Inherited { from: Inherited, security: Security<ServerText> },
}

/// Sockets that the process was started with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Inherited {
    Fd(u16),
    Systemd(String),
}

impl ServerEndpoint {
    /// TCP on every IPv4 address: `tcp:PORT`.
    pub fn tcp(port: u16) -> Self {
        Self {
            place: ServerPlace::Inet {
                host: None,
                port,
                families: Families::Given,
                reuse_port: false,
                security: Security::Plain,
            },
            backlog: None,
            proxy: None,
        }
    }

    /// TLS on every IPv4 address: `tls:PORT:cert=CERT:key=KEY`. The paths are taken as they are, without escapes.
    ///
    /// # Errors
    /// A path is empty or contains a control character. `input` of the error is the string that would be printed.
    pub fn tls(port: u16, cert: &str, key: &str) -> Result<Self, EndpointError> {
        with_arguments(format!("tls:{port}"), [("cert", cert), ("key", key)]).parse()
    }

    /// TCP on every IPv4 address, to be upgraded to TLS: `starttls:PORT:cert=CERT:key=KEY`.
    ///
    /// # Errors
    /// As [`tls`](Self::tls).
    pub fn starttls(port: u16, cert: &str, key: &str) -> Result<Self, EndpointError> {
        with_arguments(format!("starttls:{port}"), [("cert", cert), ("key", key)]).parse()
    }

    /// A Unix socket: `unix:PATH`, or `unix:@NAME` for an abstract one. The path is taken as it is, without escapes.
    ///
    /// # Errors
    /// The path is empty or contains a control character. `input` and `at` of the error refer to `path`.
    pub fn unix(path: &str) -> Result<Self, EndpointError> {
        let checked = check_path(path).map_err(|mistake| mistake.of(path))?;
        Ok(Self { place: ServerPlace::Unix { path: checked, mode: None }, backlog: None, proxy: None })
    }

    /// A listening socket that the process was started with: `fd:NUMBER`.
    ///
    /// # Errors
    /// 0, 1 and 2 are the standard streams. `input` of the error is the string that would be printed.
    pub fn fd(number: u16) -> Result<Self, EndpointError> {
        format!("fd:{number}").parse()
    }

    /// The sockets that systemd has passed in under this name: `systemd:NAME`. The name is taken as it is, without
    /// escapes.
    ///
    /// # Errors
    /// The name cannot be that of a descriptor. `input` and `at` of the error refer to `name`.
    pub fn systemd(name: &str) -> Result<Self, EndpointError> {
        let from = check_name(name).map(Inherited::Systemd).map_err(|mistake| mistake.of(name))?;
        Ok(Self { place: ServerPlace::Inherited { from, security: Security::Plain }, backlog: None, proxy: None })
    }

    /// Adds arguments, each a name and a value. The values are taken as they are, without escapes. The value of a flag
    /// is empty.
    ///
    /// # Errors
    /// A mistake in the arguments. `input` of the error is the string that would be printed.
    ///
    /// ```
    /// let endpoint = bowline::ServerEndpoint::tcp(8080).with([("interface", "::1"), ("backlog", "16")])?;
    /// assert_eq!(endpoint.to_string(), "tcp:[::1]:8080:backlog=16");
    /// # Ok::<(), bowline::EndpointError>(())
    /// ```
    pub fn with<'a>(&self, arguments: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, EndpointError> {
        with_arguments(self.to_string(), arguments).parse()
    }

    /// The same endpoint, whose TLS seals session tickets with these keys, instead of the files of `ticket-keys=`: for
    /// example with the keys of a [`TicketRotation`](crate::TicketRotation). The keys are not a part of the string. An
    /// endpoint without TLS has no tickets.
    #[must_use]
    pub fn ticket_keys(mut self, keys: &TicketKeys) -> Self {
        match &mut self.place {
            ServerPlace::Inet { security, .. } | ServerPlace::Inherited { security, .. } => {
                if let Some(text) = security.get_mut() {
                    text.share_ticket_keys(keys);
                }
            }
            ServerPlace::Unix { .. } => {}
        }
        self
    }

    /// The kind of the endpoint.
    pub fn kind(&self) -> EndpointKind {
        match &self.place {
            ServerPlace::Inet { security, .. } => security.kind(),
            ServerPlace::Unix { .. } => EndpointKind::Unix,
            ServerPlace::Inherited { from: Inherited::Fd(_), .. } => EndpointKind::Fd,
            ServerPlace::Inherited { from: Inherited::Systemd(_), .. } => EndpointKind::Systemd,
        }
    }

    /// The name or address to listen on, IPv6 without brackets. `None` for every IPv4 address, and for a Unix socket.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            ServerPlace::Inet { host, .. } => host.as_deref(),
            ServerPlace::Unix { .. } | ServerPlace::Inherited { .. } => None,
        }
    }

    /// The port, 0 for any free port. `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match &self.place {
            ServerPlace::Inet { port, .. } => Some(*port),
            ServerPlace::Unix { .. } | ServerPlace::Inherited { .. } => None,
        }
    }

    /// The path of a Unix socket. `None` if the socket is abstract.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            ServerPlace::Inet { .. } | ServerPlace::Inherited { .. } => None,
            ServerPlace::Unix { path, .. } => abstract_name(path).is_none().then(|| Path::new(path)),
        }
    }

    /// The name of an abstract Unix socket, without the `@`.
    pub fn abstract_name(&self) -> Option<&str> {
        match &self.place {
            ServerPlace::Inet { .. } | ServerPlace::Inherited { .. } => None,
            ServerPlace::Unix { path, .. } => abstract_name(path),
        }
    }

    /// `backlog=`: the length of the system's backlog.
    pub fn backlog(&self) -> Option<u32> {
        self.backlog
    }

    /// `mode=`: the permissions of a Unix socket.
    pub fn mode(&self) -> Option<u32> {
        match &self.place {
            ServerPlace::Inet { .. } | ServerPlace::Inherited { .. } => None,
            ServerPlace::Unix { mode, .. } => *mode,
        }
    }

    /// Every argument with its value, without escapes. The value of a flag is empty.
    pub fn arguments(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![(Argument::Backlog, self.backlog.map(|backlog| backlog.to_string()))];
        match &self.place {
            ServerPlace::Inet { security, families, reuse_port, .. } => {
                all.extend(families.flag().map(|flag| (flag, Some(String::new()))));
                all.extend(reuse_port.then(|| (Argument::ReusePort, Some(String::new()))));
                all.extend(security.get().map(ServerText::arguments).unwrap_or_default())
            }
            ServerPlace::Unix { mode, .. } => all.push((Argument::Mode, mode.map(|mode| format!("{mode:o}")))),
            ServerPlace::Inherited { security, .. } => {
                all.extend(
                    matches!(security, Security::StartTls(_)).then(|| (Argument::StartTls, Some(String::new()))),
                );
                all.extend(security.get().map(ServerText::arguments).unwrap_or_default());
            }
        }
        all.extend(self.proxy.iter().flat_map(ProxyText::arguments));
        all.into_iter().filter_map(|(argument, value)| Some((argument.name(), value?))).collect()
    }

    /// Reads and checks the files that the arguments name. `None` without TLS.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) with the file.
    pub fn server_tls(&self) -> Result<Option<ServerTls>, Error> {
        self.security().get().map(ServerText::load).transpose()
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn place(&self) -> &ServerPlace {
        &self.place
    }

    #[cfg(all(feature = "proxy", feature = "tokio"))]
    pub(crate) fn proxy(&self) -> Option<&ProxyText> {
        self.proxy.as_ref()
    }

    pub(crate) fn security(&self) -> &Security<ServerText> {
        match &self.place {
            ServerPlace::Inet { security, .. } | ServerPlace::Inherited { security, .. } => security,
            ServerPlace::Unix { .. } => &Security::Plain,
        }
    }
}

/// Prints the endpoint so that [`FromStr`] parses an equal one from it.
impl fmt::Display for ServerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind())?;
        match &self.place {
            ServerPlace::Inet { host: Some(host), port, .. } => f.write_str(&host::print(host, *port))?,
            ServerPlace::Inet { host: None, port, .. } => port.fmt(f)?,
            ServerPlace::Unix { path, .. } => f.write_str(&escape(path))?,
            ServerPlace::Inherited { from: Inherited::Fd(number), .. } => number.fmt(f)?,
            ServerPlace::Inherited { from: Inherited::Systemd(name), .. } => f.write_str(&escape(name))?,
        }
        print_arguments(&self.arguments(), f)
    }
}

impl FromStr for ServerEndpoint {
    type Err = EndpointError;

    /// Parses an endpoint.
    ///
    /// # Errors
    /// A mistake in the string, with its byte offset.
    fn from_str(input: &str) -> Result<Self, EndpointError> {
        read(&mut Cursor::new(input)).map_err(|mistake| mistake.of(input))
    }
}

fn read(cursor: &mut Cursor<'_>) -> Result<ServerEndpoint, Mistake> {
    let kind = read_kind(cursor, Side::Server)?;
    let inherited = match kind {
        EndpointKind::Fd => Some(Inherited::Fd(cursor.part()?.read(read_number)?)),
        EndpointKind::Systemd => Some(Inherited::Systemd(cursor.part()?.read(check_name)?)),
        EndpointKind::Tcp | EndpointKind::Tls | EndpointKind::StartTls | EndpointKind::Unix => None,
    };
    if let Some(from) = inherited {
        let given = Given::read(cursor, Side::Server, kind)?;
        let proxy = ProxyText::read(&given)?;
        let security = Security::of_inherited(&given, || ServerText::read(kind, &given))?;
        return Ok(ServerEndpoint { place: ServerPlace::Inherited { from, security }, backlog: None, proxy });
    }
    if kind == EndpointKind::Unix {
        let path = read_path(cursor)?;
        let given = Given::read(cursor, Side::Server, kind)?;
        if let (Some(_), Some(mode)) = (abstract_name(&path), given.text(Argument::Mode)) {
            let problem = "an abstract socket has no file, and so no mode; unix:./@NAME is a file";
            return Err(Mistake::new(mode.at, problem));
        }
        let mode = given.value(Argument::Mode, mode)?;
        return Ok(ServerEndpoint {
            place: ServerPlace::Unix { path, mode },
            backlog: given.value(Argument::Backlog, backlog)?,
            proxy: ProxyText::read(&given)?,
        });
    }
    let (host, port) = read_place(cursor)?;
    let given = Given::read(cursor, Side::Server, kind)?;
    let host = match (host, given.text(Argument::Interface)) {
        (Some(_), Some(interface)) => {
            return Err(Mistake::new(interface.at, "the host is already given before the port"));
        }
        (host, _) => host.or(given.value(Argument::Interface, read_host)?),
    };
    let backlog = given.value(Argument::Backlog, backlog)?;
    let families = Families::read(&given, host.as_deref())?;
    let reuse_port = given.text(Argument::ReusePort).is_some();
    let proxy = ProxyText::read(&given)?;
    let security = Security::new(kind, || ServerText::read(kind, &given))?;
    Ok(ServerEndpoint { place: ServerPlace::Inet { host, port, families, reuse_port, security }, backlog, proxy })
}

/// The number of a descriptor.
fn read_number(text: &str) -> Result<u16, Mistake> {
    match text.parse() {
        _ if text.is_empty() => Err(Mistake::new(0, "the number is missing; write fd:NUMBER")),
        Ok(0..=2) => Err(Mistake::new(0, "0, 1 and 2 are the standard streams; passed-in sockets begin at 3")),
        Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(Mistake::new(0, "a descriptor is a number from 3 to 65535")),
    }
}

/// The name of a descriptor (`FileDescriptorName=`, systemd.socket(5)).
fn check_name(text: &str) -> Result<String, Mistake> {
    match text.find(|c: char| !c.is_ascii() || c.is_ascii_control() || c == ':') {
        _ if text.is_empty() => Err(Mistake::new(0, "the name is missing; write systemd:NAME")),
        _ if text.len() > 255 => Err(Mistake::new(255, "the name of a descriptor has at most 255 characters")),
        Some(at) => Err(Mistake::new(at, "the name of a descriptor is ASCII without colons and control characters")),
        None => Ok(text.to_owned()),
    }
}

/// `PORT` or `HOST:PORT`.
fn read_place(cursor: &mut Cursor<'_>) -> Result<(Option<String>, u16), Mistake> {
    let rest = cursor.rest();
    if rest.is_empty() {
        return Err(Mistake::new(cursor.at(), "the port is missing"));
    }
    let first = rest.split(':').next().unwrap_or(rest);
    let is_number = !first.is_empty() && first.bytes().all(|b| b.is_ascii_digit());
    if is_number && !looks_like_bare_ipv6(rest) {
        return Ok((None, cursor.part()?.read(read_port)?));
    }
    let Inet { host, port } = Inet::read(cursor)?;
    Ok((Some(host), port))
}
