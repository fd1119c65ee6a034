//! Ticket keys as bytes for a store, encrypted so that the store alone opens no ticket.
//!
//! ```text
//! version (1) | 0 | name (16) | secret (32)
//! version (1) | 1 | salt (32) | encrypted: name (16), secret (32) | tag (16)
//! ```
//!
//! The name of the value in the store is authenticated too, so a value that was moved to another name is not accepted.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::crypto::{OneUse, Purpose, SALT};
use super::files;
use super::key::{NAME, TicketKey, unusable};
use super::ticket::Crypto;
use crate::config::common::feature_provider;
use crate::config::fail;
use crate::core::engine::library::Library;
use crate::error::{ConfigError, ConfigProblem, Error};

const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const WRAPPED: u8 = 1;
/// The secret of a random key.
const SECRET: usize = 32;

/// A key that encrypts ticket keys in a store, so that a copy of the store alone opens no ticket: see
/// [`TicketRotation::wrap_key`](crate::TicketRotation::wrap_key). Every server needs the same one.
#[derive(Clone)]
pub struct WrapKey(Arc<Zeroizing<[u8; 32]>>);

impl WrapKey {
    /// A key of 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    /// A key from a file of 32 random bytes (`openssl rand 32`).
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): the file cannot be read, or has another length. The caller has to fix this.
    pub fn from_file(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let bytes = files::read(&path)
            .map_err(|error| ConfigError::new(Some(path.clone()), ConfigProblem::Unreadable(Arc::new(error))))?
            .into_bytes();
        match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Ok(Self::new(bytes)),
            Err(_) => {
                let what =
                    format!("a key that wraps them has 32 random bytes (`openssl rand 32`), not {}", bytes.len());
                Err(fail(Some(path), ConfigProblem::BadTicketKeys(what)))
            }
        }
    }
}

impl fmt::Debug for WrapKey {
    /// Shows nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrapKey")
    }
}

/// The cryptography of the enabled feature.
pub(crate) fn feature_crypto() -> Result<Crypto, Error> {
    let provider = feature_provider().ok_or_else(|| fail(None, ConfigProblem::NoProvider))?;
    let library = Library::of_provider(&provider).ok_or_else(|| unusable("the provider is validated by FIPS"))?;
    Ok(Crypto { library, random: provider.secure_random })
}

fn random<const N: usize>(crypto: Crypto) -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    crypto.random.fill(&mut *bytes).map_err(|_| unusable("the system has no random bytes"))?;
    Ok(bytes)
}

impl TicketKey {
    /// A key with a random name and a random secret.
    ///
    /// # Errors
    /// [`ConfigError`](crate::ConfigError): there is no crypto provider of a feature, or the system has no random
    /// bytes.
    pub fn random() -> Result<Self, Error> {
        let crypto = feature_crypto()?;
        Self::new(*random(crypto)?, random::<SECRET>(crypto)?.to_vec())
    }

    /// The key as bytes, for a value with this name in a store.
    pub(crate) fn to_stored(&self, place: &str, wrap: Option<&WrapKey>) -> Result<Vec<u8>, Error> {
        let mut key = Zeroizing::new([&self.name()[..], self.secret()].concat());
        let Some(WrapKey(wrap)) = wrap else { return Ok([&[VERSION, PLAIN], &key[..]].concat()) };
        let crypto = feature_crypto()?;
        let salt = random::<SALT>(crypto)?;
        let one = OneUse { library: crypto.library, secret: &wrap[..], salt: &salt, purpose: Purpose::Wrap };
        let tag = one.seal(&header(place), &mut key).ok_or_else(|| unusable("they cannot be wrapped"))?;
        Ok([&[VERSION, WRAPPED], &salt[..], &key[..], &tag[..]].concat())
    }

    /// Reads the bytes that [`to_stored`](Self::to_stored) has made. The error describes what was found instead.
    pub(crate) fn from_stored(place: &str, wrap: Option<&WrapKey>, stored: &[u8]) -> Result<Self, String> {
        let broken = || "it is not a ticket key".to_owned();
        let key = match (stored, wrap) {
            ([VERSION, PLAIN, key @ ..], None) => Zeroizing::new(key.to_vec()),
            ([VERSION, PLAIN, ..], Some(_)) => {
                return Err("it is not wrapped, and this server accepts only wrapped keys".into());
            }
            ([VERSION, WRAPPED, ..], None) => {
                return Err("it is wrapped, and the server has no key to unwrap it".into());
            }
            ([VERSION, WRAPPED, rest @ ..], Some(WrapKey(wrap))) => {
                let (salt, sealed) = rest.split_first_chunk().ok_or_else(broken)?;
                let crypto = feature_crypto().map_err(|error| error.to_string())?;
                let one = OneUse { library: crypto.library, secret: &wrap[..], salt, purpose: Purpose::Wrap };
                let mut key = Zeroizing::new(sealed.to_vec());
                let opened = one.open(&header(place), &mut key);
                let length = opened.ok_or("it was wrapped with another key or for another name, or it was changed")?;
                Zeroizing::new(key[..length].to_vec())
            }
            ([version, ..], _) if *version > VERSION => return Err(format!("it has version {version}")),
            _ => return Err(broken()),
        };
        let (name, secret) = key.split_first_chunk::<NAME>().ok_or_else(broken)?;
        Self::new(*name, secret).map_err(|error| error.to_string())
    }
}

fn header(place: &str) -> Vec<u8> {
    [&[VERSION, WRAPPED], place.as_bytes()].concat()
}
