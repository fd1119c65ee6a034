//! Identities by name, and their reload.

use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bowline::testing::pki::Profile;
use rustix::process::Signal;

use crate::program::{Files, Program, s_client};

/// A directory with two names.
fn two_names() -> (Files, String) {
    let files = Files::new();
    std::fs::create_dir_all(files.path("ids/b.example")).unwrap();
    files.issue("ids/a", &["localhost", "*.wild.example"]);
    files.issue("ids/b.example/tls", &["b.example"]);
    std::fs::rename(files.path("ids/b.example/tls.pem"), files.path("ids/b.example/tls.crt")).unwrap();
    let dir = files.text("ids");
    (files, dir)
}

fn start(files: &Files, dir: &str, options: &[&str]) -> Program {
    let _ = files;
    let mut all = vec!["--identities", dir, "--listen", "127.0.0.1:0", "--log", "json", "--metrics", "127.0.0.1:0"];
    all.extend(options);
    Program::start(&all)
}

#[test]
fn the_name_that_is_asked_for_chooses() {
    let (files, dir) = two_names();
    let web = start(&files, &dir, &[]);
    let port = web.https.port();
    for name in ["localhost", "b.example", "x.wild.example"] {
        let there = format!("{name}:{port}:127.0.0.1");
        let facts = files.json(&["--resolve", &there, &format!("https://{name}:{port}/whoami")]);
        assert_eq!(facts["sni"], name);
    }
    // The default identity is not for this name.
    let there = format!("other.example:{port}:127.0.0.1");
    assert!(!files.curl(&["--resolve", &there, &format!("https://other.example:{port}/whoami")]).status.success());
    let metrics = files.get(&[&web.metrics_url("/metrics")]);
    assert_eq!(metrics.matches("\nbowline_certificate_expiry_seconds{name=").count(), 2, "{metrics}");
}

#[test]
fn a_change_is_seen_and_a_mistake_is_told_once() {
    let files = Files::new();
    let web = files.start(&["--reload-every", "0.1", "--metrics", "127.0.0.1:0"]);
    web.signal(Signal::HUP);
    let told = web.event("reloaded");
    assert_eq!(told["generation"], 1);
    assert!(told["not_after"].is_string(), "{told}");
    files.issue("server", &["localhost"]);
    // The chain and the key are written one after the other, so a failed reload may be reported in between.
    while web.event("reloaded")["generation"] != 2 {}
    assert_eq!(files.json(&[&web.url("/whoami")])["generation"], 2);
    files.write("server.key", "no key");
    let failed = web.event("reload_failed");
    assert!(failed["detail"].as_str().unwrap().contains("server.key"), "{failed}");
    // The old identity is still used, and the mistake is not reported again.
    thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(files.json(&[&web.url("/whoami")])["generation"], 2);
    let metrics = files.get(&[&web.metrics_url("/metrics")]);
    assert!(metrics.contains("bowline_identity_generation 2\n"), "{metrics}");
    assert!(metrics.contains("bowline_reloads_total{outcome=\"failed\"}"), "{metrics}");
    web.signal(Signal::TERM);
    let (events, _) = web.end();
    assert!(events.iter().all(|event| event["event"] != "reload_failed"), "{events:?}");
}

/// A client without a name gets the first identity in the order of the names. Names that begin with a dot are skipped.
#[test]
fn an_unknown_name_gets_the_first_identity() {
    let files = Files::new();
    std::fs::create_dir_all(files.path("ids")).unwrap();
    files.issue("ids/b", &["b.example"]);
    files.issue("ids/a", &["*.wild.example"]);
    files.write("ids/.hidden.pem", "no certificate");
    let web = start(&files, &files.text("ids"), &[]);
    let served = |name: &str| {
        let said = s_client(web.https, &files.path("ca.pem"), &["-servername", name, "-verify_hostname", name], "Q\n");
        let names: Vec<_> = said.lines().filter(|line| line.contains("Verify return code")).collect();
        names.first().is_some_and(|line| line.contains("0 (ok)"))
    };
    assert!(served("b.example") && served("x.wild.example"));
    // A wildcard stands for one label.
    assert!(!served("x.y.wild.example") && !served("other.example"));
    let unknown = ["-servername", "other.example", "-verify_hostname", "x.wild.example"];
    let said = s_client(web.https, &files.path("ca.pem"), &unknown, "Q\n");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    let unnamed = ["-noservername", "-verify_hostname", "x.wild.example"];
    let said = s_client(web.https, &files.path("ca.pem"), &unnamed, "Q\n");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

/// Kubernetes swaps the link `..data`.
#[test]
fn a_swap_of_a_volume_is_seen() {
    let files = Files::new();
    let volume = files.path("volume");
    for revision in ["..1", "..2"] {
        std::fs::create_dir_all(volume.join(revision)).unwrap();
        files.issue(&format!("volume/{revision}/tls"), &["localhost"]);
        std::fs::rename(volume.join(revision).join("tls.pem"), volume.join(revision).join("tls.crt")).unwrap();
    }
    symlink("..1", volume.join("..data")).unwrap();
    symlink("..data/tls.crt", volume.join("tls.crt")).unwrap();
    symlink("..data/tls.key", volume.join("tls.key")).unwrap();
    let web = start(&files, volume.to_str().unwrap(), &["--reload-every", "0.1"]);
    symlink("..2", volume.join("..new")).unwrap();
    std::fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
    assert_eq!(web.event("reloaded")["generation"], 2);
}

#[test]
fn a_revocation_list_is_reloaded_too() {
    let files = Files::new();
    let client = files.pki.issue(Profile::client("client"));
    files.write("client.pem", client.chain_pem());
    files.write("client.key", client.key_pem());
    files.write("list.pem", &files.pki.crl_pem());
    let (ca, list) = (files.text("ca.pem"), files.text("list.pem"));
    let web = files.start(&["--client-ca", &ca, "--crl", &list]);
    let (cert, key) = (files.text("client.pem"), files.text("client.key"));
    let url = web.url("/health");
    let ask = || files.curl(&["--cert", &cert, "--key", &key, &url]).status.success();
    assert!(ask());
    files.pki.revoke(&client);
    files.write("list.pem", &files.pki.crl_pem());
    web.signal(Signal::HUP);
    assert_eq!(web.event("reloaded")["generation"], 2);
    assert!(!ask());
}

#[test]
fn no_request_fails_while_the_identity_is_reloaded() {
    let files = Files::new();
    let web = files.start(&[]);
    let (url, over) = (web.url("/whoami"), AtomicBool::new(false));
    thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        files.get(&[&url]);
                    }
                })
            })
            .collect();
        for generation in 2..12 {
            files.issue("server", &["localhost"]);
            web.signal(Signal::HUP);
            assert_eq!(web.event("reloaded")["generation"], generation);
        }
        over.store(true, Ordering::Relaxed);
        asking.into_iter().for_each(|one| one.join().unwrap());
    });
}
