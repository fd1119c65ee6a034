//! A protocol of messages that records its callbacks and reacts as the test decides, and a peer whose bytes are split
//! as the test decides.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bowline::protocol::{AfterRead, CallbackResult, Failure, Framed, Handle, MessageConn, MessageProtocol, Runner};
use bowline::{CloseReport, End, Reason, Stream, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, LinesCodec};

/// One callback of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Made,
    Secured,
    Message(String),
    Raw(Vec<u8>),
    Error(String),
    Plain,
    Timer,
    ReadClosed(End),
    Lost(&'static str),
}

/// All callbacks of a protocol, in order.
#[derive(Clone, Default)]
pub struct Told(Arc<(Mutex<Vec<Event>>, Notify)>);

impl Told {
    fn note(&self, event: Event) {
        self.0.0.lock().unwrap().push(event);
        self.0.1.notify_waiters();
    }

    pub fn all(&self) -> Vec<Event> {
        self.0.0.lock().unwrap().clone()
    }

    pub fn messages(&self) -> Vec<String> {
        let message = |event| if let Event::Message(text) = event { Some(text) } else { None };
        self.all().into_iter().filter_map(message).collect()
    }

    pub fn raw(&self) -> Vec<u8> {
        let raw = |event| if let Event::Raw(data) = event { Some(data) } else { None };
        self.all().into_iter().filter_map(raw).flatten().collect()
    }

    pub fn has(&self, event: &Event) -> bool {
        self.all().contains(event)
    }

    /// Waits until the recorded callbacks satisfy the condition.
    pub async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let mut noted = std::pin::pin!(self.0.1.notified());
        loop {
            noted.as_mut().enable();
            if is_so(self) {
                return;
            }
            noted.as_mut().await;
            noted.set(self.0.1.notified());
        }
    }
}

