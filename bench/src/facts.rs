//! The results of a TLS handshake: version, cipher suite and resumption.

/// The facts of a handshake, in a form that all peers share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// `1.3` or `1.2`.
    pub version: String,
    /// Whether the suite is one of AES-128-GCM.
    pub aes128: bool,
    /// Whether a session was resumed.
    pub resumed: bool,
}
