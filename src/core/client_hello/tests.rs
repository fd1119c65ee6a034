use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Error, NamedGroup, ProtocolVersion};

use super::{ClientHello, ClientHelloReader, MAX_RECEIVED};
use crate::error::TlsError;
use crate::testing::shared_pki;

/// The first bytes of a client. With `limit`, in records of at most that size.
fn sent(name: &str, alpn: &[&[u8]], limit: Option<usize>) -> Vec<u8> {
    let mut config = ClientConfig::clone(&shared_pki().client_tls().config());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.max_fragment_size = limit;
    let mut client = ClientConnection::new(config.into(), ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut sent = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sent).unwrap();
    }
    sent
}

/// The same message in records with one byte each.
fn in_tiny_records(message: &[u8]) -> Vec<u8> {
    message.iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect()
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, TlsError> {
    ClientHelloReader::default().read(bytes)
}

fn assert_is_whole(hello: &ClientHello) {
    assert_eq!(hello.server_name(), Some("www.example.org"));
    assert_eq!(hello.alpn().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    assert!(hello.versions().contains(&ProtocolVersion::TLSv1_3), "{hello:?}");
    assert!(hello.groups().contains(&NamedGroup::X25519), "{hello:?}");
    assert!(!hello.cipher_suites().is_empty() && !hello.signature_schemes().is_empty());
    assert!(!hello.has_ech());
}

/// rule: hello-1
#[test]
fn a_hello_is_read_whatever_its_segments_and_records() {
    let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let whole = sent("WWW.Example.org", &alpn, None);
    let records = sent("www.example.org", &alpn, Some(64));
    let tiny = in_tiny_records(&whole[5..]);
    for bytes in [&whole, &records, &tiny] {
        let mut reader = ClientHelloReader::default();
        for end in 0..bytes.len() {
            assert_eq!(reader.read(&bytes[..end]).unwrap(), None, "after {end} of {} bytes", bytes.len());
        }
        // Bytes after the message change nothing.
        let more = [bytes, &b"more"[..]].concat();
        assert_is_whole(&reader.read(&more).unwrap().unwrap());
    }
}

/// rule: hello-2
#[test]
fn bytes_that_are_no_hello_get_an_error_that_says_what_came() {
    let failed = |bytes: &[u8]| read(bytes).unwrap_err();
    let http = failed(b"GET / HTTP/1.1\r\n");
    assert_eq!(http.not_tls.as_ref().and_then(|not_tls| not_tls.protocol()), Some("HTTP"));
    // The type of a record or the version of TLS alone is not enough.
    for bytes in [&[22, 4][..], &[19, 3], &[25, 3], &[25]] {
        assert!(failed(bytes).not_tls.is_some(), "{bytes:?}");
    }
    let alert = failed(&[21, 3, 1, 0, 2, 1, 0]);
    assert!(matches!(alert.error, Error::InappropriateMessage { .. }), "{alert:?}");
    let finished = failed(&[22, 3, 1, 0, 4, 20, 0, 0, 0]);
    assert!(matches!(finished.error, Error::InappropriateHandshakeMessage { .. }), "{finished:?}");
    assert!(failed(&[22, 3, 1, 0, 0]).error.to_string().contains("EmptyPayload"));
    assert!(matches!(failed(&[22, 3, 1, 0x40, 1, 1]).error, Error::PeerSentOversizedRecord));
    let long = failed(&[22, 3, 1, 0, 4, 1, 1, 0, 0]);
    assert!(long.error.to_string().contains("TooLarge"), "{long:?}");
}

/// rule: hello-1: one byte in each record makes the longest message that is accepted shorter, but never more memory.
#[test]
fn a_hello_without_end_is_refused_at_the_bound() {
    let message = [&[1, 0, 0xff, 0xff][..], &vec![0; 0xffff]].concat();
    let endless = in_tiny_records(&message);
    let mut reader = ClientHelloReader::default();
    assert_eq!(reader.read(&endless[..MAX_RECEIVED - 1]).unwrap(), None);
    assert!(reader.read(&endless[..MAX_RECEIVED]).is_err());
    assert!(reader.message.len() <= MAX_RECEIVED);
}

/// rule: hello-2: the contents are the peer's, so no change of a byte and no length may cause a panic.
#[test]
fn a_damaged_hello_is_an_error_and_never_a_panic() {
    let whole = sent("www.example.org", &[b"h2"], None);
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, whole[at].wrapping_add(1), whole[at].wrapping_sub(1)] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let _ = read(&damaged);
        }
    }
    // Each length of the body, with a matching length of the message.
    for len in 0..whole.len() - 9 {
        let mut cut = whole[..9 + len].to_vec();
        cut[3..5].copy_from_slice(&u16::try_from(len + 4).unwrap().to_be_bytes());
        cut[7..9].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        let _ = read(&cut);
    }
}

/// rule: hello-1: RFC 6066 section 3.
#[test]
fn an_address_is_no_host_name() {
    assert_eq!(read(&sent("192.0.2.1", &[], None)).unwrap().unwrap().server_name(), None);
}

/// rule: tcp-11
#[test]
fn the_words_of_a_client_are_escaped_in_a_log() {
    let hello = read(&sent("www.example.org", &[b"\x1b[31m\r\n"], None)).unwrap().unwrap();
    let shown = format!("{hello:?}{hello:#?}");
    assert!(shown.contains("www.example.org") && !shown.contains('\x1b') && !shown.contains('\r'), "{shown}");
}

/// RFC 9849 section 5. The contents of the extension are for the server that has the key.
#[test]
fn a_hello_with_encrypted_client_hello_says_so() {
    let mut hello = sent("www.example.org", &[], None);
    let ech = [0xfe, 0x0d, 0, 1, 0];
    hello.extend(ech);
    // The lengths of the record, of the message, and of the extensions, which begin after the session id, the cipher
    // suites and the compression methods.
    let session_id = 5 + 4 + 2 + 32;
    let suites = session_id + 1 + usize::from(hello[session_id]);
    let methods = suites + 2 + usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let extensions = methods + 1 + usize::from(hello[methods]);
    for at in [3, 7, extensions] {
        let longer = u16::from_be_bytes([hello[at], hello[at + 1]]) + ech.len() as u16;
        hello[at..at + 2].copy_from_slice(&longer.to_be_bytes());
    }
    let hello = read(&hello).unwrap().unwrap();
    assert!(hello.has_ech() && hello.server_name() == Some("www.example.org"), "{hello:?}");
}
