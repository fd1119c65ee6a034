//! Files that are replaced while they are read.

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::identities::volume;
use crate::config::ServerTls;
use crate::config::volume::{Reading, Volumes};
use crate::testing::pki::Pki;

/// rule: reload-4
#[test]
fn the_files_of_a_volume_that_are_given_by_name_are_from_one_revision() {
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    let both = [pki.server(&["a.example"]), pki.server(&["b.example"])];
    volume(dir.path(), "..0", &both[0]);
    let (chain, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let builder = ServerTls::builder().identity_pem_files(&chain, &key);
    // If the key and the certificate came from two revisions, they would not match, and `build` would fail.
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for number in 1..200 {
                volume(dir.path(), &format!("..{number}"), &both[number % 2]);
                fs::remove_dir_all(dir.path().join(format!("..{}", number - 1))).unwrap();
            }
        });
        while !swaps.is_finished() {
            builder.clone().build().unwrap();
        }
    });
    // The error names the file as it was given.
    fs::remove_file(&key).unwrap();
    let error = super::problem(builder.build().unwrap_err());
    assert_eq!(error.file, Some(key));
}

/// rule: reload-4
#[test]
fn a_file_beside_the_revisions_and_a_folder_that_is_a_link_are_read() {
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    let (a, b) = (pki.server(&["a.example"]), pki.server(&["b.example"]));
    volume(dir.path(), "..0", &a);
    fs::write(dir.path().join("beside.crt"), b.chain_pem()).unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/b.key"), b.key_pem()).unwrap();
    std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
    let files = (dir.path().join("beside.crt"), dir.path().join("link/b.key"));
    ServerTls::builder().identity_pem_files(files.0, files.1).build().unwrap();
}

/// rule: ticket-8
/// rule: reload-4
#[test]
fn the_ticket_keys_of_a_volume_are_of_the_revision_of_its_certificate() {
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    let both = [pki.server(&["a.example"]), pki.server(&["b.example"])];
    let revision = |number: usize| {
        let name = format!("..{number}");
        fs::create_dir(dir.path().join(&name)).unwrap();
        let key: Vec<u8> = (0..80).map(|n| n ^ (number % 2) as u8).collect();
        fs::write(dir.path().join(&name).join("tls.tickets"), key).unwrap();
        volume(dir.path(), &name, &both[number % 2]);
    };
    revision(0);
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink("..data/tls.tickets", at("tls.tickets")).unwrap();
    let builder = ServerTls::builder().identity_pem_files(at("tls.crt"), at("tls.key"));
    let builder = builder.ticket_key_files([at("tls.tickets")]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (1..).take_while(|_| !is_over.load(Ordering::SeqCst)) {
                revision(number);
                fs::remove_dir_all(at(&format!("..{}", number - 1))).unwrap();
            }
        });
        let _over = SetOnDrop(&is_over);
        for _ in 0..200 {
            let tls = builder.clone().build().unwrap();
            let number = usize::from(tls.ticket_keys().unwrap().set().keys()[0].name()[0]);
            assert_eq!(tls.own_certificates().unwrap()[0], both[number].cert_der());
        }
    });
}

/// Ends the other thread after a failed assertion too.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The first attempt empties the pipe, so opening it again could wait forever.
///
/// rule: reload-6
#[test]
fn a_pipe_is_not_opened_again_if_its_volume_changes_at_the_first_reading() {
    let pki = Pki::new();
    let dir = TempDir::new().unwrap();
    volume(dir.path(), "..0", &pki.server(&["a.example"]));
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let attempts = Cell::new(0);
    let last = Volumes::read(Reading::First, |volumes| {
        attempts.set(attempts.get() + 1);
        volumes.place(&dir.path().join("tls.crt"));
        if attempts.get() == 1 {
            volume(dir.path(), "..1", &pki.server(&["b.example"]));
            volumes.note_failure();
        }
        volumes.check(&pipe)
    });
    assert!(attempts.get() == 2 && last.unwrap_err().to_string().starts_with("it is a pipe"));
}
