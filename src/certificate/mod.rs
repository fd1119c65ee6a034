//! The fields of certificates and revocation lists (RFC 5280) that this crate looks at.
//!
//! The crate `der` reads the elements and refuses anything that is not DER. This file only knows the order of the
//! fields.

mod hash;
mod names;
#[cfg(test)]
mod tests;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, UtcTime};
use der::oid::ObjectIdentifier;
use der::{DateTime, Decode, Reader, SliceReader, Tag, TagNumber, Tagged};

pub(crate) use hash::{Digest, HashOf};
pub use names::AlternativeName;
pub(crate) use names::{MAX_NAMES, TooMany};

/// The outline of a certificate. Names and dates are parsed on demand.
pub(crate) struct Certificate<'a> {
    /// The serial number, which the issuer assigned.
    pub(crate) serial: &'a [u8],
    /// The name of the issuer. Two names are the same if their bytes are equal.
    pub(crate) issuer: &'a [u8],
    validity: &'a [u8],
    /// The name of the certificate's subject.
    pub(crate) subject: &'a [u8],
    /// The public key with its algorithm (SubjectPublicKeyInfo).
    pub(crate) key: &'a [u8],
    extensions: Extensions<'a>,
    /// The algorithm of the certificate's signature (AlgorithmIdentifier).
    algorithm: &'a [u8],
}

/// The id and the content of each extension. No id occurs twice.
type Extensions<'a> = Vec<(&'a [u8], &'a [u8])>;

/// Subject alternative names.
pub(crate) const NAMES: &[u8] = &[0x55, 0x1d, 17];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const ISSUING_DISTRIBUTION_POINT: &[u8] = &[0x55, 0x1d, 28];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 37, 0];
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];

impl<'a> Certificate<'a> {
    /// Parses the certificate at the start of these bytes. Also returns how many bytes follow it. `None` if it cannot
    /// be parsed.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let (certificate, rest) = first(bytes)?;
        let [signed, algorithm, _] = of_sequence(certificate)?[..] else { return None };
        let fields = of_sequence(signed)?;
        let fields = without(&fields, |tag| tag == context(0)).1;
        let [serial, _, issuer, validity, subject, key, optional @ ..] = fields else { return None };
        let extensions = match optional.iter().find(|field| field.tag() == context(3)) {
            Some(extensions) => read_extensions(*extensions)?,
            None => Vec::new(),
        };
        let of = |field: &AnyRef<'a>| inside(*field, Tag::Sequence);
        let read = Self {
            serial: inside(*serial, Tag::Integer)?,
            issuer: of(issuer)?,
            validity: of(validity)?,
            subject: of(subject)?,
            key: of(key)?,
            extensions,
            algorithm: of(&algorithm)?,
        };
        Some((read, rest.len()))
    }

    /// The certificate at the start of these bytes.
    pub(crate) fn from_der(bytes: &'a [u8]) -> Option<Self> {
        Self::read(bytes).map(|(certificate, _)| certificate)
    }

    /// The validity period.
    pub(crate) fn validity(&self) -> Option<(DateTime, DateTime)> {
        let [from, to] = elements(self.validity)?[..] else { return None };
        Some((time(from)?, time(to)?))
    }

    pub(crate) fn extension(&self, id: &[u8]) -> Option<&'a [u8]> {
        self.extensions.iter().find(|(of, _)| *of == id).map(|(_, content)| *content)
    }

    /// Whether the certificate is marked as a CA certificate.
    pub(crate) fn is_ca(&self) -> bool {
        let marked = |content| of_sequence(first(content)?.0)?.first()?.decode_as::<bool>().ok();
        self.extension(BASIC_CONSTRAINTS).and_then(marked).unwrap_or(false)
    }

    /// Whether the certificate's key may belong to a server. If the certificate lists purposes, one of them must be
    /// "server" or "any".
    pub(crate) fn may_serve(&self) -> bool {
        let Some(content) = self.extension(EXTENDED_KEY_USAGE) else { return true };
        let purposes = first(content).and_then(|(list, _)| of_sequence(list)).unwrap_or_default();
        purposes.iter().any(|purpose| [ANY_USAGE, SERVER_AUTH].contains(&purpose.value()))
    }

    /// Whether the certificate's key may sign revocation lists.
    pub(crate) fn may_sign_lists(&self) -> bool {
        const CRL_SIGN: usize = 6;
        let Some(content) = self.extension(KEY_USAGE) else { return true };
        first(content).and_then(|(bits, _)| bits.decode_as::<BitStringRef<'_>>().ok()?.get(CRL_SIGN)).unwrap_or(false)
    }
}

/// The outline of a revocation list.
pub(crate) struct RevocationList<'a> {
    /// The bytes that the issuer has signed.
    pub(crate) signed: &'a [u8],
    pub(crate) algorithm: &'a [u8],
    pub(crate) signature: &'a [u8],
    pub(crate) issuer: &'a [u8],
    /// In seconds since 1970, like all times in this file.
    pub(crate) this_update: u64,
    pub(crate) next_update: Option<u64>,
    /// The serial numbers of the certificates that are revoked.
    pub(crate) revoked: Vec<&'a [u8]>,
    extensions: Extensions<'a>,
}

