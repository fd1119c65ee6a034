//! Refuses settings of a rustls configuration that no session can support. The error names the setting (rule:
//! secure-11).
//!
//! The table of all settings is in docs/settings.md.

use std::io::Read;

use rustls::{ClientConfig, Connection, ServerConfig};

use crate::error::{ConfigError, ConfigProblem, Error, Phase, TlsError};

/// Refuses early data on a server: it would accept early data of a client, but no code would read it.
pub(super) fn check_server(config: &ServerConfig) -> Result<(), Error> {
    match (config.max_early_data_size, config.send_half_rtt_data) {
        (1.., _) => Err(refused("max_early_data_size is not supported")),
        (0, true) => Err(refused("send_half_rtt_data is not supported")),
        (0, false) => Ok(()),
    }
}

pub(super) fn check_client(config: &ClientConfig) -> Result<(), Error> {
    match config.enable_early_data {
        true => Err(refused("enable_early_data is not supported")),
        false => Ok(()),
    }
}

/// Refuses accepted early data. rustls keeps it separate from later data, because an attacker may replay it.
pub(super) fn check_adopted(tls: &mut Connection) -> Result<(), Error> {
    let Connection::Server(server) = tls else { return Ok(()) };
    match server.early_data().and_then(|mut early| early.read(&mut [0]).ok()) {
        None | Some(0) => Ok(()),
        Some(_) => Err(refused("early data was accepted and has not been read")),
    }
}

/// Why rustls cannot make a session from a configuration.
pub(super) fn unusable(error: rustls::Error) -> Error {
    if error == rustls::Error::BadMaxFragmentSize {
        return refused("max_fragment_size must be 32 to 16389");
    }
    Error::Ended(TlsError { phase: Phase::Handshake, error, alert_sent: None, not_tls: None }.into())
}

fn refused(why: &str) -> Error {
    ConfigError::new(None, ConfigProblem::Contradiction(why.to_owned())).into()
}
