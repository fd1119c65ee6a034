//! Answers `/metrics` and `/health` in plain HTTP/1.1, one request on each connection.

use std::sync::Arc;
use std::time::Duration;

use bowline::{Listener, TcpConnection, Transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt};

use crate::Terminator;

/// The longest head of a request, and the longest time for it.
const MAX_HEAD: u64 = 8 << 10;
const MAX_TIME: Duration = Duration::from_secs(10);

/// Answers until the program ends.
pub(crate) async fn serve(listener: Listener, terminator: Arc<Terminator>) {
    while let Ok(incoming) = listener.accept().await {
        let terminator = Arc::clone(&terminator);
        tokio::spawn(async move {
            let mut connection = incoming.into_tcp();
            if let Ok(Some(request)) = tokio::time::timeout(MAX_TIME, head(&mut connection)).await {
                connection.close_with(answer(&request, &terminator).as_bytes()).await;
            }
        });
    }
}

/// The first line of a request; the rest of its head is skipped. `None`: the head is not whole.
async fn head(connection: &mut TcpConnection) -> Option<String> {
    let mut lines = connection.take(MAX_HEAD).lines();
    let request = lines.next_line().await.ok()??;
    while !lines.next_line().await.ok()??.is_empty() {}
    Some(request)
}

fn answer(request: &str, terminator: &Terminator) -> String {
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split('?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        ("GET", "/metrics") => ("200 OK", "text/plain; version=0.0.4", terminator.counts.render()),
        ("GET", "/health") if terminator.is_draining() => ("503 Service Unavailable", "text/plain", "draining".into()),
        ("GET", "/health") => ("200 OK", "text/plain", "ok".into()),
        (_, "/metrics" | "/health") => ("405 Method Not Allowed", "text/plain", String::new()),
        _ => ("404 Not Found", "text/plain", String::new()),
    };
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}; charset=utf-8\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}
