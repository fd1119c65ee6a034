//! Finds the server name in a ClientHello. rustls's unbuffered API does not report it.

/// The header of a record, and of a handshake message.
use crate::core::record::HEADER;

const CLIENT_HELLO: u8 = 1;
/// A hello longer than this is refused by rustls.
const MAX_HELLO: usize = 0xffff;

/// Collects the first hello. rustls checks it; if the hello is invalid, the name that is found here is not used.
pub(super) enum Hello {
    Collecting(Vec<u8>),
    Done(Option<String>),
}

impl Default for Hello {
    fn default() -> Self {
        Self::Collecting(Vec::new())
    }
}

impl Hello {
    /// No name is looked for.
    pub(super) fn unwanted() -> Self {
        Self::Done(None)
    }

    /// Adds the next record.
    pub(super) fn read(&mut self, record: &[u8]) {
        let Self::Collecting(hello) = self else { return };
        hello.extend_from_slice(record.get(HEADER..).unwrap_or_default());
        if let Some(name) = whole_body(hello).map(name) {
            *self = Self::Done(name);
        } else if hello.len() > MAX_HELLO || hello.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            *self = Self::Done(None);
        }
    }

    pub(super) fn take_name(&mut self) -> Option<String> {
        match self {
            Self::Collecting(_) => None,
            Self::Done(name) => name.take(),
        }
    }
}

/// The body of the hello, once all of it has arrived.
fn whole_body(hello: &[u8]) -> Option<&[u8]> {
    let mut rest = hello;
    (take(&mut rest, 1)? == [CLIENT_HELLO]).then_some(())?;
    vector(&mut rest, 3)
}

/// RFC 8446 section 4.1.2, RFC 6066 section 3.
fn name(mut body: &[u8]) -> Option<String> {
    const VERSION_AND_RANDOM: usize = 2 + 32;
    const SERVER_NAME: [u8; 2] = [0, 0];
    const HOST_NAME: [u8; 1] = [0];
    let body = &mut body;
    take(body, VERSION_AND_RANDOM)?;
    let _session_id = vector(body, 1)?;
    let _ciphers = vector(body, 2)?;
    let _compressions = vector(body, 1)?;
    let mut extensions = vector(body, 2)?;
    while !extensions.is_empty() {
        let kind = take(&mut extensions, 2)?;
        let mut extension = vector(&mut extensions, 2)?;
        if kind != SERVER_NAME {
            continue;
        }
        let mut names = vector(&mut extension, 2)?;
        if take(&mut names, 1)? != HOST_NAME {
            return None;
        }
        let name = std::str::from_utf8(vector(&mut names, 2)?).ok()?;
        // An IP address is not a host name, and is ignored.
        let name = rustls::pki_types::DnsName::try_from(name).ok()?;
        return Some(name.to_lowercase_owned().as_ref().to_owned());
    }
    None
}

fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(taken)
}

/// Reads bytes that follow their length; the length has `width` bytes.
fn vector<'a>(from: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let len = take(from, width)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    take(from, len)
}
