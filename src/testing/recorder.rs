//! A connection for unit tests. It sends nothing, and records every call.

use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::address::Address;
use crate::config::start_tls::StartTls;
use crate::conn::control::Control;
use crate::conn::options::{SocketOptions, TcpOptions};
use crate::conn::socket::Keepalive;
use crate::core::facts::SessionFacts;
use crate::error::Error;
use crate::policy::Policy;
use crate::protocol::{CommandTarget, Conn, DeferredConn, Handle, Producer, Reading};

/// A call of a protocol.
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
    /// `register_producer`, with a producer that is paused and resumed.
    RegisterPush,
    /// `register_producer`, with a producer that is called for each piece.
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

/// A [`Conn`] for unit tests of protocols. It sends nothing, and records every call in order. The calls return the same
/// results as on a real connection: for example, a write after a close is dropped, and a second producer is refused.
///
/// ```
/// use bowline::protocol::{CallbackResult, Conn, Protocol};
/// use bowline::testing::{Call, Recorder};
///
/// struct Daytime;
///
/// impl Protocol for Daytime {
///     fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
///         conn.write(b"noon");
///         conn.close();
///         Ok(())
///     }
///
///     fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
///         Ok(data.len())
///     }
/// }
///
/// let mut conn = Recorder::new();
/// Daytime.connection_made(&mut conn).unwrap();
/// assert_eq!(conn.calls(), [Call::Write(b"noon".to_vec()), Call::Close]);
/// assert_eq!(conn.written(), b"noon");
/// ```
#[doc(alias = "StringTransport")]
#[doc(alias = "StringTransportWithDisconnection")]
pub struct Recorder {
    conn: DeferredConn,
    written: Vec<u8>,
    /// In a cell, because socket options are set through `&self`.
    noted: Mutex<Noted>,
}

struct Noted {
    calls: Vec<Call>,
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

    /// A transport in TLS, with these facts about its session: see [`SessionFacts::for_tests`].
    pub fn secure(facts: SessionFacts) -> Self {
        Self::of(Some(Arc::new(facts)))
    }

    fn of(facts: Option<Arc<SessionFacts>>) -> Self {
        let name = |end: &str| Address::Other(format!("recorder:{end}"));
        let control = Control::new(name("host"), name("peer"), Arc::new(Policy::default()));
        let layers = usize::from(facts.is_some());
        Self {
            conn: DeferredConn::new(control, facts, Some(layers)),
            written: Vec::new(),
            noted: Mutex::new(Noted { calls: Vec::new(), nodelay: true, keepalive: None }),
        }
    }

    /// The calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.noted().calls.clone()
    }

    /// Takes the calls so far.
    pub fn take_calls(&mut self) -> Vec<Call> {
        mem::take(&mut self.noted().calls)
    }

    /// All bytes that were written and accepted.
    pub fn written(&self) -> &[u8] {
        &self.written
    }

    /// Takes all bytes that were written and accepted.
    pub fn take_written(&mut self) -> Vec<u8> {
        mem::take(&mut self.written)
    }

    /// Carries out the calls that other tasks have made with a [`Handle`]. Every call does this first, so that a call
    /// that a callback made with one comes before the callback's next call.
    pub fn run_commands(&mut self) {
        for command in self.conn.take_commands() {
            command.carry_out(self);
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: Call) {
        self.noted().calls.push(call);
    }

    fn note_written(&mut self, bytes: &[u8], dropped_before: u64) {
        if self.conn.dropped() == dropped_before {
            self.written.extend_from_slice(bytes);
        }
    }
}

impl Conn for Recorder {
    fn write(&mut self, bytes: &[u8]) {
        self.run_commands();
        let dropped = self.conn.dropped();
        self.conn.write(bytes);
        self.note_written(bytes, dropped);
        self.note(Call::Write(bytes.to_vec()));
    }

    fn write_sequence(&mut self, parts: &mut dyn Iterator<Item = &[u8]>) {
        self.run_commands();
        let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
        let dropped = self.conn.dropped();
        self.conn.write_sequence(&mut parts.iter().map(Vec::as_slice));
        self.note_written(&parts.concat(), dropped);
        self.note(Call::WriteSequence(parts));
    }

    fn close(&mut self) {
        self.run_commands();
        self.conn.close();
        self.note(Call::Close);
    }

    fn close_write(&mut self) {
        self.run_commands();
        self.conn.close_write();
        self.note(Call::CloseWrite);
    }

    fn abort(&mut self) {
        self.run_commands();
        self.conn.abort();
        self.note(Call::Abort);
    }

    fn pause_reading(&mut self) {
        self.run_commands();
        self.conn.pause_reading();
        self.note(Call::PauseReading);
    }

    fn resume_reading(&mut self) {
        self.run_commands();
        self.conn.resume_reading();
        self.note(Call::ResumeReading);
    }

    fn is_reading_paused(&self) -> bool {
        self.conn.is_reading_paused()
    }

    fn reading(&mut self) -> Reading {
        self.run_commands();
        self.conn.reading()
    }

    fn register_producer(&mut self, producer: Producer) -> Result<(), Error> {
        self.run_commands();
        self.note(match &producer {
            Producer::Push(_) => Call::RegisterPush,
            Producer::Pull(_) => Call::RegisterPull,
        });
        self.conn.register_producer(producer)
    }

    fn unregister_producer(&mut self) {
        self.run_commands();
        self.conn.unregister_producer();
        self.note(Call::UnregisterProducer);
    }

    fn set_timer(&mut self, after: Option<Duration>) {
        self.run_commands();
        self.note(Call::SetTimer(after));
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

    fn tls(&self) -> Option<Arc<SessionFacts>> {
        self.conn.tls()
    }

    fn start_tls(&mut self, how: StartTls) -> Result<(), Error> {
        self.run_commands();
        self.note(Call::StartTls);
        self.conn.start_tls(how)
    }

    fn may_start_tls(&mut self) -> Result<(), Error> {
        self.run_commands();
        self.conn.may_start_tls()
    }

    fn stop_tls(&mut self) -> Result<(), Error> {
        self.run_commands();
        self.note(Call::StopTls);
        self.conn.stop_tls()
    }
}

impl CommandTarget for Recorder {}

impl SocketOptions for Recorder {
    fn socket(&self) -> TcpOptions<'_> {
        self.conn.socket()
    }

    fn nodelay(&self) -> io::Result<bool> {
        Ok(self.noted().nodelay)
    }

    fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.noted().nodelay = on;
        self.note(Call::SetNodelay(on));
        Ok(())
    }

    fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        Ok(self.noted().keepalive)
    }

    fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        self.noted().keepalive = keepalive;
        self.note(Call::SetKeepalive(keepalive.is_some()));
        Ok(())
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("calls", &self.noted().calls.len()).finish_non_exhaustive()
    }
}
