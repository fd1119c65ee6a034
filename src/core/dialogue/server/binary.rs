//! Protocols of binary messages.

use crate::core::dialogue::ber;
use crate::core::dialogue::script::{
    CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_SSL, LDAP_OID, Next, POSTGRES_SSL, Script, is_mysql_packet,
    unexpected,
};
use crate::error::DialogueError;

/// RFC 4511 section 4.14
pub(super) struct Ldap;

const CONFIDENTIALITY_REQUIRED: u8 = 13;

impl Script for Ldap {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ber::is_whole(unit)
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let (id, rest) = ldap_message(unit).ok_or_else(|| unexpected(unit))?;
        // The tag of the response to each request (RFC 4511 section 4.2 on).
        let response = match rest[0] {
            0x42 => return Ok(Next::Leave),
            // An abandon has no response.
            0x50 => return Ok(Next::Listen),
            0x60 => 0x61,
            0x63 => 0x65,
            0x66 => 0x67,
            0x68 => 0x69,
            0x4a => 0x6b,
            0x6c => 0x6d,
            0x6e => 0x6f,
            0x77 => 0x78,
            _ => return Err(unexpected(unit)),
        };
        let is_starttls = is_starttls(rest).ok_or_else(|| unexpected(unit))?;
        let (code, text, next) = match is_starttls {
            true => (0, "", Next::Agree),
            false => (CONFIDENTIALITY_REQUIRED, "StartTLS first", Next::Listen),
        };
        let name = if is_starttls { ber::element(0x8a, &[LDAP_OID]) } else { Vec::new() };
        let result = [&[0x0a, 1, code, 0x04, 0][..], &ber::element(0x04, &[text.as_bytes()]), &name].concat();
        out.extend(ber::element(0x30, &[&ber::element(0x02, &[id]), &ber::element(response, &[&result])]));
        Ok(next)
    }
}

/// The id of a message, and the request in it.
fn ldap_message(unit: &[u8]) -> Option<(&[u8], &[u8])> {
    let (message, _) = ber::value(unit, 0x30)?;
    let (id, rest) = ber::value(message, 0x02)?;
    ((1..=4).contains(&id.len()) && !rest.is_empty()).then_some((id, rest))
}

/// Whether a request is StartTLS, which has no value (RFC 4511 section 4.14.1).
fn is_starttls(request: &[u8]) -> Option<bool> {
    let (extended, controls) = ber::option(request, 0x77)?;
    let Some(extended) = extended else { return Some(false) };
    let (name, value) = ber::value(extended, 0x80)?;
    let (_, behind) = ber::option(controls, 0xa0)?;
    behind.is_empty().then_some(name == LDAP_OID && value.is_empty())
}

/// SSLRequest: PostgreSQL, "Message Formats".
pub(super) struct Postgres;

const POSTGRES_GSS: u32 = 80_877_104;
/// The longest accepted first message, as in PostgreSQL.
const LONGEST_STARTUP: usize = 10_000;

impl Script for Postgres {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        let Some(length) = unit.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) else {
            return Ok(false);
        };
        if (8..=LONGEST_STARTUP).contains(&length) { Ok(unit.len() == length) } else { Err(unexpected(unit)) }
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let code = unit[4..].first_chunk().map(|code| u32::from_be_bytes(*code));
        match code {
            Some(POSTGRES_SSL) if unit.len() == 8 => {
                out.push(b'S');
                Ok(Next::Agree)
            }
            Some(POSTGRES_GSS) if unit.len() == 8 => {
                out.push(b'N');
                Ok(Next::Listen)
            }
            // A startup message in plaintext. The answer is an ErrorResponse, whose fields are a letter and a text that
            // ends with a zero byte.
            Some(0x3_0000..=0x3_ffff) => {
                let fields = b"SFATAL\0VFATAL\0C28000\0MTLS is required\0\0";
                out.push(b'E');
                out.extend((4 + fields.len() as u32).to_be_bytes());
                out.extend_from_slice(fields);
                Err(unexpected(unit))
            }
            _ => Err(unexpected(unit)),
        }
    }
}

/// SSLRequest: MySQL, "Connection Phase".
pub(super) struct MySql;

/// The longest accepted answer to the greeting. Real answers in plaintext are shorter.
const LONGEST_ANSWER: usize = 8 << 10;

impl Script for MySql {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        is_mysql_packet(unit, LONGEST_ANSWER)
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let packet = &unit[4..];
        let flags = packet.first_chunk().map(|flags| u32::from_le_bytes(*flags)).filter(|_| unit[3] == 1);
        match flags {
            Some(flags) if flags & CLIENT_SSL != 0 && packet.len() == 32 => Ok(Next::Agree),
            // A login in plaintext is answered with an ERR packet and MySQL's error number for it.
            Some(flags) if flags & CLIENT_SSL == 0 => {
                let error = [&b"\xff"[..], &3159_u16.to_le_bytes(), b"#HY000TLS is required"].concat();
                out.extend([error.len() as u8, 0, 0, 2]);
                out.extend(error);
                Err(unexpected(unit))
            }
            _ => Err(unexpected(unit)),
        }
    }
}

/// A greeting of protocol version 10. Each connection gets its own scramble.
pub(super) fn mysql_greeting() -> Vec<u8> {
    const LONG_PASSWORD: u32 = 1;
    const CONNECT_WITH_DB: u32 = 8;
    const TRANSACTIONS: u32 = 0x2000;
    const PLUGIN_AUTH: u32 = 0x8_0000;
    let flags = LONG_PASSWORD | CONNECT_WITH_DB | TRANSACTIONS | PLUGIN_AUTH;
    let flags = (flags | CLIENT_PROTOCOL_41 | CLIENT_SSL | CLIENT_SECURE_CONNECTION).to_le_bytes();
    let random = [super::unguessed(), super::unguessed(), super::unguessed()].map(u64::to_le_bytes).concat();
    // Printable characters, because some clients treat the scramble as text.
    let scramble: Vec<u8> = random[..20].iter().map(|byte| b'!' + byte % 94).collect();
    let mut packet = b"\x0a8.0.0-bowline\0\x01\0\0\0".to_vec();
    packet.extend_from_slice(&scramble[..8]);
    packet.push(0);
    packet.extend_from_slice(&flags[..2]);
    // The character set utf8mb4, the status "autocommit", the other flags, and the length of the scramble with its end.
    packet.extend_from_slice(&[45, 2, 0, flags[2], flags[3], 21]);
    packet.extend_from_slice(&[0; 10]);
    packet.extend_from_slice(&scramble[8..]);
    packet.extend_from_slice(b"\0mysql_native_password\0");
    [&[packet.len() as u8, 0, 0, 0], &packet[..]].concat()
}
