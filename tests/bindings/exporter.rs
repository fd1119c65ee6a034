//! The exporter and `tls-exporter`: every pair of engines, both versions.

use bowline::testing::{memory_pair, shared_pki, tcp_pair};
use bowline::{
    Blame, ChannelBinding, Error, SessionError, StartTls, TlsConnection, TlsTransport, TlsVersion, Transport,
    UpgradableConnection,
};

use crate::{BINDINGS, ENGINES, VERSIONS, client, pair, pair_of, server, session_error};

/// rule: secure-15
#[tokio::test]
async fn both_sides_export_the_same_and_other_inputs_give_other_material() {
    for version in VERSIONS {
        for engines in ENGINES {
            let mut seen = Vec::new();
            for _ in 0..2 {
                let (mut client, mut server) = pair(version, engines).await;
                let binding = client.tls().unwrap().channel_binding(ChannelBinding::TlsExporter).unwrap();
                assert_eq!(server.tls().unwrap().channel_binding(ChannelBinding::TlsExporter).unwrap(), binding);
                assert_eq!(binding.len(), 32);
                // RFC 9266, section 2, defines this binding as an export with an empty context.
                let mut exported = [0; 32];
                client.export_keying_material(&mut exported, b"EXPORTER-Channel-Binding", Some(b"")).unwrap();
                assert_eq!(exported[..], binding);
                seen.push(binding);
                for (label, context) in
                    [(&b"EXPERIMENTAL-a"[..], None), (b"EXPERIMENTAL-b", None), (b"EXPERIMENTAL-a", Some(&b"c"[..]))]
                {
                    let mut both = [[0; 77]; 2];
                    client.export_keying_material(&mut both[0], label, context).unwrap();
                    server.export_keying_material(&mut both[1], label, context).unwrap();
                    assert_eq!(both[0], both[1], "{version} {engines:?} {label:?} {context:?}");
                    seen.push(both[0].to_vec());
                }
                // The bindings are available after the end too.
                let _ = tokio::join!(client.close(), server.close());
                let mut late = [0; 77];
                server.export_keying_material(&mut late, b"EXPERIMENTAL-b", None).unwrap();
                assert_eq!(late[..], seen[seen.len() - 2][..]);
                assert_eq!(client.tls().unwrap().channel_binding(ChannelBinding::TlsExporter).unwrap(), exported);
            }
            let count = seen.len();
            seen.sort();
            seen.dedup();
            assert_eq!(seen.len(), count, "{version} {engines:?}");
        }
    }
}

/// rule: secure-15
#[tokio::test]
async fn an_empty_context_is_none_in_tls_1_3_only() {
    for version in VERSIONS {
        for engines in ENGINES {
            let (client, server) = pair(version, engines).await;
            let mut both = [[0; 20]; 2];
            client.export_keying_material(&mut both[0], b"EXPERIMENTAL-a", None).unwrap();
            server.export_keying_material(&mut both[1], b"EXPERIMENTAL-a", Some(b"")).unwrap();
            assert_eq!(both[0] == both[1], version == TlsVersion::V1_3);
        }
    }
}

