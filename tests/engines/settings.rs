//! The settings of a rustls configuration: both engines obey them, or they are refused by name.

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::sync::Arc;

use bowline::config::WarningKind;
use bowline::core::engine::EngineKind;
use bowline::core::session::Session;
use bowline::rustls::{self, ClientConfig, ServerConfig};
use bowline::testing::{raw_tcp_pair, shared_pki};
use bowline::{ClientTls, Error, Policy, ServerTls, TcpConnection, TlsConnection, TlsVersion, Transport, Watermarks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::setup::{SOON, VERSIONS};
use crate::wires::{client, sessions, settle};

fn plain_server() -> ServerConfig {
    ServerConfig::clone(&crate::wires::server(shared_pki(), false, None).config())
}

fn plain_client(version: TlsVersion) -> ClientConfig {
    ClientConfig::clone(&client(shared_pki(), version, false, None).config())
}

fn server_of(config: ServerConfig, express: bool) -> ServerTls {
    let tls = ServerTls::from(Arc::new(config));
    if express { tls.express().unwrap() } else { tls }
}

fn client_of(config: ClientConfig, express: bool) -> ClientTls {
    let tls = ClientTls::from(Arc::new(config));
    if express { tls.express().unwrap() } else { tls }
}

/// Both roles with this `max_fragment_size`.
fn small_records(version: TlsVersion, size: usize, express: bool) -> [Session; 2] {
    let mut config = plain_client(version);
    config.max_fragment_size = Some(size);
    let client = client_of(config, express);
    let mut config = plain_server();
    config.max_fragment_size = Some(size);
    sessions(&client, &server_of(config, express))
}

/// Sends data from one to the other in several ways. Returns the lengths of the records, and the received data.
fn sent(both: &mut [Session; 2], from: usize, data: &[u8]) -> (Vec<usize>, Vec<u8>) {
    let (mut lengths, mut received) = (Vec::new(), Vec::new());
    let parts = data.split_at(data.len() / 3);
    for (n, part) in [parts.0, parts.1].into_iter().enumerate() {
        if n == 1 {
            both[from].cork();
        }
        assert_eq!(both[from].write(&[IoSlice::new(part)]).unwrap(), part.len());
        both[from].uncork();
        let records = both[from].transmit();
        let mut rest = records;
        while let Some(header) = rest.first_chunk::<5>() {
            let len = 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
            lengths.push(len);
            rest = &rest[len..];
        }
        received.extend(std::mem::take(&mut settle(both)[1 - from]));
    }
    (lengths, received)
}

/// rule: secure-11
#[test]
fn both_engines_send_records_of_the_configured_length() {
    let data: Vec<u8> = (0..12_000).map(|n| n as u8).collect();
    for (version, size) in VERSIONS.into_iter().flat_map(|version| [32, 512, 5_000, 16_389].map(|size| (version, size)))
    {
        let mut all = Vec::new();
        for express in [false, true] {
            let mut both = small_records(version, size, express);
            settle(&mut both);
            for from in [0, 1] {
                let (lengths, received) = sent(&mut both, from, &data);
                assert!(received == data, "{version}, {size}, {express}");
                // The setting does not count the bytes of the record protection.
                assert!(lengths.iter().all(|len| *len <= size + 24), "{version}, {size}, {express}: {lengths:?}");
                all.push(lengths);
            }
        }
        assert!(all.iter().all(|lengths| *lengths == all[0]), "{version}, {size}: {all:?}");
    }
}

/// rule: secure-11
#[test]
fn an_invalid_fragment_size_is_refused_by_name() {
    for express in [false, true] {
        for size in [0, 31, 16_390, usize::MAX] {
            let mut config = plain_server();
            config.max_fragment_size = Some(size);
            let refused = server_of(config, express).session(Watermarks::default()).map(|_| ()).unwrap_err();
            assert!(matches!(refused, Error::Config(_)), "{refused:?}");
            assert!(refused.to_string().contains("max_fragment_size"), "{refused}");
        }
    }
}

/// rule: secure-11
#[test]
fn a_setting_that_no_engine_obeys_is_turned_off_or_refused_by_name() {
    let mut server = plain_server();
    (server.max_early_data_size, server.send_half_rtt_data) = (16_384, true);
    let mut client = plain_client(TlsVersion::V1_3);
    client.enable_early_data = true;
    let (server, client) = (Arc::new(server), Arc::new(client));

    let tls = ServerTls::from(Arc::clone(&server));
    assert_eq!((tls.config().max_early_data_size, tls.config().send_half_rtt_data), (0, false));
    let told: Vec<_> = tls.warnings().iter().map(|warning| (warning.kind, warning.to_string())).collect();
    assert!(told.iter().all(|(kind, _)| *kind == WarningKind::TurnedOff));
    assert!(told[0].1.contains("max_early_data_size") && told[1].1.contains("send_half_rtt_data"), "{told:?}");
    assert_eq!(server.max_early_data_size, 16_384, "the configuration that was handed in is not changed");

    let tls = ClientTls::from(Arc::clone(&client));
    assert!(!tls.config().enable_early_data);
    assert!(tls.warnings()[0].to_string().contains("enable_early_data"));

    let own_chain = Arc::from([]);
    let refused =
        Session::server(EngineKind::Rustls, server, own_chain, Watermarks::default()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("max_early_data_size"), "{refused}");
    let name = bowline::config::server_name("localhost").unwrap();
    let refused = Session::client(EngineKind::Rustls, client, name, Arc::from([]), Watermarks::default())
        .map(|_| ())
        .unwrap_err();
    assert!(refused.to_string().contains("enable_early_data"), "{refused}");
}

/// A configuration that changes nothing is not copied.
#[test]
fn a_configuration_that_both_engines_obey_is_not_copied() {
    let (server, client) = (Arc::new(plain_server()), Arc::new(plain_client(TlsVersion::V1_3)));
    let (server_tls, client_tls) = (ServerTls::from(Arc::clone(&server)), ClientTls::from(Arc::clone(&client)));
    assert!(Arc::ptr_eq(&server_tls.config(), &server) && server_tls.warnings().is_empty());
    assert!(Arc::ptr_eq(&client_tls.config(), &client) && client_tls.warnings().is_empty());
}

/// Sessions without tickets: rustls accepts early data only with stateful sessions.
#[derive(Debug)]
struct NoTickets;

impl rustls::server::ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }
    fn lifetime(&self) -> u32 {
        0
    }
    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// A client that sends early data if it can. Returns whether the server reported them as accepted.
