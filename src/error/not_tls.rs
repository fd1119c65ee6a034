//! A peer that does not speak TLS, recognised by its first bytes.

use std::fmt;

use crate::escape::escaped;

/// The number of bytes that are kept.
const KEPT: usize = 64;
/// The number of bytes that are shown.
const SHOWN: usize = 32;

/// The peer does not speak TLS: it sent these bytes instead of a TLS record. Usually the port or the scheme is wrong,
/// or a proxy in between speaks first.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotTls {
    /// The first bytes that the peer sent, at most 64. Escape them before you show them to a person, as `Display` does.
    pub first_bytes: Box<[u8]>,
}

impl NotTls {
    /// `bytes`: the first bytes of a connection, which are not the start of a TLS record.
    pub(crate) fn begun_by(bytes: &[u8]) -> Self {
        Self { first_bytes: bytes[..bytes.len().min(KEPT)].into() }
    }

    /// The name of the protocol, if it is recognised: `HTTP`, `SSH`, `SMTP or FTP`, and so on. Meant for people to
    /// read; the list of names may grow.
    pub fn protocol(&self) -> Option<&'static str> {
        let bytes = &*self.first_bytes;
        let begins = |(begin, name): &(&[u8], &'static str)| bytes.starts_with(begin).then_some(*name);
        PROTOCOLS.iter().find_map(begins).or(match bytes {
            // MySQL's greeting: a length, the number of the message, and the version of the protocol.
            [_, _, 0, 0, 10, ..] => Some("MySQL"),
            // RFC 5246, appendix E.2.
            [0x80..=0xff, _, 1, 0 | 2 | 3, ..] => Some("SSL 2.0"),
            _ => None,
        })
    }
}

const PROTOCOLS: [(&[u8], &str); 25] = [
    (b"HTTP/", "HTTP"),
    (b"GET ", "HTTP"),
    (b"HEAD ", "HTTP"),
    (b"POST ", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"DELET", "HTTP"),
    (b"PATCH", "HTTP"),
    (b"OPTIO", "HTTP"),
    (b"CONNE", "HTTP"),
    (b"TRACE", "HTTP"),
    (b"PRI *", "HTTP/2"),
    (b"SSH-", "SSH"),
    (b"220 ", "SMTP or FTP"),
    (b"220-", "SMTP or FTP"),
    (b"EHLO ", "SMTP"),
    (b"HELO ", "SMTP"),
    (b"* OK", "IMAP"),
    (b"+OK", "POP3"),
    (b"<?xml", "XMPP"),
    (b"<stre", "XMPP"),
    (b"-ERR ", "POP3 or Redis"),
    (b"PROXY", "the PROXY protocol"),
    (b"\r\n\r\n\0", "the PROXY protocol"),
    // The request for TLS (SSLRequest).
    (b"\0\0\0\x08\x04", "PostgreSQL"),
    // A SETTINGS frame of stream 0.
    (b"\0\0\x12\x04\0", "HTTP/2"),
];

impl fmt::Display for NotTls {
    /// `the peer does not speak TLS, but HTTP: it sent "HTTP/1.1 400 Bad Request"`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the peer does not speak TLS")?;
        if let Some(protocol) = self.protocol() {
            write!(f, ", but {protocol}")?;
        }
        write!(f, ": it sent \"{}\"", escaped(self.shown()))
    }
}

impl NotTls {
    /// The first line of the bytes.
    fn shown(&self) -> &[u8] {
        let shown = &self.first_bytes[..self.first_bytes.len().min(SHOWN)];
        match shown.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(length) if length > 0 => &shown[..length],
            _ => shown,
        }
    }
}

impl fmt::Debug for NotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotTls(\"{}\")", escaped(self.shown()))
    }
}

#[cfg(test)]
mod tests {
    use super::NotTls;

    #[test]
    fn the_protocol_of_a_peer_is_named_and_its_bytes_escaped() {
        let cases: [(&[u8], &str); 9] = [
            (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n", r#", but HTTP: it sent "HTTP/1.1 400 Bad Request""#),
            (b"GET /", r#", but HTTP: it sent "GET /""#),
            (b"SSH-2.0-OpenSSH_9.6\r\n", r#", but SSH: it sent "SSH-2.0-OpenSSH_9.6""#),
            (b"220 mail\x1b[2J\r\n", r#", but SMTP or FTP: it sent "220 mail\x1b[2J""#),
            (b"PROXY TCP4 192.0.2.1 ", r#", but the PROXY protocol: it sent "PROXY TCP4 192.0.2.1 ""#),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", r#", but the PROXY protocol: it sent "\r\n\r\n\x00\r\nQUIT\n!""#),
            (b"\x4a\0\0\0\x0a8.0.36\0", r#", but MySQL: it sent "J\x00\x00\x00""#),
            (b"\x16\x02\x00", r#": it sent "\x16\x02\x00""#),
            (&[b'x'; 100], r#": it sent "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#),
        ];
        for (bytes, said) in cases {
            let not_tls = NotTls::begun_by(bytes);
            assert_eq!(not_tls.to_string(), format!("the peer does not speak TLS{said}"));
            assert!(bytes.starts_with(&not_tls.first_bytes) && not_tls.first_bytes.len() == bytes.len().min(64));
        }
    }
}
