//! The parts that the scripts of all dialogues share.

use crate::error::{DialogueError, PeerWords};

/// The behaviour of one side of one protocol.
pub(super) trait Script: Send + Sync {
    /// Whether these bytes are a complete unit of the protocol: a line, a tag or a message. Called after each byte.
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError>;

    /// Handles a unit from the peer. The answer is written to `out`, even if this returns an error.
    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError>;

    /// Whether a server may have sent these bytes before the client's question.
    fn may_be_early(&mut self, _unread: &[u8]) -> bool {
        false
    }
}

/// The next step of a dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for the peer's next unit: a line, an XML tag (XMPP) or a binary message.
    Listen,
    /// Start TLS, as soon as the output was sent.
    Agree,
    /// The client has left.
    Leave,
}

pub(super) fn unexpected(words: &[u8]) -> DialogueError {
    DialogueError::Unexpected(PeerWords::new(words))
}

pub(super) fn declined(words: &[u8]) -> DialogueError {
    DialogueError::Declined(PeerWords::new(words))
}

/// Whether a unit that must end with this byte is complete.
pub(super) fn ends(unit: &[u8], with: u8) -> Result<bool, DialogueError> {
    Ok(unit.last() == Some(&with))
}

/// A line without its end. It must not contain a control character that a peer could treat as the end of a line.
pub(super) fn line(unit: &[u8]) -> Result<&[u8], DialogueError> {
    let line = unit.strip_suffix(b"\r\n").or(unit.strip_suffix(b"\n")).unwrap_or(unit);
    if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) { Err(unexpected(line)) } else { Ok(line) }
}

/// Whether a line starts with these complete words, in upper or lower case. Longer words with the same start do not
/// count.
pub(super) fn starts(line: &[u8], with: &str) -> bool {
    line.split_at_checked(with.len()).is_some_and(|(begin, rest)| {
        begin.eq_ignore_ascii_case(with.as_bytes()) && matches!(rest.first(), None | Some(b' '))
    })
}

pub(super) const LDAP_OID: &[u8] = b"1.3.6.1.4.1.1466.20037";
pub(super) const XMPP_TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
pub(super) const XMPP_STREAMS: &str = "http://etherx.jabber.org/streams";
pub(super) const POSTGRES_SSL: u32 = 80_877_103;
pub(super) const CLIENT_PROTOCOL_41: u32 = 0x200;
pub(super) const CLIENT_SSL: u32 = 0x800;
pub(super) const CLIENT_SECURE_CONNECTION: u32 = 0x8000;

/// The length in the header of a MySQL packet.
pub(super) fn mysql_length(head: &[u8]) -> usize {
    usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16
}

/// Whether these bytes are a complete MySQL packet of at most `most` bytes.
pub(super) fn is_mysql_packet(unit: &[u8], most: usize) -> Result<bool, DialogueError> {
    match unit.get(4..) {
        None => Ok(false),
        Some(_) if mysql_length(unit) > most => Err(unexpected(unit)),
        Some(content) => Ok(content.len() == mysql_length(unit)),
    }
}

/// Whether an XML tag has exactly this name.
pub(super) fn is_tag(tag: &[u8], name: &str) -> bool {
    tag.strip_prefix(name.as_bytes())
        .is_some_and(|rest| matches!(rest.first(), Some(b' ' | b'\t' | b'\r' | b'\n' | b'/' | b'>')))
}

/// An XML tag, without the white space before it.
pub(super) fn tag(unit: &[u8]) -> Result<&[u8], DialogueError> {
    let tag = unit.trim_ascii_start();
    if tag.starts_with(b"<") { Ok(tag) } else { Err(unexpected(unit)) }
}

/// Escapes a text for an XML attribute in single quotes.
pub(super) fn for_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

/// The characters of a name that are allowed in a line of a protocol: printable ASCII without spaces.
pub(super) fn for_line(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).collect()
}
