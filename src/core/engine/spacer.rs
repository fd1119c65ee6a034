//! Keeps the copies that rustls makes of opened plaintext from being slow.
//!
//! rustls opens a record in its input buffer and copies the plaintext to a new allocation. The C library copies such sizes by `rep
//! movsb` (glibc before 2.39 does so on all processors that promise to be fast at it). On AMD's Zen 3 and Zen 4 that takes 15
//! times as long if the target lies 1 to 15 bytes after the source, both counted within their pages: 4.6 us for a record, not
//! 0.3. An allocation that follows a buffer of whole pages lies so, by the allocator's header of 16 bytes. While a connection is
//! busy, neither of the two moves: every record is slow, or none is.
//!
//! Addresses tell which. If records are slow, a small allocation is put where the last plaintext was, so that the next one goes
//! elsewhere.

/// The addresses repeat at this distance, for the processor.
const PAGE: usize = 4096;
/// The bytes of a record before its plaintext: its header, and in TLS 1.2 an explicit nonce of 8 bytes.
const BEFORE: std::ops::RangeInclusive<usize> = 5..=13;
/// A target that lies up to this many bytes after its source is slow.
const SLOW: std::ops::RangeInclusive<usize> = 1..=15;
/// Smaller copies use other instructions.
const LEAST: usize = 2 << 10;
/// How much stays allocated: enough to move the next target out of the slow distances.
const SIZE: usize = 64;

/// Watches where a session of rustls keeps its records.
#[derive(Default)]
pub(super) struct Spacer {
    /// The start of the buffer that received the last record.
    source: usize,
    /// The length of the plaintext that was copied slowly, until it is freed.
    slow: usize,
    held: Vec<u8>,
}

impl Spacer {
    /// rustls reads a record into this place, after this many bytes that it already has.
    pub(super) fn note_source(&mut self, place: usize, ahead: usize) {
        self.source = place.wrapping_sub(ahead);
    }

    /// rustls has put the plaintext of the record here.
    pub(super) fn note_target(&mut self, plaintext: &[u8]) {
        let is_slow = plaintext.len() >= LEAST && is_slow(self.source, plaintext.as_ptr() as usize);
        self.slow = if is_slow { plaintext.len() } else { 0 };
    }

    /// That plaintext has just been freed.
    pub(super) fn note_freed(&mut self) {
        if self.slow > 0 {
            self.take_place();
        }
    }

    #[cold]
    fn take_place(&mut self) {
        // An allocator reuses the piece of the same size that was freed last.
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
            let mut spacer = Spacer::default();
            spacer.note_source(page[1..].as_ptr() as usize, 1);
            spacer.note_target(&page[distance..][..len]);
            spacer.note_freed();
            let held = spacer.held.capacity();
            assert_eq!(held > 0, holds && cfg!(target_arch = "x86_64"), "{len} {distance}");
            assert!(held <= SIZE);
        }
    }
}
