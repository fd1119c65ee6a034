//! Subject alternative names (RFC 5280, section 4.2.1.6).

use std::fmt;
use std::net::IpAddr;

use der::asn1::AnyRef;
use der::{Tag, Tagged};

use super::{Certificate, NAMES, elements, first, inside};
use crate::escape::escaped;

/// One subject alternative name of a certificate (RFC 5280, section 4.2.1.6).
///
/// The text form is the one of OpenSSL's configuration, such as `DNS:example.com`, `IP:2001:db8::1` or
/// `URI:spiffe://example.com/billing`. The creator of the certificate chose the names, so the text form escapes them
/// and is safe to print. To compare names, use the fields, not the text.
#[doc(alias = "subjectAltName")]
#[doc(alias = "GeneralName")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlternativeName {
    /// A DNS name, as the certificate contains it: in upper or lower case, and possibly with a wildcard
    /// (`*.example.com`).
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
    /// A URI, for example a SPIFFE id: `spiffe://example.com/billing`.
    Uri(String),
    /// A mail address of ASCII characters.
    Email(String),
    /// A name of another kind. This crate does not parse its content.
    Other {
        /// The number of the kind in RFC 5280: 0 otherName, 3 x400Address, 4 directoryName, 5 ediPartyName, 8
        /// registeredID.
        kind: u8,
        /// The content of the name, as DER.
        content: Vec<u8>,
    },
    /// A name that violates RFC 5280: an IP address that has neither 4 nor 16 bytes, or a name with an invisible
    /// character, a space, or a byte that is not ASCII. Ignore such a name.
    Unreadable {
        /// The number of the kind in RFC 5280: 1 email, 2 DNS, 6 URI, 7 IP, or a number that RFC 5280 does not define.
        kind: u8,
        /// The content of the name.
        content: Vec<u8>,
    },
}

impl AlternativeName {
    fn of(name: AnyRef<'_>) -> Option<Self> {
        let Tag::ContextSpecific { number, constructed } = name.tag() else { return None };
        let (kind, content) = (u8::try_from(number.value()).ok()?, name.value());
        let read = match (kind, constructed) {
            (EMAIL, false) => word(content).map(Self::Email),
            (DNS, false) => word(content).map(Self::Dns),
            (URI, false) => word(content).map(Self::Uri),
            (IP, false) => address(content).map(Self::Ip),
            (0 | 3 | 4 | 5, true) | (8, false) => Some(Self::Other { kind, content: content.to_vec() }),
            _ => None,
        };
        Some(read.unwrap_or_else(|| Self::Unreadable { kind, content: content.to_vec() }))
    }
}

impl fmt::Display for AlternativeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "DNS:{}", escaped(name.as_bytes())),
            Self::Ip(address) => write!(f, "IP:{address}"),
            Self::Uri(uri) => write!(f, "URI:{}", escaped(uri.as_bytes())),
            Self::Email(address) => write!(f, "email:{}", escaped(address.as_bytes())),
            Self::Other { kind, content } => write!(f, "{}:[{} bytes]", kind_name(*kind), content.len()),
            Self::Unreadable { kind, content } => {
                write!(f, "unreadable {}:[{} bytes]", kind_name(*kind), content.len())
            }
        }
    }
}

const EMAIL: u8 = 1;
const DNS: u8 = 2;
const URI: u8 = 6;
const IP: u8 = 7;

fn kind_name(kind: u8) -> &'static str {
    match kind {
        0 => "otherName",
        EMAIL => "email",
        DNS => "DNS",
        3 => "x400Address",
        4 => "dirName",
        5 => "ediPartyName",
        URI => "URI",
        IP => "IP",
        8 => "RID",
        _ => "name of an unknown kind",
    }
}

/// An IA5String without spaces and control characters. This matters because a NUL byte once made
/// `good.example\0.evil.example` pass for `good.example`.
fn word(content: &[u8]) -> Option<String> {
    let is_word = !content.is_empty() && content.iter().all(u8::is_ascii_graphic);
    is_word.then(|| String::from_utf8_lossy(content).into_owned())
}

fn address(content: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from)).ok()
}

/// The largest number of names that are parsed. Certificates of large services have about a hundred.
pub(crate) const MAX_NAMES: usize = 1024;

/// The certificate has more names than [`MAX_NAMES`].
#[derive(Debug)]
pub(crate) struct TooMany;

impl Certificate<'_> {
    /// The certificate's subject alternative names, in order; `None` if the extension cannot be parsed.
    pub(crate) fn alternative_names(&self) -> Option<Result<Vec<AlternativeName>, TooMany>> {
        let Some(content) = self.extension(NAMES) else { return Some(Ok(Vec::new())) };
        let (list, rest) = first(content)?;
        let names = elements(inside(list, Tag::Sequence).filter(|_| rest.is_empty())?)?;
        if names.len() > MAX_NAMES {
            return Some(Err(TooMany));
        }
        names.into_iter().map(AlternativeName::of).collect::<Option<Vec<_>>>().map(Ok)
    }
}
