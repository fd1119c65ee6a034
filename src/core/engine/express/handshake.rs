//! The handshake, with rustls's unbuffered API, which gets one whole record at a time.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

use super::exporter::{Caught, Exporter, catching};
use super::records::{MAX_MESSAGE, Records};
use crate::core::buffer::Buffer;
use crate::core::engine::export::Master;
use crate::core::engine::hello::Hello;
use crate::core::record::{HEADER, max_fragment};

/// The largest number of messages in a flight.
const MESSAGES: usize = 16;

/// A handshake in progress.
pub(super) struct Handshake {
    side: Side,
    /// The number of input bytes that rustls has seen and not consumed: the start of an incomplete message.
    kept: usize,
    /// The length of the input at the last call of rustls.
    seen: usize,
    hello: Hello,
    /// The secret of the exporter.
    caught: Caught,
    /// The random bytes of our ServerHello.
    own_random: Option<[u8; 32]>,
    max_fragment: usize,
}

enum Side {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Passes the input to rustls until rustls needs more. The bytes to send are written to `$out`. Returns how many bytes
/// were consumed.
macro_rules! drive {
    ($connection:expr, $input:expr, $out:expr) => {{
        let mut consumed = 0;
        let result = loop {
            let UnbufferedStatus { discard, state } = $connection.process_tls_records(&mut $input[consumed..]);
            let goes_on = match state {
                Ok(ConnectionState::EncodeTlsData(record)) => encode(record, $out),
                Ok(ConnectionState::TransmitTlsData(records)) => {
                    // rustls asks us to send its records before it continues. They are in our queue, which is sent in
                    // order, so it may continue at once.
                    records.done();
                    true
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    false
                }
                // Not reached. The other states exchange application data. Early data is turned off, and rustls gets no
                // input after the handshake.
                Ok(_) => break Err(Error::HandshakeNotComplete),
                Err(error) => break Err(error),
            };
            consumed += discard;
            if !goes_on {
                break Ok(consumed);
            }
        };
        if result.is_err() {
            // The alert has not been sent yet. rustls gets no more input, because it would fail again.
            while $connection.wants_write() {
                match $connection.process_tls_records(&mut []).state {
                    Ok(ConnectionState::EncodeTlsData(record)) => encode(record, $out),
                    _ => break,
                };
            }
        }
        result
    }};
}

impl Handshake {
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let max_fragment = max_fragment(config.max_fragment_size);
        let side = Side::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(Self::new(side, max_fragment))
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let max_fragment = max_fragment(config.max_fragment_size);
        let side = Side::Server(UnbufferedServerConnection::new(config)?);
        Ok(Self::new(side, max_fragment))
    }

    fn new(side: Side, max_fragment: usize) -> Self {
        let (hello, caught) = (Hello::default(), Caught::default());
        Self { side, kept: 0, seen: 0, hello, caught, own_random: None, max_fragment }
    }

    /// Passes the kept bytes and the next record after them to rustls. Returns how many bytes were consumed.
    ///
    /// rule: write-10. A message may use as much memory as in rustls's own buffer, including the headers of its
    /// records.
    pub(super) fn go_on(&mut self, input: &mut [u8], out: &mut Buffer) -> Result<usize, Error> {
        if input.len() > MAX_MESSAGE {
            return Err(Error::PeerSentOversizedRecord);
        }
        self.hello.read(&input[self.kept..]);
        self.seen = input.len();
        let side = &mut self.side;
        let consumed = catching(&mut self.caught, || match side {
            Side::Client(connection) => drive!(connection, input, out),
            Side::Server(connection) => drive!(connection, input, out),
        })?;
        if self.own_random.is_none() {
            self.own_random = hello_random(out.as_slice());
        }
        self.kept = input.len() - consumed;
        Ok(consumed)
    }

    /// Makes rustls send an alert after it has failed without one: for a record of an unknown type, rustls seals
    /// decode_error in any state.
    pub(super) fn provoke_alert(&mut self, out: &mut Buffer) {
        // rustls continues after the input that it has seen, or at the last record of that input. Zeros at both places
        // are a record of an unknown type.
        let mut zeros = vec![0; self.seen + 2 * HEADER];
        // Each complete message is processed before the bytes after it.
        for _ in 0..MESSAGES {
            let _ = match &mut self.side {
                Side::Client(connection) => drive!(connection, zeros, out),
                Side::Server(connection) => drive!(connection, zeros, out),
            };
            if !out.is_empty() {
                break;
            }
        }
    }

    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Whether no incomplete message is pending.
    pub(super) fn is_aligned(&self) -> bool {
        self.kept == 0
    }

    pub(super) fn common(&self) -> &CommonState {
        match &self.side {
            Side::Client(connection) => connection,
            Side::Server(connection) => connection,
        }
    }

    pub(super) fn sni(&self) -> Option<String> {
        match &self.side {
            Side::Client(_) => None,
            Side::Server(_) => self.hello.seen().and_then(|seen| seen.name.clone()),
        }
    }

    /// Whether the secrets belong to this session alone.
    pub(super) fn master(&self) -> Master {
        Master::of(self.common(), &self.hello)
    }

    /// The exporter, once the handshake is done.
    pub(super) fn exporter(&self) -> Option<Exporter> {
        let suite = self.common().negotiated_cipher_suite()?;
        let server_random = match &self.side {
            Side::Client(_) => self.hello.seen().map(|seen| seen.random),
            Side::Server(_) => self.own_random,
        };
        Exporter::new(suite, &self.caught, server_random)
    }

    /// The traffic keys, once the handshake is done.
    pub(super) fn into_records(self) -> Result<Records, Error> {
        match self.side {
            Side::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                Records::new(kernel.negotiated_cipher_suite(), secrets, Box::new(kernel), self.max_fragment)
            }
            Side::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                Records::new(kernel.negotiated_cipher_suite(), secrets, Box::new(kernel), self.max_fragment)
            }
        }
    }
}

/// The random bytes of a ServerHello, which begins the first record of a server.
fn hello_random(record: &[u8]) -> Option<[u8; 32]> {
    const MESSAGE_HEADER_AND_VERSION: usize = 4 + 2;
    let random = record.get(HEADER + MESSAGE_HEADER_AND_VERSION..)?;
    random.first_chunk().copied()
}

fn encode<Data>(mut record: EncodeTlsData<'_, Data>, out: &mut Buffer) -> bool {
    let mut encoded = record.encode(out.space(1));
    if let Err(EncodeError::InsufficientSize(needed)) = &encoded {
        encoded = record.encode(out.space(needed.required_size));
    }
    // Encoding cannot fail: the buffer has space, and the records are encoded only once.
    out.filled(encoded.unwrap_or(0));
    true
}
