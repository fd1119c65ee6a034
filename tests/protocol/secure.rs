//! secure: the handshake and its facts.

use bowline::protocol::Runner;
use bowline::rustls::AlertDescription;
use bowline::testing::peer::{Event as Seen, RawTls};
use bowline::testing::{BoxTransport, raw_tcp_pair, shared_pki, tcp_pair};
use bowline::{Phase, Policy, Reason, StartTls, TcpConnection, TlsConnection, Transport as _, UpgradableConnection};
use tokio::io::AsyncWriteExt;

use crate::common::{bounded, expect, over_all};
use crate::probe::{Event, Probe, run, start};
use crate::setup::{as_client, as_server, client_and_raw, impatient, plain, plain_and_raw};

/// rule: secure-2, life-1
#[tokio::test]
async fn handshake_completed_is_called_once_before_data_in_the_last_flight() {
    bounded("tcp", async {
        let (client, server) = tcp_pair().await.unwrap();
        let client_tls = shared_pki().client_tls();
        let sending = tokio::spawn(async move {
            let mut client = TlsConnection::client(client, &client_tls, "localhost").unwrap();
            client.write_all(b"with the Finished").await.unwrap();
            client.close_write().await.unwrap();
            client.close().await
        });
        let running = run(Probe::quiet(), TlsConnection::server(server, &shared_pki().server_tls()).unwrap());
        assert!(running.task.await.unwrap().is_clean());
        let expected = ["made", "secured", "data", "read_closed(Clean)", "write_closed", "lost(closed)"];
        assert_eq!(running.told.names(), expected);
        assert_eq!(running.told.data(), b"with the Finished");
        sending.await.unwrap();
    })
    .await;
}

/// Every wrapper of a transport reports that the handshake has not been made yet.
///
/// rule: secure-2, life-1
#[tokio::test]
async fn handshake_completed_is_called_through_every_wrapper() {
    fn client(tcp: TcpConnection) -> TlsConnection<TcpConnection> {
        TlsConnection::client(tcp, &shared_pki().client_tls(), "localhost").unwrap()
    }
    for wrapping in ["none", "box", "upgradable", "box in upgradable", "upgradable in upgradable"] {
        bounded(wrapping, async move {
            let (ours, theirs) = tcp_pair().await.unwrap();
            let transport: BoxTransport = match wrapping {
                "none" => Box::new(client(ours)),
                "box" => Box::new(Box::new(client(ours)) as BoxTransport),
                "upgradable" => Box::new(UpgradableConnection::new(client(ours))),
                "box in upgradable" => Box::new(UpgradableConnection::new(Box::new(client(ours)) as BoxTransport)),
                _ => Box::new(UpgradableConnection::new(UpgradableConnection::new(client(ours)))),
            };
            let running = run(Probe::at("secured", |transport| transport.write(b"hello")), transport);
            let mut peer = TlsConnection::accept(theirs, &shared_pki().server_tls()).await.unwrap();
            expect(&mut peer, b"hello").await;
            running.handle.close();
            peer.close().await;
            assert!(running.task.await.unwrap().is_clean());
            assert_eq!(running.told.count("secured"), 1);
        })
        .await;
    }
}

/// rule: secure-3, upgrade-10
#[tokio::test]
async fn the_facts_are_there_from_handshake_done_on() {
    over_all(|kind, a, b| async move {
        let _b = b;
        let probe = Probe::on(move |event, transport| match event {
            Event::Made | Event::Secured => {
                assert_eq!((transport.tls().is_some(), transport.is_secure()), (kind.is_tls(), kind.is_tls()));
                if let Event::Secured = event {
                    assert_eq!(transport.tls().unwrap().sni.as_deref(), Some("localhost"));
                    transport.abort();
                } else if !kind.is_tls() {
                    transport.abort();
                }
            }
            _ => {}
        });
        let running = run(probe, a);
        assert_eq!(running.task.await.unwrap().reason.name(), "aborted");
    })
    .await;
}

