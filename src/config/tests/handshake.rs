//! Handshakes with the configurations, between two rustls sessions in memory.

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::{CertificateError, ClientConnection, ConnectionCommon, HandshakeKind, ProtocolVersion, ServerConnection};

use super::super::{ClientTls, ServerTls, TlsVersion, server_name};
use crate::testing::pki::{Identity, KeyKind, Pki, Profile};

pub(super) struct Pair {
    server: ServerConnection,
    client: ClientConnection,
}

impl Pair {
    /// The certificate of the server, as the client got it.
    pub(super) fn peer_certificate(&self) -> Vec<u8> {
        self.client.peer_certificates().unwrap()[0].to_vec()
    }
}

/// Runs a handshake to its end. The error is the one of the side that refused the other.
pub(super) fn handshake(server: &ServerTls, client: &ClientTls, name: &str) -> Result<Pair, rustls::Error> {
    let mut server = ServerConnection::new(server.config())?;
    let mut client = ClientConnection::new(client.config(), server_name(name).unwrap())?;
    while client.wants_write() || server.wants_write() {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Pair { server, client })
}

fn carry<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

fn server_of(identity: &Identity) -> ServerTls {
    ServerTls::builder().identity(identity.chain_der(), identity.key_der()).build().unwrap()
}

pub(super) fn fault_of(result: Result<Pair, rustls::Error>) -> CertificateError {
    match result.map(|_| ()) {
        Err(rustls::Error::InvalidCertificate(error)) => error,
        other => panic!("not a bad certificate: {other:?}"),
    }
}

