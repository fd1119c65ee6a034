//! Mistakes in endpoint strings, and their offsets.

use super::*;

/// A string, the offset of its mistake, and a part of the error text.
type Case = (&'static str, usize, &'static str);

fn check<T: std::str::FromStr<Err = crate::error::EndpointError> + std::fmt::Debug>(cases: &[Case]) {
    for (text, at, problem) in cases {
        let error = text.parse::<T>().expect_err(text);
        assert!(error.at == *at && error.problem.contains(problem), "{text:?}: {error:?}");
        assert_eq!(error.input, *text);
    }
}

#[test]
fn of_the_kind_and_the_place() {
    let either: &[Case] = &[
        ("", 0, "kind is missing"),
        (":host:1", 0, "kind is missing"),
        (
            "http://example.org",
            0,
            "\"http\" is not a kind; an endpoint begins with tcp:, tls:, starttls: or unix:, and that of a server also with fd: or systemd:",
        ),
        ("localhost:80", 0, "\"localhost\" is not a kind"),
        (" tcp:host:80", 0, "not a kind"),
        ("TCP:localhost:80", 0, "not a kind"),
        ("tcp", 3, "place is missing"),
        ("unix", 4, "path is missing"),
        ("tcp::80", 4, "host is empty"),
        ("tcp:[]:80", 5, "host is empty"),
        ("tcp:host", 8, "port is missing"),
        ("tcp:host:", 9, "port is missing"),
        ("tcp:[::1]", 9, "port is missing"),
        ("tcp:[::1]80", 9, "a colon"),
        ("tcp:host:65536", 9, "out of range"),
        ("tcp:host:99999999999999999999", 9, "out of range"),
        ("tcp:host:-1", 9, "a number"),
        ("tcp:host:+1", 9, "a number"),
        ("tcp:host:http", 9, "a number"),
        ("tcp:host:80/", 11, "nothing but"),
        ("tcp:[::1:80", 4, "not closed"),
        ("tcp:::1:80", 4, "brackets"),
        ("tcp:2001:db8::1", 4, "brackets"),
        ("tcp:fe80::1%eth0:80", 4, "brackets"),
        ("tcp:::1:80:backlog=3:timeout=3", 4, "brackets"),
        ("tcp:[host]:80", 5, "not an IPv6"),
        ("tcp:[127.0.0.1]:80", 5, "not an IPv6"),
        ("tcp:[fe80::1%]:80", 13, "scope is empty"),
        ("tcp:[fe80::1%e/0]:80", 14, "a scope"),
        ("tcp:ho st:80", 6, "spaces"),
        ("tcp:host:80\n", 11, "control"),
        ("tcp:h\u{f6}st:80", 5, "xn--"),
        ("tcp:user@host:80", 8, "character"),
        ("tcp:a..b:80", 6, "label"),
        ("tcp:1.2.3:80", 4, "not an IPv4"),
        ("tcp:256.0.0.1:80", 4, "not an IPv4"),
        (r"tcp:\x:80", 4, "a backslash"),
        (r"tcp:h\:x:80", 4, "not an IPv6"),
        ("unix:", 5, "path is empty"),
        ("unix::mode=600", 5, "path is empty"),
        ("unix:mode=600", 9, "equals sign"),
        ("unix:@", 6, "the abstract name is empty"),
        ("unix:@a\nb", 7, "control"),
        ("unix:/a\nb", 7, "control"),
        ("unix:/a\0", 7, "control"),
        ("unix:/a\u{9b}", 7, "control"),
        ("unix:/a\\", 7, "a backslash"),
        (r"unix:C:\x", 7, "a backslash"),
    ];
    check::<ClientEndpoint>(either);
    check::<ServerEndpoint>(either);
    check::<ClientEndpoint>(&[
        ("fd:3", 0, "fd: is a place to listen at"),
        ("tcp:", 4, "host is empty"),
        ("tcp:80", 4, "not an IPv4"),
    ]);
    check::<ServerEndpoint>(&[("tcp:", 4, "port is missing"), ("tcp:65536", 4, "out of range")]);
    let long = "a".repeat(64);
    assert_eq!(format!("tcp:a.{long}:1").parse::<ClientEndpoint>().unwrap_err().at, 6);
    assert_eq!(format!("tcp:{}:1", "a.".repeat(130)).parse::<ServerEndpoint>().unwrap_err().at, 257);
}

