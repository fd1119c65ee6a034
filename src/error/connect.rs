//! Errors of connecting and of listening.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::address::Address;
use crate::escape::printable;

/// An error of connecting. It lists every address that was tried, with its failure (rule: tcp-4).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectError {
    /// The target, as the caller gave it.
    pub target: String,
    /// Each failed attempt, in the order in which they failed. Empty if the name did not resolve in time.
    pub attempts: Vec<ConnectAttempt>,
    /// Why the name could not be resolved; `None` if it was resolved.
    pub resolve: Option<Arc<io::Error>>,
    /// Whether the connect ended because its deadline passed.
    pub timed_out: bool,
}

/// One address that was tried.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectAttempt {
    /// The address.
    pub addr: Address,
    /// The failure.
    pub error: Arc<io::Error>,
}

impl ConnectError {
    /// Splits the attempts into two lists: those that failed differently from the last attempt, and those that failed
    /// like it.
    fn like_the_last(&self) -> (Vec<&ConnectAttempt>, Vec<&ConnectAttempt>) {
        let last = self.attempts.last().map(|attempt| attempt.error.to_string());
        self.attempts.iter().partition(|attempt| Some(attempt.error.to_string()) == last)
    }
}

impl fmt::Display for ConnectError {
    /// The last failure is the error's source, so it is not part of the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to {}", self.target)?;
        match self.attempts.last() {
            None if self.timed_out => return f.write_str(": timed out"),
            None => return Ok(()),
            Some(last) if self.timed_out && last.error.kind() != io::ErrorKind::TimedOut => f.write_str(" in time")?,
            Some(_) => {}
        }
        let (like_the_last, others) = self.like_the_last();
        let mut told: Vec<String> =
            others.iter().map(|attempt| format!("{}: {}", attempt.addr, printable(&attempt.error))).collect();
        let addrs: Vec<String> = like_the_last.iter().map(|attempt| attempt.addr.to_string()).collect();
        told.push(addrs.join(", "));
        match told.join("; ") {
            told if told == self.target => Ok(()),
            told => write!(f, ": {told}"),
        }
    }
}

impl StdError for ConnectError {
    /// Why the name could not be resolved, or how the last attempt failed.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let error = self.resolve.as_ref().or_else(|| self.attempts.last().map(|attempt| &attempt.error))?;
        Some(&**error)
    }
}

/// A listener could not be opened (rule: tcp-8).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BindError {
    /// The requested address.
    pub addr: Address,
    /// The system's error.
    pub error: Arc<io::Error>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}", self.addr)
    }
}

impl StdError for BindError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.error)
    }
}
