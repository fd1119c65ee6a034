//! Bytes that a server has sent before a client starts TLS.

use bowline::testing::peer::{Event, RawTcp};
use bowline::testing::{memory_pair, raw_tcp_pair, shared_pki, tcp_pair, tls_over};
use bowline::{
    BoxConnection, Error, Leftover, Policy, Reason, Split, StartTls, TcpConnection, TlsConnection, TlsVersion,
    Transport, UpgradableConnection, UpgradeError,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::common::bounded;

/// The start of a ServerHello.
const HANDSHAKE: &[u8] = b"\x16\x03\x03\x00\x50\x02\x00\x00\x4c";
/// `close_notify`, as a warning.
const WARNING: &[u8] = b"\x15\x03\x03\x00\x02\x01\x00";
const INJECTED: [&[u8]; 4] = [b"injected", HANDSHAKE, WARNING, b"\x16"];

fn as_client() -> StartTls {
    StartTls::client(&shared_pki().client_tls(), "localhost")
}

fn boxed<T: Transport, U: Transport>((client, server): (T, U)) -> (BoxConnection, BoxConnection) {
    (Box::new(UpgradableConnection::new(client)), Box::new(UpgradableConnection::new(server)))
}

/// A client and its server, over each transport with its own way of reading.
async fn pairs() -> Vec<(&'static str, BoxConnection, BoxConnection)> {
    let tls = |version| async move { boxed(tls_over(tcp_pair().await.unwrap(), version).await.unwrap()) };
    let pairs = [
        ("tcp", boxed(tcp_pair().await.unwrap())),
        #[cfg(unix)]
        ("a Unix socket", {
            let (unix, other) = tokio::net::UnixStream::pair().unwrap();
            boxed((bowline::Stream::from(unix), bowline::Stream::from(other)))
        }),
        ("memory", boxed(memory_pair())),
        ("TLS 1.2", tls(TlsVersion::V1_2).await),
        ("TLS 1.3", tls(TlsVersion::V1_3).await),
    ];
    pairs.into_iter().map(|(name, (client, server))| (name, client, server)).collect()
}

fn count(result: Result<(), Error>) -> usize {
    match result {
        Err(Error::Upgrade(UpgradeError::Leftover { count })) => count,
        other => panic!("{other:?}"),
    }
}

/// rule: upgrade-2
#[tokio::test]
async fn a_refusal_ends_the_connection_although_the_application_still_holds_it() {
    for (name, mut client, mut server) in pairs().await {
        bounded(name, async move {
            server.write_all(b"injected").await.unwrap();
            client.fill_buf().await.unwrap();
            assert_eq!(count(client.start_tls(as_client()).await), b"injected".len());
            // The peer's transport decides how the end looks: an error, or an end without a marker.
            let _ = server.read(&mut [0; 1]).await;
            drop(client);
        })
        .await;
    }
}

/// rule: upgrade-11, upgrade-2
#[tokio::test]
async fn bytes_right_after_the_go_ahead_are_leftover_in_the_kernel_too() {
    for injected in INJECTED {
        for (name, mut client, mut server) in pairs().await {
            bounded(name, async move {
                server.write_all(&[b"S", injected].concat()).await.unwrap();
                // Like a client of PostgreSQL, this one reads a single byte, and leaves the rest.
                client.read_exact(&mut [0]).await.unwrap();
                assert_eq!(count(client.start_tls(as_client()).await), injected.len());
                assert!(client.read(&mut [0]).await.is_err());
            })
            .await;
        }
    }
}

/// rule: upgrade-11
#[tokio::test]
async fn bytes_that_come_after_the_last_read_are_leftover_too() {
    for (name, mut client, mut server) in pairs().await {
        bounded(name, async move {
            server.write_all(b"220 go ahead\r\n").await.unwrap();
            client.read_exact(&mut [0; 14]).await.unwrap();
            // The runtime has received no event for these bytes when TLS starts.
            server.write_all(WARNING).await.unwrap();
            assert_eq!(count(client.start_tls(as_client()).await), WARNING.len());
        })
        .await;
    }
}

/// rule: upgrade-11
#[tokio::test]
async fn bytes_that_halves_left_in_the_kernel_are_leftover_after_reunite() {
    bounded("tcp", async {
        let (client, mut server) = tcp_pair().await.unwrap();
        let (mut read, write) = UpgradableConnection::new(client).into_split();
        server.write_all(b"Sinjected").await.unwrap();
        read.read_exact(&mut [0]).await.unwrap();
        let mut client = UpgradableConnection::reunite(read, write).unwrap();
        assert_eq!(count(client.start_tls(as_client()).await), 8);
    })
    .await;
}

/// rule: upgrade-11
#[tokio::test]
async fn the_look_comes_before_the_client_hello_and_is_bounded() {
    bounded("tcp", async {
        let (client, server) = raw_tcp_pair().await.unwrap();
        socket2::SockRef::from(&client).set_recv_buffer_size(1 << 20).unwrap();
        let mut client = UpgradableConnection::new(TcpConnection::new(client, Policy::default()).unwrap());
        let mut server = RawTcp::new(server);
        server.send(&[b'x'; 200_000]).await.unwrap();
        client.read_exact(&mut [0; 100_000]).await.unwrap();
        let count = count(client.start_tls(as_client()).await);
        assert!((60_000..=100_000).contains(&count), "{count}");
        server.observe().await;
        assert_eq!(server.events(), [Event::Reset], "a ClientHello has left");
    })
    .await;
}

/// rule: upgrade-11, upgrade-2
#[tokio::test]
async fn a_client_that_feeds_accepts_only_the_start_of_a_handshake() {
    for injected in INJECTED {
        for (name, mut client, mut server) in pairs().await {
            bounded(name, async move {
                server.write_all(&[b"S", injected].concat()).await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
                server.close_write().await.unwrap();
                let outcome = client.start_tls(as_client().leftover(Leftover::Feed)).await;
                if injected[0] == 22 {
                    assert!(matches!(outcome, Err(Error::Upgrade(UpgradeError::Failed(_)))), "{outcome:?}");
                } else {
                    assert_eq!(count(outcome), injected.len());
                }
            })
            .await;
        }
    }
}

/// rule: upgrade-11
#[tokio::test]
async fn a_connection_that_begins_with_tls_has_no_leftover() {
    bounded("tcp", async {
        let (client, mut server) = tcp_pair().await.unwrap();
        server.write_all(b"220 mail.example\r\n").await.unwrap();
        let error = UpgradableConnection::connect(client, &shared_pki().client_tls(), "localhost").await.unwrap_err();
        assert!(matches!(error, Error::Upgrade(UpgradeError::Failed(Reason::Tls(_)))), "{error:?}");
    })
    .await;
    // Plaintext was exchanged before, so this is an upgrade.
    bounded("tcp", async {
        let (mut client, mut server) = tcp_pair().await.unwrap();
        server.write_all(b"Sinjected").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        let connecting = UpgradableConnection::connect(client, &shared_pki().client_tls(), "localhost").await;
        assert_eq!(count(connecting.map(drop)), 8);
    })
    .await;
}

/// TLS 1.2 servers send such warnings before their ServerHello: `unrecognized_name`.
///
/// rule: upgrade-11
#[tokio::test]
async fn tls_judges_a_warning_that_comes_after_the_client_hello() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        bounded("tcp", async move {
            let (client, mut server) = raw_tcp_pair().await.unwrap();
            let mut client = UpgradableConnection::new(TcpConnection::new(client, Policy::default()).unwrap());
            server.write_all(b"S").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            let tls = shared_pki().client_tls_builder().min_version(version).max_version(version).build().unwrap();
            let (upgraded, _) = tokio::join!(client.start_tls(StartTls::client(&tls, "localhost")), async move {
                // This waits until the ClientHello has arrived.
                server.peek(&mut [0]).await.unwrap();
                server.write_all(b"\x15\x03\x03\x00\x02\x01\x70").await.unwrap();
                let server = TcpConnection::new(server, Policy::default()).unwrap();
                TlsConnection::accept(server, &shared_pki().server_tls()).await.unwrap()
            });
            upgraded.unwrap();
        })
        .await;
    }
}

/// rule: upgrade-11, upgrade-2
#[tokio::test]
async fn tls_set_up_by_hand_on_used_plaintext_refuses_leftover_too() {
    for injected in INJECTED {
        bounded("tcp", async move {
            let (mut client, mut server) = tcp_pair().await.unwrap();
            server.write_all(&[b"220 go\r\n", injected].concat()).await.unwrap();
            // The injected bytes are read ahead in half of the cases, and left in the kernel in the others.
            if injected.len() % 2 == 0 {
                client.read_line(&mut String::new()).await.unwrap();
            } else {
                client.read_exact(&mut [0; 8]).await.unwrap();
            }
            let connecting = TlsConnection::connect(client, &shared_pki().client_tls(), "localhost").await;
            assert_eq!(count(connecting.map(drop)), injected.len());
        })
        .await;
    }
}
