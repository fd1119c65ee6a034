//! The limit of one key (RFC 8446 section 5.5), with a provider whose keys have a low limit.

use std::io::IoSlice;
use std::sync::Arc;

use bowline::core::session::Session;
use bowline::rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use bowline::rustls::{SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};
use bowline::testing::shared_pki;
use bowline::{Reason, TlsVersion, Watermarks};

use crate::wires::{assert_clean, client, exchange, server, sessions, settle};

const LIMIT: u64 = 7;

fn worn_out_soon() -> Arc<CryptoProvider> {
    worn_out_after(LIMIT)
}

/// The default provider, with suites whose keys seal this many records.
pub(crate) fn worn_out_after(limit: u64) -> Arc<CryptoProvider> {
    let default = client(shared_pki(), TlsVersion::V1_3, false, None);
    let default = CryptoProvider::clone(default.config().crypto_provider());
    let limited = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: limit,
    };
    let cipher_suites = default.cipher_suites.iter().map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) => SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
            common: limited(&suite.common),
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: None,
        }))),
        SupportedCipherSuite::Tls12(suite) => SupportedCipherSuite::Tls12(Box::leak(Box::new(Tls12CipherSuite {
            common: limited(&suite.common),
            kx: suite.kx,
            sign: suite.sign,
            prf_provider: suite.prf_provider,
            aead_alg: suite.aead_alg,
        }))),
    });
    let cipher_suites = cipher_suites.collect();
    Arc::new(CryptoProvider { cipher_suites, ..default })
}

