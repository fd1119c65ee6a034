//! The properties of a certificate to be issued.

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SignatureAlgorithm,
};
use time::{Duration, OffsetDateTime};

use super::distinguished_name;

/// The kinds of keys that rustls verifies and that this module can make. With the feature `ring` alone, it can make
/// keys of the kinds P-256, P-384 and Ed25519; making another kind panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum KeyKind {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521. The provider of the feature `ring` neither signs with it nor verifies it.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
    /// RSA with 2048 bits. Making an RSA key takes at least a tenth of a second.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits. Making one may take seconds.
    Rsa4096,
}

impl KeyKind {
    /// The kinds that this module can make with the enabled features.
    pub const ALL: &'static [Self] = if cfg!(feature = "aws-lc-rs") {
        &[Self::EcdsaP256, Self::EcdsaP384, Self::EcdsaP521, Self::Ed25519, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096]
    } else {
        &[Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519]
    };

    pub(super) fn generate(self) -> KeyPair {
        match self {
            Self::EcdsaP256 => generate(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => generate(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Ed25519 => generate(&rcgen::PKCS_ED25519),
            #[cfg(feature = "aws-lc-rs")]
            Self::EcdsaP521 => generate(&rcgen::PKCS_ECDSA_P521_SHA512),
            #[cfg(feature = "aws-lc-rs")]
            Self::Rsa2048 => generate_rsa(rcgen::RsaKeySize::_2048),
            #[cfg(feature = "aws-lc-rs")]
            Self::Rsa3072 => generate_rsa(rcgen::RsaKeySize::_3072),
            #[cfg(feature = "aws-lc-rs")]
            Self::Rsa4096 => generate_rsa(rcgen::RsaKeySize::_4096),
            #[cfg(not(feature = "aws-lc-rs"))]
            _ => panic!("{self:?}: ring makes no key of this kind; enable the feature aws-lc-rs"),
        }
    }
}

fn generate(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("rcgen makes keys of this kind with both providers")
}

#[cfg(feature = "aws-lc-rs")]
fn generate_rsa(size: rcgen::RsaKeySize) -> KeyPair {
    KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size).expect("rcgen makes RSA keys with aws-lc-rs")
}

/// The properties of a certificate that [`Pki::issue`](super::Pki::issue) makes. A new profile is valid: from yesterday
/// and for a year, issued by the intermediate, with a key on P-256. Each method changes one property.
#[derive(Debug, Clone)]
#[must_use = "a profile does nothing until it is issued"]
pub struct Profile {
    purpose: Purpose,
    names: Vec<String>,
    uris: Vec<String>,
    validity: Validity,
    marked_as_ca: bool,
    pub(super) key: KeyKind,
    pub(super) signer: Signer,
    pub(super) revoked: bool,
    pub(super) without_intermediate: bool,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    Server,
    Client,
}

#[derive(Debug, Clone, Copy)]
enum Validity {
    Now,
    UntilYesterday,
    FromTomorrow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    Intermediate,
    OtherCa,
    Itself,
}

const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Profile {
    /// A server with these DNS names and IP addresses. Without names: `localhost`, `127.0.0.1` and `::1`.
    pub fn server(names: &[&str]) -> Self {
        Self::new(Purpose::Server, if names.is_empty() { &DEFAULT_NAMES } else { names })
    }

    /// A client with this common name.
    pub fn client(name: &str) -> Self {
        Self::new(Purpose::Client, &[name])
    }

    fn new(purpose: Purpose, names: &[&str]) -> Self {
        Self {
            purpose,
            names: names.iter().map(ToString::to_string).collect(),
            uris: Vec::new(),
            validity: Validity::Now,
            marked_as_ca: false,
            key: KeyKind::default(),
            signer: Signer::Intermediate,
            revoked: false,
            without_intermediate: false,
        }
    }

    /// Makes a certificate with a key of this kind.
    pub fn key(mut self, kind: KeyKind) -> Self {
        self.key = kind;
        self
    }

    /// With this URI among the subject alternative names, for example a SPIFFE id. May be called several times.
    pub fn uri(mut self, uri: &str) -> Self {
        self.uris.push(uri.to_owned());
        self
    }

    /// Makes a certificate that expired yesterday.
    pub fn expired(mut self) -> Self {
        self.validity = Validity::UntilYesterday;
        self
    }

    /// Makes a certificate that is valid from tomorrow.
    pub fn not_yet_valid(mut self) -> Self {
        self.validity = Validity::FromTomorrow;
        self
    }

    /// Revoked: the next call of [`Pki::crl_pem`](super::Pki::crl_pem) lists it.
    pub fn revoked(mut self) -> Self {
        self.revoked = true;
        self
    }

    /// Issued by a CA that no peer trusts.
    pub fn other_ca(mut self) -> Self {
        self.signer = Signer::OtherCa;
        self
    }

    /// Makes a self-signed certificate.
    pub fn self_signed(mut self) -> Self {
        self.signer = Signer::Itself;
        self
    }

    /// Marked as a CA certificate, as `openssl req -x509` does with a self-signed certificate.
    pub fn marked_as_ca(mut self) -> Self {
        self.marked_as_ca = true;
        self
    }

    /// With a chain that lacks the intermediate: the most common mistake in a server's configuration.
    pub fn without_intermediate(mut self) -> Self {
        self.without_intermediate = true;
        self
    }

    /// The stem of the file names.
    pub(super) fn stem(&self) -> &'static str {
        match self.purpose {
            Purpose::Server => "server",
            Purpose::Client => "client",
        }
    }

    pub(super) fn params(&self) -> CertificateParams {
        let (alternative_names, usage) = match self.purpose {
            Purpose::Server => (self.names.clone(), ExtendedKeyUsagePurpose::ServerAuth),
            Purpose::Client => (Vec::new(), ExtendedKeyUsagePurpose::ClientAuth),
        };
        let mut params =
            CertificateParams::new(alternative_names).expect("the name of a server is ASCII, or an IP address");
        let uri = |uri: &String| SanType::URI(uri.as_str().try_into().expect("a URI is ASCII"));
        params.subject_alt_names.extend(self.uris.iter().map(uri));
        (params.not_before, params.not_after) = self.validity.period();
        params.distinguished_name = distinguished_name(&self.names[0]);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        if self.marked_as_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        params
    }
}

impl Validity {
    fn period(self) -> (OffsetDateTime, OffsetDateTime) {
        let (yesterday, tomorrow) =
            (OffsetDateTime::now_utc() - Duration::DAY, OffsetDateTime::now_utc() + Duration::DAY);
        match self {
            Self::Now => (yesterday, yesterday + Duration::days(365)),
            Self::UntilYesterday => (yesterday - Duration::days(30), yesterday),
            Self::FromTomorrow => (tomorrow, tomorrow + Duration::days(365)),
        }
    }
}
