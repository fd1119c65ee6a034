//! Checks of the names and promises in the public API. Its listing is docs/api.txt, made by `.ci/api`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use bowline::{
    Address, ClientTls, Connector, Control, DrainGroup, DrainReport, Error, Incoming, Listener, Policy, Reason,
    ServerTls, StartTls, Stream, TcpConnection, TcpReadHalf, TcpWriteHalf, TlsConnection, TlsReadHalf, TlsWriteHalf,
    UpgradableConnection,
};
use tokio::io::DuplexStream;

use crate::generated::check_section;
use crate::source::root;

/// The crates, besides std, whose types the API names. A new major version of one of them requires a new major version
/// of this crate.
const PUBLIC: [&str; 15] = [
    "axum",
    "futures_core",
    "http",
    "http_body",
    "hyper",
    "hyper_util",
    "rustls",
    "rustls_pki_types",
    "tokio",
    "tokio_postgres",
    "tokio_rustls",
    "tokio_util",
    "tonic",
    "tower_service",
    "tracing",
];

/// The types of other crates in a text, by crate.
fn foreign(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (at, _) in text.match_indices("::") {
        let begin = text[..at].rfind(|c| !is_word(c)).map_or(0, |before| before + 1);
        let rest = &text[at + 2..];
        let (name, item) = (&text[begin..at], &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]);
        if name.starts_with(|c: char| c.is_lowercase()) && item.starts_with(|c: char| c.is_uppercase()) {
            found.entry(name).or_default().insert(item);
        }
    }
    found
}

#[test]
fn the_types_of_other_crates_are_those_that_are_listed() {
    let text = fs::read_to_string(root().join("docs/api.txt")).unwrap();
    let mut out = String::from("| crate | types and traits in the API |\n|---|---|\n");
    for (name, types) in foreign(&text) {
        assert!(PUBLIC.contains(&name), "the API names {name}, which is no public dependency: {types:?}");
        let types: Vec<String> = types.into_iter().map(|name| format!("`{name}`")).collect();
        writeln!(out, "| {name} | {} |", types.join(", ")).unwrap();
    }
    check_section("docs/decisions.md", "public dependencies", &out);
}

#[test]
fn the_listing_is_short_enough_to_be_read() {
    let text = fs::read_to_string(root().join("docs/api.txt")).unwrap();
    assert!((400..1_600).contains(&text.lines().count()), "{} lines", text.lines().count());
    assert!(!text.contains("bowline::core"), "the core is no part of the API");
}

fn is_send_and_sync<T: Send + Sync>() {}

#[test]
fn public_types_can_be_shared_between_threads() {
    is_send_and_sync::<(Address, Policy, Control, DrainGroup, DrainReport, Error, Reason)>();
    is_send_and_sync::<(ClientTls, ServerTls, StartTls, Connector, Listener, Incoming)>();
    is_send_and_sync::<(TcpConnection, TcpReadHalf, TcpWriteHalf)>();
    is_send_and_sync::<(Stream<DuplexStream>, TlsConnection<Stream<DuplexStream>>)>();
    is_send_and_sync::<(TlsConnection<TcpConnection>, TlsReadHalf<TcpConnection>, TlsWriteHalf<TcpConnection>)>();
    is_send_and_sync::<(UpgradableConnection<TcpConnection>, bowline::protocol::Handle)>();
    // These futures are `Sync` even over a transport that is not.
    is_send_and_sync::<(bowline::Close<'_>, bowline::CloseWrite<'_>, bowline::WriteSequence<'_>)>();
}
