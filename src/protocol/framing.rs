//! Protocols of messages: any codec of tokio-util's cuts the bytes, and puts them together.
//!
//! A decoder keeps what it was shown, and takes bytes off it as it likes; the transport must know at any time which bytes
//! belong to whole messages, for those behind are leftover when TLS is started (rule: upgrade-2). So what the protocol is
//! said to be done with ends at the border of a message always, and the decoder has a copy of what is behind.

use std::fmt;
use std::ops::ControlFlow::{self, Break, Continue};

use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;

use super::conn::{Reading, UpgradableTransport};
use super::message::{MessageProtocol, MessageTransport};
use super::{AfterRead, Outcome, Protocol};
use crate::core::half::End;
use crate::error::Reason;

/// How many messages in a row a codec may make without taking a byte: a decoder may take a piece whole, and then return its
/// messages one by one. More are an error (rule: life-6).
const MAX_OF_NOTHING: usize = 1 << 16;

/// A [`MessageProtocol`] as a [`Protocol`].
pub struct Framed<M: MessageProtocol> {
    messages: M,
    framing: Framing<M::Codec>,
}

impl<M: MessageProtocol> fmt::Debug for Framed<M> {
    /// Shows only lengths, and nothing of the codec or the protocol (rule: tcp-11).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed")
            .field("shown", &self.framing.shown)
            .field("unread", &self.framing.buffer.len())
            .field("is_raw", &self.framing.is_raw)
            .finish_non_exhaustive()
    }
}

impl<M: MessageProtocol> Framed<M> {
    /// Has the bytes cut by [`MessageProtocol::codec`].
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
        transport: &mut dyn UpgradableTransport,
        call: impl FnOnce(&mut M, &mut MessageTransport<'_, M::Codec>) -> Outcome<R>,
    ) -> Outcome<R> {
        call(&mut self.messages, &mut MessageTransport { transport, framing: &mut self.framing })
    }

    /// What was left unread has gone back to the transport. A codec that has seen any of it is no more.
    fn renew(&mut self) {
        if self.framing.is_used {
            self.framing = Framing { is_raw: self.framing.is_raw, ..Framing::new(self.messages.codec()) };
        }
    }

    /// Says how much of the rest is done with, and whether more is to be made of it.
    fn deliver(&mut self, transport: &mut dyn UpgradableTransport, rest: &[u8]) -> Outcome<ControlFlow<usize, usize>> {
        if self.framing.is_raw { self.deliver_raw(transport, rest) } else { self.deliver_message(transport, rest) }
    }

    fn deliver_raw(
        &mut self,
        transport: &mut dyn UpgradableTransport,
        rest: &[u8],
    ) -> Outcome<ControlFlow<usize, usize>> {
        if rest.is_empty() {
            return Ok(Break(0));
        }
        let done = self.notify(transport, |messages, transport| messages.raw_received(transport, rest))?;
        if done > rest.len() {
            return Err(format!("the protocol is done with {done} raw bytes of {}", rest.len()).into());
        }
        Ok(if self.framing.is_raw { Break(done) } else { Continue(done) })
    }

    fn deliver_message(
        &mut self,
        transport: &mut dyn UpgradableTransport,
        rest: &[u8],
    ) -> Outcome<ControlFlow<usize, usize>> {
        self.framing.show(rest);
        match self.framing.codec.decode(&mut self.framing.buffer) {
            Ok(None) => {
                self.framing.is_stuck = false;
                Ok(Break(0))
            }
            Ok(Some(message)) => {
                self.framing.is_stuck = false;
                let done = self.framing.cut();
                self.notify(transport, |messages, transport| messages.message_received(transport, message))?;
                Ok(Continue(done))
            }
            Err(error) => {
                let done = self.framing.cut();
                if std::mem::replace(&mut self.framing.is_stuck, done == 0) && done == 0 {
                    return Err(error.into());
                }
                self.notify(transport, |messages, transport| messages.frame_error(transport, error))?;
                Ok(Continue(done))
            }
        }
    }