fn early(mut stream: std::net::TcpStream, config: Arc<ClientConfig>) -> io::Result<bool> {
    let name = bowline::config::server_name("localhost").unwrap();
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    let is_sent = tls.early_data().map(|mut early| early.write(b"early, ")).transpose()?.is_some();
    tls.complete_io(&mut stream)?;
    let is_accepted = is_sent && tls.is_early_data_accepted();
    let mut both = rustls::Stream::new(&mut tls, &mut stream);
    both.write_all(b"late")?;
    io::Read::read_exact(&mut both, &mut [0; 2])?;
    tls.send_close_notify();
    tls.complete_io(&mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(is_accepted)
}

/// rule: secure-11
#[tokio::test(flavor = "multi_thread")]
async fn early_data_that_is_reported_as_accepted_is_delivered() {
    for express in [false, true] {
        let mut config = plain_server();
        config.max_early_data_size = 16_384;
        config.ticketer = Arc::new(NoTickets);
        let server = server_of(config, express);
        let mut config = plain_client(TlsVersion::V1_3);
        config.enable_early_data = true;
        let config = Arc::new(config);
        // The first connection gets the ticket, the second one uses it.
        for _ in 0..2 {
            let (theirs, ours) = raw_tcp_pair().await.unwrap();
            let theirs = theirs.into_std().unwrap();
            theirs.set_nonblocking(false).unwrap();
            let config = Arc::clone(&config);
            let telling = tokio::task::spawn_blocking(move || early(theirs, config));
            let ours = TcpConnection::new(ours, Policy::default()).unwrap();
            let mut received = Vec::new();
            let serving = async {
                let mut ours = TlsConnection::accept(ours, &server).await.unwrap();
                ours.write_all(b"hi").await.unwrap();
                ours.read_to_end(&mut received).await.unwrap();
                ours.close().await;
            };
            timeout(SOON, serving).await.unwrap();
            let is_accepted = telling.await.unwrap().unwrap();
            let expected: &[u8] = if is_accepted { b"early, late" } else { b"late" };
            assert_eq!(received, expected, "express {express}, accepted {is_accepted}");
        }
    }
}

/// How many of twelve simultaneous clients resume, after one connection that has received tickets.
fn resumed_of_twelve(client: &ClientTls, server: &ServerTls) -> usize {
    settle(&mut sessions(client, server));
    let mut all: Vec<_> = (0..12).map(|_| sessions(client, server)).collect();
    all.iter_mut().for_each(|both| drop(settle(both)));
    all.iter().filter(|[client, _]| client.facts().unwrap().resumed).count()
}

/// rule: secure-11
#[test]
fn as_many_connections_resume_at_once_as_tickets_are_sent_and_kept() {
    for express in [false, true] {
        let client = |version: TlsVersion| {
            let builder = ClientTls::builder().root(shared_pki().ca_der()).min_version(version).max_version(version);
            if express { builder.express() } else { builder }
        };
        let server = || {
            let me = shared_pki().server(&[]);
            let builder = ServerTls::builder().identity(me.chain_der(), me.key_der());
            if express { builder.express() } else { builder }
        };
        let of_twelve = |keep: Option<usize>, send: Option<u8>, version| {
            let client = keep.into_iter().fold(client(version), |client, keep| client.keep_tickets(keep));
            let server = send.into_iter().fold(server(), |server, send| server.send_tickets(send));
            resumed_of_twelve(&client.build().unwrap(), &server.build().unwrap())
        };
        let tls13 = TlsVersion::V1_3;
        assert_eq!(of_twelve(None, None, tls13), 2, "rustls sends two");
        assert_eq!(of_twelve(None, Some(12), tls13), 12);
        assert_eq!(of_twelve(Some(5), Some(12), tls13), 5);
        assert_eq!(of_twelve(None, Some(20), tls13), 12, "16 are kept, and 12 asked for");
        assert_eq!(of_twelve(None, Some(0), tls13), 0);
        assert_eq!(of_twelve(Some(0), Some(12), tls13), 0);
        assert_eq!(of_twelve(Some(1), None, TlsVersion::V1_2), 12, "a session of TLS 1.2 is used again and again");
        assert_eq!(of_twelve(Some(0), None, TlsVersion::V1_2), 0);
    }
}
