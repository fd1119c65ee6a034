//! upgrade: from plaintext to TLS.

use std::time::Duration;

use bowline::protocol::Runner;
use bowline::testing::peer::Event as Seen;
use bowline::testing::{memory_pair, shared_pki, tcp_pair_with};
use bowline::{
    Error, Leftover, Phase, Policy, Reason, StartTls, TcpConnection, Transport as _, UpgradableConnection, UpgradeError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, clog, expect, over_all, pattern, read_all, settle};
use crate::probe::{Answer, Event, KEEP, Probe, Running, Told, pull, push, run, start};
use crate::setup::{Upgradable, as_client, as_server, hasty, impatient, plain, plain_and_raw};

/// A server that answers the line STARTTLS, processes no byte after it, and echoes in TLS.
fn starttls_server(how: StartTls) -> Probe {
    let mut how = Some(how);
    Probe::new(move |event, transport| {
        let Event::Data(data) = event else { return Ok(KEEP) };
        if transport.is_secure() {
            transport.write(data);
            return Ok(KEEP);
        }
        let Some(end) = data.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(Answer { unread: data.len(), ..KEEP });
        };
        assert_eq!(&data[..end], b"STARTTLS", "an injected command was acted on");
        transport.write(b"220 go ahead\r\n");
        transport.start_tls(how.take().unwrap())?;
        Ok(Answer { unread: data.len() - end - 2, ..KEEP })
    })
}

fn which(error: &Error) -> &UpgradeError {
    let Error::Upgrade(error) = error else { panic!("{error:?}") };
    error
}

fn refused(told: &Told) -> UpgradeError {
    let Some(Reason::Protocol(error)) = told.reason() else { panic!("{:?}", told.names()) };
    which(error.downcast_ref::<Error>().unwrap()).clone()
}

/// Ends both in order, the peer second.
async fn end(running: Running, mut b: impl bowline::Transport) {
    running.handle.close();
    let (rest, ended) = read_all(&mut b).await;
    assert!(rest.is_empty() && ended.is_ok(), "{ended:?}");
    b.close().await;
    assert!(running.task.await.unwrap().is_clean());
}

/// rule: upgrade-1, upgrade-6, upgrade-10
#[tokio::test]
async fn plaintext_leaves_first_and_all_later_bytes_are_encrypted() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let probe = Probe::on(|event, transport| match event {
            Event::Made => {
                assert!(!transport.is_secure());
                transport.write(&pattern(2_000_000));
                transport.start_tls(as_client()).unwrap();
                transport.write(b"secret");
            }
            Event::Secured => {
                let facts = transport.tls().unwrap();
                assert_eq!(facts.sni.as_deref(), Some("localhost"));
                assert!(!facts.peer_chain.is_empty());
                transport.write(b" and more");
            }
            _ => {}
        });
        let running = run(probe, a);
        expect(&mut b, &pattern(2_000_000)).await;
        b.start_tls(as_server()).await.unwrap();
        expect(&mut b, b"secret and more").await;
        assert_eq!(running.handle.peer_addr(), b.local_addr());
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-2, upgrade-3
#[tokio::test]
async fn a_command_injected_after_starttls_is_never_carried_out() {
    bounded("tcp", async {
        for policy in [None, Some(Leftover::Refuse), Some(Leftover::Feed)] {
            let (a, mut raw) = plain_and_raw(Policy::default()).await;
            let how = policy.map_or(as_server(), |policy| as_server().leftover(policy));
            let running = run(starttls_server(how), a);
            raw.send(b"STARTTLS\r\nRCPT TO:<victim>\r\n").await.unwrap();
            raw.observe().await;
            assert_eq!(raw.events().last(), Some(&Seen::Reset));
            running.task.await.unwrap();
            assert!(matches!(refused(&running.told), UpgradeError::Leftover { count: 18 }));
            assert_eq!(running.told.names(), ["made", "data", "lost(protocol)"]);
        }
    })
    .await;
}

