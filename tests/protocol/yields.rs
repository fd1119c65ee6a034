//! life-6: every loop yields.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::protocol::{Conn, Producer, Reading};
use bowline::testing::tcp_pair;
use bowline::{Stream, UpgradableConnection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::probe::{Answer, Event, KEEP, Probe, Pull, Running, run};
use crate::setup::as_server;

/// A stream that accepts all bytes, returns bytes without end if the test wants it, and costs no budget.
struct Endless {
    gives: bool,
}

impl AsyncRead for Endless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.gives {
            return Poll::Pending;
        }
        buf.put_slice(&[7; 100][..100.min(buf.remaining())]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len().min(1_000)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs this on one thread together with a task that only counts its turns, until that task has had some turns.
fn beside<F: Future<Output = ()>>(what: &str, check: impl FnOnce() -> F + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check());
        runtime.shutdown_background();
        let _ = done.send(());
    });
    let outcome = is_done.recv_timeout(Duration::from_secs(30));
    outcome.unwrap_or_else(|_| panic!("{what}: no other task had its turn"));
}

/// Other tasks run, and the connection's own timer fires.
async fn others_go_on(running: Running) {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!running.handle.is_lost());
    running.handle.set_timer(Some(Duration::ZERO));
    running.told.event("timer").await;
    running.handle.abort();
    running.task.await.unwrap();
}

/// A producer that writes this much at each call, and registers a successor if asked to.
fn producer(running: &Running, bytes: usize, has_successor: bool) -> Producer {
    let told = running.told.clone();
    Producer::pull(Pull(crate::probe::Told::default(), move |transport: &mut dyn Conn| {
        transport.write(&vec![7; bytes]);
        if has_successor {
            transport.unregister_producer();
            transport.register_producer(endless_producer(told.clone()))?;
        }
        Ok(())
    }))
}

fn endless_producer(told: crate::probe::Told) -> Producer {
    Producer::pull(Pull(crate::probe::Told::default(), move |transport: &mut dyn Conn| {
        transport.unregister_producer();
        transport.register_producer(endless_producer(told.clone()))?;
        Ok(())
    }))
}

/// rule: life-6
#[test]
fn a_peer_that_sends_without_end_leaves_others_their_turns() {
    for leaves in ["nothing", "all, and wants it again"] {
        beside(leaves, move || async move {
            let probe = Probe::new(move |event, transport| {
                let Event::Data(data) = event else { return Ok(KEEP) };
                if leaves == "all, and wants it again" && transport.reading() == Reading::Open {
                    transport.pause_reading();
                    transport.resume_reading();
                }
                Ok(Answer { unread: if leaves == "nothing" { 0 } else { data.len() }, ..KEEP })
            });
            others_go_on(run(probe, Stream::new(Endless { gives: true }))).await;
        });
    }
}

/// rule: life-6
#[test]
fn a_producer_or_handle_that_writes_without_end_lets_other_tasks_run() {
    for who in ["a pull producer", "a producer with a successor", "much at once"] {
        beside(who, move || async move {
            let running = run(Probe::quiet(), Stream::new(Endless { gives: false }));
            running.told.event("made").await;
            match who {
                "a pull producer" => drop(running.handle.register_producer(producer(&running, 1_000, false))),
                "a producer with a successor" => drop(running.handle.register_producer(producer(&running, 0, true))),
                _ => running.handle.write(vec![7; 64 << 20]),
            }
            others_go_on(running).await;
        });
    }
}

/// rule: life-6
#[test]
fn a_producer_with_a_successor_leaves_others_their_turns_in_a_handshake() {
    beside("a handshake", || async {
        let (ours, _theirs) = tcp_pair().await.unwrap();
        let runner = bowline::protocol::Runner::new(Probe::quiet(), UpgradableConnection::new(ours));
        let running = crate::probe::start(runner.begin_tls(as_server()));
        running.told.event("made").await;
        drop(running.handle.register_producer(producer(&running, 0, true)));
        others_go_on(running).await;
    });
}

/// rule: life-6
#[test]
fn a_timer_that_is_always_due_lets_other_tasks_run() {
    beside("a timer", || async {
        let probe = Probe::on(|event, transport| {
            if matches!(event, Event::Made | Event::Timer) {
                transport.set_timer(Some(Duration::ZERO));
            }
        });
        others_go_on(run(probe, Stream::new(Endless { gives: false }))).await;
    });
}

/// rule: life-6
#[test]
fn a_wait_that_is_always_ready_lets_other_tasks_run() {
    for what in ["room", "room after the end", "the end"] {
        beside(what, move || async move {
            let running = run(Probe::quiet(), Stream::new(Endless { gives: false }));
            running.told.event("made").await;
            let handle = running.handle.clone();
            if what != "room" {
                handle.abort();
                running.task.await.unwrap();
            }
            let waiting = tokio::spawn(async move {
                loop {
                    match what {
                        "the end" => drop(handle.lost().await),
                        _ => drop(handle.writable().await),
                    }
                }
            });
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            waiting.abort();
        });
    }
}
