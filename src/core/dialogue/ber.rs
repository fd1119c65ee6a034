//! Elements of BER (X.690), as LDAP uses them.

use crate::core::dialogue::script::unexpected;
use crate::error::DialogueError;

/// The longest accepted message. Real messages of this dialogue are far shorter.
const LONGEST: usize = 8 << 10;

/// Whether these bytes are a complete LDAPMessage, which is a SEQUENCE.
pub(super) fn is_whole(unit: &[u8]) -> Result<bool, DialogueError> {
    if unit[0] != 0x30 {
        return Err(unexpected(unit));
    }
    let Some(head) = head(&unit[1..]) else { return Ok(false) };
    let Some(content) = unit.get(1 + head..) else { return Ok(false) };
    match length(&unit[1..1 + head]) {
        Some(length) if length <= LONGEST => Ok(content.len() == length),
        _ => Err(unexpected(unit)),
    }
}

/// The value of the first element, which must have this tag, and the bytes after the element.
pub(super) fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let head = head(rest)?;
    let length = length(rest.get(..head)?)?;
    rest.get(head..)?.split_at_checked(length)
}

/// The value of the first element if it has this tag, and the bytes after the element.
pub(super) fn option(bytes: &[u8], tag: u8) -> Option<(Option<&[u8]>, &[u8])> {
    match bytes.first() {
        Some(first) if *first == tag => value(bytes, tag).map(|(value, rest)| (Some(value), rest)),
        _ => Some((None, bytes)),
    }
}

/// Encodes an element of less than 128 bytes.
pub(super) fn element(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let content = content.concat();
    debug_assert!(content.len() < 0x80);
    [&[tag, content.len() as u8][..], &content].concat()
}

/// The number of bytes in the length field that starts here.
fn head(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    Some(if first & 0x80 == 0 { 1 } else { 1 + usize::from(first & 0x7f) })
}

/// A length in the short or the long form.
fn length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [short] if short & 0x80 == 0 => Some(usize::from(*short)),
        [_, long @ ..] if (1..=4).contains(&long.len()) => {
            Some(long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
        _ => None,
    }
}
