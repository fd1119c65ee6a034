//! A protocol of messages, and its view of the connection.

use std::fmt;
use std::ops::{Deref, DerefMut};

use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::callbacks::AfterRead;
use super::conn::Conn;
use super::failure::{CallbackResult, Failure};
use super::framing::Framing;
use crate::core::half::End;
use crate::error::Reason;

/// The capacity, in bytes, of the buffer that is kept for encoding the next message.
const KEPT: usize = 1 << 12;

/// A protocol whose bytes a codec cuts into messages: lines, frames that start with their length, or a format of your
/// own. The codec also encodes the messages that the protocol sends. [`Framed`](super::Framed) makes it a
/// [`Protocol`](super::Protocol).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bowline::Transport;
/// use bowline::protocol::{Framed, MessageProtocol, MessageConn, CallbackResult, Runner};
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
///     fn message_received(&mut self, conn: &mut MessageConn<'_, LinesCodec>, line: String) -> CallbackResult {
///         conn.send(line.to_uppercase())
///     }
/// }
///
/// let (mut client, server) = bowline::testing::tcp_pair().await?;
/// let serving = tokio::spawn(Runner::new(Framed::new(Shout), server).run());
/// client.write_all(b"hello\r\nwor").await?;
/// client.write_all(b"ld\r\n").await?;
/// client.close_write().await?;
/// let mut answer = String::new();
/// client.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "HELLO\nWORLD\n");
/// assert!(serving.await?.is_clean());
/// # Ok(()) }
/// ```
///
/// # Which messages are delivered
///
/// Each message is delivered once, in order, however the bytes were split in transit. No message is delivered while
/// [`Conn::reading`](super::Conn::reading) is not `Open`. After `pause_reading`, the bytes stay unread (rule:
/// flow-4). After `start_tls`, they are leftover: TLS refuses or consumes them, and they are never delivered (rules:
/// upgrade-2, upgrade-3). After `close` and `abort`, they are discarded (rules: close-10, abort-3). The same applies
/// to calls through a [`Handle`](super::Handle).
///
/// # What state a codec may keep
///
/// After a change between plaintext and TLS the decoder starts with an empty buffer. If the codec has seen a byte
/// before the change, it is replaced by a new one from [`codec`](Self::codec), so that nothing that an attacker sent
/// in plaintext has an effect in TLS.
///
/// # Errors
/// If a callback returns an error, the connection ends with that error as the reason, as with
/// [`Protocol`](super::Protocol) (rule: life-3).
#[doc(alias = "LineReceiver")]
#[doc(alias = "LineOnlyReceiver")]
#[doc(alias = "NetstringReceiver")]
#[doc(alias = "IntNStringReceiver")]
#[doc(alias = "Int32StringReceiver")]
pub trait MessageProtocol: Send + 'static {
    /// Cuts bytes into messages and, as an [`Encoder`], encodes messages.
    type Codec: Decoder<Error: Into<Failure>> + Send + 'static;

    /// Makes a new codec, for the start of the connection, or for the bytes after a change between plaintext and TLS.
    /// Set a limit in the codec, so that a message without an end cannot use up the memory.
    fn codec(&self) -> Self::Codec;

    /// See [`Protocol::connection_made`](super::Protocol::connection_made).
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    #[doc(alias = "connectionMade")]
    fn connection_made(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// See [`Protocol::handshake_completed`](super::Protocol::handshake_completed).
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    #[doc(alias = "handshakeCompleted")]
    fn handshake_completed(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// A message has arrived.
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    #[doc(alias = "lineReceived")]
    #[doc(alias = "stringReceived")]
    fn message_received(
        &mut self,
        conn: &mut MessageConn<'_, Self::Codec>,
        message: <Self::Codec as Decoder>::Item,
    ) -> CallbackResult;

    /// Bytes have arrived after [`set_raw`](MessageConn::set_raw). Returns how many of them were processed, as
    /// [`Protocol::data_received`](super::Protocol::data_received) does. After [`set_codec`](MessageConn::set_codec),
    /// messages are delivered again.
    ///
    /// # Errors
    /// The default implementation returns an error, so a protocol that calls `set_raw` must implement this method.
    #[doc(alias = "rawDataReceived")]
    fn raw_received(&mut self, conn: &mut MessageConn<'_, Self::Codec>, data: &[u8]) -> CallbackResult<usize> {
        let _ = (conn, data);
        Err("raw data for a protocol of messages only".into())
    }

    /// The codec could not decode the bytes: a line is too long, a length exceeds the limit, or the peer has ended
    /// inside a message. By default the connection ends with this error as the reason (rule: life-3). A protocol may
    /// also send an answer and close. Or it may continue, if this codec or another one can find the next message. If
    /// decoding then fails again at the same position, the connection ends.
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors). The default returns the codec's error: the
    /// peer has violated the protocol.
    #[doc(alias = "lineLengthExceeded")]
    #[doc(alias = "lengthLimitExceeded")]
    fn frame_error(
        &mut self,
        conn: &mut MessageConn<'_, Self::Codec>,
        error: <Self::Codec as Decoder>::Error,
    ) -> CallbackResult {
        let _ = conn;
        Err(error.into())
    }

    /// The largest size of a message in bytes, including its framing, and the number of bytes that `raw_received` may
    /// leave unprocessed; default 1 MiB. Above this limit the connection ends, with [`Unread`](super::Unread) as the
    /// reason. The limit bounds the memory of codecs that have no limit, and the bytes of an oversized message that a
    /// codec skips. It should be larger than the limit of the codec, so that the codec's own error is reported first.
    #[doc(alias = "MAX_LENGTH")]
    fn max_unread(&self) -> usize {
        1 << 20
    }

    /// See [`Protocol::stops_reading_when_full`](super::Protocol::stops_reading_when_full). Here it is checked before
    /// each message: no message is delivered while the unsent answers exceed the high mark (rule: write-10).
    fn stops_reading_when_full(&self) -> bool {
        true
    }

    /// See [`Protocol::writable`](super::Protocol::writable).
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    #[doc(alias = "resume_writing")]
    fn writable(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// See [`Protocol::tls_stopped`](super::Protocol::tls_stopped).
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    fn tls_stopped(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// See [`Protocol::timer_fired`](super::Protocol::timer_fired).
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    fn timer_fired(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// See [`Protocol::draining`](super::Protocol::draining): the default closes the connection.
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    fn draining(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        conn.close();
        Ok(())
    }

    /// See [`Protocol::read_closed`](super::Protocol::read_closed). After a clean end, the codec has decoded the
    /// remaining bytes ([`Decoder::decode_eof`]); the codec decides whether a line without an end is a message or an
    /// error. After a truncation, the remaining bytes are not decoded, because a part of a message is not a message
    /// (rule: end-2).
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    #[doc(alias = "readConnectionLost")]
    fn read_closed(&mut self, conn: &mut MessageConn<'_, Self::Codec>, end: End) -> CallbackResult<AfterRead> {
        let _ = (conn, end);
        Ok(AfterRead::Close)
    }

    /// See [`Protocol::write_closed`](super::Protocol::write_closed).
    ///
    /// # Errors
    /// Ends the connection: see [`MessageProtocol`](MessageProtocol#errors).
    #[doc(alias = "writeConnectionLost")]
    fn write_closed(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// See [`Protocol::connection_lost`](super::Protocol::connection_lost).
    #[doc(alias = "connectionLost")]
    fn connection_lost(&mut self, reason: &Reason) {
        let _ = reason;
    }
}

/// The connection as a [`MessageProtocol`] sees it: it has all methods of [`Conn`](super::Conn), and sends messages.
pub struct MessageConn<'a, C> {
    pub(super) conn: &'a mut (dyn Conn + 'a),
    pub(super) framing: &'a mut Framing<C>,
}

impl<C> fmt::Debug for MessageConn<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageConn").field("control", self.conn.control()).finish_non_exhaustive()
    }
}

