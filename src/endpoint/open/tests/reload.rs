//! `reload=` and `proxy=` reach everything that is opened from an endpoint.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::conn::control::{Observer, Reload};
use crate::error::Reason;
use crate::protocol::{CallbackResult, Conn, Protocol, Server, every};
use crate::server::listener::Listener;
use crate::server::tls_listener::TlsListener;
use crate::transport::Transport;

/// Replaces the files of an identity by one of the same CA.
struct Renewed {
    files: tempfile::TempDir,
    pki: Pki,
}

impl Renewed {
    fn new() -> Self {
        let renewed = Self { files: tempfile::tempdir().unwrap(), pki: Pki::new() };
        std::fs::write(renewed.files.path().join("ca.pem"), renewed.pki.ca_pem()).unwrap();
        renewed.renew();
        renewed
    }

    /// Chain and key are in one file, which is replaced at once.
    fn renew(&self) -> Vec<u8> {
        let identity = self.pki.server(&["localhost"]);
        let new = self.files.path().join("new");
        std::fs::write(&new, format!("{}{}", identity.chain_pem(), identity.key_pem())).unwrap();
        std::fs::rename(new, self.files.path().join("server.pem")).unwrap();
        identity.cert_der().to_vec()
    }

    fn endpoint(&self, kind: &str, reload: &str) -> String {
        let path = self.files.path().join("server.pem").display().to_string();
        format!("{kind}:127.0.0.1:0:cert={path}:key={path}:reload={reload}")
    }

    fn client(&self, listener: impl std::fmt::Display) -> ClientEndpoint {
        client(&format!("tls:{listener}:name=localhost:ca={}", self.files.path().join("ca.pem").display()))
    }
}

