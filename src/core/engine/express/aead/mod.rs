//! Seals and opens records with the provider's AEAD. If the suite is one of rustls's own, the AEAD is called directly.
//!
//! rustls's `MessageEncrypter` allocates a `Vec` for each record, and its `MessageDecrypter` can only open a record in
//! place. With direct calls of the AEAD, a record is sealed in the queue from which it is sent, and opened in the
//! buffer from which it is read. In return, this module has to build the nonces and the additional authenticated data,
//! as RFC 8446 section 5, RFC 5288 and RFC 7905 define them.

use rustls::crypto::cipher::{
    InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, NONCE_LEN, Nonce, OutboundChunks,
    OutboundPlainMessage, make_tls12_aad, make_tls13_aad,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite};

use super::keys::{decrypter, encrypter, unknown_secrets};
use crate::core::engine::library::Library;
use crate::core::record::{HEADER, MAX_FRAGMENT};

/// Each of these AEADs has a tag of this length.
const TAG: usize = 16;
/// The explicit part of an AES-GCM nonce in TLS 1.2, which each record contains, and the implicit part before it (RFC
/// 5288).
const EXPLICIT: usize = 8;
const SALT: usize = NONCE_LEN - EXPLICIT;

/// From this many bytes of plaintext on, sealing from the caller's buffer is faster than copying first. In TLS 1.3, the
/// content type is sealed after the plaintext. The library gets it as a second piece, which costs as much as copying a
/// few KiB.
pub(super) const WORTH_IT: usize = 4 << 10;

/// A key for sealing.
pub(super) enum Sealer {
    Direct(Direct),
    /// A suite of the application, or one for which FIPS validates rustls's own calls.
    Provided(Box<dyn MessageEncrypter>),
}

/// A key for opening.
pub(super) enum Opener {
    Direct(Direct),
    Provided(Box<dyn MessageDecrypter>),
}

/// The content of a record, and where it is.
pub(super) struct Plain {
    pub(super) typ: ContentType,
    pub(super) place: Location,
    pub(super) len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    /// In the record, this many bytes after its start.
    Record(usize),
    /// At the start of the reader's buffer.
    Reader,
}

impl Sealer {
    /// `next` is the number of the first record that this key will seal.
    pub(super) fn new(
        suite: SupportedCipherSuite,
        secrets: ConnectionTrafficSecrets,
        next: u64,
    ) -> Result<Self, Error> {
        if let Some(library) = Library::of(suite) {
            return Direct::new(library, suite, secrets).map(Self::Direct);
        }
        let mut provided = encrypter(suite, secrets)?;
        if next > 0 {
            // A provider may check that each nonce is larger than the one before (aws-lc does), starting with that of
            // record 0. So it has to see the nonce of record 0. The handshake has already sent record 0; the empty one
            // that is sealed here is discarded.
            drop(provided.encrypt(plain(ContentType::ApplicationData, &[]), 0)?);
        }
        Ok(Self::Provided(provided))
    }

    /// The number of bytes before the payload in a record. The plaintext has to be placed at this offset.
    pub(super) fn head(&self) -> usize {
        match self {
            Self::Direct(direct) => HEADER + direct.shape.explicit(),
            Self::Provided(_) => HEADER,
        }
    }

    /// The length of a record with a payload of this length.
    pub(super) fn record_len(&self, len: usize) -> usize {
        match self {
            Self::Direct(direct) => HEADER + direct.shape.explicit() + len + direct.shape.inner_type() + TAG,
            Self::Provided(provided) => HEADER + provided.encrypted_payload_len(len),
        }
    }

    /// Seals plaintext from another buffer into a record. aws-lc-rs can read the plaintext there. ring, and the sealing
    /// interface of rustls, seal in place, so the plaintext is copied first.
    pub(super) fn seal_from(
        &mut self,
        typ: ContentType,
        plain: &[u8],
        seq: u64,
        record: &mut [u8],
    ) -> Result<(), Error> {
        #[cfg(feature = "aws-lc-rs")]
        if let Self::Direct(direct @ Direct { key: Key::AwsLc(key), .. }) = &*self {
            return direct.seal_elsewhere(key, typ, plain, seq, record);
        }
        let head = self.head();
        record[head..head + plain.len()].copy_from_slice(plain);
        self.seal(typ, plain.len(), seq, record)
    }

