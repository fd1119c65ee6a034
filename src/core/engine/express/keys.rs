//! Makes the traffic keys from the secrets.

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{MessageDecrypter, MessageEncrypter};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error, HandshakeType, SupportedCipherSuite};

/// The source of new keys.
pub(super) trait Kernel: Send + Sync {
    fn update_tx(&mut self) -> Result<ConnectionTrafficSecrets, Error>;
    fn update_rx(&mut self) -> Result<ConnectionTrafficSecrets, Error>;
    /// The message by which the peer requests another handshake (TLS 1.2).
    fn renegotiates_by(&self) -> HandshakeType;
    /// Handles a ticket. `None` on a server, which receives no tickets.
    fn handle_ticket(&mut self, ticket: &[u8]) -> Option<Result<(), Error>>;
}

impl Kernel for KernelConnection<ClientConnectionData> {
    fn renegotiates_by(&self) -> HandshakeType {
        HandshakeType::HelloRequest
    }

    fn update_tx(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.update_tx_secret().map(|(_, secrets)| secrets)
    }

    fn update_rx(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.update_rx_secret().map(|(_, secrets)| secrets)
    }

    fn handle_ticket(&mut self, ticket: &[u8]) -> Option<Result<(), Error>> {
        Some(self.handle_new_session_ticket(ticket))
    }
}

impl Kernel for KernelConnection<ServerConnectionData> {
    fn renegotiates_by(&self) -> HandshakeType {
        HandshakeType::ClientHello
    }

    fn update_tx(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.update_tx_secret().map(|(_, secrets)| secrets)
    }

    fn update_rx(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.update_rx_secret().map(|(_, secrets)| secrets)
    }

    fn handle_ticket(&mut self, _: &[u8]) -> Option<Result<(), Error>> {
        None
    }
}

/// The length of the first part of an AES-GCM nonce, the salt. In TLS 1.2, each record contains the rest (RFC 5288).
const SALT: usize = 4;

pub(super) fn encrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageEncrypter>, Error> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    Ok(match (suite, secrets) {
        (
            SupportedCipherSuite::Tls13(suite),
            Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv },
        ) => suite.aead_alg.encrypter(key, iv),
        (SupportedCipherSuite::Tls12(suite), Aes128Gcm { key, iv } | Aes256Gcm { key, iv }) => {
            let (salt, explicit) = iv.as_ref().split_at(SALT);
            suite.aead_alg.encrypter(key, salt, explicit)
        }
        (SupportedCipherSuite::Tls12(suite), Chacha20Poly1305 { key, iv }) => {
            suite.aead_alg.encrypter(key, iv.as_ref(), &[])
        }
        (_, _) => return Err(unknown_secrets()),
    })
}

pub(super) fn decrypter(
    suite: SupportedCipherSuite,
    secrets: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, Error> {
    use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
    Ok(match (suite, secrets) {
        (
            SupportedCipherSuite::Tls13(suite),
            Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv },
        ) => suite.aead_alg.decrypter(key, iv),
        (SupportedCipherSuite::Tls12(suite), Aes128Gcm { key, iv } | Aes256Gcm { key, iv }) => {
            suite.aead_alg.decrypter(key, &iv.as_ref()[..SALT])
        }
        (SupportedCipherSuite::Tls12(suite), Chacha20Poly1305 { key, iv }) => {
            suite.aead_alg.decrypter(key, iv.as_ref())
        }
        (_, _) => return Err(unknown_secrets()),
    })
}

pub(super) fn unknown_secrets() -> Error {
    Error::General("secrets of an unknown kind".into())
}
