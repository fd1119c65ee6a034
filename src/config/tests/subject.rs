//! Subjects for log lines: readable, and harmless even if an attacker made the certificate.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::pki_types::CertificateDer;

use super::super::subject;
use crate::testing::pki::Pki;

fn with_subject(entries: &[(DnType, &str)]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in entries {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
}

#[test]
fn a_subject_reads_from_the_special_to_the_general() {
    let cert = with_subject(&[
        (DnType::CountryName, "NL"),
        (DnType::OrganizationName, "Knots"),
        (DnType::CommonName, "bowline.example"),
        (DnType::CustomDnType(vec![1, 2, 3, 4]), "own"),
    ]);
    assert_eq!(subject(&cert).unwrap(), "1.2.3.4=own,CN=bowline.example,O=Knots,C=NL");
    assert_eq!(subject(&Pki::new().client("alice").cert_der()).unwrap(), "CN=alice,O=bowline test PKI");
}

#[test]
fn a_subject_cannot_forge_a_log_line() {
    let cert = with_subject(&[(DnType::CommonName, " a,O=root\r\n\u{1b}[2J\u{202e}é\\ ")]);
    assert_eq!(subject(&cert).unwrap(), "CN=\\ a\\,O=root\\0D\\0A\\1B[2J\\E2\\80\\AEé\\\\\\ ");
}

#[test]
fn there_is_no_subject_in_garbage() {
    let cert = with_subject(&[(DnType::CommonName, "localhost")]);
    assert_eq!(subject(&with_subject(&[])), None);
    for end in 0..cert.len() {
        assert_eq!(subject(&CertificateDer::from(&cert[..end])), None);
    }
    for at in 0..cert.len() {
        let mut bytes = cert.to_vec();
        bytes[at] ^= 0xff;
        // Any result is fine, but it must not panic.
        let _ = subject(&CertificateDer::from(bytes));
    }
}
