//! Compares two configurations: were they made from the same contents?

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;

/// A hash of the contents from which a configuration was made. Its keys are chosen once for each process, so nobody can
/// prepare two contents with the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn of(contents: impl Hash) -> Self {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        Self(KEYS.get_or_init(RandomState::new).hash_one(contents))
    }
}
