//! The networks from which headers are accepted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::escape::escaped;

/// The networks of your own proxies. Do not add others: a header can contain any address, and we cannot check it.
///
/// ```
/// let trusted: bowline::proxy::TrustedNetworks = "10.0.0.0/8, 192.0.2.1, 2001:db8::/32".parse()?;
/// assert!(trusted.contains([10, 1, 2, 3].into()));
/// assert!(!trusted.contains([192, 0, 2, 2].into()));
/// assert!(!trusted.contains_unix());
///
/// let local: bowline::proxy::TrustedNetworks = "unix".parse()?;
/// assert!(local.contains_unix());
///
/// let error = "10.0.0.0/33".parse::<bowline::proxy::TrustedNetworks>().unwrap_err();
/// assert!(error.to_string().contains("\"10.0.0.0/33\" is no network"));
/// # Ok::<_, bowline::proxy::NetworkError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedNetworks {
    networks: Arc<[IpNet]>,
    /// Chosen by the application: the processes that can connect to a Unix socket of this service are trusted too.
    unix: bool,
}

impl TrustedNetworks {
    /// Whether this address is in one of the networks. An IPv4 address inside IPv6 (`::ffff:192.0.2.1`) is an IPv4
    /// address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.networks.iter().any(|network| network.contains(&addr))
    }

    /// Whether the list contains `unix`: the peers of Unix sockets. They have no address, so all processes that may
    /// connect to the socket are trusted. The permissions of the socket's file decide which processes may connect.
    pub fn contains_unix(&self) -> bool {
        self.unix
    }
}

impl FromStr for TrustedNetworks {
    type Err = NetworkError;

    /// Networks in CIDR notation, single addresses, or `unix` for the peers of Unix sockets, separated by commas. At
    /// least one.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parse = |part: &str| {
            let network = part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| NetworkError(part.to_owned()))
        };
        let (unix, networks): (Vec<&str>, Vec<&str>) = text.split(',').map(str::trim).partition(|part| *part == "unix");
        let networks = networks.into_iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { networks, unix: !unix.is_empty() })
    }
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkError(String);

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = escaped(self.0.as_bytes());
        write!(
            f,
            "\"{found}\" is no network: expected an IP address, a network such as 10.0.0.0/8 or 2001:db8::/32, or unix"
        )
    }
}

impl std::error::Error for NetworkError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_the_text_is_a_network_or_an_address() {
        for text in [
            "",
            ",",
            "unix,",
            "unix:",
            "10.0.0.0/8,",
            "10.0.0.0/8 192.0.2.1",
            "10.0.0/8",
            "::/129",
            "proxy.example",
            "\x1b[2J",
        ] {
            let error = text.parse::<TrustedNetworks>().unwrap_err().to_string();
            assert!(error.contains("is no network: expected an IP address") && !error.contains('\x1b'), "{error}");
        }
    }
}
