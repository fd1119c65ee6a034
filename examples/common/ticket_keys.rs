//! The options for ticket keys that processes share: files, or Redis.

use lexopt::Parser;

use crate::common::args::{Usage, text};
#[cfg(feature = "redis")]
use crate::redis_keys::RedisKeys;

/// The options that are checked together.
#[derive(Debug, Default)]
pub(crate) struct TicketKeyFlags {
    keys: Option<String>,
    wrap: Option<String>,
    ca: Option<String>,
}

/// The source of the keys.
#[derive(Debug, Default)]
pub(crate) enum KeySource {
    /// Each process has keys of its own.
    #[default]
    Own,
    /// Files, separated by commas.
    Files(String),
    #[cfg(feature = "redis")]
    Redis(Box<RedisKeys>),
}

impl TicketKeyFlags {
    /// Parses the option with this name; `false` if there is no such option.
    pub(crate) fn read(&mut self, name: &str, parser: &mut Parser) -> Result<bool, Usage> {
        let option = match name {
            "ticket-keys" => &mut self.keys,
            "ticket-wrap" => &mut self.wrap,
            "ticket-ca" => &mut self.ca,
            _ => return Ok(false),
        };
        *option = Some(text(parser)?);
        Ok(true)
    }

    pub(crate) fn finish(self) -> Result<KeySource, Usage> {
        let is_redis = self.keys.as_ref().is_some_and(|keys| keys.starts_with("redis") && keys.contains("://"));
        if !is_redis && (self.wrap.is_some() || self.ca.is_some()) {
            return Err(Usage::new("--ticket-wrap and --ticket-ca need --ticket-keys redis://HOST:PORT/NAME"));
        }
        match self.keys {
            None => Ok(KeySource::Own),
            Some(url) if is_redis => redis(&url, self.wrap.as_deref(), self.ca.as_deref()),
            Some(files) => Ok(KeySource::Files(files)),
        }
    }
}

#[cfg(feature = "redis")]
fn redis(url: &str, wrap: Option<&str>, ca: Option<&str>) -> Result<KeySource, Usage> {
    Ok(KeySource::Redis(Box::new(RedisKeys::new(url, wrap, ca)?)))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str, _: Option<&str>, _: Option<&str>) -> Result<KeySource, Usage> {
    let how = "cargo run --manifest-path examples/web/Cargo.toml --bin terminator";
    Err(Usage::new(format!("this build of the program has no client for Redis; the other one has it: {how}")))
}
