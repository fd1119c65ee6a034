//! What a callback has in its hands: the calls of the ladder are noted here, and carried out when it has returned.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::conn::{Reading, TcpTransport, TlsTransport, Transport, UpgradableTransport};
use super::current;
use super::guard;
use super::handle::Handle;
use super::handle_state::{Answer, Command, HandleState};
use super::producer::Producer;
use crate::config::start_tls::StartTls;
use crate::conn::control::{Control, Watcher};
use crate::conn::time::after;
use crate::core::answers::Answers;
use crate::core::facts::SessionFacts;
use crate::core::flow::{Flow, FlowEvent, Level, ProducerCall};
use crate::core::outbox::{EndRequest, Outbox};
use crate::error::{Error, Reason, UpgradeError};

/// A step between plaintext and TLS.
pub(super) enum Change {
    /// TLS begins, its handshake to be done by then.
    Start(Box<StartTls>, Option<Instant>, Option<Answer>),
    /// TLS ends.
    Stop(Option<Answer>),
}

/// The calls of one protocol.
pub(crate) struct DeferredConn {
    pub(super) outbox: Outbox<Change>,
    pub(super) answers: Answers,
    pub(super) flow: Flow,
    pub(super) producer: Option<Producer>,
    /// Producers that came too late, to be stopped when the callback has returned.
    pub(super) too_late: Vec<Producer>,
    pub(super) is_paused: bool,
    /// What the protocol has left unread is to be delivered without waiting for more.
    pub(super) is_resumed: bool,
    pub(super) timer: Option<Instant>,
    pub(super) handle_state: Arc<HandleState>,
    /// What the transport itself has queued, as of the last look.
    pub(super) queued_below: usize,
    pub(super) facts: Option<Arc<SessionFacts>>,
    pub(super) is_upgradable: bool,
    /// The number of TLS sessions of the transport, after the last change.
    pub(super) layers: usize,
    /// The peer's half has ended.
    pub(super) is_read_ended: bool,
    /// Whoever wrote by a handle was told that the high mark is passed: that is so, although it may be over by now.
    pub(super) was_full: bool,
    /// A handle has asked for the end of the connection with this reason.
    pub(super) failure: Option<Reason>,
    /// A change between plaintext and TLS is under way.
    pub(super) is_changing: bool,
    /// The task that is parked at the mailbox.
    parked: Option<Waker>,
    /// Lent to the mailbox and back, so that commands cost no allocation.
    commands: Vec<Command>,
    is_obeying: bool,
}

impl DeferredConn {
    pub(crate) fn new(control: Control, facts: Option<Arc<SessionFacts>>, layers: Option<usize>) -> Self {
        let handle_state = HandleState::new(control.clone());
        let marks = control.policy().watermarks;
        let watcher: Weak<dyn Watcher> = Arc::downgrade(&(Arc::clone(&handle_state) as Arc<dyn Watcher>));
        control.watch(watcher);
        Self {
            outbox: Outbox::default(),
            answers: Answers::new(marks.low, marks.high),
            flow: Flow::default(),
            producer: None,
            too_late: Vec::new(),
            is_paused: false,
            is_resumed: false,
            timer: None,
            handle_state,
            queued_below: 0,
            facts,
            is_upgradable: layers.is_some(),
            layers: layers.unwrap_or_default(),
            is_read_ended: false,
            was_full: false,
            failure: None,
            is_changing: false,
            parked: None,
            commands: Vec::new(),
            is_obeying: false,
        }
    }

    /// Whether nothing is to be looked for in the mailbox, and this task is parked there. That takes no lock.
    #[inline]
    pub(super) fn is_quiet(&self, task: Option<&Waker>) -> bool {
        let is_parked = task.is_none_or(|task| self.parked.as_ref().is_some_and(|parked| parked.will_wake(task)));
        is_parked && self.handle_state.is_quiet()
    }

    /// Carries out what handles have asked for; says whether that was anything.
    pub(super) fn obey(&mut self, task: Option<&Waker>) -> bool {
        if self.is_quiet(task) {
            return false;
        }
        if let Some(task) = task {
            self.parked = Some(task.clone());
        }
        let mut commands = std::mem::take(&mut self.commands);
        self.was_full |= self.handle_state.take_commands(task, &mut commands);
        let is_any = !commands.is_empty();
        self.is_obeying = true;
        commands.drain(..).for_each(|order| self.carry_out(order));
        self.is_obeying = false;
        self.commands = commands;
        is_any
    }

