//! Avoids slow copies when rustls copies opened plaintext.
//!
//! rustls opens a record in its input buffer, and copies the plaintext to a new allocation. The C library copies this
//! much with `rep movsb` (glibc before 2.39 does so on all processors that report it as fast). On AMD's Zen 3 and Zen
//! 4, such a copy takes 15 times as long (4.6 us for a record, not 0.3 us) if the target's offset in its page is 1 to
//! 15 bytes larger than the source's. An allocation right after a buffer of whole pages has such an offset, because of
//! the allocator's header of 16 bytes. While a connection is busy, neither the source nor the target moves, so either
//! every record is slow or none is.
//!
//! The addresses show which case it is. If records are slow, a small allocation is placed where the last plaintext was,
//! so that the next plaintext gets another address.

/// The processor compares addresses modulo this size.
const PAGE: usize = 4096;
/// The bytes of a record before its plaintext: its header, and in TLS 1.2 an explicit nonce of 8 bytes.
const BEFORE: std::ops::RangeInclusive<usize> = 5..=13;
/// The distances from source to target, modulo the page size, at which a copy is slow.
const SLOW: std::ops::RangeInclusive<usize> = 1..=15;
/// The smallest slow copy. Smaller copies use other instructions.
const LEAST: usize = 2 << 10;
/// The size of the allocation that is kept: enough to move the next target out of the slow distances.
const SIZE: usize = 64;

/// Tracks the addresses at which a session of rustls keeps its records.
#[derive(Default)]
pub(super) struct CopyAlignment {
    /// The start of the buffer that received the last record.
    source: usize,
    /// The length of the plaintext that was copied slowly, until it is freed.
    slow: usize,
    held: Vec<u8>,
}

impl CopyAlignment {
    /// Called when rustls has read a record to this address, after this many bytes that it already had.
    pub(super) fn note_source(&mut self, place: usize, ahead: usize) {
        self.source = place.wrapping_sub(ahead);
    }

    /// Called when rustls has copied the plaintext of the record to this slice.
    pub(super) fn note_target(&mut self, plaintext: &[u8]) {
        let is_slow = plaintext.len() >= LEAST && is_slow(self.source, plaintext.as_ptr() as usize);
        self.slow = if is_slow { plaintext.len() } else { 0 };
    }

    /// Called when that plaintext has just been freed.
    pub(super) fn note_freed(&mut self) {
        if self.slow > 0 {
            self.take_place();
        }
    }

    #[cold]
    fn take_place(&mut self) {
        // The plaintext was just freed, and an allocator usually gives its place to the next allocation of the same
        // size.
        let mut held = Vec::with_capacity(std::mem::take(&mut self.slow));
        held.shrink_to(SIZE);
        self.held = held;
    }
}

fn is_slow(source: usize, target: usize) -> bool {
    let distance = target.wrapping_sub(source) % PAGE;
    cfg!(target_arch = "x86_64") && (BEFORE.start() + SLOW.start()..=BEFORE.end() + SLOW.end()).contains(&distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_just_after_its_source_within_the_page_is_slow() {
        let source = 5 * PAGE + 4000;
        for (distance, slow) in [(0, false), (5, false), (6, true), (16, true), (28, true), (29, false), (2048, false)]
        {
            for pages in [0, 1, 7] {
                let is_slow = is_slow(source, source + distance + pages * PAGE);
                assert_eq!(is_slow, slow && cfg!(target_arch = "x86_64"), "{distance}");
            }
        }
        assert!(!is_slow(source, source - 16));
    }

    #[test]
    fn only_a_large_slow_plaintext_makes_the_spacer_hold_a_little_memory() {
        let page = vec![0; 3 * PAGE];
        for (len, distance, holds) in [(LEAST, 16, true), (LEAST - 1, 16, false), (LEAST, 1000, false)] {
            let mut alignment = CopyAlignment::default();
            alignment.note_source(page[1..].as_ptr() as usize, 1);
            alignment.note_target(&page[distance..][..len]);
            alignment.note_freed();
            let held = alignment.held.capacity();
            assert_eq!(held > 0, holds && cfg!(target_arch = "x86_64"), "{len} {distance}");
            assert!(held <= SIZE);
        }
    }
}