type React<C> = Box<dyn FnMut(&Event, &mut MessageConn<'_, C>) -> CallbackResult<usize> + Send>;

/// The protocol. For raw data, the reaction returns how many bytes it has processed. If the reaction returns 0 for an
/// error, the default treatment follows.
pub struct Script<C> {
    make: Box<dyn Fn() -> C + Send>,
    react: React<C>,
    pub told: Told,
    pub max_unread: usize,
}

impl<C> Script<C> {
    pub fn new(
        make: impl Fn() -> C + Send + 'static,
        react: impl FnMut(&Event, &mut MessageConn<'_, C>) -> CallbackResult<usize> + Send + 'static,
    ) -> Self {
        Self { make: Box::new(make), react: Box::new(react), told: Told::default(), max_unread: 1 << 20 }
    }

    /// Does this with each message.
    pub fn on_message(
        make: impl Fn() -> C + Send + 'static,
        mut act: impl FnMut(&str, &mut MessageConn<'_, C>) -> CallbackResult + Send + 'static,
    ) -> Self {
        Self::new(make, move |event, transport| match event {
            Event::Message(text) => act(text, transport).map(|()| 0),
            _ => Ok(0),
        })
    }

    fn tell(&mut self, event: Event, transport: &mut MessageConn<'_, C>) -> CallbackResult<usize> {
        self.told.note(event.clone());
        (self.react)(&event, transport)
    }
}

/// Lines of at most 100 bytes.
pub fn lines() -> LinesCodec {
    LinesCodec::new_with_max_length(100)
}

impl<C> MessageProtocol for Script<C>
where
    C: Decoder<Item: AsRef<[u8]>, Error: Into<Failure> + std::fmt::Display> + Send + 'static,
{
    type Codec = C;

    fn codec(&self) -> C {
        (self.make)()
    }

    fn max_unread(&self) -> usize {
        self.max_unread
    }

    fn connection_made(&mut self, transport: &mut MessageConn<'_, C>) -> CallbackResult {
        self.tell(Event::Made, transport).map(drop)
    }

    fn handshake_completed(&mut self, transport: &mut MessageConn<'_, C>) -> CallbackResult {
        self.tell(Event::Secured, transport).map(drop)
    }

    fn message_received(&mut self, transport: &mut MessageConn<'_, C>, message: C::Item) -> CallbackResult {
        let text = String::from_utf8_lossy(message.as_ref()).into_owned();
        self.tell(Event::Message(text), transport).map(drop)
    }

    fn raw_received(&mut self, transport: &mut MessageConn<'_, C>, data: &[u8]) -> CallbackResult<usize> {
        let done = (self.react)(&Event::Raw(data.to_vec()), transport)?;
        self.told.note(Event::Raw(data[..done].to_vec()));
        Ok(done)
    }

    fn frame_error(&mut self, transport: &mut MessageConn<'_, C>, error: C::Error) -> CallbackResult {
        match self.tell(Event::Error(error.to_string()), transport)? {
            0 => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn tls_stopped(&mut self, transport: &mut MessageConn<'_, C>) -> CallbackResult {
        self.tell(Event::Plain, transport).map(drop)
    }

    fn timer_fired(&mut self, transport: &mut MessageConn<'_, C>) -> CallbackResult {
        self.tell(Event::Timer, transport).map(drop)
    }

    fn read_closed(&mut self, transport: &mut MessageConn<'_, C>, end: End) -> CallbackResult<AfterRead> {
        self.tell(Event::ReadClosed(end), transport)?;
        Ok(AfterRead::Close)
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.told.note(Event::Lost(reason.name()));
    }
}

/// A running script.
pub struct Running {
    pub told: Told,
    pub handle: Handle,
    pub task: JoinHandle<CloseReport>,
}

pub fn run<C>(script: Script<C>, transport: impl Transport) -> Running
where
    C: Send + 'static,
    Script<C>: MessageProtocol<Codec = C>,
{
    let told = script.told.clone();
    let runner = Runner::new(Framed::new(script), transport);
    let handle = runner.handle();
    Running { told, handle, task: tokio::spawn(runner.run()) }
}

impl Running {
    /// The reason of its end.
    pub async fn reason(self) -> Reason {
        tokio::time::timeout(crate::common::BOUND, self.task).await.expect("it ends").unwrap().reason
    }
}

/// A stream that returns its bytes in these segments, one for each read, and then its end. It records the bytes that
/// are written to it.
pub struct Segments {
    segments: VecDeque<Vec<u8>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Segments {
    /// The bytes, split at these places.
    pub fn cut(bytes: &[u8], places: &[usize]) -> (Stream<Self>, Arc<Mutex<Vec<u8>>>) {
        let mut places: Vec<usize> = places.iter().map(|place| (*place).min(bytes.len())).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        places.dedup();
        let segments = places.windows(2).map(|ends| bytes[ends[0]..ends[1]].to_vec()).collect();
        let written = Arc::default();
        (Stream::new(Self { segments, written: Arc::clone(&written) }).delivers_at_once(), written)
    }
}

impl AsyncRead for Segments {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut segment) = self.segments.pop_front() {
            let n = segment.len().min(buf.remaining());
            buf.put_slice(&segment[..n]);
            if n < segment.len() {
                self.segments.push_front(segment.split_off(n));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Segments {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A codec, and the largest number of bytes that it was given at once.
#[derive(Clone)]
pub struct Watched<C> {
    pub codec: C,
    shown: Arc<AtomicUsize>,
}

impl<C> Watched<C> {
    pub fn new(codec: C) -> Self {
        Self { codec, shown: Arc::default() }
    }

    /// Waits until the codec was given this many bytes.
    pub async fn shown(&self, bytes: usize) {
        while self.shown.load(Ordering::Relaxed) < bytes {
            tokio::task::yield_now().await;
        }
    }
}

impl<C: Decoder> Decoder for Watched<C> {
    type Item = C::Item;
    type Error = C::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<C::Item>, C::Error> {
        self.shown.fetch_max(bytes.len(), Ordering::Relaxed);
        self.codec.decode(bytes)
    }
}
