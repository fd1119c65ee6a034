//! A peer of one session. rustls does its handshake, which a target may put into other records. After the handshake,
//! the target chooses each record that the peer seals.

use std::sync::{Arc, Mutex, PoisonError};

use bowline::rustls::client::UnbufferedClientConnection;
use bowline::rustls::crypto::cipher::{AeadKey, Iv};
use bowline::rustls::crypto::tls13::OkmBlock;
use bowline::rustls::server::UnbufferedServerConnection;
use bowline::rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use bowline::rustls::{ClientConfig, ContentType, Error, KeyLog, ServerConfig, SupportedCipherSuite};

use super::record::{Kernel, Opener, Records, Sealer, whole_record};

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
        records.seal(typ.into(), payload)
    }

    /// Seals with the next key from now on.
    pub fn update_key(&mut self) {
        let State::Open(records) = &mut self.state else { panic!("the handshake is not done") };
        records.update_send_keys().expect("only TLS 1.3 has KeyUpdate");
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
        let mut opener = Opener::new(suite.aead_alg.decrypter(AeadKey::from(key), Iv::from(iv)));
        let mut sealer = Sealer::new(suite.aead_alg.encrypter(AeadKey::from(key), Iv::from(iv)));
        let (mut flight, mut messages) = (Vec::new(), Vec::new());
        let mut rest = &mut self.output[..];
        while let Some(n) = whole_record(rest) {
            let (record, after) = rest.split_at_mut(n);
            rest = after;
            if record[0] != APPLICATION_DATA {
                flight.extend_from_slice(record);
                continue;
            }
            messages.extend(opener.open(record).expect("our own record").1);
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
            if let Err(error) = self.seen.open(records, &mut record) {
                self.seen.garbage.get_or_insert(error);
            }
        }
    }
}

impl Seen {
    fn open(&mut self, records: &mut Records, record: &mut [u8]) -> Result<(), Error> {
        let (typ, payload) = records.open(record)?;
        self.is_late |= self.is_closed || self.has_alert;
        match typ {
            ContentType::ApplicationData => self.data.extend(payload),
            ContentType::Alert => match *payload {
                [_, 0] => self.is_closed = true,
                // The refusal of a renegotiation.
                [1, _] => {}
                _ => self.has_alert = true,
            },
            ContentType::Handshake => {
                let mut rest = &payload[..];
                while let [typ, high, middle, low, after @ ..] = rest {
                    let len = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
                    let (body, next) = after.split_at_checked(len).ok_or(Error::DecryptError)?;
                    rest = next;
                    match (*typ, &mut records.kernel) {
                        (KEY_UPDATE, _) => {
                            records.update_receive_keys()?;
                            self.has_updated = true;
                        }
                        (NEW_SESSION_TICKET, Kernel::Client(kernel)) => _ = kernel.handle_new_session_ticket(body),
                        (NEW_SESSION_TICKET, Kernel::Server(_)) => {}
                        _ => return Err(Error::General(format!("a handshake message of type {typ}"))),
                    }
                }
            }
            typ => return Err(Error::General(format!("a record of type {typ:?}"))),
        }
        Ok(())
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
