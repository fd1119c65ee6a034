//! Compares the two engines of a TLS session: the same data, the same end and the same alert, whatever a peer does.
#![allow(clippy::unwrap_used)]

#[path = "garbage/setup.rs"]
mod setup;

#[path = "engines/alerts.rs"]
mod alerts;
#[path = "engines/client_sessions.rs"]
mod client_sessions;
#[path = "engines/customized.rs"]
mod customized;
#[path = "engines/differences.rs"]
mod differences;
#[path = "engines/flips.rs"]
mod flips;
#[path = "engines/identities.rs"]
mod identities;
#[path = "engines/keys.rs"]
mod keys;
#[path = "engines/openssl.rs"]
mod openssl;
#[path = "engines/queues.rs"]
mod queues;
#[path = "engines/reads.rs"]
mod reads;
#[path = "engines/reload.rs"]
mod reload;
#[path = "engines/settings.rs"]
mod settings;
#[path = "engines/tickets.rs"]
mod tickets;
#[path = "engines/wires.rs"]
mod wires;
#[path = "engines/worn.rs"]
mod worn;
