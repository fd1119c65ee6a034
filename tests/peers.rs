//! The helpers that misbehave do what they promise.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bowline::rustls::{AlertDescription, ContentType, ProtocolVersion};
use bowline::testing::peer::{Cut, CutEnd, Event, Meddler, RawTcp, RawTls};
use bowline::testing::{pki::Pki, raw_tcp_pair};
use bowline::{ClientTls, ServerTls, TlsVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(20);
const A_MOMENT: Duration = Duration::from_millis(100);
const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

fn configs(version: TlsVersion) -> (ServerTls, ClientTls) {
    let pki = Pki::new();
    let client = pki.client_tls_builder().min_version(version).max_version(version).build().unwrap();
    (pki.server_tls(), client)
}

async fn raw_pair(version: TlsVersion) -> (RawTls, RawTls) {
    let (server_tls, client_tls) = configs(version);
    let (client, server) = raw_tcp_pair().await.unwrap();
    let client = RawTls::client(client, &client_tls, "localhost");
    let (client, server) = tokio::join!(client, RawTls::server(server, &server_tls));
    (client.unwrap(), server.unwrap())
}

/// A meddler between two raw peers: client, meddler, server.
async fn meddled() -> (RawTcp, Meddler, RawTcp) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let meddler = Meddler::to(listener.local_addr().unwrap()).await.unwrap();
    let client = RawTcp::connect(meddler.addr()).await.unwrap();
    let server = RawTcp::new(listener.accept().await.unwrap().0);
    (client, meddler, server)
}

