//! PEM files as they occur in practice: everything in them is read, or the error names the line (rule: secure-12).

use super::{mistake, problem, write};
use crate::config::pem::Source;
use crate::config::{ClientTls, ServerTls, WarningKind};
use crate::error::{ConfigProblem, chain};
use crate::testing::pki::{Identity, Pki};
use tempfile::TempDir;

/// The end-entity certificate and the intermediate of a chain. Both end in a line end.
fn halves(server: &Identity) -> (&str, &str) {
    server.chain_pem().split_at(server.chain_pem().rfind("-----BEGIN").unwrap())
}

fn length_of_chain(chain: &str, key: &str) -> usize {
    ServerTls::builder().identity_pem(chain, key).build().unwrap().own_certificates().unwrap().len()
}

/// The error for a server's files.
fn said(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> String {
    let (chain, key) = (chain.as_ref().to_vec(), key.as_ref().to_vec());
    match ServerTls::builder().identity_pem(chain, key).build() {
        Ok(_) => "taken".into(),
        Err(error) => chain_of(&error),
    }
}

fn chain_of(error: &crate::error::Error) -> String {
    chain(error).to_string()
}

/// rule: secure-12
#[test]
fn files_that_were_joined_in_any_way_lose_no_certificate() {
    let server = Pki::new().server(&[]);
    let (leaf, intermediate) = halves(&server);
    let glued = leaf.trim_end();
    let joined = [
        format!("{glued}{intermediate}"),
        format!("{leaf}\u{feff}{intermediate}"),
        format!("{glued}\u{feff}{intermediate}"),
        format!("\u{feff}{glued} \t{intermediate}"),
        format!("{leaf}  \u{feff} {intermediate}"),
        server.chain_pem().replace('\n', "\r"),
        server.chain_pem().replace('\n', "\r\n"),
        server.chain_pem().replace('\n', "\n\n"),
        server.chain_pem().replace('\n', " \t\n"),
        server.chain_pem().lines().map(|line| format!("    {line}\n")).collect(),
        server.chain_pem().replace("-----\n", "-----\t\n").replace("-----BEGIN", "\t-----BEGIN"),
        server.chain_pem().replace("\n-----END", "-----END"),
        server.chain_pem().replace("CERTIFICATE", "X509 CERTIFICATE"),
        format!("subject=/CN=M\u{fc}ller -- begin of all\n{leaf}\n==== end ====\n{intermediate}the end\n"),
    ];
    for chain in joined {
        assert_eq!(length_of_chain(&chain, server.key_pem()), 2, "{chain}");
    }
    let both = format!("{}{}", server.key_pem().trim_end(), server.chain_pem());
    assert_eq!(length_of_chain(&both, &both), 2);
}

/// rule: secure-12
#[tokio::test]
async fn roots_that_were_joined_are_all_trusted() {
    let (one, two) = (Pki::new(), Pki::new());
    let roots = format!("{}{}", one.ca_pem().trim_end(), two.ca_pem());
    let client = ClientTls::builder().roots_pem(roots).build().unwrap();
    for pki in [one, two] {
        let (a, b) = crate::testing::tcp_pair().await.unwrap();
        let server = pki.server_tls();
        let connecting = crate::layers::tls::TlsConnection::connect(a, &client, "localhost");
        let (connected, _) = tokio::join!(connecting, crate::layers::tls::TlsConnection::accept(b, &server));
        connected.unwrap();
    }
}

/// rule: secure-12
#[test]
fn a_possibly_lost_section_is_an_error_with_its_line() {
    let server = Pki::new().server(&[]);
    // The cases below cut and join text with the line ends of Unix. On Windows, rcgen writes others.
    let chain = server.chain_pem().replace('\r', "");
    let (leaf, intermediate) = chain.split_at(chain.rfind("-----BEGIN").unwrap());
    let lines = leaf.lines().count();
    let next = lines + 1;
    let der = String::from_utf8_lossy(&server.cert_der()).into_owned();
    let cases = [
        (format!("{leaf}# {intermediate}"), format!("line {next}: "), "BEGIN does not start its line"),
        (format!("{leaf}x{intermediate}"), format!("line {next}: "), "BEGIN does not start its line"),
        (format!("{leaf}{}", &intermediate[1..]), format!("line {next}: "), "not written `-----BEGIN LABEL-----`"),
        (format!("{}-{intermediate}", leaf.trim_end()), format!("line {lines}: "), "BEGIN does not start its line"),
        (format!("{leaf}{}", intermediate.to_lowercase()), format!("line {next}: "), "not written"),
        (format!("{leaf}{}", intermediate.replace("-----", "----- ")), format!("line {next}: "), "BEGIN"),
        (format!("{leaf}{}", intermediate.replace("-----B", "\u{2013}\u{2014}B")), format!("line {next}: "), "BEGIN"),
        (format!("{leaf}{}", intermediate.replace("BEGIN ", "BEGIN")), format!("line {next}: "), "not written"),
        (format!("{leaf}{}", &intermediate[28..]), String::new(), "this END has no BEGIN"),
        (format!("{leaf}{}", &intermediate[28..300]), format!("line {next}: "), "base64 here without a BEGIN line"),
        (format!("{leaf}\n-----END CERTIFICATE-----\n"), format!("line {}: ", next + 1), "this END has no BEGIN"),
        (format!("{leaf}{der}"), String::new(), "binary bytes here"),
        (leaf.replace("END CERTIFICATE", "END X"), format!("line {lines}: "), "ends as X"),
        (leaf.replace("-----\n", "---\n"), "line 1: ".into(), "incomplete"),
        (leaf.trim_end_matches("--\n").to_owned(), format!("line {lines}: "), "END line is incomplete"),
        (leaf[..leaf.len() - 40].to_owned(), "line 1: ".into(), "no END line"),
        (format!("{}{intermediate}", &leaf[..leaf.len() - 40]), "line 1: ".into(), "no END line"),
        (leaf.replacen("\nM", "\n*", 1), "line 2: ".into(), "not valid base64"),
        (format!("a\r\n\u{feff}{}", leaf.replacen("\nM", "\n*", 1)), "line 3: ".into(), "not valid base64"),
        (leaf.replace('\n', "\\n"), "line 1: ".into(), r"the two characters \n"),
        (leaf.replace('\n', " "), "line 1: ".into(), "the line ends are missing"),
    ];
    for (chain, line, why) in cases {
        let said = said(&chain, server.key_pem());
        assert!(said.starts_with(&line) && said.contains(why), "{line}{why}: {said}\n{chain}");
    }
}

/// rule: secure-12
#[test]
fn the_error_names_the_kind_of_section_that_was_found() {
    let server = Pki::new().server(&[]);
    let (chain, key) = (server.chain_pem(), server.key_pem());
    let called = |label: &str| chain.replace("CERTIFICATE", label);
    let cases = [
        (key.to_owned(), key.to_owned(), "a private key (are the two files swapped?)"),
        (chain.to_owned(), chain.to_owned(), "a certificate (are the two files swapped?)"),
        (called("TRUSTED CERTIFICATE"), key.to_owned(), "TRUSTED CERTIFICATE, a format of OpenSSL"),
        (called("PKCS7"), key.to_owned(), "PKCS#7"),
        (called("CERTIFICATE REQUEST"), key.to_owned(), "a certificate request"),
        (called("NEW CERTIFICATE REQUEST"), key.to_owned(), "a certificate request"),
        (called("X509 CRL"), key.to_owned(), "a list of revoked certificates"),
        (called("PGP\x1b[2J"), key.to_owned(), r#"begins "PGP\x1b[2J""#),
        (chain.to_owned(), key.replace("PRIVATE", "PUBLIC"), "a public key"),
        (String::new(), key.to_owned(), "it is empty"),
        ("\n \n".into(), key.to_owned(), "it is empty"),
        (chain.to_owned(), "no key today\n".into(), "a text without a BEGIN line"),
        ("MIIB\n".into(), key.to_owned(), "base64 without a BEGIN"),
        // Skipping this section would lose a certificate, although there are others.
        (
            format!("{chain}{}", called("TRUSTED CERTIFICATE")),
            key.to_owned(),
            "TRUSTED CERTIFICATE, a format of OpenSSL",
        ),
        (format!("{chain}{}", called("PKCS7")), key.to_owned(), "PKCS#7"),
    ];
    for (chain, key, found) in cases {
        let said = said(chain, key);
        assert!(said.contains(found) && !said.contains(char::is_control), "{found}: {said}");
    }
    let (file, kind) = mistake(key, key);
    assert!(file == "chain.pem" && matches!(kind, ConfigProblem::NoCertificate));
}

/// rule: secure-12
#[test]
fn of_two_keys_none_is_chosen() {
    let pki = Pki::new();
    let (server, other) = (pki.server(&[]), pki.server(&[]));
    let second = server.key_pem().lines().count() + 1;
    let keys = format!("{}{}", server.key_pem(), other.key_pem());
    assert!(said(server.chain_pem(), &keys).starts_with(&format!("line {second}: a second private key")));
    let encrypted = other.key_pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let keys = format!("{}{encrypted}", server.key_pem());
    assert!(said(server.chain_pem(), &keys).starts_with(&format!("line {second}: a second private key")));
    assert_eq!(said(server.chain_pem(), server.key_pem().repeat(2)), "taken");
}

/// rule: secure-12
#[test]
fn the_bad_entry_of_a_bundle_is_located() {
    let pki = Pki::new();
    let server = pki.server(&[]);
    let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let line = server.chain_pem().lines().count() + 1;
    let told = said(format!("{}{garbage}", server.chain_pem()), server.key_pem());
    assert!(told.starts_with(&format!("line {line}: the certificate cannot be used: it is number 3")), "{told}");
    let dir = TempDir::new().unwrap();
    let path = write(&dir, "roots.pem", format!("{}{garbage}", pki.ca_pem()));
    let error = problem(ClientTls::builder().roots_pem_file(&path).build().unwrap_err());
    assert_eq!((error.file.as_deref(), error.line), (Some(&*path), Some(pki.ca_pem().lines().count() + 1)));
    let error = problem(
        pki.client_tls_builder()
            .crl_pem(format!("{}{}", pki.crl_pem(), garbage.replace("CERTIFICATE", "X509 CRL")))
            .build()
            .unwrap_err(),
    );
    assert_eq!(error.line, Some(pki.crl_pem().lines().count() + 1), "{error}");
    let pem_as_der = server.chain_pem().as_bytes().to_vec().into();
    let error = ServerTls::builder().identity(vec![pem_as_der], server.key_der()).build().unwrap_err();
    assert!(chain_of(&error).contains("it is PEM, not DER"), "{error}");
}

/// rule: secure-12
#[test]
fn an_error_names_the_kind_of_an_unsupported_key() {
    let server = Pki::new().server(&[]);
    // Version 0, then the algorithm. The bytes after it need not be a key of that kind.
    let keys = [
        ("MBwCAQAwBQYDK2VxBBAAAAAAAAAAAAAAAAAAAAAA", "an Ed448 key"),
        ("MBwCAQAwBQYDK2VuBBAAAAAAAAAAAAAAAAAAAAAA", "an X25519 key"),
        ("MCICAQAwCwYHKoZIzjgEATAABBAAAAAAAAAAAAAAAAAAAAAA", "a DSA key"),
        ("MB4CAQAwBwYFK4EEAAoEEAAAAAAAAAAAAAAAAAAAAAA=", "a key of the algorithm 1.3.132.0.10"),
        ("MCcCAQAwEAYHKoZIzj0CAQYFK4EEAAoEEAAAAAAAAAAAAAAAAAAAAAA=", "an EC key on secp256k1"),
        ("MCICAQAwCwYHKoZIzj0CATAABBAAAAAAAAAAAAAAAAAAAAAA", "an EC key with its curve written out"),
        (
            "MFwCAQAwDQYJKoZIhvcNAQEBBQAESDBGAgEAAkEAgAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ==",
            "an RSA key of 512 bits",
        ),
    ];
    for (base64, kind) in keys {
        let told =
            said(server.chain_pem(), format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n"));
        assert!(told.starts_with("line 1: ") && told.contains(kind), "{kind}: {told}");
    }
    // RFC 5915 and RFC 8017: the older formats, which name their kind in the PEM.
    for (label, base64, kind) in [
        ("EC", "MB4CAQEEEAAAAAAAAAAAAAAAAAAAAACgBwYFK4EEAAo=", "an EC key on secp256k1"),
        ("EC", "MBUCAQEEEAAAAAAAAAAAAAAAAAAAAAA=", "an EC key without its curve"),
        (
            "RSA",
            "MEYCAQACQQCAAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB",
            "an RSA key of 512 bits",
        ),
    ] {
        let pem = format!("-----BEGIN {label} PRIVATE KEY-----\n{base64}\n-----END {label} PRIVATE KEY-----\n");
        let told = said(server.chain_pem(), pem);
        assert!(told.starts_with("line 1: ") && told.contains(kind), "{kind}: {told}");
    }
}

/// rule: secure-12
#[test]
fn an_unused_revocation_list_in_a_file_of_roots_is_a_warning() {
    let pki = Pki::new();
    let both = format!("{}{}", pki.ca_pem(), pki.crl_pem());
    let client = ClientTls::builder().roots_pem(both.as_str()).build().unwrap();
    assert_eq!(super::kinds(client.warnings()), [WarningKind::UnusedList]);
    let server = pki.server_tls_builder().client_ca_pem(both.as_str()).build().unwrap();
    assert_eq!(super::kinds(server.warnings()), [WarningKind::UnusedList]);
    let client = ClientTls::builder().roots_pem(both.as_str()).crl_pem(both.as_str()).build().unwrap();
    assert!(client.warnings().is_empty());
}

#[test]
fn a_file_without_an_end_is_given_up() {
    let Ok(zeros) = std::fs::File::open("/dev/zero") else { return };
    drop(zeros);
    let error = ClientTls::builder().roots_pem_file("/dev/zero").build().unwrap_err();
    assert!(chain_of(&error).contains("longer than 64 MiB"), "{error}");
}

/// rule: secure-12
#[test]
fn words_with_hyphens_beside_certificates_are_no_marks() {
    let chain = Pki::new().server(&[]).chain_pem().to_owned();
    for words in [
        "friendlyName: my back-end certificate",
        "subject=CN = Front-End Certificate, O = Weekend-Keys",
        "# Label: \"BACK-END CERTIFICATE CA\"",
        "    friendlyName: front-end-key",
        "2-Begin certificates",
    ] {
        for text in [format!("Bag Attributes\r\n{words}\r\n{chain}"), format!("{chain}{words}")] {
            let certs = Source::Bytes(text.into_bytes()).certificates();
            assert_eq!(certs.unwrap().len(), 2, "{words}");
        }
    }
}

/// rule: secure-12
#[test]
fn no_change_of_one_byte_loses_a_certificate_in_silence() {
    let chain = Pki::new().server(&[]).chain_pem().as_bytes().to_vec();
    let count = |text: &[u8]| Source::Bytes(text.to_vec()).certificates().ok().map(|certs| certs.len());
    assert_eq!(count(&chain), Some(2));
    let is_marker = |line: &[u8]| line.starts_with(b"--");
    let lines = chain.split_inclusive(|&byte| byte == b'\n').scan(0, |end, line| {
        *end += line.len();
        // Changes inside base64 are not needed, except at the start and the end of each line.
        let places = *end - line.len()..*end;
        Some(places.clone().filter(move |at| is_marker(line) || at % 64 < 2 || at + 2 >= places.end))
    });
    for at in lines.flatten() {
        let (ahead, rest) = chain.split_at(at);
        let mut changed = vec![[ahead, &rest[1..]].concat()];
        // A cut between two sections cannot be detected.
        changed.extend((!rest.trim_ascii_start().starts_with(b"-----BEGIN")).then(|| ahead.to_vec()));
        for byte in *b"x -\n\xff:" {
            changed.push([ahead, &[byte], rest].concat());
            changed.push([ahead, &[byte], &rest[1..]].concat());
        }
        for text in changed {
            let found = count(&text);
            assert!(found.is_none_or(|n| n == 2), "{found:?} at {at}: {}", String::from_utf8_lossy(&text));
        }
    }
}
