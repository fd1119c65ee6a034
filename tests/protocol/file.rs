//! Files as producers.

use std::io::{self, Read, Seek, Write};
use std::sync::{Arc, Mutex};

use bowline::Transport as _;
use bowline::protocol::{FileProducer, Producer};
use bowline::testing::tcp_pair;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{bounded, over_all, pattern, read_all};
use crate::probe::{Event, Probe, run};

/// rule: close-5, half-4, flow-2
#[tokio::test]
async fn a_file_is_sent_completely_and_the_end_follows_it() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&pattern(1_500_000)).unwrap();
    let file = Arc::new(file);
    over_all(move |kind, a, mut b| {
        let file = Arc::clone(&file);
        async move {
            let told = Arc::new(Mutex::new(Vec::new()));
            let progress = Arc::clone(&told);
            let probe = Probe::on(move |event, transport| {
                if matches!(event, Event::Made) {
                    let mut source = file.try_clone().unwrap();
                    source.rewind().unwrap();
                    let progress = Arc::clone(&progress);
                    let producer = FileProducer::new(source).piece(100_000).limit(1_450_000);
                    let producer = producer.progress(move |sent| progress.lock().unwrap().push(sent));
                    transport.register_producer(Producer::pull(producer)).unwrap();
                    transport.close();
                }
            });
            let running = run(probe, a);
            let (data, end) = read_all(&mut b).await;
            assert!(end.is_ok() && data == pattern(1_450_000), "{kind}: {} bytes", data.len());
            b.close().await;
            assert!(running.task.await.unwrap().is_clean());
            let told = told.lock().unwrap().clone();
            assert_eq!((told.len(), told.last()), (15, Some(&1_450_000)));
            assert!(told.is_sorted());
        }
    })
    .await;
}

/// rule: write-8, life-3
#[tokio::test]
async fn a_piece_of_any_size_is_read_in_bounded_memory() {
    for piece in [0, 1 << 40, usize::MAX] {
        bounded(&format!("pieces of {piece}"), async move {
            let (a, mut b) = tcp_pair().await.unwrap();
            let running = run(Probe::half_closeable(), a);
            let (largest, told) = (Arc::new(Mutex::new((0, 0))), Arc::new(Mutex::new(0)));
            let (noted, limit) = (Arc::clone(&largest), if piece == 0 { 100 } else { 3_000_000 });
            let producer = FileProducer::new(io::repeat(b'z')).piece(piece).limit(limit).progress(move |sent| {
                let mut told = told.lock().unwrap();
                let mut noted = noted.lock().unwrap();
                *noted = (noted.0.max(sent - *told), sent);
                *told = sent;
            });
            running.handle.register_producer(Producer::pull(producer)).await.unwrap();
            running.handle.close();
            let (data, end) = read_all(&mut b).await;
            assert!(end.is_ok() && data.len() as u64 == limit, "{} bytes", data.len());
            let (largest, sent) = *largest.lock().unwrap();
            assert!(largest <= 1 << 20 && sent == limit, "{largest} at once, {sent} in all");
            b.close().await;
            assert!(running.task.await.unwrap().is_clean());
        })
        .await;
    }
}

/// Returns some bytes, and then fails.
struct Failing(usize);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the disk is gone"));
        }
        let n = buf.len().min(self.0);
        buf[..n].fill(b'f');
        self.0 -= n;
        Ok(n)
    }
}

/// rule: life-3, abort-2
#[tokio::test]
async fn a_read_that_fails_ends_the_connection_and_never_looks_complete() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::half_closeable(), a);
        let producer = FileProducer::new(Failing(200_000));
        running.handle.register_producer(Producer::pull(producer)).await.unwrap();
        running.handle.close();
        assert!(read_all(&mut b).await.1.is_err());
        let report = running.task.await.unwrap();
        assert_eq!(report.reason.name(), "protocol");
        assert!(report.reason.to_string().contains("the disk is gone"));
    })
    .await;
}

/// rule: flow-3, life-4
#[tokio::test]
async fn a_file_is_closed_when_its_connection_is_lost() {
    over_all(|_, a, mut b| async move {
        let running = run(Probe::quiet(), a);
        let kept = Arc::new(());
        let alive = Arc::downgrade(&kept);
        let producer = FileProducer::new(io::repeat(b'z')).progress(move |_| drop(Arc::clone(&kept)));
        drop(running.handle.register_producer(Producer::pull(producer)));
        b.read_exact(&mut [0; 100_000]).await.unwrap();
        b.abort();
        let _ = b.shutdown().await;
        running.task.await.unwrap();
        // The reading thread may still hold a piece.
        while alive.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
