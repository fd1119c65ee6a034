//! An error with all its causes, on one line.

use std::error::Error as StdError;
use std::fmt;

use crate::escape::printable;

/// Prints an error and its [sources](StdError::source), joined by `": "`, for a log line.
///
/// The text of an error of this crate says only what failed; its source says why. For example, `{error}` prints `cannot
/// listen on 127.0.0.1:80`, and the chain prints `cannot listen on 127.0.0.1:80: Permission denied (os error 13)`.
/// Error reporters, such as anyhow's `{:#}`, print the same. Errors of other crates may repeat the text of their source
/// at the end of their own; such a source is left out (rule: end-1). Unprintable characters are escaped as
/// [`printable`](crate::printable) does, because an error may contain a peer's words, such as the names in its
/// certificate (rule: tcp-11).
///
/// ```
/// let error = bowline::ClientTls::builder().roots_pem_file("/nowhere/ca.pem").build().unwrap_err();
/// let told = bowline::chain(&error).to_string();
/// assert!(told.starts_with("/nowhere/ca.pem: cannot be read: No such file"));
/// ```
#[doc(alias = "report")]
#[doc(alias = "source")]
pub fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = self.0.to_string();
        write!(f, "{}", printable(&above))?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !above.ends_with(&text) {
                write!(f, ": {}", printable(&text))?;
            }
            (above, next) = (text, error.source());
        }
        Ok(())
    }
}