/// rule: secure-4, life-1
#[tokio::test]
async fn a_failed_handshake_has_a_reason_and_its_alert_arrives() {
    bounded("the server's certificate", async {
        for begins in [true, false] {
            let (ours, theirs) = raw_tcp_pair().await.unwrap();
            let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
            let tls = shared_pki().client_tls();
            let running = if begins {
                let how = StartTls::client(&tls, "another.example");
                start(Runner::new(Probe::quiet(), UpgradableConnection::new(tcp)).begin_tls(how))
            } else {
                run(Probe::quiet(), TlsConnection::client(tcp, &tls, "another.example").unwrap())
            };
            running.handle.write("secret");
            let failed = RawTls::server(theirs, &shared_pki().server_tls()).await;
            // In TLS 1.3 the server may finish before the client has verified the certificate.
            let events = match failed {
                Ok(mut raw) => raw.observe().await.to_vec(),
                Err(failed) => failed.events,
            };
            assert_eq!(events, [Seen::Alert(AlertDescription::BadCertificate), Seen::Fin]);
            let Reason::Tls(error) = running.task.await.unwrap().reason else { panic!() };
            assert_eq!((error.phase, error.alert_sent), (Phase::Handshake, Some(AlertDescription::BadCertificate)));
            assert_eq!(running.told.names(), ["made", "lost(tls)"]);
        }
    })
    .await;
    bounded("garbage", async {
        let (a, mut raw) = plain_and_raw(Policy::default()).await;
        let running = start(Runner::new(Probe::quiet(), a).begin_tls(as_server()));
        raw.send(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(raw.observe().await, [Seen::Data(_), Seen::Fin]));
        assert_eq!(raw.clear_alerts(), [AlertDescription::DecodeError]);
        raw.fin().unwrap();
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "lost(tls)"]);
    })
    .await;
}

/// rule: secure-5
#[tokio::test]
async fn the_handshake_has_a_deadline() {
    bounded("a TLS connection", async {
        let (a, raw) = client_and_raw(impatient(50)).await;
        let running = run(Probe::quiet(), a);
        let reason = running.task.await.unwrap().reason;
        assert!(matches!(reason, Reason::TimedOut(Phase::Handshake)), "{reason:?}");
        assert_eq!(running.told.names(), ["made", "lost(timed_out)"]);
        drop(raw);
    })
    .await;
}

/// The clock is paused, so thirty seconds pass at once. The test waits for no socket.
///
/// rule: secure-5, upgrade-7
#[tokio::test(start_paused = true)]
async fn the_deadline_is_on_by_default_and_unsent_plaintext_does_not_stop_it() {
    for clogged in [false, true] {
        let (a, b) = bowline::testing::memory_pair();
        let begun = tokio::time::Instant::now();
        let probe = Probe::at("made", move |transport| {
            if clogged {
                transport.write(&[0; 200_000]);
            }
            transport.start_tls(as_client()).unwrap();
        });
        let running = run(probe, UpgradableConnection::new(a));
        let reason = running.task.await.unwrap().reason;
        assert!(matches!(reason, Reason::TimedOut(Phase::Handshake)), "{reason:?}");
        assert_eq!(begun.elapsed().as_secs(), 30);
        drop(b);
    }
}

/// rule: secure-7, flow-4
#[tokio::test]
async fn a_paused_reader_answers_a_key_update_and_notices_an_alert() {
    bounded("tcp", async {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let tcp = TcpConnection::new(ours, Policy::default()).unwrap();
        let probe = Probe::at("made", |transport| transport.pause_reading());
        let running = run(probe, TlsConnection::server(tcp, &shared_pki().server_tls()).unwrap());
        let mut raw = RawTls::client(theirs, &shared_pki().client_tls(), "localhost").await.unwrap();
        // The handshake completes although reading is paused.
        running.told.event("secured").await;
        raw.key_update(true).send().await.unwrap();
        assert!(raw.wait_for(Seen::KeyUpdate { requested: false }).await);
        running.handle.write("with the new keys");
        assert_eq!(raw.receive(17).await, b"with the new keys");
        raw.alert(AlertDescription::AccessDenied).send().await.unwrap();
        raw.fin().unwrap();
        let Reason::Tls(error) = running.handle.lost().await else { panic!("{:?}", running.told.names()) };
        assert_eq!(error.error, bowline::rustls::Error::AlertReceived(AlertDescription::AccessDenied));
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "secured", "lost(tls)"]);
    })
    .await;
}

/// rule: secure-7
#[tokio::test]
async fn pausing_before_an_upgrade_does_not_stall_it() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let probe = Probe::at("made", |transport| {
            transport.pause_reading();
            transport.start_tls(as_client()).unwrap();
            transport.write(b"secret");
        });
        let running = run(probe, a);
        b.start_tls(as_server()).await.unwrap();
        expect(&mut b, b"secret").await;
        b.write_all(b"late").await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(running.told.names(), ["made", "secured"]);
        running.handle.resume_reading();
        running.told.len(4).await;
        running.handle.abort();
        running.task.await.unwrap();
    })
    .await;
}
