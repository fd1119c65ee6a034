//! Encrypted private keys, made by openssl.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{problem, write};
use crate::config::passphrase::Passphrase;
use crate::config::{ClientTls, ServerTls};
use crate::error::{ConfigError, ConfigProblem};
use crate::testing::pki::{Identity, KeyKind, Pki, Profile};

const RIGHT: &str = "correct horse \u{fc}";

/// Encrypts the file key.pem of a folder to enc.pem.
fn encrypt(folder: &Path, command: &[&str]) -> Vec<u8> {
    let made = Command::new("openssl")
        .args(command)
        .args(["-in", "key.pem", "-out", "enc.pem", "-passout", &format!("pass:{RIGHT}")])
        .current_dir(folder)
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::read(folder.join("enc.pem")).unwrap()
}

fn topk8<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["pkcs8", "-topk8"], args].concat()
}

struct Files {
    folder: TempDir,
    server: Identity,
}

impl Files {
    fn of(kind: KeyKind) -> Self {
        let server = Pki::new().issue(Profile::server(&[]).key(kind));
        let folder = TempDir::new().unwrap();
        write(&folder, "chain.pem", server.chain_pem());
        write(&folder, "key.pem", server.key_pem());
        Self { folder, server }
    }

    fn encrypted(self, command: &[&str]) -> Self {
        encrypt(self.folder.path(), command);
        self
    }

    fn build(&self, passphrase: Option<&str>) -> Result<ServerTls, ConfigError> {
        let at = |name: &str| self.folder.path().join(name);
        let builder = ServerTls::builder().identity_pem_files(at("chain.pem"), at("enc.pem"));
        let builder = match passphrase {
            Some(passphrase) => builder.key_passphrase(passphrase),
            None => builder,
        };
        builder.build().map_err(problem)
    }

    /// The error. Its text must begin with the name of the file.
    fn mistake(&self, passphrase: Option<&str>) -> ConfigProblem {
        let error = self.build(passphrase).unwrap_err();
        assert!(error.file.as_ref().is_some_and(|file| file.ends_with("enc.pem")), "{error}");
        error.problem
    }
}

/// rule: secure-16
#[test]
fn keys_that_openssl_encrypted_are_read_with_their_passphrase() {
    let commands = [
        topk8(&["-v2", "aes-256-cbc"]),
        topk8(&["-v2", "aes-128-cbc", "-iter", "100000"]),
        topk8(&["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"]),
        topk8(&["-scrypt"]),
    ];
    for (kind, command) in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048].into_iter().cycle().zip(commands)
    {
        let files = Files::of(kind).encrypted(&command);
        let tls = files.build(Some(RIGHT)).unwrap();
        let own = tls.own_certificates().unwrap();
        assert_eq!(*own, files.server.chain_der());
        assert!(matches!(files.mistake(Some("wrong")), ConfigProblem::WrongPassphrase), "{command:?}");
        assert!(matches!(files.mistake(Some("")), ConfigProblem::WrongPassphrase), "{command:?}");
        assert!(matches!(files.mistake(None), ConfigProblem::EncryptedKey), "{command:?}");
    }
}

/// rule: secure-16
#[test]
fn a_passphrase_changes_nothing_for_a_key_that_is_not_encrypted() {
    let server = Pki::new().server(&[]);
    let builder = ServerTls::builder().identity_pem(server.chain_pem(), server.key_pem()).key_passphrase(RIGHT);
    // The passphrase must not appear in a log.
    assert!(!format!("{builder:?}").contains("correct"), "{builder:?}");
    builder.build().unwrap();
    let builder = ClientTls::builder().dangerous_no_verification().key_passphrase(RIGHT);
    builder.identity_pem(server.chain_pem(), server.key_pem()).build().unwrap();
}

/// rule: secure-16
#[test]
fn an_encryption_that_is_not_supported_is_named_with_what_to_do() {
    let cases = [
        (topk8(&["-v2", "des3"]), "it is encrypted by 1.2.840.113549.3.7"),
        (topk8(&["-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA1"]), "it is encrypted by 1.2.840.113549.2.7"),
        (topk8(&["-v1", "PBE-SHA1-3DES"]), "it is encrypted by 1.2.840.113549.1.12.1.3"),
        (vec!["ec", "-aes256"], "it is encrypted in the old format of OpenSSL"),
    ];
    for (command, expected) in cases {
        let files = Files::of(KeyKind::EcdsaP256).encrypted(&command);
        let ConfigProblem::UnusableKey(why) = files.mistake(Some(RIGHT)) else { panic!("{command:?}") };
        assert!(why.starts_with(expected) && why.contains("openssl pkcs8 -topk8"), "{command:?}: {why}");
        assert!(matches!(files.mistake(None), ConfigProblem::EncryptedKey), "{command:?}");
    }
}

/// rule: secure-16
#[test]
fn a_broken_file_is_not_called_a_wrong_passphrase() {
    let files = Files::of(KeyKind::EcdsaP256).encrypted(&topk8(&["-scrypt"]));
    let good = String::from_utf8(std::fs::read(files.folder.path().join("enc.pem")).unwrap()).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    // Without its second line, the DER is too short.
    let short = [&lines[..2], &lines[3..]].concat().join("\n");
    write(&files.folder, "enc.pem", short);
    let ConfigProblem::UnusableKey(why) = files.mistake(Some(RIGHT)) else { panic!("broken") };
    assert_eq!(why, "it is not the DER of an encrypted key");
    write(&files.folder, "enc.pem", good.replacen('M', "!", 1));
    assert!(matches!(files.mistake(Some(RIGHT)), ConfigProblem::BadPem(_)));
}

/// rule: secure-16
#[test]
fn parameters_that_need_too_much_memory_are_refused() {
    let files = Files::of(KeyKind::EcdsaP256).encrypted(&topk8(&["-scrypt"]));
    let made = Command::new("openssl")
        .args(["asn1parse", "-in", "enc.pem", "-noout", "-out", "enc.der"])
        .current_dir(files.folder.path())
        .status();
    assert!(made.unwrap().success());
    let mut der = std::fs::read(files.folder.path().join("enc.der")).unwrap();
    // The cost 16384 becomes 2^20, and the block size 8 becomes 9. Each sequence around them becomes one byte longer.
    let cost = der.windows(7).position(|bytes| bytes == [2, 2, 0x40, 0, 2, 1, 8]).unwrap();
    der.splice(cost..cost + 7, [2, 3, 0x10, 0, 0, 2, 1, 9]);
    let around: Vec<usize> = (0..cost).filter(|at| is_sequence_around(&der, *at, cost)).collect();
    around.into_iter().for_each(|at| der[at] += 1);
    let refused = Passphrase::new(b"x".to_vec()).decrypt(&der).unwrap_err();
    assert!(matches!(&refused, ConfigProblem::UnusableKey(why) if why.contains("1 GiB")), "{refused}");
}

/// Whether this byte is the last byte of the length of a sequence that contains the place. The lengths are those from
/// before the change.
fn is_sequence_around(der: &[u8], at: usize, place: usize) -> bool {
    let length = usize::from(der[at]);
    let (is_short, is_long) = (at >= 1 && der[at - 1] == 0x30, at >= 2 && der[at - 2..at] == [0x30, 0x81]);
    (is_short && length < 0x80 || is_long) && at + 1 + length >= place + 7
}
