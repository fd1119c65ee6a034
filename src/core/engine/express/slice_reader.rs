//! The bytes of one write, which are split into records.

use std::io::IoSlice;

/// The bytes of a list of slices, one slice after the other.
pub(super) struct SliceReader<'a> {
    parts: std::slice::Iter<'a, IoSlice<'a>>,
    part: &'a [u8],
}

impl<'a> SliceReader<'a> {
    pub(super) fn of(parts: &'a [IoSlice<'a>]) -> Self {
        Self { parts: parts.iter(), part: &[] }
    }

    /// Takes the next `len` bytes (at least one) if they are in one slice.
    pub(super) fn take_piece(&mut self, len: usize) -> Option<&'a [u8]> {
        while self.part.is_empty() {
            self.part = self.parts.next()?;
        }
        let (piece, later) = self.part.split_at_checked(len)?;
        self.part = later;
        Some(piece)
    }

    /// Fills `out` with the next bytes.
    pub(super) fn copy_to(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            if self.part.is_empty() {
                let Some(next) = self.parts.next() else { return };
                self.part = next;
            }
            let n = self.part.len().min(out.len());
            let (now, later) = self.part.split_at(n);
            let (to, rest) = out.split_at_mut(n);
            to.copy_from_slice(now);
            (self.part, out) = (later, rest);
        }
    }
}
