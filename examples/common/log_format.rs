//! The two formats of a log, `--log text` and `--log json`.

use lexopt::Parser;
use serde_json::json;

use crate::common::args::{Usage, text};
use crate::common::info::to_json;
use crate::lines::Lines;

/// The value of `--log`: whether the log is JSON.
pub(crate) fn is_json(parser: &mut Parser) -> Result<bool, Usage> {
    match text(parser)?.as_str() {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(Usage::new(format!("--log is text or json, not {other:?}"))),
    }
}

/// Lines on standard output. If some are lost, a line in the same format says how many.
pub(crate) fn lines(json: bool) -> Lines {
    let lost: fn(u64) -> String = if json {
        |lines| to_json(&[("event", json!("log_lost")), ("lines", json!(lines))])
    } else {
        |lines| format!("{lines} lines of this log were lost, because nobody read it")
    };
    Lines::new(lost)
}