/// rule: upgrade-2, upgrade-3
#[tokio::test]
async fn unprocessed_bytes_are_counted_and_later_ones_are_not_delivered() {
    bounded("memory", async {
        let (a, mut b) = memory_pair();
        let mut junk = b"STARTTLS\r\n".to_vec();
        junk.resize(10 + 20_000, b'!');
        b.write_all(&junk).await.unwrap();
        let running = run(starttls_server(as_server()), UpgradableConnection::new(a));
        running.task.await.unwrap();
        // The count is the number of bytes that one read of the pipe returned.
        let refused = refused(&running.told);
        assert!(matches!(refused, UpgradeError::Leftover { count: 8_000..=20_000 }), "{refused:?}");
        assert_eq!(running.told.count("data"), 1);
    })
    .await;
}

/// rule: upgrade-2
#[tokio::test]
async fn a_client_hello_glued_to_the_command_works() {
    bounded("memory", async {
        let (a, b) = memory_pair();
        let gluing = tokio::spawn(async move {
            let mut b = UpgradableConnection::new(b);
            b.write_all(b"STARTTLS\r\n").await.unwrap();
            b.start_tls(as_client().leftover(Leftover::Refuse)).await.unwrap();
            b
        });
        // The ClientHello follows the command before any task reads. Our answer to it is encrypted.
        tokio::task::yield_now().await;
        let mut how = Some(as_server());
        let probe = Probe::new(move |event, transport| {
            match event {
                Event::Data(data) if !transport.is_secure() => {
                    assert!(data.starts_with(b"STARTTLS\r\n\x16"), "the test did not glue");
                    transport.start_tls(how.take().unwrap())?;
                    return Ok(Answer { unread: data.len() - 10, ..KEEP });
                }
                Event::Data(data) => transport.write(data),
                _ => {}
            }
            Ok(KEEP)
        });
        let running = run(probe, UpgradableConnection::new(a));
        let mut b = gluing.await.unwrap();
        b.write_all(b"secured").await.unwrap();
        expect(&mut b, b"secured").await;
        assert_eq!(running.told.names(), ["made", "data", "secured", "data"]);
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-2
#[tokio::test]
async fn a_client_refuses_any_leftover() {
    bounded("tcp", async {
        let (a, mut raw) = plain_and_raw(Policy::default()).await;
        let probe = Probe::new(|event, transport| {
            let Event::Data(data) = event else { return Ok(KEEP) };
            transport.start_tls(as_client())?;
            Ok(Answer { unread: data.len() - 14, ..KEEP })
        });
        let running = run(probe, a);
        raw.send(b"220 go ahead\r\n\x16\x03\x03").await.unwrap();
        running.task.await.unwrap();
        assert!(matches!(refused(&running.told), UpgradeError::Leftover { count: 3 }));
    })
    .await;
}

/// rule: upgrade-4
#[tokio::test]
async fn the_role_defaults_to_that_of_the_tcp_side() {
    bounded("tcp", async {
        let how = || StartTls::as_made(&shared_pki().client_tls(), "localhost", &shared_pki().server_tls());
        let (a, b) = plain().await;
        let upgrade = move || Probe::at("made", move |transport| transport.start_tls(how()).unwrap());
        let (ours, theirs) = (run(upgrade(), a), run(upgrade(), b));
        ours.told.event("secured").await;
        theirs.told.event("secured").await;
        ours.handle.close();
        theirs.handle.close();
        ours.task.await.unwrap();
        theirs.task.await.unwrap();
    })
    .await;
}

/// rule: upgrade-5
#[tokio::test]
async fn an_upgrade_at_the_wrong_time_is_an_error_and_changes_nothing() {
    bounded("plaintext", async {
        let (a, mut b) = plain().await;
        let probe = Probe::on(|event, transport| match event {
            Event::Made => {
                assert!(matches!(which(&transport.stop_tls().unwrap_err()), UpgradeError::NotSecure));
                transport.close_write();
                assert!(matches!(which(&transport.start_tls(as_client()).unwrap_err()), UpgradeError::SendClosed));
            }
            Event::Data(_) => {
                transport.close();
                assert!(matches!(which(&transport.start_tls(as_client()).unwrap_err()), UpgradeError::SendClosed));
            }
            _ => {}
        });
        let running = run(probe, a);
        assert_eq!(b.read(&mut [0; 1]).await.unwrap(), 0);
        b.write_all(b"plain").await.unwrap();
        b.close().await;
        assert!(running.task.await.unwrap().is_clean());
        let error = running.handle.start_tls(as_client()).await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::Failed(Reason::Closed)), "{error:?}");
        let error = running.handle.stop_tls().await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::Failed(Reason::Closed)), "{error:?}");
    })
    .await;
    bounded("the peer's end", async {
        let (a, mut b) = plain().await;
        let probe = Probe::at("read_closed", |transport| {
            assert!(matches!(which(&transport.start_tls(as_client()).unwrap_err()), UpgradeError::PeerEnded));
            transport.write(b"still plain");
        });
        let running = run(probe, a);
        b.close_write().await.unwrap();
        expect(&mut b, b"still plain").await;
        let error = running.handle.start_tls(as_client()).await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::PeerEnded));
        end(running, b).await;
    })
    .await;
    bounded("a dead connection", async {
        let (a, b) = plain().await;
        let running = run(
            Probe::at("made", |transport| {
                transport.abort();
                let error = transport.start_tls(as_client()).unwrap_err();
                assert!(matches!(which(&error), UpgradeError::Failed(Reason::Aborted)));
            }),
            a,
        );
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "lost(aborted)"]);
        let error = running.handle.start_tls(as_client()).await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::Failed(Reason::Aborted)));
        drop(b);
    })
    .await;
    over_all(|kind, a, mut b| async move {
        if matches!(kind, bowline::testing::Kind::Upgraded | bowline::testing::Kind::TlsInTls) {
            return;
        }
        let probe = Probe::at("made", |transport| {
            assert!(matches!(transport.start_tls(as_client()).unwrap_err(), Error::Unsupported(_)));
            assert!(matches!(transport.stop_tls().unwrap_err(), Error::Unsupported(_)));
            transport.write(b"nothing has changed");
        });
        let running = run(probe, a);
        expect(&mut b, b"nothing has changed").await;
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-5
#[tokio::test]
async fn a_second_upgrade_is_refused_until_the_handshake_has_ended() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let in_progress = |transport: &mut dyn bowline::protocol::Conn| {
            assert!(matches!(which(&transport.start_tls(as_client()).unwrap_err()), UpgradeError::InProgress));
            assert!(matches!(which(&transport.stop_tls().unwrap_err()), UpgradeError::InProgress));
        };
        let probe = Probe::on(move |event, transport| match event {
            Event::Made => {
                transport.start_tls(as_client()).unwrap();
                in_progress(transport);
                transport.set_timer(Some(Duration::from_millis(5)));
            }
            Event::Timer => in_progress(transport),
            _ => {}
        });
        let running = run(probe, a);
        // The timer fires during the handshake.
        running.told.event("timer").await;
        assert!(!running.told.has("secured"));
        let error = running.handle.start_tls(as_client()).await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::InProgress));
        b.start_tls(as_server()).await.unwrap();
        running.told.event("secured").await;
        b.write_all(b"x").await.unwrap();
        running.told.len(1).await;
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-5, life-3
#[tokio::test]
async fn a_callback_that_returns_an_upgrade_error_ends_with_that_reason() {
    over_all(|_, a, b| async move {
        let _b = b;
        let running = run(
            Probe::new(|_, transport| {
                transport.close_write();
                transport.start_tls(as_client())?;
                Ok(KEEP)
            }),
            a,
        );
        let Reason::Protocol(error) = running.task.await.unwrap().reason else { panic!() };
        let error = error.downcast_ref::<Error>().unwrap();
        assert!(matches!(error, Error::Upgrade(UpgradeError::SendClosed) | Error::Unsupported(_)), "{error:?}");
    })
    .await;
}

