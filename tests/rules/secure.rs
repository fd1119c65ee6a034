use std::time::{Duration, Instant};

use bowline::rustls::{self, AlertDescription};
use bowline::testing::{Kind, pair, raw_tcp_pair, shared_pki, tcp_pair, tcp_pair_with};
use bowline::{
    ClientTls, Error, Phase, Policy, Reason, ServerTls, Split, TcpConnection, TlsConnection, TlsError, TlsTransport,
    TlsVersion, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, clog, ended_together, expect, over, pattern, settle};

type Tls = TlsConnection<TcpConnection>;

async fn handshake(server: &ServerTls, client: &ClientTls, name: &str) -> (Result<Tls, Error>, Result<Tls, Error>) {
    let (c, s) = tcp_pair().await.unwrap();
    tokio::join!(TlsConnection::accept(s, server), TlsConnection::connect(c, client, name))
}

fn tls_error<T>(result: Result<T, Error>) -> TlsError {
    match result.err().expect("the handshake fails") {
        Error::Ended(Reason::Tls(error)) => (*error).clone(),
        other => panic!("{other:?}"),
    }
}

/// rule: secure-1
#[tokio::test]
async fn a_connection_exists_only_after_the_peer_is_verified() {
    bounded("tcp", async {
        let (client, server) = tcp_pair().await.unwrap();
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        let connecting = tokio::spawn(async move { TlsConnection::connect(client, &client_tls, "localhost").await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!connecting.is_finished());
        let server = TlsConnection::accept(server, &server_tls).await.unwrap();
        assert!(connecting.await.unwrap().unwrap().is_secure() && server.is_secure());
    })
    .await;
}

/// rule: secure-1, write-6
#[tokio::test]
async fn the_last_handshake_flight_leaves_with_the_first_write_or_the_next_poll() {
    for writes in [true, false] {
        bounded("tcp", async move {
            let (client, server) = tcp_pair().await.unwrap();
            let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
            let accepting = tokio::spawn(async move { TlsConnection::accept(server, &server_tls).await });
            let mut client = TlsConnection::connect(client, &client_tls, "localhost").await.unwrap();
            let hello = client.control().traffic().sent;
            if writes {
                client.write_all(b"x").await.unwrap();
                assert!(client.control().traffic().sent > hello);
            } else {
                tokio::task::yield_now().await;
                assert!(client.control().traffic().sent > hello);
            }
            // The client makes no more calls, but its Finished has to leave.
            let mut server = accepting.await.unwrap().unwrap();
            server.write_all(b"y").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'y');
            if writes {
                assert_eq!(server.read_u8().await.unwrap(), b'x');
            }
            let (ours, theirs) = tokio::join!(client.close(), server.close());
            assert!(ended_together(&ours, &theirs));
        })
        .await;
    }
}

/// rule: secure-2
#[tokio::test]
async fn data_in_the_last_flight_waits_until_the_handshake_is_reported() {
    bounded("tcp", async {
        let (client, server) = tcp_pair().await.unwrap();
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        // The client's Finished, its data and its close_notify arrive together.
        let sending = tokio::spawn(async move {
            let mut client = TlsConnection::client(client, &client_tls, "localhost").unwrap();
            client.write_all(b"with the Finished").await.unwrap();
            client.close_write().await.unwrap();
            client
        });
        let mut server = TlsConnection::accept(server, &server_tls).await.unwrap();
        assert!(server.tls().is_some());
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"with the Finished");
        sending.await.unwrap();
    })
    .await;
}

/// rule: secure-3
#[tokio::test]
async fn the_facts_are_there_and_stay_after_the_end() {
    let tls = [Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls, Kind::MemoryTls];
    for kind in tls {
        let (mut a, mut b) = pair(kind).await.unwrap();
        let (x, y) = tokio::join!(a.close(), b.close());
        assert!(ended_together(&x, &y));
        for end in [&a, &b] {
            let facts = end.as_tls().unwrap().tls().unwrap();
            let version = if kind == Kind::Tls12 { "TLSv1.2" } else { "TLSv1.3" };
            assert_eq!(facts.version_name(), version);
            assert!(facts.cipher_name().starts_with("TLS_") && facts.group_name().is_some());
            assert_eq!(facts.sni.as_deref(), Some("localhost"));
        }
    }
}

