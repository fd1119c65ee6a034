//! One real transport. The test moves every byte from and to it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use crate::state::Item;
use bowline::testing::Pipe;
use bowline::testing::pki::Pki;
use bowline::{
    Address, ClientTls, Control, Policy, ServerTls, StartTls, Status, Stream, TlsTransport, Transport,
    UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;

/// The limit of a close and of a handshake.
pub const LIMIT: Duration = Duration::from_secs(10);
/// An attacker's unit.
pub const FORGED: &[u8; 6] = b"forged";

type Conn = UpgradableConnection<Stream<Pipe>>;

/// A call that waits. It owns the connection, and returns it at its end.
type Call = Pin<Box<dyn Future<Output = Conn>>>;

/// The configurations of TLS, made once.
pub struct Configs {
    client: ClientTls,
    server: ServerTls,
}

impl Configs {
    pub fn new() -> Self {
        let pki = Pki::new();
        let server = pki.server_tls_builder().send_tickets(0).build().expect("the test PKI is valid");
        Self { client: pki.client_tls(), server }
    }
}

impl Default for Configs {
    fn default() -> Self {
        Self::new()
    }
}

pub struct Side {
    conn: Option<Conn>,
    call: Option<Call>,
    /// Drops the call, so that the connection comes back.
    cancel: Option<oneshot::Sender<()>>,
    control: Control,
    is_dropped: bool,
    /// The other end of the pipe.
    far: Option<Pipe>,
    pub has_sent_end: bool,
    has_seen_fin: bool,
    start: Option<StartTls>,
}

/// The bytes and ends that a side has sent.
#[derive(Debug, Default)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub fin: bool,
    pub rst: bool,
}

/// Makes two sides, after a handshake if the setup says so.
pub async fn pair(configs: &Configs, is_secured: bool) -> [Side; 2] {
    let starts = [StartTls::client(&configs.client, "localhost"), StartTls::server(&configs.server)];
    let mut sides = starts.map(Side::new);
    if is_secured {
        for (i, side) in sides.iter_mut().enumerate() {
            side.start_tls(i);
        }
        for _ in 0..40 {
            for i in 0..2 {
                sides[i].go_on().await;
                tokio::task::yield_now().await;
                let sent = sides[i].sent();
                sides[1 - i].receive(&sent.bytes, false, false).await;
            }
        }
        assert!(sides.iter().all(|side| side.conn.is_some()), "the handshake is not done");
    }
    sides
}

impl Side {
    fn new(start: StartTls) -> Self {
        let (near, far) = bowline::testing::pipe(1 << 20);
        let name = || Address::Other("memory".into());
        let policy = Policy::default().close_timeout(LIMIT).handshake_timeout(LIMIT);
        let conn = UpgradableConnection::new(Stream::with(near, name(), name(), policy).wakes_unlocked());
        let control = conn.control();
        Self {
            conn: Some(conn),
            call: None,
            cancel: None,
            control,
            is_dropped: false,
            far: Some(far),
            has_sent_end: false,
            has_seen_fin: false,
            start: Some(start),
        }
    }

    /// Polls the call that waits.
    pub async fn go_on(&mut self) {
        let Some(call) = &mut self.call else { return };
        if let Some(conn) = once(call.as_mut()).await {
            self.conn = Some(conn);
            self.call = None;
            self.cancel = None;
        }
    }

    fn call(&mut self, call: impl FnOnce(Conn, oneshot::Receiver<()>) -> Call) {
        if let Some(conn) = self.conn.take() {
            let (cancel, cancelled) = oneshot::channel();
            self.cancel = Some(cancel);
            self.call = Some(call(conn, cancelled));
        }
    }

    pub async fn write(&mut self, i: usize, number: u8) -> Result<(), String> {
        let Some(conn) = &mut self.conn else { return Err(format!("side {i} cannot write: a call waits")) };
        match once(conn.write_all(&unit(i, number))).await {
            Some(Ok(())) => Ok(()),
            other => Err(format!("side {i} cannot write: {other:?}")),
        }
    }