/// rule: secure-15
#[tokio::test]
async fn arguments_that_are_not_allowed_are_refused_by_name() {
    let long = vec![b'x'; 0x1_0000];
    for version in VERSIONS {
        for engine in [false, true] {
            let (client, _server) = pair(version, (engine, false)).await;
            let refused = |len: usize, label: &[u8], context: Option<&[u8]>| {
                let error = client.export_keying_material(&mut vec![0; len], label, context).unwrap_err();
                assert_eq!(error.blame(), Blame::Us);
                match session_error::<()>(Err(error)) {
                    SessionError::BadExport(why) => why,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(refused(0, b"EXPERIMENTAL", None), "no bytes were asked for");
            assert_eq!(refused(8161, b"EXPERIMENTAL", None), "more than 8160 bytes were asked for");
            assert_eq!(refused(1, b"", None), "the label is empty");
            assert_eq!(refused(1, &long[..250], None), "the label is longer than 249 bytes");
            // With this label, the exporter would return the keys of the session.
            assert_eq!(refused(1, b"key expansion", None), "the label is one of TLS itself");
            assert_eq!(refused(1, b"EXPERIMENTAL", Some(&long)), "the context is longer than 65,535 bytes");
            // The limits themselves are allowed.
            client.export_keying_material(&mut vec![0; 8160], &long[..249], Some(&long[1..])).unwrap();
        }
    }
}

/// rule: secure-15
#[tokio::test]
async fn there_is_nothing_before_the_end_of_the_handshake_and_in_plaintext() {
    let (a, b) = memory_pair();
    for express in [false, true] {
        let (a, _b) = memory_pair();
        let early = TlsConnection::client(a, &client(shared_pki(), TlsVersion::V1_3, express), "localhost").unwrap();
        let error = session_error(early.export_keying_material(&mut [0; 32], b"EXPERIMENTAL", None));
        assert_eq!(error, SessionError::NotSecured);
        assert!(early.tls().is_none());
    }
    let plain = UpgradableConnection::new(a);
    let error = session_error(plain.export_keying_material(&mut [0; 32], b"EXPERIMENTAL", None));
    assert_eq!(error, SessionError::NotSecured);
    drop(b);
}

/// rule: secure-15
#[tokio::test]
async fn tls_in_tls_gives_the_bindings_of_the_innermost_session() {
    for (of_client, of_server) in ENGINES {
        let pki = shared_pki();
        let (a, b) = tcp_pair().await.unwrap();
        let (mut a, mut b) = (UpgradableConnection::new(a), UpgradableConnection::new(b));
        let mut bindings: Vec<Vec<Vec<u8>>> = Vec::new();
        let mut outer = None;
        for version in [TlsVersion::V1_3, TlsVersion::V1_2] {
            let server = server(&pki.server(&[]), of_server);
            let client = client(pki, version, of_client);
            let (x, y) = tokio::join!(
                a.start_tls(StartTls::client(&client, "localhost")),
                b.start_tls(StartTls::server(&server))
            );
            x.and(y).unwrap();
            let of = |facts: &bowline::SessionFacts| {
                BINDINGS.map(|binding| facts.channel_binding(binding).unwrap()).to_vec()
            };
            assert_eq!(of(&a.tls().unwrap()), of(&b.tls().unwrap()));
            bindings.push(of(&a.tls().unwrap()));
            // The facts of the outer session stay as they were.
            let facts = outer.get_or_insert_with(|| a.tls().unwrap());
            assert_eq!(of(facts), bindings[0]);
        }
        assert_ne!(bindings[0][0], bindings[1][0]);
        assert_ne!(bindings[0][1], bindings[1][1]);
        // After the inner session has ended, the facts are those of the outer one.
        let (x, y) = tokio::join!(a.stop_tls(), b.stop_tls());
        x.and(y).unwrap();
        assert_eq!(a.tls().unwrap().channel_binding(ChannelBinding::TlsExporter).unwrap(), bindings[0][1]);
        let _ = tokio::join!(a.close(), b.close());
    }
}

/// rule: secure-15
#[tokio::test]
async fn of_a_session_of_tokio_rustls_only_what_is_certain_is_given() {
    for version in VERSIONS {
        let pki = shared_pki();
        let (a, b) = bowline::testing::raw_tcp_pair().await.unwrap();
        let config = client(pki, version, false).config();
        let connector = tokio_rustls::TlsConnector::from(config);
        let server = server(&pki.server(&[]), true);
        let b = bowline::TcpConnection::new(b, bowline::Policy::default()).unwrap();
        let name = "localhost".try_into().unwrap();
        let (client, server) = tokio::join!(connector.connect(name, a), TlsConnection::accept(b, &server));
        let server = server.unwrap();
        let client = TlsConnection::from_tokio_rustls(client.unwrap(), bowline::Policy::default()).unwrap();
        let of = |facts: &bowline::SessionFacts, binding| facts.channel_binding(binding);
        let (ours, theirs) = (server.tls().unwrap(), client.tls().unwrap());
        let end_point = ChannelBinding::TlsServerEndPoint;
        assert_eq!(of(&ours, end_point).unwrap(), of(&theirs, end_point).unwrap());
        match version {
            TlsVersion::V1_3 => {
                let exporter = ChannelBinding::TlsExporter;
                assert_eq!(of(&ours, exporter).unwrap(), of(&theirs, exporter).unwrap());
            }
            _ => {
                let error = session_error(of(&theirs, ChannelBinding::TlsExporter));
                assert_eq!(error, SessionError::UnknownMasterSecret);
                let error = Error::from(error).to_string();
                assert!(error.contains("of another library"), "{error}");
            }
        }
    }
}

/// rule: secure-15
#[tokio::test]
async fn a_resumed_session_has_bindings_of_its_own() {
    for version in VERSIONS {
        for engines in ENGINES {
            let pki = shared_pki();
            let (client, server) = (client(pki, version, engines.0), server(&pki.server(&[]), engines.1));
            let mut seen = Vec::new();
            for turn in 0..2 {
                let (mut a, mut b) = pair_of(&client, &server).await;
                let of =
                    |facts: &bowline::SessionFacts| BINDINGS.map(|binding| facts.channel_binding(binding).unwrap());
                assert_eq!(a.tls().unwrap().resumed, turn == 1, "{version} {engines:?}");
                assert_eq!(of(&a.tls().unwrap()), of(&b.tls().unwrap()), "{version} {engines:?}");
                seen.push(of(&a.tls().unwrap()));
                let _ = tokio::join!(a.close(), b.close());
            }
            assert!(seen[0][0] == seen[1][0] && seen[0][1] != seen[1][1]);
        }
    }
}
