//! Reads the vectors and extensions of a hello (RFC 8446 sections 3.4 and 4.2).

/// Takes the first `n` bytes.
pub(in crate::core) fn take<'a>(from: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(n)?;
    *from = rest;
    Some(taken)
}

/// Reads a length field of `width` bytes, and returns the bytes that follow it.
pub(in crate::core) fn vector<'a>(from: &mut &'a [u8], width: usize) -> Option<&'a [u8]> {
    let len = take(from, width)?.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    take(from, len)
}

/// The extensions of a hello: the type and the content of each. An item is `None` if the list is malformed; it is the
/// last one then.
pub(in crate::core) struct Extensions<'a>(pub(in crate::core) &'a [u8]);

impl Extensions<'_> {
    pub(in crate::core) const SERVER_NAME: u16 = 0;
    pub(in crate::core) const GROUPS: u16 = 10;
    pub(in crate::core) const SIGNATURE_SCHEMES: u16 = 13;
    pub(in crate::core) const ALPN: u16 = 16;
    pub(in crate::core) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(in crate::core) const VERSIONS: u16 = 43;
    pub(in crate::core) const ECH: u16 = 0xfe0d;
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut rest = std::mem::take(&mut self.0);
        Some((|| {
            let kind = take(&mut rest, 2)?;
            let content = vector(&mut rest, 2)?;
            self.0 = rest;
            Some((u16::from_be_bytes([kind[0], kind[1]]), content))
        })())
    }
}

/// The host name in the extension `server_name`, in lower case (RFC 6066 section 3).
pub(in crate::core) fn host_name(mut extension: &[u8]) -> Option<String> {
    const HOST_NAME: [u8; 1] = [0];
    let mut names = vector(&mut extension, 2)?;
    if take(&mut names, 1)? != HOST_NAME {
        return None;
    }
    let name = std::str::from_utf8(vector(&mut names, 2)?).ok()?;
    // An IP address is not a host name, and is ignored.
    let name = rustls::pki_types::DnsName::try_from(name).ok()?;
    Some(name.to_lowercase_owned().as_ref().to_owned())
}