/// rule: write-1, secure-7
#[test]
fn a_key_that_is_used_up_is_followed_by_the_next_one() {
    let data: Vec<u8> = (0..100 * 16_384_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let soon = worn_out_soon();
    for (ours, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
        let client = client(shared_pki(), TlsVersion::V1_3, ours, Some(Arc::clone(&soon)));
        let server = server(shared_pki(), theirs, Some(Arc::clone(&soon)));
        let mut both = sessions(&client, &server);
        let received = exchange(&mut both, &data);
        // Without new keys, the other side, which has the same limit, would not have opened this data.
        assert!(received[0] == data && received[1] == data);
        assert_clean(&both, "keys that wear out");
    }
}

/// Checks each record: only the last one that is allowed is not data.
///
/// rule: secure-7
#[test]
fn no_key_seals_more_than_it_may() {
    let soon = worn_out_soon();
    for express in [false, true] {
        let client = client(shared_pki(), TlsVersion::V1_3, express, Some(Arc::clone(&soon)));
        let mut both = sessions(&client, &server(shared_pki(), false, None));
        settle(&mut both);
        let mut lengths = Vec::new();
        for _ in 0..30 {
            assert_eq!(both[0].write(&[IoSlice::new(&[7; 100])]).unwrap(), 100);
            lengths.extend(record_lengths(both[0].transmit()));
            let sent = both[0].transmit().len();
            both[0].transmitted(sent);
        }
        // A KeyUpdate has 5 bytes, and TLS 1.3 adds 17 (the type and the tag). A record of data has 100 bytes instead
        // of 5.
        let updates = lengths.iter().enumerate().filter(|(_, len)| **len == 5 + 17);
        let updates: Vec<usize> = updates.map(|(n, _)| n).collect();
        assert!(!updates.is_empty());
        let between: Vec<usize> = updates.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(between.iter().all(|records| *records as u64 <= LIMIT), "{between:?}");
        assert!(updates[0] as u64 <= LIMIT, "{updates:?}");
    }
}

fn record_lengths(mut records: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let Some(header) = records.first_chunk::<5>() {
        let len = usize::from(header[3]) << 8 | usize::from(header[4]);
        lengths.push(len);
        records = &records[5 + len..];
    }
    lengths
}

/// rule: write-5, end-1, end-8
#[test]
fn without_a_next_key_both_sides_see_the_end_and_sealing_stops() {
    let soon = worn_out_soon();
    for express in [false, true] {
        let client = client(shared_pki(), TlsVersion::V1_2, express, Some(Arc::clone(&soon)));
        let mut both = sessions(&client, &server(shared_pki(), false, None));
        settle(&mut both);
        let (mut accepted, mut received) = (0, Vec::<u8>::new());
        let error = loop {
            match both[0].write(&[IoSlice::new(&[7; 100])]) {
                Ok(n) => accepted += n,
                Err(error) => break error,
            }
            assert!(accepted < 100 * LIMIT as usize);
            received.extend(settle(&mut both)[1].iter());
        };
        assert!(matches!(error.reason(), Some(Reason::KeyExhausted)), "{error:?}");
        received.extend(settle(&mut both)[1].iter());
        // The key has sealed Finished too, and its last record is reserved for an alert.
        assert_eq!((received.len(), accepted), (500, 500), "what was accepted has left");
        assert!(both[0].is_done_sending() && both[1].recv().end().is_none(), "no close_notify has come");
        assert_eq!(matches!(both[1].failure(), Some(Reason::Tls(_))), express, "an alert where the engine has one");
        assert!(both[0].write(&[IoSlice::new(b"more")]).is_err());
    }
}

/// The key is used up exactly: the last record that is allowed is close_notify.
///
/// rule: half-2, close-1
#[test]
fn the_last_record_of_a_key_is_enough_for_the_marker() {
    let soon = worn_out_soon();
    for express in [false, true] {
        let client = client(shared_pki(), TlsVersion::V1_2, express, Some(Arc::clone(&soon)));
        let mut both = sessions(&client, &server(shared_pki(), express, None));
        settle(&mut both);
        for _ in 0..LIMIT - 2 {
            assert_eq!(both[0].write(&[IoSlice::new(b"some")]).unwrap(), 4);
            settle(&mut both);
        }
        both.iter_mut().for_each(Session::close_write);
        settle(&mut both);
        assert_clean(&both, "all records used");
    }
}

/// Queued writes, and writes that exceed the limit of the key: the part that fits is sealed, and the loss of the rest
/// is reported.
///
/// rule: end-8, write-5
#[test]
fn a_large_write_past_the_end_of_a_key_fails_with_key_exhausted() {
    let soon = worn_out_soon();
    for (express, corked) in [(false, false), (false, true), (true, false), (true, true)] {
        let client = client(shared_pki(), TlsVersion::V1_2, express, Some(Arc::clone(&soon)));
        let name = bowline::config::server_name("localhost").unwrap();
        let marks = Watermarks::new(1 << 20, 1 << 20);
        let server = server(shared_pki(), false, None).session(marks).unwrap();
        let mut both = [client.session(name, marks).unwrap(), server];
        settle(&mut both);
        let data = [7; 10 << 14];
        if corked {
            both[0].cork();
        }
        let accepted = both[0].write(&[IoSlice::new(&data[..1000]), IoSlice::new(&data[1000..])]).unwrap();
        both[0].close_write();
        let received = settle(&mut both)[1].len();
        assert_eq!(received, 5 << 14, "{express} {corked}: {accepted} were accepted");
        assert!(matches!(both[0].failure(), Some(Reason::KeyExhausted)), "{express} {corked}");
        assert!(!both[0].send().is_finished() && both[1].recv().end().is_none(), "{express} {corked}");
        assert_eq!(both[0].queued(), 0);
    }
}

/// The real limit of AES-GCM: 2^24 records. Run this test by hand, in release mode.
///
/// rule: end-8
#[test]
#[ignore = "seals and opens 33 million records: run it in release"]
fn a_session_ends_before_it_exceeds_the_real_limit() {
    const REAL: u64 = 1 << 24;
    for express in [false, true] {
        let default = client(shared_pki(), TlsVersion::V1_2, express, None);
        let provider = CryptoProvider::clone(default.config().crypto_provider());
        let is_gcm = |suite: &SupportedCipherSuite| format!("{suite:?}").contains("ECDSA_WITH_AES_128_GCM");
        let cipher_suites = provider.cipher_suites.iter().copied().filter(is_gcm).collect();
        let provider = Arc::new(CryptoProvider { cipher_suites, ..provider });
        let client = client(shared_pki(), TlsVersion::V1_2, express, Some(provider));
        let mut both = sessions(&client, &server(shared_pki(), express, None));
        settle(&mut both);
        let (mut accepted, mut received) = (0_u64, 0_u64);
        let error = loop {
            match both[0].write(&[IoSlice::new(b"x")]) {
                Ok(n) => accepted += n as u64,
                Err(error) => break error,
            }
            received += settle(&mut both)[1].len() as u64;
            assert!(accepted < REAL);
        };
        received += settle(&mut both)[1].len() as u64;
        assert!(matches!(error.reason(), Some(Reason::KeyExhausted)), "{error:?}");
        assert_eq!((accepted, received), (REAL - 2, REAL - 2));
        assert!(both[1].recv().end().is_none());
    }
}
