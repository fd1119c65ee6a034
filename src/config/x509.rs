//! What a certificate says about itself: for log lines and for warnings, never for trust.

use std::fmt::Write;
use std::path::PathBuf;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{ASN1Time, FromDer, ParsedExtension, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::{ConfigWarning, WarningKind};
use crate::escape::is_unprintable;

/// The subject of a certificate in the manner of RFC 4514 (`CN=example.com,O=Example`), for a log line.
///
/// Everything in it comes from whoever made the certificate: what could break a line or pass for a separator is escaped.
/// `None` where there is no subject, which is usual for certificates that name a server elsewhere, and for bytes that are
/// no certificate.
pub fn subject(cert: &CertificateDer<'_>) -> Option<String> {
    let parsed = parse(cert)?;
    // RFC 4514, section 2.1: "starting with the last element of the sequence and moving backwards toward the first".
    let mut rdns: Vec<String> = parsed.subject().iter().map(|rdn| joined(rdn.iter().map(attribute), "+")).collect();
    rdns.reverse();
    Some(joined(rdns.into_iter(), ",")).filter(|subject| !subject.is_empty())
}

fn joined(parts: impl Iterator<Item = String>, separator: &str) -> String {
    parts.collect::<Vec<_>>().join(separator)
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let name = NAMES.iter().find(|(known, _)| *known == oid).map_or(oid.as_str(), |(_, name)| name);
    match attribute.as_str() {
        Ok(value) => format!("{name}={}", escaped(value)),
        Err(_) => format!("{name}=#{}", hex(attribute.as_slice())),
    }
}

/// The short names of RFC 4514, section 3, and the one of e-mail addresses, which everybody else uses too.
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
pub(super) fn time_of_list(list: &CertificateRevocationListDer<'_>) -> i64 {
    CertificateRevocationList::from_der(list.as_ref()).map_or(0, |(_, list)| list.last_update().timestamp())
}

/// Why these bytes are not a certificate; `None` if they are one.
pub(super) fn unreadable(cert: &CertificateDer<'_>) -> Option<String> {
    match X509Certificate::from_der(cert) {
        Ok(([], _)) => None,
        Ok((rest, _)) => Some(format!("{} bytes follow its end", rest.len())),
        Err(_) if cert.trim_ascii_start().starts_with(b"-----BEGIN") => Some("it is PEM, not DER".into()),
        Err(_) => Some("it is not the DER of a certificate".into()),
    }
}

fn parse<'a>(cert: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(cert).ok().map(|(_, parsed)| parsed)
}

/// Whether the certificate is marked as that of a CA, and could otherwise be that of a server at this time.
///
/// This is what is left to check of a root certificate that a server presents as its own, see
/// [`verify`](super::verify).
pub(super) fn is_ca_fit_for_server(cert: &CertificateDer<'_>, now: i64) -> bool {
    let Some(parsed) = parse(cert) else { return false };
    let validity = parsed.validity();
    let usable = match parsed.extended_key_usage() {
        Ok(Some(usage)) => usage.value.any || usage.value.server_auth,
        Ok(None) => true,
        Err(_) => false,
    };
    parsed.is_ca() && usable && validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
}

const DAY: i64 = 24 * 60 * 60;
const SOON: i64 = 7 * DAY;

/// What is odd about a chain of our own. What cannot be parsed here gives no warning: rustls has the last word.
pub(super) fn warnings(file: Option<PathBuf>, chain: &[CertificateDer<'_>], server: bool) -> Vec<ConfigWarning> {
    let parsed: Vec<_> = chain.iter().filter_map(|cert| Some((cert, parse(cert)?))).collect();
    let mut found: Vec<(WarningKind, String)> = parsed.iter().filter_map(|(cert, p)| out_of_date(cert, p)).collect();
    if let Some((cert, leaf)) = parsed.first() {
        found.extend(odd_leaf(&named(cert), leaf, server));
    }
    found.extend(parsed.windows(2).filter_map(|pair| break_between(pair[0].1.issuer(), &pair[1])));
    found.into_iter().map(|(kind, detail)| ConfigWarning { file: file.clone(), kind, detail }).collect()
}

fn out_of_date(cert: &CertificateDer<'_>, parsed: &X509Certificate<'_>) -> Option<(WarningKind, String)> {
    let (from, to, now) = (parsed.validity().not_before, parsed.validity().not_after, ASN1Time::now());
    let left = to.timestamp() - now.timestamp();
    // A certificate that lives a few days only is not a matter for a warning until a third of its life is left.
    let soon = SOON.min((to.timestamp() - from.timestamp()) / 3);
    let name = named(cert);
    if now < from {
        Some((WarningKind::NotYetValid, format!("{name} is not valid before {from}")))
    } else if left < 0 {
        Some((WarningKind::Expired, format!("{name} expired on {to}")))
    } else if left < soon {
        Some((WarningKind::ExpiresSoon, format!("{name} expires on {to}")))
    } else {
        None
    }
}

fn odd_leaf(name: &str, leaf: &X509Certificate<'_>, server: bool) -> Vec<(WarningKind, String)> {
    let has_names = leaf
        .extensions()
        .iter()
        .any(|extension| matches!(extension.parsed_extension(), ParsedExtension::SubjectAlternativeName(_)));
    let mut found = Vec::new();
    if server && !has_names {
        let why = "has no subject alternative name: no client will find it valid for a name";
        found.push((WarningKind::NoNames, format!("{name} {why}")));
    }
    if leaf.is_ca() {
        let why = "is marked as that of a CA, which many peers refuse from a server or a client";
        found.push((WarningKind::MarkedAsCa, format!("{name} {why}")));
    }
    found
}

fn break_between(
    issuer: &X509Name<'_>,
    next: &(&CertificateDer<'_>, X509Certificate<'_>),
) -> Option<(WarningKind, String)> {
    let why = "is not the issuer of the one before it in the chain";
    (issuer.as_raw() != next.1.subject().as_raw())
        .then(|| (WarningKind::ChainOrder, format!("{} {why}", named(next.0))))
}

fn named(cert: &CertificateDer<'_>) -> String {
    match subject(cert) {
        Some(subject) => format!("the certificate of {subject}"),
        None => "the certificate".into(),
    }
}
