//! Bytes to headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::crc32c::crc32c;
use super::tlv::{self, Tlvs};
use super::{Command, ProxyHeader, ProxyHeaderError, V1_SIGNATURE, V2_FIXED, V2_SIGNATURE};
use crate::address::Address;

/// The result of [`ProxyHeader::decode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// The connection does not begin with a header.
    NotAHeader,
    /// These may be the first bytes of a header. Decode again when there are more.
    Partial,
    /// The connection begins with a header.
    Complete {
        /// The header.
        header: ProxyHeader,
        /// The length of the header in bytes. The bytes after it belong to the application.
        len: usize,
    },
}

impl ProxyHeader {
    /// Decodes the header at the start of a connection, of version 1 or 2, from all bytes that have been received so
    /// far.
    ///
    /// # Errors
    /// [`ProxyHeaderError`]: the connection begins as a header does, but it is malformed, its checksum is wrong, or it
    /// is longer than [`MAX_V1_LEN`](Self::MAX_V1_LEN) or [`MAX_V2_LEN`](Self::MAX_V2_LEN). End the connection then, as
    /// the specification demands.
    pub fn decode(received: &[u8]) -> Result<Decoded, ProxyHeaderError> {
        let begins = |signature: &[u8]| {
            let len = received.len().min(signature.len());
            received[..len] == signature[..len]
        };
        if begins(V2_SIGNATURE) {
            decode_v2(received)
        } else if begins(V1_SIGNATURE) {
            decode_v1(received)
        } else {
            Ok(Decoded::NotAHeader)
        }
    }
}

fn decode_v1(received: &[u8]) -> Result<Decoded, ProxyHeaderError> {
    let line = &received[..received.len().min(ProxyHeader::MAX_V1_LEN)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        if line.len() < ProxyHeader::MAX_V1_LEN {
            return Ok(Decoded::Partial);
        }
        return Err(ProxyHeaderError::new(line.len(), b"", "CR LF after at most 105 bytes"));
    };
    let Some(text) = line[..end].strip_suffix(b"\r") else {
        return Err(ProxyHeaderError::new(end, b"\n", "CR before LF"));
    };
    let mut fields = Fields { text, at: V1_SIGNATURE.len() };
    let command = match fields.next("TCP4, TCP6 or UNKNOWN")? {
        // The specification allows any text after UNKNOWN.
        (_, b"UNKNOWN") => Command::Unknown,
        (_, b"TCP4") => fields.addresses::<Ipv4Addr>("an IPv4 address")?,
        (_, b"TCP6") => fields.addresses::<Ipv6Addr>("an IPv6 address")?,
        (at, other) => return Err(ProxyHeaderError::new(at, other, "TCP4, TCP6 or UNKNOWN")),
    };
    Ok(Decoded::Complete { header: ProxyHeader { command, tlvs: Vec::new() }, len: end + 1 })
}

/// The fields of version 1, each separated from the next by one space.
struct Fields<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The next field and its position.
    fn next(&mut self, expected: &'static str) -> Result<(usize, &'a [u8]), ProxyHeaderError> {
        let Some(rest) = self.text.get(self.at..) else {
            return Err(ProxyHeaderError::new(self.text.len(), b"", expected));
        };
        let at = self.at;
        let field = rest.split(|byte| *byte == b' ').next().unwrap_or(rest);
        self.at += field.len() + 1;
        Ok((at, field))
    }

    fn parse<T: FromStr>(&mut self, expected: &'static str) -> Result<T, ProxyHeaderError> {
        let (at, field) = self.next(expected)?;
        // A number may not have a sign, which the standard library allows.
        let text = std::str::from_utf8(field).ok().filter(|text| !text.starts_with('+'));
        text.and_then(|text| text.parse().ok()).ok_or_else(|| ProxyHeaderError::new(at, field, expected))
    }

    fn addresses<T: FromStr + Into<IpAddr>>(&mut self, expected: &'static str) -> Result<Command, ProxyHeaderError> {
        let [source, destination] = [self.parse::<T>(expected)?.into(), self.parse::<T>(expected)?.into()];
        let port = "a port from 0 to 65535";
        let [source_port, destination_port] = [self.parse(port)?, self.parse(port)?];
        if let Some(rest) = self.text.get(self.at..) {
            return Err(ProxyHeaderError::new(self.at - 1, rest, "CR LF after the second port"));
        }
        Ok(Command::Proxied {
            source: SocketAddr::new(source, source_port).into(),
            destination: SocketAddr::new(destination, destination_port).into(),
        })
    }
}

