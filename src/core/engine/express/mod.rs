//! The express engine: rustls makes the handshake, the records behind it are ours.
//!
//! # Theory of operation
//!
//! Until the handshake is done, rustls's unbuffered API is given whole records and says what to send ([`handshake`]). Then
//! rustls hands over the traffic keys, and keeps what the keys come from ([`rustls::kernel`]): it makes new ones at a
//! KeyUpdate, and keeps tickets. What protects a record stays the provider's ([`aead`]); the layer above it, which
//! says what a record is for and what is wrong with it, is here ([`records`]).
//!
//! What it saves: a record is sealed where it leaves from, and opened where it is read: in the reader's buffer, or, where that
//! has no room for all of it, where it was received. And nothing of the handshake stays.

mod aead;
mod gather;
mod handshake;
mod hello;
mod keys;
mod records;

use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, CommonState, Error, ServerConfig};

use self::aead::Place;
use self::handshake::Handshake;
use self::records::{Found, Records};
use crate::core::buffer::Buffer;

/// The engine.
pub(in crate::core) struct Express {
    state: State,
    /// Records that wait to leave.
    out: Buffer,
    /// The plaintext that was opened and not read: within the first record of the input.
    opened: Opened,
    peer_has_closed: bool,
    alert_sent: Option<AlertDescription>,
}

enum State {
    Handshake(Box<Handshake>),
    Records(Box<Records>),
    /// The keys could not be handed over.
    Failed,
}

/// Opened plaintext: `len` bytes behind `skip` others, and `rest` behind it, at the front of the input.
#[derive(Default, Clone, Copy)]
struct Opened {
    skip: usize,
    len: usize,
    rest: usize,
}

/// What is wrong, and the alert that says so to the peer.
#[derive(Debug)]
struct Fault {
    error: Error,
    alert: Option<AlertDescription>,
}

