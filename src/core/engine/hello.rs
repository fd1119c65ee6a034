//! Reads the two facts in the peer's first hello that rustls does not report: the server name (rustls's unbuffered API
//! has no method for it), and whether a TLS 1.2 session has the extended master secret.

use crate::core::record::HEADER;
use crate::core::tls_vector::{Extensions, host_name, take, vector};

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// The length of the longest hello. rustls refuses longer ones.
const MAX_HELLO: usize = 0xffff;

/// The contents of a hello.
#[derive(Default)]
pub(super) struct HelloFacts {
    /// The name that a client requests.
    pub(super) name: Option<String>,
    /// Whether a client offers the extended master secret, or a server agrees to it (RFC 7627). rustls always offers it
    /// and always agrees to it, so the peer's hello decides.
    pub(super) extended_master_secret: bool,
    /// The random bytes of the peer.
    #[cfg_attr(not(feature = "express"), allow(dead_code))]
    pub(super) random: [u8; 32],
}

/// Collects the first hello. rustls checks it too: if the hello is invalid, the handshake fails, and nothing that was
/// found here is used.
pub(super) enum Hello {
    Collecting(Vec<u8>),
    Done(Option<HelloFacts>),
}

impl Default for Hello {
    fn default() -> Self {
        Self::Collecting(Vec::new())
    }
}

impl Hello {
    /// A reader that ignores the hello.
    pub(super) fn unwanted() -> Self {
        Self::Done(None)
    }

    /// Adds the next record.
    pub(super) fn read(&mut self, record: &[u8]) {
        let Self::Collecting(before) = self else { return };
        let Some((header, part)) = record.split_at_checked(HEADER) else { return };
        // A warning alert may come before the hello.
        if header[0] != HANDSHAKE {
            return;
        }
        // Most hellos fit into one record, and are not copied.
        if !before.is_empty() {
            before.extend_from_slice(part);
        }
        let hello = if before.is_empty() { part } else { before.as_slice() };
        if let Some((kind, body)) = whole(hello) {
            *self = Self::Done(seen(kind, body));
        } else if hello.len() > MAX_HELLO || hello.first().is_some_and(|kind| !is_hello(*kind)) {
            *self = Self::Done(None);
        } else if before.is_empty() {
            *before = part.to_vec();
        }
    }

    /// The contents of the hello, if it was read.
    pub(super) fn seen(&self) -> Option<&HelloFacts> {
        match self {
            Self::Collecting(_) => None,
            Self::Done(seen) => seen.as_ref(),
        }
    }
}

fn is_hello(kind: u8) -> bool {
    matches!(kind, CLIENT_HELLO | SERVER_HELLO)
}

/// The type and the body of the hello, once it is complete.
fn whole(hello: &[u8]) -> Option<(u8, &[u8])> {
    let mut rest = hello;
    let kind = take(&mut rest, 1)?[0];
    is_hello(kind).then_some(())?;
    Some((kind, vector(&mut rest, 3)?))
}

/// RFC 8446 sections 4.1.2 and 4.1.3, RFC 5246 section 7.4.1.
fn seen(kind: u8, mut body: &[u8]) -> Option<HelloFacts> {
    let body = &mut body;
    let mut seen = HelloFacts::default();
    let _version = take(body, 2)?;
    seen.random = take(body, 32)?.try_into().ok()?;
    let _session_id = vector(body, 1)?;
    match kind {
        CLIENT_HELLO => {
            let _ciphers = vector(body, 2)?;
            let _compressions = vector(body, 1)?;
        }
        _ => {
            let _cipher_and_compression = take(body, 3)?;
        }
    }
    if body.is_empty() {
        // A TLS 1.2 server that agrees to no extension.
        return Some(seen);
    }
    let extensions = Extensions(vector(body, 2)?);
    for extension in extensions {
        match extension? {
            (Extensions::SERVER_NAME, content) => seen.name = host_name(content),
            (Extensions::EXTENDED_MASTER_SECRET, _) => seen.extended_master_secret = true,
            _ => {}
        }
    }
    Some(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(part: &[u8]) -> Vec<u8> {
        [&[HANDSHAKE, 3, 1, 0, part.len() as u8], part].concat()
    }

    #[test]
    fn a_hello_is_read_from_one_record_and_from_two() {
        // No session id, one cipher suite, no compression; the extended master secret (RFC 7627).
        let rest = [0, 0, 2, 0xc0, 0x2b, 1, 0, 0, 4, 0, 0x17, 0, 0];
        let body = [&[3, 3][..], &[7; 32], &rest].concat();
        let message = [&[CLIENT_HELLO, 0, 0, body.len() as u8], &body[..]].concat();
        for cut in 1..=message.len() {
            let mut hello = Hello::default();
            // A warning alert comes first.
            hello.read(&[21, 3, 1, 0, 2, 1, 0]);
            let (first, second) = message.split_at(cut);
            hello.read(&record(first));
            if !second.is_empty() {
                assert!(hello.seen().is_none(), "after {cut} bytes");
                hello.read(&record(second));
            }
            let seen = hello.seen().unwrap();
            assert!(seen.extended_master_secret && seen.random == [7; 32] && seen.name.is_none(), "cut at {cut}");
        }
        let mut other = Hello::default();
        other.read(&record(&[11, 0, 0, 9]));
        assert!(matches!(other, Hello::Done(None)), "a message that is no hello");
    }
}
