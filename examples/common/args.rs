//! Command-line parsing that the programs share.

use std::fmt::Display;
use std::time::Duration;

use bowline::Leftover;
use lexopt::{Parser, ValueExt};

/// A wrong command line, or an unusable file, as one sentence.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    pub(crate) fn new(what: impl Display) -> Self {
        Self(what.to_string())
    }

    /// An error with its causes.
    pub(crate) fn of(error: impl std::error::Error + 'static) -> Self {
        Self(bowline::chain(&error).to_string())
    }

    /// Prints the error and ends the program with status 2.
    pub(crate) fn exit(&self, program: &str) -> ! {
        eprintln!("{program}: {}", self.0);
        std::process::exit(2)
    }
}

impl From<lexopt::Error> for Usage {
    fn from(error: lexopt::Error) -> Self {
        Self::of(error)
    }
}

/// The value of the last parsed option.
pub(crate) fn text(parser: &mut Parser) -> Result<String, Usage> {
    Ok(parser.value()?.string()?)
}

/// Seconds, with an optional fraction.
pub(crate) fn seconds(parser: &mut Parser) -> Result<Duration, Usage> {
    let text = text(parser)?;
    let seconds = text.parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Usage::new(format!("{text:?} is not a number of seconds")))
}

pub(crate) fn leftover(parser: &mut Parser) -> Result<Leftover, Usage> {
    match text(parser)?.as_str() {
        "refuse" => Ok(Leftover::Refuse),
        "feed" => Ok(Leftover::Feed),
        other => Err(Usage::new(format!("--leftover is refuse or feed, not {other:?}"))),
    }
}
