//! Finds the library that implements the AEAD of a cipher suite, or all cryptography of a provider.

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;

/// All lists that contain rustls's suites of a provider. All are searched, because the compiler may have put separate
/// copies of the suites into each list.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
macro_rules! own_suites {
    ($provider:ident) => {{
        use rustls::crypto::$provider::{ALL_CIPHER_SUITES, DEFAULT_CIPHER_SUITES, cipher_suite as one};
        let named = [
            one::TLS13_AES_128_GCM_SHA256,
            one::TLS13_AES_256_GCM_SHA384,
            one::TLS13_CHACHA20_POLY1305_SHA256,
            one::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            one::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            one::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            one::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            one::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            one::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        DEFAULT_CIPHER_SUITES.iter().chain(ALL_CIPHER_SUITES).copied().chain(named)
    }};
}

/// The library that implements a suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    #[cfg(feature = "aws-lc-rs")]
    AwsLc,
    #[cfg(feature = "ring")]
    Ring,
}

impl Library {
    /// The library of a suite. It is known only for the suites of rustls itself, in any provider. FIPS validates how
    /// rustls calls the library, so for validated suites rustls makes the calls, and this is `None`.
    pub(crate) fn of(suite: SupportedCipherSuite) -> Option<Self> {
        if suite.fips() {
            return None;
        }
        #[cfg(feature = "aws-lc-rs")]
        if own_suites!(aws_lc_rs).any(|own| is_same(suite, own)) {
            return Some(Self::AwsLc);
        }
        #[cfg(feature = "ring")]
        if own_suites!(ring).any(|own| is_same(suite, own)) {
            return Some(Self::Ring);
        }
        None
    }

    /// The library that implements all suites of a provider. `None` if there is a suite of the application, or one for
    /// which FIPS validates the calls of rustls.
    pub(crate) fn of_provider(provider: &CryptoProvider) -> Option<Self> {
        let mut libraries = provider.cipher_suites.iter().map(|suite| Self::of(*suite));
        let first = libraries.next()??;
        libraries.all(|other| other == Some(first)).then_some(first)
    }

    /// Whether the plaintext can be written to another buffer. ring can only open in place.
    #[cfg(feature = "express")]
    pub(crate) fn opens_elsewhere(self) -> bool {
        match self {
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLc => true,
            #[cfg(feature = "ring")]
            Self::Ring => false,
        }
    }
}

/// Compares the address of the suite, not its number, because a suite of the application may have the same number.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
fn is_same(suite: SupportedCipherSuite, own: SupportedCipherSuite) -> bool {
    use SupportedCipherSuite::{Tls12, Tls13};
    match (suite, own) {
        (Tls13(suite), Tls13(own)) => std::ptr::eq(suite, own),
        (Tls12(suite), Tls12(own)) => std::ptr::eq(suite, own),
        (Tls13(_), Tls12(_)) | (Tls12(_), Tls13(_)) => false,
    }
}
