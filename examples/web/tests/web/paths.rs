//! The paths of the application, over HTTP/1.1 and HTTP/2.

use crate::program::{Files, Program, s_client};

#[test]
fn every_path_answers_over_both_versions_of_http() {
    let files = Files::new();
    let web = files.start(&[]);
    for (version, alpn) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
        let get = |path: &str| files.get(&[version, "-w", " %{http_code} %{http_version}", &web.url(path)]);
        let number = if alpn == "h2" { "2" } else { "1.1" };
        assert_eq!(get("/slow?ms=20"), format!("done 200 {number}"));
        assert_eq!(get("/health"), format!("ok 200 {number}"));
        for bad in ["/slow", "/slow?ms=", "/slow?ms=x", "/slow?ms=-1", "/slow?n=1", "/bytes?n=99999999999999999999"] {
            let answer = get(bad);
            assert!(answer.ends_with(&format!(".\n 400 {number}")), "{bad}: {answer}");
        }
        let bytes = files.get(&[version, &web.url("/bytes?n=100000")]);
        let pattern: String = ('a'..='z').cycle().take(100_000).collect();
        assert!(bytes == pattern);
        assert_eq!(files.get(&[version, &web.url("/bytes?n=0")]), "");
        let sum = files.get(&[version, "--data-binary", "abc", &web.url("/sum")]);
        assert_eq!(sum, "3 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n");
        let facts = files.json(&[version, &web.url("/whoami")]);
        assert_eq!(facts["alpn"], alpn);
        assert_eq!((&facts["sni"], &facts["generation"]), (&"localhost".into(), &1.into()));
        assert_eq!(facts["host"], web.https.to_string());
        for unknown in ["via", "peer_subject", "peer_names"] {
            assert!(facts[unknown].is_null(), "{facts}");
        }
        let page = files.get(&[version, &web.url("/")]);
        assert!(page.contains("<!doctype html>") && page.contains(alpn) && !page.contains("<script"), "{page}");
    }
}

/// The body of 8 MB is sent by a client that does not wait for the answer first.
#[test]
fn other_paths_and_methods_are_refused_without_reading_the_body() {
    let files = Files::new();
    let web = files.start(&[]);
    let body = format!("@{}", files.text("body"));
    files.write("body", &"x".repeat(8 << 20));
    for version in ["--http1.1", "--http2"] {
        for (path, method, status) in [("/other", "POST", "404"), ("/whoami", "PUT", "405"), ("/sum", "GET", "405")] {
            let url = web.url(path);
            let mut options = vec![version, "-X", method, "-w", " %{http_code}", "-H", "Expect:", &url];
            if method != "GET" {
                options.extend(["--data-binary", &body]);
            }
            if version == "--http2" {
                // curl ends the body when it reads the status. If it had told a length, that would be a protocol error,
                // and the answer is lost if the server finds it before the answer is queued.
                options.extend(["-H", "Transfer-Encoding: chunked"]);
            }
            let output = files.curl(&options);
            let (said, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
            assert!(said.ends_with(&format!(".\n {status}")), "{version} {method} {path}: {said}; {error}");
            // curl over HTTP/1.1 may find that it cannot send the rest, but it has the answer.
            assert!(version == "--http1.1" || output.status.success(), "{method} {path}: {error}");
        }
    }
}

#[test]
fn a_client_certificate_is_described() {
    let files = Files::new();
    let (ca, cert, key) = (files.text("ca.pem"), files.text("client.pem"), files.text("client.key"));
    let web = files.start(&["--client-ca", &ca, "--client-optional"]);
    let facts = files.json(&["--cert", &cert, "--key", &key, &web.url("/whoami")]);
    assert!(facts["peer_subject"].as_str().unwrap().contains("client.example"), "{facts}");
    assert!(
        facts["peer_names"].as_array().unwrap().iter().any(|name| name == "URI:spiffe://example/client"),
        "{facts}"
    );
    assert!(files.json(&[&web.url("/whoami")])["peer_subject"].is_null());

    let web = files.start(&["--client-ca", &ca]);
    assert!(files.json(&["--cert", &cert, "--key", &key, &web.url("/whoami")])["peer_subject"].is_string());
    assert!(!files.curl(&[&web.url("/whoami")]).status.success());
    while web.event("lost")["phase"] != "handshake" {}
}

#[test]
fn openssl_gets_an_answer_and_close_notify() {
    let files = Files::new();
    let web = files.start(&[]);
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let said = s_client(web.https, &files.path("ca.pem"), &["-alpn", "http/1.1", "-ign_eof"], request);
    assert!(said.contains("Verify return code: 0 (ok)") && said.contains("\r\n\r\nok"), "{said}");
    assert!(said.trim_end().ends_with("closed"), "{said}");
}

#[test]
fn the_protocols_of_alpn_can_be_chosen() {
    let files = Files::new();
    let web = files.start(&["--alpn", "http/1.1"]);
    assert_eq!(files.json(&["--http2", &web.url("/whoami")])["alpn"], "http/1.1");
}

/// Without options about certificates. The lines of the text format are for people.
#[test]
fn development_certificates_are_made_and_kept() {
    let files = Files::new();
    let dir = files.text("made");
    for _ in 0..2 {
        let web = Program::start(&["--certs", &dir, "--listen", "127.0.0.1:0", "--log", "text"]);
        let ca = files.text("made/ca.pem");
        assert_eq!(files.get(&["--cacert", &ca, &web.url("/health")]), "ok");
        std::fs::copy(&ca, files.path("made-once.pem")).unwrap();
    }
    assert_eq!(std::fs::read(files.path("made/ca.pem")).unwrap(), std::fs::read(files.path("made-once.pem")).unwrap());
}

#[test]
fn plain_http_is_answered_in_plain_http() {
    let files = Files::new();
    let web = files.start(&[]);
    let url = format!("http://localhost:{}/", web.https.port());
    let said = files.get(&["-w", " %{http_code}", &url]);
    assert!(said.contains("HTTPS") && said.ends_with(" 400"), "{said}");
}
