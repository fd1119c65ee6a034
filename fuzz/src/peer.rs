//! A peer of one session. rustls does its handshake, which a target may put into other records. After the handshake,
//! the target chooses each record that the peer seals.

use std::sync::{Arc, Mutex, PoisonError};

use bowline::rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use bowline::rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use bowline::rustls::crypto::tls13::OkmBlock;
use bowline::rustls::kernel::KernelConnection;
use bowline::rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use bowline::rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use bowline::rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, KeyLog, ProtocolVersion,
    ServerConfig, SupportedCipherSuite,
};

const HEADER: usize = 5;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// The content of the records that the peer has opened.
#[derive(Debug, Default)]
pub struct Seen {
    pub data: Vec<u8>,
    pub is_closed: bool,
    pub has_alert: bool,
    pub has_updated: bool,
    /// A record after close_notify or after a fatal alert.
    pub is_late: bool,
    /// A record that cannot be opened.
    pub garbage: Option<Error>,
}

/// The changes that the peer makes to its last flight (TLS 1.3): it adds bytes after Finished, and seals all messages
/// in records that end at other places.
#[derive(Debug, Default, Clone)]
pub struct Reseal {
    pub extra: Vec<u8>,
    /// The end of the first record.
    pub cut: usize,
}

pub struct Peer {
    state: State,
    secret: Arc<HandshakeSecret>,
    input: Vec<u8>,
    /// The length of the input that rustls has seen.
    shown: usize,
    output: Vec<u8>,
    reseal: Option<Reseal>,
    /// Data that a server sends directly after its Finished, before the client's.
    half_rtt: Vec<u8>,
    pub seen: Seen,
}

enum State {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
    Open(Box<Records>),
    Failed,
}

impl Peer {
    pub fn client(config: &ClientConfig, reseal: Option<Reseal>) -> Self {
        let secret = Arc::new(HandshakeSecret { label: "CLIENT_HANDSHAKE_TRAFFIC_SECRET", secret: Mutex::default() });
        let mut config = config.clone();
        (config.enable_secret_extraction, config.key_log) = (true, Arc::clone(&secret) as _);
        let name = bowline::config::server_name("localhost").expect("it is a name");
        let connection = UnbufferedClientConnection::new(Arc::new(config), name).expect("the configuration is valid");
        Self::new(State::Client(Box::new(connection)), secret, reseal, Vec::new())
    }

    pub fn server(config: &ServerConfig, reseal: Option<Reseal>, half_rtt: Vec<u8>) -> Self {
        let secret = Arc::new(HandshakeSecret { label: "SERVER_HANDSHAKE_TRAFFIC_SECRET", secret: Mutex::default() });
        let mut config = config.clone();
        (config.enable_secret_extraction, config.key_log) = (true, Arc::clone(&secret) as _);
        config.send_half_rtt_data = !half_rtt.is_empty();
        let connection = UnbufferedServerConnection::new(Arc::new(config)).expect("the configuration is valid");
        Self::new(State::Server(Box::new(connection)), secret, reseal, half_rtt)
    }

