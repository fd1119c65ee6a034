//! The peer's names, through a handshake.

use bowline::testing::pki::Profile;
use bowline::testing::shared_pki;
use bowline::{AlternativeName, ClientTls, ServerTls, TlsTransport, Transport};

use crate::{ENGINES, VERSIONS, pair_of};

/// rule: secure-14
#[tokio::test]
async fn both_sides_know_the_names_of_the_other_until_after_the_end() {
    let pki = shared_pki();
    let billing = pki.issue(Profile::client("billing").uri("spiffe://example.com/billing"));
    let site = pki.server(&["localhost", "127.0.0.1"]);
    for version in VERSIONS {
        for engines in ENGINES {
            let client = ClientTls::builder().root(pki.ca_der()).min_version(version).max_version(version);
            let client = client.identity(billing.chain_der(), billing.key_der());
            let server = ServerTls::builder().client_ca_pem(pki.ca_pem());
            let server = server.identity(site.chain_der(), site.key_der());
            let client = if engines.0 { client.express() } else { client }.build().unwrap();
            let server = if engines.1 { server.express() } else { server }.build().unwrap();
            let (mut client, mut server) = pair_of(&client, &server).await;
            let _ = tokio::join!(client.close(), server.close());
            let of_client = server.tls().unwrap().peer_alternative_names().unwrap();
            assert_eq!(of_client, [AlternativeName::Uri("spiffe://example.com/billing".into())]);
            let of_server = client.tls().unwrap().peer_alternative_names().unwrap();
            let texts: Vec<String> = of_server.iter().map(ToString::to_string).collect();
            assert_eq!(texts, ["DNS:localhost", "IP:127.0.0.1"]);
        }
    }
}

/// rule: secure-14
#[tokio::test]
async fn a_peer_without_a_certificate_has_no_names() {
    let (_client, server) = crate::pair(bowline::TlsVersion::V1_3, (false, false)).await;
    assert_eq!(server.tls().unwrap().peer_alternative_names().unwrap(), []);
}
