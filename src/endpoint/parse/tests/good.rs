//! Valid endpoint strings, and their meaning.

use std::path::Path;
use std::time::Duration;

use super::EndpointKind::{StartTls, Tcp, Tls, Unix};
use super::*;

fn place(text: &str) -> (EndpointKind, String, u16) {
    let endpoint = client(text);
    (endpoint.kind(), endpoint.host().unwrap().to_owned(), endpoint.port().unwrap())
}

#[test]
fn a_client_reads_names_and_addresses() {
    assert_eq!(place("tcp:localhost:80"), (Tcp, "localhost".into(), 80));
    assert_eq!(place("tls:Example.org.:443"), (Tls, "Example.org.".into(), 443));
    assert_eq!(place("starttls:mail.example.org:25"), (StartTls, "mail.example.org".into(), 25));
    assert_eq!(place("tcp:127.0.0.1:0"), (Tcp, "127.0.0.1".into(), 0));
    assert_eq!(place("tcp:[0:0::1]:65535"), (Tcp, "::1".into(), 65535));
    assert_eq!(place("tls:[fe80::1%2]:1"), (Tls, "fe80::1%2".into(), 1));
    assert_eq!(place("tls:[::ffff:10.0.0.1]:1"), (Tls, "::ffff:10.0.0.1".into(), 1));
    assert_eq!(place(r"tcp:\:\:1:80"), (Tcp, "::1".into(), 80));
}

#[test]
fn a_server_reads_a_port_alone_and_a_host_on_either_side_of_it() {
    let alone = server("tcp:8080");
    assert_eq!((alone.kind(), alone.host(), alone.port()), (Tcp, None, Some(8080)));
    let before = server("tcp:127.0.0.1:8080");
    assert_eq!((before.host(), before.port()), (Some("127.0.0.1"), Some(8080)));
    assert_eq!(before, server("tcp:8080:interface=127.0.0.1"));
    let ipv6 = server("tcp:[::1]:8080");
    for text in ["tcp:8080:interface=[::1]", r"tcp:8080:interface=\:\:1", r"tcp:\:\:1:8080"] {
        assert_eq!(server(text), ipv6, "{text}");
    }
    assert_eq!(server("tcp:8080:interface=localhost:backlog=128").backlog(), Some(128));
}

#[test]
fn a_tls_server_reads_what_it_needs() {
    for kind in ["tls", "starttls"] {
        let place = format!("{kind}:8443:");
        let arguments =
            "cert=a.pem:key=b.pem:client-ca=c.pem:client-optional:crl=d.pem:alpn=h2,http/1.1:min=1.2:max=1.3";
        let endpoint = server(&format!("{place}{arguments}"));
        assert_eq!(endpoint.kind().name(), kind);
        assert_eq!(endpoint.to_string(), format!("{place}{arguments}"));
        assert_eq!(endpoint.arguments()[3], ("client-optional", String::new()));
        // The order of the arguments does not matter.
        let shuffled =
            "max=1.3:crl=d.pem:client-optional:key=b.pem:cert=a.pem:alpn=h2,http/1.1:min=1.2:client-ca=c.pem";
        assert_eq!(server(&format!("{place}{shuffled}")), endpoint);
        let shared = format!("{place}identities=/etc/certs:ticket-keys=a.key,b.key");
        assert_eq!(server(&shared).to_string(), shared);
        let dir = format!("{place}identities=/etc/certs:client-ca=c.pem");
        assert_eq!(server(&dir).to_string(), dir);
    }
}

#[test]
fn a_server_reads_how_its_files_are_reloaded() {
    for text in ["tls:8443:identities=/etc/certs:reload=10", "fd:3:cert=a:key=b:reload=0.5"] {
        assert_eq!(server(text).to_string(), text);
        assert!(server(text).arguments().iter().any(|(name, _)| *name == "reload"));
    }
    assert_eq!(client("tls:h:1:ca=a:reload=2.5").to_string(), "tls:h:1:ca=a:reload=2.5");
    assert_eq!(server("tls:1:cert=a:key=b:reload=010.50"), server("tls:1:cert=a:key=b:reload=10.5"));
}

