use proptest::prelude::*;

use super::*;

fn parts(text: &str) -> (EndpointKind, String, u16) {
    let endpoint: Endpoint = text.parse().unwrap();
    (endpoint.kind(), endpoint.host().to_owned(), endpoint.port())
}

fn mistake(text: &str) -> (usize, String) {
    let error = text.parse::<Endpoint>().unwrap_err();
    assert_eq!(error.input, text);
    (error.at, error.problem)
}

#[test]
fn names_and_addresses_are_read() {
    use EndpointKind::{Tcp, Tls};
    assert_eq!(parts("tcp:localhost:80"), (Tcp, "localhost".into(), 80));
    assert_eq!(parts("tls:Example.org.:443"), (Tls, "Example.org.".into(), 443));
    assert_eq!(parts("tcp:127.0.0.1:0"), (Tcp, "127.0.0.1".into(), 0));
    assert_eq!(parts("tcp:[0:0::1]:65535"), (Tcp, "::1".into(), 65535));
    assert_eq!(parts("tls:[fe80::1%2]:1"), (Tls, "fe80::1%2".into(), 1));
    assert_eq!(parts("tls:[::ffff:10.0.0.1]:1"), (Tls, "::ffff:10.0.0.1".into(), 1));
}

#[test]
fn each_mistake_is_told_with_its_place() {
    let long = "a".repeat(64);
    let cases: &[(&str, usize, &str)] = &[
        ("", 0, "kind is missing"),
        (":host:1", 0, "kind is missing"),
        ("http://example.org", 0, "\"http\" is not a kind"),
        ("localhost:80", 0, "\"localhost\" is not a kind"),
        ("TCP:localhost:80", 0, "not a kind"),
        ("tcp", 3, "host is missing"),
        ("tcp:", 4, "host is empty"),
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
        ("tcp:host:80/", 11, "nothing may follow"),
        ("tcp:host:80:key=value", 11, "nothing may follow"),
        ("tcp:[::1:80", 4, "not closed"),
        ("tcp:::1:80", 4, "brackets"),
        ("tcp:2001:db8::1", 4, "brackets"),
        ("tcp:fe80::1%eth0:80", 4, "brackets"),
        ("tcp:[host]:80", 5, "not an IPv6"),
        ("tcp:[127.0.0.1]:80", 5, "not an IPv6"),
        ("tcp:[fe80::1%]:80", 13, "scope is empty"),
        ("tcp:[fe80::1%e/0]:80", 14, "a scope"),
        ("tcp:ho st:80", 6, "spaces"),
        (" tcp:host:80", 0, "spaces"),
        ("tcp:host:80\n", 11, "spaces"),
        ("tcp:h\u{f6}st:80", 5, "xn--"),
        ("tcp:user@host:80", 8, "character"),
        ("tcp:a..b:80", 6, "label"),
        ("tcp:1.2.3:80", 4, "not an IPv4"),
        ("tcp:256.0.0.1:80", 4, "not an IPv4"),
    ];
    for (text, at, problem) in cases {
        let told = mistake(text);
        assert!(told.0 == *at && told.1.contains(problem), "{text:?}: {told:?}");
    }
    assert_eq!(mistake(&format!("tcp:a.{long}:1")).0, 6);
    assert_eq!(mistake(&format!("tcp:{}:1", "a.".repeat(130))).0, 257);
}

#[test]
fn an_endpoint_of_its_parts_takes_ipv6_with_and_without_brackets() {
    for host in ["::1", "[::1]"] {
        assert_eq!(Endpoint::new(EndpointKind::Tcp, host, 80).unwrap().to_string(), "tcp:[::1]:80");
    }
    assert_eq!(Endpoint::new(EndpointKind::Tcp, "[::1%]", 80).unwrap_err().at, 5);
    assert_eq!(Endpoint::new(EndpointKind::Tcp, "a b", 80).unwrap_err().at, 1);
    assert_eq!(Endpoint::new(EndpointKind::Tcp, "", 80).unwrap_err().at, 0);
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_][a-zA-Z0-9_-]{0,20}(\\.[a-z][a-z0-9-]{0,20}){0,3}\\.?",
        any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from(octets).to_string()),
        any::<[u16; 8]>().prop_map(|groups| Ipv6Addr::from(groups).to_string()),
        (any::<[u16; 8]>(), "[a-z0-9._~-]{1,12}").prop_map(|(g, scope)| format!("{}%{scope}", Ipv6Addr::from(g))),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back_the_same(host in any_host(), port: u16, secure: bool) {
        let kind = if secure { EndpointKind::Tls } else { EndpointKind::Tcp };
        let endpoint = Endpoint::new(kind, &host, port).unwrap();
        prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
    }

    #[test]
    fn any_string_is_read_or_refused_at_an_offset_inside_it(text in "(tcp:|tls:)?[\\[\\]:%.0-9a-f\u{e4} ]{0,24}") {
        match text.parse::<Endpoint>() {
            Ok(endpoint) => prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint),
            Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at)),
        }
    }
}
