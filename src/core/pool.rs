//! Memory that is passed from one buffer to the next.
//!
//! An idle connection holds no buffer, so a busy one would allocate (and clear) its buffers anew for each event. Therefore
//! the memory that a [`Buffer`](super::buffer::Buffer) releases is kept for the next buffer on the same thread, without a
//! lock. The number, the size and the sum of the pieces are bounded. Old content is never shown: a buffer lends only the
//! bytes that were filled in.

use std::cell::RefCell;

/// The smallest piece that is kept, and the size that is made if no other was asked for: a full record in the size that
/// every peer seals, and the start of the next.
pub(super) const PIECE: usize = 17 << 10;
/// The largest piece that is kept.
const LARGEST: usize = 160 << 10;
/// How much memory a thread keeps.
const KEPT: usize = 640 << 10;

thread_local! {
    static FREE: RefCell<Free> = const { RefCell::new(Free { pieces: Vec::new(), bytes: 0 }) };
}

/// The memory that a thread keeps.
struct Free {
    /// The oldest first.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Free {
    fn take(&mut self, min: usize) -> Option<Vec<u8>> {
        // The last one usually fits, and it is still in the processor's cache.
        let piece = if self.pieces.last()?.len() == min {
            self.pieces.pop()?
        } else {
            let n = self.pieces.iter().rposition(|piece| (min..=min + min / 4).contains(&piece.len()))?;
            self.pieces.remove(n)
        };
        self.bytes -= piece.len();
        Some(piece)
    }

    fn give(&mut self, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.push(piece);
        // Sizes that are no longer requested are dropped first.
        while self.bytes > KEPT {
            self.bytes -= self.pieces.remove(0).len();
        }
    }
}

/// Initialised memory of at least `min` bytes. Much larger pieces are not handed out, because an idle owner would keep
/// them.
pub(super) fn take(min: usize) -> Vec<u8> {
    let min = min.max(PIECE);
    // The pool is gone while the thread ends.
    let kept = FREE.try_with(|free| free.borrow_mut().take(min)).ok().flatten();
    kept.unwrap_or_else(|| vec![0; min])
}

/// Gives memory back.
pub(super) fn give(piece: Vec<u8>) {
    if (PIECE..=LARGEST).contains(&piece.len()) {
        let _ = FREE.try_with(|free| free.borrow_mut().give(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Vec<usize> {
        FREE.with_borrow(|free| free.pieces.iter().map(Vec::len).collect())
    }

    #[test]
    fn what_is_given_is_taken_again_and_no_more_than_the_bound_is_kept() {
        for _ in 0..2 * KEPT / PIECE {
            give(vec![1; PIECE]);
        }
        give(vec![1; LARGEST + 1]);
        give(vec![1; PIECE - 1]);
        let most = KEPT / PIECE;
        assert_eq!(kept(), vec![PIECE; most]);
        let taken: Vec<Vec<u8>> = (0..most).map(|_| take(1)).collect();
        assert!(taken.iter().all(|piece| piece.len() == PIECE && piece[0] == 1));
        assert_eq!(take(10)[0], 0, "more were kept");
    }

    #[test]
    fn a_piece_that_is_much_too_large_is_left_for_others_and_the_oldest_goes_first() {
        give(vec![1; LARGEST]);
        assert_eq!(take(PIECE)[0], 0);
        assert_eq!(take(LARGEST - 10)[0], 1);
        give(vec![1; LARGEST - 1]);
        (0..KEPT / LARGEST).for_each(|_| give(vec![1; LARGEST]));
        assert_eq!(kept(), vec![LARGEST; KEPT / LARGEST]);
    }
}
