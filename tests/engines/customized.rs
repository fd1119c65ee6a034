//! Settings that are code of the application, and settings that only rustls's own configuration has, with both engines.

use std::sync::Arc;

use bowline::config::{ServerTlsBuilder, WarningKind};
use bowline::core::facts::SessionFacts;
use bowline::rustls::NamedGroup;
use bowline::rustls::server::{ClientHello, ResolvesServerCert};
use bowline::rustls::sign::{CertifiedKey, SingleCertAndKey};
use bowline::testing::pki::Identity;
use bowline::testing::shared_pki;
use bowline::{ChannelBinding, ClientTls, ServerTls};

use crate::wires::{sessions, settle};

fn builder(express: bool) -> ServerTlsBuilder {
    if express { ServerTls::builder().express() } else { ServerTls::builder() }
}

fn of(identity: &Identity, express: bool) -> ServerTlsBuilder {
    builder(express).identity(identity.chain_der(), identity.key_der())
}

/// The facts of both sides, client first.
fn facts(client: &ClientTls, server: &ServerTls) -> [Arc<SessionFacts>; 2] {
    let mut both = sessions(client, server);
    settle(&mut both);
    both.map(|session| session.facts().unwrap_or_else(|| panic!("{:?}", session.failure())).clone())
}

fn resolver(identity: &Identity) -> Arc<dyn ResolvesServerCert> {
    let tls = of(identity, false).build().unwrap();
    let key = tls.config().crypto_provider().key_provider.load_private_key(identity.key_der()).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(identity.chain_der(), key)))
}

/// rule: identity-9
/// rule: secure-15
#[test]
fn the_chain_of_a_resolver_is_known() {
    let pki = shared_pki();
    let (first, second) = (pki.server(&[]), pki.server(&[]));
    let client = pki.client_tls();
    for express in [false, true] {
        let other = resolver(&second);
        let by_builder = builder(express).cert_resolver(resolver(&second)).build().unwrap();
        let by_change = of(&first, express).customize(move |config| config.cert_resolver = Arc::clone(&other));
        for server in [by_builder, by_change.build().unwrap()] {
            assert!(server.own_certificates().is_none() && server.is_express() == express);
            for _ in 0..2 {
                let [ours, theirs] = facts(&client, &server);
                assert_eq!((&theirs.own_chain[..], theirs.identity.as_deref()), (&second.chain_der()[..], None));
                let binding = |facts: &SessionFacts| facts.channel_binding(ChannelBinding::TlsServerEndPoint).unwrap();
                assert_eq!(binding(&ours), binding(&theirs));
            }
        }
    }
    let refused = [
        of(&first, false).cert_resolver(resolver(&second)).build(),
        ServerTls::builder().cert_resolver(resolver(&second)).refuse_unknown_names().build(),
    ];
    for result in refused {
        assert!(matches!(result, Err(bowline::Error::Config(_))), "{result:?}");
    }
}

/// A resolver that chooses nothing.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// rule: identity-9
/// rule: secure-11
#[test]
fn a_change_of_the_configuration_keeps_the_rest_of_the_builder() {
    let pki = shared_pki();
    let identity = pki.issue(bowline::testing::pki::Profile::server(&[]).marked_as_ca());
    for express in [false, true] {
        let server = of(&identity, express)
            .customize(|config| config.alpn_protocols = vec![b"first".to_vec()])
            .customize(|config| {
                config.alpn_protocols.push(b"second".to_vec());
                (config.max_early_data_size, config.send_half_rtt_data) = (1000, true);
            })
            .build()
            .unwrap();
        let kinds: Vec<_> = server.warnings().iter().map(|warning| warning.kind).collect();
        assert_eq!(kinds, [WarningKind::MarkedAsCa, WarningKind::TurnedOff, WarningKind::TurnedOff]);
        assert_eq!((server.is_express(), server.config().max_early_data_size), (express, 0));
        assert_eq!(server.own_certificates().unwrap()[0], identity.cert_der());

        let client = ClientTls::builder()
            .dangerous_no_verification()
            .alpn(["second"])
            .customize(|config| (config.enable_early_data, config.require_ems) = (true, true));
        let client = if express { client.express() } else { client }.build().unwrap();
        assert_eq!(client.warnings()[0].kind, WarningKind::TurnedOff);
        assert!(client.config().require_ems && !client.config().enable_early_data);
        let [ours, theirs] = facts(&client, &server);
        assert_eq!((ours.alpn.as_deref(), theirs.alpn.as_deref()), (Some(&b"second"[..]), Some(&b"second"[..])));
        assert_eq!(theirs.own_chain[0], identity.cert_der());

        let nothing = builder(express).cert_resolver(Arc::new(Nothing)).build().unwrap();
        let mut both = sessions(&client, &nothing);
        settle(&mut both);
        assert!(both[1].failure().is_some() && both[0].facts().is_none());
    }
}

/// rule: identity-9
#[test]
fn the_groups_of_the_key_exchange_can_be_chosen() {
    let pki = shared_pki();
    let identity = pki.server(&[]);
    for express in [false, true] {
        for group in [NamedGroup::secp256r1, NamedGroup::X25519] {
            let server = of(&identity, express).key_exchange_groups([group]).build().unwrap();
            let [ours, theirs] = facts(&pki.client_tls(), &server);
            assert_eq!((ours.group, theirs.group), (Some(group), Some(group)));
            let client = pki.client_tls_builder().key_exchange_groups([group]).build().unwrap();
            let [ours, _] = facts(&client, &of(&identity, express).build().unwrap());
            assert_eq!(ours.group, Some(group));
        }
    }
    let error = of(&identity, false).key_exchange_groups([NamedGroup::FFDHE2048]).build().unwrap_err().to_string();
    assert!(error.starts_with("the crypto provider has ") && error.ends_with(", not FFDHE2048"), "{error}");
    assert!(of(&identity, false).key_exchange_groups([]).build().is_err());
}
