use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::protocol::{CallbackResult, Conn, Protocol, Runner};
use bowline::testing::{BoxTransport, shared_pki, tcp_pair};
use bowline::{
    Address, CloseLimit, Connector, DrainGroup, Error, Listener, Phase, Policy, Reason, Reconnector, Split, StartTls,
    Stream, TlsConnection, Transport, UpgradableConnection,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::common::{bounded, over_all, read_all, settle};

/// How often a call is ready in one turn of a task. The task's budget ends the turn of a call that is always ready; a
/// call that costs no budget fails here.
async fn ready_in_one_turn<R>(what: &str, mut call: impl FnMut(&mut Context<'_>) -> Poll<R>) {
    const MANY: usize = 10_000;
    // After the yield, the task has its whole budget again.
    tokio::task::yield_now().await;
    let times = poll_fn(|cx| Poll::Ready((0..MANY).take_while(|_| call(cx).is_ready()).count())).await;
    assert!(times > 0, "{what}: not ready");
    assert!(times < MANY, "{what}: ready for ever, and never yields");
}

/// Starts a call again, and polls it once.
fn once<F: Future>(cx: &mut Context<'_>, call: F) -> Poll<F::Output> {
    pin!(call).poll(cx)
}

async fn once_pinned<F: Future>(mut call: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await
}

async fn reads_yield(what: &str, ours: &mut BoxTransport) {
    ready_in_one_turn(&format!("{what}, read"), |cx| once(cx, ours.read(&mut [0]))).await;
    ready_in_one_turn(&format!("{what}, read of nothing"), |cx| once(cx, ours.read(&mut []))).await;
    ready_in_one_turn(&format!("{what}, fill_buf"), |cx| once(cx, ours.fill_buf()).map(drop)).await;
    ready_in_one_turn(&format!("{what}, read_line"), |cx| once(cx, ours.read_line(&mut String::new()))).await;
}

async fn writes_yield(what: &str, ours: &mut BoxTransport) {
    let parts = [IoSlice::new(b"a"), IoSlice::new(b"b")];
    ready_in_one_turn(&format!("{what}, write"), |cx| once(cx, ours.write(b"x"))).await;
    ready_in_one_turn(&format!("{what}, write_sequence"), |cx| once(cx, ours.write_sequence(&parts))).await;
    ready_in_one_turn(&format!("{what}, flush"), |cx| once(cx, ours.flush())).await;
    ready_in_one_turn(&format!("{what}, close_write"), |cx| once(cx, ours.close_write())).await;
}

/// rule: life-6
#[tokio::test]
async fn calls_after_an_end_yield_over_every_transport() {
    over_all(|_, mut ours, mut theirs| async move {
        settle(&mut ours, &mut theirs).await;
        theirs.close_write().await.unwrap();
        assert!(read_all(&mut ours).await.1.is_ok());
        reads_yield("after the peer's end", &mut ours).await;
        ours.close_write().await.unwrap();
        writes_yield("after our end", &mut ours).await;
        ours.close().await;
        ready_in_one_turn("after a close, close", |cx| once(cx, ours.close())).await;
        let control = ours.control();
        ready_in_one_turn("after a close, lost", |cx| once(cx, control.lost())).await;
        reads_yield("after a close", &mut ours).await;
        writes_yield("after a close", &mut ours).await;
    })
    .await;
}

/// rule: life-6
#[tokio::test]
async fn calls_after_an_abort_yield_over_every_transport() {
    over_all(|_, mut ours, mut theirs| async move {
        settle(&mut ours, &mut theirs).await;
        ours.abort();
        reads_yield("after an abort", &mut ours).await;
        writes_yield("after an abort", &mut ours).await;
        ready_in_one_turn("after an abort, close", |cx| once(cx, ours.close())).await;
    })
    .await;
}

/// rule: life-6
#[tokio::test]
async fn reads_of_buffered_data_yield_over_every_transport() {
    over_all(|_, mut ours, mut theirs| async move {
        theirs.write_all(&[b'\n'; 20_000]).await.unwrap();
        theirs.flush().await.unwrap();
        ours.fill_buf().await.unwrap();
        ready_in_one_turn("fill_buf", |cx| once(cx, ours.fill_buf()).map(drop)).await;
        ready_in_one_turn("read_line", |cx| once(cx, ours.read_line(&mut String::new()))).await;
        ready_in_one_turn("read", |cx| once(cx, ours.read(&mut [0]))).await;
        ready_in_one_turn("flush", |cx| once(cx, ours.flush())).await;
    })
    .await;
}

/// rule: life-6, upgrade-5
#[tokio::test]
async fn a_refused_upgrade_and_a_finished_handshake_yield() {
    let pki = shared_pki();
    let (client, server) = tcp_pair().await.unwrap();
    let (client_tls, server_tls) = (pki.client_tls(), pki.server_tls());
    let (client, server) = tokio::join!(
        TlsConnection::connect(client, &client_tls, "localhost"),
        TlsConnection::accept(server, &server_tls)
    );
    let (mut client, _server) = (client.unwrap(), server.unwrap());
    ready_in_one_turn("handshake", |cx| once(cx, client.handshake())).await;

    let mut plain = UpgradableConnection::new(tcp_pair().await.unwrap().0);
    ready_in_one_turn("stop_tls", |cx| once(cx, plain.stop_tls())).await;
    plain.abort();
    ready_in_one_turn("start_tls", |cx| once(cx, plain.start_tls(StartTls::server(&server_tls)))).await;
    ready_in_one_turn("read", |cx| once(cx, plain.read(&mut [0]))).await;
}

/// rule: life-6, drain-1
#[tokio::test]
async fn immediate_results_around_a_listener_yield() {
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().as_inet().unwrap();
    ready_in_one_turn("bind", |cx| once(cx, Listener::bind(addr)).map(Result::unwrap_err)).await;
    let connector = Connector::new().bind_to(([0_u16; 8], 0));
    ready_in_one_turn("connect_addr", |cx| once(cx, connector.connect_addr(addr)).map(Result::unwrap_err)).await;

    let group: &DrainGroup = listener.group();
    group.begin_drain();
    ready_in_one_turn("accept", |cx| {
        once(cx, listener.accept()).map(|accepted| assert!(matches!(accepted, Err(Error::Draining))))
    })
    .await;
    ready_in_one_turn("draining", |cx| once(cx, group.draining())).await;
    ready_in_one_turn("drain", |cx| once(cx, group.drain(None))).await;
}

/// rule: life-6, tcp-5
#[test]
fn an_accept_after_the_end_of_its_runtime_is_an_error_and_yields() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let listener = first.block_on(Listener::bind("127.0.0.1:0")).unwrap();
    drop(first);
    runtime().block_on(ready_in_one_turn("accept", |cx| {
        once(cx, listener.accept()).map(|accepted| assert!(matches!(accepted, Err(Error::Bind(_)))))
    }));
}

/// A stream of the application: always ready, without cost to the budget.
struct Eager {
    /// How many bytes of a write the stream takes.
    takes: fn(usize) -> usize,
}

impl AsyncRead for Eager {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buf.put_slice(b"x");
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Eager {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok((self.takes)(buf.len())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// rule: life-6
#[tokio::test]
async fn a_stream_that_is_always_ready_yields() {
    let policy = Policy::default().close_discard(1000);
    let name = || Address::Other("eager".into());
    let mut stream = Stream::with(Eager { takes: |len| len }, name(), name(), policy);
    ready_in_one_turn("read", |cx| once(cx, stream.read(&mut [0]))).await;
    ready_in_one_turn("write", |cx| once(cx, stream.write(b"x"))).await;
    ready_in_one_turn("flush", |cx| once(cx, stream.flush())).await;
    assert_eq!(stream.close().await.limit, Some(CloseLimit::Bytes));
}

/// rule: life-6, retry-2
#[tokio::test]
async fn a_client_that_gives_up_at_once_yields() {
    let mut connections = Reconnector::new(|| async { Err::<(), _>(Error::Draining) }).max_attempts(1);
    ready_in_one_turn("next", |cx| once(cx, connections.next()).map(Result::unwrap_err)).await;
}

/// A stream that interrupts each call this many times before the call succeeds.
struct Interrupted {
    times: usize,
    pipe: tokio::io::DuplexStream,
}

impl Interrupted {
    /// A transport of it, and the other end.
    fn new(times: usize) -> (Stream<Self>, tokio::io::DuplexStream) {
        let (pipe, other) = tokio::io::duplex(4096);
        (Stream::new(Self { times, pipe }), other)
    }

    fn interrupt(&mut self) -> io::Result<()> {
        if self.times == 0 {
            return Ok(());
        }
        self.times -= 1;
        Err(ErrorKind::Interrupted.into())
    }
}

impl AsyncRead for Interrupted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.interrupt()?;
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for Interrupted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.interrupt()?;
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.interrupt()?;
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.interrupt()?;
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// rule: life-6
#[tokio::test]
async fn an_interrupted_call_of_a_stream_is_repeated_but_not_without_end() {
    bounded("interrupted for a while, plaintext", async {
        let (mut ours, mut theirs) = Interrupted::new(100);
        ours.write_all(b"hello").await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut [0; 5]).await.unwrap();
        theirs.write_all(b"x").await.unwrap();
        ours.read_exact(&mut [0]).await.unwrap();
        let (report, ()) = tokio::join!(ours.close(), async {
            theirs.read_to_end(&mut Vec::new()).await.unwrap();
            theirs.shutdown().await.unwrap();
        });
        assert!(report.is_clean(), "{report:?}");
    })
    .await;
    bounded("interrupted for a while, TLS", async {
        let (ours, theirs) = Interrupted::new(100);
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        let (ours, theirs) = tokio::join!(
            TlsConnection::connect(ours, &client_tls, "localhost"),
            TlsConnection::accept(Stream::new(theirs), &server_tls)
        );
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        settle(&mut ours, &mut theirs).await;
    })
    .await;
    bounded("interrupted for ever", async {
        let stream = || Stream::new(Interrupted { times: usize::MAX, pipe: tokio::io::duplex(4096).0 });
        assert!(stream().write_all(b"x").await.is_err());
        assert!(stream().read(&mut [0]).await.is_err());
        assert!(!stream().close_with(b"last").await.is_clean());
        let mut client = UpgradableConnection::new(stream().wakes_unlocked());
        assert!(client.start_tls(StartTls::client(&shared_pki().client_tls(), "localhost")).await.is_err());
    })
    .await;
}

/// A Unix socket that panics in a write after `now` is set.
#[cfg(unix)]
struct Breaks {
    now: Arc<AtomicBool>,
    socket: tokio::net::UnixStream,
}

#[cfg(unix)]
impl AsyncRead for Breaks {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

#[cfg(unix)]
impl AsyncWrite for Breaks {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        assert!(!self.now.load(Ordering::SeqCst), "it breaks");
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The runtime calls a waker, which sends the queued bytes.
///
/// rule: life-7, write-6
#[cfg(unix)]
#[tokio::test]
async fn a_stream_that_panics_in_a_waker_ends_its_own_connection_only() {
    bounded("a Unix socket", async {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let now = Arc::new(AtomicBool::new(false));
        let ours = Stream::new(Breaks { now: Arc::clone(&now), socket: ours }).wakes_unlocked();
        let (client_tls, server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        let (ours, theirs) = tokio::join!(
            TlsConnection::connect(ours, &client_tls, "localhost"),
            TlsConnection::accept(Stream::from(theirs), &server_tls)
        );
        let (ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        let (mut read, mut write) = ours.into_split();
        let reading = tokio::spawn(async move { read.read(&mut [0]).await });
        // The socket is full, and some bytes are queued.
        while let Ok(written) = tokio::time::timeout(Duration::from_millis(50), write.write(&[7; 10_000])).await {
            written.unwrap();
        }
        let writing = tokio::spawn(async move { write.flush().await });
        tokio::task::yield_now().await;
        now.store(true, Ordering::SeqCst);
        assert!(read_all(&mut theirs).await.1.is_err());
        let (read, written) = (reading.await.unwrap(), writing.await.unwrap());
        assert!(read.is_err() && written.is_err(), "{read:?} {written:?}");
    })
    .await;
}

/// `write_all` and similar methods would take this error as a request to try again.
///
/// rule: life-6, end-1
#[test]
fn no_error_of_an_ended_connection_asks_to_repeat_the_call() {
    for kind in [ErrorKind::Interrupted, ErrorKind::WouldBlock] {
        let error = io::Error::from(Reason::Io(Arc::new(kind.into())));
        assert_eq!(error.kind(), ErrorKind::Other);
        let Error::Ended(Reason::Io(inner)) = Error::from(error) else { panic!("it is another one") };
        assert_eq!(inner.kind(), kind);
    }
}

struct Greets;

impl Protocol for Greets {
    fn connection_made(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        transport.write(b"hello");
        Ok(())
    }

    fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        Ok(data.len())
    }
}

fn assert_write_zero(what: &str, reason: &Reason) {
    let Reason::Io(error) = reason else { panic!("{what}: {reason}") };
    assert_eq!(error.kind(), ErrorKind::WriteZero, "{what}");
}

/// rule: life-6
#[tokio::test]
async fn a_stream_that_writes_0_bytes_has_failed_on_both_faces() {
    bounded("a stream that takes nothing", async {
        let nothing = || Stream::new(Eager { takes: |_| 0 });
        let error = nothing().write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
        let error = nothing().write_sequence(&[IoSlice::new(b""), IoSlice::new(b"x")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
        assert_write_zero("flushed", &Reason::from_io(nothing().write_all(b"x").await.unwrap_err(), Phase::Open));
        let report = nothing().close_with(b"last").await;
        assert_write_zero("close_with", &report.reason);
        assert_eq!(report.unwritten, 4);
        assert_write_zero("callbacks", &Runner::new(Greets, nothing()).run().await.reason);
        // An empty write succeeds, because there is nothing to write.
        assert_eq!(nothing().write(b"").await.unwrap(), 0);
        let server = TlsConnection::accept(nothing(), &shared_pki().server_tls()).await;
        assert!(server.is_err());
    })
    .await;
}

/// rule: life-6
#[tokio::test]
async fn a_stream_that_reports_more_bytes_than_it_got_has_failed() {
    let mut stream = Stream::new(Eager { takes: |len| len + 1 });
    assert!(stream.write(b"x").await.is_err());
    let mut stream = Stream::new(Eager { takes: |len| len + 1 });
    assert_eq!(stream.close_with(b"last").await.unwritten, 4);
}

/// rule: life-4, close-12
#[tokio::test]
async fn an_unpolled_wait_for_the_loss_keeps_no_socket_open() {
    over_all(|_, mut ours, mut theirs| async move {
        settle(&mut ours, &mut theirs).await;
        let control = ours.control();
        // The future is polled once and then kept, as after a `select!` that another branch has won.
        let mut lost = Box::pin(control.lost());
        assert!(once_pinned(lost.as_mut()).await.is_pending());
        drop(ours);
        let (_, end) = read_all(&mut theirs).await;
        assert!(end.is_err());
        lost.await;
    })
    .await;
}

/// rule: life-4, flow-5
#[tokio::test]
async fn every_task_that_waits_for_the_loss_learns_of_a_reset() {
    let (ours, theirs) = tcp_pair().await.unwrap();
    let control = ours.control();
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let control = control.clone();
                async move { control.lost().await }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    theirs.control().abort();
    bounded("three who wait", async move {
        for task in waiting {
            task.await.unwrap();
        }
        control.lost().await;
    })
    .await;
    drop(ours);
}
