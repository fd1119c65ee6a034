//! Names of good certificates and of hostile ones.

use std::net::IpAddr;

use der::oid::ObjectIdentifier;
use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};

use super::{AlternativeName, Certificate, Digest, HashOf, MAX_NAMES};

fn names(der: &[u8]) -> Option<Vec<AlternativeName>> {
    Certificate::from_der(der)?.alternative_names()?.ok()
}

fn signed(params: CertificateParams) -> Vec<u8> {
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// A certificate with these bytes as its subject alternative names.
fn with_extension(content: Vec<u8>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
    signed(params)
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let length = match len {
        0..0x80 => vec![len as u8],
        0x80..0x100 => vec![0x81, len as u8],
        _ => vec![0x82, (len >> 8) as u8, len as u8],
    };
    [&[tag], &length[..], content].concat()
}

fn texts(names: &[AlternativeName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// rule: secure-14
#[test]
fn names_of_every_kind_are_read_in_order() {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        SanType::DnsName("*.Example.com".try_into().unwrap()),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8::1".parse().unwrap()),
        SanType::URI("spiffe://example.com/billing".try_into().unwrap()),
        SanType::Rfc822Name("ops@example.com".try_into().unwrap()),
        SanType::OtherName((vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3], "ops@corp".into())),
    ];
    let names = names(&signed(params)).unwrap();
    let [dns, v4, v6, uri, email, other] = &names[..] else { panic!("{names:?}") };
    assert_eq!(dns, &AlternativeName::Dns("*.Example.com".into()));
    assert_eq!(v4, &AlternativeName::Ip("192.0.2.7".parse::<IpAddr>().unwrap()));
    assert_eq!(v6, &AlternativeName::Ip("2001:db8::1".parse::<IpAddr>().unwrap()));
    assert_eq!(uri, &AlternativeName::Uri("spiffe://example.com/billing".into()));
    assert_eq!(email, &AlternativeName::Email("ops@example.com".into()));
    assert!(
        matches!(other, AlternativeName::Other { kind: 0, content } if content.ends_with(b"ops@corp")),
        "{other:?}"
    );
    let expected = ["DNS:*.Example.com", "IP:192.0.2.7", "IP:2001:db8::1", "URI:spiffe://example.com/billing"];
    assert_eq!(&texts(&names)[..4], expected);
    assert_eq!(texts(&names)[4], "email:ops@example.com");
    assert_eq!(self::names(&signed(CertificateParams::default())), Some(Vec::new()));
}

/// rule: secure-14
#[test]
fn a_hostile_name_is_marked_and_the_names_beside_it_stay() {
    let (dns, email, uri, ip) = (0x82, 0x81, 0x86, 0x87);
    let hostile: [(u8, &[u8], &str); 10] = [
        (dns, b"good.example\0.evil.example", "unreadable DNS:[26 bytes]"),
        (dns, b"good.example\r\nDNS:evil", "unreadable DNS:[22 bytes]"),
        (dns, "b\u{fc}cher.example".as_bytes(), "unreadable DNS:[15 bytes]"),
        (dns, b"", "unreadable DNS:[0 bytes]"),
        (uri, b"spiffe://example.com/\x1b[2J", "unreadable URI:[25 bytes]"),
        (email, b"a b@example.com", "unreadable email:[15 bytes]"),
        (ip, &[1, 2, 3, 4, 5], "unreadable IP:[5 bytes]"),
        (ip, &[192, 0, 2, 0, 255, 255, 255, 0], "unreadable IP:[8 bytes]"),
        // 0xa2 marks a primitive type as constructed, and 0x89 is a kind of name that does not exist.
        (0xa2, b"", "unreadable DNS:[0 bytes]"),
        (0x89, b"x", "unreadable name of an unknown kind:[1 bytes]"),
    ];
    for (tag, content, text) in hostile {
        let list = [element(dns, b"before.example"), element(tag, content), element(dns, b"after.example")].concat();
        let names = names(&with_extension(element(0x30, &list))).unwrap();
        assert_eq!(texts(&names), ["DNS:before.example", text, "DNS:after.example"]);
        assert!(matches!(&names[1], AlternativeName::Unreadable { content: kept, .. } if kept == content));
    }
    // A quote in a name must not end a string in a log.
    let quoted = element(0x30, &element(dns, br#"a",DNS:"b"#));
    assert_eq!(texts(&names(&with_extension(quoted)).unwrap()), [r#"DNS:a\",DNS:\"b"#]);
}

/// rule: secure-14
#[test]
fn a_list_that_cannot_be_read_or_is_too_long_is_an_error() {
    let name = element(0x82, b"a.example");
    let broken: [Vec<u8>; 6] = [
        Vec::new(),
        name.clone(),
        element(0x31, &name),
        element(0x30, &name[..4]),
        [element(0x30, &name), vec![0]].concat(),
        // This element is no GeneralName.
        element(0x30, &element(0x0c, b"a.example")),
    ];
    for content in broken {
        assert_eq!(names(&with_extension(content.clone())), None, "{content:?}");
    }
    let of = |count| with_extension(element(0x30, &name.repeat(count)));
    assert_eq!(names(&of(MAX_NAMES)).unwrap().len(), MAX_NAMES);
    let many = of(MAX_NAMES + 1);
    assert!(matches!(Certificate::from_der(&many).unwrap().alternative_names(), Some(Err(_))));
}

/// rule: secure-14
#[test]
fn no_change_of_one_byte_causes_a_panic() {
    let mut params = CertificateParams::new(vec!["a.example".into(), "192.0.2.7".into()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://a".try_into().unwrap()));
    let good = signed(params);
    for at in 0..good.len() {
        for change in [0x01, 0x20, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            let _ = names(&bytes).map(|names| texts(&names));
            let _ = Certificate::from_der(&bytes).map(|parsed| parsed.hash());
        }
        assert_eq!(names(&good[..at]), None);
    }
}

/// The algorithms with which this openssl does not sign. tests/bindings/ covers the others.
///
/// rule: secure-15
#[test]
fn the_hash_function_follows_the_signature_algorithm() {
    let id = |id: &str| element(0x06, ObjectIdentifier::new_unwrap(id).as_bytes());
    let (sha1, sha256, sha512) = ("1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.3");
    let pss = |message: Option<&str>, mask: Option<&str>| {
        let algorithm = |hash: &str| element(0x30, &id(hash));
        let mgf1 = |hash: &str| element(0x30, &[id("1.2.840.113549.1.1.8"), algorithm(hash)].concat());
        let fields = [
            message.map_or(Vec::new(), |hash| element(0xa0, &algorithm(hash))),
            mask.map_or(Vec::new(), |hash| element(0xa1, &mgf1(hash))),
        ];
        [id("1.2.840.113549.1.1.10"), element(0x30, &fields.concat())].concat()
    };
    let two = HashOf::Undefined("RSASSA-PSS with two hash functions".into());
    let cases = [
        (id("1.2.840.113549.1.1.4"), HashOf::One(Digest::Sha256)),
        (id("1.2.840.10045.4.1"), HashOf::One(Digest::Sha256)),
        (id("1.2.840.113549.1.1.14"), HashOf::Unknown("SHA-224")),
        (id("1.3.101.113"), HashOf::Undefined("Ed448".into())),
        (id("1.2.3.4"), HashOf::Undefined("1.2.3.4".into())),
        (id("1.2.840.113549.1.1.10"), HashOf::One(Digest::Sha256)),
        (pss(None, None), HashOf::One(Digest::Sha256)),
        (pss(Some(sha1), Some(sha1)), HashOf::One(Digest::Sha256)),
        (pss(Some(sha512), Some(sha512)), HashOf::One(Digest::Sha512)),
        (pss(Some(sha512), Some(sha256)), two.clone()),
        (pss(Some(sha256), None), two),
    ];
    let empty = element(0x30, &[]);
    let validity = [element(0x17, b"250101000000Z"), element(0x17, b"350101000000Z")].concat();
    for (algorithm, expected) in cases {
        let algorithm = element(0x30, &algorithm);
        let fields = [&element(0x02, &[1])[..], &algorithm, &empty, &element(0x30, &validity), &empty, &empty].concat();
        let certificate = [element(0x30, &fields), algorithm, element(0x03, &[0])].concat();
        let certificate = element(0x30, &certificate);
        assert_eq!(Certificate::from_der(&certificate).unwrap().hash().unwrap(), expected);
    }
}
