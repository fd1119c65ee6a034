//! The connection as callbacks see it. It records their calls, which are carried out after the callback has returned.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::conn::{CommandTarget, Conn, Handle, Producer, Reading};
use super::current;
use super::failure::{Failure, reason};
use super::guard::catch;
use super::handle_state::{Command, HandleState};
use super::reply::ReplySender;
use crate::config::start_tls::StartTls;
use crate::conn::control::{Control, Watcher};
use crate::conn::options::{SocketOptions, TcpOptions};
use crate::conn::time::after;
use crate::core::answers::Answers;
use crate::core::facts::SessionFacts;
use crate::core::outbox::{EndRequest, Outbox};
use crate::core::producer::{Level, ProducerCall, ProducerEvent, ProducerState};
use crate::error::{Error, Reason, UpgradeError};

/// A change between plaintext and TLS.
pub(super) enum TlsStep {
    /// Start TLS, with the deadline of the handshake.
    Start(Box<StartTls>, Option<Instant>, Option<ReplySender>),
    /// End TLS.
    Stop(Option<ReplySender>),
}

/// Whether a change between plaintext and TLS is in progress. Changes that wait in the outbox do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum TlsChange {
    #[default]
    None,
    /// The first handshake of a connection that starts with TLS. While it has not started, it is also in the outbox.
    FirstHandshake,
    /// Any later change.
    Step,
}

/// When the protocol gets data, as far as the protocol itself controls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Delivery {
    /// When more data arrives.
    #[default]
    OnArrival,
    /// Now: the protocol has left bytes unprocessed, and may process them although no more have arrived.
    Again,
    /// Not before reading is resumed. Then the state becomes [`Again`](Self::Again).
    Paused,
}

impl Delivery {
    /// Delivers unprocessed bytes again, unless the protocol has paused reading.
    fn again(&mut self) {
        if *self != Self::Paused {
            *self = Self::Again;
        }
    }
}

/// The pending calls of one protocol, and the facts about its transport that the protocol can see. The flags
/// `is_read_ended` and `was_full` are not part of a state machine: events outside of this type set them, in any
/// combination.
pub(crate) struct DeferredConn {
    pub(super) outbox: Outbox<TlsStep>,
    pub(super) answers: Answers,
    pub(super) producer_state: ProducerState,
    pub(super) producer: Option<Producer>,
    /// Producers that were registered after the end. They are stopped when the callback has returned.
    pub(super) too_late: Vec<Producer>,
    pub(super) delivery: Delivery,
    pub(super) timer: Option<Instant>,
    pub(super) handle_state: Arc<HandleState<dyn CommandTarget>>,
    /// The number of bytes that were queued in the transport at the last check.
    pub(super) queued_below: usize,
    pub(super) facts: Option<Arc<SessionFacts>>,
    /// The number of TLS sessions of the transport after the last change; `None` if the transport cannot be upgraded.
    pub(super) layers: Option<usize>,
    pub(super) tls_change: TlsChange,
    /// The transport has reported the end of the peer's half.
    pub(super) is_read_ended: bool,
    /// A write with a [`Handle`](super::Handle) has returned that the high mark is passed. The protocol and its
    /// producer are then notified of a full queue, even if bytes have left since.
    pub(super) was_full: bool,
    /// The connection is to end, with this reason.
    pub(super) failure: Option<Reason>,
    /// The waker of the task that waits for the mailbox.
    parked: Option<Waker>,
    /// An allocation that is exchanged with the mailbox and reused, so that commands cost no allocation. `None` while
    /// commands are being carried out.
    commands: Option<Vec<Command<dyn CommandTarget>>>,
}

