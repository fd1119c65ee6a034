//! Compares the direct AEAD calls with rustls's own way of calling the same AEAD.

use std::io::Read;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConnection, ExtractedSecrets, ServerConnection};

use super::*;
use crate::config::{ClientTls, ServerTls};
use crate::testing::shared_pki;

const VERSION: ProtocolVersion = ProtocolVersion::TLSv1_2;
const NUMBERS: [u64; 4] = [1, 2, 0xffff, u64::MAX - 0x1_0000];
const LENGTHS: [usize; 5] = [0, 1, 100, MAX_FRAGMENT - 1, MAX_FRAGMENT];

fn providers() -> Vec<CryptoProvider> {
    vec![
        #[cfg(feature = "aws-lc-rs")]
        rustls::crypto::aws_lc_rs::default_provider(),
        #[cfg(feature = "ring")]
        rustls::crypto::ring::default_provider(),
    ]
}

/// The secrets of the two ends of a handshake with this suite.
fn secrets(provider: &CryptoProvider, suite: SupportedCipherSuite) -> [ExtractedSecrets; 2] {
    let provider = Arc::new(CryptoProvider { cipher_suites: vec![suite], ..provider.clone() });
    let (pki, me) = (shared_pki(), shared_pki().server(&[]));
    let client = ClientTls::builder().root(pki.ca_der()).provider(Arc::clone(&provider)).express().build().unwrap();
    let server =
        ServerTls::builder().identity(me.chain_der(), me.key_der()).provider(provider).express().build().unwrap();
    let mut client = ClientConnection::new(client.config(), "localhost".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(server.config()).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        feed(&wire, |bytes| server.read_tls(bytes).unwrap());
        server.process_new_packets().unwrap();
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        feed(&wire, |bytes| client.read_tls(bytes).unwrap());
        client.process_new_packets().unwrap();
    }
    [client.dangerous_extract_secrets().unwrap(), server.dangerous_extract_secrets().unwrap()]
}

fn feed(mut wire: &[u8], mut read: impl FnMut(&mut dyn Read) -> usize) {
    while !wire.is_empty() {
        read(&mut wire);
    }
}

/// Calls `test` for every suite of each provider for which the test PKI has a certificate.
fn for_each_suite(test: impl Fn(SupportedCipherSuite, [ExtractedSecrets; 2])) {
    let mut tested = 0;
    for provider in providers() {
        for suite in provider.cipher_suites.iter().filter(|suite| !format!("{suite:?}").contains("RSA_WITH")) {
            test(*suite, secrets(&provider, *suite));
            tested += 1;
        }
    }
    assert_eq!(tested, 6 * providers().len());
}

fn sealed(sealer: &mut Sealer, typ: ContentType, payload: &[u8], seq: u64) -> Vec<u8> {
    let mut record = vec![0xee; sealer.record_len(payload.len())];
    record[sealer.head()..][..payload.len()].copy_from_slice(payload);
    sealer.seal(typ, payload.len(), seq, &mut record).unwrap();
    record
}

fn header(record: &[u8]) -> (ContentType, ProtocolVersion) {
    (ContentType::from(record[0]), VERSION)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7) as u8).collect()
}

#[test]
fn suites_of_rustls_are_recognised_from_every_list_and_others_are_not() {
    for provider in providers() {
        for suite in &provider.cipher_suites {
            assert!(Library::of(*suite).is_some(), "{suite:?}");
            let SupportedCipherSuite::Tls13(suite) = suite else { continue };
            let own = Box::leak(Box::new(rustls::Tls13CipherSuite {
                common: rustls::crypto::CipherSuiteCommon {
                    suite: suite.common.suite,
                    hash_provider: suite.common.hash_provider,
                    confidentiality_limit: suite.common.confidentiality_limit,
                },
                hkdf_provider: suite.hkdf_provider,
                aead_alg: suite.aead_alg,
                quic: None,
            }));
            assert!(Library::of(SupportedCipherSuite::Tls13(own)).is_none());
        }
    }
    #[cfg(feature = "aws-lc-rs")]
    {
        use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, cipher_suite};
        assert!(ALL_CIPHER_SUITES.iter().all(|suite| matches!(Library::of(*suite), Some(Library::AwsLc))));
        assert!(matches!(Library::of(cipher_suite::TLS13_AES_128_GCM_SHA256), Some(Library::AwsLc)));
    }
    #[cfg(feature = "ring")]
    {
        use rustls::crypto::ring::{ALL_CIPHER_SUITES, cipher_suite};
        assert!(ALL_CIPHER_SUITES.iter().all(|suite| matches!(Library::of(*suite), Some(Library::Ring))));
        assert!(matches!(Library::of(cipher_suite::TLS13_AES_128_GCM_SHA256), Some(Library::Ring)));
    }
}

