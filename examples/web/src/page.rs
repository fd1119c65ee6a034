//! The page for a browser.

use std::time::{Duration, SystemTime};

use axum::http::Version;
use serde_json::Value;

use crate::common::info::Fields;
use crate::state::Web;

/// Shows the facts of this connection, and the state of the server.
pub(crate) fn page(facts: &Fields, version: Version, web: &Web) -> String {
    let connection = rows(facts.iter().map(|(name, value)| (in_words(name).to_owned(), in_text(value))));
    let connection = row("protocol", &format!("{version:?}")) + &connection;
    let open = row("open connections", &web.group.connections().to_string());
    let counts = web.watch.handshakes();
    let handshakes = counts.iter().map(|(outcome, count)| (format!("handshakes: {outcome}"), count.to_string()));
    let now = SystemTime::now();
    let expiry = web.tls.identities();
    let expiry = expiry.iter().filter_map(|identity| {
        let left = identity.not_after?.duration_since(now).map_or_else(|_| "expired".into(), in_days);
        Some((format!("certificate {}", identity.name), left))
    });
    let server = open + &rows(handshakes) + &rows(expiry);
    format!(
        "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>bowline web</title>
<style>
body {{ font: 16px/1.5 sans-serif; margin: 2em auto; max-width: 50em; padding: 0 1em; color: #222; background: #fff }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .3em 1em .3em 0; border-bottom: 1px solid #ddd }}
th {{ width: 16em; font-weight: normal; color: #555 }}
td {{ overflow-wrap: anywhere }}
</style>
<h1>bowline web</h1>
<h2>Your connection</h2>
<table>
{connection}</table>
<h2>The server</h2>
<table>
{server}</table>
"
    )
}

fn in_days(left: Duration) -> String {
    format!("expires in {} days", left.as_secs() / 86_400)
}

/// The name of a fact in words.
fn in_words(name: &str) -> &str {
    match name {
        "peer" => "you are",
        "via" => "by way of the proxy",
        "host" => "you reached",
        "sni" => "the name that you asked for",
        "version" => "version of TLS",
        "cipher" => "cipher suite",
        "group" => "key exchange",
        "alpn" => "application protocol (ALPN)",
        "resumed" => "resumed from an earlier session",
        "peer_subject" => "your certificate",
        "peer_names" => "names in your certificate",
        "generation" => "generation of the server's certificates",
        other => other,
    }
}

fn in_text(value: &Value) -> String {
    match value {
        Value::Null => "none".into(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".into(),
        Value::Array(items) => items.iter().map(in_text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn rows(rows: impl Iterator<Item = (String, String)>) -> String {
    rows.map(|(name, value)| row(&name, &value)).collect()
}

fn row(name: &str, value: &str) -> String {
    format!("<tr><th>{}<td>{}\n", escaped(name), escaped(value))
}

/// Escapes text from the peer, so that it cannot become markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
