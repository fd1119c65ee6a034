//! The contents of a certificate, for log lines and warnings only: nothing here decides about trust.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use der::asn1::AnyRef;
use der::{Tag, Tagged};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};

use super::{ConfigWarning, WarningKind};
use crate::certificate::{self, Certificate, RevocationList, elements, inside};
use crate::escape::is_unprintable;

/// The subject of a certificate in the format of RFC 4514 (`CN=example.com,O=Example`), for a log line.
///
/// The maker of the certificate chose this text, so line breaks and separators in it are escaped. `None` if the bytes
/// are not a certificate, or if it has no subject. An empty subject is common when the server's names are in the
/// subject alternative names.
pub fn subject(cert: &CertificateDer<'_>) -> Option<String> {
    let parsed = Certificate::from_der(cert)?;
    // RFC 4514, section 2.1: "starting with the last element of the sequence and moving backwards toward the first".
    let rdns = elements(parsed.subject)?.into_iter().rev().map(relative_name).collect::<Option<Vec<_>>>()?;
    Some(rdns.join(",")).filter(|subject| !subject.is_empty())
}

/// The times from which and until which a certificate is valid.
pub(super) fn validity(cert: &CertificateDer<'_>) -> Option<(SystemTime, SystemTime)> {
    let (from, to) = Certificate::from_der(cert)?.validity()?;
    let at = |time| SystemTime::UNIX_EPOCH + Duration::from_secs(certificate::seconds(time));
    Some((at(from), at(to)))
}

/// The last common name in the subject of a certificate, without escapes. `None` if there is none.
#[cfg(all(feature = "proxy", feature = "tokio"))]
pub(crate) fn common_name(cert: &CertificateDer<'_>) -> Option<String> {
    let parsed = Certificate::from_der(cert)?;
    let attributes = elements(parsed.subject)?.into_iter().filter_map(|rdn| elements(inside(rdn, Tag::Set)?)).flatten();
    let mut names = attributes.filter_map(|attribute| {
        let [id, value] = elements(inside(attribute, Tag::Sequence)?)?[..] else { return None };
        let is_common_name = certificate::id_text(inside(id, Tag::ObjectIdentifier)?) == NAMES[0].0;
        text(value).filter(|_| is_common_name).map(str::to_owned)
    });
    names.next_back()
}

fn relative_name(rdn: AnyRef<'_>) -> Option<String> {
    let attributes = elements(inside(rdn, Tag::Set)?)?.into_iter().map(attribute).collect::<Option<Vec<_>>>()?;
    Some(attributes.join("+"))
}

fn attribute(attribute: AnyRef<'_>) -> Option<String> {
    let [id, value] = elements(inside(attribute, Tag::Sequence)?)?[..] else { return None };
    let id = certificate::id_text(inside(id, Tag::ObjectIdentifier)?);
    let name = NAMES.iter().find(|(known, _)| *known == id).map_or(id.as_str(), |(_, name)| name);
    Some(match text(value) {
        Some(value) => format!("{name}={}", escaped(value)),
        None => format!("{name}=#{}", hex(value.value())),
    })
}

/// The value, if it is a string in ASCII or UTF-8.
fn text(value: AnyRef<'_>) -> Option<&str> {
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString | Tag::VisibleString => {
            std::str::from_utf8(value.value()).ok()
        }
        _ => None,
    }
}

/// The short names of RFC 4514, section 3, and the usual short name of e-mail addresses.
const NAMES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (n, c) in value.chars().enumerate() {
        match c {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => out.extend(['\\', c]),
            '#' if n == 0 => out.push_str("\\#"),
            ' ' if n == 0 || n == last => out.push_str("\\ "),
            c if is_unprintable(c) => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape_byte(&mut out, byte)),
            c => out.push(c),
        }
    }
    out
}