/// rule: upgrade-6, secure-4
#[tokio::test]
async fn a_failed_upgrade_is_reported_on_both_sides_and_ends_the_connection() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let running = run(Probe::half_closeable(), a);
        let wrong = StartTls::client(&shared_pki().client_tls(), "another.example");
        let reply = running.handle.start_tls(wrong);
        let theirs = b.start_tls(as_server()).await.unwrap_err();
        let ours = reply.await.unwrap_err();
        let UpgradeError::Failed(Reason::Tls(ours)) = which(&ours) else { panic!() };
        let UpgradeError::Failed(Reason::Tls(theirs)) = which(&theirs) else { panic!() };
        assert!(matches!(ours.error, bowline::rustls::Error::InvalidCertificate(_)), "{ours:?}");
        assert!(matches!(theirs.error, bowline::rustls::Error::AlertReceived(_)), "{theirs:?}");
        let report = running.task.await.unwrap();
        assert!(matches!(report.reason, Reason::Tls(_)), "{report:?}");
        assert_eq!(running.told.names(), ["made", "lost(tls)"]);
    })
    .await;
    bounded("it stalls", async {
        let (a, _b) = tcp_pair_with(impatient(50)).await.unwrap();
        let running = run(Probe::half_closeable(), UpgradableConnection::new(a));
        let error = running.handle.start_tls(as_client()).await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::Failed(Reason::TimedOut(Phase::Handshake))), "{error:?}");
        running.task.await.unwrap();
        assert_eq!(running.told.names(), ["made", "lost(timed_out)"]);
    })
    .await;
}

