//! Encryption with a key that is derived for one use: HKDF with SHA-256 (RFC 5869), and AES-256-GCM.
//!
//! rustls's providers have no general AEAD, so the library of the provider is called directly. Both libraries give the
//! same results, so servers with different libraries can share keys.

#![cfg_attr(not(any(feature = "aws-lc-rs", feature = "ring")), allow(dead_code, unused_variables))]

use crate::core::engine::library::Library;

/// The length of the salt. The salt is random, so each use has a key of its own, and a nonce is never used twice with
/// one key.
pub(super) const SALT: usize = 32;
/// The length of the authentication tag.
pub(super) const TAG: usize = 16;

const KEY: usize = 32;
const NONCE: usize = 12;

/// The purpose of a derived key. The keys of two purposes are independent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Ticket,
    #[cfg(feature = "tokio")]
    Wrap,
}

impl Purpose {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Ticket => b"bowline ticket 1",
            #[cfg(feature = "tokio")]
            Self::Wrap => b"bowline ticket key 1",
        }
    }
}

/// The key of one use.
pub(super) struct OneUse<'a> {
    pub(super) library: Library,
    pub(super) secret: &'a [u8],
    pub(super) salt: &'a [u8; SALT],
    pub(super) purpose: Purpose,
}

impl OneUse<'_> {
    /// Encrypts in place and returns the tag. `header` is authenticated too.
    pub(super) fn seal(&self, header: &[u8], in_place: &mut [u8]) -> Option<[u8; TAG]> {
        match self.library {
            #[cfg(feature = "aws-lc-rs")]
            Library::AwsLc => aws_lc::seal(self, header, in_place),
            #[cfg(feature = "ring")]
            Library::Ring => with_ring::seal(self, header, in_place),
        }
    }

    /// Decrypts the bytes before the tag in place, and returns their number. `None`: the key or the header is another
    /// one, or a byte was changed.
    pub(super) fn open(&self, header: &[u8], in_place: &mut [u8]) -> Option<usize> {
        match self.library {
            #[cfg(feature = "aws-lc-rs")]
            Library::AwsLc => aws_lc::open(self, header, in_place),
            #[cfg(feature = "ring")]
            Library::Ring => with_ring::open(self, header, in_place),
        }
    }
}

/// The calls of a library. The interfaces of the two libraries are the same.
#[cfg(any(feature = "aws-lc-rs", feature = "ring"))]
macro_rules! calls {
    ($name:ident, $library:ident) => {
        mod $name {
            use $library::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
            use $library::hkdf::{HKDF_SHA256, KeyType, Salt};

            use zeroize::Zeroizing;

            use super::{KEY, NONCE, OneUse, TAG};

            /// A key and a nonce.
            struct Both;

            impl KeyType for Both {
                fn len(&self) -> usize {
                    KEY + NONCE
                }
            }

            fn derive(of: &OneUse<'_>) -> Option<(LessSafeKey, Nonce)> {
                let mut derived = Zeroizing::new([0; KEY + NONCE]);
                let info = [of.purpose.label()];
                let extracted = Salt::new(HKDF_SHA256, of.salt).extract(of.secret);
                extracted.expand(&info, Both).ok()?.fill(&mut *derived).ok()?;
                let (key, nonce) = derived.split_at(KEY);
                let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
                Some((LessSafeKey::new(key), Nonce::try_assume_unique_for_key(nonce).ok()?))
            }

            pub(super) fn seal(of: &OneUse<'_>, header: &[u8], in_place: &mut [u8]) -> Option<[u8; TAG]> {
                let (key, nonce) = derive(of)?;
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(header), in_place).ok()?;
                tag.as_ref().try_into().ok()
            }

            pub(super) fn open(of: &OneUse<'_>, header: &[u8], in_place: &mut [u8]) -> Option<usize> {
                let (key, nonce) = derive(of)?;
                key.open_in_place(nonce, Aad::from(header), in_place).ok().map(|plain| plain.len())
            }
        }
    };
}

#[cfg(feature = "aws-lc-rs")]
calls!(aws_lc, aws_lc_rs);
#[cfg(feature = "ring")]
calls!(with_ring, ring);
