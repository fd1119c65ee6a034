//! Reads a ClientHello from the bytes at the start of a connection, before a TLS session exists.
//!
//! A server that chooses its configuration by the ClientHello, or that forwards the connection, has to see the message
//! first. rustls's `Acceptor` consumes the bytes, and does not report the versions that the client offers. So this
//! parser only reads: the bytes stay where they are, and a session, or another server, checks them again.

use std::fmt;

use rustls::{CipherSuite, ContentType, HandshakeType, InvalidMessage, NamedGroup, ProtocolVersion, SignatureScheme};

use super::record::{HEADER, MAX_FRAGMENT, may_begin_tls};
use super::tls_vector::{Extensions, host_name, take, vector};
use crate::error::{NotTls, Phase, TlsError};

/// The largest number of bytes that a ClientHello may occupy, with the headers of its records. rustls refuses messages
/// of more than 65,535 bytes.
pub(crate) const MAX_RECEIVED: usize = 1 << 16;

/// The first message of a TLS client (RFC 8446 section 4.1.2): what the client asks for and offers.
///
/// Nothing in it is authenticated yet. Use it to choose a configuration, but not to identify the client. If the client
/// uses Encrypted ClientHello, this is the outer message, with the public name of the server.
///
/// The lists may contain values without a meaning. Clients insert them to make sure that servers ignore unknown values
/// (GREASE, RFC 8701).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientHello {
    server_name: Option<Box<str>>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<ProtocolVersion>,
    cipher_suites: Vec<CipherSuite>,
    groups: Vec<NamedGroup>,
    signature_schemes: Vec<SignatureScheme>,
    /// The client offers Encrypted ClientHello.
    has_ech: bool,
}

impl ClientHello {
    /// The host name that the client asks for (SNI, RFC 6066 section 3): in lower case, without a dot at the end, IDN
    /// as A-labels. `None` if there is none; an IP address does not count.
    #[doc(alias = "sni")]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The application protocols that the client offers, the preferred one first. Empty if it offers none.
    pub fn alpn(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.alpn.iter().map(Vec::as_slice)
    }

    /// The versions of TLS that the client offers, the preferred one first. A client without `supported_versions` (RFC
    /// 8446 section 4.2.1) offers its highest version only.
    pub fn versions(&self) -> &[ProtocolVersion] {
        &self.versions
    }

    /// The cipher suites that the client offers.
    pub fn cipher_suites(&self) -> &[CipherSuite] {
        &self.cipher_suites
    }

    /// The groups for the key exchange that the client supports. Empty if it does not say.
    pub fn groups(&self) -> &[NamedGroup] {
        &self.groups
    }

    /// The signature schemes that the client accepts. Empty if it does not say.
    pub fn signature_schemes(&self) -> &[SignatureScheme] {
        &self.signature_schemes
    }

    /// Whether the message has the extension `encrypted_client_hello`. Most clients send it to every server, with
    /// random bytes if they know no key (RFC 9849 section 6.2).
    pub fn has_ech(&self) -> bool {
        self.has_ech
    }

    /// Parses the body of the message.
    fn read(mut body: &[u8]) -> Option<Self> {
        let body = &mut body;
        let legacy_version = number(take(body, 2)?).into();
        let _random = take(body, 32)?;
        let _session_id = vector(body, 1)?;
        let cipher_suites = numbers(vector(body, 2)?)?;
        let _compressions = vector(body, 1)?;
        let mut hello = Self {
            server_name: None,
            alpn: Vec::new(),
            versions: vec![legacy_version],
            cipher_suites,
            groups: Vec::new(),
            signature_schemes: Vec::new(),
            has_ech: false,
        };
        if body.is_empty() {
            return Some(hello);
        }
        let extensions = vector(body, 2)?;
        if !body.is_empty() {
            return None;
        }
        for extension in Extensions(extensions) {
            let (kind, content) = extension?;
            hello.add(kind, content)?;
        }
        Some(hello)
    }

    fn add(&mut self, kind: u16, mut content: &[u8]) -> Option<()> {
        match kind {
            Extensions::SERVER_NAME => {
                let name = host_name(content);
                self.server_name = name.map(|name| name.trim_end_matches('.').into());
            }
            Extensions::GROUPS => self.groups = numbers(vector(&mut content, 2)?)?,
            Extensions::SIGNATURE_SCHEMES => self.signature_schemes = numbers(vector(&mut content, 2)?)?,
            Extensions::ALPN => {
                let mut names = vector(&mut content, 2)?;
                while !names.is_empty() {
                    self.alpn.push(vector(&mut names, 1)?.to_vec());
                }
            }
            Extensions::VERSIONS => self.versions = numbers(vector(&mut content, 1)?)?,
            Extensions::ECH => self.has_ech = true,
            _ => {}
        }
        Some(())
    }
}