    fn new(state: State, secret: Arc<HandshakeSecret>, reseal: Option<Reseal>, half_rtt: Vec<u8>) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        let mut peer = Self { state, secret, input, shown: 0, output, reseal, half_rtt, seen: Seen::default() };
        peer.shake();
        peer
    }

    /// Whether the handshake is done, so that records may be sealed.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.shake();
        self.open_records();
    }

    /// The bytes to send.
    pub fn transmit(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Seals a record with this content, valid or not, and returns it.
    pub fn seal(&mut self, typ: u8, payload: &[u8]) -> Vec<u8> {
        let State::Open(records) = &mut self.state else { panic!("the handshake is not done") };
        records.tx.seal(typ.into(), payload)
    }

    /// Seals with the next key from now on.
    pub fn update_key(&mut self) {
        let State::Open(records) = &mut self.state else { panic!("the handshake is not done") };
        let (_, secrets) = records.kernel.next(true).expect("only TLS 1.3 has KeyUpdate");
        records.tx = Sealer { sealer: sealer(records.kernel.suite(), secrets), sealed: 0 };
    }

    fn shake(&mut self) {
        loop {
            let want = match &mut self.state {
                State::Client(connection) => {
                    let input = &mut self.input[..self.shown];
                    step(connection.process_tls_records(input), &mut self.output)
                }
                State::Server(connection) => {
                    let input = &mut self.input[..self.shown];
                    step(connection.process_tls_records(input), &mut self.output)
                }
                State::Open(_) | State::Failed => return,
            };
            self.input.drain(..want.0);
            self.shown -= want.0;
            let is_done = match &self.state {
                State::Client(connection) => !connection.is_handshaking(),
                State::Server(connection) => !connection.is_handshaking(),
                State::Open(_) | State::Failed => return,
            };
            match want.1 {
                Want::Nothing => continue,
                Want::Fail => self.state = State::Failed,
                Want::Input | Want::Write if is_done => {
                    self.reseal();
                    self.finish();
                }
                Want::Input | Want::Write => {
                    self.reseal();
                    if let (Want::Write, State::Server(connection)) = (want.1, &mut self.state)
                        && !self.half_rtt.is_empty()
                    {
                        write_half_rtt(connection, &std::mem::take(&mut self.half_rtt), &mut self.output);
                    }
                    match whole_record(&self.input[self.shown..]) {
                        Some(record) => self.shown += record,
                        None => return,
                    }
                }
            }
        }
    }

    fn finish(&mut self) {
        let records = match std::mem::replace(&mut self.state, State::Failed) {
            State::Client(connection) => connection
                .dangerous_into_kernel_connection()
                .map(|(secrets, it)| Records::new(secrets, Kernel::Client(it))),
            State::Server(connection) => connection
                .dangerous_into_kernel_connection()
                .map(|(secrets, it)| Records::new(secrets, Kernel::Server(it))),
            state @ (State::Open(_) | State::Failed) => return self.state = state,
        };
        self.state = State::Open(Box::new(records.expect("the handshake is done")));
        self.shown = 0;
    }

    /// Seals the encrypted messages of the waiting flight again (RFC 8446, section 7.3).
    fn reseal(&mut self) {
        let suite = match &self.state {
            State::Client(connection) => connection.negotiated_cipher_suite(),
            State::Server(connection) => connection.negotiated_cipher_suite(),
            State::Open(_) | State::Failed => None,
        };
        let secret = self.secret.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(secret), Some(SupportedCipherSuite::Tls13(suite))) = (secret, suite) else { return };
        if self.output.is_empty() {
            return;
        }
        let Some(Reseal { extra, cut }) = self.reseal.take() else { return };
        let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(&secret));
        let expand = |label: &str, out: &mut [u8]| {
            let info = [&[0, out.len() as u8, label.len() as u8 + 6][..], b"tls13 ", label.as_bytes(), &[0]].concat();
            expander.expand_slice(&[&info], out).expect("it is short");
        };
        let (mut key, mut iv) = ([0; 32], [0; 12]);
        assert_eq!(suite.aead_alg.key_len(), key.len(), "rustls prefers AES-256");
        expand("key", &mut key);
        expand("iv", &mut iv);
        let mut opener = suite.aead_alg.decrypter(AeadKey::from(key), Iv::from(iv));
        let mut sealer = Sealer { sealer: suite.aead_alg.encrypter(AeadKey::from(key), Iv::from(iv)), sealed: 0 };
        let (mut flight, mut messages, mut opened) = (Vec::new(), Vec::new(), 0);
        let mut rest = &mut self.output[..];
        while let Some(n) = whole_record(rest) {
            let (record, after) = rest.split_at_mut(n);
            rest = after;
            if record[0] != APPLICATION_DATA {
                flight.extend_from_slice(record);
                continue;
            }
            let message = InboundOpaqueMessage::new(record[0].into(), ProtocolVersion::TLSv1_2, &mut record[HEADER..]);
            messages.extend_from_slice(opener.decrypt(message, opened).expect("our own record").payload);
            opened += 1;
        }
        messages.extend(extra);
        let (first, second) = messages.split_at(cut.min(messages.len()));
        for part in [first, second].into_iter().flat_map(|part| part.chunks(1 << 14)) {
            flight.extend(sealer.seal(HANDSHAKE.into(), part));
        }
        self.output = flight;
    }

    fn open_records(&mut self) {
        let State::Open(records) = &mut self.state else { return };
        while let Some(n) = whole_record(&self.input) {
            let mut record: Vec<u8> = self.input.drain(..n).collect();
            if let Err(error) = records.open(&mut record, &mut self.seen) {
                self.seen.garbage.get_or_insert(error);
            }
        }
    }
}

enum Want {
    Nothing,
    Input,
    Write,
    Fail,
}

fn step<Data>(status: UnbufferedStatus<'_, '_, Data>, output: &mut Vec<u8>) -> (usize, Want) {
    let UnbufferedStatus { discard, state } = status;
    let want = match state {
        Ok(ConnectionState::EncodeTlsData(mut state)) => {
            if let Err(EncodeError::InsufficientSize(size)) = state.encode(&mut []) {
                let begin = output.len();
                output.resize(begin + size.required_size, 0);
                state.encode(&mut output[begin..]).expect("it has space");
            }
            Want::Nothing
        }
        Ok(ConnectionState::TransmitTlsData(state)) => {
            state.done();
            Want::Nothing
        }
        Ok(ConnectionState::BlockedHandshake) => Want::Input,
        Ok(ConnectionState::WriteTraffic(_)) => Want::Write,
        Ok(_) | Err(_) => Want::Fail,
    };
    (discard, want)
}

