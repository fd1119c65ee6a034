//! Escapes a peer's bytes, so that they can be shown in a terminal and in a log line (rule: tcp-11).

use std::fmt::{self, Write};

/// Escapes bytes so that they can be printed between quotes: control sequences have no effect, line ends do not start a
/// new line, and no character reorders or hides the text around it.
///
/// Printable UTF-8 stays unchanged. `\` and `"` are escaped, line ends and tabs become `\r`, `\n` and `\t`, and each
/// byte of all other characters becomes `\xNN`. One byte becomes at most four characters; limit the length before you
/// call this.
///
/// ```
/// let answer = b"554 \x1b[31mno\r\n";
/// assert_eq!(format!("the server says \"{}\"", bowline::escaped(answer)), r#"the server says "554 \x1b[31mno\r\n""#);
/// ```
pub fn escaped(bytes: &[u8]) -> impl fmt::Display + '_ {
    Escaped(bytes)
}

/// Escapes text from another source that may contain a peer's words. Unprintable characters are escaped as
/// [`escaped`] does; everything else stays, also `\` and `"`. The errors of this crate escape the texts of other
/// crates and of the application in this way.
///
/// ```
/// let error = std::io::Error::other("no \"such\" user \x1b[31m");
/// assert_eq!(bowline::printable(&error).to_string(), r#"no "such" user \x1b[31m"#);
/// ```
pub fn printable(text: impl fmt::Display) -> impl fmt::Display {
    Printable(text)
}

struct Printable<T>(T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Filter(f), "{}", self.0)
    }
}

/// Escapes unprintable characters in everything that is written through it.
struct Filter<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Filter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '\\' | '"' => self.0.write_char(c),
            c => write_char(self.0, c),
        })
    }
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            chunk.valid().chars().try_for_each(|c| write_char(f, c))?;
            write_bytes(f, chunk.invalid())?;
        }
        Ok(())
    }
}

fn write_char(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '\\' => f.write_str("\\\\"),
        '"' => f.write_str("\\\""),
        '\r' => f.write_str("\\r"),
        '\n' => f.write_str("\\n"),
        '\t' => f.write_str("\\t"),
        c if is_unprintable(c) => write_bytes(f, c.encode_utf8(&mut [0; 4]).as_bytes()),
        c => f.write_char(c),
    }
}

fn write_bytes(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

/// Control characters, invisible characters, and characters that reorder the text around them.
pub(crate) fn is_unprintable(c: char) -> bool {
    match c {
        ' '..='~' => false,
        c if c.is_ascii() => true,
        // The standard library has the tables of such characters, for `{:?}`. The `a` before `c` keeps a combining
        // character unchanged.
        c => format!("a{c}").escape_debug().count() > 2,
    }
}

#[cfg(test)]
mod tests {
    use super::{escaped, printable};

    /// rule: tcp-11
    #[test]
    fn words_stay_readable_and_nothing_in_them_is_obeyed() {
        let cases: [(&[u8], &str); 8] = [
            (b"550 no such user", "550 no such user"),
            ("554 prêt, готов, 準備".as_bytes(), "554 prêt, готов, 準備"),
            (b"\x1b[2J\x07\x08\x00\x7f", r"\x1b[2J\x07\x08\x00\x7f"),
            (b"a\r\n\tb", r"a\r\n\tb"),
            (br#"C:\ "x""#, r#"C:\\ \"x\""#),
            (b"\xff\xfeok\xc3", r"\xff\xfeok\xc3"),
            // The control characters of ISO 8859. A terminal may interpret the first one as ESC [.
            ("\u{9b}2J\u{85}".as_bytes(), r"\xc2\x9b2J\xc2\x85"),
            (
                "\u{202e}\u{2066}\u{200b}\u{feff}\u{ad}\u{61c}".as_bytes(),
                concat!(r"\xe2\x80\xae\xe2\x81\xa6\xe2\x80\x8b\xef\xbb\xbf", r"\xc2\xad\xd8\x9c"),
            ),
        ];
        for (bytes, text) in cases {
            assert_eq!(escaped(bytes).to_string(), text);
        }
    }

    /// rule: tcp-11
    #[test]
    fn foreign_text_keeps_printable_characters() {
        let text = "it says \"a\\b\" prêt\x1b[2J\r\n\u{9b}\u{202e}";
        assert_eq!(printable(text).to_string(), "it says \"a\\b\" prêt\\x1b[2J\\r\\n\\xc2\\x9b\\xe2\\x80\\xae");
    }
}