impl<C> MessageConn<'_, C> {
    /// Sends a message. Like [`write`](super::Conn::write), it never waits. A codec may encode several types.
    ///
    /// # Errors
    /// The codec's error if it cannot encode the message; nothing of the message is sent. If a callback returns the
    /// error by `?`, the connection ends with that error as the reason.
    #[doc(alias = "sendLine")]
    #[doc(alias = "sendString")]
    pub fn send<I>(&mut self, message: I) -> CallbackResult
    where
        C: Encoder<I>,
        <C as Encoder<I>>::Error: Into<Failure>,
    {
        let encoded = self.framing.codec.encode(message, &mut self.framing.out);
        if encoded.is_ok() {
            self.conn.write(&self.framing.out);
        }
        self.framing.out.clear();
        if self.framing.out.capacity() > KEPT {
            self.framing.out = BytesMut::new();
        }
        encoded.map_err(Into::into)
    }

    /// Uses this codec for the bytes after the current message, or after the bytes that `raw_received` has processed.
    /// Bytes that the old codec has buffered as a part of a message are decoded again by the new one.
    #[doc(alias = "setLineMode")]
    pub fn set_codec(&mut self, codec: C) {
        self.framing.codec = codec;
        self.framing.is_used = false;
        self.switch(false);
    }

    /// Delivers the bytes after the current message to [`raw_received`](MessageProtocol::raw_received), until
    /// [`set_codec`](Self::set_codec) is called.
    #[doc(alias = "setRawMode")]
    pub fn set_raw(&mut self) {
        self.switch(true);
    }

    /// Whether bytes are delivered without a codec, because [`set_raw`](Self::set_raw) was called.
    pub fn is_raw(&self) -> bool {
        self.framing.is_raw
    }

    /// The codec.
    pub fn codec(&self) -> &C {
        &self.framing.codec
    }

    /// The codec, for example to change a limit.
    pub fn codec_mut(&mut self) -> &mut C {
        &mut self.framing.codec
    }

    fn switch(&mut self, is_raw: bool) {
        self.framing.is_raw = is_raw;
        self.framing.forget();
        if !self.framing.is_delivering && !self.conn.is_reading_paused() {
            // Pausing and resuming delivers the unprocessed bytes again, because they have a new meaning now.
            self.conn.pause_reading();
            self.conn.resume_reading();
        }
    }
}

impl<'a, C> Deref for MessageConn<'a, C> {
    type Target = dyn Conn + 'a;

    fn deref(&self) -> &Self::Target {
        self.conn
    }
}

impl<C> DerefMut for MessageConn<'_, C> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.conn
    }
}
