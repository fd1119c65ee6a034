//! Listeners that read the PROXY header of each connection.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{Control, ListenerBuilder, Observer, Reason, TlsListener};

use super::*;

type Errors = Arc<Mutex<Vec<String>>>;

/// Notes the failed handshakes.
#[derive(Default)]
struct Failed(Mutex<Vec<String>>);

impl Observer for Failed {
    fn handshake_failed(&self, connection: &Control, reason: &Reason, _: Duration) {
        self.0.lock().unwrap().push(format!("{}: {reason}", connection.peer_addr()));
    }
}

async fn listen() -> (Listener, std::net::SocketAddr) {
    listen_with(Listener::builder().max_per_peer(1)).await
}

async fn listen_with(builder: ListenerBuilder) -> (Listener, std::net::SocketAddr) {
    let listener = builder.proxy(loopback()).bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().as_inet().unwrap();
    (listener, address)
}

async fn send(address: std::net::SocketAddr, header: &ProxyHeader) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&header.encode_v2()).await.unwrap();
    client
}

async fn secure(tcp: TcpStream) -> Result<TlsConnection<TcpConnection>, Error> {
    let tcp = TcpConnection::new(tcp, Policy::default()).unwrap();
    TlsConnection::connect(tcp, &shared_pki().client_tls(), "localhost").await
}

/// rule: proxy-5, limit-2
#[tokio::test]
async fn a_listener_counts_the_client_and_not_the_proxy() {
    let all = async {
        let (listener, address) = listen().await;
        let from = |client: &str| ProxyHeader::new(addr(client), addr("198.51.100.1:443"));
        let (_one, _other, mut again) = (
            send(address, &from("192.0.2.7:1")).await,
            send(address, &from("192.0.2.8:1")).await,
            send(address, &from("192.0.2.7:2")).await,
        );
        let mut kept = Vec::new();
        for peer in ["192.0.2.7:1", "192.0.2.8:1"] {
            let mut incoming = listener.accept().await.unwrap();
            incoming.read_proxy_header().await.unwrap();
            incoming.read_proxy_header().await.unwrap();
            assert_eq!(incoming.peer_addr().to_string(), peer);
            assert!(incoming.control().via().is_some());
            kept.push(incoming.into_tcp());
        }
        let refused = listener.accept().await.unwrap().finish(|tcp| async { Ok(tcp) }).await.unwrap_err();
        assert!(matches!(refused, Error::Proxy(ProxyError::Refused { max: 1, .. })), "{refused}");
        assert_eq!(again.read(&mut [0]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(listener.status().refused, 1);
        // A connection that has ended no longer counts.
        kept.clear();
        let _later = send(address, &from("192.0.2.7:3")).await;
        listener.accept().await.unwrap().finish(|tcp| async { Ok(tcp) }).await.unwrap();
    };
    timeout(BOUND, all).await.unwrap();
}

/// rule: proxy-5, proxy-6, accept-1
#[tokio::test]
async fn a_tls_listener_reads_headers_and_health_checks_end_quietly() {
    let all = async {
        let failed = Arc::<Failed>::default();
        let policy = Policy::default().observer(Arc::clone(&failed) as Arc<dyn Observer>);
        let (listener, address) = listen_with(Listener::builder().policy(policy)).await;
        let group = listener.group().clone();
        let errors = Errors::default();
        let noted = Arc::clone(&errors);
        let builder =
            TlsListener::builder().on_error(move |peer, error| noted.lock().unwrap().push(format!("{peer}: {error}")));
        let mut listener = builder.tls(listener, shared_pki().server_tls());
        // A proxy that checks the service says that the connection is its own, and ends it.
        let mut check = send(address, &ProxyHeader::local()).await;
        check.shutdown().await.unwrap();
        let _ = check.read(&mut [0]).await;
        let client = tokio::spawn(async move { secure(send(address, &header()).await).await });
        let accepted = listener.accept().await.unwrap();
        assert_eq!(accepted.peer_addr().to_string(), CLIENT);
        let client = client.await.unwrap().unwrap();
        // A client that ends in its handshake is reported with its own address.
        let failing = ProxyHeader::new(addr("192.0.2.9:1"), addr("198.51.100.1:443"));
        let mut failing = send(address, &failing).await;
        failing.shutdown().await.unwrap();
        let _ = failing.read(&mut [0]).await;
        drop((accepted, client, check, failing));
        while group.connections() > 0 || errors.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let errors = errors.lock().unwrap().clone();
        assert!(errors.len() == 1 && errors[0].starts_with("192.0.2.9:1: "), "{errors:?}");
        let failed = failed.0.lock().unwrap().clone();
        assert!(failed.len() == 1 && failed[0].starts_with("192.0.2.9:1: "), "{failed:?}");
    };
    timeout(BOUND, all).await.unwrap();
}

/// rule: proxy-5, accept-2: all connections come from one proxy.
#[tokio::test]
async fn a_client_with_many_handshakes_displaces_its_own_behind_a_proxy_too() {
    let all = async {
        let (listener, address) = listen_with(Listener::builder()).await;
        let mut listener = TlsListener::builder().max_waiting(4).tls(listener, shared_pki().server_tls());
        let from = |client: &str| ProxyHeader::new(addr(client), addr("198.51.100.1:443"));
        let slow = send(address, &from("192.0.2.7:1")).await;
        let mut silent = Vec::new();
        for _ in 0..12 {
            silent.push(send(address, &from("192.0.2.8:1")).await);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        for client in &mut silent[..8] {
            assert!(client.read(&mut [0]).await.is_err());
        }
        let client = tokio::spawn(secure(slow));
        assert_eq!(listener.accept().await.unwrap().peer_addr().to_string(), "192.0.2.7:1");
        client.await.unwrap().unwrap();
    };
    timeout(BOUND, all).await.unwrap();
}
