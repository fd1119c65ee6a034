//! The server and the connector of the feature `hyper`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bowline::hyper::{HttpConnector, RequestBody, Server};
use bowline::proxy::ProxyProtocol;
use bowline::{Connector, Control, Listener, Policy, ServerEndpoint, TlsListener, Transport};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::common::{Certs, SOON, finished, has, program};

/// Tells the client what the server knows about it.
async fn tell(request: Request<RequestBody>) -> Result<Response<String>, Infallible> {
    let control = request.extensions().get::<Control>().unwrap();
    let alpn = control.tls().and_then(|session| session.alpn.clone()).unwrap_or_default();
    let alpn = String::from_utf8(alpn).unwrap();
    let peer = control.peer_addr().as_inet().map(|peer| peer.ip().to_string()).unwrap_or_default();
    let via = control.via().map(|via| format!(" via {via}")).unwrap_or_default();
    Ok(Response::new(format!("{:?} [{alpn}] {peer}{via}", request.version())))
}

#[tokio::test]
async fn curl_gets_answers_over_both_versions_of_http() {
    let certs = Certs::new();
    let (listener, tls, _) = certs.listener().await;
    let plain = Listener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().as_inet().unwrap().port();
    tokio::spawn(async move { Server::new().serve(listener, service_fn(tell)).await });
    tokio::spawn(async move { Server::new().serve(plain, service_fn(tell)).await });
    let (https, http) = (format!("https://localhost:{tls}/"), format!("http://localhost:{port}/"));
    for (arguments, expected) in [
        (["--http1.1", &https], "HTTP/1.1 [http/1.1] 127.0.0.1"),
        (["--http2", &https], "HTTP/2.0 [h2] 127.0.0.1"),
        (["--http1.1", &http], "HTTP/1.1 [] 127.0.0.1"),
        (["--http2-prior-knowledge", &http], "HTTP/2.0 [] 127.0.0.1"),
    ] {
        assert_eq!(certs.curled(&arguments).await, expected);
    }
}

/// rule: proxy-5
#[tokio::test]
async fn a_plaintext_server_reads_proxy_headers_and_a_slow_header_delays_nobody() {
    let proxy = ProxyProtocol::require("127.0.0.1".parse().unwrap());
    let plain = Listener::builder().proxy(proxy).max_per_peer(1).bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().as_inet().unwrap();
    tokio::spawn(async move { Server::new().serve(plain, service_fn(tell)).await });
    let ask = async |header: &str| {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(header.as_bytes()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1000];
        let received = timeout(SOON, client.read(&mut answer)).await.unwrap();
        let answer = received.map(|count| String::from_utf8_lossy(&answer[..count]).into_owned());
        (client, answer)
    };
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"PROXY TCP4 192.0.2.3").await.unwrap();
    let header = "PROXY TCP4 192.0.2.1 192.0.2.9 1000 443\r\n";
    let (first, answer) = ask(header).await;
    let via = first.local_addr().unwrap();
    assert!(answer.as_ref().unwrap().ends_with(&format!("HTTP/1.1 [] 192.0.2.1 via {via}")), "{answer:?}");
    // The limit counts the client that the header names.
    let (_, second) = ask(header).await;
    assert!(second.is_err(), "{second:?}");
    let (_, other) = ask("PROXY TCP4 192.0.2.2 192.0.2.9 1000 443\r\n").await;
    assert!(other.unwrap().contains(" 192.0.2.2 via "));
}

