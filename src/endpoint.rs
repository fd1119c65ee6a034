//! Endpoints as strings: `tcp:HOST:PORT` and `tls:HOST:PORT`, for clients and for listeners.
//!
//! ```text
//! endpoint = kind ":" host ":" port
//! kind     = "tcp" | "tls"
//! host     = name | IPv4 address | "[" IPv6 address [ "%" scope ] "]"
//! port     = 0 .. 65535
//! ```
//! A colon behind the port is reserved for arguments, and refused until there are any.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::EndpointError;

/// Where to connect to, or where to listen.
///
/// ```
/// use bowline::{Endpoint, EndpointKind};
///
/// let endpoint: Endpoint = "tls:[fe80::1%eth0]:7001".parse()?;
/// assert_eq!(endpoint.kind(), EndpointKind::Tls);
/// assert_eq!((endpoint.host(), endpoint.port()), ("fe80::1%eth0", 7001));
/// assert_eq!(endpoint.to_string(), "tls:[fe80::1%eth0]:7001");
///
/// let error = "tls:example.org".parse::<Endpoint>().expect_err("there is no port");
/// assert_eq!(error.at, 15);
/// # Ok::<(), bowline::EndpointError>(())
/// ```
#[doc(alias = "clientFromString")]
#[doc(alias = "serverFromString")]
#[doc(alias = "HostnameEndpoint")]
#[doc(alias = "TCP4ClientEndpoint")]
#[doc(alias = "TCP4ServerEndpoint")]
#[doc(alias = "SSL4ClientEndpoint")]
#[doc(alias = "SSL4ServerEndpoint")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    kind: EndpointKind,
    host: String,
    port: u16,
}

/// What is spoken at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointKind {
    /// Plain TCP.
    Tcp,
    /// TLS from the first byte on.
    Tls,
}

impl Endpoint {
    /// An endpoint of its parts. An IPv6 host may stand with or without brackets.
    ///
    /// # Errors
    /// The caller's fault: `host` is neither a name nor an address. `input` and `at` of the error speak of `host`.
    pub fn new(kind: EndpointKind, host: &str, port: u16) -> Result<Self, EndpointError> {
        let read = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) => read_ipv6(inner).map_err(|mistake| mistake.behind(1)),
            None if host.contains(':') => read_ipv6(host),
            None => read_name(host),
        };
        Ok(Self { kind, host: read.map_err(|mistake| mistake.of(host))?, port })
    }

    /// What is spoken there.
    pub fn kind(&self) -> EndpointKind {
        self.kind
    }

    /// The name or the address, an IPv6 address without brackets, its scope behind a `%`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port. 0 asks a listener for any free one.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl EndpointKind {
    const ALL: [Self; 2] = [Self::Tcp, Self::Tls];

    /// The word that endpoint strings begin with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Prints what [`FromStr`] reads: printed and read again, an endpoint is equal to itself.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, host, port } = self;
        if host.contains(':') { write!(f, "{kind}:[{host}]:{port}") } else { write!(f, "{kind}:{host}:{port}") }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `tcp:HOST:PORT` or `tls:HOST:PORT`.
    ///
    /// # Errors
    /// The fault of who wrote the string: the first mistake in it, with its byte offset.
    fn from_str(input: &str) -> Result<Self, EndpointError> {
        read(input).map_err(|mistake| mistake.of(input))
    }
}

/// A mistake in a part of the input; the offset grows on the way out.
struct Mistake {
    at: usize,
    problem: String,
}

impl Mistake {
    fn new(at: usize, problem: impl Into<String>) -> Self {
        Self { at, problem: problem.into() }
    }

    fn behind(self, offset: usize) -> Self {
        Self { at: self.at + offset, ..self }
    }

    fn of(self, input: &str) -> EndpointError {
        EndpointError { input: input.to_owned(), at: self.at, problem: self.problem }
    }
}

fn read(input: &str) -> Result<Endpoint, Mistake> {
    check_characters(input)?;
    let (kind, host_at) = read_kind(input)?;
    let (host, host_len) = read_host(&input[host_at..]).map_err(|mistake| mistake.behind(host_at))?;
    let port_at = host_at + host_len;
    let port = read_port(&input[port_at..]).map_err(|mistake| mistake.behind(port_at))?;
    Ok(Endpoint { kind, host, port })
}

fn check_characters(input: &str) -> Result<(), Mistake> {
    match input.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
        None => Ok(()),
        Some((at, c)) if c.is_ascii() => Err(Mistake::new(at, "spaces and control characters have no place here")),
        Some((at, _)) => Err(Mistake::new(at, "only ASCII is read; write an international name in its xn-- form")),
    }
}

