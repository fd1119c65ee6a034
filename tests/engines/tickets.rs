//! Servers that share ticket keys, with both engines.

use std::sync::Arc;
use std::time::SystemTime;

use bowline::config::{ServerTlsBuilder, TicketKey, TicketKeySet, TicketKeys};
use bowline::rustls::crypto::CryptoProvider;
use bowline::testing::memory_pair;
use bowline::testing::pki::Pki;
use bowline::{ClientTls, ServerTls, TlsConnection, TlsTransport, TlsVersion, Transport};

use crate::setup::SOON;

const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];

/// A key with a name and a secret that depend on a number.
fn key(number: u8) -> TicketKey {
    let secret: [u8; 32] = std::array::from_fn(|n| (n as u8) ^ number);
    TicketKey::new([number; 16], secret).unwrap()
}

/// A separate handle of the keys, as another process would have it.
fn keys(numbers: &[u8]) -> TicketKeys {
    TicketKeys::new(set(numbers))
}

fn set(numbers: &[u8]) -> TicketKeySet {
    TicketKeySet::new(numbers.iter().copied().map(key)).unwrap()
}

fn server(pki: &Pki, express: bool) -> ServerTlsBuilder {
    let identity = pki.server(&["localhost"]);
    let builder = ServerTls::builder().identity_pem(identity.chain_pem(), identity.key_pem());
    if express { builder.express() } else { builder }
}

fn client(pki: &Pki, version: TlsVersion) -> ClientTls {
    let person = pki.client("somebody");
    let builder = pki.client_tls_builder().min_version(version).max_version(version);
    builder.identity(person.chain_der(), person.key_der()).build().unwrap()
}

/// Whether the session was resumed.
async fn resumes(client: &ClientTls, server: &ServerTls) -> bool {
    let (a, b) = memory_pair();
    let both = async { tokio::join!(TlsConnection::connect(a, client, "localhost"), TlsConnection::accept(b, server)) };
    let (client, server) = tokio::time::timeout(SOON, both).await.unwrap();
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let resumed = (client.tls().unwrap().resumed, server.tls().unwrap().resumed);
    assert_eq!(resumed.0, resumed.1);
    // The client reads the tickets.
    let (_, _) = tokio::join!(client.close(), server.close());
    resumed.0
}

fn cases() -> impl Iterator<Item = (TlsVersion, bool)> {
    VERSIONS.into_iter().flat_map(|version| [(version, false), (version, true)])
}

/// rule: ticket-1
/// rule: ticket-7
#[tokio::test]
async fn a_session_is_resumed_on_each_server_with_the_keys() {
    let pki = Pki::new();
    let providers: Vec<CryptoProvider> = vec![
        #[cfg(feature = "aws-lc-rs")]
        bowline::rustls::crypto::aws_lc_rs::default_provider(),
        #[cfg(feature = "ring")]
        bowline::rustls::crypto::ring::default_provider(),
    ];
    let providers: Vec<Arc<CryptoProvider>> = providers.into_iter().map(Arc::new).collect();
    for (version, express) in cases() {
        let servers: Vec<ServerTls> = (0..4)
            .map(|number| {
                let builder = server(&pki, express ^ (number % 2 == 0)).ticket_keys(&keys(&[1]));
                let builder = match providers.get(number) {
                    Some(provider) => builder.provider(Arc::clone(provider)),
                    None => builder,
                };
                builder.build().unwrap()
            })
            .collect();
        let (client, stranger) = (client(&pki, version), server(&pki, express).ticket_keys(&keys(&[2])));
        assert!(!resumes(&client, &servers[0]).await);
        for (number, server) in servers.iter().enumerate().chain(servers.iter().enumerate()) {
            assert!(resumes(&client, server).await, "{version} {express} {number}");
        }
        assert!(!resumes(&client, &stranger.build().unwrap()).await);
    }
}

/// rule: ticket-1
/// rule: ticket-2
/// rule: ticket-3
#[tokio::test]
async fn sessions_outlive_rotations_until_their_key_is_gone() {
    let pki = Pki::new();
    for (version, express) in cases() {
        let (ours, theirs) = (keys(&[1, 0]), keys(&[2, 1]));
        let a = server(&pki, express).ticket_keys(&ours).build().unwrap();
        let b = server(&pki, express).ticket_keys(&theirs).build().unwrap();
        let client = client(&pki, version);
        assert!(!resumes(&client, &a).await);
        assert!(resumes(&client, &b).await);
        // The ticket is of key 2 now, which the first server does not have.
        assert!(!resumes(&client, &a).await);
        assert!(ours.replace(set(&[2, 1])) && !ours.replace(set(&[2, 1])));
        assert!(resumes(&client, &b).await && resumes(&client, &a).await);
        assert!(ours.replace(set(&[3])));
        assert!(!resumes(&client, &a).await && resumes(&client, &a).await);
        // Without keys there is no ticket, and no session is resumed in another way.
        assert!(ours.replace(TicketKeySet::default()));
        assert!(!resumes(&client, &a).await && !resumes(&client, &a).await, "{version} {express}");
    }
}