/// rule: upgrade-6
#[tokio::test]
async fn the_reply_to_a_call_after_the_end_gives_the_reason_of_the_end() {
    bounded("tcp", async {
        for how in ["aborted", "reset", "protocol"] {
            let (mut a, mut b) = plain().await;
            clog(&mut a).await;
            let running = run(Probe::half_closeable(), a);
            running.handle.write(vec![0; 1_000_000]);
            let reply = running.handle.start_tls(as_client());
            running.told.event("made").await;
            tokio::task::yield_now().await;
            match how {
                "aborted" => running.handle.abort(),
                "reset" => b.abort(),
                _ => running.handle.fail("mine"),
            }
            let error = reply.await.unwrap_err();
            let UpgradeError::Failed(reason) = which(&error) else { panic!("{error:?}") };
            assert_eq!(reason.name(), how);
            assert_eq!(running.task.await.unwrap().reason.name(), reason.name());
        }
    })
    .await;
}

/// rule: upgrade-7, flow-2
#[tokio::test]
async fn a_producer_survives_the_upgrade_and_drives_the_secured_transport() {
    bounded("pull", async {
        let (a, mut b) = plain().await;
        let told = Told::default();
        let producer = pull(told.clone(), pattern(90_000), 9_000);
        let mut producer = Some(producer);
        let probe = Probe::on(move |event, transport| {
            if let Event::Made = event {
                transport.register_producer(producer.take().unwrap()).unwrap();
                transport.write(b"plain");
                transport.start_tls(as_client()).unwrap();
            }
        });
        let running = run(probe, a);
        expect(&mut b, b"plain").await;
        b.start_tls(as_server()).await.unwrap();
        expect(&mut b, &pattern(90_000)).await;
        assert_eq!((told.count("produce"), told.count("stop")), (10, 0));
        end(running, b).await;
    })
    .await;
    bounded("push", async {
        let (a, mut b) = plain().await;
        let probe = Probe::at("made", |transport| transport.start_tls(as_client()).unwrap());
        let told = probe.told();
        let running = run(probe, a);
        running.handle.register_producer(push(told)).await.unwrap();
        // The marks also apply before the handshake is done.
        running.handle.write(pattern(100_000));
        running.told.event("pause").await;
        assert!(!running.told.has("secured"));
        b.start_tls(as_server()).await.unwrap();
        expect(&mut b, &pattern(100_000)).await;
        running.told.event("resume").await;
        running.handle.write("more");
        expect(&mut b, b"more").await;
        running.handle.unregister_producer();
        running.told.forget("writable");
        assert_eq!(running.told.names(), ["made", "pause", "secured", "resume"]);
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-7, close-9, half-5
#[tokio::test]
async fn close_and_half_close_right_after_the_upgrade() {
    for (last, half) in [(&b""[..], false), (b"last", false), (b"", true), (b"last", true)] {
        bounded("tcp", async move {
            let (a, mut b) = plain().await;
            let probe = Probe::at("made", move |transport| {
                transport.start_tls(as_client()).unwrap();
                transport.write(last);
                if half { transport.close_write() } else { transport.close() }
            });
            let running = run(probe, a);
            if last.is_empty() && !half {
                // There is nothing to finish, so the connection ends at once.
                assert!(b.start_tls(as_server()).await.is_err());
                assert_eq!(running.task.await.unwrap().reason.name(), "closed");
                assert_eq!(running.told.names(), ["made", "lost(closed)"]);
                return;
            }
            b.start_tls(as_server()).await.unwrap();
            let (received, end) = read_all(&mut b).await;
            assert_eq!((&received[..], end.is_ok()), (last, true));
            b.close().await;
            assert!(running.task.await.unwrap().is_clean());
            assert_eq!(running.told.names()[..2], ["made", "secured"]);
        })
        .await;
    }
}

/// rule: upgrade-8
#[tokio::test]
async fn tls_inside_tls() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let mut rounds = 0;
        let probe = Probe::on(move |event, transport| match event {
            Event::Made => transport.start_tls(as_client()).unwrap(),
            Event::Secured => {
                rounds += 1;
                transport.write(b"secured");
                if rounds < 3 {
                    transport.start_tls(as_client()).unwrap();
                }
            }
            _ => {}
        });
        let running = run(probe, a);
        for _ in 0..3 {
            b.start_tls(as_server()).await.unwrap();
            expect(&mut b, b"secured").await;
        }
        assert_eq!(running.told.count("secured"), 3);
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-9
#[tokio::test]
async fn downgrade_and_upgrade_again_lose_nothing() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let mut rounds = 0;
        let probe = Probe::on(move |event, transport| match event {
            Event::Made => transport.start_tls(as_client()).unwrap(),
            Event::Secured => {
                transport.write(b"in tls");
                transport.stop_tls().unwrap();
                transport.write(b"plain");
            }
            Event::Plain => {
                assert!(!transport.is_secure());
                rounds += 1;
                if rounds < 3 {
                    transport.start_tls(as_client()).unwrap();
                }
            }
            _ => {}
        });
        let running = run(probe, a);
        for _ in 0..3 {
            b.start_tls(as_server()).await.unwrap();
            expect(&mut b, b"in tls").await;
            b.stop_tls().await.unwrap();
            expect(&mut b, b"plain").await;
        }
        assert_eq!(running.told.names(), ["made", "secured", "plain", "secured", "plain", "secured", "plain"]);
        b.write_all(b"at last").await.unwrap();
        running.told.len(7).await;
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-9
#[tokio::test]
async fn unread_bytes_and_plaintext_after_close_notify_are_delivered_in_order() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let probe = Probe::new(|event, transport| {
            match event {
                Event::Made => transport.start_tls(as_client())?,
                Event::Data(data) if transport.is_secure() => {
                    // The protocol processes none of these bytes: they are delivered again in plaintext, followed by
                    // the rest.
                    if data.ends_with(b"stop ") {
                        transport.stop_tls()?;
                    }
                    return Ok(Answer { unread: data.len(), ..KEEP });
                }
                _ => {}
            }
            Ok(KEEP)
        });
        let running = run(probe, a);
        b.start_tls(as_server()).await.unwrap();
        b.write_all(b"unread, stop ").await.unwrap();
        b.stop_tls().await.unwrap();
        b.write_all(b"plain").await.unwrap();
        running.told.event("plain").await;
        running.told.until(|told| told.data().ends_with(b"plain")).await;
        let all = running.told.all();
        let place = all.iter().position(|event| event.name() == "plain").unwrap();
        let behind: Vec<u8> = all[place..]
            .iter()
            .filter_map(|event| if let Event::Data(data) = event { Some(&data[..]) } else { None })
            .flatten()
            .copied()
            .collect();
        assert_eq!(String::from_utf8_lossy(&behind), "unread, stop plain");
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-9, upgrade-6, life-5
#[tokio::test]
async fn the_handle_upgrades_and_downgrades_and_gets_the_outcome() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let running = run(Probe::half_closeable(), a);
        for _ in 0..2 {
            running.handle.write("plain");
            let reply = running.handle.start_tls(as_client());
            running.handle.write("secret");
            expect(&mut b, b"plain").await;
            b.start_tls(as_server()).await.unwrap();
            reply.await.unwrap();
            expect(&mut b, b"secret").await;
            let reply = running.handle.stop_tls();
            b.stop_tls().await.unwrap();
            reply.await.unwrap();
        }
        // The call takes effect even if no task awaits the reply.
        drop(running.handle.start_tls(as_client()));
        b.start_tls(as_server()).await.unwrap();
        running.handle.write("x");
        expect(&mut b, b"x").await;
        end(running, b).await;
    })
    .await;
}

