//! The express engine: rustls does the handshake, and this module handles the records after it.
//!
//! # Theory of operation
//!
//! Until the handshake is done, rustls's unbuffered API gets whole records and returns the bytes to send
//! ([`handshake`]). Then rustls passes the traffic keys to this module, and keeps the secrets ([`rustls::kernel`]): it
//! derives new keys at a KeyUpdate, and stores tickets. The provider's AEAD seals and opens each record ([`aead`]). The
//! record layer, which checks each record and handles its type, is in [`records`].
//!
//! This saves copies: a record is sealed in the queue from which it is sent, and opened in the reader's buffer. If that
//! buffer has no space for the whole record, the record is opened where it was received. It also saves memory, because
//! no state of the handshake is kept.

mod aead;
pub(crate) mod exporter;
mod handshake;
mod keys;
mod records;
mod slice_reader;

use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, CommonState, Error, ServerConfig};

use self::aead::Location;
use self::exporter::Exporter;
use self::handshake::Handshake;
use self::records::{Found, Records};
use super::export::Master;
use super::interface::Engine;
use crate::core::buffer::Buffer;
use crate::error::SessionError;

/// The engine.
pub(in crate::core) struct Express {
    state: State,
    /// Records that have not been sent.
    out: Buffer,
    /// Plaintext that was opened and not read, inside the first record of the input.
    opened: Opened,
    /// The close_notify of the peer has arrived. Opened data may precede it.
    peer_has_closed: bool,
    alert_sent: Option<AlertDescription>,
    master: Master,
    exporter: Option<Exporter>,
}

enum State {
    Handshake(Box<Handshake>),
    Records(Box<Records>),
    /// rustls could not hand over the keys.
    Failed,
}

/// Opened plaintext at the front of the input: `len` bytes, with `skip` other bytes before and `rest` bytes after them.
#[derive(Default, Clone, Copy)]
struct Opened {
    skip: usize,
    len: usize,
    rest: usize,
}

impl Opened {
    fn of(self, input: &Buffer) -> &[u8] {
        &input.as_slice()[self.skip..][..self.len]
    }
}

/// A failure, and the alert that reports it to the peer.
#[derive(Debug)]
struct Fault {
    error: Error,
    alert: Option<AlertDescription>,
}

impl Express {
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        Self::from_handshake(Handshake::client(config, name)?)
    }

    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Self::from_handshake(Handshake::server(config)?)
    }

    fn from_handshake(mut handshake: Handshake) -> Result<Self, Error> {
        let mut out = Buffer::default();
        handshake.go_on(&mut [], &mut out)?;
        let state = State::Handshake(Box::new(handshake));
        Ok(Self {
            state,
            out,
            opened: Opened::default(),
            peer_has_closed: false,
            alert_sent: None,
            master: Master::default(),
            exporter: None,
        })
    }

    fn fail(&mut self, fault: Fault) -> Error {
        if let (State::Records(records), Some(alert)) = (&mut self.state, fault.alert) {
            records.send_fatal(alert, &mut self.out);
            self.alert_sent = fault.alert;
        }
        fault.error
    }
}

impl Engine for Express {
    fn is_handshaking(&self) -> bool {
        self.common().is_some_and(CommonState::is_handshaking)
    }

    /// The result of the handshake, until it is taken.
    fn common(&self) -> Option<&CommonState> {
        match &self.state {
            State::Handshake(handshake) => Some(handshake.common()),
            State::Records(_) | State::Failed => None,
        }
    }

    fn take_sni(&mut self) -> Option<String> {
        match &mut self.state {
            State::Handshake(handshake) => handshake.sni(),
            State::Records(_) | State::Failed => None,
        }
    }

