//! An example for users of the feature `testing`: a small service, and tests of its behaviour when clients and network
//! paths misbehave.
//!
//! The service stores uploads. A client sends the bytes, closes its send half, and receives the number of stored bytes.
//! An upload that was cut short must not be stored, and a client that stalls must not occupy a connection slot for
//! ever.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::testing::peer::{Event, Meddler, RawTcp, RawTls};
use bowline::testing::pki::Pki;
use bowline::{Error, Incoming, Listener, Policy, ServerTls, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);

/// The service. In a real project, this code would be in `src/`.
mod service {
    use super::{Arc, AsyncReadExt, AsyncWriteExt, Duration, Error, Incoming, Listener, Mutex, ServerTls, Transport};

    #[derive(Clone)]
    pub(super) struct Uploads {
        pub(super) stored: Arc<Mutex<Vec<Vec<u8>>>>,
        pub(super) patience: Duration,
    }

    impl Uploads {
        pub(super) async fn serve(self, listener: Listener, tls: ServerTls) {
            while let Ok(incoming) = listener.accept().await {
                let (uploads, tls) = (self.clone(), tls.clone());
                // The failure of one client does not affect the others.
                tokio::spawn(async move { uploads.receive(incoming, &tls).await });
            }
        }

        async fn receive(self, incoming: Incoming, tls: &ServerTls) -> Result<(), Error> {
            let mut tls = incoming.handshake(tls).await?;
            let mut upload = Vec::new();
            let Ok(end) = tokio::time::timeout(self.patience, tls.read_to_end(&mut upload)).await else {
                tls.abort();
                return Ok(());
            };
            // A missing close_notify is an error here, so that every stored upload is complete.
            end?;
            let answer = format!("stored {} bytes", upload.len());
            self.stored.lock().unwrap().push(upload);
            tls.write_all(answer.as_bytes()).await?;
            tls.close().await;
            Ok(())
        }
    }
}

/// A running service, and what a test needs to connect to it.
struct Running {
    pki: Pki,
    stored: Arc<Mutex<Vec<Vec<u8>>>>,
    addr: std::net::SocketAddr,
}

impl Running {
    async fn start() -> Self {
        Self::with_patience(LONG, LONG).await
    }

    async fn with_patience(handshake: Duration, upload: Duration) -> Self {
        let pki = Pki::new();
        let stored = Arc::default();
        let policy = Policy::default().handshake_timeout(handshake);
        let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().as_inet().unwrap();
        let uploads = service::Uploads { stored: Arc::clone(&stored), patience: upload };
        tokio::spawn(uploads.serve(listener, pki.server_tls()));
        Self { pki, stored, addr }
    }

    /// A client that connects through this meddler.
    async fn client(&self, meddler: &Meddler) -> RawTls {
        let stream = TcpStream::connect(meddler.addr()).await.unwrap();
        RawTls::client(stream, &self.pki.client_tls(), "localhost").await.unwrap()
    }

    fn stored(&self) -> Vec<Vec<u8>> {
        self.stored.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_whole_upload_is_stored_and_confirmed_also_byte_by_byte() {
    let service = Running::start().await;
    let meddler = Meddler::to(service.addr).await.unwrap();
    meddler.to_server().trickle();
    let mut client = service.client(&meddler).await;
    client.data(b"all of it").close_notify().send().await.unwrap();
    assert_eq!(client.observe().await, [Event::Data(14), Event::CloseNotify, Event::Fin]);
    assert_eq!(client.received(), b"stored 9 bytes");
    assert_eq!(service.stored(), [b"all of it"]);
}

/// rule: end-2
#[tokio::test]
async fn a_truncated_upload_is_refused() {
    let service = Running::start().await;
    let meddler = Meddler::to(service.addr).await.unwrap();
    let mut client = service.client(&meddler).await;
    client.data(b"all of it").close_notify();
    // The client ends correctly, but the last byte of its close_notify is lost in transit.
    meddler.to_server().fin_after(client.sent() + client.queued() - 1);
    client.send().await.unwrap();
    let seen = client.observe().await;
    assert!(!seen.iter().any(|event| matches!(event, Event::Data(_))), "{seen:?}");
    assert!(service.stored().is_empty());
}

/// rule: end-2, abort-2
#[tokio::test]
async fn an_upload_that_stalls_is_cut_off_and_not_confirmed() {
    let service = Running::with_patience(LONG, SHORT).await;
    let meddler = Meddler::to(service.addr).await.unwrap();
    let mut client = service.client(&meddler).await;
    client.data(b"some of it").send().await.unwrap();
    // The service aborts. It sends no close_notify, so the client cannot mistake the end for a confirmation.
    assert_eq!(client.observe().await, [Event::Reset]);
    assert!(service.stored().is_empty());
}

/// rule: secure-5
#[tokio::test]
async fn a_handshake_that_stalls_is_given_up() {
    let service = Running::with_patience(SHORT, LONG).await;
    let mut client = RawTcp::connect(service.addr).await.unwrap();
    // The client sends only the start of a ClientHello.
    client.send(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    assert_ne!(client.observe().await.last(), Some(&Event::Silence));
    // The stalled client has not affected the others.
    let meddler = Meddler::to(service.addr).await.unwrap();
    let mut client = service.client(&meddler).await;
    client.data(b"good").close_notify().send().await.unwrap();
    client.observe().await;
    assert_eq!(client.received(), b"stored 4 bytes");
}
