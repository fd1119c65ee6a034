use std::fs;
use std::io;
use std::path::Path;

use tempfile::TempDir;

use super::{Identity, Pki, PkiFiles, Profile};
use crate::config::subject;

const ALL: [&str; 5] = ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"];

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn made(dir: &TempDir) -> PkiFiles {
    let files = Pki::load_or_create(dir).unwrap();
    assert!(files.created());
    files
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions()) & 0o777
}

#[test]
fn files_are_made_once_and_kept() {
    let dir = TempDir::new().unwrap();
    let nested = dir.path().join("not/there");
    let first = Pki::load_or_create(&nested).unwrap();
    let second = Pki::load_or_create(&nested).unwrap();
    assert!(first.created() && !second.created());
    assert_eq!((first.ca_pem(), first.server().chain_pem()), (second.ca_pem(), second.server().chain_pem()));
    assert_eq!(fs::read_to_string(second.ca_path()).unwrap(), second.ca_pem());
    let mut expected = ALL.map(String::from);
    expected.sort();
    assert_eq!(names_in(&nested), expected);
    second.server_tls_builder().build().unwrap();
    second.client_tls_builder().build().unwrap();
}

#[cfg(unix)]
#[test]
fn private_keys_are_for_their_owner_only_even_where_the_file_was_not() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("server.key"), "open to all").unwrap();
    let files = made(&dir);
    assert_eq!(mode(&files.server_paths().1), 0o600);
    assert_eq!(mode(&files.client_paths().1), 0o600);
    let (_, key) = files.client().write_to(dir.path()).unwrap();
    assert_eq!(mode(&key), 0o600);
}

#[test]
fn missing_or_broken_files_are_made_again() {
    for name in ALL {
        for damage in [None, Some(""), Some("-----BEGIN CERTIFICATE-----\nMIIB\n")] {
            let dir = TempDir::new().unwrap();
            let first = made(&dir);
            match damage {
                None => fs::remove_file(dir.path().join(name)).unwrap(),
                Some(text) => fs::write(dir.path().join(name), text).unwrap(),
            }
            assert_ne!(made(&dir).ca_pem(), first.ca_pem(), "{name} {damage:?}");
            assert!(!Pki::load_or_create(&dir).unwrap().created());
        }
    }
}

#[test]
fn files_that_do_not_belong_together_are_made_again() {
    let other_dir = TempDir::new().unwrap();
    made(&other_dir);
    for name in ALL {
        let dir = TempDir::new().unwrap();
        made(&dir);
        fs::copy(other_dir.path().join(name), dir.path().join(name)).unwrap();
        made(&dir);
    }
}

#[test]
fn expired_certificates_are_made_again() {
    for profile in [Profile::server(&[]).expired(), Profile::client("x").expired()] {
        let (dir, pki) = (TempDir::new().unwrap(), Pki::new());
        fs::write(dir.path().join("ca.pem"), pki.ca_pem()).unwrap();
        pki.server(&[]).write_to(&dir).unwrap();
        pki.client("x").write_to(&dir).unwrap();
        assert!(!Pki::load_or_create(&dir).unwrap().created());
        pki.issue(profile).write_to(&dir).unwrap();
        made(&dir);
    }
}

#[test]
fn foreign_certificates_are_not_replaced() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    for name in ["ca.pem", "server.pem", "client.pem"] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, key.cert.pem()).unwrap();
        let error = Pki::load_or_create(&dir).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(names_in(dir.path()), [name]);
    }
}

#[test]
fn an_error_of_the_system_names_the_file() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Pki::load_or_create(&file).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");

    fs::create_dir(dir.path().join("ca.pem")).unwrap();
    let error = Pki::load_or_create(&dir).unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");

    let error = Pki::new().server(&[]).write_to(dir.path().join("nowhere")).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn a_failed_write_leaves_no_file() {
    let dir = TempDir::new().unwrap();
    fs::create_dir_all(dir.path().join("server.key/full")).unwrap();
    Pki::new().server(&[]).write_to(&dir).unwrap_err();
    assert_eq!(names_in(dir.path()), ["server.key"]);
}

#[test]
fn identities_are_who_they_say() {
    let pki = Pki::new();
    let said = |identity: &Identity| subject(&identity.cert_der()).unwrap();
    assert_eq!(said(&pki.server(&["a.example", "b.example"])), "CN=a.example,O=bowline test PKI");
    assert_eq!(said(&pki.client("Ålice")), "CN=Ålice,O=bowline test PKI");
}