/// rule: upgrade-9, close-3
#[tokio::test]
async fn a_downgrade_with_a_silent_peer_or_a_full_socket_ends_at_close_timeout() {
    bounded("silence", async {
        let (running, _b) = secured(hasty(80)).await;
        let error = running.handle.stop_tls().await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::Failed(Reason::TimedOut(Phase::Close))), "{error:?}");
        assert!(matches!(running.task.await.unwrap().reason, Reason::TimedOut(Phase::Close)));
    })
    .await;
    bounded("a full socket", async {
        let (running, _b) = secured(hasty(80)).await;
        running.handle.write(vec![0; 30_000_000]);
        let error = running.handle.stop_tls().await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::Failed(Reason::TimedOut(Phase::Close))), "{error:?}");
        running.task.await.unwrap();
    })
    .await;
}

async fn secured(policy: Policy) -> (Running, Upgradable) {
    let (a, b) = tcp_pair_with(policy).await.unwrap();
    let mut b: UpgradableConnection<TcpConnection> = UpgradableConnection::new(b);
    let running = start(Runner::new(Probe::half_closeable(), UpgradableConnection::new(a)).begin_tls(as_client()));
    b.start_tls(as_server()).await.unwrap();
    running.told.event("secured").await;
    (running, b)
}

/// rule: upgrade-9, close-1
#[tokio::test]
async fn close_right_after_a_downgrade_ends_all_layers_in_order() {
    bounded("tcp", async {
        let (running, mut b) = secured(Policy::default()).await;
        drop(running.handle.stop_tls());
        running.handle.close();
        assert!(read_all(&mut b).await.1.is_ok());
        b.close().await;
        let report = running.task.await.unwrap();
        assert!(report.is_clean() && report.layers.iter().all(|layer| layer.marker_sent), "{report:?}");
    })
    .await;
}

