//! The bytes that the console sends. They are pieces of one static array, so that the console allocates nothing,
//! however many bytes a peer asks for (rule: write-10).

/// The alphabet, 1,024 times.
pub(crate) static PATTERN: [u8; 26 << 10] = pattern();

/// Returns this many bytes of the pattern.
pub(crate) fn pieces(n: u64) -> impl Iterator<Item = &'static [u8]> {
    let length = PATTERN.len() as u64;
    let rest = &PATTERN[..(n % length) as usize];
    (0..n / length).map(|_| PATTERN.as_slice()).chain((!rest.is_empty()).then_some(rest))
}

/// This many parts of this many bytes each, one after the other. The pattern starts again in each part.
fn parts(parts: u64, n: u64) -> impl Iterator<Item = &'static [u8]> {
    // Empty parts are left out, because their number is not limited.
    let parts = if n == 0 { 0 } else { parts };
    (0..parts).flat_map(move |_| pieces(n))
}

/// The most slices of one write sequence. If the peer asks for more parts, several parts share a slice; such parts are
/// short.
const MAX_SLICES: u64 = 1 << 16;

/// The parts of a write sequence.
pub(crate) struct Sequence {
    parts: u64,
    n: u64,
    /// Several parts in one slice, which is sent `times` times.
    slice: Vec<u8>,
    times: u64,
    /// The remaining parts.
    rest: Vec<u8>,
}

impl Sequence {
    pub(crate) fn new(count: u64, n: u64) -> Self {
        let in_one = count.div_ceil(MAX_SLICES);
        if in_one <= 1 || n == 0 {
            return Self { parts: count, n, slice: Vec::new(), times: 0, rest: Vec::new() };
        }
        let together = |count| parts(count, n).collect::<Vec<_>>().concat();
        Self { parts: 0, n, slice: together(in_one), times: count / in_one, rest: together(count % in_one) }
    }

    pub(crate) fn slices<'a>(&'a self) -> impl Iterator<Item = &'a [u8]> {
        let rest = (!self.rest.is_empty()).then_some(self.rest.as_slice());
        let alone = parts(self.parts, self.n).map(|part| -> &'a [u8] { part });
        alone.chain((0..self.times).map(|_| self.slice.as_slice())).chain(rest)
    }
}

const fn pattern() -> [u8; 26 << 10] {
    let mut bytes = [0; 26 << 10];
    let mut n = 0;
    while n < bytes.len() {
        bytes[n] = b'a' + (n % 26) as u8;
        n += 1;
    }
    bytes
}