    /// Reads at most one unit.
    pub async fn read(&mut self, from: usize, item: Option<Item>) -> Result<(), String> {
        let Some(conn) = &mut self.conn else { return Err("a call waits".into()) };
        if item == Some(Item::Alert) && !conn.is_secure() {
            // In plaintext these are bytes like any others, and one item of the model.
            let mut header = [0; 5];
            let _ = once(conn.read_exact(&mut header)).await;
            let mut body = vec![0; usize::from(header[4])];
            let _ = once(conn.read_exact(&mut body)).await;
            return Ok(());
        }
        let mut unit_read = [0; 6];
        let read = once(conn.read(&mut unit_read)).await;
        let due = match item {
            Some(Item::Data { number, .. }) => Some(unit(from, number)),
            Some(Item::Forged) => Some(*FORGED),
            _ => None,
        };
        match (&read, due) {
            (Some(Ok(6)), Some(due)) if unit_read == due => Ok(()),
            // The model expects no data here: an end, an error, or bytes of TLS that are nonsense in plaintext.
            (Some(_), None) => Ok(()),
            // The model delivers this data, but TLS does not accept it.
            (Some(Err(_)), Some(_)) => Ok(()),
            _ => Err(format!("a read gives {read:?} {unit_read:?}, in the model {item:?}")),
        }
    }

    /// Reads without taking anything.
    pub async fn read_ahead(&mut self) {
        if let Some(conn) = &mut self.conn {
            let _ = once(conn.fill_buf()).await;
        }
    }

    pub async fn close_write(&mut self) {
        if let Some(conn) = &mut self.conn {
            let _ = once(conn.close_write()).await;
        }
    }

    pub async fn close(&mut self) -> Result<(), String> {
        if let Some(cancel) = self.cancel.take() {
            let _ = cancel.send(());
            self.go_on().await;
        }
        if self.conn.is_none() {
            return Err("the dropped call did not give the connection back".into());
        }
        self.call(|mut conn, _| {
            Box::pin(async move {
                conn.close().await;
                conn
            })
        });
        Ok(())
    }

    pub fn abort(&mut self) {
        match &mut self.conn {
            Some(conn) => conn.abort(),
            None => self.control.abort(),
        }
    }

    pub fn drop_it(&mut self) {
        self.conn = None;
        self.call = None;
        self.is_dropped = true;
    }

    pub fn start_tls(&mut self, _: usize) {
        let Some(how) = self.start.take() else { return };
        self.call(|mut conn, cancelled| {
            Box::pin(async move {
                tokio::select! {
                    biased;
                    _ = cancelled => {}
                    _ = conn.start_tls(how) => {}
                }
                conn
            })
        });
    }

    pub fn stop_tls(&mut self) {
        self.call(|mut conn, cancelled| {
            Box::pin(async move {
                tokio::select! {
                    biased;
                    _ = cancelled => {}
                    _ = conn.stop_tls() => {}
                }
                conn
            })
        });
    }

    /// Bytes, FIN or RST arrive.
    pub async fn receive(&mut self, bytes: &[u8], fin: bool, rst: bool) {
        if rst {
            self.far = None;
            return;
        }
        let Some(far) = &mut self.far else { return };
        if !bytes.is_empty() {
            let _ = once(far.write_all(bytes)).await;
        }
        if fin {
            let _ = once(far.shutdown()).await;
        }
    }

    /// Whether RST has arrived.
    pub fn is_reset(&self) -> bool {
        self.far.is_none()
    }

    /// Reads to the end, and writes: only a use of the connection shows that it was reset.
    pub async fn use_it(&mut self) {
        if let Some(conn) = &mut self.conn {
            while let Some(Ok(1..)) = once(conn.read(&mut [0; 64])).await {}
            let _ = once(conn.write_all(b"x")).await;
        }
    }

    /// Takes everything that this side has sent since the last call.
    pub fn sent(&mut self) -> Sent {
        let mut sent = Sent::default();
        let Some(far) = &mut self.far else { return sent };
        let mut space = vec![0; 64 << 10];
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut *far).poll_read(&mut cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    sent.fin = !std::mem::replace(&mut self.has_seen_fin, true);
                    return sent;
                }
                Poll::Ready(Ok(())) => sent.bytes.extend(buf.filled()),
                Poll::Ready(Err(_)) => {
                    sent.rst = !self.has_sent_end;
                    return sent;
                }
                Poll::Pending => return sent,
            }
        }
    }

    /// The state, if no call has the connection.
    pub fn status(&self) -> Option<Status> {
        self.conn.as_ref().map(|conn| conn.status())
    }

    /// The reason of the end.
    pub fn reason(&self) -> Option<&'static str> {
        let status = self.status().and_then(|status| status.reason);
        status.or_else(|| self.control.report().map(|report| report.reason.clone())).map(|reason| reason.name())
    }
}

/// A unit is longer than the header of a record, so that a TLS session can tell that it is not a record.
fn unit(i: usize, number: u8) -> [u8; 6] {
    [b'u', b'n', b'i', b't', b'a' + i as u8, b'0' + number]
}

/// Polls once. `None`: it waits, and is dropped.
async fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}
