use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::set_default;
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;
use crate::config::ClientTls;
use crate::layers::tls::TlsConnection;
use crate::policy::Policy;
use crate::testing::{pair_with, shared_pki, tcp_pair_with};
use crate::transport::Transport;

/// Everything that is traced on this thread, a line for each new span, record and event.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
    spans: Arc<AtomicU64>,
}

impl Log {
    fn text(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines.iter().fold(String::new(), |mut text, (level, line)| {
            writeln!(text, "{level} {line}").unwrap();
            text
        })
    }

    /// How many events of this level there are with this text.
    fn count(&self, level: Level, text: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|(of, line)| *of == level && line.contains(text)).count()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "bowline"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.spans.fetch_add(1, Ordering::SeqCst) + 1;
        let mut line = Line(format!("span {id} {}", span.metadata().name()));
        span.record(&mut line);
        self.lines.lock().unwrap().push((*span.metadata().level(), line.0));
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut line = Line(format!("record {}", span.into_u64()));
        values.record(&mut line);
        self.lines.lock().unwrap().push((Level::INFO, line.0));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line("event".into());
        event.record(&mut line);
        self.lines.lock().unwrap().push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn traced() -> Policy {
    Policy::default().observer(Tracing::new())
}

/// rule: observe-4
#[tokio::test]
async fn a_span_has_the_facts_of_its_connection_and_no_data() {
    let log = Log::default();
    let _installed = set_default(log.clone());
    for express in [false, true] {
        log.lines.lock().unwrap().clear();
        let (client, server) = tcp_pair_with(traced()).await.unwrap();
        let peer = server.peer_addr();
        let (mut client_tls, mut server_tls) = (shared_pki().client_tls(), shared_pki().server_tls());
        if express {
            (client_tls, server_tls) = (client_tls.express().unwrap(), server_tls.express().unwrap());
        }
        let (client, server) = tokio::join!(
            TlsConnection::connect(client, &client_tls, "localhost"),
            TlsConnection::accept(server, &server_tls)
        );
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        client.write_all(b"a secret of the application").await.unwrap();
        server.read_exact(&mut [0; 27]).await.unwrap();
        assert!(!client.control().span().is_none() && !server.control().span().is_disabled());
        let _ = tokio::join!(client.close(), server.close());
        let text = log.text();
        for expected in [
            format!("role=\"server\" peer={peer}"),
            " version=\"TLSv1.3\"".into(),
            " sni=localhost".into(),
            " resumed=false".into(),
            " handshake_seconds=".into(),
            " received=27".into(),
            " sent=27".into(),
            " outcome=\"closed\"".into(),
        ] {
            assert!(text.contains(&expected), "{expected} is missing in\n{text}");
        }
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(log.count(Level::INFO, "span "), 2);
        // A log of INFO and above has no line for an ordinary connection.
        assert_eq!(log.count(Level::INFO, "event") + log.count(Level::WARN, "event"), 0, "{text}");
    }
}

/// rule: observe-4
#[tokio::test]
async fn a_failed_handshake_is_traced_with_its_alert_and_without_the_bytes_of_the_peer() {
    let log = Log::default();
    let _installed = set_default(log.clone());
    let (client, server) = tcp_pair_with(traced()).await.unwrap();
    let stranger = ClientTls::builder().root(crate::testing::pki::Pki::new().ca_der()).build().unwrap();
    let server_tls = shared_pki().server_tls();
    let (client, server) = tokio::join!(
        TlsConnection::connect(client, &stranger, "localhost"),
        TlsConnection::accept(server, &server_tls)
    );
    assert!(client.is_err() && server.is_err());
    let text = log.text();
    // The same name, but another key: the signature does not match.
    assert!(text.contains("alert=\"received DecryptError\"") && text.contains("alert=\"sent DecryptError\""), "{text}");
    assert!(text.contains("phase=handshake"), "{text}");

    let (mut client, server) = tcp_pair_with(traced()).await.unwrap();
    client.write_all(b"PASSWORD hunter2\r\n").await.unwrap();
    assert!(TlsConnection::accept(server, &server_tls).await.is_err());
    let text = log.text();
    assert!(text.contains("handshake failed") && !text.contains("hunter2") && !text.contains("PASSWORD"), "{text}");
}

/// rule: observe-4, close-12
#[tokio::test]
async fn a_dropped_connection_is_reported_once_for_each_place() {
    let log = Log::default();
    let _installed = set_default(log.clone());
    let policy = traced();
    for kind in crate::testing::Kind::ALL {
        for _ in 0..2 {
            let (mut a, b) = pair_with(kind, policy.clone()).await.unwrap();
            // `b` has written nothing, so its drop loses nothing.
            drop(b);
            drop(a.write_all(b"not the last word").await);
            drop(a);
        }
        // An end in order is followed by a drop.
        let (mut a, mut b) = pair_with(kind, policy.clone()).await.unwrap();
        a.write_all(b"x").await.unwrap();
        a.close_write().await.unwrap();
        b.read_u8().await.unwrap();
        drop((a, b));
    }
    let warned = log.count(Level::WARN, "was dropped without close");
    // A connection over TCP, and a pipe in memory: the pairs of each are made at two places.
    assert!((1..=4).contains(&warned), "{}", log.text());
    assert!(log.count(Level::DEBUG, "was dropped without close") >= 6, "{}", log.text());
    let text = log.text();
    assert!(text.contains("made_at=") && text.contains("pairs.rs"), "{text}");
}

/// The place is that in the code of the application, also where this crate makes the connection.
#[tokio::test]
async fn the_place_of_a_connection_is_where_its_maker_was_made() {
    let listener = crate::server::listener::Listener::builder().policy(traced()).bind("127.0.0.1:0");
    let line = line!() - 1;
    let listener = listener.await.unwrap();
    let connector = crate::client::connect::Connector::new().policy(traced());
    let tcp = connector.connect_addr(listener.local_addr()).await.unwrap();
    let accepted = listener.accept().await.unwrap().into_tcp();
    let place = accepted.control().made_at().unwrap();
    assert_eq!((place.file(), place.line()), (file!(), line));
    assert_eq!(tcp.control().made_at().unwrap().line(), line + 3);
    assert!(crate::testing::tcp_pair().await.unwrap().0.control().made_at().is_none());
}

/// rule: observe-4, proxy-4, traffic-2
#[cfg(feature = "proxy")]
#[tokio::test]
async fn the_client_behind_a_proxy_and_the_proxy_are_both_traced() {
    let log = Log::default();
    let _installed = set_default(log.clone());
    let (mut client, mut server) = tcp_pair_with(traced()).await.unwrap();
    let proxy = server.peer_addr();
    client.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 50112 443\r\nhello").await.unwrap();
    let trusted = crate::proxy::ProxyProtocol::require("127.0.0.0/8".parse().unwrap());
    trusted.read(&mut server).await.unwrap();
    server.read_exact(&mut [0; 5]).await.unwrap();
    let _ = tokio::join!(client.close(), server.close());
    let text = log.text();
    assert!(text.contains(&format!(" via={proxy}")) && text.contains(" peer=192.0.2.7:50112"), "{text}");
    // The header is not counted.
    assert!(text.contains(" received=5\n"), "{text}");
}
