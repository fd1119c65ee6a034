//! Writing by a session of `core` after records that have not left: full records are sealed at once, smaller writes are
//! merged, and the queue keeps within the marks.

use std::io::{ErrorKind, IoSlice};

use bowline::core::session::{Session, Step};
use bowline::testing::shared_pki;
use bowline::{TlsVersion, Watermarks};

use crate::setup::VERSIONS;
use crate::wires::{bring, client, server, settle, take, take_up_to};

const RECORD: usize = 16 << 10;
/// An upper limit for the bytes that sealing adds to a few records.
const COST: usize = 1 << 10;

/// A client with these marks and a server, with the same engine, after their handshake.
fn done(version: TlsVersion, express: bool, marks: Watermarks) -> [Session; 2] {
    let name = bowline::config::server_name("localhost").unwrap();
    let client = client(shared_pki(), version, express, None).session(name, marks).unwrap();
    let server = server(shared_pki(), express, None).session(Watermarks::default()).unwrap();
    let mut both = [client, server];
    settle(&mut both);
    both
}

fn for_each_engine(marks: &[Watermarks], test: impl Fn([Session; 2], Watermarks)) {
    for version in VERSIONS {
        for express in [false, true] {
            for marks in marks {
                test(done(version, express, *marks), *marks);
            }
        }
    }
}

/// The bytes that a session reads, and the number of records.
fn received(session: &mut Session) -> (Vec<u8>, usize) {
    let (mut all, mut records) = (Vec::new(), 0);
    while session.step() == Step::Data {
        let n = session.plaintext().len();
        all.extend_from_slice(session.plaintext());
        session.consume(n);
        records += 1;
    }
    (all, records)
}

fn write(session: &mut Session, data: &[u8]) -> usize {
    session.write(&[IoSlice::new(data)]).unwrap()
}

fn data(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// rule: write-7, write-1
#[test]
fn full_records_are_sealed_at_once_and_smaller_writes_merged_after_them() {
    for_each_engine(&[Watermarks::default()], |[mut client, mut server], _| {
        let data = data(3 * RECORD);
        assert_eq!(write(&mut client, &data[..100]), 100);
        assert_eq!(write(&mut client, &data[100..][..2 * RECORD + 50]), 2 * RECORD);
        let rest = &data[100 + 2 * RECORD..];
        for byte in &rest[..1000] {
            assert_eq!(write(&mut client, &[*byte]), 1);
        }
        bring(&mut server, &take(&mut client));
        let (all, records) = received(&mut server);
        assert!(all == data[..2 * RECORD + 1100]);
        assert_eq!(records, 4);
    });
}

/// rule: write-7
#[test]
fn a_large_write_does_not_overtake_small_ones_that_wait() {
    for_each_engine(&[Watermarks::default()], |[mut client, mut server], _| {
        let data = data(2 * RECORD);
        assert_eq!(write(&mut client, &data[..10]) + write(&mut client, &data[10..30]), 30);
        assert_eq!(write(&mut client, &data[30..]), 2 * RECORD - 30);
        client.close_write();
        bring(&mut server, &take(&mut client));
        assert!(received(&mut server).0 == data);
        assert_eq!(server.step(), Step::Ended);
    });
}

/// A waiting writer is woken at the low mark. If the queue is already below the low mark, a write must be accepted: a
/// writer that waited there would never be woken, or would be woken again and again.
///
/// rule: write-8, life-6
#[test]
fn a_write_waits_only_above_the_low_mark_and_continues_at_it() {
    let pairs =
        [(16 << 10, 64 << 10), (63 << 10, 64 << 10), (0, 32 << 10), (20 << 10, 33 << 10), (0, 1), (100, 20_000)];
    let marks = pairs.map(|(low, high)| Watermarks::new(low, high));
    for_each_engine(&marks, |[mut client, mut server], marks| {
        let data = data(400_000);
        let (mut sent, mut got) = (0, Vec::new());
        for size in [100, 70_000, RECORD, 40_000, RECORD - 1, 1, RECORD + 1].into_iter().cycle() {
            if sent == data.len() {
                break;
            }
            let wanted = size.min(data.len() - sent);
            let accepted = write(&mut client, &data[sent..][..wanted]);
            sent += accepted;
            // A session uses no mark below 4 KiB.
            let bound = marks.high().max(4 << 10) + COST;
            assert!(client.queued() <= bound, "{} {marks:?}", client.queued());
            if accepted == 0 {
                assert!(!client.is_below_low_mark(), "{} {marks:?}", client.queued());
                while !client.is_below_low_mark() {
                    let records = take_up_to(&mut client, 5_000);
                    bring(&mut server, &records);
                    got.extend(received(&mut server).0);
                }
                assert!(write(&mut client, &data[sent..][..1]) == 1, "{marks:?}");
                sent += 1;
            }
        }
        bring(&mut server, &take(&mut client));
        got.extend(received(&mut server).0);
        assert!(got == data, "{marks:?}");
    });
}

/// rule: write-1
#[test]
fn records_that_the_layer_does_not_accept_stay_queued() {
    for_each_engine(&[Watermarks::default()], |mut both, _| {
        for full in [|| Ok(0), || Err(ErrorKind::WouldBlock.into())] {
            let accepted = both[0].write_through(&[IoSlice::new(b"later")], None, |_| full()).unwrap();
            assert!(accepted == 5 && both[0].queued() > 5);
            assert_eq!(settle(&mut both)[1], b"later");
        }
    });
}
