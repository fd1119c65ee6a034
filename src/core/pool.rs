//! Memory that goes from one buffer to the next.
//!
//! A connection that is idle holds no buffer, and one that is busy would allocate (and clear) its buffers anew for each
//! event. So what a [`Buffer`](super::buffer::Buffer) lets go is kept for the next one on the same thread: a few pieces,
//! bounded in number and in size, without a lock. What is in them is never shown: a buffer lends what was filled in.

use std::cell::RefCell;

/// The smallest piece that is kept, and the one that is made where nothing else was asked for.
pub(super) const PIECE: usize = 32 << 10;
/// The largest piece that is kept.
const LARGEST: usize = 160 << 10;
/// How many pieces a thread keeps.
const KEPT: usize = 4;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Initialised memory of at least `min` bytes.
pub(super) fn take(min: usize) -> Vec<u8> {
    // The smallest that will do: larger ones are for whoever needs them.
    let kept = |free: &RefCell<Vec<Vec<u8>>>| {
        let mut free = free.borrow_mut();
        // Mostly it is the last one, which the processor has at hand: none is smaller.
        if free.last()?.len() == PIECE && min <= PIECE {
            return free.pop();
        }
        let fit = free.iter().enumerate().filter(|(_, piece)| piece.len() >= min);
        let (n, _) = fit.min_by_key(|(_, piece)| piece.len())?;
        Some(free.swap_remove(n))
    };
    // There is none while the thread ends.
    FREE.try_with(kept).ok().flatten().unwrap_or_else(|| vec![0; min.max(PIECE)])
}

/// Gives memory back.
pub(super) fn give(piece: Vec<u8>) {
    if (PIECE..=LARGEST).contains(&piece.len()) {
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(piece);
            } else if let Some(smallest) = free.iter_mut().min_by_key(|kept| kept.len()) {
                // A larger one is harder to make again.
                if smallest.len() < piece.len() {
                    *smallest = piece;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken_again_and_no_more_than_the_bound_is_kept() {
        for _ in 0..2 * KEPT {
            give(vec![1; PIECE]);
        }
        give(vec![1; LARGEST + 1]);
        give(vec![1; PIECE - 1]);
        let taken: Vec<Vec<u8>> = (0..KEPT).map(|_| take(1)).collect();
        assert!(taken.iter().all(|piece| piece.len() == PIECE && piece[0] == 1));
        assert_eq!(take(10)[0], 0, "more were kept");
    }
}
