//! Runs a protocol of messages as a protocol of bytes: any `tokio-util` codec cuts the bytes into messages.

use std::fmt;
use std::ops::ControlFlow::{self, Break, Continue};

use tokio_util::codec::Decoder;

use super::callbacks::{AfterRead, Protocol};
use super::conn::{Conn, Reading};
use super::failure::CallbackResult;
use super::framing::Framing;
use super::message::{MessageConn, MessageProtocol};
use crate::core::half::End;
use crate::error::Reason;

/// Makes a [`Protocol`] of a [`MessageProtocol`]: `Runner::new(Framed::new(protocol), transport)`.
pub struct Framed<M: MessageProtocol> {
    messages: M,
    framing: Framing<M::Codec>,
}

impl<M: MessageProtocol> fmt::Debug for Framed<M> {
    /// Shows only lengths, and no content of the codec or the protocol (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed")
            .field("shown", &self.framing.shown)
            .field("unread", &self.framing.buffer.len())
            .field("is_raw", &self.framing.is_raw)
            .finish_non_exhaustive()
    }
}

impl<M: MessageProtocol> Framed<M> {
    /// Uses the codec that [`MessageProtocol::codec`] returns.
    pub fn new(messages: M) -> Self {
        let framing = Framing::new(messages.codec());
        Self { messages, framing }
    }

    /// The protocol of messages.
    pub fn messages(&self) -> &M {
        &self.messages
    }

    fn notify<R>(
        &mut self,
        conn: &mut dyn Conn,
        call: impl FnOnce(&mut M, &mut MessageConn<'_, M::Codec>) -> CallbackResult<R>,
    ) -> CallbackResult<R> {
        call(&mut self.messages, &mut MessageConn { conn, framing: &mut self.framing })
    }

    /// The unprocessed bytes have gone back to the transport. If the codec has seen any of them, it is replaced.
    fn renew(&mut self) {
        if self.framing.is_used {
            self.framing.restart(self.messages.codec());
        }
    }

    /// Returns how many bytes of `rest` were processed, and whether to continue with the bytes after them.
    fn deliver(&mut self, conn: &mut dyn Conn, rest: &[u8]) -> CallbackResult<ControlFlow<usize, usize>> {
        if self.framing.is_raw { self.deliver_raw(conn, rest) } else { self.deliver_message(conn, rest) }
    }

    fn deliver_raw(&mut self, conn: &mut dyn Conn, rest: &[u8]) -> CallbackResult<ControlFlow<usize, usize>> {
        if rest.is_empty() {
            return Ok(Break(0));
        }
        let done = self.notify(conn, |messages, conn| messages.raw_received(conn, rest))?;
        if done > rest.len() {
            return Err(format!("the protocol reported {done} processed raw bytes, of {}", rest.len()).into());
        }
        Ok(if self.framing.is_raw { Break(done) } else { Continue(done) })
    }

    fn deliver_message(&mut self, conn: &mut dyn Conn, rest: &[u8]) -> CallbackResult<ControlFlow<usize, usize>> {
        self.framing.show(rest);
        match self.framing.codec.decode(&mut self.framing.buffer) {
            Ok(None) => {
                self.framing.is_stuck = false;
                Ok(Break(0))
            }
            Ok(Some(message)) => {
                self.framing.is_stuck = false;
                let done = self.framing.cut();
                self.notify(conn, |messages, conn| messages.message_received(conn, message))?;
                Ok(Continue(done))
            }
            Err(error) => {
                let done = self.framing.cut();
                if std::mem::replace(&mut self.framing.is_stuck, done == 0) && done == 0 {
                    return Err(error.into());
                }
                self.notify(conn, |messages, conn| messages.frame_error(conn, error))?;
                Ok(Continue(done))
            }
        }
    }

    /// The peer has ended in order: the codec decodes the rest as far as possible. This happens even while reading is
    /// paused, because there is no later opportunity.
    fn deliver_last(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        while !self.framing.is_raw && matches!(conn.reading(), Reading::Open | Reading::Paused) {
            match self.framing.codec.decode_eof(&mut self.framing.buffer) {
                Ok(Some(message)) => {
                    let done = self.framing.cut();
                    self.framing.count(done)?;
                    self.notify(conn, |messages, conn| messages.message_received(conn, message))?;
                }
                Ok(None) => break,
                Err(error) => {
                    return self.notify(conn, |messages, conn| messages.frame_error(conn, error));
                }
            }
        }
        Ok(())
    }
}

impl<M: MessageProtocol> Protocol for Framed<M> {
    fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.notify(conn, M::connection_made)
    }

    fn handshake_completed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.renew();
        self.notify(conn, M::handshake_completed)
    }

    fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        let mut done = 0;
        self.framing.is_delivering = true;
        while conn.reading() == Reading::Open {
            match self.deliver(conn, &data[done..])? {
                Continue(n) => {
                    self.framing.count(n)?;
                    done += n;
                }
                Break(n) => {
                    done += n;
                    break;
                }
            }
        }
        self.framing.is_delivering = false;
        Ok(done)
    }

    fn max_unread(&self) -> usize {
        self.messages.max_unread()
    }

    fn stops_reading_when_full(&self) -> bool {
        self.messages.stops_reading_when_full()
    }

    fn writable(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.notify(conn, M::writable)
    }

    fn tls_stopped(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.renew();
        self.notify(conn, M::tls_stopped)
    }

    fn timer_fired(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.notify(conn, M::timer_fired)
    }

    fn draining(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.notify(conn, M::draining)
    }

    fn read_closed(&mut self, conn: &mut dyn Conn, end: End) -> CallbackResult<AfterRead> {
        match end {
            End::Clean => self.deliver_last(conn)?,
            End::Truncated | End::Unconfirmed => {}
        }
        self.notify(conn, |messages, conn| messages.read_closed(conn, end))
    }

    fn write_closed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.notify(conn, M::write_closed)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.messages.connection_lost(reason);
    }
}
