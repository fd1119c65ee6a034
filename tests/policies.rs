//! Every deadline of a policy, over every transport: it takes effect at its time, and the reason names it in every
//! place: in the call that waited, the status, the report of a close, `Control`, and the counts of the group.

#![allow(clippy::unwrap_used)]

use std::future::Future;
use std::time::Duration;

use bowline::testing::{BoxTransport, Kind, memory_pair_with, pair_with, shared_pki, tcp_pair_with, upgraded_over};
use bowline::{
    Control, DrainGroup, Error, Listener, Phase, Policy, Reason, StartTls, TlsConnection, Transport,
    UpgradableConnection,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// A policy in which every deadline is different.
fn policy() -> Policy {
    Policy::default()
        .handshake_timeout(SECOND * 5)
        .close_timeout(SECOND * 7)
        .half_open_timeout(SECOND * 11)
        .idle_timeout(SECOND * 13)
}

/// Runs a future on a paused clock, and returns how many seconds it took.
async fn on_a_paused_clock<T>(what: &str, play: impl Future<Output = T>) -> (T, u64) {
    tokio::time::pause();
    let begin = Instant::now();
    let played = timeout(SECOND * 60, play).await;
    let seconds = begin.elapsed().as_secs();
    tokio::time::resume();
    (played.unwrap_or_else(|_| panic!("hangs: {what}")), seconds)
}

fn assert_phase(reason: &Reason, phase: Phase, what: &str) {
    assert!(matches!(reason, Reason::TimedOut(p) if *p == phase), "{what}: {reason:?}");
}

/// Checks the reports of `Control` and of the group.
async fn assert_told(control: &Control, group: &DrainGroup, phase: Phase, what: &str) {
    assert!(control.is_ended() && !control.is_aborted(), "{what}");
    assert_phase(&control.report().unwrap_or_else(|| panic!("{what}: no report")).reason, phase, what);
    let report = timeout(SECOND * 10, group.drain(None)).await.unwrap();
    assert_eq!((report.count(bowline::Outcome::TimedOut), report.total()), (1, 1), "{what}: {report}");
}

/// A draining group, because only a draining group counts.
fn counting(control: &Control) -> DrainGroup {
    let group = DrainGroup::new();
    assert!(group.join(control));
    group.begin_drain();
    group
}

async fn over_all<F, Fut>(what: &str, phase: Phase, due: u64, play: F)
where
    F: Fn(BoxTransport, BoxTransport) -> Fut,
    Fut: Future<Output = (BoxTransport, Option<Reason>)>,
{
    for kind in Kind::ALL {
        let what = format!("{what}, {kind}");
        let (mut ours, mut theirs) = pair_with(kind, policy()).await.unwrap();
        theirs.write_all(b"?").await.unwrap();
        ours.read_exact(&mut [0]).await.unwrap();
        let (control, group) = (ours.control(), counting(&ours.control()));
        let ((mut ours, told), seconds) = on_a_paused_clock(&what, play(ours, theirs)).await;
        assert_eq!(seconds, due, "{what}");
        if let Some(told) = told {
            assert_phase(&told, phase, &what);
        }
        assert_phase(&ours.status().reason.unwrap(), phase, &what);
        assert_phase(&ours.close().await.reason, phase, &what);
        assert_told(&control, &group, phase, &what).await;
    }
}

/// rule: close-3, close-4, end-1
#[tokio::test]
async fn the_bound_of_a_close() {
    over_all("close", Phase::Close, 7, |mut ours, theirs| async move {
        let report = ours.close().await;
        assert!(report.timed_out());
        drop(theirs);
        (ours, Some(report.reason))
    })
    .await;
}

/// rule: half-10, end-1
#[tokio::test]
async fn the_bound_of_a_half_open_connection() {
    over_all("half-open", Phase::HalfOpen, 11, |mut ours, theirs| async move {
        ours.close_write().await.unwrap();
        // The peer's system acknowledges our end in real time. An acknowledgement after the first seconds of the paused
        // clock would be traffic (rule: idle-2).
        std::thread::sleep(Duration::from_millis(100));
        let error = ours.read(&mut [0]).await.unwrap_err();
        drop(theirs);
        (ours, Some(Reason::from_io(error, Phase::Open)))
    })
    .await;
}

/// rule: idle-1, end-1
#[tokio::test]
async fn the_bound_of_an_idle_connection() {
    over_all("idle", Phase::Idle, 13, |mut ours, theirs| async move {
        let error = ours.read(&mut [0]).await.unwrap_err();
        drop(theirs);
        (ours, Some(Reason::from_io(error, Phase::Open)))
    })
    .await;
}

async fn assert_handshake<T>(what: &str, control: Control, shake: impl Future<Output = Result<T, Error>>) {
    let group = counting(&control);
    let (outcome, seconds) = on_a_paused_clock(what, async { shake.await.err().unwrap() }).await;
    assert_eq!(seconds, 5, "{what}");
    assert_phase(outcome.reason().unwrap(), Phase::Handshake, what);
    assert_told(&control, &group, Phase::Handshake, what).await;
}

/// rule: secure-5, end-1, end-6
#[tokio::test]
async fn the_bound_of_a_handshake() {
    let (tls, client_tls) = (shared_pki().server_tls(), shared_pki().client_tls());
    let (ours, _theirs) = tcp_pair_with(policy()).await.unwrap();
    assert_handshake("accept", ours.control(), TlsConnection::accept(ours, &tls)).await;
    let (ours, _theirs) = tcp_pair_with(policy()).await.unwrap();
    assert_handshake("connect", ours.control(), TlsConnection::connect(ours, &client_tls, "localhost")).await;
    let (ours, _theirs) = memory_pair_with(policy());
    assert_handshake("in memory", ours.control(), TlsConnection::accept(ours, &tls)).await;
    let (ours, _theirs) = tcp_pair_with(policy()).await.unwrap();
    let mut upgrading = UpgradableConnection::new(ours);
    assert_handshake("upgrade", upgrading.control(), async {
        let outcome = upgrading.start_tls(StartTls::server(&tls)).await;
        assert_phase(&upgrading.status().reason.unwrap(), Phase::Handshake, "upgrade");
        drop(upgrading);
        outcome
    })
    .await;
    let pair = tcp_pair_with(policy()).await.unwrap();
    let (mut upgrading, _theirs) = upgraded_over(pair, 1).await.unwrap();
    assert_handshake("TLS in TLS", upgrading.control(), async {
        let outcome = upgrading.start_tls(StartTls::server(&tls)).await;
        drop(upgrading);
        outcome
    })
    .await;
}

/// rule: secure-5, end-6, drain-3
#[tokio::test]
async fn the_limit_of_a_handshake_of_a_listener() {
    let tls = shared_pki().server_tls();
    for way in 0..3 {
        let listener = Listener::builder().policy(policy()).bind("127.0.0.1:0").await.unwrap();
        let _client = tokio::net::TcpStream::connect(listener.local_addr().as_inet().unwrap()).await.unwrap();
        let incoming = listener.accept().await.unwrap();
        let control = incoming.control();
        let what = format!("incoming, way {way}");
        let shaking = async {
            match way {
                0 => incoming.handshake(&tls).await.map(drop),
                1 => incoming.handshake_upgradable(&tls).await.map(drop),
                _ => incoming.finish(|connection| async move { never(connection).await }).await,
            }
        };
        let (outcome, seconds) = on_a_paused_clock(&what, shaking).await;
        assert_eq!(seconds, 5, "{what}");
        assert_phase(outcome.unwrap_err().reason().unwrap(), Phase::Handshake, &what);
        assert!(control.is_ended() && !control.is_aborted(), "{what}");
        assert_phase(&control.report().unwrap().reason, Phase::Handshake, &what);
        assert_eq!(listener.group().connections(), 0, "{what}");
    }
}

async fn never<T>(_kept: T) -> Result<(), Error> {
    std::future::pending().await
}
