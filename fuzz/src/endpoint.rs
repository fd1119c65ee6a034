//! Endpoint strings: a printed endpoint is parsed as an equal one.

use bowline::{ClientEndpoint, ServerEndpoint};

use super::text;

pub fn run(input: &[u8]) {
    let Ok(string) = std::str::from_utf8(input) else { return };
    match string.parse::<ClientEndpoint>() {
        Ok(endpoint) => {
            let printed = endpoint.to_string();
            let again = printed.parse::<ClientEndpoint>().unwrap_or_else(|error| panic!("{printed:?}: {error}"));
            assert_eq!(again.to_string(), printed);
            assert_eq!(format!("{again:?}"), format!("{endpoint:?}"));
        }
        Err(error) => text::check(&error),
    }
    match string.parse::<ServerEndpoint>() {
        Ok(endpoint) => {
            let printed = endpoint.to_string();
            let again = printed.parse::<ServerEndpoint>().unwrap_or_else(|error| panic!("{printed:?}: {error}"));
            assert_eq!(again.to_string(), printed);
            assert_eq!(format!("{again:?}"), format!("{endpoint:?}"));
        }
        Err(error) => text::check(&error),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let strings = [
        "tcp:localhost:80",
        "tls:example.org:443",
        "tcp:[2001:db8::1]:80",
        "tls:localhost:443,alpn=h2,ca=/tmp/ca.pem",
        "unix:/run/x.sock",
        "unix:@name",
        "tls:0.0.0.0:443,cert=a.pem,key=a.key,reuse-port",
        "tls:443,identities=/etc/tls,default=example.org,crl=x",
        "starttls:smtp:localhost:25,name=x",
        "tcp:80,backlog=7,ipv4-only,proxy=accept,trusted=10.0.0.0/8",
        r"unix:/a\,b",
    ];
    strings.into_iter().map(|string| string.as_bytes().to_vec()).collect()
}
