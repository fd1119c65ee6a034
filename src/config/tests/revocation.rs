//! Revocation lists, and a root that a server presents as its own certificate.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber,
};
use rustls::CertificateError;
use time::{Duration, OffsetDateTime};

use super::super::{ClientTls, ServerTls};
use super::handshake::{fault_of, handshake};
use crate::testing::pki::Pki;

type Root = CertifiedIssuer<'static, KeyPair>;

const SERIAL: u64 = 4711;

/// A root for `localhost`, marked as a CA certificate or not.
fn root(is_marked: bool) -> Root {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(SERIAL));
    if is_marked {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    Root::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A list of this issuer with these serial numbers, valid for `days` days from now.
fn list(issuer: &Root, revoked: &[u64], days: i64) -> String {
    list_made(9, issuer, revoked, days)
}

/// As `list`, made `ago` days ago.
fn list_made(ago: i64, issuer: &Root, revoked: &[u64], days: i64) -> String {
    let now = OffsetDateTime::now_utc();
    let entry = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: now - Duration::DAY,
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: now - Duration::days(ago),
        next_update: now + Duration::days(days),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).unwrap().pem().unwrap()
}

/// The error of a client with these lists when a server presents the root.
fn fault(root: &Root, lists: &[String]) -> Option<CertificateError> {
    let server = ServerTls::builder().identity_pem(root.pem(), root.key().serialize_pem()).build().unwrap();
    let builder = ClientTls::builder().root(root.der().clone());
    let client = lists.iter().fold(builder, |builder, list| builder.crl_pem(list.clone())).build().unwrap();
    let result = handshake(&server, &client, "localhost");
    result.is_err().then(|| fault_of(result))
}

/// rule: secure-12
#[test]
fn the_newest_of_two_lists_of_an_issuer_is_used_in_any_order() {
    let root = root(true);
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(7_u64));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &root).unwrap();
    let server = ServerTls::builder().identity_pem(leaf.pem(), key.serialize_pem()).build().unwrap();
    let (old, new) = (list_made(5, &root, &[], 30), list_made(1, &root, &[7], 20));
    for lists in [format!("{old}{new}"), format!("{new}{old}")] {
        let client = ClientTls::builder().root(root.der().clone()).crl_pem(lists).build().unwrap();
        let result = handshake(&server, &client, "localhost");
        assert!(result.is_err());
        assert_eq!(fault_of(result), CertificateError::Revoked);
    }
}

/// rule: secure-12
#[test]
fn a_root_that_is_the_server_needs_its_own_list_if_lists_are_given() {
    let strangers = Pki::new().crl_pem();
    for is_marked in [true, false] {
        let root = root(is_marked);
        assert_eq!(fault(&root, &[]), None, "{is_marked}");
        assert_eq!(
            fault(&root, std::slice::from_ref(&strangers)),
            Some(CertificateError::UnknownRevocationStatus),
            "{is_marked}"
        );
    }
    // webpki accepts lists only from a certificate that is marked as a CA, so these lists are for such a root.
    let marked = root(true);
    assert_eq!(fault(&marked, &[strangers.clone(), list(&marked, &[1, 2], 30)]), None);
    assert_eq!(fault(&marked, &[strangers, list(&marked, &[1, SERIAL], 30)]), Some(CertificateError::Revoked));
}

/// rule: secure-12
#[test]
fn a_root_as_a_server_is_refused_by_a_list_that_is_old_or_another_ones() {
    let root = root(true);
    let expired = fault(&root, &[list(&root, &[], -1)]);
    assert!(matches!(expired, Some(CertificateError::ExpiredRevocationListContext { .. })), "{expired:?}");
    assert_eq!(fault(&root, &[list(&root, &[], -1), list(&root, &[], 30)]), None, "the newer one counts");
    assert_eq!(fault(&root, &[list(&root, &[SERIAL], -1), list(&root, &[], 30)]), Some(CertificateError::Revoked));
    // A list of a CA that has the same name and another key does not count.
    let namesake = self::root(true);
    assert_eq!(fault(&root, &[list(&namesake, &[], 30)]), Some(CertificateError::UnknownRevocationStatus));
}

/// rule: identity-9
#[test]
fn how_strictly_lists_are_used_can_be_chosen() {
    let pki = Pki::new();
    let revoked = pki.revoked();
    // The first list is that of the root.
    let lists = pki.crl_pem();
    let of_leaves = &lists[lists.rfind("-----BEGIN").unwrap()..];
    let bad = ServerTls::builder().identity(revoked.chain_der(), revoked.key_der()).build().unwrap();
    let client = || pki.client_tls_builder().crl_pem(of_leaves);
    for (client, is_accepted) in
        [(client(), false), (client().crl_leaf_only(), true), (client().crl_tolerate_unknown_status(), true)]
    {
        let client = client.build().unwrap();
        let result = handshake(&pki.server_tls(), &client, "localhost");
        match is_accepted {
            true => drop(result.unwrap()),
            false => assert_eq!(fault_of(result), CertificateError::UnknownRevocationStatus),
        }
        let expected = fault_of(handshake(&bad, &client, "localhost"));
        assert!(matches!(expected, CertificateError::Revoked | CertificateError::UnknownRevocationStatus));
        assert!(!is_accepted || expected == CertificateError::Revoked);
    }

    let person = pki.client("somebody");
    let client = pki.client_tls_builder().identity(person.chain_der(), person.key_der()).build().unwrap();
    let server = || pki.server_tls_builder().client_ca_pem(pki.ca_pem()).client_crl_pem(of_leaves);
    assert!(handshake(&server().build().unwrap(), &client, "localhost").is_err());
    handshake(&server().client_crl_leaf_only().build().unwrap(), &client, "localhost").unwrap();
    handshake(&server().client_crl_tolerate_unknown_status().build().unwrap(), &client, "localhost").unwrap();
    pki.revoke(&person);
    let server = pki.server_tls_builder().client_ca_pem(pki.ca_pem()).client_crl_pem(pki.crl_pem());
    let server = server.client_crl_leaf_only().client_crl_tolerate_unknown_status().build().unwrap();
    assert_eq!(fault_of(handshake(&server, &client, "localhost")), CertificateError::Revoked);
}

/// rule: identity-9
#[test]
fn a_root_as_a_server_needs_a_list_unless_an_unknown_status_is_tolerated() {
    let (root, other) = (root(true), root(true));
    let server = ServerTls::builder().identity_pem(root.pem(), root.key().serialize_pem()).build().unwrap();
    let client = || ClientTls::builder().root(root.der().clone());
    let with = |list: String| client().crl_pem(list).crl_tolerate_unknown_status().build().unwrap();
    handshake(&server, &with(list(&other, &[], 9)), "localhost").unwrap();
    assert_eq!(fault_of(handshake(&server, &with(list(&root, &[SERIAL], 9)), "localhost")), CertificateError::Revoked);
}
