//! Protocols of binary messages.

use crate::core::dialogue::ber;
use crate::core::dialogue::script::{
    CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_SSL, LDAP_OID, Next, POSTGRES_SSL, Script, declined,
    is_mysql_packet, unexpected,
};
use crate::error::DialogueError;

/// RFC 4511 section 4.14
pub(super) struct Ldap;

impl Ldap {
    /// ExtendedRequest 1.3.6.1.4.1.1466.20037 with message id 1 (RFC 4511 section 4.14.1).
    pub(super) fn begin(out: &mut Vec<u8>) -> Self {
        let request = ber::element(0x77, &[&ber::element(0x80, &[LDAP_OID])]);
        out.extend(ber::element(0x30, &[&[0x02, 1, 1], &request]));
        Self
    }
}

impl Script for Ldap {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        ber::is_whole(unit)
    }

    fn hear(&mut self, unit: &[u8], _: &mut Vec<u8>) -> Result<Next, DialogueError> {
        match ldap_result(unit) {
            Some((0, _)) => Ok(Next::Agree),
            Some((code, diagnostic)) => {
                let code = format!("result code {code}: ");
                Err(declined(&[code.as_bytes(), diagnostic].concat()))
            }
            None => Err(unexpected(unit)),
        }
    }
}

/// The result code of the ExtendedResponse to message 1, and its diagnostic message. The response must fill `unit`
/// completely.
fn ldap_result(unit: &[u8]) -> Option<(u8, &[u8])> {
    let (message, _) = ber::value(unit, 0x30)?;
    let (id, rest) = ber::value(message, 0x02)?;
    let (response, controls) = ber::value(rest, 0x78)?;
    let (code, rest) = ber::value(response, 0x0a)?;
    let (_matched_dn, rest) = ber::value(rest, 0x04)?;
    let (diagnostic, rest) = ber::value(rest, 0x04)?;
    let (_, rest) = ber::option(rest, 0xa3)?;
    let (name, rest) = ber::option(rest, 0x8a)?;
    let (_, rest) = ber::option(rest, 0x8b)?;
    let (_, behind) = ber::option(controls, 0xa0)?;
    let is_ours = name.is_none_or(|name| name == LDAP_OID) && rest.is_empty() && behind.is_empty();
    match (id, code) {
        ([1], [code]) if is_ours => Some((*code, diagnostic)),
        _ => None,
    }
}

/// SSLRequest: PostgreSQL, "Message Formats". The answer is one byte.
pub(super) struct Postgres;

impl Postgres {
    pub(super) fn begin(out: &mut Vec<u8>) -> Self {
        out.extend(8_u32.to_be_bytes());
        out.extend(POSTGRES_SSL.to_be_bytes());
        Self
    }
}

impl Script for Postgres {
    fn is_whole(&mut self, _: &[u8]) -> Result<bool, DialogueError> {
        Ok(true)
    }

    fn hear(&mut self, unit: &[u8], _: &mut Vec<u8>) -> Result<Next, DialogueError> {
        match unit {
            b"S" => Ok(Next::Agree),
            b"N" => Err(declined(unit)),
            _ => Err(unexpected(unit)),
        }
    }
}

/// The initial handshake packet, then SSLRequest: MySQL, "Connection Phase".
pub(super) struct MySql {
    capabilities: u32,
}

/// The longest accepted greeting. Real greetings are far shorter.
const LONGEST_GREETING: usize = 1 << 10;

impl MySql {
    pub(super) fn new(capabilities: u32) -> Self {
        Self { capabilities }
    }
}

impl Script for MySql {
    fn is_whole(&mut self, unit: &[u8]) -> Result<bool, DialogueError> {
        is_mysql_packet(unit, LONGEST_GREETING)
    }

    fn hear(&mut self, unit: &[u8], out: &mut Vec<u8>) -> Result<Next, DialogueError> {
        let packet = &unit[4..];
        // An ERR packet: an error number of two bytes, then text.
        if let [0xff, _, _, text @ ..] = packet {
            return Err(declined(text));
        }
        let flags = mysql_flags(packet).filter(|_| unit[3] == 0).ok_or_else(|| unexpected(unit))?;
        if flags & CLIENT_SSL == 0 {
            return Err(DialogueError::NotOffered);
        }
        out.extend(mysql_request(self.capabilities));
        Ok(Next::Agree)
    }
}

/// The lower half of the server's capability flags: after the version's text, the thread id, eight bytes and a filler.
fn mysql_flags(greeting: &[u8]) -> Option<u32> {
    let version = greeting.strip_prefix(&[10])?;
    let end = version.iter().position(|byte| *byte == 0)?;
    let flags = version.get(end + 1 + 4 + 8 + 1..)?.first_chunk()?;
    Some(u32::from(u16::from_le_bytes(*flags)))
}

fn mysql_request(capabilities: u32) -> Vec<u8> {
    let flags = CLIENT_PROTOCOL_41 | CLIENT_SSL | CLIENT_SECURE_CONNECTION | capabilities;
    let mut packet = vec![32, 0, 0, 1];
    packet.extend(flags.to_le_bytes());
    packet.extend((1_u32 << 24).to_le_bytes());
    // The character set utf8mb4, and 23 reserved bytes.
    packet.push(45);
    packet.resize(4 + 32, 0);
    packet
}