#[test]
fn server_and_client_of_one_pki_get_on_by_every_name() {
    let pki = Pki::new();
    for name in ["localhost", "localhost.", "127.0.0.1", "[::1]"] {
        let pair = handshake(&pki.server_tls(), &pki.client_tls(), name).unwrap();
        assert_eq!(pair.client.peer_certificates().unwrap().len(), 2);
        assert_eq!(pair.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        // rule: secure-8
        assert_eq!(pair.server.server_name(), name.starts_with('l').then_some("localhost"));
    }
}

/// rule: secure-9
#[cfg(feature = "aws-lc-rs")]
#[test]
fn hybrid_post_quantum_key_exchange_is_offered_first() {
    let pki = Pki::new();
    let groups: Vec<_> = pki.client_tls().config().crypto_provider().kx_groups.iter().map(|kx| kx.name()).collect();
    assert_eq!(groups[0], rustls::NamedGroup::X25519MLKEM768);
    let pair = handshake(&pki.server_tls(), &pki.client_tls(), "localhost").unwrap();
    assert_eq!(pair.server.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

/// rule: secure-9
#[test]
fn versions_are_bounded_on_both_sides() {
    let pki = Pki::new();
    let old = pki.client_tls_builder().max_version(TlsVersion::V1_2).build().unwrap();
    let new_only = pki.server_tls_builder().min_version(TlsVersion::V1_3).build().unwrap();
    let pair = handshake(&pki.server_tls(), &old, "localhost").unwrap();
    assert_eq!(pair.server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    assert!(handshake(&new_only, &old, "localhost").is_err());
}

#[test]
fn every_kind_of_key_works() {
    let pki = Pki::new();
    for &kind in KeyKind::ALL {
        let server = pki.issue(Profile::server(&[]).key(kind));
        handshake(&server_of(&server), &pki.client_tls(), "localhost").unwrap_or_else(|e| panic!("{kind:?}: {e}"));
    }
}

/// rule: secure-8
#[test]
fn each_kind_of_bad_server_is_refused_with_its_own_error() {
    let pki = Pki::new();
    let client = pki.client_tls_builder().crl_pem(pki.crl_pem()).build().unwrap();
    let fault = |identity: &Identity| fault_of(handshake(&server_of(identity), &client, "localhost"));
    handshake(&pki.server_tls(), &client, "localhost").unwrap();
    assert!(matches!(fault(&pki.expired()), CertificateError::ExpiredContext { .. }));
    assert!(matches!(fault(&pki.not_yet_valid()), CertificateError::NotValidYetContext { .. }));
    assert!(matches!(fault(&pki.wrong_name()), CertificateError::NotValidForNameContext { .. }));
    assert_eq!(fault(&pki.from_other_ca()), CertificateError::UnknownIssuer);
    assert_eq!(fault(&pki.self_signed()), CertificateError::UnknownIssuer);
    assert_eq!(fault(&pki.issue(Profile::server(&[]).without_intermediate())), CertificateError::UnknownIssuer);
    assert!(matches!(fault(&pki.client("localhost")), CertificateError::InvalidPurposeContext { .. }));

    let revoked = pki.revoked();
    let client = pki.client_tls_builder().crl_pem(pki.crl_pem()).build().unwrap();
    assert_eq!(fault_of(handshake(&server_of(&revoked), &client, "localhost")), CertificateError::Revoked);
    handshake(&pki.server_tls(), &client, "localhost").unwrap();
    handshake(&server_of(&revoked), &pki.client_tls(), "localhost").unwrap();
}

/// rule: secure-8
#[test]
fn without_verification_every_bad_certificate_is_accepted() {
    let pki = Pki::new();
    let client = ClientTls::builder().dangerous_no_verification().build().unwrap();
    for server in [pki.expired(), pki.wrong_name(), pki.from_other_ca(), pki.self_signed()] {
        handshake(&server_of(&server), &client, "localhost").unwrap();
    }
}

#[test]
fn a_self_signed_server_given_as_a_root_is_trusted_for_its_names() {
    let pki = Pki::new();
    for profile in [Profile::server(&[]).self_signed(), Profile::server(&[]).self_signed().marked_as_ca()] {
        let server = pki.issue(profile.clone());
        let client = ClientTls::builder().roots_pem(server.chain_pem()).build().unwrap();
        for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
            let tls = ServerTls::builder().identity(server.chain_der(), server.key_der());
            let tls = tls.min_version(version).max_version(version).build().unwrap();
            handshake(&tls, &client, "localhost").unwrap();
            let fault = fault_of(handshake(&tls, &client, "other.example"));
            assert!(matches!(fault, CertificateError::NotValidForNameContext { .. }), "{fault:?}");
        }
        let expired = pki.issue(profile.expired());
        let client = ClientTls::builder().root(expired.cert_der()).build().unwrap();
        let fault = fault_of(handshake(&server_of(&expired), &client, "localhost"));
        assert!(matches!(fault, CertificateError::ExpiredContext { .. }), "{fault:?}");
    }
}

/// The exception applies only to the exact certificate that was given as a root, not to one that looks like it.
#[test]
fn a_self_signed_server_that_was_not_given_as_a_root_is_refused() {
    let pki = Pki::new();
    let marked = || pki.issue(Profile::server(&[]).self_signed().marked_as_ca());
    let trusting_another = ClientTls::builder().root(marked().cert_der()).build().unwrap();
    for client in [trusting_another, pki.client_tls()] {
        assert!(handshake(&server_of(&marked()), &client, "localhost").is_err());
    }
}

#[test]
fn a_self_signed_root_that_is_for_clients_only_is_no_server() {
    for (usage, good) in [(ExtendedKeyUsagePurpose::ServerAuth, true), (ExtendedKeyUsagePurpose::ClientAuth, false)] {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let server = ServerTls::builder().identity_pem(cert.pem(), key.serialize_pem()).build().unwrap();
        let client = ClientTls::builder().root(cert.into()).build().unwrap();
        assert_eq!(handshake(&server, &client, "localhost").is_ok(), good);
    }
}

#[test]
fn a_leaf_of_another_issuer_is_no_root() {
    let pki = Pki::new();
    let server = pki.server(&[]);
    let client = ClientTls::builder().root(server.cert_der()).build().unwrap();
    assert_eq!(fault_of(handshake(&server_of(&server), &client, "localhost")), CertificateError::UnknownIssuer);
}

fn client_of(pki: &Pki, identity: &Identity) -> ClientTls {
    pki.client_tls_builder().identity_pem(identity.chain_pem(), identity.key_pem()).build().unwrap()
}

#[test]
fn mutual_tls_requires_a_valid_client_certificate() {
    let pki = Pki::new();
    let (alice, mallory) = (pki.client("alice"), pki.issue(Profile::client("alice").revoked()));
    let stranger = pki.issue(Profile::client("alice").other_ca());
    let required = pki.server_tls_builder().client_ca_pem(pki.ca_pem()).client_crl_pem(pki.crl_pem());
    let required = required.build().unwrap();
    let pair = handshake(&required, &client_of(&pki, &alice), "localhost").unwrap();
    assert_eq!(pair.server.peer_certificates(), Some(alice.chain_der().as_slice()));
    assert_eq!(client_of(&pki, &alice).own_certificates(), Some(alice.chain_der().into()));

    let none = handshake(&required, &pki.client_tls(), "localhost").map(|_| ());
    assert_eq!(none, Err(rustls::Error::NoCertificatesPresented));
    let refuse = |client: &Identity| fault_of(handshake(&required, &client_of(&pki, client), "localhost"));
    assert_eq!(refuse(&mallory), CertificateError::Revoked);
    assert_eq!(refuse(&stranger), CertificateError::UnknownIssuer);
}

#[test]
fn optional_mutual_tls_accepts_no_certificate_and_refuses_a_bad_one() {
    let pki = Pki::new();
    let optional = pki.server_tls_builder().client_ca_pem(pki.ca_pem()).client_auth_optional().build().unwrap();
    let pair = handshake(&optional, &pki.client_tls(), "localhost").unwrap();
    assert_eq!(pair.server.peer_certificates(), None);
    handshake(&optional, &client_of(&pki, &pki.client("alice")), "localhost").unwrap();
    let stranger = client_of(&pki, &pki.issue(Profile::client("alice").other_ca()));
    assert_eq!(fault_of(handshake(&optional, &stranger, "localhost")), CertificateError::UnknownIssuer);
}

#[test]
fn alpn_is_agreed_on_in_the_servers_order() {
    let pki = Pki::new();
    let server = pki.server_tls_builder().alpn(["h2", "http/1.1"]).build().unwrap();
    let client = pki.client_tls_builder().alpn([&b"http/1.1"[..], b"h2"]).build().unwrap();
    let pair = handshake(&server, &client, "localhost").unwrap();
    assert_eq!(pair.client.alpn_protocol(), Some(&b"h2"[..]));
}

#[test]
fn tickets_are_under_the_features_provider_or_none() {
    let pki = Pki::new();
    let provider = pki.client_tls().config().crypto_provider().clone();
    assert!(pki.server_tls().config().ticketer.enabled());
    assert!(!pki.server_tls_builder().provider(provider).build().unwrap().config().ticketer.enabled());
}

#[test]
fn sessions_are_resumed_with_the_features_provider_and_with_another() {
    let pki = Pki::new();
    let provider = pki.client_tls().config().crypto_provider().clone();
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        for server in [pki.server_tls_builder(), pki.server_tls_builder().provider(provider.clone())] {
            let server = server.build().unwrap();
            let client = pki.client_tls_builder().min_version(version).max_version(version).build().unwrap();
            let kinds = [(); 2].map(|()| handshake(&server, &client, "localhost").unwrap().client.handshake_kind());
            assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{version}");
            assert_ne!(kinds[0], kinds[1]);
        }
    }
}
