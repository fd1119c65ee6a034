//! The passphrase of an encrypted private key (PKCS#8, RFC 5958 section 3; PBES2, RFC 8018 section 6.2).

use std::fmt;

#[cfg(feature = "encrypted-keys")]
use der::{ErrorKind, Tag};
#[cfg(feature = "encrypted-keys")]
use pkcs8::{
    EncryptedPrivateKeyInfoRef,
    pkcs5::{self, EncryptionScheme, pbes2::Kdf},
};
use rustls::pki_types::PrivatePkcs8KeyDer;
#[cfg(feature = "encrypted-keys")]
use zeroize::Zeroizing;

#[cfg(feature = "encrypted-keys")]
use crate::certificate::{first, id_text, inside};
use crate::error::ConfigProblem;

/// The passphrase, if one was set.
#[derive(Clone, Default)]
pub(super) struct Passphrase {
    #[cfg(feature = "encrypted-keys")]
    text: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Passphrase {
    /// Does not show the passphrase.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_some() { "[secret]" } else { "None" })
    }
}

#[cfg(feature = "encrypted-keys")]
impl Passphrase {
    pub(super) fn new(text: Vec<u8>) -> Self {
        Self { text: Some(Zeroizing::new(text)) }
    }

    pub(super) fn is_some(&self) -> bool {
        self.text.is_some()
    }

    /// Decrypts a key with the PEM label `ENCRYPTED PRIVATE KEY`.
    pub(super) fn decrypt(&self, der: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, ConfigProblem> {
        let text = self.text.as_ref().ok_or(ConfigProblem::EncryptedKey)?;
        let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|error| unreadable(der, &error))?;
        check_cost(&encrypted.encryption_algorithm)?;
        match encrypted.decrypt(text) {
            Ok(key) => Ok(key.as_bytes().to_vec().into()),
            Err(pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::UnsupportedAlgorithm { oid })) => {
                Err(unsupported(&oid))
            }
            Err(pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::NoPbes1CryptSupport)) => Err(unsupported(&"PBES1")),
            Err(pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::AlgorithmParametersInvalid { .. })) => {
                Err(unusable("the parameters of its encryption are not valid"))
            }
            // A wrong passphrase produces wrong padding, or bytes that are not DER. A damaged ciphertext does the same.
            Err(_) => Err(ConfigProblem::WrongPassphrase),
        }
    }
}

#[cfg(not(feature = "encrypted-keys"))]
impl Passphrase {
    #[allow(clippy::unused_self)]
    pub(super) fn is_some(&self) -> bool {
        false
    }

    #[allow(clippy::unused_self)]
    pub(super) fn decrypt(&self, _: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, ConfigProblem> {
        Err(ConfigProblem::EncryptedKey)
    }
}

/// Limits the memory for scrypt, because the file chooses it. OpenSSL uses 16 MiB by default, and allows up to 32 MiB.
#[cfg(feature = "encrypted-keys")]
fn check_cost(algorithm: &EncryptionScheme) -> Result<(), ConfigProblem> {
    const MOST: u64 = 1 << 30;
    let EncryptionScheme::Pbes2(parameters) = algorithm else { return Ok(()) };
    let Kdf::Scrypt(scrypt) = &parameters.kdf else { return Ok(()) };
    let memory = scrypt.cost_parameter.saturating_mul(128 * u64::from(scrypt.block_size));
    match memory <= MOST {
        true => Ok(()),
        false => Err(unusable("its scrypt parameters need more than 1 GiB of memory")),
    }
}

/// The error for a header with an algorithm that the crate `pkcs8` does not know.
#[cfg(feature = "encrypted-keys")]
fn unreadable(der: &[u8], error: &pkcs8::Error) -> ConfigProblem {
    const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13];
    let scheme = first(der).and_then(|(key, _)| first(inside(key, Tag::Sequence)?));
    let scheme = scheme.and_then(|(scheme, _)| inside(first(inside(scheme, Tag::Sequence)?)?.0, Tag::ObjectIdentifier));
    match (scheme, error) {
        (Some(scheme), _) if scheme != PBES2 => unsupported(&id_text(scheme)),
        (_, pkcs8::Error::Asn1(error)) => match error.kind() {
            ErrorKind::OidUnknown { oid } => unsupported(&oid),
            _ => unusable("it is not the DER of an encrypted key"),
        },
        _ => unusable("it is not the DER of an encrypted key"),
    }
}

#[cfg(feature = "encrypted-keys")]
fn unsupported(algorithm: &dyn fmt::Display) -> ConfigProblem {
    let convert = "convert it with `openssl pkcs8 -topk8 -v2 aes-256-cbc`";
    ConfigProblem::UnusableKey(format!("it is encrypted by {algorithm}, which is not supported: {convert}"))
}

#[cfg(feature = "encrypted-keys")]
fn unusable(why: &str) -> ConfigProblem {
    ConfigProblem::UnusableKey(why.into())
}
