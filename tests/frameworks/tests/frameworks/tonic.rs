//! The server's and the client's side of tonic, with mutual TLS. The service is written by hand, so that no compiler
//! for protocol buffers is needed.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bowline::hyper::HttpConnector;
use bowline::tonic::{Incoming, addresses};
use bowline::{ClientTls, Control, Listener, ServerTls, TlsListener};
use bytes::{Buf, BufMut, Bytes};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::codegen::http::{self, uri::PathAndQuery};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::common::{Certs, SOON};

/// Messages are bytes.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// `/echo.Echo/Who` tells the client what is known about it; `/echo.Echo/Each` sends each message back.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "echo.Echo";
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let control = request.extensions().get::<Control>().unwrap();
        let chain = control.tls().unwrap().peer_chain.clone();
        let (local, remote) = (request.local_addr().unwrap(), request.remote_addr().unwrap());
        let same = remote == control.peer_addr().as_inet().unwrap() && local == control.local_addr().as_inet().unwrap();
        std::future::ready(Ok(Response::new(format!("{} certificates, {same}", chain.len()).into())))
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::new(Box::pin(request.into_inner()) as Self::ResponseStream)))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            Ok(match request.uri().path() {
                "/echo.Echo/Who" => grpc.unary(Self, request).await,
                _ => grpc.streaming(Self, request).await,
            })
        })
    }
}

async fn who(channel: &Channel) -> Result<String, Status> {
    let mut client = Client::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(bowline::chain(&error).to_string()))?;
    let path = PathAndQuery::from_static("/echo.Echo/Who");
    let answer = client.unary(Request::new(Bytes::new()), path, Raw).await?;
    Ok(String::from_utf8(answer.into_inner().to_vec()).unwrap())
}

#[tokio::test]
async fn unary_and_streaming_calls_with_mutual_tls() {
    let certs = Certs::new();
    let (server, client) = (certs.pki.server(&["localhost"]), certs.pki.client("alice"));
    let tls = ServerTls::builder().identity_pem(server.chain_pem(), server.key_pem());
    let tls = tls.client_ca_pem(certs.pki.ca_pem()).alpn(["h2"]).build().unwrap();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let listener = TlsListener::new(listener, tls);
    let (port, group) = (listener.local_addr().as_inet().unwrap().port(), listener.group().clone());
    let drained = {
        let group = group.clone();
        async move { group.draining().await }
    };
    let service = Named(InterceptedService::new(Echo, addresses));
    let serving = Server::builder().add_service(service);
    let serving = tokio::spawn(serving.serve_with_incoming_shutdown(Incoming::new(listener), drained));

    let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
    let tls = ClientTls::builder().roots_pem(certs.pki.ca_pem()).alpn(["h2"]);
    let known = tls.clone().identity_pem(client.chain_pem(), client.key_pem()).build().unwrap();
    let channel = endpoint.connect_with_connector(HttpConnector::new(known)).await.unwrap();
    assert_eq!(who(&channel).await.unwrap(), "2 certificates, true");

    let messages: Vec<Bytes> = (0..100u8).map(|n| vec![n; usize::from(n) * 1_000].into()).collect();
    let mut client = Client::new(channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/echo.Echo/Each");
    let request = Request::new(tokio_stream::iter(messages.clone()));
    let answers = client.streaming(request, path, Raw).await.unwrap().into_inner();
    let answers: Vec<Bytes> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers, messages);

    let unknown = endpoint.connect_with_connector(HttpConnector::new(tls.build().unwrap())).await;
    // In TLS 1.3, a client learns only after its handshake that the server wants a certificate.
    if let Ok(channel) = unknown {
        assert!(who(&channel).await.is_err());
    }
    drop((client, channel));
    let report = group.drain(SOON).await;
    assert_eq!(report.cut_off, 0, "{report}");
    serving.await.unwrap().unwrap();
}

/// A service with an interceptor, under its name.
#[derive(Clone)]
struct Named<S>(S);

impl<S> NamedService for Named<S> {
    const NAME: &'static str = Echo::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Named<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        self.0.call(request)
    }
}
