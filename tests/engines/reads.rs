//! Reading with a session of `core`, which does no I/O: as many records as fit are opened directly into the reader's
//! buffer, and nothing else is written to the buffer.

use std::io::IoSlice;

use bowline::core::half::{End, RecvHalf};
use bowline::core::session::{Session, Step};
use bowline::testing::shared_pki;
use bowline::{Reason, TlsVersion};

use crate::setup::VERSIONS;
use crate::wires::{bring, client, server, sessions, settle, take};

/// The bytes of the buffer before a read.
const UNTOUCHED: u8 = 0xaa;

/// A client and a server, with the same engine, after their handshake.
fn done(version: TlsVersion, express: bool) -> [Session; 2] {
    let (client, server) = (client(shared_pki(), version, express, None), server(shared_pki(), express, None));
    let mut both = sessions(&client, &server);
    settle(&mut both);
    both
}

fn for_each_engine(test: impl Fn(TlsVersion, bool)) {
    for version in VERSIONS {
        for express in [false, true] {
            test(version, express);
        }
    }
}

fn write(session: &mut Session, mut data: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let accepted = session.write(&[IoSlice::new(data)]).unwrap();
        data = &data[accepted..];
        records.extend(take(session));
    }
    records
}

fn data(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// rule: write-1
#[test]
fn one_read_returns_all_the_records_that_fit() {
    for_each_engine(|version, express| {
        let [mut client, mut server] = done(version, express);
        let data = data(50_000);
        for piece in data.chunks(10_000) {
            bring(&mut server, &write(&mut client, piece));
        }
        let mut out = vec![UNTOUCHED; 60_000];
        assert_eq!(server.step_into(&mut out), (Step::Data, 50_000), "{version} {express}");
        assert!(out[..50_000] == data, "{version} {express}");
        assert_eq!(server.step_into(&mut out), (Step::NeedInput, 0));
        assert_eq!(server.arrived(), 0);
    });
}

/// rule: write-1
#[test]
fn buffers_of_any_size_get_all_bytes_in_order() {
    for_each_engine(|version, express| {
        let data = data(150_000);
        for room in [1, 100, 9_999, 16_383, 16_384, 16_385, 16_400, 32_768, 40_000, 65_536] {
            let [mut client, mut server] = done(version, express);
            let mut received = Vec::new();
            for piece in data.chunks(70_000) {
                let records = write(&mut client, piece);
                // The last record arrives in two parts.
                let (most, rest) = records.split_at(records.len() - 5_000);
                for bytes in [most, rest] {
                    bring(&mut server, bytes);
                    loop {
                        let mut out = vec![UNTOUCHED; room];
                        let (step, n) = server.step_into(&mut out);
                        received.extend_from_slice(&out[..n]);
                        assert!(n == room || out[n..].iter().all(|byte| [UNTOUCHED, 0].contains(byte)));
                        if step == Step::NeedInput {
                            break;
                        }
                        assert!(step == Step::Data && n > 0);
                        // The borrowed plaintext continues where the read stopped.
                        let lent = server.plaintext().len().min(10);
                        received.extend_from_slice(&server.plaintext()[..lent]);
                        server.consume(lent);
                    }
                }
            }
            assert!(received == data, "{version} {express} {room}");
        }
    });
}

/// If the record were opened elsewhere, its plaintext would have to be copied. The first record of a read is opened
/// whatever the size of the buffer.
///
/// rule: write-1
#[test]
fn a_record_for_which_the_rest_of_a_buffer_is_too_small_waits() {
    for_each_engine(|version, express| {
        let [mut client, mut server] = done(version, express);
        let data = data(65_536);
        bring(&mut server, &write(&mut client, &data));
        let mut out = vec![UNTOUCHED; 60_000];
        let waits = express && cfg!(feature = "aws-lc-rs");
        let first = if waits { 3 << 14 } else { 60_000 };
        assert_eq!(server.step_into(&mut out), (Step::Data, first), "{version} {express}");
        assert_eq!(server.plaintext().is_empty(), waits, "{version} {express}");
        assert_eq!(server.step_into(&mut [0; 1]), (Step::Data, 1), "{version} {express}");
        assert_eq!(server.plaintext().len(), data.len() - first - 1, "{version} {express}");
    });
}

/// rule: end-1, end-5, secure-4
#[test]
fn a_failure_after_data_is_reported_after_the_data() {
    for_each_engine(|version, express| {
        let [mut client, mut server] = done(version, express);
        bring(&mut server, &write(&mut client, b"whole, "));
        bring(&mut server, &write(&mut client, b"and sound"));
        let mut forged = write(&mut client, &data(1000));
        forged[500] ^= 1;
        bring(&mut server, &forged);
        let mut out = vec![UNTOUCHED; 20_000];
        assert_eq!(server.step_into(&mut out), (Step::Data, 16), "{version} {express}");
        assert_eq!(&out[..16], b"whole, and sound");
        assert!(out[16..].iter().all(|byte| [UNTOUCHED, 0].contains(byte)), "what is not authentic was shown");
        assert_eq!(server.step_into(&mut out), (Step::Ended, 0));
        assert!(matches!(server.recv(), RecvHalf::Broken(Reason::Tls(_))), "{:?}", server.recv());
        assert!(!take(&mut server).is_empty(), "the alert");
    });
}

/// rule: end-4, half-5
#[test]
fn an_end_after_data_is_reported_after_the_data() {
    for_each_engine(|version, express| {
        let [mut client, mut server] = done(version, express);
        bring(&mut server, &write(&mut client, b"the last word"));
        client.close_write();
        bring(&mut server, &take(&mut client));
        bring(&mut server, b"plaintext");
        let mut out = vec![UNTOUCHED; 20_000];
        assert_eq!(server.step_into(&mut out), (Step::Data, 13));
        assert_eq!(server.step_into(&mut out), (Step::Ended, 0));
        assert!(matches!(server.recv(), RecvHalf::Ended(End::Clean)), "{:?}", server.recv());
        assert_eq!(server.take_leftover(), b"plaintext");
        assert!(out[13..].iter().all(|byte| [UNTOUCHED, 0].contains(byte)), "{version} {express}");
    });
}

/// Tickets arrive in records that look like data.
///
/// rule: secure-3
#[test]
fn records_without_data_leave_no_bytes_in_the_readers_buffer() {
    for express in [false, true] {
        let (client, server) =
            (client(shared_pki(), TlsVersion::V1_3, express, None), server(shared_pki(), express, None));
        let [mut client, mut server] = sessions(&client, &server);
        bring(&mut server, &take(&mut client));
        assert_eq!(server.step(), Step::NeedInput);
        bring(&mut client, &take(&mut server));
        let mut out = vec![UNTOUCHED; 40_000];
        assert_eq!(client.step_into(&mut out), (Step::Secured, 0));
        bring(&mut server, &take(&mut client));
        assert_eq!(server.step(), Step::Secured);
        let tickets = take(&mut server);
        assert!(tickets.len() > 200);
        bring(&mut client, &tickets);
        bring(&mut client, &write(&mut server, b"data"));
        assert_eq!(client.step_into(&mut out), (Step::Data, 4));
        assert_eq!(&out[..4], b"data");
        assert!(out[4..].iter().all(|byte| [UNTOUCHED, 0].contains(byte)), "a ticket was shown");
    }
}