/// Compares every suite and version byte for byte: nonce, header, authenticated data, type and tag.
#[test]
fn a_record_is_the_one_that_rustls_makes() {
    for_each_suite(|suite, [client, server]| {
        let mut direct = Sealer::new(suite, client.tx.1, client.tx.0).unwrap();
        assert!(matches!(direct, Sealer::Direct(_)), "{suite:?}");
        let mut provided = Sealer::Provided(encrypter(suite, server.rx.1).unwrap());
        let types = [ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert];
        // Each sequence number is used once, and the first is 0, because a provider may check both.
        for (seq, n) in (0..20).chain(NUMBERS.into_iter().filter(|seq| *seq >= 20)).zip(0..) {
            let (typ, data) = (types[n % 3], payload(LENGTHS[n % 5]));
            let (ours, theirs) = (sealed(&mut direct, typ, &data, seq), sealed(&mut provided, typ, &data, seq));
            assert!(ours == theirs, "{suite:?} {typ:?} {seq}");
        }
    });
}

/// The record equals, byte for byte, the one that is sealed in place. The bytes after the record do not change.
#[test]
fn a_record_sealed_from_another_buffer_is_the_same() {
    for_each_suite(|suite, [client, server]| {
        let mut from_elsewhere = Sealer::new(suite, client.tx.1, client.tx.0).unwrap();
        let mut in_place = Sealer::new(suite, server.rx.1, server.rx.0).unwrap();
        for (seq, len) in NUMBERS.into_iter().flat_map(|seq| LENGTHS.map(|len| (seq, len))) {
            for typ in [ContentType::ApplicationData, ContentType::Alert] {
                let data = payload(len);
                let whole = from_elsewhere.record_len(len);
                let mut record = vec![0xee; whole + 1];
                from_elsewhere.seal_from(typ, &data, seq, &mut record[..whole]).unwrap();
                assert!(record[..whole] == sealed(&mut in_place, typ, &data, seq), "{suite:?} {typ:?} {seq} {len}");
                assert_eq!(record[whole], 0xee);
            }
            // No record can hold this much.
            assert!(from_elsewhere.seal_from(ContentType::Alert, &[0; 70_000], seq, &mut vec![0; 70_100]).is_err());
        }
    });
}