    /// Makes a record of `len` bytes of plaintext that start [`head`](Self::head) bytes after the start of the record.
    pub(super) fn seal(&mut self, typ: ContentType, len: usize, seq: u64, record: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::Direct(direct) => direct.seal(typ, len, seq, record),
            Self::Provided(provided) => {
                let sealed = provided.encrypt(plain(typ, &record[HEADER..HEADER + len]), seq)?.encode();
                if sealed.len() != record.len() {
                    return Err(Error::EncryptError);
                }
                record.copy_from_slice(&sealed);
                Ok(())
            }
        }
    }
}

fn plain(typ: ContentType, payload: &[u8]) -> OutboundPlainMessage<'_> {
    OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: OutboundChunks::Single(payload) }
}

impl Opener {
    pub(super) fn new(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Result<Self, Error> {
        match Library::of(suite) {
            Some(library) => Direct::new(library, suite, secrets).map(Self::Direct),
            None => decrypter(suite, secrets).map(Self::Provided),
        }
    }

    /// The size of reader's buffer that is needed to open a record of this length into it. `None`: the record is opened
    /// in place, whatever the size of the buffer.
    pub(super) fn room_for(&self, record: usize) -> Option<usize> {
        match self {
            Self::Direct(direct) if direct.library.opens_elsewhere() => {
                Some(record.saturating_sub(HEADER + direct.shape.explicit() + TAG))
            }
            Self::Direct(_) | Self::Provided(_) => None,
        }
    }

    /// Opens a record with this header. It is opened into `reader` if the library supports that and `reader` has space
    /// for all sealed bytes, otherwise in place. After a failure, `reader` contains zeros.
    pub(super) fn open(
        &mut self,
        (outer, version): (ContentType, ProtocolVersion),
        record: &mut [u8],
        seq: u64,
        reader: &mut [u8],
    ) -> Result<Plain, Error> {
        match self {
            Self::Direct(direct) => direct.open((outer, version), record, seq, reader),
            Self::Provided(provided) => {
                let begin = record.as_ptr() as usize;
                let plain = provided.decrypt(InboundOpaqueMessage::new(outer, version, &mut record[HEADER..]), seq)?;
                let len = plain.payload.len();
                // The record was opened in place.
                let skip = if len == 0 { HEADER } else { plain.payload.as_ptr() as usize - begin };
                Ok(Plain { typ: plain.typ, place: Location::Record(skip), len })
            }
        }
    }
}

/// The format of the records of one version and AEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Tls13,
    /// RFC 5288: the record contains eight bytes of the nonce.
    Gcm12,
    /// RFC 7905: as in TLS 1.3, the record contains no byte of the nonce.
    ChaCha12,
}

impl Shape {
    fn explicit(self) -> usize {
        match self {
            Self::Tls13 | Self::ChaCha12 => 0,
            Self::Gcm12 => EXPLICIT,
        }
    }

    /// The content type that is sealed after the payload.
    fn inner_type(self) -> usize {
        match self {
            Self::Tls13 => 1,
            Self::ChaCha12 | Self::Gcm12 => 0,
        }
    }
}

/// A key of an AEAD, with the data that is needed to use it.
pub(super) struct Direct {
    library: Library,
    key: Key,
    iv: Iv,
    shape: Shape,
}

impl Direct {
    fn new(library: Library, suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Result<Self, Error> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (aead, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (Aead::Aes128Gcm, key, iv),
            Aes256Gcm { key, iv } => (Aead::Aes256Gcm, key, iv),
            Chacha20Poly1305 { key, iv } => (Aead::ChaCha20Poly1305, key, iv),
            _ => return Err(unknown_secrets()),
        };
        let shape = match (suite, aead) {
            (SupportedCipherSuite::Tls13(_), _) => Shape::Tls13,
            (SupportedCipherSuite::Tls12(_), Aead::Aes128Gcm | Aead::Aes256Gcm) => Shape::Gcm12,
            (SupportedCipherSuite::Tls12(_), Aead::ChaCha20Poly1305) => Shape::ChaCha12,
        };
        let key = Key::new(library, aead, key.as_ref()).ok_or_else(unknown_secrets)?;
        Ok(Self { library, key, iv, shape })
    }

