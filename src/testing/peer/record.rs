//! Records, sealed and opened one at a time, with the keys of a finished handshake. The fuzz targets compile this file
//! too.

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};

const HEADER: usize = 5;

/// The rest of a rustls session after its keys were extracted. It derives the later keys.
pub(super) enum Kernel {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl Kernel {
    fn suite(&self) -> SupportedCipherSuite {
        match self {
            Self::Client(kernel) => kernel.negotiated_cipher_suite(),
            Self::Server(kernel) => kernel.negotiated_cipher_suite(),
        }
    }

    fn next_send_keys(&mut self) -> Result<Secrets, Error> {
        match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        }
    }

    fn next_receive_keys(&mut self) -> Result<Secrets, Error> {
        match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        }
    }
}

type Secrets = (u64, ConnectionTrafficSecrets);

/// One direction of a record layer, with the key of one epoch.
pub(super) struct Sealer {
    sealer: Box<dyn MessageEncrypter>,
    sealed: u64,
}

impl Sealer {
    pub(super) fn new(sealer: Box<dyn MessageEncrypter>) -> Self {
        Self { sealer, sealed: 0 }
    }

    /// Seals one record with this content, valid or not.
    pub(super) fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let version = ProtocolVersion::TLSv1_2;
        let message = OutboundPlainMessage { typ, version, payload: OutboundChunks::Single(payload) };
        let record = self.sealer.encrypt(message, self.sealed).expect("an AEAD seals what is shorter than 64 KiB");
        self.sealed += 1;
        record.encode()
    }
}

/// The other direction.
pub(super) struct Opener {
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
}

impl Opener {
    pub(super) fn new(opener: Box<dyn MessageDecrypter>) -> Self {
        Self { opener, opened: 0 }
    }

    /// Opens one complete record.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Vec<u8>), Error> {
        let typ = ContentType::from(record[0]);
        if typ == ContentType::ChangeCipherSpec {
            return Ok((typ, Vec::new()));
        }
        let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, &mut record[HEADER..]);
        let plain = self.opener.decrypt(message, self.opened)?;
        self.opened += 1;
        Ok((plain.typ, plain.payload.to_vec()))
    }
}

/// The record layer of one connection.
pub(super) struct Records {
    pub(super) kernel: Kernel,
    sealer: Sealer,
    opener: Opener,
}

impl Records {
    pub(super) fn new(secrets: ExtractedSecrets, kernel: Kernel) -> Self {
        let suite = kernel.suite();
        let (sealed, send) = secrets.tx;
        let (opened, receive) = secrets.rx;
        let mut sealer = Sealer::new(sealer(suite, send));
        // aws-lc requires every sequence number, starting with the first. The records sealed here are discarded.
        while sealer.sealed < sealed {
            sealer.seal(ContentType::ApplicationData, &[]);
        }
        Self { kernel, sealer, opener: Opener { opener: opener(suite, receive), opened } }
    }

    pub(super) fn version(&self) -> ProtocolVersion {
        self.kernel.suite().version().version
    }

    /// Seals one record with this content, valid or not.
    pub(super) fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        self.sealer.seal(typ, payload)
    }

    /// Opens one complete record.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Vec<u8>), Error> {
        self.opener.open(record)
    }

    /// Seals with the next keys from now on. TLS 1.3 only.
    pub(super) fn update_send_keys(&mut self) -> Result<(), Error> {
        let (_, secrets) = self.kernel.next_send_keys()?;
        self.sealer = Sealer::new(sealer(self.kernel.suite(), secrets));
        Ok(())
    }

    /// Opens with the next keys from now on. TLS 1.3 only.
    pub(super) fn update_receive_keys(&mut self) -> Result<(), Error> {
        let (_, secrets) = self.kernel.next_receive_keys()?;
        self.opener = Opener::new(opener(self.kernel.suite(), secrets));
        Ok(())
    }
}

/// The length of the first record including its header; `None` until it is complete.
pub(super) fn whole_record(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let length = HEADER + (usize::from(header[3]) << 8 | usize::from(header[4]));
    (bytes.len() >= length).then_some(length)
}

/// The key, the nonce, and the number of nonce bytes that a TLS 1.2 handshake fixes.
fn parts(secrets: ConnectionTrafficSecrets) -> (AeadKey, Iv, usize) {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            (key, iv, 4)
        }
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv, 12),
        _ => panic!("rustls has a cipher that this test helper does not know"),
    }
}

fn sealer(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Box<dyn MessageEncrypter> {
    let (key, iv, fixed) = parts(secrets);
    match suite {
        SupportedCipherSuite::Tls12(suite) => {
            let (fixed, explicit) = iv.as_ref().split_at(fixed);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
    }
}

fn opener(suite: SupportedCipherSuite, secrets: ConnectionTrafficSecrets) -> Box<dyn MessageDecrypter> {
    let (key, iv, fixed) = parts(secrets);
    match suite {
        SupportedCipherSuite::Tls12(suite) => suite.aead_alg.decrypter(key, &iv.as_ref()[..fixed]),
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.decrypter(key, iv),
    }
}