    /// What handles have asked for, not carried out.
    #[cfg(feature = "testing")]
    pub(crate) fn take_commands(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        self.handle_state.take_commands(None, &mut commands);
        self.handle_state.set_queued(self.queued(), true);
        commands
    }

    /// What a callback has asked for by a handle comes ahead of what it asks for now (rule: write-1).
    fn catch_up(&mut self) {
        if !self.is_obeying && !self.is_quiet(None) {
            self.obey(None);
        }
    }

    fn carry_out(&mut self, order: Command) {
        match order {
            Command::Write(bytes, is_answer) => self.put(&bytes, is_answer),
            Command::Close => self.close(),
            Command::CloseWrite => self.close_write(),
            Command::Pause => self.pause_reading(),
            Command::Resume => self.resume_reading(),
            Command::Register(producer, answer) => answer.give(self.register_producer(producer)),
            Command::Unregister => self.unregister_producer(),
            Command::StartTls(how, answer) => match self.check_start() {
                Ok(()) => self.push_start(how, Some(answer)),
                Err(error) => answer.give(Err(error)),
            },
            Command::StopTls(answer) => match self.check_stop() {
                Ok(()) => self.outbox.push_step(Change::Stop(Some(answer))),
                Err(error) => answer.give(Err(error)),
            },
            Command::Timer(after) => self.set_timer(after),
            Command::Fail(failure) => {
                self.failure.get_or_insert(guard::reason(failure));
            }
        }
    }

    /// The first step of a connection that begins with TLS.
    pub(super) fn begin_tls(&mut self, how: StartTls, deadline: Option<Instant>) {
        self.outbox.push_step(Change::Start(Box::new(how), deadline, None));
    }

    fn push_start(&mut self, how: Box<StartTls>, answer: Option<Answer>) {
        let deadline = after(self.control().policy().handshake_timeout);
        self.outbox.push_step(Change::Start(how, deadline, answer));
    }

    /// Whether a change between plaintext and TLS can be asked for; where not, which of the causes it is (rule:
    /// upgrade-5).
    fn check_change(&self) -> Result<(), Error> {
        let error = match self.control().cut().or_else(|| self.failure.clone()) {
            Some(reason) => UpgradeError::Failed(reason),
            None if !self.is_upgradable => return Err(Error::Unsupported("upgrade to TLS")),
            None if self.is_changing || self.outbox.has_steps() => UpgradeError::InProgress,
            None if self.outbox.requested_end() != EndRequest::None => UpgradeError::SendClosed,
            None => return Ok(()),
        };
        Err(error.into())
    }

    fn check_start(&self) -> Result<(), Error> {
        self.check_change()?;
        if self.is_read_ended {
            return Err(UpgradeError::PeerEnded.into());
        }
        Ok(self.control().policy().check_layers(self.layers)?)
    }

    fn check_stop(&self) -> Result<(), Error> {
        self.check_change()?;
        if self.is_secure() { Ok(()) } else { Err(UpgradeError::NotSecure.into()) }
    }

    /// Something happens to the producer; says what it is to be told.
    pub(super) fn flow(&mut self, event: FlowEvent) -> ProducerCall {
        let tell = self.flow.handle(event).unwrap_or(ProducerCall::Nothing);
        self.outbox.set_producer(self.flow.is_there());
        tell
    }

    /// Whether a close would have nothing to finish (rule: close-9).
    pub(super) fn is_close_pointless(&self) -> bool {
        self.outbox.requested_end() == EndRequest::Close && self.outbox.is_empty() && !self.flow.is_there()
    }

    /// How full the queue is, on all layers together.
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

    /// Whether reading was stopped because of unsent answers at the last check of the transport. When reading resumes, bytes that
    /// were left unread are delivered (rule: write-10).
    pub(super) fn is_held(&mut self) -> bool {
        let was_held = self.answers.is_held();
        self.answers.left(self.queued());
        self.is_resumed |= was_held && !self.answers.is_held();
        self.answers.is_held()
    }

