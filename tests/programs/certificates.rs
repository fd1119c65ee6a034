//! The example that makes certificates for development, checked by OpenSSL.

use std::process::Command;

use crate::tools::{Running, example};

#[test]
fn openssl_accepts_the_certificates_for_their_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = Running::start(
        example("certs"),
        &["--dir", &path(""), "localhost", "*.shop.test", "192.0.2.1", "--client", "alice"],
    )
    .feed(b"");
    assert_eq!(made.code(), 0, "{}", made.stderr);
    let verifies = |chain: &str, check: [&str; 2]| {
        let (ca, chain) = (path("ca.pem"), path(chain));
        let openssl = Command::new("openssl")
            .args(["verify", "-CAfile", &ca, "-untrusted", &chain])
            .args(check)
            .arg(&chain)
            .output()
            .expect("the Debian package openssl has this program");
        openssl.status.success()
    };
    assert!(verifies("localhost.pem", ["-verify_hostname", "localhost"]));
    assert!(!verifies("localhost.pem", ["-verify_hostname", "other.test"]));
    assert!(verifies("_.shop.test.pem", ["-verify_hostname", "one.shop.test"]));
    assert!(verifies("192.0.2.1.pem", ["-verify_ip", "192.0.2.1"]));
    assert!(verifies("client-alice.pem", ["-purpose", "sslclient"]));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path("localhost.key")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}
