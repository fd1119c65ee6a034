//! What the programs share: reading a command line, and telling about a connection.

pub(crate) mod args;
pub(crate) mod info;
