use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::protocol::{CallbackResult, Conn, Protocol, Runner};
use bowline::testing::{Kind, pair_with, shared_pki, tcp_pair_with};
use bowline::{
    AcceptFailure, CloseReport, Connector, Control, DrainReport, Listener, Observer, Outcome, Policy, Reason, Refusal,
    Role, SessionFacts, TlsConnection, TlsListener, TlsTransport, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{BOUND, KNOWS_DELIVERY, bounded, ended_together, expect, over_all, read_all, settle};

/// An observer that records the events of connections of one role.
#[derive(Default)]
struct Notes {
    role: Option<Role>,
    events: Mutex<Vec<String>>,
}

impl Notes {
    fn of(role: Option<Role>) -> Arc<Self> {
        Arc::new(Self { role, ..Self::default() })
    }

    fn policy(self: &Arc<Self>) -> Policy {
        Policy::default().observer(Arc::clone(self) as Arc<dyn Observer>)
    }

    fn note(&self, connection: Option<&Control>, event: impl Into<String>) {
        if let Some(connection) = connection {
            // rule: observe-2. Each of these takes a lock of the connection or of its layers, if it has one.
            let _ = (connection.report(), connection.tls(), connection.is_ended(), connection.traffic());
            if self.role.is_some_and(|role| role != connection.role()) {
                return;
            }
        }
        self.events.lock().unwrap().push(event.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Waits until this many events have come.
    async fn wait(&self, count: usize) -> Vec<String> {
        while self.events.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.take()
    }
}

impl Observer for Notes {
    fn opened(&self, connection: &Control) {
        assert!(connection.began().elapsed() < BOUND);
        assert!(connection.began_at().elapsed().is_ok_and(|age| age < BOUND));
        self.note(Some(connection), "opened");
    }

    fn refused(&self, refusal: &Refusal) {
        self.note(None, format!("refused {}", refusal.peer_addr.as_inet().is_some()));
    }

    fn accept_failed(&self, failure: &AcceptFailure<'_>) {
        self.note(None, format!("accept failed: {}", failure.fault.name()));
    }

    fn handshake_done(&self, connection: &Control, facts: &SessionFacts, took: Duration) {
        assert!(took < BOUND);
        assert_eq!(connection.tls().unwrap().version, facts.version);
        self.note(Some(connection), format!("handshake {}", facts.version_name()));
    }

    fn handshake_failed(&self, connection: &Control, reason: &Reason, took: Duration) {
        assert!(took < BOUND);
        self.note(Some(connection), format!("handshake failed: {}", reason.name()));
    }

    fn began_in_plaintext(&self, connection: &Control) {
        self.note(Some(connection), "plaintext");
    }

    fn ended(&self, connection: &Control, report: &CloseReport) {
        let kept = connection.report().unwrap();
        assert_eq!(kept.reason.name(), report.reason.name());
        self.note(Some(connection), format!("ended: {}", report.reason.name()));
    }

    fn draining(&self, open: usize) {
        self.note(None, format!("draining {open}"));
    }

    fn drained(&self, report: &DrainReport) {
        self.note(None, format!("drained {}", report.total()));
    }
}

/// Returns the events that an observer gets for the handshakes of a connection of this kind.
fn handshakes(kind: Kind) -> Vec<&'static str> {
    match kind {
        Kind::Tcp | Kind::Memory => vec![],
        Kind::Tls12 => vec!["handshake TLSv1.2"],
        Kind::TlsInTls => vec!["handshake TLSv1.3"; 2],
        _ => vec!["handshake TLSv1.3"],
    }
}

/// The events of a connection of this kind that ends like this.
fn events(kind: Kind, end: &'static str) -> Vec<&'static str> {
    [vec!["opened"], handshakes(kind), vec![end]].concat()
}

/// rule: observe-1, end-9
#[tokio::test]
async fn an_observer_sees_every_connection_from_its_beginning_to_its_end() {
    for kind in Kind::ALL {
        bounded(&kind.to_string(), async move {
            // A pipe in memory was opened by nobody, so both of its ends are servers.
            let role = kind.has_socket().then_some(Role::Client);
            for end in ["ended: closed", "ended: aborted", "ended: dropped"] {
                let notes = Notes::of(role);
                let (mut a, mut b) = pair_with(kind, notes.policy()).await.unwrap();
                settle(&mut a, &mut b).await;
                let control = a.control();
                match end {
                    "ended: closed" => drop(tokio::join!(a.close(), b.close())),
                    "ended: aborted" => a.abort(),
                    _ => {}
                }
                drop(a);
                let told = notes.take();
                let reason = control.report().unwrap().reason.name();
                assert_eq!(format!("ended: {reason}"), end);
                let count = |event: &str| told.iter().filter(|told| *told == event).count();
                if role.is_some() {
                    assert_eq!(told, events(kind, end), "{kind}");
                } else {
                    assert_eq!(
                        (count("opened"), count("handshake TLSv1.3")),
                        (2, 2 * handshakes(kind).len()),
                        "{kind}"
                    );
                    assert!(count(end) > 0, "{kind}: {told:?}");
                }
                drop(b);
            }
        })
        .await;
    }
}

/// Both engines, accepted and connected.
///
/// rule: observe-1, drain-3
#[tokio::test]
async fn an_observer_of_a_listener_sees_its_handshakes_its_refusals_and_its_drain() {
    bounded("a listener", async {
        for express in [false, true] {
            let notes = Notes::of(None);
            let listener =
                Listener::builder().policy(notes.policy()).max_per_peer(2).bind("127.0.0.1:0").await.unwrap();
            let (address, group) = (listener.local_addr(), listener.group().clone());
            let (mut server_tls, mut client_tls) = (shared_pki().server_tls(), shared_pki().client_tls());
            if express {
                (server_tls, client_tls) = (server_tls.express().unwrap(), client_tls.express().unwrap());
            }
            let mut listener = TlsListener::builder().tls_or_plaintext(listener, server_tls);

            let tcp = Connector::new().connect_addr(address.clone()).await.unwrap();
            let mut client = TlsConnection::connect(tcp, &client_tls, "localhost").await.unwrap();
            let mut server = listener.accept().await.unwrap();
            assert_eq!(server.tls().unwrap().version, server.control().tls().unwrap().version);
            settle(&mut client, &mut server).await;
            assert_eq!(notes.take(), ["opened", "handshake TLSv1.3"]);

            let mut plain = Connector::new().connect_addr(address.clone()).await.unwrap();
            plain.write_all(b"GET").await.unwrap();
            let mut in_plaintext = listener.accept().await.unwrap();
            assert_eq!(notes.take(), ["opened", "plaintext"]);

            // The reset may come before `connect` returns.
            let third = Connector::new().connect_addr(address.clone()).await;
            assert_eq!(notes.wait(1).await, ["refused true"]);
            drop(third);

            plain.abort();
            assert!(read_all(&mut in_plaintext).await.1.is_err());
            drop(in_plaintext);
            assert_eq!(notes.take(), ["ended: reset"]);

            let mut confused = Connector::new().connect_addr(address).await.unwrap();
            confused.write_all(&[22, 3, 1, 0, 4, 99, 0, 0, 0]).await.unwrap();
            assert_eq!(notes.wait(3).await, ["opened", "handshake failed: tls", "ended: tls"]);

            let draining = tokio::spawn(async move { group.drain(None).await });
            server.control().draining().await;
            let _ = tokio::join!(server.close(), client.close());
            assert_eq!(draining.await.unwrap().count(Outcome::Closed), 1);
            assert_eq!(notes.take(), ["draining 1", "ended: closed", "drained 1"]);
        }
    })
    .await;
}

/// rule: observe-1, end-6
#[tokio::test]
async fn a_handshake_that_does_not_finish_is_reported_before_the_end() {
    bounded("handshakes", async {
        for how in ["dropped", "aborted", "timed_out", "truncated", "reset"] {
            let notes = Notes::of(Some(Role::Server));
            let policy =
                notes.policy().handshake_timeout(Duration::from_millis(if how == "timed_out" { 10 } else { 20_000 }));
            let (mut client, server) = tcp_pair_with(policy).await.unwrap();
            let control = server.control();
            let server_tls = shared_pki().server_tls();
            let mut handshake = Box::pin(TlsConnection::accept(server, &server_tls));
            if how != "timed_out" {
                assert!(tokio::time::timeout(Duration::ZERO, &mut handshake).await.is_err());
            }
            match how {
                "aborted" => control.abort(),
                "truncated" => client.close_write().await.unwrap(),
                "reset" => client.abort(),
                _ => {}
            }
            if how != "dropped" {
                handshake.await.err().unwrap();
            } else {
                drop(handshake);
            }
            assert_eq!(notes.take(), ["opened", &format!("handshake failed: {how}"), &format!("ended: {how}")]);
            assert_eq!(control.report().unwrap().reason.name(), how);
        }
    })
    .await;
}

/// rule: observe-1, secure-5, end-6
#[tokio::test]
async fn a_preparation_that_takes_too_long_ends_as_timed_out() {
    bounded("preparations", async {
        for by_tls_listener in [false, true] {
            let notes = Notes::of(Some(Role::Server));
            let policy = notes.policy().handshake_timeout(Duration::from_millis(10));
            let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
            let _client = Connector::new().connect_addr(listener.local_addr()).await.unwrap();
            let mut ready;
            if by_tls_listener {
                ready = TlsListener::builder().tls_or_plaintext(listener, shared_pki().server_tls());
                tokio::spawn(async move { ready.accept().await });
            } else {
                let preparing = listener.accept().await.unwrap().finish(|mut tcp| async move {
                    tcp.read_u8().await?;
                    Ok(tcp)
                });
                assert_eq!(preparing.await.err().unwrap().reason().map(Reason::name), Some("timed_out"));
            }
            let last = notes.wait(2).await.pop();
            assert_eq!(last.as_deref(), Some("ended: timed_out"), "{by_tls_listener}");
        }
    })
    .await;
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        transport.write(data);
        if data == b"fail" {
            return Err("enough".into());
        }
        Ok(data.len())
    }
}

/// The callback interface.
///
/// rule: observe-1, life-3
#[tokio::test]
async fn an_observer_sees_the_ends_of_the_callback_interface() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.has_socket()) {
        bounded(&kind.to_string(), async move {
            for (end, last) in [("ended: closed", b"good"), ("ended: protocol", b"fail"), ("ended: dropped", b"drop")] {
                let notes = Notes::of(Some(Role::Server));
                let (mut client, server) = pair_with(kind, notes.policy()).await.unwrap();
                let running = tokio::spawn(Runner::new(Echo, server).run());
                client.write_all(last).await.unwrap();
                if end != "ended: protocol" {
                    expect(&mut client, last).await;
                }
                match end {
                    "ended: closed" => drop(client.close().await),
                    "ended: dropped" => running.abort(),
                    _ => {}
                }
                let _ = running.await;
                // The server ends last, and without `KNOWS_DELIVERY` the side that ends last cannot confirm its
                // delivery.
                let end = if end == "ended: closed" && !KNOWS_DELIVERY { "ended: unconfirmed" } else { end };
                assert_eq!(notes.take(), events(kind, end), "{kind}");
            }
        })
        .await;
    }
}

