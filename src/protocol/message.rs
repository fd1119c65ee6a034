//! A protocol of messages, and the transport as it sees it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::conn::UpgradableTransport;
use super::framing::Framing;
use super::{AfterRead, Failure, Outcome};
use crate::core::half::End;
use crate::error::Reason;

/// Memory for messages that leave which is kept for the next, in bytes.
const KEPT: usize = 1 << 12;

/// A [`Protocol`](super::Protocol) whose bytes are cut into messages, and put together from them, by a codec: lines, frames that begin with
/// their length, or your own. [`Framed`](super::Framed) makes a `Protocol` of it.
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

    /// As [`Protocol::connection_made`](super::Protocol::connection_made).
    #[doc(alias = "connectionMade")]
    fn connection_made(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::handshake_completed`](super::Protocol::handshake_completed).
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

    /// Bytes have come behind [`set_raw`](MessageTransport::set_raw). As [`Protocol::data_received`](super::Protocol::data_received) it returns how many of
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

    /// As [`Protocol::stops_reading_when_full`](super::Protocol::stops_reading_when_full), but checked before each message:
    /// no message is delivered while the unsent answers exceed the high mark (rule: write-10).
    fn stops_reading_when_full(&self) -> bool {
        true
    }

    /// As [`Protocol::writable`](super::Protocol::writable).
    #[doc(alias = "resume_writing")]
    fn writable(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::tls_stopped`](super::Protocol::tls_stopped).
    fn tls_stopped(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::timer_fired`](super::Protocol::timer_fired).
    fn timer_fired(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::draining`](super::Protocol::draining): by default it is closed.
    fn draining(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        transport.close();
        Ok(())
    }

    /// As [`Protocol::read_closed`](super::Protocol::read_closed). Behind a clean end the codec was asked for what is left
    /// ([`Decoder::decode_eof`]): a line without an end is a message, or an error, as it says. Behind a truncation it was
    /// not: half a message is none (rule: end-2).
    #[doc(alias = "readConnectionLost")]
    fn read_closed(&mut self, transport: &mut MessageTransport<'_, Self::Codec>, end: End) -> Outcome<AfterRead> {
        let _ = (transport, end);
        Ok(AfterRead::Close)
    }

    /// As [`Protocol::write_closed`](super::Protocol::write_closed).
    #[doc(alias = "writeConnectionLost")]
    fn write_closed(&mut self, transport: &mut MessageTransport<'_, Self::Codec>) -> Outcome {
        let _ = transport;
        Ok(())
    }

    /// As [`Protocol::connection_lost`](super::Protocol::connection_lost).
    #[doc(alias = "connectionLost")]
    fn connection_lost(&mut self, reason: &Reason) {
        let _ = reason;
    }
}

/// The transport as a [`MessageProtocol`] sees it: all of the ladder, and messages.
pub struct MessageTransport<'a, C> {
    pub(super) transport: &'a mut (dyn UpgradableTransport + 'a),
    pub(super) framing: &'a mut Framing<C>,
}

impl<C> fmt::Debug for MessageTransport<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageTransport").field("control", self.transport.control()).finish_non_exhaustive()
    }
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
