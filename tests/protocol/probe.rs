//! A protocol that records every call, and reacts as the test decides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bowline::protocol::{
    AfterRead, CallbackResult, Conn, Handle, Producer, Protocol, PullProducer, PushProducer, Runner,
};
use bowline::{CloseReport, End, Reason, Transport};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A callback, as the probe notes it.
#[derive(Debug, Clone)]
pub enum Event {
    Made,
    Secured,
    Data(Vec<u8>),
    Writable,
    Plain,
    Timer,
    ReadClosed(End),
    WriteClosed,
    Lost(Reason),
    /// A call of a producer, or a note of the test itself.
    Note(&'static str),
}

impl Event {
    /// The event as one word.
    pub fn name(&self) -> String {
        match self {
            Self::Made => "made".into(),
            Self::Secured => "secured".into(),
            Self::Data(_) => "data".into(),
            Self::Writable => "writable".into(),
            Self::Plain => "plain".into(),
            Self::Timer => "timer".into(),
            Self::ReadClosed(end) => format!("read_closed({end:?})"),
            Self::WriteClosed => "write_closed".into(),
            Self::Lost(reason) => format!("lost({})", reason.name()),
            Self::Note(note) => (*note).into(),
        }
    }
}

/// All calls of a protocol and its producer, in order.
#[derive(Clone, Default)]
pub struct Told(Arc<Notes>);

#[derive(Default)]
struct Notes {
    events: Mutex<Vec<Event>>,
    noted: Notify,
    is_inside: AtomicBool,
}

impl Told {
    /// Adds a note between the events.
    pub fn note(&self, note: &'static str) {
        self.push(Event::Note(note));
    }

    fn push(&self, event: Event) {
        self.0.events.lock().unwrap().push(event);
        self.0.noted.notify_waiters();
    }

    /// Runs a callback. A nested callback would be noted, and would fail the test (rule: life-2).
    fn call<R>(&self, event: Event, callback: impl FnOnce() -> R) -> R {
        struct Leave<'a>(&'a AtomicBool);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::SeqCst);
            }
        }
        if self.0.is_inside.swap(true, Ordering::SeqCst) {
            self.note("a callback inside a callback");
        }
        let _leave = Leave(&self.0.is_inside);
        self.push(event);
        callback()
    }

    pub fn all(&self) -> Vec<Event> {
        self.0.events.lock().unwrap().clone()
    }

    /// The events as words. Data events that follow each other are merged.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.all().iter().map(Event::name).collect();
        names.dedup_by(|later, earlier| later == "data" && earlier == "data");
        names
    }

    /// Removes events of this name, because the test does not check how often they come.
    pub fn forget(&self, name: &str) {
        self.0.events.lock().unwrap().retain(|event| event.name() != name);
    }

    /// All data.
    pub fn data(&self) -> Vec<u8> {
        self.all()
            .into_iter()
            .filter_map(|event| if let Event::Data(data) = event { Some(data) } else { None })
            .flatten()
            .collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.all().iter().any(|event| event.name().starts_with(name))
    }

    /// Waits until the events satisfy this condition.
    pub async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let mut noted = std::pin::pin!(self.0.noted.notified());
        loop {
            noted.as_mut().enable();
            if is_so(self) {
                return;
            }
            noted.as_mut().await;
            noted.set(self.0.noted.notified());
        }
    }

    pub fn count(&self, name: &str) -> usize {
        self.all().iter().filter(|event| event.name().starts_with(name)).count()
    }

    /// The reason of the end.
    pub fn reason(&self) -> Option<Reason> {
        self.all().into_iter().find_map(|event| if let Event::Lost(reason) = event { Some(reason) } else { None })
    }

    /// Waits for an event whose name starts with this.
    pub async fn event(&self, name: &str) {
        self.until(|told| told.has(name)).await;
    }

    /// Waits for this many bytes of data.
    pub async fn len(&self, len: usize) {
        self.until(|told| told.data().len() >= len).await;
    }
}

/// The work of the test in a callback. By default all data is processed, and the protocol is not half-closeable.
pub type React = Box<dyn FnMut(&Event, &mut dyn Conn) -> CallbackResult<Answer> + Send>;

/// The return value of a callback.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    /// How many bytes are left unread.
    pub unread: usize,
    /// The answer to the peer's end of its half.
    pub after_read: AfterRead,
}

/// The protocol.
pub struct Probe {
    told: Told,
    react: React,
    max_unread: usize,
    reads_on: bool,
}

impl Probe {
    /// Does this in each callback.
    pub fn new(react: impl FnMut(&Event, &mut dyn Conn) -> CallbackResult<Answer> + Send + 'static) -> Self {
        Self { told: Told::default(), react: Box::new(react), max_unread: 1 << 20, reads_on: false }
    }

    /// Does nothing, and is not half-closeable.
    pub fn quiet() -> Self {
        Self::new(|_, _| Ok(Answer::default()))
    }

    /// Does nothing, and is half-closeable.
    pub fn half_closeable() -> Self {
        Self::new(|_, _| Ok(KEEP))
    }

    /// Does this at each event that needs no return value; half-closeable.
    pub fn on(mut act: impl FnMut(&Event, &mut dyn Conn) + Send + 'static) -> Self {
        Self::new(move |event, transport| {
            act(event, transport);
            Ok(KEEP)
        })
    }

    pub fn told(&self) -> Told {
        self.told.clone()
    }

    /// Does this at each event, and notes nested calls; half-closeable.
    pub fn sharing(told: Told, act: impl FnMut(&Event, &mut dyn Conn) + Send + 'static) -> Self {
        Self { told, ..Self::on(act) }
    }

