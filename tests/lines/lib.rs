//! Each task of the table in docs/frameworks.md, with this crate and with others. The lines between `// lines: TASK,
//! LIBRARY` and `// end` are counted. They are the code for the task itself, without imports, and without the
//! configuration of TLS, which every library needs.

pub mod axum;
pub mod hyper_client;
pub mod hyper_server;
pub mod postgres;
pub mod tonic;

/// An error of any library.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The longest time of a drain.
pub const DRAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// The longest time of a handshake.
pub const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(30);

/// The largest number of unfinished handshakes.
pub const HANDSHAKES: usize = 4096;