/// rule: upgrade-2, upgrade-8
#[tokio::test]
async fn leftover_inside_a_record_is_refused_in_tls_too() {
    bounded("tcp", async {
        let (mut a, mut b) = plain().await;
        let (x, y) = tokio::join!(a.start_tls(as_client()), b.start_tls(as_server()));
        x.and(y).unwrap();
        settle(&mut a, &mut b).await;
        let probe = Probe::new(|event, transport| {
            let Event::Data(data) = event else { return Ok(KEEP) };
            transport.start_tls(as_server())?;
            Ok(Answer { unread: data.len() - 10, ..KEEP })
        });
        let running = run(probe, b);
        a.write_all(b"STARTTLS\r\nEVIL").await.unwrap();
        running.task.await.unwrap();
        assert!(matches!(refused(&running.told), UpgradeError::Leftover { count: 4 }));
    })
    .await;
}

/// A producer writes in pieces, with an upgrade between them: all bytes arrive in order.
///
/// rule: upgrade-1, upgrade-7, write-1
#[tokio::test]
async fn a_pull_producer_after_start_tls_waits_for_the_handshake() {
    bounded("tcp", async {
        let (a, mut b) = plain().await;
        let probe = Probe::at("made", |transport| {
            transport.write(b"220\n");
            transport.start_tls(as_client()).unwrap();
        });
        let told = probe.told();
        let runner = Runner::new(probe, a);
        let handle = runner.handle();
        let running = start(runner);
        running.told.event("made").await;
        handle.register_producer(pull(told, pattern(100_000), 10_000)).await.unwrap();
        expect(&mut b, b"220\n").await;
        b.start_tls(as_server()).await.unwrap();
        expect(&mut b, &pattern(100_000)).await;
        end(running, b).await;
    })
    .await;
}