#[tokio::test]
async fn raw_tls_peers_understand_each_other_in_both_versions() {
    for version in VERSIONS {
        let (mut client, mut server) = raw_pair(version).await;
        let wire = if version == TlsVersion::V1_2 { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
        assert_eq!((client.version(), server.version()), (wire, wire));
        client.data(&[7; 40_000]).send().await.unwrap();
        assert_eq!(server.receive(40_000).await, [7; 40_000]);
        server.data(b"yes").close_notify().close_notify().data(b"and no").alert(AlertDescription::InternalError);
        server.send().await.unwrap();
        server.fin().unwrap();
        let seen = [
            Event::Data(3),
            Event::CloseNotify,
            Event::CloseNotify,
            Event::Data(6),
            Event::Alert(AlertDescription::InternalError),
            Event::Fin,
        ];
        assert_eq!(client.observe().await, seen);
        assert_eq!(client.received(), b"yesand no");
        client.reset().await;
        assert_eq!(server.observe().await, [Event::Data(40_000), Event::Reset]);
    }
}

#[tokio::test]
async fn a_raw_tls_peer_changes_its_keys_and_reports_garbage() {
    let (mut client, mut server) = raw_pair(TlsVersion::V1_3).await;
    client.key_update(true).data(b"new keys").key_update(false).data(b"newer ones").send().await.unwrap();
    client.trickle().await.unwrap();
    client.clear(b"HTTP/1.1 200 OK\r\n").send().await.unwrap();
    client.fin().unwrap();
    let seen = [
        Event::KeyUpdate { requested: true },
        Event::Data(8),
        Event::KeyUpdate { requested: false },
        Event::Data(10),
        Event::Fin,
    ];
    assert_eq!(server.observe().await, seen);
    assert_eq!(server.unopened(), b"HTTP/1.1 200 OK\r\n");
    server.record(ContentType::ApplicationData, b"").clear(&[23, 3, 3, 0, 1, 0]).send().await.unwrap();
    assert!(client.wait_for(Event::Garbage).await);
}

#[tokio::test]
async fn a_refused_handshake_reports_the_reaction_of_the_other_side() {
    let (server_tls, _) = configs(TlsVersion::V1_3);
    let (client, server) = raw_tcp_pair().await.unwrap();
    let stranger = Pki::new().client_tls();
    let client = RawTls::client(client, &stranger, "localhost");
    let (client, server) = tokio::join!(client, RawTls::server(server, &server_tls));
    assert_eq!(client.unwrap_err().events, [Event::Fin]);
    // The stranger's CA has the same name, and another key.
    assert_eq!(server.unwrap_err().events, [Event::Alert(AlertDescription::DecryptError), Event::Fin]);
}

#[tokio::test]
async fn silence_is_seen_and_is_not_the_end() {
    let (client, server) = raw_tcp_pair().await.unwrap();
    let (mut client, mut server) = (RawTcp::new(client).patience(A_MOMENT), RawTcp::new(server));
    assert_eq!(client.observe().await, [Event::Silence]);
    server.trickle(b"after all").await.unwrap();
    server.reset().await;
    assert_eq!(client.observe().await, [Event::Silence, Event::Data(9), Event::Reset]);
    assert_eq!(client.received(), b"after all");
}

#[tokio::test]
async fn without_commands_a_meddler_forwards_half_closes_and_ends_by_itself() {
    let (mut client, meddler, mut server) = meddled().await;
    client.send(b"question").await.unwrap();
    client.fin().unwrap();
    assert_eq!(server.observe().await, [Event::Data(8), Event::Fin]);
    server.send(b"answer").await.unwrap();
    server.fin().unwrap();
    assert_eq!(client.observe().await, [Event::Data(6), Event::Fin]);
    timeout(SOON, meddler.ended()).await.unwrap();
    assert_eq!((meddler.to_server().forwarded(), meddler.to_client().forwarded()), (8, 6));
}

#[tokio::test]
async fn a_meddler_passes_reset_on() {
    let (mut client, meddler, mut server) = meddled().await;
    client.send(b"half a").await.unwrap();
    server.receive(6).await;
    client.reset().await;
    assert_eq!(server.observe().await, [Event::Data(6), Event::Reset]);
    timeout(SOON, meddler.ended()).await.unwrap();
}

#[tokio::test]
async fn a_meddler_ends_a_direction_at_the_byte() {
    for offset in [0, 1, 5, 10] {
        let (mut client, meddler, mut server) = meddled().await;
        meddler.to_server().fin_after(offset);
        client.send(b"0123456789").await.unwrap();
        assert_eq!(server.observe().await.last(), Some(&Event::Fin));
        assert_eq!(server.received().len() as u64, offset);
        // The other direction continues.
        server.send(b"still here").await.unwrap();
        assert_eq!(client.receive(10).await, b"still here");
    }
}

#[tokio::test]
async fn a_meddler_resets_both_sides_at_the_byte() {
    for offset in [0, 1, 5, 10] {
        let (mut client, meddler, mut server) = meddled().await;
        meddler.to_server().rst_after(offset);
        client.send(b"0123456789").await.unwrap();
        assert_eq!(server.observe().await.last(), Some(&Event::Reset));
        assert_eq!(server.received().len() as u64, offset);
        assert_eq!(client.observe().await, [Event::Reset]);
        timeout(SOON, meddler.ended()).await.unwrap();
    }
}

#[tokio::test]
async fn a_meddler_falls_silent_at_the_byte() {
    let (mut client, meddler, server) = meddled().await;
    let mut server = server.patience(A_MOMENT);
    meddler.to_server().stall_after(4);
    client.send(b"0123456789").await.unwrap();
    client.fin().unwrap();
    assert_eq!(server.observe().await, [Event::Data(4), Event::Silence]);
    server.send(b"are you there").await.unwrap();
    assert_eq!(client.receive(13).await, b"are you there");
    // Both sides have ended their send halves, but the stalled direction stays stalled until another command.
    server.fin().unwrap();
    assert_eq!(client.observe().await.last(), Some(&Event::Fin));
    assert_eq!(server.observe().await, [Event::Data(4), Event::Silence]);
    meddler.to_server().fin_after(0);
    assert_eq!(server.observe().await, [Event::Data(4), Event::Silence, Event::Fin]);
    timeout(SOON, meddler.ended()).await.unwrap();
}

#[tokio::test]
async fn a_meddler_injects_and_corrupts_at_the_byte() {
    let (mut client, meddler, mut server) = meddled().await;
    meddler.to_server().inject(4, b"<here>").corrupt(6).inject(10, b"<end>");
    client.send(b"0123456789").await.unwrap();
    client.fin().unwrap();
    server.observe().await;
    let expected = [&b"0123<here>45"[..], &[!b'6'], b"789<end>"].concat();
    assert_eq!(server.received(), expected);
}

#[tokio::test]
async fn a_meddler_makes_segments_of_one_byte() {
    let (mut client, meddler, server) = meddled().await;
    meddler.to_server().trickle();
    let text = [b'x'; 3_000];
    client.send(&text).await.unwrap();
    client.fin().unwrap();
    let mut server = server.into_stream();
    let (mut buf, mut reads, mut all) = ([0; 4096], 0, 0);
    while let n @ 1.. = server.read(&mut buf).await.unwrap() {
        (reads, all) = (reads + 1, all + n);
    }
    assert_eq!(all, 3_000);
    assert!(reads > 300, "{reads} reads");
}

#[tokio::test]
async fn a_meddler_forwards_at_the_requested_speed() {
    let (mut client, meddler, mut server) = meddled().await;
    meddler.to_server().slow(10_000);
    let begin = Instant::now();
    client.send(&[0; 3_000]).await.unwrap();
    server.receive(3_000).await;
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_meddler_that_does_not_read_fills_the_sender_until_it_resumes() {
    let (client, meddler, mut server) = meddled().await;
    meddler.to_server().stop_reading();
    let mut client = client.patience(A_MOMENT);
    let sent = client.talk(64 << 20).await;
    assert!(sent < 64 << 20);
    assert_eq!(server.received(), b"");
    meddler.to_server().resume();
    let sent = usize::try_from(sent).unwrap();
    assert!(server.receive(sent).await.len() >= sent);
}

#[tokio::test]
async fn a_meddler_that_is_dropped_ends_both_sides() {
    let (mut client, meddler, mut server) = meddled().await;
    client.send(b"first").await.unwrap();
    server.receive(5).await;
    drop(meddler);
    assert_ne!(client.observe().await.last(), Some(&Event::Silence));
    assert_ne!(server.observe().await.last(), Some(&Event::Silence));
}

#[tokio::test]
async fn a_cut_stream_ends_as_requested() {
    for (ending, expected) in [(CutEnd::Fin, "Some(Ok(0))"), (CutEnd::Reset, "Some(Err(Kind(ConnectionReset)))")] {
        let (mut peer, ours) = tokio::io::duplex(64);
        peer.write_all(b"0123456789").await.unwrap();
        let mut ours = Cut::after(ours, 3, ending);
        let mut buf = [0; 64];
        assert_eq!(ours.read(&mut buf).await.unwrap(), 3);
        assert_eq!(format!("{:?}", Some(ours.read(&mut buf).await)), expected);
        assert_eq!(ours.write(b"x").await.is_err(), ending == CutEnd::Reset);
        assert_eq!(ours.read_bytes(), 3);
    }
    let (_peer, ours) = tokio::io::duplex(64);
    assert!(timeout(A_MOMENT, Cut::after(ours, 0, CutEnd::Silence).read(&mut [0; 8])).await.is_err());
}
