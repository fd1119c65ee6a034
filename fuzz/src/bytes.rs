//! Splits the input of a target into numbers and bytes.

/// Numbers and bytes from an input. At its end, all of them are zero.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// A size: mostly small, sometimes more than a record.
    pub fn size(&mut self) -> usize {
        let byte = usize::from(self.byte());
        match byte {
            0..200 => byte,
            _ => (byte - 199) * 1_021,
        }
    }

    /// The next `n` bytes, or all that are left.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        first
    }

    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
