//! life: callbacks and their order.

use bowline::Transport as _;
use bowline::testing::BoxTransport;
use tokio::io::AsyncWriteExt;

use crate::common::{expect, over_all, pattern, read_all};
use crate::probe::{Answer, Event, Probe, run};

/// rule: life-1, secure-2, half-6, half-7, close-8
#[tokio::test]
async fn a_connection_is_told_from_its_begin_to_its_end() {
    over_all(|kind, a, mut b: BoxTransport| async move {
        let probe = Probe::new(|event, transport| {
            if let Event::Data(data) = event {
                transport.write(data);
            }
            Ok(Answer::default())
        });
        let running = run(probe, a);
        let data = pattern(200_000);
        let (mut reading, mut writing) = tokio::io::split(&mut b);
        let sent = data.clone();
        tokio::join!(async { writing.write_all(&sent).await.unwrap() }, expect(&mut reading, &data));
        b.close_write().await.unwrap();
        let (rest, end) = read_all(&mut b).await;
        assert!(rest.is_empty() && end.is_ok());
        b.close().await;
        let report = running.task.await.unwrap();
        assert!(report.is_clean(), "{report}");
        let secured: &[&str] = if kind.is_tls() { &["secured"] } else { &[] };
        let expected = [&["made"], secured, &["data", "read_closed(Clean)", "write_closed", "lost(closed)"]].concat();
        running.told.forget("writable");
        assert_eq!(running.told.names(), expected);
        assert_eq!(running.told.data(), data);
    })
    .await;
}
