//! The dialogues before TLS, over connections.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bowline::starttls::{self, Client, Dialogue, Server};
use bowline::testing::{shared_pki, tcp_pair};
use bowline::{
    BoxConnection, DialogueError, Error, Phase, Policy, Reason, StartTls, TcpConnection, TlsTransport, Transport,
    UpgradableConnection, UpgradeError,
};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// The name of each dialogue, and one command of a line.
fn names() -> Vec<String> {
    Dialogue::all().map(|dialogue| dialogue.to_string()).chain(["line:XTLS".into()]).collect()
}

fn named(name: &str) -> Dialogue {
    name.parse().unwrap()
}

type Connection = UpgradableConnection<TcpConnection>;

async fn upgradable_pair() -> (Connection, Connection) {
    let (a, b) = tcp_pair().await.unwrap();
    (UpgradableConnection::new(a), UpgradableConnection::new(b))
}

/// A connection of ours, and a bare socket at its other end.
async fn with_bare_peer(policy: Policy) -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (peer, _) = listener.accept().await.unwrap();
    // Each write becomes a segment of its own.
    peer.set_nodelay(true).unwrap();
    (UpgradableConnection::new(TcpConnection::new(socket, policy).unwrap()), peer)
}

fn refusal(error: &Error) -> &DialogueError {
    let Error::Upgrade(UpgradeError::Dialogue(error)) = error else { panic!("{error:?}") };
    error
}

/// rule: upgrade-1
#[tokio::test]
async fn both_sides_come_into_tls_in_each_dialogue() {
    let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
    for name in names().iter().map(String::as_str) {
        let (mut client, server) = upgradable_pair().await;
        // A trait object works as well.
        let mut server: BoxConnection = Box::new(server);
        let serving = async {
            starttls::server(&mut server, named(name), &server_tls).await?;
            server.write_all(name.as_bytes()).await?;
            Ok::<_, Error>(server.close().await)
        };
        let using = async {
            starttls::client(&mut client, named(name), &client_tls, "localhost").await?;
            assert!(client.is_secure());
            let mut said = String::new();
            client.read_to_string(&mut said).await?;
            client.close().await;
            Ok(said)
        };
        let joined = async { tokio::try_join!(serving, using) };
        let (report, said) = timeout(PATIENCE, joined).await.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(report.is_clean() && said == name, "{name}: {report}");
    }
}

#[tokio::test]
async fn a_connection_goes_on_in_plaintext_after_the_peer_declined() {
    let (mut client, mut server) = upgradable_pair().await;
    server.write_all(b"220 mail\r\n").await.unwrap();
    let asking = async {
        let mut dialogue = Client::new(Dialogue::Smtp, "mail.example").hello("client.example");
        let error = dialogue.negotiate(&mut client).await.unwrap_err();
        assert_eq!(dialogue.greeting(), b"220 mail\r\n");
        error
    };
    let answering = async {
        let mut line = String::new();
        server.read_line(&mut line).await.unwrap();
        assert_eq!(line, "EHLO client.example\r\n");
        server.write_all(b"250-mail\r\n250 SIZE\r\n").await.unwrap();
    };
    let (error, ()) = tokio::join!(asking, answering);
    assert_eq!(refusal(&error), &DialogueError::NotOffered);
    client.write_all(b"QUIT\r\n").await.unwrap();
    let mut line = String::new();
    server.read_line(&mut line).await.unwrap();
    assert_eq!(line, "QUIT\r\n");
    let (client, server) = tokio::join!(client.close(), server.close());
    assert!(client.is_clean() && server.is_clean());
}