#[cfg(feature = "proxy")]
#[test]
fn a_server_reads_which_proxies_it_trusts() {
    for text in [
        "tcp:8080:proxy=off",
        "tcp:8080:proxy=accept:trusted=10.0.0.0/8,192.0.2.1",
        r"tls:8443:cert=a:key=b:proxy=require:trusted=2001\:db8\:\:/32",
        "systemd:web:proxy=require:trusted=127.0.0.1",
        "unix:/run/x.sock:proxy=accept:trusted=10.0.0.0/8,unix",
    ] {
        assert_eq!(server(text).to_string(), text);
    }
}

#[test]
fn a_name_after_an_at_sign_is_an_abstract_socket() {
    let endpoint = server("unix:@lab:backlog=3");
    assert_eq!((endpoint.kind(), endpoint.path(), endpoint.abstract_name()), (Unix, None, Some("lab")));
    assert_eq!(endpoint.to_string(), "unix:@lab:backlog=3");
    let file = client("unix:./@lab");
    assert_eq!((file.path(), file.abstract_name()), (Some(Path::new("./@lab")), None));
    assert_eq!(client("unix:@lab").abstract_name(), Some("lab"));
}

#[test]
fn a_server_reads_the_sockets_that_it_was_started_with() {
    let texts =
        ["fd:3", "systemd:web.socket", "fd:4:cert=a:key=b:alpn=h2", "systemd:web:starttls:cert=a:key=b:client-ca=c"];
    for text in texts {
        assert_eq!(server(text).to_string(), text);
    }
    assert_eq!(server("fd:03"), ServerEndpoint::fd(3).unwrap());
    assert_eq!(server("systemd:web"), ServerEndpoint::systemd("web").unwrap());
    assert_eq!((server("fd:3").kind(), server("systemd:web").kind()), (EndpointKind::Fd, EndpointKind::Systemd));
    assert!(ServerEndpoint::fd(2).is_err() && ServerEndpoint::systemd("a:b").is_err());
}

#[test]
fn a_server_reads_the_versions_of_ip() {
    for text in [
        "tcp:8080:dual-stack",
        "tcp:[::]:8080:dual-stack",
        "tcp:localhost:8080:ipv6-only",
        "tcp:8080:ipv4-only",
        "tcp:8080:ipv4-only:reuse-port",
    ] {
        assert_eq!(server(text).to_string(), text);
    }
}

#[test]
fn a_client_reads_the_versions_of_ip() {
    for text in ["tcp:example.org:80:ipv4-only", "tls:example.org:443:timeout=5:ipv6-only:ca=ca.pem"] {
        assert_eq!(client(text).to_string(), text);
    }
}

/// rule: secure-8
#[test]
fn a_tls_client_checks_the_name_it_is_given_or_the_host() {
    assert_eq!(client("tls:127.0.0.1:443").name(), Some("127.0.0.1"));
    assert_eq!(client("starttls:127.0.0.1:25:name=mail.example.org").name(), Some("mail.example.org"));
    assert_eq!(client("tcp:127.0.0.1:80").name(), None);
    let endpoint = client("tls:h:1:ca=ca.pem:name=n:cert=c.pem:key=k.pem:alpn=h2:min=1.3");
    assert_eq!(endpoint.to_string(), "tls:h:1:ca=ca.pem:name=n:cert=c.pem:key=k.pem:alpn=h2:min=1.3");
}

#[test]
fn times_are_seconds_to_the_nanosecond() {
    let timeout = |text: &str| client(&format!("tcp:h:1:timeout={text}")).timeout();
    assert_eq!(timeout("10"), Some(Duration::from_secs(10)));
    assert_eq!(timeout("0.5"), Some(Duration::from_millis(500)));
    assert_eq!(timeout("0.000000001"), Some(Duration::from_nanos(1)));
    assert_eq!(timeout("4294967295.999999999"), Some(Duration::new(4_294_967_295, 999_999_999)));
    assert_eq!(client("unix:/x:timeout=3").timeout(), Some(Duration::from_secs(3)));
    assert_eq!(client("tcp:h:1").timeout(), None);
    for (written, printed) in [("010", "10"), ("1.50", "1.5"), ("100.000", "100")] {
        assert_eq!(client(&format!("tcp:h:1:timeout={written}")).to_string(), format!("tcp:h:1:timeout={printed}"));
    }
}

