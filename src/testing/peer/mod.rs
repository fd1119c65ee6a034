//! Peers and networks that misbehave on command, to test how a service handles failures.
//!
//! | type | description | works |
//! |---|---|---|
//! | [`Meddler`] | a proxy that cuts, stalls, slows and corrupts what it forwards | between two TCP sockets, below TLS |
//! | [`Cut`] | a stream that ends after a number of bytes | in memory, over any stream; fast enough to try every offset |
//! | [`RawTcp`] | a peer that sends any bytes, and distinguishes FIN from RST | on TCP |
//! | [`RawTls`] | a peer that seals any record: alerts, KeyUpdates, two close_notify, junk after them | in TLS 1.2 and TLS 1.3 |
//!
//! The methods of these types are not cancel safe, unless they say so: a dropped call may have sent a part of its
//! bytes. If a peer waits for the service longer than its patience, it records [`Event::Silence`].
//!
//! The raw peers record what they see, as [`Event`]s in order, so that a test can check what the service sends and not
//! only what its calls return:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bowline::testing::peer::{Event, RawTls};
//! use bowline::testing::{pki::Pki, raw_tcp_pair};
//! use bowline::{Policy, TcpConnection, TlsConnection, Transport};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let pki = Pki::new();
//! let (ours, theirs) = raw_tcp_pair().await?;
//! // The service under test answers and closes.
//! let tls = pki.server_tls();
//! let service = tokio::spawn(async move {
//!     let tcp = TcpConnection::new(ours, Policy::default())?;
//!     let mut tls = TlsConnection::accept(tcp, &tls).await?;
//!     let mut request = String::new();
//!     tls.read_to_string(&mut request).await?;
//!     tls.write_all(request.to_uppercase().as_bytes()).await?;
//!     Ok::<_, bowline::Error>(tls.close().await)
//! });
//!
//! // Its peer sends data and close_notify in one segment, and then no FIN.
//! let mut peer = RawTls::client(theirs, &pki.client_tls(), "localhost").await?;
//! peer.data(b"hello").close_notify().send().await?;
//! assert_eq!(peer.observe().await, [Event::Data(5), Event::CloseNotify, Event::Fin]);
//! assert_eq!(peer.received(), b"HELLO");
//! peer.fin()?;
//! assert!(service.await??.is_clean());
//! # Ok(()) }
//! ```
//!
//! | failure | how to produce it |
//! |---|---|
//! | FIN, RST or silence at a byte offset | [`Direction::fin_after`], [`rst_after`](Direction::rst_after), [`stall_after`](Direction::stall_after); in memory [`Cut`] |
//! | segments of one byte | [`Direction::trickle`], [`RawTcp::trickle`], [`RawTls::trickle`] |
//! | a reader that stalls | a raw peer that is not asked to receive, [`RawTcp::small_receive_buffer`], [`Direction::stop_reading`] |
//! | close_notify without FIN, and the reverse | [`RawTls::close_notify`] and [`RawTls::fin`], one without the other |
//! | data, close_notify and junk in one segment | `peer.data(..).close_notify().clear(..).send()` |
//! | garbage, HTTP, a header of an oversized record | [`RawTcp::send`]; after the handshake [`RawTls::clear`] |
//! | records that violate the protocol | [`RawTls::record`] |
//! | a fatal alert | [`RawTls::alert`]; in the clear `RawTcp::send(&[21, 3, 3, 0, 2, 2, alert])` |
//! | a KeyUpdate that requests an answer | [`RawTls::key_update`] |
//! | a peer that sends without end | [`RawTcp::talk`], [`RawTls::talk`] |
//! | a network that is slow or corrupts bytes | [`Direction::slow`], [`Direction::corrupt`], [`Direction::inject`] |
//!
//! Every wait is limited: by [`PATIENCE`], unless another time is set.

mod cut;
mod direction;
mod handshake;
mod meddler;
mod record;
mod tcp;
mod tls;

use std::time::Duration;

use rustls::AlertDescription;

pub use self::cut::{Cut, CutEnd};
pub use self::direction::Direction;
pub use self::handshake::HandshakeFailed;
pub use self::meddler::Meddler;
pub use self::tcp::RawTcp;
pub use self::tls::RawTls;

/// The time without an event after which a raw peer records [`Event::Silence`].
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An event that a raw peer saw. Consecutive pieces of data are one `Data` event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// This many bytes of data: plaintext for [`RawTls`], all received bytes for [`RawTcp`].
    Data(u64),
    /// The TLS close_notify.
    CloseNotify,
    /// Another alert.
    Alert(AlertDescription),
    /// A KeyUpdate. [`RawTls`] changes its keys, and does not answer by itself.
    KeyUpdate {
        /// Whether an answer is requested.
        requested: bool,
    },
    /// Bytes that are not a TLS record of this session. The bytes after them are ignored.
    Garbage,
    /// The other side ended its send half: FIN.
    Fin,
    /// RST.
    Reset,
    /// Nothing happened within the time that this peer waits.
    Silence,
}

impl Event {
    /// Whether no other event can follow.
    fn is_final(self) -> bool {
        matches!(self, Self::Fin | Self::Reset)
    }
}

/// Appends an event. Consecutive data is added up.
fn note(events: &mut Vec<Event>, event: Event) {
    match (events.last_mut(), event) {
        (Some(Event::Data(sum)), Event::Data(n)) => *sum += n,
        (Some(Event::Silence), Event::Silence) => {}
        _ => events.push(event),
    }
}