/// rule: secure-3
#[tokio::test]
async fn alpn_resumption_and_both_chains_are_reported() {
    let pki = shared_pki();
    let server = pki.server_tls_builder().alpn(["h2", "imap"]).client_ca_pem(pki.ca_pem()).build().unwrap();
    let me = pki.client("me");
    let client = pki.client_tls_builder().identity(me.chain_der(), me.key_der()).alpn(["imap"]).build().unwrap();
    for round in 0..2 {
        let (s, c) = handshake(&server, &client, "localhost").await;
        let (mut s, mut c) = (s.unwrap(), c.unwrap());
        settle(&mut s, &mut c).await;
        let (theirs, ours) = (s.tls().unwrap(), c.tls().unwrap());
        assert_eq!((theirs.alpn.as_deref(), ours.alpn.as_deref()), (Some(&b"imap"[..]), Some(&b"imap"[..])));
        assert_eq!((theirs.resumed, ours.resumed), (round == 1, round == 1));
        assert_eq!(*theirs.peer_chain, *me.chain_der());
        assert_eq!(ours.peer_chain, theirs.own_chain);
        assert_eq!(*ours.own_chain, *me.chain_der());
        let (x, y) = tokio::join!(s.close(), c.close());
        assert!(ended_together(&x, &y));
    }
}

/// rule: secure-4, end-1
#[tokio::test]
async fn a_failed_handshake_sends_the_right_alert_and_both_ends_report_it() {
    let pki = shared_pki();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let server = || pki.server_tls_builder().min_version(version).max_version(version);
        let client = || pki.client_tls_builder().min_version(version).max_version(version);
        let bad = |identity: bowline::testing::pki::Identity| {
            ServerTls::builder().identity(identity.chain_der(), identity.key_der()).build().unwrap()
        };
        let cases = [
            (bad(pki.from_other_ca()), client().build().unwrap(), AlertDescription::UnknownCA),
            (bad(pki.wrong_name()), client().build().unwrap(), AlertDescription::BadCertificate),
            (bad(pki.expired()), client().build().unwrap(), AlertDescription::CertificateExpired),
            (bad(pki.not_yet_valid()), client().build().unwrap(), AlertDescription::CertificateExpired),
        ];
        for (server_tls, client_tls, alert) in cases {
            let (s, c) = handshake(&server_tls, &client_tls, "localhost").await;
            let (s, c) = (tls_error(s), tls_error(c));
            assert!(matches!(c.error, rustls::Error::InvalidCertificate(_)), "{c:?}");
            assert_eq!((c.alert_sent, c.phase), (Some(alert), Phase::Handshake));
            assert_eq!(s.error, rustls::Error::AlertReceived(alert), "{version}");
        }
        // The two sides have no application protocol in common.
        let (s, c) =
            handshake(&server().alpn(["h2"]).build().unwrap(), &client().alpn(["imap"]).build().unwrap(), "localhost")
                .await;
        assert_eq!(tls_error(s).alert_sent, Some(AlertDescription::NoApplicationProtocol));
        assert_eq!(
            tls_error(c).error,
            rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol),
            "{version}"
        );
    }
}

