//! The bytes that the console sends. However many a peer asks for, they are pieces of a static array, so that none are made
//! before the transport takes them (rule: write-10).

/// The alphabet, 1,024 times.
pub(crate) static PATTERN: [u8; 26 << 10] = pattern();

/// This many bytes of the pattern.
pub(crate) fn pieces(n: u64) -> impl Iterator<Item = &'static [u8]> {
    let length = PATTERN.len() as u64;
    let rest = &PATTERN[..(n % length) as usize];
    (0..n / length).map(|_| PATTERN.as_slice()).chain((!rest.is_empty()).then_some(rest))
}

/// So many parts of so many bytes each, one after the other. The pattern starts anew in each part.
pub(crate) fn parts(parts: u64, n: u64) -> impl Iterator<Item = &'static [u8]> {
    // Empty parts are left out: their number may be anything.
    let parts = if n == 0 { 0 } else { parts };
    (0..parts).flat_map(move |_| pieces(n))
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
