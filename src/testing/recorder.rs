//! A transport that does nothing and notes everything.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::socket::Keepalive;
use crate::core::facts::SessionFacts;
use crate::error::Error;
use crate::policy::Policy;
use crate::protocol::{
    DeferredConn, Handle, Producer, Reading, TcpTransport, TlsTransport, Transport, UpgradableTransport,
};

/// What a protocol has called.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// `write`, with these bytes.
    Write(Vec<u8>),
    /// `write_sequence`, with these parts.
    WriteSequence(Vec<Vec<u8>>),
    /// `close`.
    Close,
    /// `close_write`.
    CloseWrite,
    /// `abort`.
    Abort,
    /// `pause_reading`.
    PauseReading,
    /// `resume_reading`.
    ResumeReading,
    /// `register_producer`, with one that is paused and resumed.
    RegisterPush,
    /// `register_producer`, with one that is asked.
    RegisterPull,
    /// `unregister_producer`.
    UnregisterProducer,
    /// `set_timer`.
    SetTimer(Option<Duration>),
    /// `set_nodelay`.
    SetNodelay(bool),
    /// `set_keepalive`, on or off.
    SetKeepalive(bool),
    /// `start_tls`.
    StartTls,
    /// `stop_tls`.
    StopTls,
}

/// A transport for the unit tests of protocols: it sends nothing, and notes what was called, in order. What it answers is
/// what a real one would: a write behind a close is dropped, a second producer is refused.
///
/// ```
/// use bowline::protocol::{Outcome, Protocol, UpgradableTransport};
/// use bowline::testing::{Call, Recorder};
///
/// struct Daytime;
///
/// impl Protocol for Daytime {
///     fn connection_made(&mut self, transport: &mut dyn UpgradableTransport) -> Outcome {
///         transport.write(b"noon");
///         transport.close();
///         Ok(())
///     }
///
///     fn data_received(&mut self, _: &mut dyn UpgradableTransport, data: &[u8]) -> Outcome<usize> {
///         Ok(data.len())
///     }
/// }
///
/// let mut transport = Recorder::new();
/// Daytime.connection_made(&mut transport).unwrap();
/// assert_eq!(transport.calls(), [Call::Write(b"noon".to_vec()), Call::Close]);
/// assert_eq!(transport.written(), b"noon");
/// ```
#[doc(alias = "StringTransport")]
#[doc(alias = "StringTransportWithDisconnection")]
pub struct Recorder {
    conn: DeferredConn,
    calls: Vec<Call>,
    written: Vec<u8>,
    nodelay: bool,
    keepalive: Option<Keepalive>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// A plaintext transport that can be upgraded.
    pub fn new() -> Self {
        Self::of(None)
    }

    /// A transport in TLS, of which these facts are known.
    pub fn secure(facts: SessionFacts) -> Self {
        Self::of(Some(Arc::new(facts)))
    }

    fn of(facts: Option<Arc<SessionFacts>>) -> Self {
        let name = |end: &str| Address::Other(format!("recorder:{end}"));
        let control = Control::new(name("host"), name("peer"), Arc::new(Policy::default()));
        let layers = usize::from(facts.is_some());
        Self {
            conn: DeferredConn::new(control, facts, Some(layers)),
            calls: Vec::new(),
            written: Vec::new(),
            nodelay: true,
            keepalive: None,
        }
    }

    /// What was called so far, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Takes what was called so far.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// All bytes that were written and accepted.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// Takes all bytes that were written and accepted.
    pub fn take_written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.written)
    }

    /// What was called by handles that the protocol has given away is carried out now.
    /// Each call does it first: what a callback asks for by a handle comes ahead of what it asks for then.
    pub fn obey(&mut self) {
        for command in self.conn.take_commands() {
            command.call(self);
        }
    }

    fn note_written(&mut self, bytes: &[u8], dropped_before: u64) {
        if self.conn.dropped() == dropped_before {
            self.written.extend_from_slice(bytes);
        }
    }
}

impl Transport for Recorder {
    fn write(&mut self, bytes: &[u8]) {
        self.obey();
        let dropped = self.conn.dropped();
        self.conn.write(bytes);
        self.note_written(bytes, dropped);
        self.calls.push(Call::Write(bytes.to_vec()));
    }

    fn write_sequence(&mut self, parts: &mut dyn Iterator<Item = &[u8]>) {
        self.obey();
        let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
        let dropped = self.conn.dropped();
        self.conn.write_sequence(&mut parts.iter().map(Vec::as_slice));
        self.note_written(&parts.concat(), dropped);
        self.calls.push(Call::WriteSequence(parts));
    }

    fn close(&mut self) {
        self.obey();
        self.conn.close();
        self.calls.push(Call::Close);
    }

    fn close_write(&mut self) {
        self.obey();
        self.conn.close_write();
        self.calls.push(Call::CloseWrite);
    }

    fn abort(&mut self) {
        self.obey();
        self.conn.abort();
        self.calls.push(Call::Abort);
    }

    fn pause_reading(&mut self) {
        self.obey();
        self.conn.pause_reading();
        self.calls.push(Call::PauseReading);
    }

    fn resume_reading(&mut self) {
        self.obey();
        self.conn.resume_reading();
        self.calls.push(Call::ResumeReading);
    }

    fn is_reading_paused(&self) -> bool {
        self.conn.is_reading_paused()
    }

    fn reading(&mut self) -> Reading {
        self.obey();
        self.conn.reading()
    }

    fn register_producer(&mut self, producer: Producer) -> Result<(), Error> {
        self.obey();
        self.calls.push(match &producer {
            Producer::Push(_) => Call::RegisterPush,
            Producer::Pull(_) => Call::RegisterPull,
        });
        self.conn.register_producer(producer)
    }

    fn unregister_producer(&mut self) {
        self.obey();
        self.conn.unregister_producer();
        self.calls.push(Call::UnregisterProducer);
    }

    fn set_timer(&mut self, after: Option<Duration>) {
        self.obey();
        self.calls.push(Call::SetTimer(after));
    }

    fn queued(&self) -> usize {
        self.conn.queued()
    }

    fn dropped(&self) -> u64 {
        self.conn.dropped()
    }

    fn handle(&self) -> Handle {
        self.conn.handle()
    }

    fn control(&self) -> &Control {
        self.conn.control()
    }
}

impl TcpTransport for Recorder {
    fn nodelay(&self) -> io::Result<bool> {
        Ok(self.nodelay)
    }

    fn set_nodelay(&mut self, on: bool) -> io::Result<()> {
        self.nodelay = on;
        self.calls.push(Call::SetNodelay(on));
        Ok(())
    }

    fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        Ok(self.keepalive)
    }

    fn set_keepalive(&mut self, keepalive: Option<Keepalive>) -> io::Result<()> {
        self.keepalive = keepalive;
        self.calls.push(Call::SetKeepalive(keepalive.is_some()));
        Ok(())
    }
}

impl TlsTransport for Recorder {
    fn tls(&self) -> Option<Arc<SessionFacts>> {
        self.conn.tls()
    }
}

impl UpgradableTransport for Recorder {
    fn start_tls(&mut self, how: StartTls) -> Result<(), Error> {
        self.obey();
        self.calls.push(Call::StartTls);
        self.conn.start_tls(how)
    }

    fn may_start_tls(&mut self) -> Result<(), Error> {
        self.obey();
        self.conn.may_start_tls()
    }

    fn stop_tls(&mut self) -> Result<(), Error> {
        self.obey();
        self.calls.push(Call::StopTls);
        self.conn.stop_tls()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("calls", &self.calls.len()).finish_non_exhaustive()
    }
}
