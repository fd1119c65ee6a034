//! life-7: a fault in the application's code ends only its own connection.

use std::future::Future;
use std::io::{self, Read};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bowline::protocol::{
    CallbackResult, Conn, FileProducer, Handle, Panicked, Producer, Protocol, PushProducer, Runner, Server,
};
use bowline::testing::{Kind, pair, shared_pki, tcp_pair};
use bowline::{Connector, Listener, Policy, Reason, ServerTls, Stream, Transport as _};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::common::{bounded, over, over_all, read_all};
use crate::probe::{Event, Probe, Told, quiet_panics, run};

fn is_panic(reason: &Reason) -> bool {
    matches!(reason, Reason::Protocol(error) if error.is::<Panicked>())
}

/// rule: life-3, life-7
#[tokio::test]
async fn a_factory_that_panics_refuses_its_peer_and_no_other() {
    quiet_panics();
    bounded("tcp", async {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().as_inet().unwrap();
        let built = AtomicUsize::new(0);
        let factory = move |_: &bowline::Incoming| {
            assert!(built.fetch_add(1, Ordering::SeqCst) != 0, "panics at the first");
            Some(Probe::at("made", |transport| transport.write(b"hello")))
        };
        let serving = tokio::spawn(Server::new(listener, factory).run());
        // The reset may come before the connect has returned.
        if let Ok(mut first) = Connector::new().connect_addr(address).await {
            assert!(first.read_u8().await.is_err());
        }
        let mut second = Connector::new().connect_addr(address).await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'h');
        serving.abort();
    })
    .await;
}

/// rule: life-7, secure-4
#[tokio::test]
async fn a_certificate_resolver_that_panics_ends_its_connection_only() {
    #[derive(Debug)]
    struct Panics;
    impl bowline::rustls::server::ResolvesServerCert for Panics {
        fn resolve(
            &self,
            _: bowline::rustls::server::ClientHello<'_>,
        ) -> Option<Arc<bowline::rustls::sign::CertifiedKey>> {
            panic!("panics at the name")
        }
    }
    quiet_panics();
    bounded("tls", async {
        let mut config = bowline::rustls::ServerConfig::clone(&shared_pki().server_tls().config());
        config.cert_resolver = Arc::new(Panics);
        let tls: ServerTls = Arc::new(config).into();
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().as_inet().unwrap();
        let told = Told::default();
        let notes = told.clone();
        let factory = move |_: &bowline::Incoming| Some(Probe::sharing(notes.clone(), |_, _| {}));
        let serving = tokio::spawn(Server::new(listener, factory).tls(&tls).run());
        for round in 1..=2 {
            let tcp = Connector::new().connect_addr(address).await.unwrap();
            let client_tls = shared_pki().client_tls();
            assert!(bowline::TlsConnection::connect(tcp, &client_tls, "localhost").await.is_err());
            told.until(|told| told.count("lost(tls)") == round).await;
        }
        serving.abort();
    })
    .await;
}

/// Panics after this many reads.
struct Breaks(usize);

impl Read for Breaks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(self.0 > 0, "panics at reading");
        self.0 -= 1;
        buf.fill(b'f');
        Ok(buf.len())
    }
}

/// rule: life-7, end-8
#[tokio::test]
async fn a_file_whose_reader_or_progress_panics_ends_its_connection() {
    quiet_panics();
    for what in ["reader", "progress"] {
        over_all(move |kind, a, mut b| async move {
            let file = match what {
                "reader" => FileProducer::new(Breaks(2)).piece(1_000),
                _ => FileProducer::new(Breaks(100)).piece(1_000).progress(|_| panic!("panics at progress")),
            };
            let mut file = Some(Producer::pull(file));
            let running = run(
                Probe::at("made", move |transport| {
                    transport.register_producer(file.take().unwrap()).unwrap();
                    transport.close();
                }),
                a,
            );
            let (_, end) = read_all(&mut b).await;
            assert!(end.is_err(), "{kind}, {what}: what was cut off looks complete");
            let report = running.task.await.unwrap();
            assert!(is_panic(&report.reason), "{kind}, {what}: {}", report.reason);
            assert_eq!(running.told.count("lost"), 1);
        })
        .await;
    }
}

/// A protocol that panics at this place, outside of the callbacks.
struct Odd {
    told: Told,
    place: &'static str,
}

/// A producer whose destructor panics.
struct Undroppable(bool);

impl PushProducer for Undroppable {
    fn pause(&mut self) {}
    fn resume(&mut self) {}
    fn stop(&mut self) {}
}

impl Drop for Undroppable {
    fn drop(&mut self) {
        assert!(!self.0, "panics at its end");
    }
}

impl Protocol for Odd {
    fn connection_made(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        let is_undroppable = self.place.starts_with("producer");
        self.told.note("made");
        transport.register_producer(Producer::push(Undroppable(is_undroppable)))?;
        match self.place {
            "producer, by the handle" => transport.handle().unregister_producer(),
            "producer, by the transport" => transport.unregister_producer(),
            "producer, by the end" | "the protocol's end" => transport.handle().fail("mine"),
            _ => {}
        }
        Ok(())
    }

    fn data_received(&mut self, _: &mut dyn Conn, _: &[u8]) -> CallbackResult<usize> {
        Ok(0)
    }

    fn max_unread(&self) -> usize {
        assert_ne!(self.place, "max_unread", "panics at max_unread");
        1 << 20
    }

    fn stops_reading_when_full(&self) -> bool {
        assert_ne!(self.place, "stops_reading_when_full", "panics at stops_reading_when_full");
        true
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.told.note(if is_panic(reason) { "panicked" } else { "lost" });
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        assert_ne!(self.place, "the protocol's end", "panics at its end");
    }
}

