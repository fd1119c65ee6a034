//! Reuses memory between buffers.
//!
//! An idle connection holds no buffer, so a busy one would have to allocate (and clear) its buffers again for each
//! event. Therefore each thread keeps the memory that its [`Buffer`](super::buffer::Buffer)s release, for the next
//! buffer, without a lock. The number of pieces, their size and their total size are limited. Old content is never
//! visible, because a buffer exposes only the bytes that were filled in.

use std::cell::{Cell, RefCell};

/// The smallest piece that is kept, and the default size of a new one: a full record in the size that every peer
/// sends, and the start of the next record.
pub(super) const PIECE: usize = 17 << 10;
/// The largest piece that is kept.
const LARGEST: usize = 160 << 10;
/// The total amount of memory that a thread keeps, besides the last piece of each kind.
const KEPT: usize = 460 << 10;

thread_local! {
    /// The last released piece of the usual size, or nothing. The next event uses it again, while the memory is still
    /// in the processor's cache.
    static LAST: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The same for the other sizes. A read-ahead, for example, needs a larger piece besides the usual one.
    static LAST_LARGER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static FREE: RefCell<Free> = const { RefCell::new(Free { pieces: Vec::new(), bytes: 0 }) };
}

/// The memory that a thread keeps besides the last piece.
struct Free {
    /// The oldest piece is the first one.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
}

impl Free {
    fn take(&mut self, min: usize) -> Option<Vec<u8>> {
        // The newest piece usually fits, and is still in the processor's cache.
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
        // The oldest pieces are dropped first, because their sizes are no longer requested.
        while self.bytes > KEPT {
            self.bytes -= self.pieces.remove(0).len();
        }
    }
}

/// Initialised memory of at least `min` bytes. A much larger piece is not used, because an idle owner would keep all
/// of it.
#[inline]
pub(super) fn take(min: usize) -> Vec<u8> {
    // While the thread ends, its pool no longer exists.
    if min <= PIECE {
        let last = LAST.try_with(Cell::take).unwrap_or_default();
        if !last.is_empty() {
            return last;
        }
    } else {
        let last = LAST_LARGER.try_with(Cell::take).unwrap_or_default();
        if last.len() == min {
            return last;
        }
        give_other(last);
    }
    take_other(min.max(PIECE))
}

#[inline(never)]
fn take_other(min: usize) -> Vec<u8> {
    let kept = FREE.try_with(|free| free.borrow_mut().take(min)).ok().flatten();
    kept.unwrap_or_else(|| vec![0; min])
}

/// Returns memory to the pool.
#[inline]
pub(super) fn give(piece: Vec<u8>) {
    let place = match piece.len() {
        PIECE => &LAST,
        len if (PIECE..=LARGEST).contains(&len) => &LAST_LARGER,
        _ => return,
    };
    let before = place.try_with(|last| last.replace(piece)).unwrap_or_default();
    if !before.is_empty() {
        give_other(before);
    }
}

#[inline(never)]
fn give_other(piece: Vec<u8>) {
    if !piece.is_empty() {
        let _ = FREE.try_with(|free| free.borrow_mut().give(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Vec<usize> {
        give_other(LAST.take());
        give_other(LAST_LARGER.take());
        FREE.with_borrow(|free| free.pieces.iter().map(Vec::len).collect())
    }

    #[test]
    fn released_memory_is_reused_and_no_more_than_the_limit_is_kept() {
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
        give(vec![2; 2 * PIECE]);
        give(vec![3; PIECE]);
        assert_eq!((take(2 * PIECE)[0], take(1)[0]), (2, 3), "both of the last pieces");
        assert!(kept().is_empty());
    }

    #[test]
    fn a_piece_that_is_too_large_is_not_used_and_the_oldest_is_dropped_first() {
        give(vec![1; LARGEST]);
        assert_eq!(take(PIECE)[0], 0);
        assert_eq!(take(LARGEST - 10)[0], 1);
        give(vec![1; LARGEST - 1]);
        (0..KEPT / LARGEST).for_each(|_| give(vec![1; LARGEST]));
        assert_eq!(kept(), vec![LARGEST; KEPT / LARGEST]);
    }
}
