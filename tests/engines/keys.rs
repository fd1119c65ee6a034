//! How much one key seals (RFC 8446 section 5.5), with a provider whose keys wear out soon.

use std::io::IoSlice;
use std::sync::Arc;

use bowline::rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use bowline::rustls::{SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite};
use bowline::testing::shared_pki;
use bowline::{Reason, TlsVersion};

use crate::wires::{assert_clean, client, exchange, server, sessions, settle};

const LIMIT: u64 = 7;

/// The default provider; a key of its suites seals so many records.
fn worn_out_soon() -> Arc<CryptoProvider> {
    let default = client(shared_pki(), TlsVersion::V1_3, false, None);
    let default = CryptoProvider::clone(default.config().crypto_provider());
    let limited = |common: &CipherSuiteCommon| CipherSuiteCommon {
        suite: common.suite,
        hash_provider: common.hash_provider,
        confidentiality_limit: LIMIT,
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
fn a_key_that_has_sealed_what_it_may_is_followed_by_the_next_one() {
    let data: Vec<u8> = (0..100 * 16_384_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let soon = worn_out_soon();
    for theirs in [false, true] {
        let client = client(shared_pki(), TlsVersion::V1_3, true, Some(Arc::clone(&soon)));
        let server = server(shared_pki(), theirs, Some(Arc::clone(&soon)));
        let mut both = sessions(&client, &server);
        let received = exchange(&mut both, &data);
        // Without new keys the other side, which counts too, would have opened none of it.
        assert!(received[0] == data && received[1] == data);
        assert_clean(&both, "keys that wear out");
    }
}

/// Each record is looked at: none but the last one allowed is anything but data.
///
/// rule: secure-7
#[test]
fn no_key_seals_more_than_it_may() {
    let soon = worn_out_soon();
    let client = client(shared_pki(), TlsVersion::V1_3, true, Some(Arc::clone(&soon)));
    let mut both = sessions(&client, &server(shared_pki(), false, None));
    settle(&mut both);
    let mut lengths = Vec::new();
    for _ in 0..30 {
        assert_eq!(both[0].write(&[IoSlice::new(&[7; 100])]).unwrap(), 100);
        lengths.extend(record_lengths(both[0].transmit()));
        let sent = both[0].transmit().len();
        both[0].transmitted(sent);
    }
    // 100 bytes, their type and the tag; a KeyUpdate has 5 bytes.
    let updates: Vec<usize> = lengths.iter().enumerate().filter(|(_, len)| **len == 5 + 17).map(|(n, _)| n).collect();
    assert!(!updates.is_empty());
    let between: Vec<usize> = updates.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(between.iter().all(|records| *records as u64 <= LIMIT), "{between:?}");
    assert!(updates[0] as u64 <= LIMIT, "{updates:?}");
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

/// rule: write-5, end-1, secure-7
#[test]
fn without_a_next_key_the_end_is_told_to_both_sides_and_nothing_more_is_sealed() {
    let soon = worn_out_soon();
    let client = client(shared_pki(), TlsVersion::V1_2, true, Some(Arc::clone(&soon)));
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
    assert!(matches!(error.reason(), Some(Reason::Tls(_))), "{error:?}");
    received.extend(settle(&mut both)[1].iter());
    assert_eq!(received.len(), accepted, "what was accepted has left");
    assert!(both[1].recv().end().is_some(), "close_notify has come");
    assert!(both[0].write(&[IoSlice::new(b"more")]).is_err());
}