    /// From now on, this engine handles the records.
    fn finish_handshake(&mut self) -> Result<(), Error> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Handshake(handshake) => {
                self.master = handshake.master();
                self.exporter = handshake.exporter();
                let is_aligned = handshake.is_aligned();
                self.state = State::Records(Box::new(handshake.into_records()?));
                if !is_aligned {
                    // rustls has seen the start of a message and will not get the rest.
                    return Err(self.fail(records::unaligned()));
                }
            }
            state @ (State::Records(_) | State::Failed) => self.state = state,
        }
        Ok(())
    }

    /// Whether the secrets belong to this session alone.
    fn master(&self) -> Master {
        self.master
    }

    fn export(&self, out: &mut [u8], label: &[u8], context: Option<&[u8]>) -> Result<(), SessionError> {
        let (State::Records(records), Some(exporter)) = (&self.state, &self.exporter) else {
            return Err(SessionError::NoExporter);
        };
        exporter.export(records.suite(), out, label, context)
    }

    /// The kept bytes are the start of a handshake message, which rustls has seen and still needs.
    fn kept(&self) -> usize {
        match &self.state {
            State::Handshake(handshake) => handshake.kept(),
            State::Records(_) | State::Failed => 0,
        }
    }

    fn open(&mut self, input: &mut Buffer, record: usize, reader: &mut [u8]) -> Result<usize, Error> {
        match &mut self.state {
            State::Failed => Err(Error::HandshakeNotComplete),
            State::Handshake(handshake) => {
                let seen = handshake.kept() + record;
                let consumed = handshake.go_on(&mut input.as_mut_slice()[..seen], &mut self.out);
                input.consume(*consumed.as_ref().unwrap_or(&seen));
                consumed.map(|_| 0)
            }
            State::Records(records) => match records.open(&mut input.as_mut_slice()[..record], reader, &mut self.out) {
                Ok(Found::Data { place: Location::Record(skip), len }) if len > 0 => {
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

    fn suits(&self, room: usize, record: usize) -> bool {
        match &self.state {
            State::Records(records) => records.suits(room, record),
            State::Handshake(_) | State::Failed => true,
        }
    }

    /// The alert that was sent, if it was encrypted.
    fn alert_sent(&self) -> Option<AlertDescription> {
        self.alert_sent
    }

    fn opened(&self) -> usize {
        self.opened.len
    }

    fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    fn plaintext<'a>(&'a mut self, input: &'a Buffer) -> &'a [u8] {
        self.opened.of(input)
    }

    fn read(&mut self, out: &mut [u8], input: &mut Buffer) -> usize {
        let n = self.opened.len.min(out.len());
        out[..n].copy_from_slice(&self.opened.of(input)[..n]);
        self.consume(n, input);
        n
    }

    fn consume(&mut self, n: usize, input: &mut Buffer) {
        let Opened { skip, len, rest } = &mut self.opened;
        (*skip, *len) = (*skip + n, *len - n);
        if *len == 0 {
            input.consume(*skip + *rest);
            self.opened = Opened::default();
        }
    }

    /// The opened plaintext is in the input, so it is discarded too.
    fn forget_input(&mut self) {
        self.forget_opened();
    }

    fn forget_opened(&mut self) {
        self.opened = Opened::default();
    }

    /// Seals up to `room` bytes of these parts, and returns how many. It seals less if the key is used up (TLS 1.2).
    fn write(&mut self, parts: &[IoSlice<'_>], room: usize) -> usize {
        let State::Records(records) = &mut self.state else { return 0 };
        records.seal_data(parts, room, &mut self.out)
    }

    /// As `write`, directly in the queue from which the records are sent.
    fn write_after(&mut self, parts: &[IoSlice<'_>], room: usize, queue: &mut Buffer) -> usize {
        queue.append(&mut self.out);
        let State::Records(records) = &mut self.state else { return 0 };
        records.seal_data(parts, room, queue)
    }

    fn answer(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.answer(&mut self.out);
        }
    }

    fn send_close_notify(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.send_close_notify(&mut self.out);
        }
    }

    /// Sends an alert for a handshake that has failed. A failure after the handshake sends its own alert.
    fn send_missing_alert(&mut self) {
        if let State::Handshake(handshake) = &mut self.state {
            handshake.provoke_alert(&mut self.out);
            self.alert_sent = (!self.out.is_empty()).then_some(AlertDescription::DecodeError);
        }
    }

    fn send_internal_error(&mut self) {
        if let State::Records(records) = &mut self.state {
            records.send_fatal(AlertDescription::InternalError, &mut self.out);
        }
    }

    fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    fn write_tls(&mut self, layer: &mut dyn io::Write) -> io::Result<usize> {
        let written = layer.write(self.out.as_slice())?;
        self.out.consume(written);
        // The memory is released, so that an idle session holds none for records.
        self.out.release();
        Ok(written)
    }

    fn collect(&mut self, queue: &mut Buffer) {
        queue.append(&mut self.out);
    }

    fn discard(&mut self) {
        self.out.clear();
    }
}
