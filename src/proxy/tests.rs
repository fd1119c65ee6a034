use std::net::SocketAddr;

use proptest::prelude::*;

use super::{Decoded, ProxyHeader, ProxyTls};
use crate::address::Address;

/// A header of version 2 with these bytes after the signature.
fn v2(rest: &[u8]) -> Vec<u8> {
    [super::V2_SIGNATURE, rest].concat()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn complete(bytes: &[u8]) -> (ProxyHeader, usize) {
    match ProxyHeader::decode(bytes) {
        Ok(Decoded::Complete { header, len }) => (header, len),
        other => panic!("{other:?}"),
    }
}

fn addresses(header: &ProxyHeader) -> Option<(String, String)> {
    Some((header.source()?.to_string(), header.destination()?.to_string()))
}

/// The source and the destination as text.
type Texts = (&'static str, &'static str);

/// Headers and their two addresses.
fn good() -> Vec<(Vec<u8>, Option<Texts>)> {
    let unix = |path: &[u8]| [path, &vec![0; 108 - path.len()]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n".to_vec(), Some(("192.0.2.7:51000", "198.51.100.1:443"))),
        (b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n".to_vec(), Some(("[2001:db8::7]:65535", "[::1]:0"))),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN whatever a proxy adds\r\n".to_vec(), None),
        (
            v2(b"\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xc7\x38\x01\xbb"),
            Some(("192.0.2.7:51000", "198.51.100.1:443")),
        ),
        (
            v2(b"\x21\x12\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xc7\x38\x01\xbb"),
            Some(("192.0.2.7:51000", "198.51.100.1:443")),
        ),
        (v2(b"\x21\x00\0\0"), None),
        // LOCAL: what follows is ignored, whatever it is.
        (v2(b"\x20\x00\0\0"), None),
        (v2(b"\x20\xff\0\x03abc"), None),
        (
            v2(&[b"\x21\x31\0\xd8", unix(b"/run/a").as_slice(), unix(b"\0b").as_slice()].concat()),
            Some(("unix:/run/a", "unix:@b")),
        ),
    ]
}

#[test]
fn the_names_of_unix_sockets_are_passed_on_as_they_are() {
    let names = [
        Address::Unix(None),
        Address::Unix(Some("/run/a".into())),
        Address::Unix(Some("a".repeat(108).into())),
        Address::UnixAbstract(b"b\xff".to_vec()),
        #[cfg(unix)]
        Address::Unix(Some(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/run/\xff").into())),
    ];
    for (source, destination) in names.iter().flat_map(|source| names.iter().map(move |other| (source, other))) {
        let header = ProxyHeader::new(source.clone(), destination.clone());
        let (same, _) = complete(&header.encode_v2());
        assert_eq!((same.source(), same.destination()), (Some(source), Some(destination)));
        assert_eq!(complete(&header.encode_v1()).0.source(), None);
    }
    for other in [Address::Unix(Some("a".repeat(109).into())), addr("[::1]:1").into(), Address::Other("pipe".into())] {
        assert_eq!(complete(&ProxyHeader::new(other, names[1].clone()).encode_v2()).0.source(), None);
    }
}

#[test]
fn headers_of_both_versions_are_decoded() {
    for (bytes, expected) in good() {
        let (header, len) = complete(&bytes);
        assert_eq!(len, bytes.len());
        assert_eq!(addresses(&header), expected.map(|(a, b)| (a.to_string(), b.to_string())), "{bytes:?}");
        let with_more = [&bytes, &b"GET / HTTP/1.1\r\n"[..]].concat();
        assert_eq!(complete(&with_more), (header, len), "the application's bytes are left");
    }
}

#[test]
fn a_header_in_pieces_is_partial_until_its_last_byte() {
    let tls = ProxyTls::new("TLSv1.3").cipher("TLS_AES_128_GCM_SHA256").verified_client("alice");
    let long = ProxyHeader::new(addr("[::1]:1"), addr("192.0.2.1:2")).with_alpn(b"h2").with_tls(&tls);
    let all = good().into_iter().map(|(bytes, _)| bytes).chain([long.encode_v1(), long.encode_v2()]);
    for bytes in all {
        for n in 0..bytes.len() {
            assert_eq!(ProxyHeader::decode(&bytes[..n]), Ok(Decoded::Partial), "{n} bytes of {bytes:?}");
        }
    }
}

#[test]
fn other_first_bytes_are_no_header() {
    let others: [&[u8]; 7] =
        [b"GET / HTTP/1.1", b"\x16\x03\x01", b"PROXYING", b"POST", b"proxy TCP4", b"\r\n\r\n\r\n", b"\0"];
    for bytes in others {
        assert_eq!(ProxyHeader::decode(bytes), Ok(Decoded::NotAHeader), "{bytes:?}");
    }
}

#[test]
fn a_malformed_header_is_refused_with_its_position() {
    let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    let bad_crc = {
        let mut bytes = ProxyHeader::new(addr("192.0.2.1:1"), addr("192.0.2.2:2")).encode_v2();
        bytes[20] ^= 1;
        bytes
    };
    let tlv = |tlv: &[u8]| v2(&[b"\x21\x00", &u16::try_from(tlv.len()).unwrap().to_be_bytes()[..], tlv].concat());
    let cases: Vec<(Vec<u8>, usize, &str)> = vec![
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n".into(), 6, r#"found "TCP5", expected TCP4, TCP6 or UNKNOWN"#),
        (b"PROXY \r\n".into(), 6, r#"found "", expected TCP4"#),
        (b"PROXY TCP4 ::1 1.2.3.4 1 2\r\n".into(), 11, r#"found "::1", expected an IPv4 address"#),
        (b"PROXY TCP6 1.2.3.4 ::1 1 2\r\n".into(), 11, "an IPv6 address"),
        (b"PROXY TCP4 1.2.3.4\r\n".into(), 18, r#"found "", expected an IPv4 address"#),
        (b"PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n".into(), 11, "an IPv4 address"),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n".into(), 11, r#"found """#),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n".into(), 27, "a port from 0 to 65535"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".into(), 29, "a port from 0 to 65535"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n".into(), 30, "CR LF after the second port"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n".into(), 30, "CR before LF"),
        (b"PROXY TCP4 \x1b[2J 1.2.3.4 1 2\r\n".into(), 11, r#"found "\x1b[2J""#),
        (long, 107, "CR LF after at most 105 bytes"),
        (v2(b"\x31"), 12, "found 0x31, expected 0x20 (LOCAL) or 0x21 (PROXY)"),
        (v2(b"\x22"), 12, "found 0x22"),
        (v2(b"\x21\x41\0\0"), 13, "found 0x41, expected an address family"),
        (v2(b"\x21\x13\0\0"), 13, "found 0x13"),
        (v2(b"\x21\x11\0\x0b"), 14, "found 11, expected a length that includes the addresses"),
        (v2(b"\x20\x00\xff\xff"), 14, "found 65535, expected a length of at most 16368"),
        (bad_crc, 31, "expected the CRC-32C of this header"),
        (tlv(b"\x01\0\x05h2"), 16, "a field whose length fits into the header"),
        (tlv(b"\x01\0"), 16, "a field whose length fits into the header"),
        (tlv(b"\x04\0\0\x03\0\x02ab"), 20, "found 2, expected 4, the length of a checksum"),
        (tlv(&[b"\x05\0\x81".as_slice(), &[0; 129]].concat()), 17, "at most 128"),
        (tlv(b"\x02\0\x01\xff"), 19, r#"found "\xff", expected a host name in UTF-8"#),
        (tlv(b"\x20\0\x04\x01\0\0\0"), 17, "at least 5"),
        (tlv(b"\x20\0\x07\x01\0\0\0\0\x21\0"), 24, "a field whose length fits into the header"),
    ];
    for (bytes, offset, text) in cases {
        let error = ProxyHeader::decode(&bytes).expect_err(&format!("{bytes:?}"));
        assert!(error.to_string().contains(text), "{error} does not contain {text}");
        assert_eq!(error.offset(), offset, "{error}");
    }
}

#[test]
fn the_fields_about_tls_survive_the_way() {
    let tls = ProxyTls::new("TLSv1.3").cipher("TLS_AES_128_GCM_SHA256").verified_client("alice");
    let sent = ProxyHeader::new(addr("192.0.2.7:51000"), addr("198.51.100.1:443"))
        .with_alpn(b"h2")
        .with_authority("example.org")
        .with_tlv(super::tlv::UNIQUE_ID, b"42")
        .with_tls(&tls);
    let (header, _) = complete(&sent.encode_v2());
    assert_eq!(header.alpn(), Some(&b"h2"[..]));
    assert_eq!(header.authority(), Some("example.org"));
    assert_eq!(header.unique_id(), Some(&b"42"[..]));
    assert_eq!(header.tls(), Some(tls));
    // A proxy can encode a header that it has received, and the result is the same.
    assert_eq!(complete(&header.encode_v2()).0.encode_v2(), header.encode_v2());
    let anonymous = ProxyHeader::unknown().with_tls(&ProxyTls::new("TLSv1.2"));
    assert!(!complete(&anonymous.encode_v2()).0.tls().unwrap().is_verified);
}

#[test]
fn addresses_of_two_families_become_ipv6_ones() {
    let header = ProxyHeader::new(addr("192.0.2.7:1"), addr("[::1]:2"));
    assert_eq!(header.encode_v1(), b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n");
    let (decoded, _) = complete(&header.encode_v2());
    assert_eq!(addresses(&decoded), Some(("[::ffff:192.0.2.7]:1".into(), "[::1]:2".into())));
    assert_eq!(ProxyHeader::local().encode_v1(), b"PROXY UNKNOWN\r\n");
    assert!(complete(&ProxyHeader::local().encode_v2()).0.is_local());
}

proptest! {
    /// No bytes make the decoder panic, and a header that it accepts is no longer than it may be.
    #[test]
    fn any_bytes_are_decoded_or_refused(begin in 0..3_usize, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let begin: &[u8] = [&b""[..], super::V1_SIGNATURE, super::V2_SIGNATURE][begin];
        let bytes = [begin, &rest].concat();
        if let Ok(Decoded::Complete { header, len }) = ProxyHeader::decode(&bytes) {
            prop_assert!(len <= bytes.len().min(ProxyHeader::MAX_V2_LEN));
            let _ = (header.tls(), header.authority(), header.encode_v1());
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(source: SocketAddr, destination: SocketAddr, value in prop::collection::vec(any::<u8>(), 0..200)) {
        // The header has no scope and no flow of IPv6.
        let plain = |addr: SocketAddr| SocketAddr::new(addr.ip(), addr.port());
        let header = ProxyHeader::new(plain(source), plain(destination)).with_tlv(0xe0, &value);
        let bytes = header.encode_v2();
        let (decoded, len) = complete(&bytes);
        prop_assert_eq!(len, bytes.len());
        prop_assert_eq!(decoded.tlv(0xe0), Some(&value[..]));
        prop_assert_eq!(decoded.encode_v1(), header.encode_v1());
        let (first, _) = complete(&header.encode_v1());
        prop_assert_eq!(first.source(), decoded.source());
    }
}
