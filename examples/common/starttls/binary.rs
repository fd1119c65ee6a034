//! Protocols of binary messages.

use std::io;

use tokio::io::AsyncWriteExt;

use super::{Plain, read_exactly, refusal};

/// ExtendedRequest 1.3.6.1.4.1.1466.20037 with message id 1 (RFC 4511 section 4.14.1).
const LDAP_STARTTLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

/// RFC 4511 section 4.14
pub(super) async fn ldap(peer: &mut impl Plain) -> io::Result<()> {
    peer.write_all(LDAP_STARTTLS).await?;
    let mut head = read_exactly(peer, 2).await?;
    if head[1] & 0x80 != 0 {
        head.extend(read_exactly(peer, usize::from(head[1] & 0x7f)).await?);
    }
    let length = ber_length(&head[1..]).ok_or_else(|| refusal("that was no LDAP message"))?;
    let message = read_exactly(peer, length).await?;
    match ldap_result(head[0], &message) {
        Some(0) => Ok(()),
        Some(code) => Err(refusal(&format!("LDAP result code {code}"))),
        None => Err(refusal("that was no answer to the extended request")),
    }
}

/// The result code of the ExtendedResponse to message 1.
fn ldap_result(tag: u8, message: &[u8]) -> Option<u8> {
    let (id, rest) = ber_value(message, 0x02)?;
    let (response, _) = ber_value(rest, 0x78)?;
    let (code, _) = ber_value(response, 0x0a)?;
    match (tag, id, code) {
        (0x30, [1], [code]) => Some(*code),
        _ => None,
    }
}

/// The value of the first element, which must have this tag, and what lies behind it.
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
pub(super) async fn postgres(peer: &mut impl Plain) -> io::Result<()> {
    let request = [8_u32.to_be_bytes(), 80_877_103_u32.to_be_bytes()].concat();
    peer.write_all(&request).await?;
    match read_exactly(peer, 1).await?.as_slice() {
        b"S" => Ok(()),
        b"N" => Err(refusal("it says N")),
        _ => Err(refusal("it says neither S nor N")),
    }
}

const CLIENT_PROTOCOL_41: u32 = 0x200;
const CLIENT_SSL: u32 = 0x800;
const CLIENT_SECURE_CONNECTION: u32 = 0x8000;

/// The initial handshake packet, then SSLRequest: MySQL, "Connection Phase".
pub(super) async fn mysql(peer: &mut impl Plain) -> io::Result<()> {
    let head = read_exactly(peer, 4).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    let greeting = read_exactly(peer, length).await?;
    let flags = mysql_flags(&greeting).ok_or_else(|| refusal("that was no greeting of protocol 10"))?;
    if flags & CLIENT_SSL == 0 {
        return Err(refusal("the server does not have CLIENT_SSL"));
    }
    peer.write_all(&mysql_request(head[3].wrapping_add(1))).await
}

/// The lower half of the server's capability flags: behind the version's text, the thread id, eight bytes and a filler.
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