/// The kind, and the offset of what follows its colon.
fn read_kind(input: &str) -> Result<(EndpointKind, usize), Mistake> {
    let (word, rest) = input.split_once(':').map_or((input, None), |(word, rest)| (word, Some(rest)));
    let Some(kind) = EndpointKind::ALL.into_iter().find(|kind| kind.name() == word) else {
        let problem = if word.is_empty() { "the kind is missing".into() } else { format!("{word:?} is not a kind") };
        return Err(Mistake::new(0, format!("{problem}; an endpoint begins with tcp: or tls:")));
    };
    match rest {
        Some(_) => Ok((kind, word.len() + 1)),
        None => Err(Mistake::new(word.len(), "the host is missing; write KIND:HOST:PORT")),
    }
}

/// The host, and how many bytes it takes.
fn read_host(text: &str) -> Result<(String, usize), Mistake> {
    if let Some(inner) = text.strip_prefix('[') {
        let len = inner.find(']').ok_or_else(|| Mistake::new(0, "the bracket is not closed"))?;
        let host = read_ipv6(&inner[..len]).map_err(|mistake| mistake.behind(1))?;
        return Ok((host, len + 2));
    }
    if looks_like_bare_ipv6(text) {
        return Err(Mistake::new(0, "an IPv6 address stands in brackets, as in [::1]"));
    }
    let len = text.find(':').unwrap_or(text.len());
    Ok((read_name(&text[..len])?, len))
}

/// Whether colons are part of the host here: `::1:80`, `fe80::1%eth0:80`, `2001:db8::1`.
fn looks_like_bare_ipv6(text: &str) -> bool {
    let is_ipv6 = |text: &str| read_ipv6(text).is_ok();
    is_ipv6(text) || text.rsplit_once(':').is_some_and(|(host, _)| is_ipv6(host))
}

/// An IPv6 address with an optional scope, in its shortest form.
fn read_ipv6(text: &str) -> Result<String, Mistake> {
    let (address, scope) = text.split_once('%').map_or((text, None), |(address, scope)| (address, Some(scope)));
    let parsed: Ipv6Addr = match address.parse() {
        Ok(parsed) => parsed,
        Err(_) if text.is_empty() => return Err(Mistake::new(0, "the host is empty")),
        Err(_) => return Err(Mistake::new(0, format!("{address:?} is not an IPv6 address"))),
    };
    let Some(scope) = scope else { return Ok(parsed.to_string()) };
    let scope_at = address.len() + 1;
    match scope.find(|c: char| !c.is_ascii_alphanumeric() && !"-._~".contains(c)) {
        _ if scope.is_empty() => Err(Mistake::new(scope_at, "the scope is empty; name an interface or its number")),
        Some(bad) => Err(Mistake::new(scope_at + bad, "a scope is the name of an interface or its number")),
        None => Ok(format!("{parsed}%{scope}")),
    }
}

/// A DNS name or an IPv4 address.
fn read_name(text: &str) -> Result<String, Mistake> {
    if text.is_empty() {
        return Err(Mistake::new(0, "the host is empty"));
    }
    if let Some(bad) = text.find(|c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c)) {
        return Err(Mistake::new(bad, "this character cannot be part of a host name"));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    check_labels(name)?;
    // A name whose last label is a number is meant to be an address: no top-level domain is one.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|b| b.is_ascii_digit()) && text.parse::<Ipv4Addr>().is_err() {
        return Err(Mistake::new(0, format!("{text:?} is not an IPv4 address")));
    }
    Ok(text.to_owned())
}

/// The bounds of RFC 1035 section 2.3.4.
fn check_labels(name: &str) -> Result<(), Mistake> {
    if name.len() > 253 {
        return Err(Mistake::new(253, "a host name has at most 253 characters"));
    }
    let mut at = 0;
    for label in name.split('.') {
        match label.len() {
            0 => return Err(Mistake::new(at, "a label of the host name is empty")),
            1..=63 => at += label.len() + 1,
            _ => return Err(Mistake::new(at, "a label of a host name has at most 63 characters")),
        }
    }
    Ok(())
}

/// `:PORT` to the end of the text.
fn read_port(text: &str) -> Result<u16, Mistake> {
    let digits = match text.strip_prefix(':') {
        None if text.is_empty() => return Err(Mistake::new(0, "the port is missing")),
        None => return Err(Mistake::new(0, "a colon and the port belong here")),
        Some("") => return Err(Mistake::new(1, "the port is missing")),
        Some(digits) => digits,
    };
    match digits.find(|c: char| !c.is_ascii_digit()) {
        Some(0) => Err(Mistake::new(1, "the port is a number from 0 to 65535")),
        Some(bad) => Err(Mistake::new(1 + bad, "nothing may follow the port")),
        None => digits.parse().map_err(|_| Mistake::new(1, "the port is out of range: 0 to 65535")),
    }
}

#[cfg(test)]
mod tests;
