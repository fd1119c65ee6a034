//! Connections that nobody uses, with a paused clock.

use std::convert::Infallible;
use std::time::Duration;

use ::hyper::service::service_fn;
use ::hyper::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::{RequestBody, Server};
use crate::testing::{Kind, pair};

const LIMIT: Duration = Duration::from_secs(600);
/// The connection preface of HTTP/2, with an empty SETTINGS frame.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// The time after which the server has ended a connection on which the client sends these bytes, and what it has sent.
/// The service needs this time for an answer. An end that is not in order fails.
async fn ends(sent: &[u8], answer: Duration) -> (Duration, Vec<u8>) {
    let (mut client, server) = pair(Kind::MemoryTls).await.unwrap();
    let service = service_fn(move |_: Request<RequestBody>| async move {
        sleep(answer).await;
        Ok::<_, Infallible>(Response::new("slow".to_owned()))
    });
    let serving = tokio::spawn(async move { Server::new().idle_timeout(LIMIT).connection(server, service).await });
    let begun = Instant::now();
    client.write_all(sent).await.unwrap();
    client.flush().await.unwrap();
    let mut received = Vec::new();
    while timeout(LIMIT * 4, client.read_buf(&mut received)).await.expect("the connection does not end").unwrap() > 0 {
        // The server waits for the answer to its PING between two GOAWAY frames.
        if let Some((_, ping)) = frames(&received).into_iter().find(|(kind, _)| sent == HTTP2 && *kind == 6) {
            client.write_all(&[&[0, 0, 8, 6, 1, 0, 0, 0, 0], ping].concat()).await.unwrap();
            client.flush().await.unwrap();
        }
    }
    let time = begun.elapsed();
    client.close().await;
    serving.await.unwrap().unwrap();
    (time, received)
}

/// The types and the contents of the frames of HTTP/2.
fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut all = Vec::new();
    while let [a, b, c, kind, ..] = bytes {
        let end = 9 + u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(contents) = bytes.get(9..end) else { break };
        all.push((*kind, contents));
        bytes = &bytes[end..];
    }
    all
}

/// rule: idle-5
#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_in_order() {
    let idle = LIMIT * 3 / 4..=LIMIT;
    let (time, received) = ends(b"", Duration::ZERO).await;
    assert!(idle.contains(&time) && received.is_empty(), "no request: {time:?} {received:?}");
    let (time, received) = ends(HTTP2, Duration::ZERO).await;
    assert!(idle.contains(&time), "HTTP/2: {time:?}");
    assert!(frames(&received).iter().any(|(kind, _)| *kind == 7), "no GOAWAY: {received:?}");
    // A request that takes longer is answered.
    let get = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (time, received) = ends(get, LIMIT * 3).await;
    assert!(received.starts_with(b"HTTP/1.1 200") && received.ends_with(b"slow"), "{received:?}");
    assert!(time >= LIMIT * 3, "{time:?}");
}
