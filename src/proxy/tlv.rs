//! The type-length-value fields of version 2.

use super::{ProxyHeader, ProxyHeaderError};

pub(super) const ALPN: u8 = 0x01;
pub(super) const AUTHORITY: u8 = 0x02;
pub(super) const CRC32C: u8 = 0x03;
pub(super) const UNIQUE_ID: u8 = 0x05;
pub(super) const SSL: u8 = 0x20;
pub(super) const SSL_VERSION: u8 = 0x21;
pub(super) const SSL_CN: u8 = 0x22;
pub(super) const SSL_CIPHER: u8 = 0x23;
/// The client has connected over TLS.
pub(super) const CLIENT_SSL: u8 = 0x01;
/// The client has sent a certificate on this connection.
pub(super) const CLIENT_CERT_CONN: u8 = 0x02;
/// The client has sent a certificate in this session, perhaps on an earlier connection.
pub(super) const CLIENT_CERT_SESS: u8 = 0x04;
/// The type and the length.
const FIXED: usize = 3;
/// The bits and the result of the verification, at the start of the field about TLS.
pub(super) const SSL_FIXED: usize = 5;
const MAX_UNIQUE_ID: usize = 128;

/// One type-length-value field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tlv<'a> {
    /// The type, `PP2_TYPE_*` of the specification.
    pub kind: u8,
    /// The value.
    pub value: &'a [u8],
    /// The position of the value in the fields.
    pub(super) offset: usize,
}

/// The type-length-value fields of a header, in their order.
#[derive(Debug, Clone)]
pub struct Tlvs<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tlvs<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next field. `Err`: the rest is no whole field.
    fn read_one(&mut self) -> Option<Result<Tlv<'a>, usize>> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let whole = rest.first_chunk::<FIXED>().and_then(|fixed| {
            let value = rest[FIXED..].get(..usize::from(u16::from_be_bytes([fixed[1], fixed[2]])))?;
            Some(Tlv { kind: fixed[0], value, offset: self.at + FIXED })
        });
        let Some(tlv) = whole else { return Some(Err(self.at)) };
        self.at = tlv.offset + tlv.value.len();
        Some(Ok(tlv))
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        self.read_one()?.ok()
    }
}

/// Checks the fields, which begin at this position of the header.
pub(super) fn check(bytes: &[u8], at: usize) -> Result<(), ProxyHeaderError> {
    let mut tlvs = Tlvs::new(bytes);
    while let Some(tlv) = tlvs.read_one() {
        let tlv = tlv.map_err(|offset| {
            ProxyHeaderError::new(at + offset, &bytes[offset..], "a field whose length fits into the header")
        })?;
        let at = at + tlv.offset;
        match tlv.kind {
            CRC32C if tlv.value.len() != 4 => {
                return Err(ProxyHeaderError::number(at - 2, tlv.value.len(), "4, the length of a checksum"));
            }
            UNIQUE_ID if tlv.value.len() > MAX_UNIQUE_ID => {
                return Err(ProxyHeaderError::number(
                    at - 2,
                    tlv.value.len(),
                    "at most 128, the length of a unique id",
                ));
            }
            AUTHORITY if std::str::from_utf8(tlv.value).is_err() => {
                return Err(ProxyHeaderError::new(at, tlv.value, "a host name in UTF-8"));
            }
            SSL => match tlv.value.get(SSL_FIXED..) {
                Some(inner) => check(inner, at + SSL_FIXED)?,
                None => {
                    return Err(ProxyHeaderError::number(
                        at - 2,
                        tlv.value.len(),
                        "at least 5, the length of the field about TLS",
                    ));
                }
            },
            _ => {}
        }
    }
    Ok(())
}

/// The properties of the client's TLS session, as the proxy reports them.
///
/// ```
/// use bowline::proxy::ProxyTls;
///
/// let tls = ProxyTls::new("TLSv1.3").cipher("TLS_AES_128_GCM_SHA256").verified_client("alice");
/// assert_eq!(tls.common_name.as_deref(), Some("alice"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyTls {
    /// The client has connected to the proxy over TLS.
    pub is_tls: bool,
    /// The client has sent a certificate on this connection.
    pub has_certificate: bool,
    /// The client has sent a certificate in this session: on this connection, or on one that this one resumes.
    pub had_certificate: bool,
    /// The client has sent a certificate, and the proxy has verified it.
    pub is_verified: bool,
    /// The version, for example `TLSv1.3`.
    pub version: Option<String>,
    /// The cipher suite. Its name is that of the proxy's TLS library.
    pub cipher: Option<String>,
    /// The common name in the client's certificate.
    pub common_name: Option<String>,
}

impl ProxyTls {
    /// A session of this version, without a client certificate.
    pub fn new(version: impl Into<String>) -> Self {
        Self { is_tls: true, version: Some(version.into()), ..Self::default() }
    }

    /// Sets the cipher suite.
    #[must_use]
    pub fn cipher(mut self, cipher: impl Into<String>) -> Self {
        self.cipher = Some(cipher.into());
        self
    }

    /// Records that the client sent a certificate with this common name and that the proxy verified it.
    #[must_use]
    pub fn verified_client(mut self, common_name: impl Into<String>) -> Self {
        (self.has_certificate, self.had_certificate, self.is_verified) = (true, true, true);
        self.common_name = Some(common_name.into());
        self
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let (fixed, inner) = value.split_first_chunk::<SSL_FIXED>()?;
        let [client, verify @ ..] = *fixed;
        let text = |kind| {
            let field = Tlvs::new(inner).find(|tlv| tlv.kind == kind)?;
            Some(String::from_utf8_lossy(field.value).into_owned())
        };
        let had_certificate = client & (CLIENT_CERT_CONN | CLIENT_CERT_SESS) != 0;
        Some(Self {
            is_tls: client & CLIENT_SSL != 0,
            has_certificate: client & CLIENT_CERT_CONN != 0,
            had_certificate,
            is_verified: had_certificate && verify == [0; 4],
            version: text(SSL_VERSION),
            cipher: text(SSL_CIPHER),
            common_name: text(SSL_CN),
        })
    }
}

impl ProxyHeader {
    /// The type-length-value fields, in their order. A header of version 1 has none.
    pub fn tlvs(&self) -> Tlvs<'_> {
        Tlvs::new(&self.tlvs)
    }

    /// The value of the first field of this type, `PP2_TYPE_*` of the specification.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// The protocol that the client and the proxy have negotiated (ALPN).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(ALPN)
    }

    /// The host name that the client requested, for example in SNI. The client chooses it: escape it before you show
    /// it.
    pub fn authority(&self) -> Option<&str> {
        self.tlv(AUTHORITY).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The proxy's name for this connection, at most 128 bytes.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(UNIQUE_ID)
    }

    /// The properties of the client's TLS session, as the proxy reports them.
    pub fn tls(&self) -> Option<ProxyTls> {
        self.tlv(SSL).and_then(ProxyTls::decode)
    }
}
