//! Mistakes with certificates and keys, and the error for each of them.

#[cfg(feature = "encrypted-keys")]
mod encrypted;
mod handshake;
mod identities;
mod pem;
#[cfg(unix)]
mod reload;
mod revocation;
mod subject;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tempfile::TempDir;

use super::{ClientTls, Identity, ServerTls, TlsVersion, WarningKind, server_name};
use crate::error::{ConfigError, ConfigProblem, Error};
use crate::testing::pki::{KeyKind, Pki, Profile};

fn problem(error: Error) -> ConfigError {
    match error {
        Error::Config(error) => error,
        other => panic!("not an error of configuration: {other}"),
    }
}

/// Builds a server of these two texts, as files, and returns what is wrong, with the file's name.
fn mistake(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> (String, ConfigProblem) {
    let dir = TempDir::new().unwrap();
    let (chain_path, key_path) = (write(&dir, "chain.pem", chain), write(&dir, "key.pem", key));
    let error = problem(ServerTls::builder().identity_pem_files(&chain_path, &key_path).build().unwrap_err());
    assert!(error.to_string().starts_with(&format!("{}: ", error.file.as_ref().unwrap().display())), "{error}");
    (file_name(&error), error.problem)
}

fn file_name(error: &ConfigError) -> String {
    error.file.as_deref().and_then(Path::file_name).unwrap().to_string_lossy().into_owned()
}

fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

macro_rules! assert_mistake {
    ($found:expr, $file:literal, $problem:pat $(if $guard:expr)?) => {
        match $found {
            (file, $problem) if file == $file $(&& $guard)? => {}
            (file, problem) => panic!("{file}: {problem:?}"),
        }
    };
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let server = Pki::new().server(&[]);
    let dir = TempDir::new().unwrap();
    let (chain, key) = server.write_to(&dir).unwrap();
    for (chain, key, missing) in [(dir.path().join("no.pem"), key.clone(), "no.pem"), (chain, dir.path().into(), "")] {
        let error = problem(ServerTls::builder().identity_pem_files(chain, key).build().unwrap_err());
        assert_eq!(error.file, Some(if missing.is_empty() { dir.path().into() } else { dir.path().join(missing) }));
        assert!(matches!(error.problem, ConfigProblem::Unreadable(_)), "{error}");
    }
}

#[test]
fn an_error_names_the_file_that_lacks_the_wanted_section() {
    let server = Pki::new().server(&[]);
    let (chain, key) = (server.chain_pem(), server.key_pem());
    assert_mistake!(mistake(key, key), "chain.pem", ConfigProblem::NoCertificate);
    assert_mistake!(mistake("", key), "chain.pem", ConfigProblem::NoCertificate);
    assert_mistake!(mistake(chain, chain), "key.pem", ConfigProblem::NoKey);
    assert_mistake!(mistake(chain, "no key today\n"), "key.pem", ConfigProblem::NoKey);
}

#[test]
fn an_encrypted_key_is_called_so_in_both_formats() {
    let server = Pki::new().server(&[]);
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let pkcs1 = "-----BEGIN RSA PRIVATE KEY-----\r\nProc-Type: 4,ENCRYPTED\r\nDEK-Info: AES-128-CBC,00\r\n\r\nMIIB\r\n\
                 -----END RSA PRIVATE KEY-----\r\n";
    for key in [pkcs8, pkcs1] {
        assert_mistake!(mistake(server.chain_pem(), key), "key.pem", ConfigProblem::EncryptedKey);
    }
}

#[test]
fn the_error_for_an_unusable_key_gives_the_reason() {
    let server = Pki::new().server(&[]);
    let ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\nMIIB\n-----END OPENSSH PRIVATE KEY-----\n";
    let found = mistake(server.chain_pem(), ssh);
    assert_mistake!(found, "key.pem", ConfigProblem::UnusableKey(why) if why.contains("OPENSSH"));
    let garbage = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    assert_mistake!(mistake(server.chain_pem(), garbage), "key.pem", ConfigProblem::UnusableKey(_));
}

#[test]
fn the_key_of_another_certificate_is_found() {
    let pki = Pki::new();
    let (server, other) = (pki.server(&[]), pki.server(&[]));
    assert_mistake!(mistake(server.chain_pem(), other.key_pem()), "key.pem", ConfigProblem::KeyMismatch);
    let ed25519 = pki.issue(Profile::server(&[]).key(KeyKind::Ed25519));
    assert_mistake!(mistake(server.chain_pem(), ed25519.key_pem()), "key.pem", ConfigProblem::KeyMismatch);
}

#[test]
fn a_chain_in_the_wrong_order_is_found() {
    let pki = Pki::new();
    let server = pki.server(&[]);
    let begin_of_second = server.chain_pem().rfind("-----BEGIN").unwrap();
    let (leaf, intermediate) = server.chain_pem().split_at(begin_of_second);
    let found = mistake(format!("{intermediate}{leaf}"), server.key_pem());
    assert_mistake!(found, "chain.pem", ConfigProblem::ChainOrder { position: 2 });

    let stray = format!("{leaf}{}{intermediate}", pki.client("x").chain_pem());
    let tls = ServerTls::builder().identity_pem(stray, server.key_pem()).build().unwrap();
    assert_eq!(kinds(tls.warnings())[0], WarningKind::ChainOrder);
}

#[test]
fn the_error_for_input_that_is_not_pem_names_its_format() {
    let server = Pki::new().server(&[]);
    let utf16: Vec<u8> = "\u{feff}-----BEGIN".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let found = mistake(server.cert_der(), server.key_pem());
    assert_mistake!(found, "chain.pem", ConfigProblem::BadPem(what) if what.contains("DER"));
    let found = mistake(server.chain_pem(), server.key_der().secret_der());
    assert_mistake!(found, "key.pem", ConfigProblem::BadPem(what) if what.contains("DER"));
    let found = mistake(utf16, server.key_pem());
    assert_mistake!(found, "chain.pem", ConfigProblem::BadPem(what) if what.contains("UTF-16"));
}

#[test]
fn a_certificate_that_is_none_is_found() {
    let server = Pki::new().server(&[]);
    let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    assert_mistake!(mistake(garbage, server.key_pem()), "chain.pem", ConfigProblem::BadCertificate(_));
    let error = problem(ClientTls::builder().roots_pem(garbage).build().unwrap_err());
    assert!(matches!(error.problem, ConfigProblem::BadCertificate(_)), "{error}");
}

#[test]
fn unusual_files_are_taken() {
    let server = Pki::new().server(&[]);
    let both = format!("{}{}", server.key_pem(), server.chain_pem());
    let dir = TempDir::new().unwrap();
    let one_file = write(&dir, "both.pem", &both);
    ServerTls::builder().identity_pem_files(&one_file, &one_file).build().unwrap();
    let texts = [
        both.replace('\n', "\r\n"),
        both.replace('\n', "\r"),
        both.trim_end().to_owned(),
        format!("\u{feff}{both}"),
        format!("Certificate:\n    Data: Version 3\nsubject=/CN=x\n{both}behind\n"),
        format!("-----BEGIN EC PARAMETERS-----\n*\n-----END EC PARAMETERS-----\n{both}"),
    ];
    for text in texts {
        ServerTls::builder().identity_pem(text.as_str(), text.as_str()).build().unwrap();
    }
}

#[test]
fn contradictory_settings_are_refused() {
    let pki = Pki::new();
    let server = || pki.server_tls_builder();
    let refused = [
        server().min_version(TlsVersion::V1_3).max_version(TlsVersion::V1_2).build().map(drop),
        server().alpn([""]).build().map(drop),
        server().alpn(["x".repeat(256)]).build().map(drop),
        server().client_auth_optional().build().map(drop),
        server().client_crl_pem(pki.crl_pem()).build().map(drop),
        pki.client_tls_builder().dangerous_no_verification().build().map(drop),
        ClientTls::builder().crl_pem(pki.crl_pem()).dangerous_no_verification().build().map(drop),
    ];
    for result in refused {
        let error = problem(result.unwrap_err());
        assert!(matches!(error.problem, ConfigProblem::Contradiction(_)), "{error}");
    }
}

#[test]
fn the_error_for_a_missing_part_names_it() {
    let error = problem(ServerTls::builder().build().unwrap_err());
    assert!(matches!(error.problem, ConfigProblem::NoIdentity), "{error}");
    let error = problem(ServerTls::builder().identity(vec![], Pki::new().server(&[]).key_der()).build().unwrap_err());
    assert!(matches!(error.problem, ConfigProblem::NoCertificate), "{error}");
    let error = problem(ClientTls::builder().build().unwrap_err());
    assert!(matches!(error.problem, ConfigProblem::NoRoots), "{error}");
}

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
#[test]
fn without_a_provider_there_is_an_error_that_names_the_fix_and_no_panic() {
    for error in [ServerTls::builder().build().map(drop), ClientTls::builder().build().map(drop)] {
        let error = problem(error.unwrap_err());
        assert!(matches!(error.problem, ConfigProblem::NoProvider), "{error}");
    }
}

#[test]
fn a_broken_revocation_list_is_named() {
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    let garbage = "-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n";
    let (good, bad, none) = (
        write(&dir, "good.pem", pki.crl_pem()),
        write(&dir, "bad.pem", garbage),
        write(&dir, "none.pem", pki.ca_pem()),
    );
    for path in [&bad, &none] {
        let error = problem(pki.client_tls_builder().crl_pem_file(&good).crl_pem_file(path).build().unwrap_err());
        assert_eq!(error.file.as_ref(), Some(path));
        assert!(matches!(error.problem, ConfigProblem::BadRevocationList(_)), "{error}");
    }
}

#[test]
fn oddities_are_warnings_and_no_errors() {
    let pki = Pki::new();
    let cases = [
        (Profile::server(&[]), vec![]),
        (Profile::server(&[]).expired(), vec![WarningKind::Expired]),
        (Profile::server(&[]).not_yet_valid(), vec![WarningKind::NotYetValid]),
        (Profile::server(&[]).self_signed().marked_as_ca(), vec![WarningKind::MarkedAsCa]),
        (Profile::client("x"), vec![WarningKind::NoNames]),
    ];
    for (profile, expected) in cases {
        let dir = TempDir::new().unwrap();
        let (chain, key) = pki.issue(profile).write_to(&dir).unwrap();
        let tls = ServerTls::builder().identity_pem_files(&chain, key).build().unwrap();
        assert_eq!(kinds(tls.warnings()), expected);
        for warning in tls.warnings().iter() {
            assert_eq!(warning.file.as_ref(), Some(&chain));
            assert!(warning.to_string().contains("CN="), "{warning}");
        }
    }
    let client = pki.issue(Profile::client("x").expired());
    let tls = pki.client_tls_builder().identity(client.chain_der(), client.key_der()).build().unwrap();
    assert_eq!(kinds(tls.warnings()), [WarningKind::Expired]);
}

#[test]
fn a_certificate_near_its_end_is_a_warning() {
    let days = |n| time::Duration::days(n);
    for (lived, left, expected) in [(90, 6, true), (90, 8, false), (4, 3, false), (4, 1, true)] {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = time::OffsetDateTime::now_utc() - days(lived);
        params.not_after = time::OffsetDateTime::now_utc() + days(left);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        let tls = ServerTls::builder().identity_pem(cert.pem(), key.serialize_pem()).build().unwrap();
        let found = kinds(tls.warnings());
        assert_eq!(found, if expected { vec![WarningKind::ExpiresSoon] } else { vec![] }, "{lived} {left}");
    }
}

#[cfg(feature = "platform-roots")]
#[test]
fn platform_roots_are_taken_or_missed_by_name() {
    match ClientTls::builder().platform_roots().build() {
        Ok(_) => {}
        Err(error) => assert!(matches!(problem(error).problem, ConfigProblem::NoRoots)),
    }
    ClientTls::builder().platform_roots().root(Pki::new().ca_der()).build().unwrap();
    let both = ClientTls::builder().platform_roots().dangerous_no_verification().build();
    assert!(matches!(problem(both.unwrap_err()).problem, ConfigProblem::Contradiction(_)));
}

fn kinds(warnings: impl AsRef<[super::ConfigWarning]>) -> Vec<WarningKind> {
    warnings.as_ref().iter().map(|warning| warning.kind).collect()
}

/// rule: secure-8
#[test]
fn server_names_are_parsed_as_written_in_urls() {
    for name in ["localhost", "EXAMPLE.com", "example.com.", "_service.example", "xn--bcher-kva.example"] {
        let ServerName::DnsName(dns) = server_name(name).unwrap() else { panic!("{name}") };
        assert_eq!(dns.as_ref().trim_end_matches('.'), name.trim_end_matches('.'));
    }
    for (name, address) in [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25]", "fe80::1"),
    ] {
        let ip: std::net::IpAddr = address.parse().unwrap();
        assert_eq!(server_name(name).unwrap(), ServerName::from(ip), "{name}");
    }
    for name in [
        "",
        ".",
        "a b",
        "bücher.example",
        "1.2.3",
        "[localhost]",
        "[127.0.0.1]",
        "[::1",
        "::1%",
        "localhost:80",
        "x%eth0",
    ] {
        let error = problem(server_name(name).unwrap_err());
        assert!(matches!(&error.problem, ConfigProblem::BadServerName(given) if given == name), "{error}");
    }
}

#[test]
fn configurations_of_rustls_are_taken_as_they_are() {
    let pki = Pki::new();
    let (server, client) = (pki.server_tls(), pki.client_tls());
    let (server_again, client_again) = (ServerTls::from(server.config()), ClientTls::from(client.config()));
    assert!(Arc::ptr_eq(&server.config(), &server_again.config()));
    assert!(Arc::ptr_eq(&client.config(), &client_again.config()));
    assert_eq!(server.own_certificates().unwrap().len(), 2);
    assert_eq!(server_again.own_certificates(), None);
}

#[test]
fn debug_output_shows_no_key() {
    let server = Pki::new().server(&[]);
    let builder = ServerTls::builder().identity_pem(server.chain_pem(), server.key_pem());
    let key = server.key_der();
    let shown = format!("{builder:?}{:?}{:?}", ServerTls::builder().identity(vec![], key.clone_key()), server);
    let bytes = format!("{:?}", &key.secret_der()[40..48]);
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}