impl<'a> RevocationList<'a> {
    pub(crate) fn from_der(bytes: &'a [u8]) -> Option<Self> {
        let content = inside(first(bytes)?.0, Tag::Sequence)?;
        let (signed, rest) = first(content)?;
        let [algorithm, signature] = elements(rest)?[..] else { return None };
        let fields = of_sequence(signed)?;
        let fields = without(&fields, |tag| tag == Tag::Integer).1;
        let [_, issuer, this_update, optional @ ..] = fields else { return None };
        let (next_update, optional) = without(optional, |tag| matches!(tag, Tag::UtcTime | Tag::GeneralizedTime));
        let (revoked, optional) = without(optional, |tag| tag == Tag::Sequence);
        let (extensions, _) = without(optional, |tag| tag == context(0));
        let serial = |entry: AnyRef<'a>| inside(*of_sequence(entry)?.first()?, Tag::Integer);
        Some(Self {
            signed: &content[..content.len() - rest.len()],
            algorithm: inside(algorithm, Tag::Sequence)?,
            signature: signature.decode_as::<BitStringRef<'_>>().ok()?.as_bytes()?,
            issuer: inside(*issuer, Tag::Sequence)?,
            this_update: seconds(time(*this_update)?),
            next_update: next_update.map(|at| time(at).map(seconds).ok_or(())).transpose().ok()?,
            revoked: revoked.map_or(Some(Vec::new()), |list| of_sequence(list)?.into_iter().map(serial).collect())?,
            extensions: extensions.map_or(Some(Vec::new()), read_extensions)?,
        })
    }

    /// Whether the list covers only some certificates of its issuer.
    pub(crate) fn is_partial(&self) -> bool {
        self.extensions.iter().any(|(id, _)| *id == ISSUING_DISTRIBUTION_POINT)
    }
}

pub(crate) fn seconds(time: DateTime) -> u64 {
    time.unix_duration().as_secs()
}

/// An object identifier with dots, as in `1.2.840.113549`. If it is longer than any identifier in use, its bytes are
/// printed instead.
pub(crate) fn id_text(id: &[u8]) -> String {
    let in_hex = || id.iter().map(|byte| format!("{byte:02x}")).collect();
    ObjectIdentifier::from_bytes(id).map_or_else(|_| in_hex(), |id| id.to_string())
}

/// The first element, and the bytes after it.
pub(crate) fn first(bytes: &[u8]) -> Option<(AnyRef<'_>, &[u8])> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let element = AnyRef::decode(&mut reader).ok()?;
    Some((element, bytes.get(usize::try_from(reader.position()).ok()?..)?))
}

/// All elements; `None` if one cannot be parsed.
pub(crate) fn elements(mut bytes: &[u8]) -> Option<Vec<AnyRef<'_>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (element, rest) = first(bytes)?;
        all.push(element);
        bytes = rest;
    }
    Some(all)
}

/// The content of an element, if it is of this type.
pub(crate) fn inside(element: AnyRef<'_>, tag: Tag) -> Option<&[u8]> {
    (element.tag() == tag).then(|| element.value())
}

fn of_sequence(element: AnyRef<'_>) -> Option<Vec<AnyRef<'_>>> {
    elements(inside(element, Tag::Sequence)?)
}

/// Splits off the optional field at the start, if it is there. Returns the field and the fields after it.
fn without<'s, 'a>(fields: &'s [AnyRef<'a>], is_due: impl Fn(Tag) -> bool) -> (Option<AnyRef<'a>>, &'s [AnyRef<'a>]) {
    match fields {
        [field, rest @ ..] if is_due(field.tag()) => (Some(*field), rest),
        _ => (None, fields),
    }
}

fn context(number: u32) -> Tag {
    Tag::ContextSpecific { constructed: true, number: TagNumber(number) }
}

fn read_extensions(field: AnyRef<'_>) -> Option<Extensions<'_>> {
    let mut all = Extensions::new();
    for extension in of_sequence(first(field.value())?.0)? {
        let fields = of_sequence(extension)?;
        let (Some(id), Some(content)) = (fields.first(), fields.last()) else { return None };
        let (id, content) = (inside(*id, Tag::ObjectIdentifier)?, inside(*content, Tag::OctetString)?);
        // RFC 5280, section 4.2: "MUST NOT include more than one instance of a particular extension".
        if all.iter().any(|(other, _)| *other == id) {
            return None;
        }
        all.push((id, content));
    }
    Some(all)
}

/// A UTCTime or a GeneralizedTime.
pub(crate) fn time(element: AnyRef<'_>) -> Option<DateTime> {
    match element.tag() {
        Tag::UtcTime => element.decode_as::<UtcTime>().ok().map(|time| time.to_date_time()),
        Tag::GeneralizedTime => element.decode_as::<GeneralizedTime>().ok().map(|time| time.to_date_time()),
        _ => None,
    }
}