    /// Writes the header of a record, and the part of the nonce that the record contains. Returns the nonce, the length
    /// of the body, and the slice for the sealed bytes.
    #[inline]
    fn put_head<'a>(
        &self,
        typ: ContentType,
        seq: u64,
        record: &'a mut [u8],
    ) -> Result<([u8; NONCE_LEN], usize, &'a mut [u8]), Error> {
        let (header, body) = record.split_at_mut(HEADER);
        let is_outer = self.shape.inner_type() > 0;
        let (outer, body_len) = (if is_outer { ContentType::ApplicationData } else { typ }, body.len());
        let [high, low] = u16::try_from(body_len).map_err(|_| Error::EncryptError)?.to_be_bytes();
        header.copy_from_slice(&[u8::from(outer), 3, 3, high, low]);
        let nonce = Nonce::new(&self.iv, seq).0;
        let explicit = self.shape.explicit();
        let (travels, sealed) = body.split_at_mut(explicit);
        travels.copy_from_slice(&nonce[NONCE_LEN - explicit..]);
        Ok((nonce, body_len, sealed))
    }

    /// The inner type of TLS 1.3 is sealed separately, before the tag, because it is not part of the caller's buffer.
    #[cfg(feature = "aws-lc-rs")]
    fn seal_elsewhere(
        &self,
        key: &aws_lc_rs::aead::LessSafeKey,
        typ: ContentType,
        plain: &[u8],
        seq: u64,
        record: &mut [u8],
    ) -> Result<(), Error> {
        use aws_lc_rs::aead::{Aad, Nonce};
        let (nonce, body_len, sealed) = self.put_head(typ, seq, record)?;
        let (payload, rest) = sealed.split_at_mut(plain.len());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let made = match self.shape {
            Shape::Tls13 => {
                let aad = Aad::from(make_tls13_aad(body_len));
                key.seal_out_of_place_scatter(nonce, aad, plain, payload, &[u8::from(typ)], rest)
            }
            Shape::Gcm12 | Shape::ChaCha12 => {
                let aad = Aad::from(make_tls12_aad(seq, typ, ProtocolVersion::TLSv1_2, plain.len()));
                key.seal_out_of_place_scatter(nonce, aad, plain, payload, &[], rest)
            }
        };
        made.map_err(|_| Error::EncryptError)
    }

    fn seal(&self, typ: ContentType, len: usize, seq: u64, record: &mut [u8]) -> Result<(), Error> {
        let inner_type = self.shape.inner_type();
        let (nonce, body_len, sealed) = self.put_head(typ, seq, record)?;
        let (payload, tag) = sealed.split_at_mut(len + inner_type);
        payload[len..].fill(u8::from(typ));
        let made = match self.shape {
            Shape::Tls13 => self.key.seal(nonce, &make_tls13_aad(body_len), payload),
            Shape::Gcm12 | Shape::ChaCha12 => {
                self.key.seal(nonce, &make_tls12_aad(seq, typ, ProtocolVersion::TLSv1_2, len), payload)
            }
        };
        tag.copy_from_slice(&made.ok_or_else(|| Error::EncryptError)?);
        Ok(())
    }

    fn open(
        &self,
        (outer, version): (ContentType, ProtocolVersion),
        record: &mut [u8],
        seq: u64,
        reader: &mut [u8],
    ) -> Result<Plain, Error> {
        let head = HEADER + self.shape.explicit();
        let len = record.len().checked_sub(head + TAG).ok_or_else(|| Error::DecryptError)?;
        let mut nonce = Nonce::new(&self.iv, seq).0;
        if self.shape == Shape::Gcm12 {
            nonce[SALT..].copy_from_slice(&record[HEADER..head]);
        }
        // Only data may be opened into the reader's buffer. In TLS 1.3, every record looks like data from outside.
        let may_be_data = outer == ContentType::ApplicationData && self.library.opens_elsewhere();
        let mut reader = reader.get_mut(..len).filter(|_| may_be_data);
        let sealed = &mut record[head..];
        let is_sound = match self.shape {
            Shape::Tls13 => self.key.open(nonce, &make_tls13_aad(len + TAG), sealed, reader.as_deref_mut()),
            Shape::Gcm12 | Shape::ChaCha12 => {
                self.key.open(nonce, &make_tls12_aad(seq, outer, version, len), sealed, reader.as_deref_mut())
            }
        };
        let (place, opened) = match reader {
            Some(reader) => (Location::Reader, reader),
            None => (Location::Record(head), &mut sealed[..len]),
        };
        let payload = if is_sound { self.shape.payload(outer, opened) } else { Err(Error::DecryptError) };
        let len = payload.as_ref().map_or(0, |(_, len)| *len);
        opened[len..].fill(0);
        payload.map(|(typ, len)| Plain { typ, place, len })
    }
}