    /// Nothing can be sent any more.
    pub(super) fn lose_sending(&mut self) -> ProducerCall {
        self.outbox.lose();
        self.is_resumed |= self.answers.is_held();
        self.answers.lose();
        self.flow(FlowEvent::End)
    }

    fn put(&mut self, bytes: &[u8], is_answer: bool) {
        let was_accepted = self.outbox.write(bytes);
        if was_accepted && !bytes.is_empty() {
            self.answers.wrote(bytes.len(), is_answer);
            self.flow(FlowEvent::Written);
        } else if !was_accepted {
            self.handle_state.count_dropped(bytes.len() as u64);
        }
    }
}

impl Transport for DeferredConn {
    fn write(&mut self, bytes: &[u8]) {
        self.catch_up();
        self.put(bytes, current::is_answering(&self.handle_state));
    }

    fn write_sequence(&mut self, parts: &mut dyn Iterator<Item = &[u8]>) {
        self.catch_up();
        // Nothing comes between: whether it is accepted does not change from one part to the next.
        let is_answer = current::is_answering(&self.handle_state);
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
        // rule: abort-2: at once, so that nothing leaves behind this call.
        self.control().abort();
        // Also where both halves have ended already, and only the telling is left.
        self.failure.get_or_insert(Reason::Aborted);
        self.outbox.lose();
    }

    fn pause_reading(&mut self) {
        self.catch_up();
        self.is_paused = true;
        self.is_resumed = false;
    }

    fn resume_reading(&mut self) {
        self.catch_up();
        self.is_resumed |= std::mem::take(&mut self.is_paused);
    }

    fn is_reading_paused(&self) -> bool {
        self.is_paused
    }

    fn reading(&mut self) -> Reading {
        self.catch_up();
        match self.outbox.requested_end() {
            _ if self.control().is_cut() || self.failure.is_some() => Reading::Over,
            EndRequest::Close => Reading::Over,
            EndRequest::None | EndRequest::CloseWrite if self.is_changing || self.outbox.has_steps() => {
                Reading::Changing
            }
            EndRequest::None | EndRequest::CloseWrite if self.is_paused || self.answers.is_held() => Reading::Paused,
            EndRequest::None | EndRequest::CloseWrite => Reading::Open,
        }
    }

    fn register_producer(&mut self, producer: Producer) -> Result<(), Error> {
        self.catch_up();
        let event = match &producer {
            Producer::Push(_) => FlowEvent::RegisterPush,
            Producer::Pull(_) => FlowEvent::RegisterPull,
        };
        let too_late =
            self.control().is_cut() || (!self.flow.is_there() && self.outbox.requested_end() != EndRequest::None);
        match self.flow.handle(event) {
            // rule: flow-1
            Err(_) => return Err(Error::Producer),
            Ok(ProducerCall::Stop) => self.too_late.push(producer),
            Ok(_) if too_late => {
                self.flow.handle(FlowEvent::Unregister).ok();
                self.too_late.push(producer);
            }
            Ok(_) => self.producer = Some(producer),
        }
        self.outbox.set_producer(self.flow.is_there());
        Ok(())
    }

    fn unregister_producer(&mut self) {
        self.catch_up();
        self.flow(FlowEvent::Unregister);
        if let Err(reason) = guard::catch(|| self.producer = None) {
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
}

impl Drop for DeferredConn {
    /// A connection that is dropped ahead of its end is lost to its handles all the same (rule: life-4).
    fn drop(&mut self) {
        self.handle_state.close();
        self.handle_state.lose(Reason::Aborted);
    }
}

impl TcpTransport for DeferredConn {}

impl TlsTransport for DeferredConn {
    fn tls(&self) -> Option<Arc<SessionFacts>> {
        self.facts.clone()
    }
}

impl UpgradableTransport for DeferredConn {
    fn start_tls(&mut self, how: StartTls) -> Result<(), Error> {
        self.catch_up();
        self.check_start()?;
        self.push_start(Box::new(how), None);
        Ok(())
    }

    fn may_start_tls(&mut self) -> Result<(), Error> {
        self.catch_up();
        self.check_start()
    }

    fn stop_tls(&mut self) -> Result<(), Error> {
        self.catch_up();
        self.check_stop()?;
        self.outbox.push_step(Change::Stop(None));
        Ok(())
    }
}
