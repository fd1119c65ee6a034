//! The PROXY header. The result must not depend on the pieces in which the header arrives, and must be the same after
//! the header is encoded again.

use bowline::Address;
use bowline::proxy::{Decoded, ProxyHeader};

use super::text;

pub fn run(input: &[u8]) {
    let whole = ProxyHeader::decode(input);
    // If a prefix of the input leads to a decision, each longer prefix leads to the same decision.
    for n in 0..input.len().min(300) {
        match (ProxyHeader::decode(&input[..n]), &whole) {
            (Ok(Decoded::Partial), _) => {}
            (Ok(Decoded::NotAHeader), whole) => assert_eq!(*whole, Ok(Decoded::NotAHeader), "at {n}"),
            (Ok(Decoded::Complete { header, len }), whole) => {
                assert!(len <= n);
                assert_eq!(*whole, Ok(Decoded::Complete { header, len }), "at {n}");
            }
            (Err(_), whole) => assert!(whole.is_err(), "at {n}: {whole:?}"),
        }
    }
    match whole {
        Ok(Decoded::Complete { header, len }) => {
            assert!(len <= input.len());
            let _ = (header.tlvs().count(), header.alpn(), header.authority(), header.unique_id(), header.tls());
            let _ = format!("{header:?}");
            let again = header.encode_v2();
            let Ok(Decoded::Complete { header: same, len }) = ProxyHeader::decode(&again) else {
                // A header of the largest size has no space for the checksum that is added.
                assert!(again.len() > 60_000, "{header:?}");
                return;
            };
            assert_eq!(len, again.len());
            assert_eq!(
                (same.source(), same.destination(), same.is_local()),
                (header.source(), header.destination(), header.is_local())
            );
        }
        Ok(Decoded::NotAHeader | Decoded::Partial) => {}
        Err(error) => text::check(&error),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let v4 = ProxyHeader::new(
        "192.0.2.1:1000".parse::<std::net::SocketAddr>().unwrap(),
        "192.0.2.2:443".parse::<std::net::SocketAddr>().unwrap(),
    );
    let v6 = ProxyHeader::new(
        "[2001:db8::1]:1".parse::<std::net::SocketAddr>().unwrap(),
        "[2001:db8::2]:2".parse::<std::net::SocketAddr>().unwrap(),
    );
    let full = v6.clone().with_alpn(b"h2").with_authority("example.org").with_tlv(5, b"id").with_tlv(0xe0, &[0; 40]);
    let unix = ProxyHeader::new(Address::Unix(Some("/run/a".into())), Address::UnixAbstract(b"b".to_vec()));
    vec![
        unix.encode_v2(),
        v4.encode_v1(),
        v6.encode_v1(),
        ProxyHeader::unknown().encode_v1(),
        v4.encode_v2(),
        v6.encode_v2(),
        full.encode_v2(),
        ProxyHeader::local().encode_v2(),
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]
}
