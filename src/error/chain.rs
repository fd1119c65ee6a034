//! An error with everything that led to it, on one line.

use std::error::Error as StdError;
use std::fmt;

use crate::escape::printable;

/// Prints an error and its [sources](StdError::source), joined by `": "`: what belongs into a log line.
///
/// An error of this crate alone says what failed; why, is its source. So `{error}` may be `cannot listen on 127.0.0.1:80`,
/// and the chain `cannot listen on 127.0.0.1:80: Permission denied (os error 13)`. What error reporters print, such as
/// anyhow's `{:#}`, is the same. A source whose text ends that of the error above it is left out, which errors of other crates
/// may do (rule: end-1). What cannot be printed is escaped as [`printable`](crate::printable) does: a peer's words may be in
/// it, such as the names in its certificate (rule: tcp-11).
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
