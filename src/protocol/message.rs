//! A protocol of messages, and the connection as it sees it.

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

/// How much memory is kept for encoding the next message, in bytes.
const KEPT: usize = 1 << 12;

/// A protocol whose bytes are cut into messages by a codec: lines, frames that begin with their length, or your own. The
/// codec also encodes the messages that it sends. [`Framed`](super::Framed) makes a [`Protocol`](super::Protocol) of it.
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
/// Each message once, in order, however the bytes were cut on their way. None is delivered while
/// [`Conn::reading`](super::Conn::reading) is not `Open`: after `pause_reading` the bytes stay unread (rule: flow-4), after
/// `start_tls` they are leftover and are judged, never delivered (rules: upgrade-2, upgrade-3), after `close` and `abort`
/// they are discarded (rules: close-10, abort-3). That holds for the calls of a [`Handle`](super::Handle) too.
///
/// # What the codec may remember
///
/// After a change between plaintext and TLS the decoder begins with an empty buffer. A codec that has seen a byte before the
/// change is replaced by a new one, from [`codec`](Self::codec): nothing that an attacker sent in plaintext is remembered in
/// TLS.
///
/// # Errors
/// As a callback of [`Protocol`](super::Protocol): an error ends the connection, with it as the reason (rule: life-3).
#[doc(alias = "LineReceiver")]
#[doc(alias = "LineOnlyReceiver")]
#[doc(alias = "NetstringReceiver")]
#[doc(alias = "IntNStringReceiver")]
#[doc(alias = "Int32StringReceiver")]
pub trait MessageProtocol: Send + 'static {
    /// Cuts bytes into messages; as an [`Encoder`], makes bytes of messages.
    type Codec: Decoder<Error: Into<Failure>> + Send + 'static;

    /// A new codec, for the begin of the connection, or for the bytes after a change between plaintext and TLS. Give it a
    /// limit: a message without an end must not take all memory.
    fn codec(&self) -> Self::Codec;

    /// As [`Protocol::connection_made`](super::Protocol::connection_made).
    #[doc(alias = "connectionMade")]
    fn connection_made(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// As [`Protocol::handshake_completed`](super::Protocol::handshake_completed).
    #[doc(alias = "handshakeCompleted")]
    fn handshake_completed(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// A message has arrived.
    #[doc(alias = "lineReceived")]
    #[doc(alias = "stringReceived")]
    fn message_received(
        &mut self,
        conn: &mut MessageConn<'_, Self::Codec>,
        message: <Self::Codec as Decoder>::Item,
    ) -> CallbackResult;

    /// Bytes have arrived after [`set_raw`](MessageConn::set_raw). As [`Protocol::data_received`](super::Protocol::data_received)
    /// it returns how many of them were processed. After [`set_codec`](MessageConn::set_codec) the next bytes are messages
    /// again.
    ///
    /// # Errors
    /// By default: a protocol that calls `set_raw` must implement this.
    #[doc(alias = "rawDataReceived")]
    fn raw_received(&mut self, conn: &mut MessageConn<'_, Self::Codec>, data: &[u8]) -> CallbackResult<usize> {
        let _ = (conn, data);
        Err("raw data for a protocol of messages only".into())
    }

    /// The bytes are no message: a line that is too long, a length beyond the limit, an unfinished message at the peer's
    /// end. By default the connection ends with this error as its reason (rule: life-3). A protocol may answer first, and
    /// close. It may also go on, if this codec or another one finds the next message; if the next try fails at the same
    /// place, the connection ends.
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

    /// How many bytes a message may have, with its framing, and how many bytes `raw_received` may leave; default 1 MiB. Past
    /// it the connection ends, with [`Unread`](super::Unread) as the reason. It bounds the memory of codecs that have no
    /// limit, and the bytes that a codec skips of a message that was too long. Set it above the limit of the codec, so that
    /// the codec's own error comes first.
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
    fn writable(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// As [`Protocol::tls_stopped`](super::Protocol::tls_stopped).
    fn tls_stopped(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// As [`Protocol::timer_fired`](super::Protocol::timer_fired).
    fn timer_fired(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// As [`Protocol::draining`](super::Protocol::draining): by default it is closed.
    fn draining(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        conn.close();
        Ok(())
    }

    /// As [`Protocol::read_closed`](super::Protocol::read_closed). After a clean end the codec has decoded the rest
    /// ([`Decoder::decode_eof`]): whether a line without an end is a message or an error is up to the codec. After a
    /// truncation it has not: a part of a message is no message (rule: end-2).
    #[doc(alias = "readConnectionLost")]
    fn read_closed(&mut self, conn: &mut MessageConn<'_, Self::Codec>, end: End) -> CallbackResult<AfterRead> {
        let _ = (conn, end);
        Ok(AfterRead::Close)
    }

    /// As [`Protocol::write_closed`](super::Protocol::write_closed).
    #[doc(alias = "writeConnectionLost")]
    fn write_closed(&mut self, conn: &mut MessageConn<'_, Self::Codec>) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// As [`Protocol::connection_lost`](super::Protocol::connection_lost).
    #[doc(alias = "connectionLost")]
    fn connection_lost(&mut self, reason: &Reason) {
        let _ = reason;
    }
}

/// The connection as a [`MessageProtocol`] sees it: all calls of [`Conn`](super::Conn), and messages.
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
    /// Sends a message, as [`write`](super::Conn::write) sends bytes: it never waits. A codec may encode several types.
    ///
    /// # Errors
    /// The codec's error for a message that it cannot encode; nothing of it is sent. A callback that returns the error by `?`
    /// ends the connection with it.
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

    /// Cuts the bytes after the current message, or after those that `raw_received` has processed, by this codec. It is also
    /// shown the bytes that the old codec has taken for a part of a message.
    #[doc(alias = "setLineMode")]
    pub fn set_codec(&mut self, codec: C) {
        self.framing.codec = codec;
        self.framing.is_used = false;
        self.switch(false);
    }

    /// Delivers the bytes after the current message to [`raw_received`](MessageProtocol::raw_received), until
    /// [`set_codec`](Self::set_codec).
    #[doc(alias = "setRawMode")]
    pub fn set_raw(&mut self) {
        self.switch(true);
    }

    /// Whether bytes are delivered without a codec: after [`set_raw`](Self::set_raw).
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
        if !self.framing.is_delivering && !self.conn.is_reading_paused() {
            // The bytes that were left unread mean something else now: they are delivered again.
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