/// rule: ticket-3
/// rule: ticket-4
#[tokio::test]
async fn a_ticket_of_a_key_that_has_ended_is_a_full_handshake() {
    let pki = Pki::new();
    let ended = TicketKeySet::new([key(2), key(1).not_after(SystemTime::now())]).unwrap();
    for (version, express) in cases() {
        let first = server(&pki, express).ticket_keys(&keys(&[1])).build().unwrap();
        let second = server(&pki, express).ticket_keys(&TicketKeys::new(ended.clone())).build().unwrap();
        let client = client(&pki, version);
        assert!(!resumes(&client, &first).await && !resumes(&client, &second).await, "{version} {express}");
        assert!(resumes(&client, &second).await);
    }
}

/// The name and the secret of a key, as in a file.
fn bytes(number: u8) -> Vec<u8> {
    (0..80).map(|n| if n < 16 { number } else { n ^ number }).collect()
}

/// rule: ticket-8
#[tokio::test]
async fn keys_from_files_are_rotated_with_the_configuration() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let file = |name: &str| dir.path().join(name);
    for (version, express) in cases() {
        let servers: Vec<_> = ["a", "b"].map(|name| server(&pki, express).ticket_key_files([file(name)])).into();
        let write = |name: &str, numbers: &[u8]| {
            let lines: Vec<String> = numbers.iter().map(|number| base64(&bytes(*number))).collect();
            std::fs::write(file(name), lines.join("\n")).unwrap();
        };
        // The first file has one key in the form of nginx. The second one has the same key in the form of HAProxy.
        std::fs::write(file("a"), bytes(2)).unwrap();
        write("b", &[1, 2, 3]);
        let build = |number: usize| servers[number].clone().build().unwrap();
        let (a, b) = (build(0), build(1));
        let client = client(&pki, version);
        assert!(!resumes(&client, &a).await);
        assert!(resumes(&client, &b).await && resumes(&client, &a).await);
        // Writing the same contents again is no change.
        write("b", &[1, 2, 3]);
        assert_eq!(b.replace(build(1)), 1);
        // After one rotation, key 3 seals, and key 2 still opens.
        write("a", &[2, 3, 4]);
        assert_eq!(a.replace(build(0)), 2);
        assert!(resumes(&client, &b).await && resumes(&client, &a).await && resumes(&client, &b).await);
        // After two rotations, key 2 is gone.
        assert!(resumes(&client, &b).await);
        write("a", &[3, 4, 5]);
        assert_eq!(a.replace(build(0)), 3);
        assert!(!resumes(&client, &a).await, "{version} {express}");
        let age = a.ticket_keys().unwrap().age().unwrap();
        assert!(age < SOON, "{age:?}");

        std::fs::write(file("b"), "no keys\n").unwrap();
        let said = servers[1].clone().build().unwrap_err().to_string();
        let expected = format!("{}: line 1: the ticket keys cannot be used: the line is not", file("b").display());
        assert!(said.starts_with(&expected), "{said}");
        std::fs::remove_file(file("b")).unwrap();
        let said = bowline::chain(&servers[1].clone().build().unwrap_err()).to_string();
        assert!(said.starts_with(&format!("{}: cannot be read", file("b").display())), "{said}");
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let chunk = |chunk: &[u8]| {
        let number = (0..3).fold(0, |all, n| all << 8 | usize::from(*chunk.get(n).unwrap_or(&0)));
        let letter = |n: usize| if n <= chunk.len() { char::from(ALPHABET[number >> (18 - 6 * n) & 63]) } else { '=' };
        (0..4).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(chunk).collect()
}

/// rule: ticket-5
/// rule: identity-8
#[tokio::test]
async fn no_shared_ticket_is_used_past_a_change_of_the_policy() {
    let (pki, other_ca) = (Pki::new(), Pki::new().ca_pem());
    let revoked = pki.client("revoked");
    let before = pki.crl_pem();
    pki.revoke(&revoked);
    for (version, express) in cases() {
        let optional = || server(&pki, express).client_ca_pem(pki.ca_pem()).client_auth_optional();
        // The ticket of the first server is presented to the second one, which has a new certificate too.
        let cases = [
            (optional(), optional(), true),
            (server(&pki, express), optional(), false),
            (optional(), server(&pki, express).client_ca_pem(pki.ca_pem()), false),
            (optional(), optional().client_ca_pem(other_ca.as_str()), false),
            (optional().client_crl_pem(before.as_str()), optional().client_crl_pem(before.as_str()), true),
            (optional().client_crl_pem(before.as_str()), optional().client_crl_pem(pki.crl_pem()), false),
        ];
        for (number, (first, second, resumed)) in cases.into_iter().enumerate() {
            let (first, second) = (first.ticket_keys(&keys(&[1])), second.ticket_keys(&keys(&[1])));
            let (first, second) = (first.build().unwrap(), second.build().unwrap());
            let client = client(&pki, version);
            assert!(!resumes(&client, &first).await);
            assert_eq!(resumes(&client, &second).await, resumed, "{number} {version} {express}");
            // The result must be the same in one process, after a replacement of the configuration.
            let client = self::client(&pki, version);
            assert!(!resumes(&client, &first).await);
            first.replace(second);
            assert_eq!(resumes(&client, &first).await, resumed, "{number} {version} {express}");
        }
    }
}