/// Panics in every method, and counts the calls.
#[derive(Default)]
struct Bad(AtomicUsize);

impl Bad {
    fn fail(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        // `resume_unwind` panics without printing a message.
        std::panic::resume_unwind(Box::new("an observer that panics"));
    }
}

impl Observer for Bad {
    fn opened(&self, _: &Control) {
        self.fail();
    }

    fn handshake_done(&self, _: &Control, _: &SessionFacts, _: Duration) {
        self.fail();
    }

    fn ended(&self, _: &Control, _: &CloseReport) {
        self.fail();
    }
}

/// rule: observe-2, life-7
#[tokio::test]
async fn a_panic_of_an_observer_harms_neither_the_connection_nor_the_other_observers() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.has_socket()) {
        bounded(&kind.to_string(), async move {
            let (bad, notes) = (Arc::new(Bad::default()), Notes::of(Some(Role::Client)));
            let policy = Policy::default().observer(Arc::clone(&bad) as Arc<dyn Observer>);
            let policy = policy.observer(Arc::clone(&notes) as Arc<dyn Observer>);
            let (mut a, mut b) = pair_with(kind, policy).await.unwrap();
            settle(&mut a, &mut b).await;
            let (ours, theirs) = tokio::join!(a.close(), b.close());
            assert!(ended_together(&ours, &theirs));
            assert_eq!(bad.0.load(Ordering::SeqCst), 2 * (2 + handshakes(kind).len()));
            assert_eq!(notes.take(), events(kind, "ended: closed"), "{kind}");
        })
        .await;
    }
}

