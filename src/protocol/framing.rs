//! Protocols of messages: any codec of tokio-util's cuts the bytes, and puts them together.
//!
//! A decoder keeps what it was shown, and takes bytes off it as it likes; the transport must know at any time which bytes
//! belong to whole messages, for those behind are leftover when TLS is started (rule: upgrade-2). So what the protocol is
//! said to be done with ends at the border of a message always, and the decoder has a copy of what is behind.

use std::ops::ControlFlow::{self, Break, Continue};
use std::ops::{Deref, DerefMut};

use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::transport::{Reading, UpgradableTransport};
use super::{AfterRead, Failure, Outcome, Protocol};
use crate::core::half::End;
use crate::error::Reason;

/// Memory for messages that leave which is kept for the next, in bytes.
const KEPT: usize = 1 << 12;

/// A [`Protocol`] whose bytes are cut into messages, and put together from them, by a codec: lines, frames that begin with
/// their length, or your own. [`Framed`] makes a `Protocol` of it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::protocol::{Framed, MessageProtocol, MessageTransport, Outcome, Runner};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio_util::codec::LinesCodec;
///
/// struct Shout;
///
/// impl MessageProtocol for Shout {
///     type Codec = LinesCodec;
///
///     fn codec(&self) -> LinesCodec {
///         LinesCodec::new_with_max_length(1000)
///     }
///
///     fn message_received(&mut self, transport: &mut MessageTransport<'_, LinesCodec>, line: String) -> Outcome {
///         transport.send(line.to_uppercase())
///     }
/// }
///
/// let (mut client, server) = bowline::testing::tcp_pair().await?;
/// let serving = tokio::spawn(Runner::new(Framed::new(Shout), server).run());
/// client.write_all(b"hello\r\nwor").await?;
/// client.write_all(b"ld\r\n").await?;
/// bowline::Transport::close_write(&mut client).await?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "HELLO\nWORLD\n");
/// assert!(serving.await?.is_clean());
/// # Ok(()) }
/// ```
///
/// # Which messages are delivered
///
/// Each message once, in order, however the bytes were cut on their way. From the moment in which
/// [`Transport::reading`](super::Transport::reading) says otherwise, none: behind `pause_reading` they stay where they are
/// (rule: flow-4), behind `start_tls` they are leftover and are judged, never delivered (rules: upgrade-2, upgrade-3),
/// behind `close` and `abort` they are thrown away (rules: close-10, abort-3). That holds for a
/// [`Handle`](super::Handle)'s calls too.
///
/// # What the codec may remember
///
/// After a change between plaintext and TLS the decoder begins with an empty buffer. A codec that has seen a byte ahead of
/// the change is replaced by a new one, of [`codec`](Self::codec): nothing that an attacker said in plaintext is remembered
/// in TLS.
#[doc(alias = "LineReceiver")]
#[doc(alias = "LineOnlyReceiver")]
#[doc(alias = "NetstringReceiver")]
#[doc(alias = "IntNStringReceiver")]
#[doc(alias = "Int32StringReceiver")]
pub trait MessageProtocol: Send + 'static {
    /// Cuts bytes into messages; as an [`Encoder`], puts them together.
    type Codec: Decoder<Error: Into<Failure>> + Send + 'static;

    /// A new codec, for the begin of the connection, or for what follows on a change between plaintext and TLS. Give it a
    /// limit: a message without an end must not take all memory.
    fn codec(&self) -> Self::Codec;

    /// As [`Protocol::connection_made`].
    #[doc(alias = "connectionMade")]
    fn connection_made(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::handshake_completed`].
    #[doc(alias = "handshakeCompleted")]
    fn handshake_completed(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// A message has come.
    #[doc(alias = "lineReceived")]
    #[doc(alias = "stringReceived")]
    fn message_received(
        &mut self,
        transport: &mut MessageTransport<'_, Self::Codec>,
        message: <Self::Codec as Decoder>::Item,
    ) -> Outcome;

    /// Bytes have come behind [`set_raw`](MessageTransport::set_raw). As [`Protocol::data_received`] it returns how many of
    /// them are done with; those behind a [`set_codec`](MessageTransport::set_codec) are messages again.
    #[doc(alias = "rawDataReceived")]
    fn raw_received(&mut self, transport: &mut MessageTransport<'_, Self::Codec>, data: &[u8]) -> Outcome<usize> {
        let _ = (transport, data);
        Err("raw data for a protocol of messages only".into())
    }

    /// The bytes are no message: a line that is too long, a length beyond the limit, an unfinished message at the peer's
    /// end. By default the connection ends with this error as its reason (rule: life-3). A protocol may answer first, and
    /// close; it may even go on, where the codec finds the next message, or another does: where the next try fails at the
    /// same place, the connection ends.
    #[doc(alias = "lineLengthExceeded")]
    #[doc(alias = "lengthLimitExceeded")]
    fn frame_error(
        &mut self,
        transport: &mut MessageTransport<'_, Self::Codec>,
        error: <Self::Codec as Decoder>::Error,
    ) -> Outcome {
        let _ = transport;
        Err(error.into())
    }

    /// How many bytes a message may have, together with what frames it, and how many `raw_received` may leave; default
    /// 1 MiB. Past it the connection ends, with [`Unread`](super::Unread) as the reason. It bounds the memory of codecs
    /// that have no limit, and what a codec throws away of a message that was too long. One that has a limit fails in its
    /// own words where that is the lower one: set this above it.
    #[doc(alias = "MAX_LENGTH")]
    fn max_unread(&self) -> usize {
        1 << 20
    }

    /// As [`Protocol::writable`].
    #[doc(alias = "resume_writing")]
    fn writable(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::tls_stopped`].
    fn tls_stopped(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::timer_fired`].
    fn timer_fired(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::read_closed`]. Behind a clean end the codec was asked for what is left
    /// ([`Decoder::decode_eof`]): a line without an end is a message, or an error, as it says. Behind a truncation it was
    /// not: half a message is none (rule: end-2).
    #[doc(alias = "readConnectionLost")]
    fn read_closed(&mut self, transport: &mut MessageTransport<'_, Self::Codec>, end: End) -> Outcome<AfterRead> {
        let _ = (transport, end);
        Ok(AfterRead::Close)
    }

    /// As [`Protocol::write_closed`].
    #[doc(alias = "writeConnectionLost")]
    fn write_closed(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::connection_lost`].
    #[doc(alias = "connectionLost")]
    fn connection_lost(&mut self, reason: &Reason) {
        let _ = reason;
    }
}

/// The transport as a [`MessageProtocol`] sees it: all of the ladder, and messages.
pub struct MessageTransport<'a, C> {
    transport: &'a mut (dyn UpgradableTransport + 'a),
    framing: &'a mut Framing<C>,
}

impl<C> MessageTransport<'_, C> {
    /// Sends a message, as [`write`](super::Transport::write) sends bytes: it never waits. A codec may encode several
    /// types.
    ///
    /// # Errors
    /// What the codec says of a message that it cannot encode; nothing of it is sent. Whoever ends the callback by `?` ends
    /// the connection with it.
    #[doc(alias = "sendLine")]
    #[doc(alias = "sendString")]
    pub fn send<I>(&mut self, message: I) -> Outcome
    where
        C: Encoder<I>,
        <C as Encoder<I>>::Error: Into<Failure>,
    {
        let encoded = self.framing.codec.encode(message, &mut self.framing.out);
        if encoded.is_ok() {
            self.transport.write(&self.framing.out);
        }
        self.framing.out.clear();
        if self.framing.out.capacity() > KEPT {
            self.framing.out = BytesMut::new();
        }
        encoded.map_err(Into::into)
    }

    /// What follows on the message at hand, or on what `raw_received` is done with, is cut by this codec. Bytes that the
    /// old one has taken for half a message are shown to the new one again.
    #[doc(alias = "setLineMode")]
    pub fn set_codec(&mut self, codec: C) {
        self.framing.codec = codec;
        self.framing.is_used = false;
        self.switch(false);
    }

    /// What follows on the message at hand comes to [`raw_received`](MessageProtocol::raw_received), until
    /// [`set_codec`](Self::set_codec).
    #[doc(alias = "setRawMode")]
    pub fn set_raw(&mut self) {
        self.switch(true);
    }

    /// Whether bytes come as they are.
    pub fn is_raw(&self) -> bool {
        self.framing.is_raw
    }

    /// The codec.
    pub fn codec(&self) -> &C {
        &self.framing.codec
    }

    /// The codec, to change a limit, or what it expects next.
    pub fn codec_mut(&mut self) -> &mut C {
        &mut self.framing.codec
    }

    fn switch(&mut self, is_raw: bool) {
        self.framing.is_raw = is_raw;
        self.framing.forget();
        if !self.framing.is_delivering && !self.transport.is_reading_paused() {
            // What was left unread means something else now.
            self.transport.pause_reading();
            self.transport.resume_reading();
        }
    }
}

impl<'a, C> Deref for MessageTransport<'a, C> {
    type Target = dyn UpgradableTransport + 'a;

    fn deref(&self) -> &Self::Target {
        self.transport
    }
}

impl<C> DerefMut for MessageTransport<'_, C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.transport
    }
}

/// A [`MessageProtocol`] as a [`Protocol`].
#[derive(Debug)]
pub struct Framed<M: MessageProtocol> {
    messages: M,
    framing: Framing<M::Codec>,
    /// What is left unread is not half a message: the transport does not deliver now.
    is_parked: bool,
}

impl<M: MessageProtocol> Framed<M> {
    /// Has the bytes cut by [`MessageProtocol::codec`].
    pub fn new(messages: M) -> Self {
        let framing = Framing::new(messages.codec());
        Self { messages, framing, is_parked: false }
    }

    /// The protocol of messages.
    pub fn messages(&self) -> &M {
        &self.messages
    }

    fn tell<R>(
        &mut self,
        transport: &mut dyn UpgradableTransport,
        call: impl FnOnce(&mut M, &mut MessageTransport<'_, M::Codec>) -> Outcome<R>,
    ) -> Outcome<R> {
        call(&mut self.messages, &mut MessageTransport { transport, framing: &mut self.framing })
    }

    /// What was left unread has gone back to the transport. The codec forgets what it has seen.
    fn renew(&mut self) {
        self.framing.forget();
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
        let done = self.tell(transport, |messages, transport| messages.raw_received(transport, rest))?;
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
                self.tell(transport, |messages, transport| messages.message_received(transport, message))?;
                Ok(Continue(done))
            }
            Err(error) => {
                let done = self.framing.cut();
                if std::mem::replace(&mut self.framing.is_stuck, done == 0) && done == 0 {
                    return Err(error.into());
                }
                self.tell(transport, |messages, transport| messages.frame_error(transport, error))?;
                Ok(Continue(done))
            }
        }
    }

    /// The peer has ended in order: the codec makes of the rest what it can. What is paused now has no later.
    fn deliver_last(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        while !self.framing.is_raw && matches!(transport.reading(), Reading::Open | Reading::Paused) {
            match self.framing.codec.decode_eof(&mut self.framing.buffer) {
                Ok(Some(message)) => {
                    self.tell(transport, |messages, transport| messages.message_received(transport, message))?;
                }
                Ok(None) => break,
                Err(error) => {
                    return self.tell(transport, |messages, transport| messages.frame_error(transport, error));
                }
            }
        }
        Ok(())
    }
}

impl<M: MessageProtocol> Protocol for Framed<M> {
    fn connection_made(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.tell(transport, M::connection_made)
    }

    fn handshake_completed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.renew();
        self.tell(transport, M::handshake_completed)
    }

    fn data_received(&mut self, transport: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
        let mut done = 0;
        self.framing.is_delivering = true;
        while transport.reading() == Reading::Open {
            match self.deliver(transport, &data[done..])? {
                Continue(n) => done += n,
                Break(n) => {
                    done += n;
                    break;
                }
            }
        }
        self.framing.is_delivering = false;
        self.is_parked = transport.reading() != Reading::Open;
        Ok(done)
    }

    fn max_unread(&self) -> usize {
        if self.is_parked { usize::MAX } else { self.messages.max_unread() }
    }

    fn writable(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.tell(transport, M::writable)
    }

    fn tls_stopped(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.renew();
        self.tell(transport, M::tls_stopped)
    }

    fn timer_fired(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.tell(transport, M::timer_fired)
    }

    fn read_closed(&mut self, transport: &mut dyn UpgradableTransport, end: End) -> Outcome<AfterRead> {
        match end {
            End::Clean => self.deliver_last(transport)?,
            End::Truncated | End::Unconfirmed => {}
        }
        self.tell(transport, |messages, transport| messages.read_closed(transport, end))
    }

    fn write_closed(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
        self.tell(transport, M::write_closed)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.messages.connection_lost(reason);
    }
}

/// A codec, and what it has seen of the bytes that are not done with.
#[derive(Debug)]
struct Framing<C> {
    codec: C,
    /// What the decoder was shown and has not taken.
    buffer: BytesMut,
    /// How much of the bytes that are not done with the decoder was shown. What it took of them is half a message.
    shown: usize,
    /// The decoder has seen bytes.
    is_used: bool,
    is_raw: bool,
    is_delivering: bool,
    /// The decoder has failed, and has taken nothing.
    is_stuck: bool,
    out: BytesMut,
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

    /// Whoever goes on is shown all that is not done with.
    fn forget(&mut self) {
        self.buffer = BytesMut::new();
        self.shown = 0;
    }
}
