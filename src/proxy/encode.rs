//! Headers to bytes.

use std::net::{IpAddr, SocketAddr};

use super::crc32c::crc32c;
use super::tlv::{self, ProxyTls};
use super::{Command, ProxyHeader, V1_SIGNATURE, V2_FIXED, V2_SIGNATURE};
use crate::address::Address;

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

    /// The header in version 1. It contains the addresses only: version 1 has no fields, and cannot express that the
    /// connection is the proxy's own.
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

    /// The header in version 2, with a checksum.
    pub fn encode_v2(&self) -> Vec<u8> {
        let mut all = V2_SIGNATURE.to_vec();
        all.push(if self.is_local() { 0x20 } else { 0x21 });
        let inet = self.inet();
        match inet {
            Some((source, _)) => all.push(if source.is_ipv4() { 0x11 } else { 0x21 }),
            None => all.push(0x00),
        }
        all.extend([0, 0]);
        if let Some((source, destination)) = inet {
            for ip in [source.ip(), destination.ip()] {
                match ip {
                    IpAddr::V4(ip) => all.extend(ip.octets()),
                    IpAddr::V6(ip) => all.extend(ip.octets()),
                }
            }
            all.extend(source.port().to_be_bytes());
            all.extend(destination.port().to_be_bytes());
        }
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

fn push(all: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("a field of the PROXY protocol has at most 65,535 bytes");
    all.push(kind);
    all.extend(len.to_be_bytes());
    all.extend(value);
}