/// Opens valid records as rustls does, and refuses damaged ones, both in place and into the reader's buffer.
#[test]
fn a_record_is_opened_as_rustls_opens_it() {
    for_each_suite(|suite, [client, server]| {
        let mut sealer = Sealer::new(suite, client.tx.1, client.tx.0).unwrap();
        let mut direct = Opener::new(suite, server.rx.1).unwrap();
        let mut other_sealer = Sealer::new(suite, server.tx.1, server.tx.0).unwrap();
        let mut provided = Opener::Provided(decrypter(suite, client.rx.1).unwrap());
        for (seq, len) in NUMBERS.into_iter().flat_map(|seq| LENGTHS.map(|len| (seq, len))) {
            let data = payload(len);
            // rustls opens the record that the other key has sealed.
            let mut record = sealed(&mut other_sealer, ContentType::ApplicationData, &data, seq);
            let plain = provided.open(header(&record), &mut record, seq, &mut []).unwrap();
            let Location::Record(skip) = plain.place else { panic!("rustls opens in place") };
            assert!(record[skip..skip + plain.len] == data && plain.typ == ContentType::ApplicationData, "{suite:?}");

            let record = sealed(&mut sealer, ContentType::ApplicationData, &data, seq);
            for room in [0, len, len + 1, len + 100] {
                let (mut record, mut reader) = (record.clone(), vec![0xaa; room]);
                let plain = direct.open(header(&record), &mut record, seq, &mut reader).unwrap();
                let found = match plain.place {
                    Location::Reader => &reader[..plain.len],
                    Location::Record(skip) => &record[skip..skip + plain.len],
                };
                assert!(found == data && plain.typ == ContentType::ApplicationData, "{suite:?} {seq} {len} {room}");
                let has_room = room > len || (room == len && suite.tls13().is_none());
                let goes_there = has_room && matches!(Library::of(suite), Some(library) if library.opens_elsewhere());
                assert_eq!(plain.place == Location::Reader, goes_there, "{suite:?} {len} {room}");
            }
            for at in [0, HEADER, record.len() - TAG, record.len() - 1] {
                let (mut record, mut reader) = (record.clone(), vec![0xaa; len + 1]);
                record[at] ^= 1;
                let opened = direct.open(header(&record), &mut record, seq, &mut reader);
                // TLS 1.3 does not authenticate the header as received, because everything in it is known.
                if at == 0 && suite.tls13().is_some() {
                    assert!(opened.is_ok());
                    continue;
                }
                assert!(matches!(opened, Err(Error::DecryptError)), "{suite:?} {at}");
                let is_untouched = reader.iter().all(|byte| *byte == 0xaa);
                assert!(is_untouched || reader[..len].iter().all(|byte| *byte == 0), "unauthentic plaintext");
            }
            let mut record = record.clone();
            assert!(direct.open(header(&record), &mut record, seq + 1, &mut []).is_err());
            assert!(direct.open(header(&record), &mut [23, 3, 3, 0, 3, 1, 2, 3], seq, &mut []).is_err());
        }
    });
}

/// RFC 8446 section 5.4: the payload of a type 0 that ends with a type is data and padding.
#[test]
fn padding_is_taken_off_and_what_is_no_plaintext_is_refused() {
    for_each_suite(|suite, [client, server]| {
        if suite.tls13().is_none() {
            return;
        }
        let mut sealer = Sealer::new(suite, client.tx.1, client.tx.0).unwrap();
        let mut direct = Opener::new(suite, server.rx.1).unwrap();
        let mut open = |inner: &[u8]| {
            let mut record = sealed(&mut sealer, ContentType::from(0), inner, 9);
            let mut reader = vec![0xaa; inner.len() + 1];
            let plain = direct.open(header(&record), &mut record, 9, &mut reader)?;
            let found = if plain.place == Location::Reader { &reader[..] } else { &record[HEADER..] };
            // Nothing is left in the buffer after the content: the type of the record is overwritten.
            assert!(found[plain.len..inner.len() + 1].iter().all(|byte| *byte == 0));
            Ok((plain.typ, found[..plain.len].to_vec()))
        };
        let data = ContentType::ApplicationData;
        assert_eq!(open(b"some\x17\0\0\0"), Ok((data, b"some".to_vec())));
        assert_eq!(open(b"\x17"), Ok((data, vec![])));
        assert_eq!(open(b"end\0\0\x16"), Ok((ContentType::Handshake, b"end\0\0".to_vec())));
        let zeros = PeerMisbehaved::IllegalTlsInnerPlaintext;
        assert_eq!(open(&[0; 20]), Err(zeros.into()));
        assert_eq!(open(b"\x01\x14\0"), Err(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into()));
        assert_eq!(open(&[23; MAX_FRAGMENT + 1]), Err(Error::PeerSentOversizedRecord));
        assert_eq!(open(&[0; MAX_FRAGMENT + 1]), Err(Error::PeerSentOversizedRecord));
        assert_eq!(open(&[23; MAX_FRAGMENT]).map(|(_, data)| data.len()), Ok(MAX_FRAGMENT - 1));
    });
}