    /// The peer has ended in order: the codec makes of the rest what it can. What is paused now has no later.
    fn deliver_last(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        while !self.framing.is_raw && matches!(transport.reading(), Reading::Open | Reading::Paused) {
            match self.framing.codec.decode_eof(&mut self.framing.buffer) {
                Ok(Some(message)) => {
                    let done = self.framing.cut();
                    self.framing.count(done)?;
                    self.notify(transport, |messages, transport| messages.message_received(transport, message))?;
                }
                Ok(None) => break,
                Err(error) => {
                    return self.notify(transport, |messages, transport| messages.frame_error(transport, error));
                }
            }
        }
        Ok(())
    }
}

impl<M: MessageProtocol> Protocol for Framed<M> {
    fn connection_made(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.notify(transport, M::connection_made)
    }

    fn handshake_completed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.renew();
        self.notify(transport, M::handshake_completed)
    }

    fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
        let mut done = 0;
        self.framing.is_delivering = true;
        while transport.reading() == Reading::Open {
            match self.deliver(transport, &data[done..])? {
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

    fn writable(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.notify(transport, M::writable)
    }

    fn tls_stopped(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.renew();
        self.notify(transport, M::tls_stopped)
    }

    fn timer_fired(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.notify(transport, M::timer_fired)
    }

    fn draining(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.notify(transport, M::draining)
    }

    fn read_closed(&mut self, transport: &mut dyn UpgradableTransport, end: End) -> Outcome<AfterRead> {
        match end {
            End::Clean => self.deliver_last(transport)?,
            End::Truncated | End::Unconfirmed => {}
        }
        self.notify(transport, |messages, transport| messages.read_closed(transport, end))
    }

    fn write_closed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.notify(transport, M::write_closed)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.messages.connection_lost(reason);
    }
}

/// A codec, and what it has seen of the bytes that are not done with.
pub(super) struct Framing<C> {
    pub(super) codec: C,
    /// What the decoder was shown and has not taken.
    buffer: BytesMut,
    /// How much of the bytes that are not done with the decoder was shown. What it took of them is half a message.
    shown: usize,
    /// The decoder has seen bytes.
    pub(super) is_used: bool,
    pub(super) is_raw: bool,
    pub(super) is_delivering: bool,
    /// The decoder has failed, and has taken nothing.
    is_stuck: bool,
    /// Messages since the last one for which a byte was taken.
    of_nothing: usize,
    /// A message that leaves.
    pub(super) out: BytesMut,
}

impl<C> Framing<C> {
    fn new(codec: C) -> Self {
        Self {
            codec,
            buffer: BytesMut::new(),
            shown: 0,
            is_used: false,
            is_raw: false,
            is_delivering: false,
            is_stuck: false,
            of_nothing: 0,
            out: BytesMut::new(),
        }
    }

    /// Shows the decoder what it has not seen of these bytes, which are not done with.
    fn show(&mut self, undone: &[u8]) {
        let new = &undone[self.shown..];
        self.buffer.extend_from_slice(new);
        self.shown = undone.len();
        self.is_used |= !new.is_empty();
    }

    /// A message ends where the decoder is: says how many bytes are done with.
    fn cut(&mut self) -> usize {
        // Saturating: a codec may not add bytes, and must not make us panic.
        let done = self.shown.saturating_sub(self.buffer.len());
        self.shown -= done;
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
        }
        done
    }

    /// The codec has made a message from this many bytes.
    fn count(&mut self, done: usize) -> Outcome {
        self.of_nothing = if done == 0 { self.of_nothing + 1 } else { 0 };
        if self.of_nothing > MAX_OF_NOTHING {
            return Err("the codec makes messages without end and takes no byte".into());
        }
        Ok(())
    }

    /// Whoever goes on is shown all that is not done with.
    pub(super) fn forget(&mut self) {
        self.buffer = BytesMut::new();
        self.shown = 0;
    }
}