fn write_half_rtt(connection: &mut UnbufferedServerConnection, data: &[u8], output: &mut Vec<u8>) {
    if let Ok(ConnectionState::WriteTraffic(mut state)) = connection.process_tls_records(&mut []).state {
        let begin = output.len();
        output.resize(begin + data.len() + 1_000, 0);
        let n = state.encrypt(data, &mut output[begin..]).expect("it has space");
        output.truncate(begin + n);
    }
}

/// The length of the first record including its header; `None` until it is complete.
pub fn whole_record(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER>()?;
    let length = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    (bytes.len() >= length).then_some(length)
}

/// Takes the secret of one side's handshake messages from the key log.
#[derive(Debug)]
struct HandshakeSecret {
    label: &'static str,
    secret: Mutex<Option<Vec<u8>>>,
}

impl KeyLog for HandshakeSecret {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if label == self.label {
            *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = Some(secret.to_vec());
        }
    }
}

/// The rest of a rustls session after its keys were extracted. It derives the later keys.
enum Kernel {
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

    fn next(&mut self, is_send: bool) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match (self, is_send) {
            (Self::Client(kernel), true) => kernel.update_tx_secret(),
            (Self::Client(kernel), false) => kernel.update_rx_secret(),
            (Self::Server(kernel), true) => kernel.update_tx_secret(),
            (Self::Server(kernel), false) => kernel.update_rx_secret(),
        }
    }

    fn take_ticket(&mut self, ticket: &[u8]) {
        if let Self::Client(kernel) = self {
            let _ = kernel.handle_new_session_ticket(ticket);
        }
    }
}

struct Sealer {
    sealer: Box<dyn MessageEncrypter>,
    sealed: u64,
}

impl Sealer {
    fn seal(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let version = ProtocolVersion::TLSv1_2;
        let message = OutboundPlainMessage { typ, version, payload: OutboundChunks::Single(payload) };
        let record = self.sealer.encrypt(message, self.sealed).expect("an AEAD seals what is shorter than 64 KiB");
        self.sealed += 1;
        record.encode()
    }
}

/// The record layer after the handshake.
struct Records {
    kernel: Kernel,
    tx: Sealer,
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
}

impl Records {
    fn new(secrets: ExtractedSecrets, kernel: Kernel) -> Self {
        let suite = kernel.suite();
        let ((sealed, send), (opened, receive)) = (secrets.tx, secrets.rx);
        let mut tx = Sealer { sealer: sealer(suite, send), sealed: 0 };
        // aws-lc requires every sequence number, starting with the first. The records sealed here are discarded.
        while tx.sealed < sealed {
            tx.seal(ContentType::ApplicationData, &[]);
        }
        Self { tx, opener: opener(suite, receive), opened, kernel }
    }

    fn open(&mut self, record: &mut [u8], seen: &mut Seen) -> Result<(), Error> {
        let typ = ContentType::from(record[0]);
        let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, &mut record[HEADER..]);
        let plain = self.opener.decrypt(message, self.opened)?;
        self.opened += 1;
        seen.is_late |= seen.is_closed || seen.has_alert;
        match plain.typ {
            ContentType::ApplicationData => seen.data.extend_from_slice(plain.payload),
            ContentType::Alert => match *plain.payload {
                [_, 0] => seen.is_closed = true,
                // The refusal of a renegotiation.
                [1, _] => {}
                _ => seen.has_alert = true,
            },
            ContentType::Handshake => {
                let mut rest = plain.payload;
                while let [typ, high, middle, low, after @ ..] = rest {
                    let len = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
                    let (body, next) = after.split_at_checked(len).ok_or(Error::DecryptError)?;
                    rest = next;
                    match *typ {
                        KEY_UPDATE => {
                            let (_, secrets) = self.kernel.next(false)?;
                            seen.has_updated = true;
                            (self.opened, self.opener) = (0, opener(self.kernel.suite(), secrets));
                        }
                        NEW_SESSION_TICKET => self.kernel.take_ticket(body),
                        _ => return Err(Error::General(format!("a handshake message of type {typ}"))),
                    }
                }
            }
            typ => return Err(Error::General(format!("a record of type {typ:?}"))),
        }
        Ok(())
    }
}

/// The key, the nonce, and the number of nonce bytes that a TLS 1.2 handshake fixes.
fn parts(secrets: ConnectionTrafficSecrets) -> (AeadKey, Iv, usize) {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } | ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
            (key, iv, 4)
        }
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv, 12),
        _ => panic!("a cipher that this target does not know"),
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