/// rule: upgrade-2, end-1
#[tokio::test]
async fn a_connection_has_ended_after_the_peer_broke_its_protocol() {
    let (mut client, mut server) = upgradable_pair().await;
    server.write_all(b"HTTP/1.1 400 \x1b[31m\r\n").await.unwrap();
    let error = Client::new(Dialogue::Imap, "mail.example").negotiate(&mut client).await.unwrap_err();
    assert!(matches!(refusal(&error), DialogueError::Unexpected(words) if words.as_bytes().starts_with(b"HTTP")));
    assert!(error.to_string().contains(r#""HTTP/1.1 400 \x1b[31m""#), "{error}");
    assert!(client.write_all(b"a1 LOGIN me secret\r\n").await.is_err());
    let report = client.close().await;
    assert!(matches!(report.reason, Reason::Protocol(_)), "{report}");
    assert!(server.read(&mut [0]).await.is_err());
}

/// rule: upgrade-2, upgrade-11
#[tokio::test]
async fn a_byte_after_the_go_ahead_refuses_the_upgrade_in_any_segments() {
    let tls = shared_pki().client_tls();
    for is_cut in [false, true] {
        let (mut client, mut server) = with_bare_peer(Policy::default()).await;
        server.write_all(b"+OK\r\n").await.unwrap();
        let answering = async {
            server.read_exact(&mut [0; 6]).await.unwrap();
            if is_cut {
                server.write_all(b"+OK\r\n").await.unwrap();
                server.write_all(b"X").await.unwrap();
            } else {
                server.write_all(b"+OK\r\nX").await.unwrap();
            }
        };
        let mut dialogue = Client::new(Dialogue::Pop3, "localhost");
        let (agreed, ()) = tokio::join!(dialogue.negotiate(&mut client), answering);
        agreed.unwrap();
        // The injected byte has arrived, either in our memory or only in the kernel.
        let error = client.start_tls(StartTls::client(&tls, "localhost")).await.unwrap_err();
        assert!(matches!(error, Error::Upgrade(UpgradeError::Leftover { count: 1 })), "{error}");
    }
}

/// rule: upgrade-3
#[tokio::test]
async fn a_server_gives_no_go_ahead_to_a_command_that_plaintext_follows() {
    for leave in ["STARTTLS\r\nMAIL FROM:<>\r\n", "STARTTLS\r\nX"] {
        let (mut server, mut client) = with_bare_peer(Policy::default()).await;
        client.write_all(leave.as_bytes()).await.unwrap();
        let error = starttls::server(&mut server, Dialogue::Smtp, &shared_pki().server_tls()).await.unwrap_err();
        assert!(matches!(refusal(&error), DialogueError::Early(_)), "{error}");
        let mut said = Vec::new();
        let _ = client.read_to_end(&mut said).await;
        assert!(!said.windows(6).any(|part| part == b"220 2."), "{}", said.escape_ascii());
    }
}

#[tokio::test]
async fn a_client_leaves_in_order() {
    let (mut server, mut client) = with_bare_peer(Policy::default()).await;
    client.write_all(b"QUIT\r\n").await.unwrap();
    let error = Server::new(Dialogue::Pop3).negotiate(&mut server).await.unwrap_err();
    assert_eq!(refusal(&error), &DialogueError::Left);
    let mut said = String::new();
    let (report, read) = tokio::join!(server.close(), async {
        client.read_to_string(&mut said).await.unwrap();
        client.shutdown().await
    });
    read.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(said, "+OK ready\r\n+OK bye\r\n");
}

/// rule: end-6
#[tokio::test]
async fn an_end_inside_a_dialogue_is_a_truncation() {
    for name in names().iter().map(String::as_str) {
        let (mut client, server) = with_bare_peer(Policy::default()).await;
        drop(server);
        let error = Client::new(named(name), "localhost").negotiate(&mut client).await.unwrap_err();
        assert!(
            matches!(error.reason(), Some(Reason::Truncated(Phase::Handshake) | Reason::Reset(_))),
            "{name}: {error}"
        );
    }
}

/// rule: secure-5
#[tokio::test(start_paused = true)]
async fn a_dialogue_is_over_within_the_bound_of_a_handshake() {
    let policy = Policy::default().handshake_timeout(Duration::from_secs(3));
    for name in names().iter().map(String::as_str) {
        let (mut client, _peer) = with_bare_peer(policy.clone()).await;
        let error = Client::new(named(name), "localhost").negotiate(&mut client).await.unwrap_err();
        assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))), "{name}: {error}");
        let report = client.close().await;
        assert!(matches!(report.reason, Reason::TimedOut(Phase::Handshake)), "{name}: {report}");
        let (mut server, _peer) = with_bare_peer(policy.clone()).await;
        let error = Server::new(named(name)).negotiate(&mut server).await.unwrap_err();
        assert!(matches!(error.reason(), Some(Reason::TimedOut(Phase::Handshake))), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_dialogue_that_was_dropped_goes_on_where_it_was() {
    let (mut client, mut server) = with_bare_peer(Policy::default()).await;
    let mut dialogue = Client::new(Dialogue::Smtp, "mail.example");
    for (said, heard) in [
        (&b"220-ma"[..], &b""[..]),
        (b"il\r\n220 x\r\n", b"EHLO localhost\r\n"),
        (b"250-STARTT", b""),
        (b"LS\r\n250 x\r\n", b"STARTTLS\r\n"),
        (b"22", b""),
    ] {
        server.write_all(said).await.unwrap();
        let wait = async {
            let mut bytes = vec![0; heard.len()];
            server.read_exact(&mut bytes).await.unwrap();
            assert_eq!(bytes, heard);
            // The client needs this time to read everything that has arrived.
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! {
            biased;
            negotiated = dialogue.negotiate(&mut client) => panic!("{negotiated:?}"),
            () = wait => {}
        }
    }
    server.write_all(b"0 go\r\n").await.unwrap();
    dialogue.negotiate(&mut client).await.unwrap();
    assert!(dialogue.is_agreed());
}

/// rule: upgrade-12
#[tokio::test]
async fn nothing_is_said_where_no_upgrade_is_allowed() {
    let (mut server, mut client) = with_bare_peer(Policy::default().max_layers(0)).await;
    let error = Server::new(Dialogue::Smtp).negotiate(&mut server).await.unwrap_err();
    assert!(matches!(error, Error::Upgrade(UpgradeError::TooManyLayers { limit: 0 })), "{error}");
    server.close_write().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_greeting_is_read_alone_and_another_one_is_served() {
    let (mut client, mut server) = upgradable_pair().await;
    let mut dialogue = Server::new(Dialogue::Smtp).greeting(*b"220 other\r\n");
    let serving = async {
        let _ = dialogue.negotiate(&mut server).await;
    };
    tokio::select! {
        () = serving => panic!("no client has asked"),
        greeting = async {
            let mut dialogue = Client::new(Dialogue::Smtp, "x");
            dialogue.read_greeting(&mut client).await.map(<[u8]>::to_vec)
        } => assert_eq!(greeting.unwrap(), b"220 other\r\n"),
    }
    assert_eq!(client.queued(), 0);
    let nothing = Client::new(Dialogue::Ldap, "x").read_greeting(&mut client).await.unwrap().len();
    assert_eq!(nothing, 0);
}

/// The dialogue without a connection, as a callback uses it.
#[test]
fn both_sides_agree_without_a_connection() {
    for name in names().iter().map(String::as_str) {
        let (mut client, mut server) = (Client::new(named(name), "localhost"), Server::new(named(name)));
        for _ in 0..10 {
            let said = server.output(b"").unwrap();
            assert_eq!(client.receive(&said).unwrap(), said.len());
            let said = client.output(b"").unwrap();
            assert_eq!(server.receive(&said).unwrap(), said.len());
        }
        assert!(client.is_agreed() && server.is_agreed(), "{name}");
        assert!(!server.request().is_empty());
        let hidden = format!("{client:?}{server:?}");
        assert!(!hidden.contains("220"), "{hidden}");
    }
}
