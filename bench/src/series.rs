//! The rounds of one run of the benchmark. A report can contain rounds of several runs, and shows which measurement
//! belongs to which run.

use std::process::Command;

use serde_json::{Value, json};

use crate::machine::machine;

/// The rounds of one run. No other run has the same round numbers, so a ratio within a round is always a ratio within a
/// run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The number of its first round.
    pub first: usize,
    /// The number of rounds so far.
    pub rounds: usize,
    /// The options of the run, as on the command line.
    pub what: String,
    /// Date and time, UTC.
    pub began: String,
    /// The measured commit, and whether there were uncommitted changes.
    pub commit: String,
    pub machine: String,
    pub seconds: u64,
}

impl Series {
    /// A run that starts now.
    pub fn begin(first: usize, what: &str) -> Self {
        let commit = said("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
        let is_changed = said("git", &["status", "--porcelain", "--untracked-files=no"]).is_some();
        Self {
            first,
            rounds: 0,
            what: what.to_owned(),
            began: said("date", &["-u", "+%Y-%m-%d %H:%M"]).unwrap_or_else(|| "unknown".to_owned()),
            commit: if is_changed { commit + ", changed" } else { commit },
            machine: machine(),
            seconds: 0,
        }
    }

    /// Whether this round belongs to the run.
    pub fn has(&self, round: usize) -> bool {
        (self.first..self.first + self.rounds).contains(&round)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "first": self.first, "rounds": self.rounds, "what": self.what, "began": self.began, "commit": self.commit,
            "machine": self.machine, "seconds": self.seconds,
        })
    }

    pub fn from_json(value: &Value) -> Option<Self> {
        let number = |key: &str| value[key].as_u64();
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(Self {
            first: number("first")?.try_into().ok()?,
            rounds: number("rounds")?.try_into().ok()?,
            what: text("what")?,
            began: text("began")?,
            commit: text("commit")?,
            machine: text("machine")?,
            seconds: number("seconds")?,
        })
    }
}

/// The output of a program; `None` if it is empty.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
