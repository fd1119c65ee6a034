use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Recorder, SharedString,
    set_default_local_recorder,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::client::connect::Connector;
use crate::error::{Error, Phase, TlsError};
use crate::layers::tls::TlsConnection;
use crate::policy::Policy;
use crate::server::listener::Listener;
use crate::server::tls_listener::TlsListener;
use crate::testing::shared_pki;
use crate::transport::Transport;

type Values = Arc<Mutex<BTreeMap<String, f64>>>;

/// Keeps the sum of each metric; of a histogram, how many values it has.
#[derive(Default)]
struct Kept(Values);

struct One(Values, String);

impl One {
    fn add(&self, value: f64) {
        *self.0.lock().unwrap().entry(self.1.clone()).or_default() += value;
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }
    fn absolute(&self, _: u64) {}
}

impl GaugeFn for One {
    fn increment(&self, value: f64) {
        self.add(value);
    }
    fn decrement(&self, value: f64) {
        self.add(-value);
    }
    fn set(&self, value: f64) {
        self.0.lock().unwrap().insert(self.1.clone(), value);
    }
}

impl HistogramFn for One {
    fn record(&self, value: f64) {
        assert!((0.0..60.0).contains(&value));
        self.add(1.0);
    }
}

impl Kept {
    fn one(&self, key: &Key) -> Arc<One> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(One(Arc::clone(&self.0), format!("{}{{{}}}", key.name(), labels.join(","))))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &metrics::Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }
    fn register_gauge(&self, key: &Key, _: &metrics::Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key))
    }
    fn register_histogram(&self, key: &Key, _: &metrics::Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

/// rule: observe-3
#[tokio::test]
async fn connections_handshakes_and_bytes_are_counted() {
    let recorder = Kept::default();
    let _installed = set_default_local_recorder(&recorder);
    let value = |name: &str| recorder.0.lock().unwrap().get(name).copied();
    let metrics = Metrics::new();
    assert_eq!(value("bowline_connections_open{}"), Some(0.0));
    let policy = Policy::default().observer(metrics.clone());
    let listener = Listener::builder().policy(policy).max_per_peer(1).bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr();
    let mut listener = TlsListener::builder().tls_or_plaintext(listener, shared_pki().server_tls());
    let client_tls = shared_pki().client_tls();
    for (round, resumed) in [(1.0, false), (2.0, true)] {
        let tcp = Connector::new().connect_addr(address.clone()).await.unwrap();
        let mut client = TlsConnection::connect(tcp, &client_tls, "localhost").await.unwrap();
        let mut server = listener.accept().await.unwrap();
        client.write_all(&[7; 100]).await.unwrap();
        server.read_exact(&mut [0; 100]).await.unwrap();
        server.write_all(&[7; 20]).await.unwrap();
        client.read_exact(&mut [0; 20]).await.unwrap();
        // An update also counts the bytes of connections that are still open, each byte once.
        metrics.update();
        metrics.update();
        assert_eq!(value("bowline_bytes_total{direction=in}"), Some(round * 100.0 + (round - 1.0) * 3.0));
        assert_eq!(value("bowline_connections_open{}"), Some(1.0));
        let refused = Connector::new().connect_addr(address.clone()).await;
        server.write_all(b"end").await.unwrap();
        client.write_all(b"end").await.unwrap();
        client.read_exact(&mut [0; 3]).await.unwrap();
        server.read_exact(&mut [0; 3]).await.unwrap();
        // The server ends first: on every system, it then knows that its last bytes have arrived.
        let _ = tokio::join!(server.close(), client.close());
        drop((refused, server));
        assert_eq!(value("bowline_bytes_total{direction=in}"), Some(round * 103.0));
        assert_eq!(value("bowline_bytes_total{direction=out}"), Some(round * 23.0));
        let done = format!("bowline_handshakes_total{{outcome=ok,version=TLSv1.3,resumed={resumed}}}");
        assert_eq!(value(&done), Some(1.0));
        assert_eq!(value("bowline_connections_total{outcome=closed}"), Some(round));
        assert_eq!(value("bowline_accept_errors_total{kind=refused}"), Some(round));
    }
    assert_eq!(value("bowline_handshake_seconds{outcome=ok}"), Some(2.0));
    assert_eq!(value("bowline_connections_open{}"), Some(0.0));

    let mut plain = Connector::new().connect_addr(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    drop(listener.accept().await.unwrap());
    assert_eq!(value("bowline_handshakes_total{outcome=not_tls,version=none,resumed=false}"), Some(1.0));
    assert_eq!(value("bowline_connections_total{outcome=dropped}"), Some(1.0));
    assert!(metrics.state().open.is_empty());
}

/// rule: observe-3
#[test]
fn reloads_and_certificates_are_counted() {
    let recorder = Kept::default();
    let _installed = set_default_local_recorder(&recorder);
    let value = |name: &str| recorder.0.lock().unwrap().get(name).copied();
    let metrics = Metrics::new();
    let error = Error::from(io::Error::other("no such file"));
    for reload in [
        Reload::Done { generation: 2, not_after: None },
        Reload::Unchanged { generation: 3, not_after: None },
        Reload::Failed { error: &error },
    ] {
        metrics.reloaded(&reload);
        assert_eq!(value(&format!("bowline_reloads_total{{outcome={}}}", reload.name())), Some(1.0));
    }
    assert_eq!(value("bowline_identity_generation{}"), Some(3.0));
    let now = SystemTime::now();
    let (later, before) = (now + Duration::from_secs(1_000), now - Duration::from_secs(1_000));
    metrics.set_certificates([("new.example".to_owned(), later), ("old.example".to_owned(), before)]);
    let new = value("bowline_certificate_expiry_seconds{name=new.example}").unwrap();
    let old = value("bowline_certificate_expiry_seconds{name=old.example}").unwrap();
    assert!((900.0..=1_000.0).contains(&new) && (-1_100.0..=-1_000.0).contains(&old), "{new} {old}");
    metrics.set_certificates([("new.example".to_owned(), later)]);
    assert!(value("bowline_certificate_expiry_seconds{name=old.example}").unwrap().is_nan());
    assert!(value("bowline_certificate_expiry_seconds{name=new.example}").unwrap() > 900.0);
}

/// rule: observe-3
#[test]
fn each_reason_of_a_failed_handshake_has_an_outcome() {
    for (reason, outcome) in [
        (Reason::TimedOut(Phase::Handshake), "timed_out"),
        (Reason::Truncated(Phase::Handshake), "truncated"),
        (Reason::Reset(Phase::Handshake), "reset"),
        (Reason::Io(Arc::new(io::Error::other("no route"))), "reset"),
        (Reason::Aborted, "refused"),
        (Reason::Dropped, "refused"),
        (Reason::KeyExhausted, "tls"),
        (TlsError::refused().into(), "refused"),
    ] {
        assert_eq!(failure(&reason), outcome);
    }
}
