//! The kinds of sections in a PEM text, and the error messages for sections of a wrong kind.

use super::sections::Section;

/// The kind of section that a caller wants from a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Certificates,
    RevocationLists,
    Key,
}

/// The kind of a section, from its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Certificate,
    /// A certificate followed by OpenSSL's own data.
    TrustedCertificate,
    Request,
    /// It may hold certificates and lists.
    Pkcs7,
    RevocationList,
    PrivateKey,
    PublicKey,
    Parameters,
    Other,
}

impl Kind {
    pub(super) fn of(section: &Section<'_>) -> Self {
        match section.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => Self::Certificate,
            "TRUSTED CERTIFICATE" => Self::TrustedCertificate,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Request,
            "PKCS7" | "CMS" | "PKCS #7 SIGNED DATA" | "CERTIFICATE CHAIN" => Self::Pkcs7,
            "X509 CRL" | "CRL" => Self::RevocationList,
            label if label.ends_with("PRIVATE KEY") => Self::PrivateKey,
            label if label.ends_with("PUBLIC KEY") => Self::PublicKey,
            label if label.ends_with("PARAMETERS") => Self::Parameters,
            _ => Self::Other,
        }
    }

    /// The kind in words, for a message.
    fn told(self, label: &str) -> String {
        match self {
            Self::Certificate => "a certificate".into(),
            Self::TrustedCertificate => {
                "a TRUSTED CERTIFICATE, a format of OpenSSL: convert it with `openssl x509`".into()
            }
            Self::Request => "a certificate request: use the certificate that the CA has issued for it".into(),
            Self::Pkcs7 => "PKCS#7: convert it with `openssl pkcs7 -print_certs`".into(),
            Self::RevocationList => "a list of revoked certificates".into(),
            Self::PrivateKey => "a private key".into(),
            Self::PublicKey => "a public key".into(),
            Self::Parameters => "parameters of a key".into(),
            Self::Other => format!("\"{label}\""),
        }
    }
}

/// An error if the section holds the wanted item in a form that we do not read. Such a section must not be skipped
/// (rule: secure-12).
pub(super) fn unread(section: &Section<'_>, wanted: Wanted) -> Option<String> {
    let kind = Kind::of(section);
    let is_lost = match kind {
        Kind::TrustedCertificate => wanted == Wanted::Certificates,
        Kind::Pkcs7 => wanted != Wanted::Key,
        Kind::Certificate
        | Kind::Request
        | Kind::RevocationList
        | Kind::PrivateKey
        | Kind::PublicKey
        | Kind::Parameters
        | Kind::Other => false,
    };
    is_lost.then(|| format!("this is {}", kind.told(&section.label)))
}

/// Describes a text that does not hold the wanted item.
pub(super) fn found_instead(text: &[u8], sections: &[Section<'_>], wanted: Wanted) -> String {
    let Some(first) = sections.iter().find(|section| Kind::of(section) != Kind::Parameters).or(sections.first()) else {
        return nothing_in(text).into();
    };
    let kind = Kind::of(first);
    let swapped = match (wanted, kind) {
        (Wanted::Certificates, Kind::PrivateKey) | (Wanted::Key, Kind::Certificate) => " (are the two files swapped?)",
        _ => "",
    };
    format!("line {} begins {}{swapped}", first.line, kind.told(&first.label))
}

fn nothing_in(text: &[u8]) -> &'static str {
    let text = text.trim_ascii();
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(byte);
    match text {
        [] => "it is empty",
        [b'M', b'I', ..] if text.iter().all(is_base64) => "it is base64 without a BEGIN and an END line",
        _ => "it is a text without a BEGIN line",
    }
}