/// rule: secure-6
#[tokio::test]
async fn a_client_whose_certificate_is_refused_learns_it_as_a_tls_failure() {
    let pki = shared_pki();
    let server = pki.server_tls_builder().client_ca_pem(pki.ca_pem()).build().unwrap();
    let stranger = pki.issue(bowline::testing::pki::Profile::client("stranger").other_ca());
    let clients = [
        (pki.client_tls(), AlertDescription::CertificateRequired),
        (
            pki.client_tls_builder().identity(stranger.chain_der(), stranger.key_der()).build().unwrap(),
            AlertDescription::UnknownCA,
        ),
    ];
    for (client, alert) in clients {
        // The reason is the same whether the task reads, or writes without end.
        for writes in [false, true] {
            let (server, client) = (server.clone(), client.clone());
            bounded(&format!("{alert:?}, writes: {writes}"), async move {
                let (s, c) = handshake(&server, &client, "localhost").await;
                let server_side = tls_error(s);
                assert_eq!(server_side.alert_sent, Some(alert));
                let mut c = c.expect("its own handshake is done");
                let error = loop {
                    let result = match writes {
                        true => c.write_all(&[1; 16_000]).await.map(|()| 1),
                        false => c.read(&mut [0; 1]).await,
                    };
                    match result {
                        Ok(0) => panic!("an end in order"),
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                let Error::Ended(Reason::Tls(error)) = Error::from(error) else { panic!() };
                assert_eq!(error.error, rustls::Error::AlertReceived(alert));
                assert!(matches!(c.close().await.reason, Reason::Tls(_)));
            })
            .await;
        }
    }
}

/// rule: secure-4
#[tokio::test]
async fn the_alert_gets_through_a_full_socket_and_fin_follows_it() {
    bounded("tcp", async {
        // The socket is a pipe in memory that holds 200 bytes.
        let (raw, server) = bowline::testing::pipe(200);
        let server = bowline::Stream::new(server);
        let tls = shared_pki().server_tls();
        let accepting = tokio::spawn(async move { TlsConnection::accept(server, &tls).await.map(|_| ()) });
        let (mut read, mut write) = tokio::io::split(raw);
        write.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        assert!(matches!(answer[..], [21, 3, _, 0, 2, 2, _]), "{answer:?}");
        write.shutdown().await.unwrap();
        let error = tls_error(accepting.await.unwrap());
        assert!(matches!(error.error, rustls::Error::InvalidMessage(_)), "{error:?}");
        assert!(error.alert_sent.is_some());
    })
    .await;
}

/// rule: secure-4
#[tokio::test]
async fn fin_and_no_reset_follows_the_alert_although_input_is_unread() {
    for _ in 0..20 {
        let (mut raw, server) = raw_tcp_pair().await.unwrap();
        let server = TcpConnection::new(server, Policy::default()).unwrap();
        let tls = shared_pki().server_tls();
        let accepting = tokio::spawn(async move { TlsConnection::accept(server, &tls).await.map(|_| ()) });
        // These are more bytes than any handshake reads.
        let (mut read, mut write) = raw.split();
        let request = [b'G'; 200_000];
        let (sent, answer) = tokio::join!(
            async {
                write.write_all(&request).await?;
                write.shutdown().await
            },
            async {
                let mut answer = Vec::new();
                read.read_to_end(&mut answer).await.map(|_| answer)
            }
        );
        sent.unwrap();
        assert!(matches!(answer.unwrap()[..], [21, 3, _, 0, 2, 2, _]));
        tls_error(accepting.await.unwrap());
    }
}

/// rule: secure-5
#[tokio::test]
async fn a_silent_peer_ends_a_handshake_at_the_deadline_in_both_roles() {
    let policy = Policy::default().handshake_timeout(Duration::from_millis(100));
    let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
    let (_silent, server) = tcp_pair_with(policy.clone()).await.unwrap();
    let error = TlsConnection::accept(server, &server_tls).await.err().unwrap();
    assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))), "{error:?}");
    let (client, _silent) = tcp_pair_with(policy).await.unwrap();
    let error = TlsConnection::connect(client, &client_tls, "localhost").await.err().unwrap();
    assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))), "{error:?}");
}

/// rule: secure-7
#[tokio::test]
async fn a_transport_that_only_reads_answers_a_key_update() {
    // OpenSSL requests a KeyUpdate with the command `K`.
    bounded("openssl", async {
        let pki = shared_pki();
        let listener = bowline::Listener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().as_inet().unwrap().port();
        let mut openssl = tokio::process::Command::new("openssl")
            .args(["s_client", "-tls1_3", "-msg", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl is installed (Debian package openssl)");
        let mut input = openssl.stdin.take().unwrap();
        let mut output = tokio::io::BufReader::new(openssl.stdout.take().unwrap());
        let mut server = listener.accept().await.unwrap().handshake(&pki.server_tls()).await.unwrap();
        input.write_all(b"first\n").await.unwrap();
        expect(&mut server, b"first\n").await;
        input.write_all(b"K\n").await.unwrap();
        let reading = tokio::spawn(async move {
            expect(&mut server, b"second\n").await;
            server
        });
        // OpenSSL sends its KeyUpdate, and gets our answer although the server only reads.
        let mut transcript = Vec::new();
        let (mut sent, mut answered) = (false, false);
        while !(sent && answered) {
            let n = tokio::io::AsyncBufReadExt::read_until(&mut output, b'\n', &mut transcript).await.unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&transcript));
            let line = String::from_utf8_lossy(&transcript).into_owned();
            sent |= line.starts_with(">>>") && line.contains("KeyUpdate");
            answered |= line.starts_with("<<<") && line.contains("KeyUpdate");
            transcript.clear();
        }
        input.write_all(b"second\n").await.unwrap();
        let mut server = reading.await.unwrap();
        let closing = tokio::spawn(async move { server.close().await });
        drop(input);
        drop(output);
        let _ = openssl.wait().await;
        closing.await.unwrap();
    })
    .await;
}

/// rule: secure-7, flow-4
#[tokio::test]
async fn a_reader_that_pauses_does_not_block_writing() {
    let tls = [Kind::Tls12, Kind::Tls13, Kind::Upgraded, Kind::TlsInTls];
    over(&tls, Policy::default(), |_, mut a, mut b| async move {
        b.write_all(&pattern(10_000)).await.unwrap();
        // `a` never reads, and writes many bytes.
        let writing = tokio::spawn(async move {
            a.write_all(&pattern(2_000_000)).await.unwrap();
            a.flush().await.unwrap();
            a
        });
        expect(&mut b, &pattern(2_000_000)).await;
        expect(&mut writing.await.unwrap(), &pattern(10_000)).await;
    })
    .await;
}