impl Express {
    pub(in crate::core) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Self::begin(Handshake::client(config, name)?)
    }

    pub(in crate::core) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Self::begin(Handshake::server(config)?)
    }

    fn begin(mut handshake: Handshake) -> Result<Self, Error> {
        let mut out = Buffer::default();
        handshake.go_on(&mut [], &mut out)?;
        let state = State::Handshake(Box::new(handshake));
        Ok(Self { state, out, opened: Opened::default(), peer_has_closed: false, alert_sent: None })
    }

    /// Whether the handshake is still under way, for rustls.
    pub(in crate::core) fn is_handshaking(&self) -> bool {
        self.common().is_some_and(CommonState::is_handshaking)
    }

    /// What the handshake agreed on, as long as it is there.
    pub(in crate::core) fn common(&self) -> Option<&CommonState> {
        match &self.state {
            State::Handshake(handshake) => Some(handshake.common()),
            State::Records(_) | State::Failed => None,
        }
    }

    /// The name that a client has asked for.
    pub(in crate::core) fn take_sni(&mut self) -> Option<String> {
        match &mut self.state {
            State::Handshake(handshake) => handshake.take_sni(),
            State::Records(_) | State::Failed => None,
        }
    }

    /// The handshake is done, and its facts were taken: from here on the records are ours.
    pub(in crate::core) fn finish_handshake(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Handshake(handshake) => {
                let is_aligned = handshake.is_aligned();
                self.state = State::Records(Box::new(handshake.into_records()?));
                if !is_aligned {
                    // rustls has seen the begin of a message that it will not see the end of.
                    return Err(self.fail(records::unaligned()));
                }
            }
            state @ (State::Records(_) | State::Failed) => self.state = state,
        }
        Ok(())
    }

    /// How many bytes at the front of the input were seen and are needed still: the begin of a handshake message.
    pub(in crate::core) fn kept(&self) -> usize {
        match &self.state {
            State::Handshake(handshake) => handshake.kept(),
            State::Records(_) | State::Failed => 0,
        }
    }

    /// Opens the record of this length behind what is kept. Says how much plaintext `reader` was given.
    pub(in crate::core) fn open(
        &mut self,
        input: &mut Buffer,
        record: usize,
        reader: &mut [u8],
    ) -> Result<usize, Error> {
        match &mut self.state {
            State::Failed => Err(Error::HandshakeNotComplete),
            State::Handshake(handshake) => {
                let seen = handshake.kept() + record;
                let consumed = handshake.go_on(&mut input.as_mut_slice()[..seen], &mut self.out);
                input.consume(*consumed.as_ref().unwrap_or(&seen));
                consumed.map(|_| 0)
            }
            State::Records(records) => match records.open(&mut input.as_mut_slice()[..record], reader, &mut self.out) {
                Ok(Found::Data { place: Place::Record(skip), len }) if len > 0 => {
                    self.opened = Opened { skip, len, rest: record - skip - len };
                    Ok(0)
                }
                Ok(Found::Data { len, .. }) => {
                    input.consume(record);
                    Ok(len)
                }
                Ok(found @ (Found::Nothing | Found::Closed)) => {
                    input.consume(record);
                    self.peer_has_closed |= matches!(found, Found::Closed);
                    Ok(0)
                }
                Err(fault) => Err(self.fail(fault)),
            },
        }
    }

    /// Whether a reader's buffer of this size is as good as any for the record of this length.
    pub(in crate::core) fn suits(&self, room: usize, record: usize) -> bool {
        match &self.state {
            State::Records(records) => records.suits(room, record),
            State::Handshake(_) | State::Failed => true,
        }
    }

    fn fail(&mut self, fault: Fault) -> Error {
        if let (State::Records(records), Some(alert)) = (&mut self.state, fault.alert) {
            records.send_fatal(alert, &mut self.out);
            self.alert_sent = fault.alert;
        }
        fault.error
    }

    /// The alert that was sent, where it was encrypted.
    pub(in crate::core) fn alert_sent(&self) -> Option<AlertDescription> {
        self.alert_sent
    }

    /// How much plaintext was opened and not read.
    pub(in crate::core) fn opened(&self) -> usize {
        self.opened.len
    }

    pub(in crate::core) fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// The plaintext that was opened and not read.
    pub(in crate::core) fn plaintext<'a>(&self, input: &'a Buffer) -> &'a [u8] {
        &input.as_slice()[self.opened.skip..][..self.opened.len]
    }

    /// Copies of it what there is room for.
    pub(in crate::core) fn read(&mut self, out: &mut [u8], input: &mut Buffer) -> usize {
        let n = self.opened.len.min(out.len());
        out[..n].copy_from_slice(&self.plaintext(input)[..n]);
        self.consume(n, input);
        n
    }

    /// `n` bytes of it were read.
    pub(in crate::core) fn consume(&mut self, n: usize, input: &mut Buffer) {
        let Opened { skip, len, rest } = &mut self.opened;
        (*skip, *len) = (*skip + n, *len - n);
        if *len == 0 {
            input.consume(*skip + *rest);
            self.opened = Opened::default();
        }
    }

    /// The input was thrown away, and what was opened with it.
    pub(in crate::core) fn forget_input(&mut self) {
        self.forget_opened();
    }

    pub(in crate::core) fn forget_opened(&mut self) {
        self.opened = Opened::default();
    }

    /// Seals these parts up to `room` bytes; says how much. It is less where the keys are used up (TLS 1.2).
    pub(in crate::core) fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let State::Records(records) = &mut self.state else { return 0 };
        records.seal_data(parts, room, &mut self.out)
    }

    /// Does the same, in the queue that they leave from.
    pub(in crate::core) fn write_after(&mut self, parts: &[IoSlice<'_>], room: usize, queue: &mut Buffer) -> usize {
        queue.append(&mut self.out);
        let State::Records(records) = &mut self.state else { return 0 };
        records.seal_data(parts, room, queue)
    }

    /// Answers a KeyUpdate that asked for one.
    pub(in crate::core) fn answer(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.answer(&mut self.out);
        }
    }

    pub(in crate::core) fn send_close_notify(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.send_close_notify(&mut self.out);
        }
    }

    /// Sends an alert for a handshake that has failed. A failure after the handshake sends its own alert.
    pub(in crate::core) fn send_missing_alert(&mut self) {
        if let State::Handshake(handshake) = &mut self.state {
            handshake.provoke_alert(&mut self.out);
            self.alert_sent = (!self.out.is_empty()).then_some(AlertDescription::DecodeError);
        }
    }

    /// Sends an alert that says that we cut the session off.
    pub(in crate::core) fn send_internal_error(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.send_fatal(AlertDescription::InternalError, &mut self.out);
        }
    }

    pub(in crate::core) fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes records, as many as the layer takes at once.
    #[inline]
    pub(in crate::core) fn write_tls(&mut self, layer: &mut impl io::Write) -> io::Result<usize> {
        let written = layer.write(self.out.as_slice())?;
        self.out.consume(written);
        // An idle session holds no memory for it.
        self.out.release();
        Ok(written)
    }

    /// Puts the records that wait behind those of `queue`.
    pub(in crate::core) fn collect(&mut self, queue: &mut Buffer) {
        queue.append(&mut self.out);
    }

    /// Discards the records that wait.
    pub(in crate::core) fn discard(&mut self) {
        self.out.clear();
    }
}
