//! The cases: an action at one end of a connection, and what the other end observes.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::time::Duration;

use bowline::config::server_name;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::tools::certs;

/// The longest wait for an end.
const PATIENCE: Duration = Duration::from_secs(2);
/// The delay between a half-close and the bytes that follow it.
const LATER: Duration = Duration::from_millis(300);
const HALF: usize = 20_000;
const MUCH: usize = 100_000;

pub(crate) type Client = tokio_rustls::client::TlsStream<TcpStream>;

/// One row of cells.
pub(crate) struct Case {
    /// The head of its column.
    pub(crate) what: &'static str,
    /// The result of our own relay.
    pub(crate) due: &'static str,
    /// Other results that are also right.
    pub(crate) or: &'static str,
    pub(crate) run: for<'a> fn(u16, &'a Service) -> Running<'a>,
}

/// A running case, which returns its observations.
pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = String> + Send + 'a>>;

pub(crate) const CASES: [Case; 6] = [
    Case {
        what: "the service sends half an answer, then RST: the client sees",
        due: "a reset",
        or: "a truncation",
        run: |port, service| Box::pin(answer_cut_off(port, service)),
    },
    Case {
        what: "the client's FIN in the middle of a request, no close_notify: the service sees",
        due: "a reset",
        or: "",
        run: |port, service| Box::pin(request_cut_off(port, service, false)),
    },
    Case {
        what: "the client's RST in the middle of a request: the service sees",
        due: "a reset",
        or: "",
        run: |port, service| Box::pin(request_cut_off(port, service, true)),
    },
    Case {
        what: "the client half-closes, the answer comes 300 ms later: the service sees; the client gets",
        due: "the end; all, and the end",
        or: "",
        run: |port, service| Box::pin(client_half_closes(port, service)),
    },
    Case {
        what: "the service half-closes, the client goes on 300 ms later: the client sees; the service gets",
        due: "the end; all, and the end",
        or: "",
        run: |port, service| Box::pin(service_half_closes(port, service)),
    },
    Case {
        what: "both close in order: the service sees; the client gets",
        due: "the end; all, and the end",
        or: "",
        run: |port, service| Box::pin(in_order(port, service)),
    },
];

impl Case {
    /// Whether a relay should behave like this.
    pub(crate) fn is_right(&self, seen: &Seen) -> bool {
        seen.0.iter().all(|seen| seen == self.due || seen == self.or)
    }
}

/// All observations of one case.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Seen(pub(crate) BTreeSet<String>);

impl Seen {
    pub(crate) fn add(&mut self, what: String) {
        self.0.insert(what);
    }

    pub(crate) fn text(&self) -> String {
        self.0.iter().cloned().collect::<Vec<_>>().join(" / ")
    }
}

/// The plaintext service to which a relay connects.
pub(crate) struct Service(TcpListener);

impl Service {
    pub(crate) async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// A client, and the connection that the relay has made for it, which is recognised by its first bytes.
    async fn pair(&self, port: u16) -> (Client, TcpStream) {
        let tls = certs().client_tls_builder().build().unwrap();
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(tls.config());
        let mut client = connector.connect(server_name("localhost").unwrap(), socket).await.unwrap();
        let hello = format!("hello {:04}", client.get_ref().0.local_addr().unwrap().port());
        client.write_all(hello.as_bytes()).await.unwrap();
        client.flush().await.unwrap();
        loop {
            let (mut service, _) = timeout(PATIENCE, self.0.accept()).await.unwrap().unwrap();
            let mut heard = vec![0; hello.len()];
            if service.read_exact(&mut heard).await.is_ok() && heard == hello.as_bytes() {
                // Both directions are open, and no ticket is unread when the client ends.
                service.write_all(b"!").await.unwrap();
                client.read_exact(&mut heard[..1]).await.unwrap();
                return (client, service);
            }
        }
    }
}

