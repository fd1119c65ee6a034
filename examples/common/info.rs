//! The facts of a connection, as the programs print them.

use bowline::{Address, SessionFacts, config};
use serde_json::{Value, json};

/// Named values, in the order in which they are printed.
pub(crate) type Fields = Vec<(&'static str, Value)>;

/// The facts that the INFO command prints about a connection.
pub(crate) fn info(kind: &str, host: &Address, peer: &Address, tls: Option<&SessionFacts>) -> Fields {
    vec![
        ("kind", json!(kind)),
        ("secure", json!(tls.is_some())),
        ("host", json!(host.to_string())),
        ("peer", json!(peer.to_string())),
        ("version", json!(tls.map(|tls| tls.version_name()))),
        ("cipher", json!(tls.map(|tls| tls.cipher_name()))),
        ("group", json!(tls.and_then(|tls| tls.group_name()))),
        ("alpn", json!(tls.and_then(|tls| tls.alpn.as_deref()).map(String::from_utf8_lossy))),
        ("sni", json!(tls.and_then(|tls| tls.sni.as_deref()))),
        ("resumed", json!(tls.map(|tls| tls.resumed))),
        ("peer_subject", json!(tls.and_then(|tls| tls.peer_chain.first()).and_then(config::subject))),
    ]
}

/// One line of JSON that keeps the order.
pub(crate) fn to_json(fields: &[(&str, Value)]) -> String {
    let members: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}
