//! The peer's bytes stop at every byte offset of a handshake, of data records, and of a close_notify: by end of file,
//! by reset, and by silence; with TLS 1.2 and 1.3, as client and as server.
//!
//! Every offset is tested in memory, under a paused clock. Some offsets are also tested over TCP, with the kernel's FIN
//! and RST.
#![allow(clippy::unwrap_used)]

#[path = "offsets/outcome.rs"]
mod outcome;
#[path = "offsets/setup.rs"]
mod setup;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::testing::peer::{Cut, CutEnd, Meddler};
use bowline::{Address, Policy, Reason, Stream, TcpConnection, Transport};
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use self::outcome::{Outcome, judge};
use self::setup::{RECORDS, Setup, Side, Tap, record_ends};

const AT_A_TIME: usize = 64;

/// rule: end-2, end-4, end-6
#[tokio::test(start_paused = true)]
async fn end_of_file_at_every_offset_in_memory_is_a_truncation() {
    for setup in Setup::all(CutEnd::Fin) {
        every_offset(setup).await;
    }
}

/// rule: end-2, end-4, end-6
#[tokio::test]
async fn end_of_file_at_offsets_over_tcp_is_a_truncation() {
    for setup in Setup::all(CutEnd::Fin) {
        some_offsets(setup).await;
    }
}

/// rule: end-2, end-4, end-6, half-8
#[tokio::test(start_paused = true)]
async fn a_reset_at_every_offset_in_memory_is_reported_as_a_reset() {
    for setup in Setup::all(CutEnd::Reset) {
        every_offset(setup).await;
    }
}

/// rule: end-2, end-4, end-6, half-8
#[tokio::test]
async fn a_reset_at_offsets_over_tcp_is_reported_as_a_reset() {
    for setup in Setup::all(CutEnd::Reset) {
        some_offsets(setup).await;
    }
}

/// rule: secure-5, end-1, end-4, close-3
#[tokio::test(start_paused = true)]
async fn silence_at_every_offset_in_memory_is_reported_as_a_timeout() {
    for setup in Setup::all(CutEnd::Silence) {
        every_offset(setup).await;
    }
}

/// rule: secure-5, end-1, end-4, close-3
#[tokio::test]
async fn silence_at_offsets_over_tcp_is_reported_as_a_timeout() {
    for setup in Setup::all(CutEnd::Silence) {
        some_offsets(setup).await;
    }
}

/// A flipped byte either has no effect or makes TLS fail. If the byte is part of a length, we may wait for bytes that
/// never come, until the end or the deadline.
///
/// rule: end-1, secure-4, secure-5
#[tokio::test(start_paused = true)]
async fn a_flipped_byte_at_any_offset_fails_tls_and_delivers_no_wrong_data() {
    for setup in Setup::all(CutEnd::Silence) {
        let all = *record_ends(&setup).await.last().unwrap();
        let outcomes = try_all((0..all).collect(), |offset| flipped(setup.clone(), offset)).await;
        for outcome in &outcomes {
            judge_flipped(&setup, outcome);
        }
        let failed = outcomes.iter().filter(|outcome| matches!(outcome.handshake, Err(Reason::Tls(_)))).count();
        assert!(failed * 10 > outcomes.len(), "{}: {failed} of {}", setup.name, outcomes.len());
    }
}

async fn flipped(setup: Setup, offset: u64) -> Outcome {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let address = Address::Other("pipe".into());
    let ours = Stream::with(Tap::flipping(ours, offset), address.clone(), address, Arc::clone(&setup.policy))
        .delivers_at_once();
    against_the_peer(&setup, offset, ours, theirs).await
}

fn judge_flipped(setup: &Setup, outcome: &Outcome) {
    let at = format!("{} at {}", setup.name, outcome.offset);
    let whole = RECORDS.concat();
    assert!(whole.starts_with(&outcome.data), "{at}: wrong data");
    let ends = outcome.ends.iter().flatten().chain([&outcome.handshake]);
    for reason in ends.filter_map(|end| end.as_ref().err()) {
        let is_typed = matches!(reason, Reason::Tls(_) | Reason::Truncated(_) | Reason::TimedOut(_));
        assert!(is_typed, "{at}: {reason:?}");
    }
    if outcome.ends.iter().any(|end| matches!(end, Some(Ok(())))) {
        assert_eq!(outcome.data, whole, "{at}: a clean end of a part");
    }
}

