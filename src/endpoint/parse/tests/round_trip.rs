//! A printed endpoint parses to an equal one, and no string makes the parser panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_][a-zA-Z0-9_-]{0,20}(\\.[a-z][a-z0-9-]{0,20}){0,3}\\.?",
        any::<[u8; 4]>().prop_map(|octets| Ipv4Addr::from(octets).to_string()),
        any::<[u16; 8]>().prop_map(|groups| Ipv6Addr::from(groups).to_string()),
        (any::<[u16; 8]>(), "[a-z0-9._~-]{1,12}").prop_map(|(g, scope)| format!("{}%{scope}", Ipv6Addr::from(g))),
    ]
}

/// Any valid path, including the characters that need escapes.
fn any_path() -> impl Strategy<Value = String> {
    prop_oneof!["[^@\\p{C}]\\PC{0,19}", "@\\PC{1,20}", "[:=\\\\/a,\\[\\] \u{e4}]{1,12}"]
}

fn any_local() -> impl Strategy<Value = String> {
    (any::<IpAddr>(), prop_oneof![Just(0), any::<u16>()])
        .prop_map(|(ip, port)| SocketAddr::from((ip, port)).to_string())
}

fn any_seconds() -> impl Strategy<Value = String> {
    (any::<u32>(), 1..1_000_000_000).prop_map(|(seconds, nanos)| format!("{seconds}.{nanos:09}"))
}

fn any_versions() -> impl Strategy<Value = (Option<&'static str>, Option<&'static str>)> {
    let all = [None, Some("1.2"), Some("1.3")];
    let pairs = all.into_iter().flat_map(move |min| all.map(|max| (min, max)));
    prop::sample::select(pairs.filter(|pair| *pair != (Some("1.3"), Some("1.2"))).collect::<Vec<_>>())
}

fn any_kind() -> impl Strategy<Value = EndpointKind> {
    prop::sample::select(EndpointKind::ALL.to_vec())
}

const ALPN: &str = "[!-+\\--~]{1,12}(,[!-+\\--~]{1,12}){0,3}";

prop_compose! {
    fn any_client()(
        kind in any_kind(), host in any_host(), port: u16, path in any_path(),
        timeout in option::of(any_seconds()), bind in option::of(any_local()),
        ca in option::of(any_path()), name in option::of("[a-z]{1,12}"), identity: bool, files in (any_path(), any_path()),
        alpn in option::of(ALPN), versions in any_versions(),
    ) -> ClientEndpoint {
        let mut endpoint = match kind {
            EndpointKind::Tcp => ClientEndpoint::tcp(&host, port),
            EndpointKind::Tls => ClientEndpoint::tls(&host, port),
            EndpointKind::StartTls => ClientEndpoint::starttls(&host, port),
            EndpointKind::Unix => ClientEndpoint::unix(&path),
            EndpointKind::Fd | EndpointKind::Systemd => ClientEndpoint::tcp(&host, port),
        }.unwrap();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                endpoint = endpoint.with([(name, value)]).unwrap();
            }
        };
        add("timeout", timeout.as_deref());
        if kind != EndpointKind::Unix {
            add("bind", bind.as_deref());
        }
        if matches!(kind, EndpointKind::Tls | EndpointKind::StartTls) {
            add("ca", ca.as_deref());
            add("name", name.as_deref());
            add("alpn", alpn.as_deref());
            add("min", versions.0);
            add("max", versions.1);
            if identity {
                endpoint = endpoint.with([("key", files.0.as_str()), ("cert", files.1.as_str())]).unwrap();
            }
        }
        endpoint
    }
}

prop_compose! {
    fn any_server()(
        kind in any_kind(), host in option::of(any_host()), port: u16, path in any_path(),
        backlog in option::of(1..=i32::MAX), mode in option::of(0..=0o777u32),
        files in (any_path(), any_path()), client_ca in option::of(any_path()), optional: bool,
        alpn in option::of(ALPN), versions in any_versions(), reload in option::of(any_seconds()),
    ) -> ServerEndpoint {
        let mut endpoint = match kind {
            EndpointKind::Tcp => Ok(ServerEndpoint::tcp(port)),
            EndpointKind::Tls => ServerEndpoint::tls(port, &files.0, &files.1),
            EndpointKind::StartTls => ServerEndpoint::starttls(port, &files.0, &files.1),
            EndpointKind::Unix => ServerEndpoint::unix(&path),
            EndpointKind::Fd => ServerEndpoint::fd(port.max(3)),
            EndpointKind::Systemd => ServerEndpoint::systemd("web.socket"),
        }.unwrap();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                endpoint = endpoint.with([(name, value)]).unwrap();
            }
        };
        if !matches!(kind, EndpointKind::Fd | EndpointKind::Systemd) {
            add("backlog", backlog.map(|backlog| backlog.to_string()).as_deref());
        }
        match kind {
            EndpointKind::Fd | EndpointKind::Systemd => {}
            EndpointKind::Unix if path.starts_with('@') => {}
            EndpointKind::Unix => add("mode", mode.map(|mode| format!("{mode:o}")).as_deref()),
            _ => add("interface", host.as_deref()),
        }
        if matches!(kind, EndpointKind::Tls | EndpointKind::StartTls) {
            add("client-ca", client_ca.as_deref());
            add("client-optional", client_ca.filter(|_| optional).map(|_| ""));
            add("alpn", alpn.as_deref());
            add("min", versions.0);
            add("max", versions.1);
            add("reload", reload.as_deref());
        }
        endpoint
    }
}

/// Strings that are almost endpoints.
fn nearly() -> impl Strategy<Value = String> {
    let words = [
        "tcp:",
        "tls:",
        "starttls:",
        "unix:",
        "[::1]",
        "::1",
        "[",
        "]",
        "h",
        "80",
        ":",
        ":",
        "=",
        "\\",
        "%",
        ".",
        ",",
        "\u{e4}",
        " ",
        "\n",
        "\0",
        "0",
        "/x",
        "cert=c",
        "key=k",
        "ca=",
        "client-ca=f",
        "client-optional",
        "reload=1",
        "proxy=accept",
        "trusted=10.0.0.0/8",
        "timeout=",
        "bind=",
        "mode=",
        "alpn=",
        "min=1.3",
        "max=1.2",
        "interface=",
        "backlog=",
        "name=",
        "\\:",
        "\\=",
        "\\\\",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..12).prop_map(|parts| parts.concat())
}

fn survives(text: &str) -> Result<(), TestCaseError> {
    match text.parse::<ClientEndpoint>() {
        Ok(endpoint) => prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint)),
        Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{:?}", error),
    }
    match text.parse::<ServerEndpoint>() {
        Ok(endpoint) => prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint)),
        Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at), "{:?}", error),
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_client_endpoint_that_is_printed_is_read_back_the_same(endpoint in any_client()) {
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn a_server_endpoint_that_is_printed_is_read_back_the_same(endpoint in any_server()) {
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }

    #[test]
    fn any_string_is_read_or_refused_at_an_offset_inside_it(text in "\\PC{0,40}") {
        survives(&text)?;
        survives(&format!("tcp:{text}"))?;
        survives(&format!("tls:h:1:{text}"))?;
        survives(&format!("unix:{text}"))?;
    }

    #[test]
    fn a_string_that_is_nearly_an_endpoint_is_read_or_refused_too(text in nearly()) {
        survives(&text)?;
    }
}