/// rule: secure-8
#[tokio::test]
async fn names_are_checked_and_sni_is_sent_for_names_only() {
    let pki = shared_pki();
    let (s, c) = handshake(&pki.server_tls(), &pki.client_tls(), "127.0.0.1").await;
    assert_eq!((s.unwrap().tls().unwrap().sni.clone(), c.unwrap().tls().unwrap().sni.clone()), (None, None));
    let (s, c) = handshake(&pki.server_tls(), &pki.client_tls(), "[::1]").await;
    assert!(s.is_ok() && c.is_ok());
    let (s, c) = handshake(&pki.server_tls(), &pki.client_tls(), "other.example").await;
    assert!(matches!(tls_error(c).error, rustls::Error::InvalidCertificate(_)));
    tls_error(s);
    let lax = ClientTls::builder().dangerous_no_verification().build().unwrap();
    let (s, c) = handshake(&pki.server_tls(), &lax, "other.example").await;
    assert!(s.is_ok() && c.is_ok());
    let (client, _server) = tcp_pair().await.unwrap();
    assert!(matches!(TlsConnection::client(client, &lax, "not a name"), Err(Error::Config(_))));
}

/// rule: secure-9
#[tokio::test]
async fn tls_1_2_is_the_layer_and_hybrid_key_exchange_the_default() {
    let pki = shared_pki();
    let (s, c) = handshake(&pki.server_tls(), &pki.client_tls(), "localhost").await;
    let group = c.unwrap().tls().unwrap().group_name();
    // ring has no hybrid exchange.
    let expected = if cfg!(feature = "aws-lc-rs") { "X25519MLKEM768" } else { "X25519" };
    assert_eq!(group.as_deref(), Some(expected));
    drop(s);
    let (mut raw, server) = raw_tcp_pair().await.unwrap();
    let server = TcpConnection::new(server, Policy::default()).unwrap();
    let tls = pki.server_tls();
    let accepting = tokio::spawn(async move { TlsConnection::accept(server, &tls).await.map(|_| ()) });
    // This is a ClientHello of TLS 1.0: version 3.1, no extensions.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 47, 1, 0]);
    raw.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap();
    assert!(matches!(answer[..], [21, 3, _, 0, 2, 2, 70 | 40]), "{answer:?}");
    drop(raw);
    tls_error(accepting.await.unwrap());
}

/// rule: secure-5, tcp-9, end-1
#[tokio::test]
async fn a_handshake_driven_by_any_task_keeps_its_deadline_and_reason() {
    let policy = Policy::default().handshake_timeout(Duration::from_millis(100));
    for by_writing in [false, true] {
        let (client, _server) = tcp_pair_with(policy.clone()).await.unwrap();
        let mut client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        let error = match by_writing {
            true => client.write_all(&[0; 200_000]).await.unwrap_err(),
            false => client.read(&mut [0; 1]).await.unwrap_err(),
        };
        assert!(matches!(Error::from(error).reason(), Some(Reason::TimedOut(Phase::Handshake))));
        let again = client.read(&mut [0; 1]).await.unwrap_err();
        assert!(matches!(Error::from(again).reason(), Some(Reason::TimedOut(Phase::Handshake))));
        assert!(matches!(client.status().reason, Some(Reason::TimedOut(Phase::Handshake))));
    }
}

/// rule: secure-4, tcp-9
#[tokio::test]
async fn a_failed_handshake_is_reported_when_its_alert_has_left_a_full_socket() {
    bounded("tcp", async {
        let (client, mut raw) = raw_tcp_pair().await.unwrap();
        let mut client = TcpConnection::new(client, Policy::default()).unwrap();
        clog(&mut client).await;
        let mut client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        raw.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let begun = Instant::now();
        let failing = tokio::spawn(async move { client.handshake().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        raw.read_to_end(&mut Vec::new()).await.unwrap();
        drop(raw);
        tls_error(failing.await.unwrap());
        assert!(begun.elapsed() < Duration::from_secs(15), "it waited for the handshake's deadline");
    })
    .await;
}

/// rule: secure-4, write-6
#[tokio::test]
async fn a_flush_that_waits_for_a_handshake_fails_with_it() {
    bounded("tls halves", async {
        let (client, mut raw) = raw_tcp_pair().await.unwrap();
        let client = TcpConnection::new(client, Policy::default()).unwrap();
        let client = TlsConnection::client(client, &shared_pki().client_tls(), "localhost").unwrap();
        let (mut read, mut write) = client.into_split();
        let flushing = tokio::spawn(async move { write.flush().await });
        tokio::task::yield_now().await;
        raw.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        assert!(read.read(&mut [0; 1]).await.is_err());
        assert!(flushing.await.unwrap().is_err());
    })
    .await;
}
