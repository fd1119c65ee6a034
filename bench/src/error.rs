//! How a measurement fails.

/// An error ends the measurement and is reported.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Error>;

/// An error with this text.
pub fn fail<T>(what: impl Into<String>) -> Result<T> {
    Err(what.into().into())
}
