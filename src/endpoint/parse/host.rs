//! Hosts and ports. The offsets of mistakes count from the start of the text that was passed in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::text::{Cursor, Mistake};

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Inet {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Inet {
    pub(super) fn new(host: &str, port: u16) -> Result<Self, Mistake> {
        Ok(Self { host: read_host(host)?, port })
    }

    /// Parses `HOST:PORT` at the cursor.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, Mistake> {
        if looks_like_bare_ipv6(cursor.rest()) {
            return Err(Mistake::new(cursor.at(), "write an IPv6 address in brackets, as in [::1]"));
        }
        let host = cursor.address()?.read(read_host)?;
        if !cursor.pass(':') {
            return Err(Mistake::new(cursor.at(), "the port is missing"));
        }
        Ok(Self { host, port: cursor.part()?.read(read_port)? })
    }
}

/// `HOST:PORT`, as printed in an endpoint.
pub(super) fn print(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// A name, an IPv4 address, or an IPv6 address with or without brackets.
pub(super) fn read_host(text: &str) -> Result<String, Mistake> {
    let Some(inner) = text.strip_prefix('[') else {
        return if text.contains(':') { read_ipv6(text) } else { read_name(text) };
    };
    match inner.split_once(']') {
        None => Err(Mistake::new(0, "the bracket is not closed")),
        Some((address, "")) => read_ipv6(address).map_err(|mistake| Mistake { at: mistake.at + 1, ..mistake }),
        Some((address, _)) => Err(Mistake::new(address.len() + 2, "a colon must follow the bracket")),
    }
}

/// Whether the text starts with an IPv6 address without brackets: `::1:80`, `fe80::1%eth0:80`, `2001:db8::1`, with or
/// without arguments after it.
pub(super) fn looks_like_bare_ipv6(text: &str) -> bool {
    let arguments = text.find('=').and_then(|at| text[..at].rfind(':'));
    let text = &text[..arguments.unwrap_or(text.len())];
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
    if let Some((at, bad)) = text.char_indices().find(|(_, c)| !c.is_ascii_alphanumeric() && !"-._".contains(*c)) {
        return Err(Mistake::new(
            at,
            match bad {
                ' ' => "a host name has no spaces",
                bad if bad.is_ascii() => "this character cannot be part of a host name",
                _ => "only ASCII is read in a host name; write an international one in its xn-- form",
            },
        ));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    check_labels(name)?;
    // A name whose last label is a number must be an address, because no top-level domain is a number.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|b| b.is_ascii_digit()) && text.parse::<Ipv4Addr>().is_err() {
        return Err(Mistake::new(0, format!("{text:?} is not an IPv4 address")));
    }
    Ok(text.to_owned())
}

/// The limits of RFC 1035 section 2.3.4.
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

pub(super) fn read_port(text: &str) -> Result<u16, Mistake> {
    match text.find(|c: char| !c.is_ascii_digit()) {
        _ if text.is_empty() => Err(Mistake::new(0, "the port is missing")),
        Some(0) => Err(Mistake::new(0, "the port is a number from 0 to 65535")),
        Some(bad) => Err(Mistake::new(bad, "nothing but a colon and arguments may follow the port")),
        None => text.parse().map_err(|_| Mistake::new(0, "the port is out of range: 0 to 65535")),
    }
}

/// A local address to connect from: an IP address with an optional port. IPv6 is in brackets if there is a port.
pub(super) fn read_local(text: &str) -> Result<SocketAddr, Mistake> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let addr = match (text.parse(), bare.parse::<IpAddr>()) {
        (Ok(addr), _) => Some(addr),
        (_, Ok(ip)) => Some(SocketAddr::from((ip, 0))),
        // `SocketAddr` also parses a numeric scope.
        _ if bare.contains('%') => format!("[{bare}]:0").parse().ok(),
        _ => None,
    };
    addr.ok_or_else(|| Mistake::new(0, format!("{text:?} is not an IP address, with or without a port")))
}

/// Prints an address in the form that [`read_local`] parses.
pub(super) fn print_local(addr: SocketAddr) -> String {
    let text = addr.to_string();
    match text.strip_suffix(":0") {
        Some(without_port) if addr.port() == 0 => without_port.to_owned(),
        _ => text,
    }
}