/// Tries all of the offsets, many at a time.
async fn try_all<F>(offsets: Vec<u64>, one: impl Fn(u64) -> F) -> Vec<Outcome>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut outcomes = Vec::new();
    for batch in offsets.chunks(AT_A_TIME) {
        let mut running: JoinSet<Outcome> = batch.iter().map(|offset| one(*offset)).collect();
        while let Some(outcome) = running.join_next().await {
            outcomes.push(outcome.unwrap());
        }
    }
    outcomes.sort_by_key(|outcome| outcome.offset);
    outcomes
}

async fn in_memory(setup: Setup, offset: u64) -> Outcome {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let address = Address::Other("pipe".into());
    let cut = Cut::after(ours, offset, setup.ending);
    let ours = Stream::with(cut, address.clone(), address, Arc::clone(&setup.policy)).delivers_at_once();
    against_the_peer(&setup, offset, ours, theirs).await
}

async fn against_the_peer(setup: &Setup, offset: u64, ours: impl Transport, theirs: DuplexStream) -> Outcome {
    let outcome = Outcome::of(setup, offset, ours);
    tokio::pin!(outcome);
    tokio::select! {
        outcome = &mut outcome => outcome,
        // The peer has ended, so only the outcome on our side is missing.
        _ = setup.peer(theirs) => outcome.await,
    }
}

/// Every offset, in memory, under a paused clock.
async fn every_offset(setup: Setup) {
    let record_ends = record_ends(&setup).await;
    let all = *record_ends.last().unwrap();
    let outcomes = try_all((0..=all).collect(), |offset| in_memory(setup.clone(), offset)).await;
    judge(&setup, &record_ends, &outcomes);
    let secured_at = outcomes.iter().position(|outcome| outcome.handshake.is_ok()).unwrap() as u64;
    // The handshake is done exactly with the last byte of a record.
    assert!(record_ends.contains(&secured_at), "{secured_at} is none of {record_ends:?}");
}

async fn over_tcp(setup: Setup, offset: u64) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server: SocketAddr = listener.local_addr().unwrap();
    let meddler = Meddler::to(server).await.unwrap();
    let client = TcpStream::connect(meddler.addr()).await.unwrap();
    let server = listener.accept().await.unwrap().0;
    let (ours, theirs, lane) = match setup.side {
        Side::Client => (client, server, meddler.to_client()),
        Side::Server => (server, client, meddler.to_server()),
    };
    match setup.ending {
        CutEnd::Fin => lane.fin_after(offset),
        CutEnd::Reset => lane.rst_after(offset),
        CutEnd::Silence => lane.stall_after(offset),
    };
    let ours = TcpConnection::new(ours, Arc::clone(&setup.policy)).unwrap();
    let peer = tokio::spawn({
        let setup = setup.clone();
        async move { setup.peer(theirs).await }
    });
    let outcome = Outcome::of(&setup, offset, ours).await;
    peer.abort();
    outcome
}

/// The start and the end of every record, and offsets between them, over loopback.
async fn some_offsets(mut setup: Setup) {
    let ending = setup.ending;
    let mut policy = Policy::clone(&setup.policy);
    if ending == CutEnd::Silence {
        // The clock is not paused here, so the limits are short.
        policy = policy.handshake_timeout(Duration::from_secs(2));
        policy = policy.close_timeout(Duration::from_millis(300));
    }
    setup.policy = policy.into();
    let record_ends = record_ends(&setup).await;
    let all = *record_ends.last().unwrap();
    let mut offsets: Vec<u64> = (0..=all).step_by(if ending == CutEnd::Silence { 97 } else { 29 }).collect();
    offsets.extend(record_ends.iter().flat_map(|end| [end.saturating_sub(1), *end, (end + 1).min(all)]));
    offsets.sort_unstable();
    offsets.dedup();
    let outcomes = try_all(offsets, |offset| over_tcp(setup.clone(), offset)).await;
    judge(&setup, &record_ends, &outcomes);
}
