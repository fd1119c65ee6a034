//! Wrong command lines: one sentence, and status 2.

use crate::tools::{Running, certs_dir, example};

fn certs(name: &str) -> String {
    crate::tools::certs();
    certs_dir().join(name).to_str().unwrap().to_owned()
}

fn refuses(program: &str, args: &[&str], with: &str) {
    let said = Running::start(example(program), args).feed(b"");
    assert_eq!(said.code(), 2, "{args:?}: {}", said.stderr);
    assert!(said.stderr.contains(with), "{args:?}: {}", said.stderr);
    assert_eq!((said.stderr.lines().count(), said.stdout.len()), (1, 0), "{args:?}: {}", said.stderr);
}

#[test]
fn the_console_refuses_what_it_cannot_do() {
    let (server, client_key) = (certs("server.pem"), certs("client.key"));
    for (args, with) in [
        (&["--nope"][..], "--nope"),
        (&["stray"], "stray"),
        (&["--tcp"], "--tcp"),
        (&["--tcp", "7000"], "HOST:PORT"),
        (&["--tls", "localhost:99999"], "HOST:PORT"),
        (&["--face", "two"], "two"),
        (&["--log", "xml"], "xml"),
        (&["--leftover", "keep"], "keep"),
        (&["--tls12", "--tls13"], "--tls12 and --tls13"),
        (&["--close-timeout", "soon"], "soon"),
        (&["--handshake-timeout", "-1"], "-1"),
        (&["--client-optional"], "--client-ca"),
        (&["--client-ca", "/nonexistent"], "/nonexistent"),
        (&["--cert", &server], "--key"),
        (&["--cert", &server, "--key", "/nonexistent"], "/nonexistent"),
        (&["--cert", &server, "--key", &client_key], "client.key"),
        (&["--cert", &client_key, "--key", &client_key], "no certificate"),
    ] {
        refuses("console", args, with);
    }
}

#[test]
fn netcat_refuses_what_it_cannot_do() {
    let key = certs("client.key");
    let endpoint = "tls:localhost:1";
    for (args, with) in [
        (&[][..], "ENDPOINT"),
        (&["tls:localhost"], "port"),
        (&["udp:localhost:1"], "udp"),
        (&["unix:/run/x.sock"], "unix:/run/x.sock"),
        (&["starttls:localhost:1"], "starttls:localhost:1"),
        (&["tls:localhost:1:ca=x"], "ca="),
        (&["tcp:localhost:1:timeout=soon"], "offset 24"),
        (&[endpoint, "tls:localhost:2"], "localhost:2"),
        (&[endpoint, "--starttls", "telnet"], "telnet"),
        (&[endpoint, "--ca", "/nonexistent"], "/nonexistent"),
        (&[endpoint, "--ca", &key], "no certificate"),
        (&[endpoint, "--ca", &key, "--dangerous-no-verify"], "not both"),
        (&[endpoint, "--dangerous-no-verify", "--name", "no name"], "no name"),
        (&[endpoint, "--ignore-eof", "--no-half-close"], "--no-half-close"),
        (&[endpoint, "--abort-after", "some"], "some"),
        (&[endpoint, "--timeout", "never"], "never"),
    ] {
        refuses("netcat", args, with);
    }
}

#[test]
fn chat_and_smtp_refuse_invalid_arguments() {
    let file = certs("ca.pem");
    for (program, args, with) in [
        ("chat", &["--nope"][..], "--nope"),
        ("chat", &["7010"], "HOST:PORT"),
        ("chat", &["127.0.0.1:0", "127.0.0.1:0"], "127.0.0.1:0"),
        ("chat", &["--tls"], "--tls"),
        ("chat", &["--tls", &file], "ca.pem"),
        ("smtp", &[], "--maildir"),
        ("smtp", &["--maildir", &file], "ca.pem"),
        ("smtp", &["--maildir", "x", "--listen", "25"], "HOST:PORT"),
        ("smtp", &["--maildir", "x", "--max-size", "much"], "much"),
        ("smtp", &["--maildir", "x", "--timeout", "-1"], "-1"),
        ("smtp", &["--nope"], "--nope"),
    ] {
        refuses(program, args, with);
    }
}

#[test]
fn help_is_help() {
    for program in ["chat", "console", "netcat", "smtp", "terminator"] {
        let said = Running::start(example(program), &["--help"]).feed(b"");
        assert_eq!((said.code(), said.stderr.as_str()), (0, ""));
        assert!(said.text().contains(&format!("Usage: {program} ")));
    }
}

/// rule: tcp-8
#[test]
fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let dir = certs_dir();
    crate::tools::certs();
    let said = Running::start(example("console"), &["--tcp", &addr, "--certs", dir.to_str().unwrap()]).feed(b"");
    assert_eq!(said.code(), 1);
    assert!(said.stderr.contains(&addr), "{}", said.stderr);
}

#[test]
fn certs_refuses_what_is_no_name() {
    for (args, with) in
        [(&[][..], "no name"), (&["../x"], "../x"), (&["--client", "a b"], "a b"), (&["--nope"], "--nope")]
    {
        refuses("certs", args, with);
    }
}