impl DeferredConn {
    pub(crate) fn new(control: Control, facts: Option<Arc<SessionFacts>>, layers: Option<usize>) -> Self {
        let handle_state = HandleState::new(control.clone(), |state| Handle::new(Arc::clone(state)).close());
        let marks = control.policy().watermarks;
        let watcher: Weak<dyn Watcher> = Arc::downgrade(&(Arc::clone(&handle_state) as Arc<dyn Watcher>));
        control.watch(watcher);
        Self {
            outbox: Outbox::default(),
            answers: Answers::new(marks.low, marks.high),
            producer_state: ProducerState::default(),
            producer: None,
            too_late: Vec::new(),
            delivery: Delivery::default(),
            timer: None,
            handle_state,
            queued_below: 0,
            facts,
            layers,
            tls_change: TlsChange::default(),
            is_read_ended: false,
            was_full: false,
            failure: None,
            parked: None,
            commands: Some(Vec::new()),
        }
    }

    /// Whether the mailbox is empty and will wake this task. Takes no lock.
    #[inline]
    pub(super) fn is_quiet(&self, task: Option<&Waker>) -> bool {
        let is_parked = task.is_none_or(|task| self.parked.as_ref().is_some_and(|parked| parked.will_wake(task)));
        is_parked && self.handle_state.is_quiet()
    }

    /// Carries out the commands of handles. Returns whether there were any.
    pub(super) fn run_commands(&mut self, task: Option<&Waker>) -> bool {
        if self.is_quiet(task) {
            return false;
        }
        if let Some(task) = task {
            self.parked = Some(task.clone());
        }
        let Some(mut commands) = self.commands.take() else { return false };
        self.was_full |= self.handle_state.take_commands(task, &mut commands);
        let is_any = !commands.is_empty();
        commands.drain(..).for_each(|command| command.carry_out(self));
        self.commands = Some(commands);
        is_any
    }

    /// Takes the commands of handles without carrying them out.
    #[cfg(feature = "testing")]
    pub(crate) fn take_commands(&mut self) -> Vec<Command<dyn CommandTarget>> {
        let mut commands = Vec::new();
        self.handle_state.take_commands(None, &mut commands);
        self.handle_state.set_queued(self.queued(), true);
        commands
    }

    /// Carries out the commands of [`Handle`](super::Handle)s first, so that a callback's call with a handle precedes
    /// its next direct call (rule: write-1).
    fn catch_up(&mut self) {
        if self.commands.is_some() && !self.is_quiet(None) {
            self.run_commands(None);
        }
    }

    /// Records the first change of a connection that starts with TLS.
    pub(super) fn begin_tls(&mut self, how: StartTls, deadline: Option<Instant>) {
        self.outbox.push_step(TlsStep::Start(Box::new(how), deadline, None));
        self.tls_change = TlsChange::FirstHandshake;
    }

    fn push_start(&mut self, how: StartTls, reply: Option<ReplySender>) {
        let deadline = after(self.control().policy().handshake_timeout);
        self.outbox.push_step(TlsStep::Start(Box::new(how), deadline, reply));
    }

    /// Checks whether a change between plaintext and TLS is possible now, and returns the number of TLS sessions. The
    /// error says why the change is not possible (rule: upgrade-5).
    fn check_step(&self) -> Result<usize, Error> {
        let error = match (self.control().cut().or_else(|| self.failure.clone()), self.layers) {
            (Some(reason), _) => UpgradeError::Failed(reason),
            (None, None) => return Err(Error::Unsupported("upgrade to TLS")),
            (None, Some(_)) if self.is_changing() => UpgradeError::InProgress,
            (None, Some(_)) if self.outbox.requested_end() != EndRequest::None => UpgradeError::SendClosed,
            (None, Some(layers)) => return Ok(layers),
        };
        Err(error.into())
    }

    fn check_start(&self) -> Result<(), Error> {
        let layers = self.check_step()?;
        if self.is_read_ended {
            return Err(UpgradeError::PeerEnded.into());
        }
        Ok(self.control().policy().check_layers(layers)?)
    }