impl fmt::Debug for ClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alpn: Vec<_> = self.alpn().map(crate::escape::escaped).map(|name| name.to_string()).collect();
        f.debug_struct("ClientHello")
            .field("server_name", &self.server_name)
            .field("alpn", &alpn)
            .field("versions", &self.versions)
            .field("cipher_suites", &self.cipher_suites)
            .field("groups", &self.groups)
            .field("signature_schemes", &self.signature_schemes)
            .field("has_ech", &self.has_ech)
            .finish()
    }
}

fn number(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |number, byte| number << 8 | u16::from(*byte))
}

fn numbers<N: From<u16>>(bytes: &[u8]) -> Option<Vec<N>> {
    let pairs = bytes.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| number(pair).into()).collect())
}

/// Collects a ClientHello from the bytes that a connection has received so far, whatever the number of its segments and
/// records. No byte is examined twice.
#[derive(Default)]
pub struct ClientHelloReader {
    /// The length of the records that were read completely.
    len: usize,
    /// The message, or the first part of it.
    message: Vec<u8>,
}

impl fmt::Debug for ClientHelloReader {
    /// Shows only lengths: the bytes are those of the peer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHelloReader").field("len", &self.len).field("message", &self.message.len()).finish()
    }
}

impl ClientHelloReader {
    /// Reads on. `received` are all bytes of the connection, from the first one. `None`: more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not TLS, or not a ClientHello, or the message is malformed or too long. The peer is to blame.
    pub fn read(&mut self, received: &[u8]) -> Result<Option<ClientHello>, TlsError> {
        loop {
            let rest = received.get(self.len..).unwrap_or_default();
            if self.len == 0 && !may_begin_tls(rest) {
                return Err(failure(InvalidMessage::InvalidContentType.into(), Some(NotTls::begun_by(rest))));
            }
            let Some(record) = record(rest)? else { break };
            self.len += HEADER + record.len();
            self.message.extend_from_slice(record);
            if let Some(hello) = self.message()? {
                return Ok(Some(hello));
            }
        }
        if received.len() >= MAX_RECEIVED {
            return Err(failure(InvalidMessage::HandshakePayloadTooLarge.into(), None));
        }
        Ok(None)
    }

    /// The message, once it is complete.
    fn message(&self) -> Result<Option<ClientHello>, TlsError> {
        let mut rest = self.message.as_slice();
        match take(&mut rest, 1) {
            Some([kind]) if *kind == u8::from(HandshakeType::ClientHello) => {}
            Some(kind) => {
                let (expect_types, got_type) = (vec![HandshakeType::ClientHello], HandshakeType::from(kind[0]));
                return Err(failure(rustls::Error::InappropriateHandshakeMessage { expect_types, got_type }, None));
            }
            None => return Ok(None),
        }
        match rest {
            [0, _, _, ..] | [] | [0] | [0, _] => {}
            _ => return Err(failure(InvalidMessage::HandshakePayloadTooLarge.into(), None)),
        }
        let Some(body) = vector(&mut rest, 3) else { return Ok(None) };
        let malformed = || failure(InvalidMessage::MissingData("ClientHello").into(), None);
        ClientHello::read(body).ok_or_else(malformed).map(Some)
    }
}

/// The content of the first record, once it is complete.
fn record(bytes: &[u8]) -> Result<Option<&[u8]>, TlsError> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else { return Ok(None) };
    let kind = ContentType::from(header[0]);
    if kind != ContentType::Handshake {
        let expect_types = vec![ContentType::Handshake];
        return Err(failure(rustls::Error::InappropriateMessage { expect_types, got_type: kind }, None));
    }
    let len = usize::from(number(&header[3..]));
    match len {
        0 => Err(failure(InvalidMessage::InvalidEmptyPayload.into(), None)),
        1..=MAX_FRAGMENT => Ok(rest.get(..len)),
        _ => Err(failure(rustls::Error::PeerSentOversizedRecord, None)),
    }
}

/// The connection is not ended here, so no alert has been sent.
fn failure(error: rustls::Error, not_tls: Option<NotTls>) -> TlsError {
    TlsError { phase: Phase::Handshake, error, alert_sent: None, not_tls }
}

#[cfg(test)]
mod tests;
