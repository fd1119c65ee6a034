//! Headers to bytes.

use std::net::{IpAddr, SocketAddr};

use super::crc32c::crc32c;
use super::tlv::{self, ProxyTls};
use super::{Command, ProxyHeader, V1_SIGNATURE, V2_FIXED, V2_SIGNATURE};
use crate::address::Address;

// The families of version 2, each with the protocol (stream).
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// The length of a Unix address.
const UNIX_NAME: usize = 108;

/// The length of a field with the checksum: the type, the length, and four bytes.
const CRC_FIELD: usize = 7;

impl ProxyHeader {
    /// Adds the protocol that the client has negotiated (ALPN).
    ///
    /// # Panics
    /// If the header becomes longer than [`MAX_V2_LEN`](Self::MAX_V2_LEN).
    #[must_use]
    pub fn with_alpn(self, protocol: &[u8]) -> Self {
        self.with_tlv(tlv::ALPN, protocol)
    }

    /// Adds the host name that the client requested.
    ///
    /// # Panics
    /// As [`with_alpn`](Self::with_alpn).
    #[must_use]
    pub fn with_authority(self, host: &str) -> Self {
        self.with_tlv(tlv::AUTHORITY, host.as_bytes())
    }

    /// Adds the properties of the client's TLS session.
    ///
    /// # Panics
    /// As [`with_alpn`](Self::with_alpn).
    #[must_use]
    pub fn with_tls(self, tls: &ProxyTls) -> Self {
        let bits = [
            (tls.is_tls, tlv::CLIENT_SSL),
            (tls.has_certificate, tlv::CLIENT_CERT_CONN),
            (tls.had_certificate, tlv::CLIENT_CERT_SESS),
        ];
        let client = bits.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit);
        let mut value = vec![client, 0, 0, 0, u8::from(!tls.is_verified)];
        let texts = [(tlv::SSL_VERSION, &tls.version), (tlv::SSL_CN, &tls.common_name), (tlv::SSL_CIPHER, &tls.cipher)];
        for (kind, text) in texts {
            if let Some(text) = text {
                push(&mut value, kind, text.as_bytes());
            }
        }
        self.with_tlv(tlv::SSL, &value)
    }

    /// Adds a field of this type, `PP2_TYPE_*` of the specification; 0xe0 to 0xef are free for applications.
    ///
    /// # Panics
    /// As [`with_alpn`](Self::with_alpn).
    #[must_use]
    pub fn with_tlv(mut self, kind: u8, value: &[u8]) -> Self {
        push(&mut self.tlvs, kind, value);
        let len = V2_FIXED + 216 + self.tlvs.len() + CRC_FIELD;
        assert!(len <= Self::MAX_V2_LEN, "the PROXY header is too long: {len} bytes of at most {}", Self::MAX_V2_LEN);
        self
    }

    /// The header in version 1. It contains IP addresses only: version 1 has no addresses of Unix sockets and no fields,
    /// and cannot express that the connection is the proxy's own.
    pub fn encode_v1(&self) -> Vec<u8> {
        let text = match self.inet() {
            Some((source, destination)) => {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                format!("{family} {} {} {} {}", source.ip(), destination.ip(), source.port(), destination.port())
            }
            None => String::from("UNKNOWN"),
        };
        [V1_SIGNATURE, text.as_bytes(), b"\r\n"].concat()
    }

    /// The header in version 2, with a checksum. The addresses are left out if they are neither two IP addresses nor two
    /// addresses of Unix sockets, or if the path of such a socket has more than 108 bytes (an abstract name: 107).
    pub fn encode_v2(&self) -> Vec<u8> {
        let mut all = V2_SIGNATURE.to_vec();
        all.push(if self.is_local() { 0x20 } else { 0x21 });
        let (family, addresses) = self.inet_block().or_else(|| self.unix_block()).unwrap_or((UNSPECIFIED, Vec::new()));
        all.extend([family, 0, 0]);
        all.extend(addresses);
        // A header that was received has its sender's checksum, which does not fit this one.
        for tlv in self.tlvs().filter(|tlv| tlv.kind != tlv::CRC32C) {
            push(&mut all, tlv.kind, tlv.value);
        }
        push(&mut all, tlv::CRC32C, &[0; 4]);
        let len = u16::try_from(all.len() - V2_FIXED).expect("the length was checked when each field was added");
        all[V2_FIXED - 2..V2_FIXED].copy_from_slice(&len.to_be_bytes());
        let crc = crc32c(all.iter().copied()).to_be_bytes();
        let at = all.len() - crc.len();
        all[at..].copy_from_slice(&crc);
        all
    }

    /// The family and the addresses in version 2.
    fn inet_block(&self) -> Option<(u8, Vec<u8>)> {
        let (source, destination) = self.inet()?;
        let mut addresses = Vec::with_capacity(36);
        for ip in [source.ip(), destination.ip()] {
            match ip {
                IpAddr::V4(ip) => addresses.extend(ip.octets()),
                IpAddr::V6(ip) => addresses.extend(ip.octets()),
            }
        }
        addresses.extend(source.port().to_be_bytes());
        addresses.extend(destination.port().to_be_bytes());
        Some((if source.is_ipv4() { TCP4 } else { TCP6 }, addresses))
    }

    fn unix_block(&self) -> Option<(u8, Vec<u8>)> {
        let Command::Proxied { source, destination } = &self.command else { return None };
        Some((UNIX_STREAM, [unix_name(source)?, unix_name(destination)?].concat()))
    }

    /// Both addresses, of one family. An IPv4 address becomes an IPv6 one if the other is of IPv6.
    fn inet(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Command::Proxied { source: Address::Inet(source), destination: Address::Inet(destination) } = &self.command
        else {
            return None;
        };
        if source.is_ipv4() == destination.is_ipv4() {
            return Some((*source, *destination));
        }
        let [source, destination] = [source, destination].map(|addr| match addr.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
            IpAddr::V6(_) => *addr,
        });
        Some((source, destination))
    }
}

/// The name of a Unix socket, filled up with zeros. `None` if it is too long, or if this is another address.
fn unix_name(address: &Address) -> Option<[u8; UNIX_NAME]> {
    let name = match address {
        Address::Unix(path) => path.as_ref().map_or(Vec::new(), |path| path.as_os_str().as_encoded_bytes().to_vec()),
        Address::UnixAbstract(name) => [&[0], &name[..]].concat(),
        Address::Inet(_) | Address::Other(_) => return None,
    };
    let mut filled = [0; UNIX_NAME];
    filled.get_mut(..name.len())?.copy_from_slice(&name);
    Some(filled)
}

fn push(all: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("a field of the PROXY protocol has at most 65,535 bytes");
    all.push(kind);
    all.extend(len.to_be_bytes());
    all.extend(value);
}
