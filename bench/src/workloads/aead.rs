//! The cipher alone: the least that TLS adds to TCP. The provider is the one that bowline and tokio-rustls use.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::Run;
use crate::error::{Result, fail};
use crate::measure::{Mark, Sample};

/// Seals and opens records of `size` in place, in a buffer that stays in the cache.
pub fn run(run: Run, size: usize) -> Result<Sample> {
    let Ok(key) = UnboundKey::new(&AES_128_GCM, &[7; 16]).map(LessSafeKey::new) else {
        return fail("not a key");
    };
    let bytes = run.amount(if size >= 1 << 14 { 1 << 30 } else { 1 << 28 }, 1 << 24);
    let count = bytes / size;
    let mut record = vec![0x5a; size];
    let mark = Mark::now()?;
    for number in 0..count {
        let nonce = || {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&(number as u64).to_be_bytes());
            Nonce::assume_unique_for_key(nonce)
        };
        let header = [0x17, 3, 3, (size >> 8) as u8, size as u8];
        let Ok(tag) = key.seal_in_place_separate_tag(nonce(), Aad::from(header), &mut record) else {
            return fail("not sealed");
        };
        record.extend_from_slice(tag.as_ref());
        if key.open_in_place(nonce(), Aad::from(header), &mut record).is_err() {
            return fail("not opened");
        }
        record.truncate(size);
    }
    mark.sample((count * size) as f64 / f64::from(1 << 30))
}
