//! The mail after DATA, up to the line with a single dot.

/// The number of bytes of a mail that are held in memory. The rest is on disk.
const PIECE: usize = 64 << 10;

/// Parses an incoming mail, in pieces of any size. It removes the leading dots, and converts the line ends to those of
/// a file.
pub(crate) struct Data {
    /// Processed bytes that have not been taken yet.
    text: Vec<u8>,
    /// The length of the mail so far.
    length: usize,
    place: Place,
    limit: usize,
    fault: Option<Fault>,
}

/// The reason for refusing a mail. The mail is still read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The mail is larger than the limit.
    TooBig,
    /// The mail contains CR or LF alone. Another server may read the same bytes as two mails (SMTP smuggling).
    BareLineEnd,
}

#[derive(Clone, Copy)]
enum Place {
    LineBegin,
    Dot,
    DotCr,
    Text,
    Cr,
}

impl Data {
    /// `header` comes first, and does not count towards the length.
    pub(crate) fn new(limit: usize, header: Vec<u8>) -> Self {
        Self { text: header, length: 0, place: Place::LineBegin, limit, fault: None }
    }

    /// Processes bytes. `Some`: the mail ends after that many of them.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (n, byte) in bytes.iter().copied().enumerate() {
            self.place = match (self.place, byte) {
                (Place::DotCr, b'\n') => return Some(n + 1),
                (Place::LineBegin, b'.') => Place::Dot,
                (Place::Dot, b'\r') => Place::DotCr,
                (Place::LineBegin | Place::Text, b'\r') => Place::Cr,
                (Place::Cr, b'\n') => {
                    self.push(b'\n');
                    Place::LineBegin
                }
                (Place::Cr | Place::DotCr, byte) => {
                    self.fault.get_or_insert(Fault::BareLineEnd);
                    if byte == b'\r' { Place::Cr } else { Place::Text }
                }
                (Place::LineBegin | Place::Dot | Place::Text, byte) => {
                    if byte == b'\n' {
                        self.fault.get_or_insert(Fault::BareLineEnd);
                    }
                    self.push(byte);
                    Place::Text
                }
            };
        }
        None
    }

    fn push(&mut self, byte: u8) {
        if self.length < self.limit {
            self.text.push(byte);
            self.length += 1;
        } else {
            self.fault = Some(Fault::TooBig);
            self.text = Vec::new();
            // The rest of the mail is discarded.
            self.limit = 0;
        }
    }

    /// The length of the mail so far.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The processed bytes that have not been taken yet, if there are many.
    pub(crate) fn take_piece(&mut self) -> Option<Vec<u8>> {
        (self.text.len() >= PIECE).then(|| std::mem::take(&mut self.text))
    }

    /// The rest of the mail, its lines ended by LF.
    pub(crate) fn finish(self) -> Result<Vec<u8>, Fault> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(self.text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a mail, and returns it with the bytes after it.
    type Read<T> = Option<(Result<T, Fault>, T)>;

    fn read(bytes: &[u8], cut: usize) -> Read<Vec<u8>> {
        let mut data = Data::new(40, Vec::new());
        let (first, second) = bytes.split_at(cut);
        if let Some(end) = data.feed(first) {
            return Some((data.finish(), bytes[end..].to_vec()));
        }
        let end = data.feed(second)? + cut;
        Some((data.finish(), bytes[end..].to_vec()))
    }

    #[test]
    fn a_mail_is_the_same_wherever_it_is_cut() {
        let long = [b"x".repeat(41), b"\r\n.\r\n".to_vec()].concat();
        let cases: [(&[u8], Read<&[u8]>); 9] = [
            (b".\r\n", Some((Ok(b""), b""))),
            (b"a\r\n.\r\nQUIT\r\n", Some((Ok(b"a\n"), b"QUIT\r\n"))),
            (b"..\r\n..a\r\n.b\r\n\r\n.\r\n", Some((Ok(b".\n.a\nb\n\n"), b""))),
            (b"a.\r\n.", None),
            (b"a\n.\r\nb\r\n.\r\n", Some((Err(Fault::BareLineEnd), b""))),
            (b"a\r\n.\nb\r\n.\r\n", Some((Err(Fault::BareLineEnd), b""))),
            (b"a\r.\r\n.\r\n", Some((Err(Fault::BareLineEnd), b""))),
            (b".\rb\r\n.\r\n", Some((Err(Fault::BareLineEnd), b""))),
            (&long, Some((Err(Fault::TooBig), b""))),
        ];
        for (bytes, expected) in cases {
            for cut in 0..=bytes.len() {
                let expected = expected.map(|(text, rest)| (text.map(<[u8]>::to_vec), rest.to_vec()));
                assert_eq!(read(bytes, cut), expected, "{:?} cut at {cut}", String::from_utf8_lossy(bytes));
            }
        }
    }
}