#[test]
fn of_the_arguments_of_a_client() {
    check::<ClientEndpoint>(&[
        ("tcp:h:1:", 8, "an argument is missing here; a tcp client takes ipv4-only, ipv6-only, timeout, bind"),
        ("tcp:h:1::timeout=1", 8, "missing here"),
        ("tcp:h:1:speed=9", 8, "\"speed\" is not an argument; a tcp client takes ipv4-only, ipv6-only, timeout, bind"),
        ("tcp:h:1:Timeout=9", 8, "\"Timeout\" is not"),
        ("tcp:h:1:backlog=5", 8, "backlog is an argument of servers, and this is a client"),
        ("tls:h:1:client-optional", 8, "client-optional is an argument of servers"),
        ("unix:/x:mode=600", 8, "mode is an argument of servers"),
        (
            "tcp:h:1:ca=x",
            8,
            "ca is an argument of tls, starttls only; a tcp client takes ipv4-only, ipv6-only, timeout, bind",
        ),
        ("unix:/x:bind=::1", 8, "bind is an argument of tcp, tls, starttls only; a unix client takes timeout"),
        ("tls:h:1:ca=a:ca=b", 13, "ca is given twice"),
        ("tls:h:1:ca", 10, "ca needs a value: ca=VALUE"),
        ("tls:h:1:ca:name=x", 10, "needs a value"),
        ("tls:h:1:ca=", 11, "the value of ca is empty"),
        ("tls:h:1:ca=a\tb", 12, "control"),
        (r"tls:h:1:ca=C:\x", 13, "a backslash"),
        ("tls:h:1:cert=c.pem", 18, "a certificate needs key="),
        ("tls:h:1:key=k.pem:min=1.2", 25, "a private key needs cert="),
        ("tls:h:1:name=a b", 13, "a b"),
        ("tls:h:1:name=h\u{f6}st", 13, "neither"),
        ("tls:h:1:min=1.1", 12, "1.2 or 1.3"),
        ("tls:h:1:max=TLS1.3", 12, "1.2 or 1.3"),
        ("tls:h:1:max=1.2:min=1.3", 12, "no version"),
        ("tls:h:1:alpn=h2,,h3", 16, "is empty"),
        ("tls:h:1:alpn=h2,", 16, "is empty"),
        (r"tls:h:1:alpn=\:\:,h 2", 19, "visible ASCII"),
        ("tcp:h:1:timeout=0", 16, "more than 0"),
        ("tcp:h:1:timeout=0.0", 16, "more than 0"),
        ("tcp:h:1:timeout=soon", 16, "number of seconds"),
        ("tcp:h:1:timeout=-1", 16, "number of seconds"),
        ("tcp:h:1:timeout=1s", 17, "number of seconds"),
        ("tcp:h:1:timeout=1.", 18, "number of seconds"),
        ("tcp:h:1:timeout=.5", 16, "number of seconds"),
        ("tcp:h:1:timeout=1.2.3", 19, "number of seconds"),
        ("tcp:h:1:timeout=1e3", 17, "number of seconds"),
        ("tcp:h:1:timeout=0.0000000001", 27, "nine digits"),
        ("tcp:h:1:timeout=4294967296", 16, "seconds is too large"),
        ("tcp:h:1:bind=localhost", 13, "not an IP address"),
        ("tcp:h:1:bind=[::1", 13, "not closed"),
        ("tcp:h:1:bind=::1", 13, "the value of bind is empty"),
        ("tcp:h:1:bind=127.0.0.1:80", 23, "\"80\" is not an argument"),
        ("tcp:h:1:bind=[fe80::1%eth0]", 13, "not an IP address"),
    ]);
}

