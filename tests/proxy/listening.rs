//! Listeners that read the PROXY header of each connection.

use std::sync::{Arc, Mutex};

use bowline::TlsListener;

use super::*;

type Errors = Arc<Mutex<Vec<String>>>;

async fn listen() -> (Listener, std::net::SocketAddr) {
    let listener = Listener::builder().proxy(loopback()).max_per_peer(1).bind("127.0.0.1:0").await.unwrap();
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
        // A connection that is gone counts no more.
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
        let (listener, address) = listen().await;
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
    };
    timeout(BOUND, all).await.unwrap();
}
