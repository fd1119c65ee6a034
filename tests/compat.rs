//! Measures the table of the README: the ends of a connection, by bowline and by tokio-rustls.
//!
//! ```text
//! cargo test --all-features --test compat -- --nocapture
//! ```
//! The peer of every row is the same: a tokio-rustls client. Only our own column is asserted.
#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline::rustls::pki_types::ServerName;
use bowline::testing::pki::Pki;
use bowline::testing::raw_tcp_pair;
use bowline::{Error, Policy, StartTls, TcpConnection, TlsConnection, Transport, UpgradableConnection, UpgradeError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

const ROUNDS: usize = 100;
const MESSAGE: usize = 3_000_000;
const BOUND: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(100);

struct World {
    connector: TlsConnector,
    acceptor: TlsAcceptor,
    pki: Pki,
}

type Theirs = server::TlsStream<TcpStream>;
type Ours = TlsConnection<TcpConnection>;
type Peer = client::TlsStream<TcpStream>;

impl World {
    fn new() -> Self {
        let pki = Pki::new();
        let connector = TlsConnector::from(pki.client_tls().config());
        let acceptor = TlsAcceptor::from(pki.server_tls().config());
        Self { connector, acceptor, pki }
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("localhost").unwrap()
    }

    async fn theirs(&self) -> (Theirs, Peer) {
        let (client, server) = raw_tcp_pair().await.unwrap();
        for socket in [&client, &server] {
            socket.set_nodelay(true).unwrap();
        }
        tokio::try_join!(self.acceptor.accept(server), self.connector.connect(Self::name(), client)).unwrap()
    }

    async fn ours(&self) -> (Ours, Peer) {
        let (client, server) = raw_tcp_pair().await.unwrap();
        client.set_nodelay(true).unwrap();
        let server = TcpConnection::new(server, Policy::default()).unwrap();
        let tls = self.pki.server_tls();
        let (ours, peer) =
            tokio::join!(TlsConnection::accept(server, &tls), self.connector.connect(Self::name(), client));
        (ours.unwrap(), peer.unwrap())
    }
}

/// Reads until the end. Returns the number of bytes, and how the stream ended.
async fn drain(peer: &mut (impl AsyncReadExt + Unpin)) -> (usize, io::Result<()>) {
    let (mut total, mut buf) = (0, vec![0; 64 << 10]);
    loop {
        match timeout(BOUND, peer.read(&mut buf)).await.unwrap() {
            Ok(0) => return (total, Ok(())),
            Ok(n) => total += n,
            Err(error) => return (total, Err(error)),
        }
    }
}

fn kind(result: &io::Result<()>) -> Option<ErrorKind> {
    result.as_ref().err().map(io::Error::kind)
}

/// One row: a description, the counts with tokio-rustls and with bowline, and the number of rounds.
struct Row {
    what: &'static str,
    theirs: usize,
    ours: usize,
    of: usize,
}

/// The peer has sent input that the server does not read. Then it reads an answer of 3 MB to its end.
async fn lost_tails(world: &World) -> Row {
    let unread = vec![0; 16 << 10];
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..ROUNDS {
        let (mut server, mut peer) = world.theirs().await;
        peer.write_all(&unread).await.unwrap();
        let serving = async move {
            server.write_all(&vec![0; MESSAGE]).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let ((), (received, _)) = tokio::join!(serving, drain(&mut peer));
        theirs += usize::from(received < MESSAGE);

        let (mut server, mut peer) = world.ours().await;
        peer.write_all(&unread).await.unwrap();
        let serving = async move {
            server.write_all(&vec![0; MESSAGE]).await.unwrap();
            server.close().await;
        };
        let reading = async move {
            let all = drain(&mut peer).await;
            drop(peer);
            all
        };
        let ((), (received, _)) = tokio::join!(serving, reading);
        ours += usize::from(received < MESSAGE);
    }
    Row { what: "close with unread input: peers that lost the tail of 3 MB", theirs, ours, of: ROUNDS }
}

/// The peer answers only after it has seen our close_notify.
async fn answers_after_half_close(world: &World) -> Row {
    async fn answer(peer: &mut Peer) {
        assert_eq!(drain(peer).await.0, 8);
        peer.write_all(b"answer").await.unwrap();
        peer.shutdown().await.unwrap();
    }
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..ROUNDS {
        let (mut server, mut peer) = world.theirs().await;
        let asking = async {
            server.write_all(b"question").await.unwrap();
            server.shutdown().await.unwrap();
            drain(&mut server).await
        };
        let ((received, _), ()) = tokio::join!(asking, answer(&mut peer));
        theirs += usize::from(received == 6);

        let (mut server, mut peer) = world.ours().await;
        let asking = async {
            server.write_all(b"question").await.unwrap();
            server.close_write().await.unwrap();
            drain(&mut server).await
        };
        let ((received, _), ()) = tokio::join!(asking, answer(&mut peer));
        ours += usize::from(received == 6);
    }
    Row { what: "half-close: answers read after our close_notify", theirs, ours, of: ROUNDS }
}

/// Whether a write after the end of the send half is accepted.
async fn accepted_after_half_close(world: &World) -> Row {
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..ROUNDS {
        let (mut server, _peer) = world.theirs().await;
        server.shutdown().await.unwrap();
        theirs += usize::from(server.write(b"late").await.is_ok());
        let (mut server, _peer) = world.ours().await;
        server.close_write().await.unwrap();
        ours += usize::from(server.write(b"late").await.is_ok());
    }
    Row { what: "half-close: late writes that were accepted", theirs, ours, of: ROUNDS }
}

/// A message is given up in the middle, and the peer must not mistake it for complete. With tokio-rustls, the possible
/// ends are drop and shutdown.
async fn aborts(world: &World) -> [Row; 3] {
    #[derive(Default)]
    struct Seen {
        reset: usize,
        complete: usize,
    }
    impl Seen {
        async fn by(&mut self, mut peer: Peer) {
            let (_, end) = drain(&mut peer).await;
            self.reset += usize::from(kind(&end) == Some(ErrorKind::ConnectionReset));
            self.complete += usize::from(end.is_ok());
        }
    }
    let (mut dropped, mut shut, mut aborted) = (Seen::default(), Seen::default(), Seen::default());
    for _ in 0..ROUNDS {
        let (mut server, peer) = world.theirs().await;
        server.write_all(b"half of a mess").await.unwrap();
        drop(server);
        dropped.by(peer).await;

        let (mut server, peer) = world.theirs().await;
        server.write_all(b"half of a mess").await.unwrap();
        server.shutdown().await.unwrap();
        drop(server);
        shut.by(peer).await;

        let (mut server, peer) = world.ours().await;
        server.write_all(b"half of a mess").await.unwrap();
        server.abort();
        aborted.by(peer).await;
    }
    let row = |what, theirs, ours| Row { what, theirs, ours, of: ROUNDS };
    [
        row("give up in mid-message (there: drop; here: abort): peers that saw a reset", dropped.reset, aborted.reset),
        row("the same: peers that took it for complete", dropped.complete, aborted.complete),
        row("the same (there: shutdown): peers that took it for complete", shut.complete, aborted.complete),
    ]
}

/// The peer sends data and FIN without close_notify.
async fn truncations(world: &World) -> [Row; 2] {
    async fn truncate(mut peer: Peer) {
        peer.write_all(b"half of a mess").await.unwrap();
        peer.get_mut().0.shutdown().await.unwrap();
        // The socket is kept until the other end has seen the FIN, because unread tickets would turn a drop into a
        // reset.
        let _ = drain(&mut peer).await;
    }
    async fn ends(mut server: impl AsyncReadExt + Unpin) -> (usize, usize) {
        let (received, first) = drain(&mut server).await;
        assert_eq!(received, 14);
        let (_, second) = drain(&mut server).await;
        (usize::from(first.is_err()), usize::from(second.is_err()))
    }
    let mut counts = [0; 4];
    for _ in 0..ROUNDS {
        let (server, peer) = world.theirs().await;
        let ((first, second), ()) = tokio::join!(ends(server), truncate(peer));
        counts[0] += first;
        counts[1] += second;
        let (server, peer) = world.ours().await;
        let ((first, second), ()) = tokio::join!(ends(server), truncate(peer));
        counts[2] += first;
        counts[3] += second;
    }
    let [theirs, again, ours, ours_again] = counts;
    [
        Row { what: "truncation: told by the read that meets it", theirs, ours, of: ROUNDS },
        Row { what: "truncation: told by the next read too", theirs: again, ours: ours_again, of: ROUNDS },
    ]
}

/// A client reads the answer to its STARTTLS line by line; an attacker has put a line after it.
async fn injections(world: &World) -> Row {
    const ANSWER: &str = "220 go ahead\r\n";
    const INJECTED: &str = "250 you are authenticated\r\n";
    let segment = [ANSWER, INJECTED].concat();
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..ROUNDS {
        // Programs usually do it this way: a `BufReader` reads the lines, and its inner stream is then passed to TLS.
        let (client, mut server) = raw_tcp_pair().await.unwrap();
        server.write_all(segment.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(client);
        lines.read_line(&mut String::new()).await.unwrap();
        let client = lines.into_inner();
        let (client, server) =
            tokio::join!(world.connector.connect(World::name(), client), world.acceptor.accept(server));
        theirs += usize::from(client.is_err() || server.is_err());

        let (client, mut server) = raw_tcp_pair().await.unwrap();
        server.write_all(segment.as_bytes()).await.unwrap();
        let client = TcpConnection::new(client, Policy::default()).unwrap();
        let mut client = UpgradableConnection::new(client);
        client.read_line(&mut String::new()).await.unwrap();
        let tls = world.pki.client_tls();
        let refused = client.start_tls(StartTls::client(&tls, "localhost")).await;
        ours += match refused {
            Err(Error::Upgrade(UpgradeError::Leftover { count })) => usize::from(count == INJECTED.len()),
            _ => 0,
        };
    }
    Row { what: "STARTTLS: injected lines that were noticed", theirs, ours, of: ROUNDS }
}

/// A stream whose first write also sends these bytes, before its own.
struct Glued(TcpStream, Vec<u8>);

impl AsyncRead for Glued {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Glued {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let all = [std::mem::take(&mut self.1).as_slice(), buf].concat();
        let sent = ready!(Pin::new(&mut self.0).poll_write(cx, &all))?;
        assert_eq!(sent, all.len());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A client that does not wait for the answer: its ClientHello arrives in one segment with the command.
async fn glued_hellos(world: &World) -> Row {
    const OF: usize = 20;
    let glued = |client| world.connector.connect(World::name(), Glued(client, b"STARTTLS\r\n".to_vec()));
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..OF {
        let (client, server) = raw_tcp_pair().await.unwrap();
        let serving = async {
            let mut lines = BufReader::new(server);
            lines.read_line(&mut String::new()).await.unwrap();
            world.acceptor.accept(lines.into_inner()).await.is_ok()
        };
        let both = async { tokio::join!(serving, glued(client)).0 };
        theirs += usize::from(timeout(QUIET, both).await.unwrap_or(false));

        let (client, server) = raw_tcp_pair().await.unwrap();
        let serving = async {
            let server = TcpConnection::new(server, Policy::default()).unwrap();
            let mut server = UpgradableConnection::new(server);
            server.read_line(&mut String::new()).await.unwrap();
            server.start_tls(StartTls::server(&world.pki.server_tls())).await.is_ok()
        };
        let both = async { tokio::join!(serving, glued(client)).0 };
        ours += usize::from(timeout(BOUND, both).await.unwrap_or(false));
    }
    Row { what: "STARTTLS: handshakes with a ClientHello glued to the command", theirs, ours, of: OF }
}

/// The peer ends TLS and continues in plaintext, in one segment.
async fn downgrades(world: &World) -> Row {
    const PLAIN: &[u8] = b"plain again";
    async fn end_tls(peer: Peer) -> TcpStream {
        let (mut socket, mut tls) = peer.into_inner();
        let mut bytes = Vec::new();
        tls.send_close_notify();
        tls.write_tls(&mut bytes).unwrap();
        bytes.extend_from_slice(PLAIN);
        socket.write_all(&bytes).await.unwrap();
        socket
    }
    async fn plaintext(mut server: impl AsyncRead + Unpin) -> bool {
        let mut plain = [0; PLAIN.len()];
        matches!(timeout(QUIET, server.read_exact(&mut plain)).await, Ok(Ok(_))) && plain == PLAIN
    }
    const OF: usize = 20;
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..OF {
        let (mut server, peer) = world.theirs().await;
        let _socket = end_tls(peer).await;
        assert_eq!(drain(&mut server).await.0, 0);
        theirs += usize::from(plaintext(server.into_inner().0).await);

        let (client, server) = raw_tcp_pair().await.unwrap();
        let server = TcpConnection::new(server, Policy::default()).unwrap();
        let tls = world.pki.server_tls();
        let (server, peer) =
            tokio::join!(UpgradableConnection::accept(server, &tls), world.connector.connect(World::name(), client));
        let mut server = server.unwrap();
        let _socket = end_tls(peer.unwrap()).await;
        server.stop_tls().await.unwrap();
        ours += usize::from(plaintext(server).await);
    }
    Row { what: "downgrade: plaintext right behind close_notify that arrived", theirs, ours, of: OF }
}

/// Writes as long as writes are accepted, then waits for something else. The peer reads what arrives meanwhile.
async fn unflushed(world: &World) -> Row {
    async fn fill(server: &mut (impl AsyncWrite + Unpin)) -> usize {
        let chunk = vec![0; 16 << 10];
        let mut accepted = 0;
        while let Some(n) = now_or_never(server.write(&chunk)).await {
            accepted += n.unwrap();
        }
        accepted
    }
    async fn arrived(mut peer: Peer) -> usize {
        let (mut total, mut buf) = (0, vec![0; 64 << 10]);
        while let Ok(Ok(n)) = timeout(QUIET, peer.read(&mut buf)).await {
            total += n;
        }
        total
    }
    const OF: usize = 20;
    let (mut theirs, mut ours) = (0, 0);
    for _ in 0..OF {
        let (mut server, peer) = world.theirs().await;
        let accepted = fill(&mut server).await;
        theirs += usize::from(arrived(peer).await == accepted);
        drop(server);

        let (mut server, peer) = world.ours().await;
        let accepted = fill(&mut server).await;
        ours += usize::from(arrived(peer).await == accepted);
        drop(server);
    }
    Row { what: "no flush: all accepted bytes arrive while the writer waits for something else", theirs, ours, of: OF }
}

/// The output of the future, if it is ready at once; `None` if it would wait.
async fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(tokio::task::coop::unconstrained(future));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// rule: close-2, abort-2, half-2, write-4, write-6, end-2, upgrade-2, upgrade-9
#[tokio::test]
async fn the_ends_of_a_connection_here_and_over_tokio_rustls() {
    let world = World::new();
    let mut rows = vec![lost_tails(&world).await];
    rows.push(answers_after_half_close(&world).await);
    rows.push(accepted_after_half_close(&world).await);
    rows.extend(aborts(&world).await);
    rows.extend(truncations(&world).await);
    rows.push(unflushed(&world).await);
    rows.push(injections(&world).await);
    rows.push(glued_hellos(&world).await);
    rows.push(downgrades(&world).await);
    println!("| what | tokio-rustls | bowline |\n|---|---|---|");
    for Row { what, theirs, ours, of } in &rows {
        println!("| {what} | {theirs} of {of} | {ours} of {of} |");
    }
    let ours: Vec<usize> = rows.iter().map(|row| row.ours * 100 / row.of).collect();
    assert_eq!(ours, [0, 100, 0, 100, 0, 0, 100, 100, 100, 100, 100, 100]);
}