#[test]
fn a_local_address_has_a_port_or_not() {
    for (written, printed) in [
        ("127.0.0.1", "127.0.0.1"),
        (r"127.0.0.1\:0", "127.0.0.1"),
        (r"127.0.0.1\:4000", r"127.0.0.1\:4000"),
        ("[::1]", "[::1]"),
        (r"\:\:1", "[::1]"),
        (r"[::1]\:4000", r"[::1]\:4000"),
        ("[fe80::1%2]", "[fe80::1%2]"),
    ] {
        let endpoint = client(&format!("tls:h:1:bind={written}"));
        assert_eq!(endpoint.to_string(), format!("tls:h:1:bind={printed}"));
        assert!(endpoint.bind().is_some());
    }
}

#[test]
fn a_path_holds_anything_that_can_be_escaped() {
    let endpoint =
        server(r"unix:/run/a\:b\=c\\d e f/\u{fc}.sock:mode=0660:backlog=5".replace(r"\u{fc}", "\u{fc}").as_str());
    assert_eq!(endpoint.kind(), Unix);
    assert_eq!(endpoint.path(), Some(Path::new("/run/a:b=c\\d e f/\u{fc}.sock")));
    assert_eq!((endpoint.mode(), endpoint.backlog()), (Some(0o660), Some(5)));
    assert_eq!((endpoint.host(), endpoint.port()), (None, None));
    // The second equals sign of an argument needs no escape.
    let endpoint = client("tls:h:1:ca=/a=b.pem");
    assert_eq!(endpoint.arguments(), [("ca", "/a=b.pem".to_owned())]);
    assert_eq!(endpoint.to_string(), r"tls:h:1:ca=/a\=b.pem");
}

#[test]
fn endpoints_of_their_parts_are_those_of_strings() {
    for host in ["::1", "[::1]"] {
        assert_eq!(ClientEndpoint::tcp(host, 80).unwrap(), client("tcp:[::1]:80"));
    }
    assert_eq!(
        ClientEndpoint::tls("h", 1).unwrap().with([("ca", "C:\\a=b")]).unwrap(),
        client(r"tls:h:1:ca=C\:\\a\=b")
    );
    assert_eq!(ClientEndpoint::starttls("h", 1).unwrap(), client("starttls:h:1"));
    assert_eq!(ClientEndpoint::unix("/a:b").unwrap(), client(r"unix:/a\:b"));
    assert_eq!(ServerEndpoint::tcp(80).with([("interface", "::1")]).unwrap(), server("tcp:[::1]:80"));
    assert_eq!(ServerEndpoint::tls(1, "a:b", "c=d").unwrap(), server(r"tls:1:cert=a\:b:key=c\=d"));
    assert_eq!(ServerEndpoint::starttls(1, "c", "k").unwrap(), server("starttls:1:cert=c:key=k"));
    assert_eq!(ServerEndpoint::tls(1, "", "k").unwrap_err().at, 10);
    let identity = [("cert", "c"), ("key", "k")];
    assert_eq!(ClientEndpoint::tls("h", 1).unwrap().with(identity).unwrap(), client("tls:h:1:cert=c:key=k"));
    assert_eq!(ServerEndpoint::unix("/x").unwrap().with([("mode", "600")]).unwrap(), server("unix:/x:mode=600"));
    assert_eq!(ClientEndpoint::tcp("[::1%]", 80).unwrap_err().at, 5);
    assert_eq!(ClientEndpoint::tcp("a b", 80).unwrap_err().at, 1);
    assert_eq!(ClientEndpoint::tcp("", 80).unwrap_err().at, 0);
    assert_eq!(ServerEndpoint::unix("/a\0").unwrap_err().at, 2);
    let twice = client("tcp:h:1:timeout=1").with([("timeout", "2")]).unwrap_err();
    assert_eq!((twice.at, twice.input.as_str()), (18, "tcp:h:1:timeout=1:timeout=2"));
    // A value does not become an argument.
    assert_eq!(client("tls:h:1").with([("ca", "x:timeout=9")]).unwrap().timeout(), None);
    assert!(client("tcp:h:1").with([("timeout=9:bind", "::1")]).is_err());
}
