//! PROXY headers with each interface: with callbacks, and with connections that are taken without waiting.

use std::sync::{Arc, Mutex};

use bowline::protocol::{CallbackResult, Conn, Protocol, Runner, Server, every};
use bowline::{ListenerBuilder, Reason};

use super::*;

/// The notes that the callbacks of all connections have made, in order.
type Seen = Arc<Mutex<Vec<String>>>;

/// Notes its callbacks, and echoes.
struct Notes(Seen);

impl Notes {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }
}

impl Protocol for Notes {
    fn connection_made(&mut self, conn: &mut dyn Conn) -> CallbackResult {
        self.add(format!("made by {}", conn.control().peer_addr()));
        Ok(())
    }

    fn data_received(&mut self, conn: &mut dyn Conn, data: &[u8]) -> CallbackResult<usize> {
        self.add(String::from_utf8_lossy(data));
        conn.write(data);
        conn.close();
        Ok(data.len())
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.add(format!("lost: {}", reason.name()));
    }
}

/// The ways to run a protocol for an accepted connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Run,
    Serve,
    Accept,
}

async fn listen(proxy: ProxyProtocol) -> (Listener, std::net::SocketAddr) {
    let builder: ListenerBuilder = Listener::builder().proxy(proxy);
    let listener = builder.bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().as_inet().unwrap();
    (listener, address)
}

/// Serves one connection.
async fn serve(way: Way, listener: Listener, tls: Option<ServerTls>, seen: &Seen) {
    let made = Arc::clone(seen);
    let serving = |listener| Server::new(listener, every(move || Notes(Arc::clone(&made))));
    match way {
        Way::Run => {
            let server = serving(listener);
            let server = tls.iter().fold(server, |server, tls| server.tls(tls));
            tokio::spawn(server.run());
        }
        Way::Serve => {
            let server = serving(listener);
            let server = tls.iter().fold(server, |server, tls| server.tls(tls));
            let incoming = server.listener().accept().await.unwrap();
            server.serve(incoming).unwrap();
        }
        Way::Accept => {
            let incoming = listener.accept().await.unwrap();
            tokio::spawn(Runner::accept(Notes(Arc::clone(seen)), incoming, tls.as_ref()).run());
        }
    }
}

/// rule: proxy-4, proxy-5
#[tokio::test]
async fn callbacks_see_the_client_and_none_of_the_header() {
    for way in [Way::Run, Way::Serve, Way::Accept] {
        for tls in [None, Some(shared_pki().server_tls())] {
            let seen = Seen::default();
            let (listener, address) = listen(loopback()).await;
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let is_secure = tls.is_some();
            let (header, rest) = (header().encode_v2(), 20);
            tcp.write_all(&header[..rest]).await.unwrap();
            timeout(BOUND, serve(way, listener, tls, &seen)).await.unwrap();
            tokio::task::yield_now().await;
            tcp.write_all(&header[rest..]).await.unwrap();
            let tcp = TcpConnection::new(tcp, Policy::default()).unwrap();
            let mut client: Box<dyn Transport> = match is_secure {
                true => Box::new(TlsConnection::connect(tcp, &shared_pki().client_tls(), "localhost").await.unwrap()),
                false => Box::new(tcp),
            };
            client.write_all(b"hello").await.unwrap();
            let mut echoed = String::new();
            timeout(BOUND, client.read_to_string(&mut echoed)).await.unwrap().unwrap();
            client.close().await;
            assert_eq!(echoed, "hello", "{way:?}");
            let is_lost = || seen.lock().unwrap().len() == 3;
            timeout(BOUND, async {
                while !is_lost() {
                    tokio::task::yield_now().await
                }
            })
            .await
            .unwrap();
            let seen = seen.lock().unwrap().clone();
            assert_eq!(seen[..2], [format!("made by {CLIENT}"), "hello".into()], "{way:?}");
        }
    }
}

/// rule: proxy-5, life-1
#[tokio::test]
async fn a_protocol_gets_no_callback_if_the_header_is_refused() {
    let untrusted = || ProxyProtocol::require("192.0.2.0/24".parse().unwrap());
    for (proxy, first, reason) in [
        (loopback(), &b"GET / HTTP/1.1\r\n"[..], "aborted"),
        (untrusted(), b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n", "aborted"),
        (loopback(), b"PROXY TCP4", "truncated"),
    ] {
        let seen = Seen::default();
        let (listener, address) = listen(proxy).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(first).await.unwrap();
        client.shutdown().await.unwrap();
        let incoming = listener.accept().await.unwrap();
        let control = incoming.control();
        let report = timeout(BOUND, Runner::accept(Notes(Arc::clone(&seen)), incoming, None).run()).await.unwrap();
        assert_eq!(report.reason.name(), reason);
        assert!(control.is_ended());
        assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
    }
}

/// rule: proxy-5, close-9, close-16: nothing is queued, and the header does not come.
#[tokio::test]
async fn a_close_does_not_wait_for_the_header() {
    let all = async {
        for by_handle in [false, true] {
            let seen = Seen::default();
            let policy = bowline::Policy::default().handshake_timeout(None);
            let listener = Listener::builder().policy(policy).proxy(loopback()).bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().as_inet().unwrap();
            let mut client = TcpStream::connect(address).await.unwrap();
            // The client sends nothing, and ends when the server does.
            let ending = tokio::spawn(async move { client.read(&mut [0]).await });
            let incoming = listener.accept().await.unwrap();
            let control = incoming.control();
            let runner = Runner::accept(Notes(Arc::clone(&seen)), incoming, None);
            let handle = runner.handle();
            let running = tokio::spawn(runner.run());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            if by_handle {
                handle.close();
            } else {
                assert!(!control.close().await.timed_out());
            }
            let report = running.await.unwrap();
            assert_eq!(ending.await.unwrap().unwrap(), 0);
            assert!(!report.timed_out(), "{report:?}");
            assert!(control.is_ended() && seen.lock().unwrap().is_empty(), "{seen:?}");
        }
    };
    timeout(BOUND, all).await.unwrap();
}

/// rule: proxy-7
#[tokio::test]
async fn a_connection_whose_header_was_not_read_cannot_be_used() {
    let all = async {
        let (listener, address) = listen(loopback()).await;
        for upgradable in [false, true] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&header().encode_v1()).await.unwrap();
            let incoming = listener.accept().await.unwrap();
            let mut taken: Box<dyn Transport> = match upgradable {
                true => Box::new(incoming.into_upgradable()),
                false => Box::new(incoming.into_tcp()),
            };
            let error = taken.read_u8().await.unwrap_err();
            assert!(error.to_string().contains("the PROXY header was not read"), "{error}");
            assert_eq!(bowline::Error::from(error).blame(), Blame::Us);
            assert!(taken.write_all(b"220 ready\r\n").await.is_err());
            assert!(client.read(&mut [0]).await.is_err(), "RST, while the connection is held");
        }
        // The listener expects no header from this peer.
        let (listener, address) = listen(ProxyProtocol::accept("192.0.2.0/24".parse().unwrap())).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(listener.accept().await.unwrap().into_tcp().read_u8().await.unwrap(), b'x');
    };
    timeout(BOUND, all).await.unwrap();
}
