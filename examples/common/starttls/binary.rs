//! Protocols of binary messages.

use std::io;

use super::{Plain, Talk, refusal};

/// ExtendedRequest 1.3.6.1.4.1.1466.20037 with message id 1 (RFC 4511 section 4.14.1).
const LDAP_STARTTLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
const LDAP_OID: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// The longest accepted answer of LDAP, and the longest accepted greeting of MySQL: far more than a real one needs.
const MOST_LDAP: usize = 8 << 10;
const MOST_MYSQL: usize = 1 << 10;

/// RFC 4511 section 4.14
pub(super) async fn ldap(talk: &mut Talk<'_, impl Plain>) -> io::Result<()> {
    talk.say(LDAP_STARTTLS).await?;
    let mut head = talk.read_exactly(2).await?;
    if head[1] & 0x80 != 0 {
        head.extend(talk.read_exactly(usize::from(head[1] & 0x7f)).await?);
    }
    let length = ber_length(&head[1..]).filter(|length| *length <= MOST_LDAP);
    let length = length.filter(|_| head[0] == 0x30).ok_or_else(|| refusal("that was no LDAP message"))?;
    let message = talk.read_exactly(length).await?;
    match ldap_result(&message) {
        Some(0) => Ok(()),
        Some(code) => Err(refusal(&format!("LDAP result code {code}"))),
        None => Err(refusal("that was no answer to the extended request")),
    }
}

/// The result code of the ExtendedResponse to message 1. The response must fill `message` completely.
fn ldap_result(message: &[u8]) -> Option<u8> {
    let (id, rest) = ber_value(message, 0x02)?;
    let (response, controls) = ber_value(rest, 0x78)?;
    let (code, rest) = ber_value(response, 0x0a)?;
    let (_matched_dn, rest) = ber_value(rest, 0x04)?;
    let (_diagnostic_message, rest) = ber_value(rest, 0x04)?;
    let (_, rest) = ber_option(rest, 0xa3)?;
    let (name, rest) = ber_option(rest, 0x8a)?;
    let (_, rest) = ber_option(rest, 0x8b)?;
    let (_, behind) = ber_option(controls, 0xa0)?;
    let is_ours = name.is_none_or(|name| name == LDAP_OID) && rest.is_empty() && behind.is_empty();
    match (id, code) {
        ([1], [code]) if is_ours => Some(*code),
        _ => None,
    }
}

/// The value of the first element if it has this tag, and the bytes after the element.
fn ber_option(bytes: &[u8], tag: u8) -> Option<(Option<&[u8]>, &[u8])> {
    match bytes.first() {
        Some(first) if *first == tag => ber_value(bytes, tag).map(|(value, rest)| (Some(value), rest)),
        _ => Some((None, bytes)),
    }
}

/// The value of the first element, which must have this tag, and the bytes after the element.
fn ber_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let head = match rest.first()? {
        long if long & 0x80 != 0 => 1 + usize::from(long & 0x7f),
        _ => 1,
    };
    let length = ber_length(rest.get(..head)?)?;
    rest.get(head..)?.split_at_checked(length)
}

/// A length in the short or the long form.
fn ber_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [short] if short & 0x80 == 0 => Some(usize::from(*short)),
        [_, long @ ..] if (1..=4).contains(&long.len()) => {
            Some(long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
        }
        _ => None,
    }
}

/// SSLRequest: PostgreSQL, "Message Formats". The answer is one byte.
pub(super) async fn postgres(talk: &mut Talk<'_, impl Plain>) -> io::Result<()> {
    let request = [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat();
    talk.say(&request).await?;
    match talk.read_exactly(1).await?.as_slice() {
        b"S" => Ok(()),
        b"N" => Err(refusal("it says N")),
        _ => Err(refusal("it says neither S nor N")),
    }
}

const CLIENT_PROTOCOL_41: u32 = 0x200;
const CLIENT_SSL: u32 = 0x800;
const CLIENT_SECURE_CONNECTION: u32 = 0x8000;

/// The initial handshake packet, then SSLRequest: MySQL, "Connection Phase".
pub(super) async fn mysql(talk: &mut Talk<'_, impl Plain>) -> io::Result<()> {
    let head = talk.read_exactly(4).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    let no_greeting = || refusal("that was no greeting of protocol 10");
    if head[3] != 0 || length > MOST_MYSQL {
        return Err(no_greeting());
    }
    let greeting = talk.read_exactly(length).await?;
    let flags = mysql_flags(&greeting).ok_or_else(no_greeting)?;
    if flags & CLIENT_SSL == 0 {
        return Err(refusal("the server does not have CLIENT_SSL"));
    }
    talk.say(&mysql_request(head[3].wrapping_add(1))).await
}

/// The lower half of the server's capability flags: after the version's text, the thread id, eight bytes and a filler.
fn mysql_flags(greeting: &[u8]) -> Option<u32> {
    let version = greeting.strip_prefix(&[10])?;
    let end = version.iter().position(|byte| *byte == 0)?;
    let flags = version.get(end + 1 + 4 + 8 + 1..)?.first_chunk()?;
    Some(u32::from(u16::from_le_bytes(*flags)))
}

fn mysql_request(sequence: u8) -> Vec<u8> {
    let flags = CLIENT_PROTOCOL_41 | CLIENT_SSL | CLIENT_SECURE_CONNECTION;
    let mut packet = vec![32, 0, 0, sequence];
    packet.extend(flags.to_le_bytes());
    packet.extend((1_u32 << 24).to_le_bytes());
    // The character set utf8mb4, and 23 reserved bytes.
    packet.push(45);
    packet.resize(4 + 32, 0);
    packet
}