#[test]
fn of_the_arguments_of_a_server() {
    let long = format!("tls:1:cert=c:key=k:alpn=h2,{}", "a".repeat(256));
    assert_eq!(long.parse::<ServerEndpoint>().unwrap_err().at, 27);
    check::<ServerEndpoint>(&[
        ("tcp:1:", 6, "a tcp server takes interface, backlog"),
        ("tcp:1:2", 6, "\"2\" is not an argument"),
        ("tcp:1:timeout=5", 6, "timeout is an argument of clients, and this is a server"),
        ("tls:1:cert=c:key=k:ca=x", 19, "ca is an argument of clients"),
        ("tls:1:cert=c:key=k:name=x", 19, "name is an argument of clients"),
        ("tcp:1:cert=c", 6, "cert is an argument of tls, starttls, fd, systemd only"),
        ("fd", 2, "the number is missing; write fd:NUMBER"),
        ("fd:", 3, "the number is missing"),
        ("fd:2", 3, "standard streams"),
        ("fd:+3", 3, "a number from 3 to 65535"),
        ("fd:99999", 3, "a number from 3 to 65535"),
        (
            "fd:3:backlog=1",
            5,
            "backlog is an argument of tcp, tls, starttls, unix only; a fd server takes starttls, cert, key",
        ),
        ("fd:3:starttls", 13, "a fd server needs cert="),
        ("fd:3:min=1.3", 12, "a fd server needs cert="),
        ("systemd", 7, "the name is missing; write systemd:NAME"),
        ("systemd:", 8, "the name is missing"),
        ("systemd:a\\:b", 9, "ASCII without colons"),
        ("systemd:\u{e4}", 8, "ASCII without colons"),
        ("systemd:web:alpn=h2", 19, "a systemd server needs cert="),
        ("tcp:1:dual-stack=yes", 16, "takes no value"),
        ("tcp:1:dual-stack:ipv6-only", 17, "ipv6-only contradicts dual-stack"),
        ("tcp:127.0.0.1:1:dual-stack", 16, "dual-stack is for [::], or for a port without a host"),
        ("tcp:127.0.0.1:1:ipv6-only", 16, "the host is an IPv4 address"),
        ("tcp:1:interface=[::1]:ipv4-only", 22, "the host is an IPv6 address"),
        ("tcp:1:reuse-port=yes", 16, "takes no value"),
        ("unix:/x:reuse-port", 8, "reuse-port is an argument of tcp, tls, starttls only"),
        ("unix:@lab:mode=600", 15, "an abstract socket has no file, and so no mode; unix:./@NAME is a file"),
        ("tcp:1:mode=600", 6, "mode is an argument of unix only"),
        ("tcp:1:reload=5", 6, "reload is an argument of tls, starttls, fd, systemd only"),
        ("tls:1:cert=c:key=k:reload=0", 26, "more than 0"),
        ("tls:1:cert=c:key=k:reload=often", 26, "number of seconds"),
        ("fd:3:reload=5", 13, "a fd server needs cert= and key="),
        ("tcp:1:proxy=on", 12, "proxy is off, accept or require, not \"on\""),
        ("tcp:1:proxy=off:trusted=::1", 24, "the value of trusted is empty"),
        ("tcp:1:trusted=127.0.0.1", 14, "trusted= is for proxy=accept and proxy=require"),
        ("tcp:1:proxy=off:trusted=127.0.0.1", 24, "trusted= is for proxy=accept"),
        ("unix:/x:interface=h", 8, "interface is an argument of tcp"),
        ("tls:1", 5, "a tls server needs cert="),
        ("starttls:1:key=k", 16, "a starttls server needs cert="),
        ("tls:1:cert=c", 12, "a tls server needs key="),
        ("tls:1", 5, "cert= and key=, or identities="),
        ("tls:1:cert=c:identities=d", 24, "takes the place of cert= and key="),
        ("tcp:1:identities=d", 6, "an argument of tls, starttls, fd, systemd only"),
        ("tls:1:cert=c:key=k:crl=r", 24, "crl= needs client-ca="),
        ("tls:1:cert=c:key=k:ticket-keys=a,,b", 33, "the name of a file is empty"),
        ("tls:h:1:cert=c", 14, "a tls server needs key="),
        ("tls:1:cert=c:key=k:client-optional", 34, "client-optional needs client-ca="),
        ("tls:1:cert=c:key=k:client-ca=f:client-optional=yes", 46, "takes no value"),
        ("tls:1:cert=c:key=k:min=1.3:max=1.2", 31, "no version"),
        ("tcp:h:1:interface=h", 18, "already"),
        ("tcp:1:interface=::1", 16, "is empty"),
        ("tcp:1:interface=[::1]x", 21, "a colon"),
        ("tcp:1:interface=a b", 17, "spaces"),
        (r"tcp:1:interface=\:\:x", 16, "not an IPv6"),
        ("tcp:1:backlog=0", 14, "from 1 to"),
        ("tcp:1:backlog=1x", 15, "from 1 to"),
        ("tcp:1:backlog=2147483648", 14, "from 1 to"),
        ("unix:/x:mode=", 13, "the value of mode is empty"),
        ("unix:/x:mode=680", 14, "octal"),
        ("unix:/x:mode=1777", 13, "octal"),
        ("unix:/x:mode=rw", 13, "octal"),
        ("unix:/x:mode=99999999999999999999", 13, "octal"),
    ]);
}

#[cfg(feature = "proxy")]
#[test]
fn of_the_networks_of_proxies() {
    check::<ServerEndpoint>(&[
        (
            "tcp:1:proxy=accept",
            18,
            "proxy=accept needs trusted=, the networks of your proxies, as in trusted=10.0.0.0/8",
        ),
        ("tcp:1:proxy=require:backlog=3", 29, "proxy=require needs trusted="),
        ("tcp:1:proxy=accept:trusted=10.0.0.0/8,lan", 38, "\"lan\" is no network: expected an IP address"),
        ("tcp:1:proxy=accept:trusted=10.0.0.0/33", 27, "\"10.0.0.0/33\" is no network"),
        ("tcp:1:proxy=accept:trusted=10.0.0.1,", 36, "is no network"),
    ]);
    // An IPv6 address needs escapes. The rest of it is read as an argument first.
    check::<ServerEndpoint>(&[
        ("tcp:1:proxy=accept:trusted=2001:db8", 32, "\"db8\" is not an argument"),
        ("tcp:1:proxy=accept:trusted=2001", 27, r"write the colons of an IPv6 address as \:"),
        (r"tcp:1:proxy=accept:trusted=\:\:1,\:\:x", 33, "\"::x\" is no network"),
    ]);
}

#[test]
fn the_error_is_one_line_for_any_input() {
    let error = "tcp:\u{1b}[31m\nhost:1".parse::<ClientEndpoint>().unwrap_err();
    assert_eq!(error.at, 4);
    assert!(!error.to_string().contains(char::is_control), "{error:?}");
}
