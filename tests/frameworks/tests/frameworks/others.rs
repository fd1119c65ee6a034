//! Libraries that need no adapter, by the lines of docs/frameworks.md.

use axum::routing::get;
use axum::{Extension, Router};
use bowline::hyper::Server;
use bowline::{Control, Lingering, Transport};
use futures_util::{SinkExt, StreamExt};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::codec::{Framed, LinesCodec};

use crate::common::{Certs, SOON};

/// A codec's sink ends the connection by `close`: the last line arrives although the server reads no more.
///
/// rule: close-15
#[tokio::test]
async fn a_codec_ends_in_order() {
    let certs = Certs::new();
    let (mut listener, port, _) = certs.listener().await;
    let serving = tokio::spawn(async move {
        let mut lines = Framed::new(Lingering::new(listener.accept().await.unwrap()), LinesCodec::new());
        let first = lines.next().await.unwrap().unwrap();
        lines.send(first.repeat(100_000)).await.unwrap();
        SinkExt::<String>::close(&mut lines).await.unwrap();
    });
    let mut client = certs.connect(port).await;
    client.write_all(b"hello\n").await.unwrap();
    client.write_all(&[b'x'; 200_000]).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.len(), 500_001);
    client.close().await;
    serving.await.unwrap();
}

#[tokio::test]
async fn a_service_of_tower_drains() {
    let certs = Certs::new();
    let (listener, port, group) = certs.listener().await;
    let peer = async |Extension(control): Extension<Control>| control.peer_addr().as_inet().unwrap().ip().to_string();
    let app = Router::new().route("/", get(peer));
    let serving = tokio::spawn(async move { Server::new().serve(listener, TowerToHyperService::new(app)).await });
    assert_eq!(certs.curled(&[&format!("https://localhost:{port}/")]).await, "127.0.0.1");
    let report = group.drain(SOON).await;
    assert_eq!(report.cut_off, 0, "{report}");
    assert!(serving.await.unwrap().is_ok());
}
