//! The command line, and the exit status.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Output, Stdio};

use crate::program::{Files, command};

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

#[test]
fn a_wrong_command_line_ends_with_status_2_and_a_sentence() {
    for arguments in [
        &["--wrong"][..],
        &["--listen", "nowhere"],
        &["--cert", "a.pem"],
        &["--cert", "a.pem", "--key", "a.key", "--identities", "dir"],
        &["--client-optional"],
        &["--crl", "a.pem"],
        &["--proxy", "accept"],
        &["--proxy", "require"],
        &["--proxy", "perhaps", "--trusted", "::1"],
        &["--proxy", "accept", "--trusted", "10.0.0.0/33"],
        &["--trusted", "10.0.0.0/8"],
        &["--workers", "0"],
        &["--reload-every", "0"],
        &["--log", "xml"],
        &["--cert", "/nowhere/a.pem", "--key", "/nowhere/a.key"],
    ] {
        let output = run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.starts_with("web: "), "{arguments:?}: {said}");
    }
}

#[test]
fn ticket_keys_that_cannot_be_used_end_with_status_2_and_name_the_file() {
    let files = Files::new();
    files.write("tickets", "no keys\n");
    let (cert, key, tickets) = (files.text("server.pem"), files.text("server.key"), files.text("tickets"));
    for (value, said_of) in
        [(tickets.as_str(), "line 1: the ticket keys cannot be used"), ("/nowhere", "cannot be read")]
    {
        let output = run(&["--cert", &cert, "--key", &key, "--ticket-keys", value]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("web: {value}: {said_of}")), "{said}");
    }
}

#[test]
fn help_names_every_option() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for option in [
        "listen",
        "cert",
        "key",
        "identities",
        "certs",
        "client-ca",
        "client-optional",
        "crl",
        "alpn",
        "proxy",
        "trusted",
        "ticket-keys",
        "reload-every",
        "handshake-timeout",
        "max-unfinished",
        "max-connections",
        "max-per-peer",
        "drain-delay",
        "drain-timeout",
        "workers",
        "metrics",
        "log",
        "upgrade-from",
    ] {
        assert!(help.contains(&format!("--{option}")), "{option}");
    }
}

#[test]
fn a_port_that_cannot_be_opened_ends_with_status_1() {
    let files = Files::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let (cert, key) = (files.text("server.pem"), files.text("server.key"));
    for option in ["--listen", "--metrics"] {
        let free = if option == "--listen" { "--metrics" } else { "--listen" };
        let output = run(&["--cert", &cert, "--key", &key, option, &addr, free, "127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(&addr), "{said}");
    }
}

/// Another program may use the port.
#[test]
fn without_an_address_the_port_is_8443() {
    let files = Files::new();
    let (cert, key) = (files.text("server.pem"), files.text("server.key"));
    let mut command = command(&["--cert", &cert, "--key", &key]);
    let mut web = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let first = BufReader::new(web.stdout.take().unwrap()).lines().next();
    let _ = web.kill();
    match first {
        Some(line) => assert_eq!(line.unwrap(), "listening https 127.0.0.1:8443"),
        None => {
            let said = String::from_utf8(web.wait_with_output().unwrap().stderr).unwrap();
            assert!(said.contains("cannot listen on 127.0.0.1:8443"), "{said}");
            return;
        }
    }
    web.wait().unwrap();
}