    /// Fails at the first event whose name begins with this.
    pub fn failing(told: Told, name: &'static str) -> Self {
        let react = move |event: &Event, _: &mut dyn Conn| {
            if event.name().starts_with(name) { Err("mine".into()) } else { Ok(KEEP) }
        };
        Self { told, react: Box::new(react), ..Self::quiet() }
    }

    /// Panics at the first event whose name begins with this.
    pub fn panicking(told: Told, name: &'static str) -> Self {
        Self::sharing(told, move |event, _| assert!(!event.name().starts_with(name), "panics at {name}"))
    }

    /// Keeps reading, even with many unsent answers.
    pub fn reading_on(self) -> Self {
        Self { reads_on: true, ..self }
    }

    /// Leaves at most this many bytes unread.
    pub fn leaving_at_most(self, bytes: usize) -> Self {
        Self { max_unread: bytes, ..self }
    }

    /// Does this before its other work.
    pub fn after(mut self, mut first: impl FnMut(&Event, &mut dyn Conn) + Send + 'static) -> Self {
        let mut react = self.react;
        self.react = Box::new(move |event, transport| {
            first(event, transport);
            react(event, transport)
        });
        self
    }

    /// Does this once, at the first event whose name begins with this; half-closeable.
    pub fn at(name: &'static str, act: impl FnOnce(&mut dyn Conn) + Send + 'static) -> Self {
        let mut act = Some(act);
        Self::on(move |event, transport| {
            if event.name().starts_with(name) {
                act.take().into_iter().for_each(|act| act(transport));
            }
        })
    }

    /// The same, and not half-closeable.
    pub fn closing(mut self) -> Self {
        let mut react = self.react;
        self.react = Box::new(move |event, transport| {
            react(event, transport)?;
            Ok(Answer::default())
        });
        self
    }

    fn tell(&mut self, event: Event, transport: &mut dyn Conn) -> CallbackResult<Answer> {
        let react = &mut self.react;
        self.told.call(event.clone(), || react(&event, transport))
    }
}

/// The answer of a half-closeable protocol.
pub const KEEP: Answer = Answer { unread: 0, after_read: AfterRead::KeepWriting };

impl Protocol for Probe {
    fn connection_made(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.tell(Event::Made, transport).map(drop)
    }

    fn handshake_completed(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.tell(Event::Secured, transport).map(drop)
    }

    fn data_received(&mut self, transport: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        Ok(data.len() - self.tell(Event::Data(data.to_vec()), transport)?.unread)
    }

    fn max_unread(&self) -> usize {
        self.max_unread
    }

    fn stops_reading_when_full(&self) -> bool {
        !self.reads_on
    }

    fn writable(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.tell(Event::Writable, transport).map(drop)
    }

    fn tls_stopped(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.tell(Event::Plain, transport).map(drop)
    }

    fn timer_fired(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.tell(Event::Timer, transport).map(drop)
    }

    fn read_closed(&mut self, transport: &mut dyn Conn, end: End) -> CallbackResult<AfterRead> {
        Ok(self.tell(Event::ReadClosed(end), transport)?.after_read)
    }

    fn write_closed(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.tell(Event::WriteClosed, transport).map(drop)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.told.call(Event::Lost(reason.clone()), || {});
    }
}

/// A running probe.
pub struct Running {
    pub told: Told,
    pub handle: Handle,
    pub task: JoinHandle<CloseReport>,
}

/// Runs a probe over a transport, in a task of its own.
pub fn run(probe: Probe, transport: impl Transport) -> Running {
    start(Runner::new(probe, transport))
}

/// Runs this runner in a task of its own.
pub fn start<T: Transport>(runner: Runner<Probe, T>) -> Running {
    let told = runner.protocol().told();
    let handle = runner.handle();
    Running { told, handle, task: tokio::spawn(runner.run()) }
}

/// A push producer that only notes its calls.
pub struct Push(pub Told);

impl PushProducer for Push {
    fn pause(&mut self) {
        self.0.call(Event::Note("pause"), || {});
    }

    fn resume(&mut self) {
        self.0.call(Event::Note("resume"), || {});
    }

    fn stop(&mut self) {
        self.0.call(Event::Note("stop"), || {});
    }
}

/// A pull producer that notes its calls, and does this when it is asked.
pub struct Pull<F>(pub Told, pub F);

impl<F> PullProducer for Pull<F>
where
    F: FnMut(&mut dyn bowline::protocol::Conn) -> CallbackResult + Send + 'static,
{
    fn produce(&mut self, transport: &mut dyn bowline::protocol::Conn) -> CallbackResult {
        let Self(told, produce) = self;
        told.call(Event::Note("produce"), || produce(transport))
    }

    fn stop(&mut self) {
        self.0.call(Event::Note("stop"), || {});
    }
}

/// A pull producer of these bytes, in pieces of this size; then it unregisters itself.
pub fn pull(told: Told, bytes: Vec<u8>, piece: usize) -> Producer {
    let mut sent = 0;
    Producer::pull(Pull(told, move |transport: &mut dyn bowline::protocol::Conn| {
        let end = bytes.len().min(sent + piece);
        transport.write(&bytes[sent..end]);
        sent = end;
        if sent == bytes.len() {
            transport.unregister_producer();
        }
        Ok(())
    }))
}

/// A push producer.
pub fn push(told: Told) -> Producer {
    Producer::push(Push(told))
}

/// Hides the output of panics that a test causes: those of a callback, recognised by their message.
pub fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let payload = info.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
            if !text.starts_with("panics at") && !text.starts_with("too late") {
                loud(info);
            }
        }));
    });
}