/// rule: life-1, life-3, life-7
#[tokio::test]
async fn connection_lost_is_called_after_a_panic_outside_of_the_callbacks() {
    quiet_panics();
    for place in [
        "max_unread",
        "stops_reading_when_full",
        "producer, by the handle",
        "producer, by the transport",
        "producer, by the end",
        "the protocol's end",
    ] {
        over(&[Kind::Tcp, Kind::Tls13], Policy::default(), move |kind, a, mut b| async move {
            let told = Told::default();
            let runner = Runner::new(Odd { told: told.clone(), place }, a);
            let running = tokio::spawn(runner.run());
            let _ = b.write_all(b"x").await;
            let report = running.await.unwrap_or_else(|panic| panic!("{kind}, {place}: {panic}"));
            let expected =
                if matches!(place, "producer, by the end" | "the protocol's end") { "lost" } else { "panicked" };
            assert_eq!(
                (told.names(), is_panic(&report.reason)),
                (vec!["made".into(), expected.into()], expected == "panicked"),
                "{place}"
            );
        })
        .await;
    }
}

/// A stream that panics when it is read.
struct Explodes;

impl AsyncRead for Explodes {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        panic!("panics at reading")
    }
}

impl AsyncWrite for Explodes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// rule: life-3, life-7
#[tokio::test]
async fn a_panic_of_a_stream_ends_its_connection_and_calls_connection_lost() {
    quiet_panics();
    let running = run(Probe::quiet(), Stream::new(Explodes));
    assert!(is_panic(&running.task.await.unwrap().reason));
    assert_eq!(running.told.names(), ["made", "lost(protocol)"]);
    assert!(running.handle.is_lost());
}

/// Registers a producer by its handle, and by that of a connection that has ended, in each callback from `read_closed`
/// on.
struct Late {
    told: Told,
    own: Option<Handle>,
    dead: Handle,
    inside: Arc<AtomicUsize>,
}

impl Late {
    fn register(&self, handle: &Handle) {
        self.inside.fetch_add(1, Ordering::SeqCst);
        drop(handle.register_producer(Producer::push(Watching(self.told.clone(), Arc::clone(&self.inside)))));
        drop(self.dead.register_producer(Producer::push(Watching(self.told.clone(), Arc::clone(&self.inside)))));
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Notes whether it is stopped during a callback.
struct Watching(Told, Arc<AtomicUsize>);

impl PushProducer for Watching {
    fn pause(&mut self) {}
    fn resume(&mut self) {}
    fn stop(&mut self) {
        self.0.note(if self.1.load(Ordering::SeqCst) == 0 { "stop" } else { "stopped inside a callback" });
    }
}

impl Protocol for Late {
    fn connection_made(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.own = Some(transport.handle());
        transport.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        Ok(data.len())
    }

    fn write_closed(&mut self, transport: &mut dyn Conn) -> CallbackResult {
        self.register(&transport.handle());
        Ok(())
    }

    fn connection_lost(&mut self, _: &Reason) {
        let own = self.own.clone().unwrap();
        self.register(&own);
    }
}

/// rule: life-2, flow-1
#[tokio::test]
async fn a_producer_registered_by_a_handle_is_never_stopped_inside_a_callback() {
    let (gone, _) = pair(Kind::Memory).await.unwrap();
    let dead = run(Probe::quiet(), gone);
    dead.handle.abort();
    dead.task.await.unwrap();
    over_all(move |kind, a, mut b| {
        let dead = dead.handle.clone();
        async move {
            let told = Told::default();
            let late = Late { told: told.clone(), own: None, dead, inside: Arc::default() };
            let running = tokio::spawn(Runner::new(late, a).run());
            b.close().await;
            running.await.unwrap();
            assert_eq!(told.names(), ["stop"; 4], "{kind}");
        }
    })
    .await;
}

/// A waker that uses the connection when it wakes and when it is dropped, and then panics.
struct Nosy(Mutex<Option<Handle>>, bool);

impl Nosy {
    fn look(&self) {
        if let Some(handle) = &*self.0.lock().unwrap() {
            handle.queued();
            handle.write("x");
        }
    }
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.look();
        assert!(!self.1, "panics at waking");
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.look();
    }
}

/// rule: life-7
#[test]
fn a_waker_of_a_mailbox_runs_without_its_lock_and_its_panic_is_caught() {
    quiet_panics();
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let (a, _b) = runtime.block_on(tcp_pair()).unwrap();
        let runner = Runner::new(Probe::quiet(), a);
        let handle = runner.handle();
        let mut running = pin!(runner.run());
        // Each poll stores another waker, and drops the last reference to the previous one.
        for _ in 0..3 {
            let waker = Waker::from(Arc::new(Nosy(Mutex::new(Some(handle.clone())), true)));
            assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        handle.write("by another connection's callback");
        handle.close();
        handle.abort();
        let _ = done.send(());
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("no call hangs at the lock of the mailbox, or panics");
}

/// rule: life-7
#[tokio::test]
async fn a_panic_of_a_waiting_task_does_not_end_the_connection() {
    quiet_panics();
    over(&[Kind::Tcp, Kind::Tls13], Policy::default(), |kind, a, mut b| async move {
        let running = run(Probe::half_closeable(), a);
        running.told.event("made").await;
        // A task with a waker that panics waits for the end.
        let handle = running.handle.clone();
        let mut losing = pin!(handle.lost());
        let waker = Waker::from(Arc::new(Nosy(Mutex::new(None), true)));
        assert!(losing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        running.handle.close();
        b.close().await;
        assert!(running.task.await.unwrap().is_clean(), "{kind}");
        assert!(matches!(running.told.all().last(), Some(Event::Lost(_))));
    })
    .await;
}