fn decode_v2(received: &[u8]) -> Result<Decoded, ProxyHeaderError> {
    // Refuse a wrong byte at once: the rest of the header may never arrive.
    if let Some(byte) = received.get(12).filter(|byte| !matches!(byte, 0x20 | 0x21)) {
        return Err(ProxyHeaderError::number(12, format_args!("0x{byte:02x}"), "0x20 (LOCAL) or 0x21 (PROXY)"));
    }
    let Some(fixed) = received.first_chunk::<V2_FIXED>() else { return Ok(Decoded::Partial) };
    let is_local = fixed[12] == 0x20;
    let len = V2_FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len > ProxyHeader::MAX_V2_LEN {
        return Err(ProxyHeaderError::number(14, len - V2_FIXED, "a length of at most 16368"));
    }
    // The specification demands that we ignore the addresses and the fields of a proxy's own connection.
    let family = if is_local { Family::Unspecified } else { Family::of(fixed[13])? };
    let addresses = family.len();
    if !is_local && len < V2_FIXED + addresses {
        return Err(ProxyHeaderError::number(14, len - V2_FIXED, "a length that includes the addresses"));
    }
    let Some(whole) = received.get(..len) else { return Ok(Decoded::Partial) };
    if is_local {
        return Ok(Decoded::Complete { header: ProxyHeader::local(), len });
    }
    let (before, tlvs) = whole.split_at(V2_FIXED + addresses);
    tlv::check(tlvs, before.len())?;
    check_crc(whole, before.len())?;
    let header = ProxyHeader { command: family.command(&before[V2_FIXED..]), tlvs: tlvs.to_vec() };
    Ok(Decoded::Complete { header, len })
}

/// Checks the checksum, if there is one. It covers the whole header, with zeros in place of the checksum.
fn check_crc(whole: &[u8], tlvs_at: usize) -> Result<(), ProxyHeaderError> {
    let Some(crc) = Tlvs::new(&whole[tlvs_at..]).find(|tlv| tlv.kind == tlv::CRC32C) else { return Ok(()) };
    let at = tlvs_at + crc.offset;
    let found = crc.value.try_into().map(u32::from_be_bytes).unwrap_or_default();
    let masked = whole.iter().enumerate().map(|(i, byte)| if (at..at + 4).contains(&i) { 0 } else { *byte });
    if crc32c(masked) == found {
        return Ok(());
    }
    Err(ProxyHeaderError::number(at, format_args!("0x{found:08x}"), "the CRC-32C of this header"))
}

/// The kind of the addresses. Stream and datagram sockets have the same ones.
#[derive(Clone, Copy)]
enum Family {
    Unspecified,
    V4,
    V6,
    Unix,
}

impl Family {
    fn of(byte: u8) -> Result<Self, ProxyHeaderError> {
        match byte {
            0x00 => Ok(Self::Unspecified),
            0x11 | 0x12 => Ok(Self::V4),
            0x21 | 0x22 => Ok(Self::V6),
            0x31 | 0x32 => Ok(Self::Unix),
            _ => Err(ProxyHeaderError::number(
                13,
                format_args!("0x{byte:02x}"),
                "an address family: 0x00, 0x11, 0x12, 0x21, 0x22, 0x31 or 0x32",
            )),
        }
    }

    /// The length of both addresses in bytes.
    fn len(self) -> usize {
        match self {
            Self::Unspecified => 0,
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Unix => 216,
        }
    }

    fn command(self, addresses: &[u8]) -> Command {
        let [source, destination] = match self {
            Self::Unspecified => return Command::Unknown,
            Self::V4 => inet::<4>(addresses),
            Self::V6 => inet::<16>(addresses),
            Self::Unix => [unix(&addresses[..108]), unix(&addresses[108..])],
        };
        Command::Proxied { source, destination }
    }
}

/// Both addresses: two IP addresses, then two ports.
fn inet<const N: usize>(addresses: &[u8]) -> [Address; 2]
where
    IpAddr: From<[u8; N]>,
{
    [0, 1].map(|i| {
        let ip: [u8; N] = addresses[i * N..][..N].try_into().expect("the length was checked");
        let port = &addresses[2 * N + 2 * i..];
        SocketAddr::new(ip.into(), u16::from_be_bytes([port[0], port[1]])).into()
    })
}

/// A name, filled up with zeros. The name of an abstract socket follows a zero.
fn unix(bytes: &[u8]) -> Address {
    let until_zero = |bytes: &[u8]| bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    match bytes {
        [0, 0, ..] => Address::Unix(None),
        [0, name @ ..] => Address::UnixAbstract(until_zero(name)),
        path => Address::Unix(Some(path_of(until_zero(path)))),
    }
}

#[cfg(unix)]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes).into()
}

/// The paths of other systems are Unicode.
#[cfg(not(unix))]
fn path_of(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}
