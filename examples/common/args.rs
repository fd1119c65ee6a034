//! The parts of a command line that the programs read alike.

use std::fmt::Display;
use std::time::Duration;

use bowline::{Leftover, TlsVersion};
use lexopt::{Parser, ValueExt};

/// A command line that is wrong, or a file that cannot be used: one sentence.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    pub(crate) fn new(what: impl Display) -> Self {
        Self(what.to_string())
    }

    /// Says it and ends the program with status 2.
    pub(crate) fn exit(&self, program: &str) -> ! {
        eprintln!("{program}: {}", self.0);
        std::process::exit(2)
    }
}

impl From<lexopt::Error> for Usage {
    fn from(error: lexopt::Error) -> Self {
        Self::new(error)
    }
}

/// The value of the option that was read last.
pub(crate) fn text(parser: &mut Parser) -> Result<String, Usage> {
    Ok(parser.value()?.string()?)
}

/// Seconds, with a fraction where there is one.
pub(crate) fn seconds(parser: &mut Parser) -> Result<Duration, Usage> {
    let text = text(parser)?;
    let seconds = text.parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Usage::new(format!("{text:?} is not a number of seconds")))
}

/// `a,b,c`
pub(crate) fn list(parser: &mut Parser) -> Result<Vec<String>, Usage> {
    Ok(text(parser)?.split(',').map(str::to_owned).collect())
}

pub(crate) fn leftover(parser: &mut Parser) -> Result<Leftover, Usage> {
    match text(parser)?.as_str() {
        "refuse" => Ok(Leftover::Refuse),
        "feed" => Ok(Leftover::Feed),
        other => Err(Usage::new(format!("--leftover is refuse or feed, not {other:?}"))),
    }
}

/// `--tls12` and `--tls13`: the one version to speak.
pub(crate) fn only(version: &mut Option<TlsVersion>, wanted: TlsVersion) -> Result<(), Usage> {
    match version.replace(wanted) {
        Some(other) if other != wanted => Err(Usage::new("--tls12 and --tls13 do not go together")),
        _ => Ok(()),
    }
}

/// Both or none.
pub(crate) fn pair(cert: Option<String>, key: Option<String>) -> Result<Option<(String, String)>, Usage> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Usage::new("--cert needs --key")),
        (None, Some(_)) => Err(Usage::new("--key needs --cert")),
    }
}
