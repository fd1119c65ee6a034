//! The listener and the facts of a connection under axum.

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use bowline::{Control, DrainGroup, Listener, TlsListener};
use tokio::task::JoinHandle;

use crate::common::{Certs, SOON};

async fn whoami(ConnectInfo(control): ConnectInfo<Control>) -> String {
    let session = control.tls();
    let names = session.as_ref().map(|session| session.peer_chain.len());
    let alpn = session.and_then(|session| session.alpn.clone()).unwrap_or_default();
    format!("{} {names:?} {}", control.peer_addr().as_inet().unwrap().ip(), String::from_utf8(alpn).unwrap())
}

fn serve(listener: TlsListener, group: &DrainGroup) -> JoinHandle<std::io::Result<()>> {
    let app = Router::new().route("/", get(whoami)).into_make_service_with_connect_info::<Control>();
    let drained = {
        let group = group.clone();
        async move { group.draining().await }
    };
    tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(drained).await })
}

#[tokio::test]
async fn a_handler_knows_the_peer_and_the_certificates_of_curl() {
    let certs = Certs::new();
    let (listener, port, group) = certs.listener().await;
    let serving = serve(listener, &group);
    let url = format!("https://localhost:{port}/");
    let certificate = certs.path("client.pem");
    for (version, alpn) in [("--http1.1", "http/1.1"), ("--http2", "h2")] {
        assert_eq!(certs.curled(&[version, &url]).await, format!("127.0.0.1 Some(0) {alpn}"));
        let with_certificate = [version, "--cert", certificate.to_str().unwrap(), &url];
        assert_eq!(certs.curled(&with_certificate).await, format!("127.0.0.1 Some(2) {alpn}"));
    }
    let report = group.drain(SOON).await;
    assert_eq!(report.cut_off, 0, "{report}");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_plaintext_listener_serves_axum_too() {
    let certs = Certs::new();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().as_inet().unwrap().port();
    let app = Router::new().route("/", get(whoami)).into_make_service_with_connect_info::<Control>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    assert_eq!(certs.curled(&[&format!("http://localhost:{port}/")]).await, "127.0.0.1 None ");
}
