//! CRC-32C (Castagnoli), as RFC 9260, appendix A, describes it.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The checksum of these bytes.
pub(super) fn crc32c(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    /// The examples of RFC 7143, appendix A.4.
    #[test]
    fn checksums_of_the_rfc() {
        assert_eq!(super::crc32c([0; 32]), 0x8a91_36aa);
        assert_eq!(super::crc32c([0xff; 32]), 0x62a8_ab43);
        assert_eq!(super::crc32c(0..32), 0x46dd_794e);
        assert_eq!(super::crc32c(*b"123456789"), 0xe306_9283);
    }
}