/// rule: accept-1
#[tokio::test]
async fn plain_http_on_the_port_of_https_gets_the_answer_that_was_chosen() {
    let certs = Certs::new();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let listener = TlsListener::builder().tls_or_plaintext(listener, certs.server_tls());
    let port = listener.local_addr().as_inet().unwrap().port();
    let answer = Response::builder().status(400).body("this is https".to_owned()).unwrap();
    tokio::spawn(async move { Server::new().answer_plaintext(answer).serve(listener, service_fn(tell)).await });
    let (http, https) = (format!("http://localhost:{port}/"), format!("https://localhost:{port}/"));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let said = certs.curled(&[version, "-w", " %{http_code} %header{connection}", &http]).await;
        let end = if version == "--http1.1" { " close" } else { " " };
        assert_eq!(said, format!("this is https 400{end}"));
    }
    assert_eq!(certs.curled(&["--http1.1", &https]).await, "HTTP/1.1 [http/1.1] 127.0.0.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h2load_and_wrk_get_an_answer_to_every_request() {
    if !(has("h2load") && has("wrk")) {
        return eprintln!("skipped: h2load or wrk is not installed (Debian: nghttp2-client, wrk)");
    }
    let certs = Certs::new();
    let (listener, port, group) = certs.listener().await;
    let serving = tokio::spawn(async move { Server::new().serve(listener, service_fn(tell)).await });
    let url = format!("https://localhost:{port}/");
    let h2load = |arguments: &[&str]| program("h2load", &[&["-n", "2000", "-c", "8"], arguments, &[&url]].concat());
    for arguments in [&["-m", "10"][..], &["--h1"]] {
        let said = finished(&mut h2load(arguments)).await;
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    }
    let said = finished(&mut program("wrk", &["-t", "1", "-c", "8", "-d", "1", &url])).await;
    assert!(said.contains("requests in") && !said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let report = group.drain(SOON).await;
    assert_eq!(report.cut_off, 0, "{report}");
    assert!(serving.await.unwrap().is_ok());
}

/// rule: drain-1
#[tokio::test]
async fn a_drain_answers_the_requests_in_progress_and_those_of_new_connections() {
    let certs = Certs::new();
    let (listener, port, group) = certs.listener().await;
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let service = {
        let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
        service_fn(move |_: Request<RequestBody>| {
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            async move {
                begun.add_permits(1);
                go.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new("slow".to_owned()))
            }
        })
    };
    let serving = tokio::spawn(async move { Server::new().first_request(SOON).serve(listener, service).await });
    let url = format!("https://localhost:{port}/");
    let slow = [["--http1.1", "-i", &url], ["--http2", "-i", &url]].map(|arguments| {
        let mut curl = certs.curl(&arguments);
        tokio::spawn(async move { finished(&mut curl).await })
    });
    let tcp = Connector::new().connect("localhost", port).await.unwrap();
    let mut new = bowline::TlsConnection::connect(tcp, &certs.client_tls(&["http/1.1"]), "localhost").await.unwrap();
    begun.acquire_many(2).await.unwrap().forget();
    let draining = tokio::spawn(async move { group.drain(SOON).await });
    tokio::task::yield_now().await;
    new.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    begun.acquire().await.unwrap().forget();
    go.add_permits(3);
    let mut answer = String::new();
    new.read_to_string(&mut answer).await.unwrap(); // fails if close_notify is missing
    new.close().await;
    assert!(answer.contains("connection: close") && answer.ends_with("slow"), "{answer}");
    let [first, second] = slow;
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(first.contains("connection: close") && first.ends_with("slow"), "{first}");
    assert!(second.starts_with("HTTP/2 200") && second.ends_with("slow"), "{second}");
    let report = draining.await.unwrap();
    assert_eq!(report.cut_off, 0, "{report}");
    assert!(timeout(SOON, serving).await.unwrap().unwrap().is_ok());
}

/// rule: idle-4
#[tokio::test]
async fn a_request_may_take_longer_than_the_idle_time() {
    let certs = Certs::new();
    let policy = Policy::default().idle_timeout(Duration::from_millis(200));
    let listener = Listener::builder().policy(policy).bind("127.0.0.1:0").await.unwrap();
    let listener = TlsListener::new(listener, certs.server_tls());
    let port = listener.local_addr().as_inet().unwrap().port();
    let service = service_fn(|_: Request<RequestBody>| async {
        sleep(Duration::from_millis(700)).await;
        Ok::<_, Infallible>(Response::new("slow".to_owned()))
    });
    tokio::spawn(async move { Server::new().serve(listener, service).await });
    let url = format!("https://localhost:{port}/");
    for version in ["--http1.1", "--http2"] {
        assert_eq!(certs.curled(&[version, &url]).await, "slow");
    }
}

#[tokio::test]
async fn one_client_gets_answers_over_http_https_and_unix_sockets() {
    let certs = Certs::new();
    let (listener, tls, _) = certs.listener().await;
    tokio::spawn(async move { Server::new().serve(listener, service_fn(tell)).await });
    let plain = Listener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().as_inet().unwrap().port();
    tokio::spawn(async move { Server::new().serve(plain, service_fn(tell)).await });
    let path = certs.path("socket");
    let endpoint: ServerEndpoint = format!("unix:{}", path.display()).parse().unwrap();
    let unix = endpoint.listen(Policy::default()).await.unwrap();
    tokio::spawn(async move {
        while let Ok(incoming) = unix.accept().await {
            let connection = incoming.begin().await.unwrap();
            tokio::spawn(async move { Server::new().connection(connection, service_fn(tell)).await });
        }
    });

    for (alpn, version, told) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2, "HTTP/2.0 [h2] 127.0.0.1"),
        (&["http/1.1"], Version::HTTP_11, "HTTP/1.1 [http/1.1] 127.0.0.1"),
    ] {
        let connector = HttpConnector::new(certs.client_tls(alpn)).unix("app", &path);
        let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
        let get = async |url: String| {
            let answer = client.get(url.parse().unwrap()).await.unwrap();
            let (parts, body) = answer.into_parts();
            let control = parts.extensions.get::<Control>().unwrap().clone();
            (parts.version, control, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
        };
        let (over_tls, control, text) = get(format!("https://localhost:{tls}/")).await;
        assert_eq!((over_tls, text.as_str()), (version, told));
        assert!(control.tls().is_some());
        let (_, control, text) = get(format!("http://localhost:{port}/")).await;
        assert_eq!(text, "HTTP/1.1 [] 127.0.0.1");
        assert!(control.tls().is_none());
        let (_, control, text) = get("http://app/".to_owned()).await;
        assert_eq!(text, "HTTP/1.1 [] ");
        assert_eq!(control.peer_addr().to_string(), format!("unix:{}", path.display()));
    }

    let plaintext = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(HttpConnector::plaintext());
    let error = plaintext.get(format!("https://localhost:{tls}/").parse().unwrap()).await.unwrap_err();
    assert!(bowline::chain(&error).to_string().contains("without TLS"), "{error:?}");
}
