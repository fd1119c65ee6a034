//! The callbacks of a connection.

use super::conn::Conn;
use super::failure::CallbackResult;
use crate::core::half::End;
use crate::error::Reason;

/// The answer of [`Protocol::read_closed`]: how the connection continues after the peer has ended its half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AfterRead {
    /// The connection is closed after all written bytes have left. If a producer is registered, it is stopped (rules:
    /// close-8, half-11).
    #[default]
    Close,
    /// The protocol is half-closeable: it continues to write, and calls `close` when it is done (rule: half-6).
    KeepWriting,
}

/// An object that is called when something happens to one connection.
///
/// All callbacks except [`data_received`](Self::data_received) have a default. A callback must not block, because it
/// shares a thread with other connections. For work that takes time, spawn a task and give it the
/// [handle](Conn::handle).
///
/// ```
/// use bowline::protocol::{CallbackResult, Conn, Protocol};
/// use std::time::Duration;
///
/// /// Answers each line, and closes a connection after a minute without a line.
/// struct Lines;
///
/// impl Protocol for Lines {
///     fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
///         conn.write(b"220 ready\r\n");
///         conn.set_timer(Some(Duration::from_secs(60)));
///         Ok(())
///     }
///
///     fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
///         let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return Ok(0) };
///         conn.write_sequence(&mut [b"250 ", &data[..=end]].into_iter());
///         conn.set_timer(Some(Duration::from_secs(60)));
///         Ok(end + 1) // the rest comes again
///     }
///
///     fn timer_fired(&mut self, conn: &mut dyn Conn) -> CallbackResult {
///         conn.close();
///         Ok(())
///     }
/// }
/// # let mut conn = bowline::testing::Recorder::new();
/// # let mut lines = Lines;
/// # lines.connection_made(&mut conn).unwrap();
/// # assert_eq!(lines.data_received(&mut conn, b"hello\nwor").unwrap(), 6);
/// # lines.timer_fired(&mut conn).unwrap();
/// # assert_eq!(conn.written(), b"220 ready\r\n250 hello\n");
/// ```
///
/// # Errors
/// A callback that returns an error ends its connection: the peer gets RST, and
/// [`connection_lost`](Self::connection_lost) gets the error as its reason (rule: life-3). A panic does the same.
#[doc(alias = "IProtocol")]
#[doc(alias = "IHalfCloseableProtocol")]
#[doc(alias = "IHandshakeListener")]
#[doc(alias = "BufferedProtocol")]
pub trait Protocol: Send + 'static {
    /// The connection exists. If it starts with TLS, the handshake has not started yet: bytes that are written now
    /// are encrypted, and leave after the handshake (rule: write-3).
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    #[doc(alias = "connectionMade")]
    fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// The TLS handshake is done; [`tls`](Conn::tls) returns the negotiated parameters (rule: secure-2).
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    #[doc(alias = "handshakeCompleted")]
    fn handshake_completed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// Bytes have arrived. `data` is borrowed from the transport's own buffer. Returns how many bytes were processed.
    /// The transport keeps the rest and delivers it again, together with later bytes, so a protocol needs no buffer
    /// of its own to wait for the end of a line. One call delivers at most 33 KiB in addition to the bytes that
    /// earlier calls left.
    ///
    /// If a protocol answers many messages in one call, it should check [`reading`](Conn::reading) before each
    /// message, and leave the rest when reading is paused: either too many answers are unsent, or the protocol has
    /// paused reading itself (rule: write-10).
    ///
    /// If TLS is started while bytes are unprocessed, these bytes are leftover: the [`Leftover`](crate::Leftover)
    /// setting decides whether they fail the upgrade or are passed to TLS (rule: upgrade-2). So a protocol that
    /// returns only the length of the line `STARTTLS` is safe from injected commands.
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors). Returning more than `data.len()` is a fault of the
    /// protocol, and ends the connection too.
    #[doc(alias = "dataReceived")]
    fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize>;

    /// The number of bytes that [`data_received`](Self::data_received) may leave unprocessed; default 1 MiB. If it
    /// leaves more, the connection ends with [`Unread`](super::Unread) as the reason, so that a line without an end
    /// cannot use up the memory.
    fn max_unread(&self) -> usize {
        1 << 20
    }

    /// Whether reading stops when the unsent answers of this protocol exceed the high mark. Reading then resumes at
    /// the low mark (rule: write-10). Default `true`. Answers are the bytes that
    /// [`data_received`](Self::data_received) writes, also through the connection's [`Handle`](super::Handle). Bytes
    /// from other callbacks, from a producer, or from another task do not stop reading.
    ///
    /// A protocol that returns `false` continues to receive. It must then limit the memory that a peer can use by not
    /// reading its answers. This method is called once, before [`connection_made`](Self::connection_made).
    fn stops_reading_when_full(&self) -> bool {
        true
    }

    /// The queue of unsent bytes exceeded the high mark, and has now fallen to the low mark (rule: write-8).
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    #[doc(alias = "resume_writing")]
    fn writable(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// TLS has ended, and plaintext follows (rule: upgrade-9).
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    fn tls_stopped(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// The time set by [`set_timer`](Conn::set_timer) has passed.
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    #[doc(alias = "callLater")]
    fn timer_fired(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// The [group](crate::DrainGroup) of the connection, usually that of its listener, drains, so the connection
    /// should end. The default closes the connection. Called at most once. If the connection is still in its first
    /// handshake, it is aborted, and this method is not called.
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    #[doc(alias = "stopListening")]
    fn draining(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        conn.close();
        Ok(())
    }

    /// The peer has ended its half, either cleanly or truncated (rule: half-6). All its data was delivered before. By
    /// default the connection is closed; a half-closeable protocol returns [`AfterRead::KeepWriting`].
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    #[doc(alias = "readConnectionLost")]
    #[doc(alias = "eof_received")]
    fn read_closed(&mut self, conn: &mut dyn Conn, end: End) -> CallbackResult<AfterRead> {
        let _ = (conn, end);
        Ok(AfterRead::Close)
    }

    /// Our own half has ended: the end marker has been sent (rule: half-7).
    ///
    /// # Errors
    /// Ends the connection: see [`Protocol`](Protocol#errors).
    #[doc(alias = "writeConnectionLost")]
    fn write_closed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        let _ = conn;
        Ok(())
    }

    /// The connection is over. This is the last callback. It is called exactly once, however the connection ended
    /// (rules: life-1, end-1).
    #[doc(alias = "connectionLost")]
    fn connection_lost(&mut self, reason: &Reason) {
        let _ = reason;
    }
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        (**self).connection_made(conn)
    }

    fn handshake_completed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        (**self).handshake_completed(conn)
    }

    fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        (**self).data_received(conn, data)
    }

    fn max_unread(&self) -> usize {
        (**self).max_unread()
    }

    fn stops_reading_when_full(&self) -> bool {
        (**self).stops_reading_when_full()
    }

    fn writable(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        (**self).writable(conn)
    }

    fn tls_stopped(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        (**self).tls_stopped(conn)
    }

    fn timer_fired(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        (**self).timer_fired(conn)
    }

    fn draining(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        (**self).draining(conn)
    }

    fn read_closed(&mut self, conn: &mut dyn Conn, end: End) -> CallbackResult<AfterRead> {
        (**self).read_closed(conn, end)
    }

    fn write_closed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        (**self).write_closed(conn)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        (**self).connection_lost(reason);
    }
}
