//! The table in docs/frameworks.md of the lines that a user writes: counted in tests/lines, which `.ci/nightly`
//! compiles.

use std::collections::BTreeMap;

use crate::generated::check_section;
use crate::source::files;

/// The table. `{task, library}` stands for a number of lines.
const TABLE: &str = "\
| task | bowline | tokio-rustls | another library |
|---|---|---|---|
| hyper server over TLS: concurrent handshakes with limits, drain on a signal | {hyper server, bowline} | {hyper server, tokio-rustls}, with hyper-util's `GracefulShutdown` | tls-listener: {hyper server, tls-listener}, without a limit for the number of handshakes |
| in that server, no lost answers to refused bodies, to first requests during a drain, or to slow requests under an idle limit | 0 | not without an I/O type of your own | |
| hyper client for `https` and `http` | {hyper client, bowline} | {hyper client, tokio-rustls}: a connector of your own | hyper-rustls: {hyper client, hyper-rustls} |
| the same client, also over Unix sockets | {hyper client with Unix sockets, bowline} | | hyperlocal: another connector and another client |
| axum over TLS: concurrent handshakes with limits, drain on a signal | {axum, bowline} | {axum, tokio-rustls}: a listener of your own | axum-server: {axum, axum-server}; tls-listener: {axum, tls-listener}, both without a limit for the number of handshakes |
| a handler of axum that knows the client's certificates | {axum certificates, bowline} | {axum certificates, tokio-rustls}: `Connected` for the listener too | axum-server: {axum certificates, axum-server} |
| tonic server: concurrent handshakes, drain on a signal | {tonic, bowline} | {tonic, tokio-rustls}: a stream of handshakes | tonic's own TLS: {tonic, tonic} |
| tokio-postgres with channel binding | {postgres, bowline} | {postgres, tokio-rustls}, for certificates with SHA-256 only | tokio-postgres-rustls: {postgres, tokio-postgres-rustls} |
";

/// The number of lines for each task and library.
fn counts() -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for source in files("tests/lines").iter().filter(|source| !source.path.contains("/target/")) {
        let mut within: Option<&str> = None;
        for line in source.text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("// lines: ") {
                assert!(within.is_none(), "{}: {name} begins before the end of another one", source.path);
                within = Some(name);
            } else if line == "// end" {
                within = None;
            } else if let Some(name) = within.filter(|_| !line.is_empty() && !line.starts_with("//")) {
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
        assert!(within.is_none(), "{}: {within:?} has no end", source.path);
    }
    counts
}

#[test]
fn the_lines_that_a_user_writes_are_counted() {
    let mut table = TABLE.to_owned();
    for (name, count) in counts() {
        let place = format!("{{{name}}}");
        assert_eq!(table.matches(&place).count(), 1, "{name}");
        table = table.replace(&place, &count.to_string());
    }
    assert!(!table.contains('{'), "{table}");
    check_section("docs/frameworks.md", "lines", &table);
}