/// A service that checks before it sends the go-ahead.
fn asking_server() -> Probe {
    Probe::on(|event, transport| {
        let Event::Data(_) = event else { return };
        match transport.may_start_tls() {
            Ok(()) => {
                transport.write(b"220\n");
                transport.start_tls(as_server()).unwrap();
                assert!(matches!(which(&transport.may_start_tls().unwrap_err()), UpgradeError::InProgress));
            }
            Err(error) => {
                assert!(matches!(which(&error), UpgradeError::TooManyLayers { limit: 2 }), "{error:?}");
                assert!(transport.start_tls(as_server()).is_err());
                transport.write(b"500\n");
            }
        }
    })
}

/// rule: upgrade-12, upgrade-5
#[tokio::test]
async fn one_layer_too_many_is_refused_before_the_go_ahead() {
    bounded("tcp", async {
        let policy = Policy::default().max_layers(2);
        let (a, b) = tcp_pair_with(policy).await.unwrap();
        let mut a: Upgradable = UpgradableConnection::new(a);
        let running = run(asking_server(), UpgradableConnection::new(b));
        for _ in 0..2 {
            a.write_all(b"?").await.unwrap();
            expect(&mut a, b"220\n").await;
            a.start_tls(as_client()).await.unwrap();
        }
        a.write_all(b"?").await.unwrap();
        expect(&mut a, b"500\n").await;
        let error = running.handle.start_tls(as_server()).await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::TooManyLayers { limit: 2 }), "{error:?}");
        // With one layer fewer, an upgrade is allowed again.
        let (x, y) = tokio::join!(a.stop_tls(), running.handle.stop_tls());
        x.and(y).unwrap();
        a.write_all(b"?").await.unwrap();
        expect(&mut a, b"220\n").await;
        a.start_tls(as_client()).await.unwrap();
        running.handle.write("bye");
        expect(&mut a, b"bye").await;
        end(running, a).await;
    })
    .await;
}

/// rule: upgrade-11
#[tokio::test]
async fn lent_bytes_and_bytes_in_the_kernel_are_leftover_together() {
    bounded("tcp", async {
        let (a, mut raw) = plain_and_raw(Policy::default()).await;
        let probe = Probe::new(|event, transport| {
            let Event::Data(data) = event else { return Ok(KEEP) };
            transport.pause_reading();
            Ok(Answer { unread: data.len() - 1, ..KEEP })
        });
        let running = run(probe, a);
        raw.send(b"Slent").await.unwrap();
        running.told.event("data").await;
        // Reading is paused, so this alert stays in the kernel. TLS 1.2 servers send such warnings.
        raw.send(b"\x15\x03\x03\x00\x02\x01\x00").await.unwrap();
        let error = running.handle.start_tls(as_client()).await.unwrap_err();
        assert!(matches!(which(&error), UpgradeError::Leftover { count: 11 }), "{error:?}");
        raw.observe().await;
        assert_eq!(raw.events(), [Seen::Reset], "a ClientHello has left");
        running.task.await.unwrap();
        assert!(matches!(refused(&running.told), UpgradeError::Leftover { count: 11 }));
    })
    .await;
}