impl Shape {
    /// The type of a record, and the length of its payload. Makes the same checks as rustls.
    fn payload(self, outer: ContentType, opened: &[u8]) -> Result<(ContentType, usize), Error> {
        let (typ, len) = match self {
            Self::Gcm12 | Self::ChaCha12 => (outer, opened.len()),
            Self::Tls13 if opened.len() > MAX_FRAGMENT + 1 => return Err(Error::PeerSentOversizedRecord),
            Self::Tls13 => {
                // RFC 8446 section 5.4: the type is the last byte that is not padding.
                let at = opened.iter().rposition(|byte| *byte != 0).ok_or(PeerMisbehaved::IllegalTlsInnerPlaintext)?;
                (ContentType::from(opened[at]), at)
            }
        };
        match typ {
            ContentType::ChangeCipherSpec if self == Self::Tls13 => {
                Err(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into())
            }
            _ if len > MAX_FRAGMENT => Err(Error::PeerSentOversizedRecord),
            typ => Ok((typ, len)),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Aead {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

enum Key {
    #[cfg(feature = "aws-lc-rs")]
    AwsLc(aws_lc_rs::aead::LessSafeKey),
    #[cfg(feature = "ring")]
    /// This key is boxed, because it holds the keys of all rounds and is large.
    Ring(Box<ring::aead::LessSafeKey>),
}

/// Implements the calls that both libraries have in common.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
macro_rules! library {
    (new $library:ident, $aead:expr, $key:expr) => {{
        let algorithm = match $aead {
            Aead::Aes128Gcm => &$library::aead::AES_128_GCM,
            Aead::Aes256Gcm => &$library::aead::AES_256_GCM,
            Aead::ChaCha20Poly1305 => &$library::aead::CHACHA20_POLY1305,
        };
        $library::aead::UnboundKey::new(algorithm, $key).ok().map($library::aead::LessSafeKey::new)
    }};
    (seal $library:ident, $key:expr, $nonce:expr, $aad:expr, $payload:expr) => {{
        let nonce = $library::aead::Nonce::assume_unique_for_key($nonce);
        let tag = $key.seal_in_place_separate_tag(nonce, $library::aead::Aad::from($aad), $payload);
        tag.ok().and_then(|tag| tag.as_ref().try_into().ok())
    }};
    (open $library:ident, $key:expr, $nonce:expr, $aad:expr, $sealed:expr) => {{
        let nonce = $library::aead::Nonce::assume_unique_for_key($nonce);
        $key.open_in_place(nonce, $library::aead::Aad::from($aad), $sealed).is_ok()
    }};
}

#[cfg_attr(not(feature = "aws-lc-rs"), allow(unused_variables))]
impl Key {
    fn new(library: Library, aead: Aead, key: &[u8]) -> Option<Self> {
        match library {
            #[cfg(feature = "aws-lc-rs")]
            Library::AwsLc => library!(new aws_lc_rs, aead, key).map(Self::AwsLc),
            #[cfg(feature = "ring")]
            Library::Ring => library!(new ring, aead, key).map(Box::new).map(Self::Ring),
        }
    }

    /// Seals the payload in place, and returns the tag.
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], payload: &mut [u8]) -> Option<[u8; TAG]> {
        match *self {
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLc(ref key) => library!(seal aws_lc_rs, key, nonce, aad, payload),
            #[cfg(feature = "ring")]
            Self::Ring(ref key) => library!(seal ring, key, nonce, aad, payload),
        }
    }

    /// Opens the sealed bytes, which are followed by the tag: in place, or into `elsewhere`, which has the length of
    /// the plaintext. Returns whether the tag is valid.
    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], sealed: &mut [u8], elsewhere: Option<&mut [u8]>) -> bool {
        match *self {
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLc(ref key) => match elsewhere {
                Some(plain) => {
                    let (sealed, tag) = sealed.split_at(plain.len());
                    let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
                    key.open_separate_gather(nonce, aws_lc_rs::aead::Aad::from(aad), sealed, tag, plain).is_ok()
                }
                None => library!(open aws_lc_rs, key, nonce, aad, sealed),
            },
            #[cfg(feature = "ring")]
            Self::Ring(ref key) => library!(open ring, key, nonce, aad, sealed),
        }
    }
}

#[cfg(test)]
mod tests;
