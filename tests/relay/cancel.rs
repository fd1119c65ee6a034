//! A relay whose future is dropped, and which is called again.

use std::time::Duration;

use bowline::testing::{Kind, pair};
use bowline::{Transport, relay};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use crate::setup::{PAIRS, assert_reset, bounded, pattern, read_all, settle};

/// rule: flow-6, write-1
#[tokio::test]
async fn a_relay_that_is_dropped_and_called_again_loses_nothing() {
    for kinds in PAIRS {
        bounded(&format!("{kinds:?}"), async move {
            let (mut client, mut a) = pair(kinds.0).await.unwrap();
            let (mut b, mut backend) = pair(kinds.1).await.unwrap();
            let relaying = async {
                let mut drops = 0;
                loop {
                    tokio::select! {
                        biased;
                        report = relay(&mut a, &mut b) => break (report, drops),
                        () = sleep(Duration::from_millis(1)) => drops += 1,
                    }
                }
            };
            let asking = async {
                client.write_all(&pattern(2_000_000)).await.unwrap();
                client.close_write().await.unwrap();
                let answer = read_all(&mut client).await;
                (answer, client.close().await)
            };
            let answering = async {
                let question = read_all(&mut backend).await;
                sleep(Duration::from_millis(10)).await;
                backend.write_all(&pattern(1_000_000)).await.unwrap();
                (question, backend.close().await)
            };
            let ((report, drops), ((answer, first), x), ((question, second), y)) =
                tokio::join!(relaying, asking, answering);
            assert!(first.is_ok() && second.is_ok() && x.is_clean() && y.is_clean() && report.is_clean());
            assert!(question == pattern(2_000_000) && answer == pattern(1_000_000));
            assert!(drops > 1, "it was never dropped");
        })
        .await;
    }
}

/// rule: close-12
#[tokio::test]
async fn a_relay_dropped_with_its_transports_is_a_truncation_on_both_sides() {
    for kinds in PAIRS {
        bounded(&format!("{kinds:?}"), async move {
            let (mut client, mut a) = pair(kinds.0).await.unwrap();
            let (mut b, mut backend) = pair(kinds.1).await.unwrap();
            let relaying = tokio::spawn(async move { relay(&mut a, &mut b).await });
            settle(&mut client, &mut backend).await;
            relaying.abort();
            for (kind, peer) in [(kinds.0, &mut client), (kinds.1, &mut backend)] {
                let (_, end) = read_all(peer).await;
                match kind {
                    Kind::Tcp | Kind::Memory => assert_reset(&end),
                    _ => assert!(end.is_err(), "{kind}"),
                }
            }
        })
        .await;
    }
}