/// The reader and the watcher run on different threads.
///
/// rule: end-9
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_waits_for_the_loss_never_sees_another_reason_than_the_reader() {
    for kind in [Kind::Tcp, Kind::Tls12, Kind::Tls13, Kind::TlsInTls] {
        for _ in 0..5 {
            let (mut a, mut b) = pair_with(kind, Policy::default()).await.unwrap();
            settle(&mut a, &mut b).await;
            let control = a.control();
            let reading = tokio::spawn(async move { (read_all(&mut a).await.1.unwrap_err().name(), a) });
            let watching = tokio::spawn(async move {
                control.lost().await;
                loop {
                    match control.report() {
                        Some(report) => return report.reason.name(),
                        None => tokio::task::yield_now().await,
                    }
                }
            });
            b.abort();
            let (seen, connection) = reading.await.unwrap();
            drop(connection);
            assert_eq!((seen, watching.await.unwrap()), ("reset", "reset"), "{kind}");
        }
    }
}

/// rule: observe-1
#[tokio::test]
async fn policies_are_equal_if_their_observers_are() {
    let notes = Notes::of(None);
    let policy = notes.policy();
    assert_eq!(policy, policy.clone());
    assert_ne!(policy, Policy::default());
    over_all(|kind, a, b| async move {
        assert_eq!(a.control().tls().is_some(), kind.is_tls());
        drop(b);
    })
    .await;
}