#[derive(Default)]
struct Noted(Mutex<Vec<&'static str>>);

impl Observer for Noted {
    fn reloaded(&self, reload: &Reload<'_>) {
        self.0.lock().unwrap().push(reload.name());
    }
}

async fn certificate(endpoint: &ClientEndpoint) -> Vec<u8> {
    let mut connection = endpoint.connect().await.unwrap();
    let certificate = connection.as_tls().unwrap().tls().unwrap().peer_chain[0].to_vec();
    connection.close().await;
    certificate
}

/// rule: reload-8
#[tokio::test]
async fn an_endpoint_loads_its_files_again() {
    let renewed = Renewed::new();
    for kind in ["tls", "starttls"] {
        let noted = std::sync::Arc::new(Noted::default());
        let policy = Policy::default().observer(noted.clone());
        let listener = server(&renewed.endpoint(kind, "0.01")).listen(policy).await.unwrap();
        let mut events = listener.reloader().unwrap().events();
        let new = renewed.renew();
        assert_eq!(timeout(SOON, events.next()).await.unwrap().unwrap().unwrap().generation, 2);
        assert_eq!(noted.0.lock().unwrap()[..], ["ok"]);
        assert_eq!(listener.server_tls().unwrap().own_certificates().unwrap()[0].to_vec(), new);
        if kind == "tls" {
            let to = renewed.client(listener.local_addr());
            let accept = async {
                let report = listener.accept().await?.begin().await?.close().await;
                // Without acknowledgements, the side that ends last does not know whether its last bytes have arrived.
                assert!(matches!(report.reason, Reason::Closed | Reason::Unconfirmed), "{report:?}");
                Ok::<_, Error>(())
            };
            let (got, accepted) = timeout(SOON, async { tokio::join!(certificate(&to), accept) }).await.unwrap();
            accepted.unwrap();
            assert_eq!(got, new);
        }
        drop(listener);
        assert!(timeout(SOON, events.next()).await.unwrap().is_none());
    }
    assert!(listen("tcp:127.0.0.1:0").await.reloader().is_none());
}

/// Ends every connection.
struct Ends;

impl Protocol for Ends {
    fn handshake_completed(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        conn.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        Ok(data.len())
    }
}

/// rule: reload-5, reload-8
#[tokio::test]
async fn the_parts_of_an_endpoint_serve_protocols_and_ready_connections() {
    let renewed = Renewed::new();
    // A listener that was opened by an endpoint string owns its reloader, and the files are watched while it lives.
    let listener = listen(&renewed.endpoint("tls", "0.01")).await;
    let to = renewed.client(listener.local_addr());
    let mut events = listener.reloader().unwrap().events();
    let mut ready = TlsListener::builder().endpoint(listener);
    let new = renewed.renew();
    assert!(timeout(SOON, events.next()).await.unwrap().unwrap().unwrap().is_new);
    let (got, _) =
        timeout(SOON, async { tokio::join!(certificate(&to), async { ready.accept().await.unwrap().close().await }) })
            .await
            .unwrap();
    assert_eq!(got, new);
    drop(ready);
    assert!(timeout(SOON, events.next()).await.unwrap().is_none());
    for protocols in [false, true] {
        let listener = listen(&renewed.endpoint("tls", "100")).await;
        let to = renewed.client(listener.local_addr());
        let parts = listener.into_parts().unwrap();
        assert!(parts.begins_with_tls);
        let (reloader, tls) = (parts.reloader.unwrap(), parts.tls.unwrap());
        let serving = if protocols {
            let server = Server::new(parts.listener, every(|| Ends)).tls(&tls);
            tokio::spawn(async move { drop(server.run().await) })
        } else {
            let mut listener = TlsListener::new(parts.listener, tls);
            tokio::spawn(async move {
                while let Ok(mut connection) = listener.accept().await {
                    connection.close().await;
                }
            })
        };
        let new = renewed.renew();
        assert!(timeout(SOON, reloader.reload_now()).await.unwrap().unwrap().is_new);
        assert_eq!(timeout(SOON, certificate(&to)).await.unwrap(), new);
        serving.abort();
    }
    let dir = tempfile::tempdir().unwrap();
    let on_unix = listen(&format!("unix:{}", dir.path().join("x").display())).await;
    assert!(on_unix.into_parts().is_none());
}

/// rule: reload-8
#[tokio::test]
async fn a_connector_loads_its_files_again() {
    let files = Files::new();
    let listener = listen(&format!("tls:127.0.0.1:0:{}:client-ca={}", files.cert("server"), files.ca())).await;
    let text =
        format!("tls:{}:name=localhost:ca={}:{}:reload=100", listener.local_addr(), files.ca(), files.cert("client"));
    let connector = client(&text).connector(Policy::default()).unwrap();
    let reloader = connector.reloader().unwrap().clone();
    let other = Pki::new();
    let peers = || async {
        let accept = async { listener.accept().await?.begin().await };
        timeout(SOON, async { tokio::join!(connector.connect(), accept) }).await.unwrap()
    };
    assert!(peers().await.1.is_ok());
    // The server refuses the new certificate, because another CA has issued it.
    let renewed = other.client("alice");
    std::fs::write(files.path().join("client.pem"), renewed.chain_pem()).unwrap();
    std::fs::write(files.path().join("client.key"), renewed.key_pem()).unwrap();
    assert!(reloader.reload_now().await.unwrap().is_new);
    assert!(peers().await.1.is_err());
    assert_eq!(connector.client_tls().unwrap().generation(), 2);
    let without = text.replace(":reload=100", "");
    assert!(client(&without).connector(Policy::default()).unwrap().reloader().is_none());
}

/// rule: proxy-1, proxy-5
#[cfg(feature = "proxy")]
#[tokio::test]
async fn an_endpoint_believes_the_proxies_that_it_names() {
    use crate::proxy::ProxyProtocol;
    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n";
    // The endpoint, what the client sends first, and the peer's host that the server sees.
    let cases: [(&str, &[u8], Option<&str>); 6] = [
        ("proxy=require:trusted=127.0.0.1", HEADER, Some("192.0.2.7")),
        ("proxy=accept:trusted=192.0.2.0/24,127.0.0.0/8", HEADER, Some("192.0.2.7")),
        ("proxy=accept:trusted=127.0.0.0/8", b"", Some("127.0.0.1")),
        ("proxy=accept:trusted=192.0.2.0/24", HEADER, Some("127.0.0.1")),
        ("proxy=require:trusted=192.0.2.0/24", HEADER, None),
        ("proxy=off", b"", Some("127.0.0.1")),
    ];
    for (arguments, first, peer) in cases {
        // The endpoint overrides this.
        let builder = Listener::builder().proxy(ProxyProtocol::require("203.0.113.1".parse().unwrap()));
        let listener = server(&format!("tcp:127.0.0.1:0:{arguments}")).listen_with(builder).await.unwrap();
        let mut ours = client(&format!("tcp:{}", listener.local_addr())).connect().await.unwrap();
        ours.write_all(first).await.unwrap();
        ours.write_all(b"x").await.unwrap();
        let begun = timeout(SOON, async { listener.accept().await.unwrap().begin().await }).await.unwrap();
        match (begun, peer) {
            (Ok(mut theirs), Some(peer)) => {
                assert_eq!(theirs.peer_addr().as_inet().unwrap().ip().to_string(), peer, "{arguments}");
                let is_header = peer == "127.0.0.1" && !first.is_empty();
                assert_eq!(theirs.read_u8().await.unwrap(), if is_header { b'P' } else { b'x' }, "{arguments}");
            }
            (Err(Error::Proxy(_)), None) => {}
            (begun, _) => panic!("{arguments}: {begun:?}"),
        }
    }
}