/// How reading ends, in the words of the table.
fn end(read: Option<io::Result<()>>) -> String {
    match read {
        Some(Ok(())) => "the end",
        Some(Err(error)) => match error.kind() {
            ErrorKind::UnexpectedEof => "a truncation",
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "a reset",
            _ => return error.to_string(),
        },
        None => "nothing",
    }
    .to_owned()
}

/// Reads until no more bytes come, and returns their number and the end.
async fn drain(from: &mut (impl AsyncRead + Unpin)) -> (usize, String) {
    let (mut total, mut buf) = (0, vec![0; 64 << 10]);
    loop {
        match timeout(PATIENCE, from.read(&mut buf)).await {
            Ok(Ok(0)) => return (total, end(Some(Ok(())))),
            Ok(Ok(n)) => total += n,
            Ok(Err(error)) => return (total, end(Some(Err(error)))),
            Err(_) => return (total, end(None)),
        }
    }
}

/// How many bytes of `MUCH` arrived, and the end after them.
async fn much(from: &mut (impl AsyncRead + Unpin)) -> String {
    let (n, end) = drain(from).await;
    match n {
        MUCH => format!("all, and {end}"),
        0 => format!("none, and {end}"),
        _ => format!("a part, and {end}"),
    }
}

async fn part(from: &mut (impl AsyncRead + Unpin), n: usize) {
    let mut part = vec![0; n];
    timeout(PATIENCE, from.read_exact(&mut part)).await.unwrap().unwrap();
}

async fn answer_cut_off(port: u16, service: &Service) -> String {
    let (mut client, mut service) = service.pair(port).await;
    service.write_all(&[b'a'; HALF]).await.unwrap();
    part(&mut client, HALF).await;
    reset(service);
    drain(&mut client).await.1
}

async fn request_cut_off(port: u16, service: &Service, by_reset: bool) -> String {
    let (mut client, mut service) = service.pair(port).await;
    client.write_all(&[b'q'; HALF]).await.unwrap();
    client.flush().await.unwrap();
    part(&mut service, HALF).await;
    if by_reset {
        reset(client.into_inner().0);
        return drain(&mut service).await.1;
    }
    client.get_mut().0.shutdown().await.unwrap();
    let end = drain(&mut service).await.1;
    drop(client);
    end
}

async fn client_half_closes(port: u16, service: &Service) -> String {
    let (mut client, mut service) = service.pair(port).await;
    client.write_all(&[b'q'; HALF]).await.unwrap();
    client.shutdown().await.unwrap();
    let (_, heard) = drain(&mut service).await;
    sleep(LATER).await;
    // If the relay has ended the connection, this fails, and the client observes the end.
    let _ = service.write_all(&[b'a'; MUCH]).await;
    let _ = service.shutdown().await;
    format!("{heard}; {}", much(&mut client).await)
}

async fn service_half_closes(port: u16, service: &Service) -> String {
    let (mut client, mut service) = service.pair(port).await;
    service.write_all(&[b'a'; HALF]).await.unwrap();
    service.shutdown().await.unwrap();
    let (_, heard) = drain(&mut client).await;
    sleep(LATER).await;
    let sending = async {
        let _ = client.write_all(&[b'q'; MUCH]).await;
        let _ = client.shutdown().await;
    };
    let (_, got) = tokio::join!(timeout(PATIENCE, sending), much(&mut service));
    format!("{heard}; {got}")
}

async fn in_order(port: u16, service: &Service) -> String {
    let (mut client, mut service) = service.pair(port).await;
    client.write_all(&[b'q'; HALF]).await.unwrap();
    client.flush().await.unwrap();
    part(&mut service, HALF).await;
    service.write_all(&[b'a'; MUCH]).await.unwrap();
    service.shutdown().await.unwrap();
    let got = much(&mut client).await;
    let _ = client.shutdown().await;
    format!("{}; {got}", drain(&mut service).await.1)
}

fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}