    fn check_stop(&self) -> Result<(), Error> {
        self.check_step()?;
        if self.is_secure() { Ok(()) } else { Err(UpgradeError::NotSecure.into()) }
    }

    /// Whether a change between plaintext and TLS is in progress or pending.
    fn is_changing(&self) -> bool {
        self.tls_change != TlsChange::None || self.outbox.has_steps()
    }

    /// Passes an event to the flow control of the producer. Returns which method of the producer must be called.
    pub(super) fn handle_producer(&mut self, event: ProducerEvent) -> ProducerCall {
        let call = self.producer_state.handle(event).unwrap_or(ProducerCall::Nothing);
        self.outbox.set_producer(self.producer_state.is_there());
        call
    }

    /// Whether a close was requested and has nothing left to finish, so that a change between plaintext and TLS is
    /// pointless (rule: close-9).
    pub(super) fn is_close_pointless(&self) -> bool {
        self.outbox.requested_end() == EndRequest::Close && self.outbox.is_empty() && !self.producer_state.is_there()
    }

    /// The fill level of the queue, including the bytes that are queued in the transport.
    pub(super) fn level(&self) -> Level {
        let queued = self.queued();
        if queued == 0 && !self.outbox.has_steps() {
            return Level::Empty;
        }
        let marks = self.control().policy().watermarks;
        match queued {
            queued if queued >= marks.high => Level::High,
            queued if queued <= marks.low => Level::Low,
            _ => Level::Between,
        }
    }

    /// Whether unsent answers stop reading, as of the last check of the transport. When this ends, bytes that were
    /// left unprocessed are delivered (rule: write-10).
    pub(super) fn is_held(&mut self) -> bool {
        let was_held = self.answers.is_held();
        self.answers.left(self.queued());
        if was_held && !self.answers.is_held() {
            self.delivery.again();
        }
        self.answers.is_held()
    }

    /// Records that nothing can be sent any more.
    pub(super) fn lose_sending(&mut self) -> ProducerCall {
        self.outbox.lose();
        if self.answers.is_held() {
            self.delivery.again();
        }
        self.answers.lose();
        self.handle_producer(ProducerEvent::End)
    }

    fn put(&mut self, bytes: &[u8], is_answer: bool) {
        let was_accepted = self.outbox.write(bytes);
        if was_accepted && !bytes.is_empty() {
            self.answers.wrote(bytes.len(), is_answer);
            self.handle_producer(ProducerEvent::Written);
        } else if !was_accepted {
            self.handle_state.count_dropped(bytes.len() as u64);
        }
    }
}

impl Conn for DeferredConn {
    fn write(&mut self, bytes: &[u8]) {
        self.catch_up();
        self.put(bytes, current::is_answering(self.handle_state.address()));
    }

    fn write_sequence(&mut self, parts: &mut dyn Iterator<Item = &[u8]>) {
        self.catch_up();
        // One check is enough for all parts: whether bytes are accepted cannot change between two parts.
        let is_answer = current::is_answering(self.handle_state.address());
        parts.for_each(|part| self.put(part, is_answer));
    }

    fn close(&mut self) {
        self.catch_up();
        self.outbox.end(EndRequest::Close);
    }

    fn close_write(&mut self) {
        self.catch_up();
        self.outbox.end(EndRequest::CloseWrite);
    }

    fn abort(&mut self) {
        // rule: abort-2: the connection is aborted at once, so that nothing leaves after this call.
        self.control().abort();
        // The reason is set even if both halves have ended already and the end only has to be reported.
        self.failure.get_or_insert(Reason::Aborted);
        self.outbox.lose();
    }

    fn pause_reading(&mut self) {
        self.catch_up();
        self.delivery = Delivery::Paused;
    }

    fn resume_reading(&mut self) {
        self.catch_up();
        if self.delivery == Delivery::Paused {
            self.delivery = Delivery::Again;
        }
    }

    fn is_reading_paused(&self) -> bool {
        self.delivery == Delivery::Paused
    }

