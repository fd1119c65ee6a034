//! Text that goes into a log.

use std::error::Error;

/// The text of an error, with its sources, contains no control character: a peer must not write to the terminal of an
/// operator.
pub fn check(error: &(dyn Error + 'static)) {
    let text = bowline::chain(error).to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