fn escape_byte(out: &mut String, byte: u8) {
    write!(out, "\\{byte:02X}").expect("writing to a String cannot fail");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time at which a revocation list was issued, in seconds since 1970; 0 if the list has no such time.
pub(super) fn time_of_list(list: &CertificateRevocationListDer<'_>) -> u64 {
    RevocationList::from_der(list).map_or(0, |list| list.this_update)
}

/// Why these bytes are not a certificate; `None` if they are one.
pub(super) fn unreadable(cert: &CertificateDer<'_>) -> Option<String> {
    match Certificate::read(cert) {
        Some((_, 0)) => None,
        Some((_, rest)) => Some(format!("{rest} bytes follow its end")),
        None if cert.trim_ascii_start().starts_with(b"-----BEGIN") => Some("it is PEM, not DER".into()),
        None => Some("it is not the DER of a certificate".into()),
    }
}

/// Whether the certificate is marked as a CA certificate, and apart from that could belong to a server at this time (in
/// seconds since 1970).
///
/// webpki does not check a root certificate that a server presents as its own, so we check this much ourselves: see
/// [`verify`](super::verify).
pub(super) fn is_ca_fit_for_server(cert: &CertificateDer<'_>, now: u64) -> bool {
    let Some(parsed) = Certificate::from_der(cert) else { return false };
    let Some((from, to)) = parsed.validity() else { return false };
    parsed.is_ca() && parsed.may_serve() && certificate::seconds(from) <= now && now <= certificate::seconds(to)
}

const DAY: u64 = 24 * 60 * 60;
const SOON: u64 = 7 * DAY;

/// Warnings about our own chain. A certificate that cannot be parsed here gives no warning, because rustls checks it
/// anyway.
pub(super) fn warnings(file: Option<PathBuf>, chain: &[CertificateDer<'_>], server: bool) -> Vec<ConfigWarning> {
    let parsed: Vec<_> = chain.iter().filter_map(|cert| Some((cert, Certificate::from_der(cert)?))).collect();
    let mut found: Vec<(WarningKind, String)> = parsed.iter().filter_map(|(cert, p)| out_of_date(cert, p)).collect();
    if let Some((cert, leaf)) = parsed.first() {
        found.extend(odd_leaf(&named(cert), leaf, server));
    }
    found.extend(parsed.windows(2).filter_map(|pair| break_between(pair[0].1.issuer, &pair[1])));
    found.into_iter().map(|(kind, detail)| ConfigWarning { file: file.clone(), kind, detail }).collect()
}

fn out_of_date(cert: &CertificateDer<'_>, parsed: &Certificate<'_>) -> Option<(WarningKind, String)> {
    let (from, to) = parsed.validity()?;
    let (begin, end, now) = (certificate::seconds(from), certificate::seconds(to), UnixTime::now().as_secs());
    // A certificate with a lifetime of a few days gets a warning only when less than a third of its lifetime is left.
    let soon = SOON.min(end.saturating_sub(begin) / 3);
    let name = named(cert);
    if now < begin {
        Some((WarningKind::NotYetValid, format!("{name} is not valid before {from}")))
    } else if end < now {
        Some((WarningKind::Expired, format!("{name} expired on {to}")))
    } else if end - now < soon {
        Some((WarningKind::ExpiresSoon, format!("{name} expires on {to}")))
    } else {
        None
    }
}

fn odd_leaf(name: &str, leaf: &Certificate<'_>, server: bool) -> Vec<(WarningKind, String)> {
    let mut found = Vec::new();
    if server && leaf.extension(certificate::NAMES).is_none() {
        let why = "has no subject alternative name, so clients will not accept it for any name";
        found.push((WarningKind::NoNames, format!("{name} {why}")));
    }
    if leaf.is_ca() {
        let why = "is marked as that of a CA, which many peers refuse from a server or a client";
        found.push((WarningKind::MarkedAsCa, format!("{name} {why}")));
    }
    found
}

fn break_between(issuer: &[u8], next: &(&CertificateDer<'_>, Certificate<'_>)) -> Option<(WarningKind, String)> {
    let why = "is not the issuer of the one before it in the chain";
    (issuer != next.1.subject).then(|| (WarningKind::ChainOrder, format!("{} {why}", named(next.0))))
}

fn named(cert: &CertificateDer<'_>) -> String {
    match subject(cert) {
        Some(subject) => format!("the certificate of {subject}"),
        None => "the certificate".into(),
    }
}