    fn reading(&mut self) -> Reading {
        self.catch_up();
        match self.outbox.requested_end() {
            _ if self.control().is_cut() || self.failure.is_some() => Reading::Over,
            EndRequest::Close => Reading::Over,
            EndRequest::None | EndRequest::CloseWrite if self.is_changing() => Reading::Changing,
            EndRequest::None | EndRequest::CloseWrite if self.is_reading_paused() || self.answers.is_held() => {
                Reading::Paused
            }
            EndRequest::None | EndRequest::CloseWrite => Reading::Open,
        }
    }

    fn register_producer(&mut self, producer: Producer) -> Result<(), Error> {
        self.catch_up();
        let event = match &producer {
            Producer::Push(_) => ProducerEvent::RegisterPush,
            Producer::Pull(_) => ProducerEvent::RegisterPull,
        };
        let too_late = self.control().is_cut()
            || (!self.producer_state.is_there() && self.outbox.requested_end() != EndRequest::None);
        match self.producer_state.handle(event) {
            // rule: flow-1: a second producer is refused.
            Err(_) => return Err(Error::Producer),
            Ok(ProducerCall::Stop) => self.too_late.push(producer),
            Ok(_) if too_late => {
                self.producer_state.handle(ProducerEvent::Unregister).ok();
                self.too_late.push(producer);
            }
            Ok(_) => self.producer = Some(producer),
        }
        self.outbox.set_producer(self.producer_state.is_there());
        Ok(())
    }

    fn unregister_producer(&mut self) {
        self.catch_up();
        self.handle_producer(ProducerEvent::Unregister);
        if let Err(reason) = catch(|| self.producer = None) {
            self.failure.get_or_insert(reason);
        }
    }

    fn set_timer(&mut self, timeout: Option<Duration>) {
        self.catch_up();
        self.timer = after(timeout);
    }

    fn queued(&self) -> usize {
        self.outbox.len() + self.queued_below
    }

    fn dropped(&self) -> u64 {
        self.handle_state.dropped()
    }

    fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.handle_state))
    }

    fn control(&self) -> &Control {
        &self.handle_state.control
    }
    fn tls(&self) -> Option<Arc<SessionFacts>> {
        self.facts.clone()
    }

    fn start_tls(&mut self, how: StartTls) -> Result<(), Error> {
        self.catch_up();
        self.check_start()?;
        self.push_start(how, None);
        Ok(())
    }

    fn may_start_tls(&mut self) -> Result<(), Error> {
        self.catch_up();
        self.check_start()
    }

    fn stop_tls(&mut self) -> Result<(), Error> {
        self.catch_up();
        self.check_stop()?;
        self.outbox.push_step(TlsStep::Stop(None));
        Ok(())
    }
}

impl SocketOptions for DeferredConn {
    fn socket(&self) -> TcpOptions<'_> {
        TcpOptions(self.control())
    }
}

/// The calls of handles that differ from the calls of callbacks.
impl CommandTarget for DeferredConn {
    fn write_command(&mut self, bytes: &[u8], is_answer: bool) {
        self.put(bytes, is_answer);
    }

    fn start_tls_replying(&mut self, how: StartTls, reply: ReplySender) {
        match self.check_start() {
            Ok(()) => self.push_start(how, Some(reply)),
            Err(error) => reply.send(Err(error)),
        }
    }

    fn stop_tls_replying(&mut self, reply: ReplySender) {
        match self.check_stop() {
            Ok(()) => self.outbox.push_step(TlsStep::Stop(Some(reply))),
            Err(error) => reply.send(Err(error)),
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(reason(failure));
    }
}

impl Drop for DeferredConn {
    /// If a connection is dropped before its end, it is lost for its handles too (rule: life-4).
    fn drop(&mut self) {
        self.handle_state.close();
        self.handle_state.lose(Reason::Aborted);
    }
}
