//! Code that the programs share: parsing a command line, and printing the facts of a connection.

pub(crate) mod args;
pub(crate) mod info;
