//! The two sides of a connection that is cut, and the bytes that the correct peer sends.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline::rustls::client::Resumption;
use bowline::rustls::pki_types::ServerName;
use bowline::rustls::{ClientConfig, ServerConfig};
use bowline::testing::peer::CutEnd;
use bowline::testing::pki::{KeyKind, Pki, Profile};
use bowline::{ClientTls, Error, Policy, ServerTls, Stream, TlsConnection, TlsVersion, Transport};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::outcome::Outcome;

/// The bytes that the peer sends after the handshake: two records of data, then close_notify, then the end of its
/// stream.
pub(crate) const RECORDS: [&[u8]; 2] = [b"first record, in which nothing is missing", b"second"];
pub(crate) const HANDSHAKE_BOUND: Duration = Duration::from_secs(5);
pub(crate) const CLOSE_BOUND: Duration = Duration::from_secs(3);

/// Which side of the handshake is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Clone)]
pub(crate) struct Setup {
    /// For messages.
    pub(crate) name: String,
    pub(crate) side: Side,
    pub(crate) ending: CutEnd,
    server: ServerTls,
    client: ClientTls,
    pub(crate) policy: Arc<Policy>,
}

impl Setup {
    /// Both sides in both versions.
    pub(crate) fn all(ending: CutEnd) -> impl Iterator<Item = Self> {
        [Side::Client, Side::Server]
            .into_iter()
            .flat_map(move |side| [TlsVersion::V1_2, TlsVersion::V1_3].map(|version| Self::new(side, version, ending)))
    }

    /// A setup whose handshakes are all full ones, with the same number of bytes.
    pub(crate) fn new(side: Side, version: TlsVersion, ending: CutEnd) -> Self {
        let pki = Pki::new();
        // All signatures of this kind of key have the same length.
        let identity = pki.issue(Profile::server(&[]).key(KeyKind::Ed25519));
        let mut provider = (**pki.client_tls().config().crypto_provider()).clone();
        provider.kx_groups.retain(|group| group.name() == bowline::rustls::NamedGroup::X25519);
        let server = ServerTls::builder().identity(identity.chain_der(), identity.key_der()).build().unwrap();
        let client = pki.client_tls_builder().provider(Arc::new(provider)).min_version(version).max_version(version);
        let mut client_config = ClientConfig::clone(&client.build().unwrap().config());
        client_config.resumption = Resumption::disabled();
        let policy = Policy::default().handshake_timeout(HANDSHAKE_BOUND).close_timeout(CLOSE_BOUND);
        let name = format!("{ending:?} to a {side:?}, {version:?}");
        Self { name, side, ending, server, client: Arc::new(client_config).into(), policy: policy.into() }
    }

    /// Our side over any transport.
    pub(crate) async fn handshake<T: Transport>(&self, layer: T) -> Result<TlsConnection<T>, Error> {
        match self.side {
            Side::Client => TlsConnection::connect(layer, &self.client, "localhost").await,
            Side::Server => TlsConnection::accept(layer, &self.server).await,
        }
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        self.server.config()
    }

    /// The correct peer: handshake, two records, close_notify, end. Then it reads to our end.
    pub(crate) async fn peer<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> std::io::Result<()> {
        let mut tls: tokio_rustls::TlsStream<S> = match self.side {
            Side::Server => {
                let name = ServerName::try_from("localhost").unwrap();
                TlsConnector::from(self.client.config()).connect(name, stream).await?.into()
            }
            Side::Client => TlsAcceptor::from(self.server_config()).accept(stream).await?.into(),
        };
        for record in RECORDS {
            tls.write_all(record).await?;
            tls.flush().await?;
        }
        tls.shutdown().await?;
        tls.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }
}

/// A pipe that remembers what was read from it, and may flip the bits of one byte.
pub(crate) struct Tap {
    pipe: DuplexStream,
    seen: Arc<Mutex<Vec<u8>>>,
    flip: Option<u64>,
}

impl Tap {
    pub(crate) fn flipping(pipe: DuplexStream, offset: u64) -> Self {
        Self { pipe, seen: Arc::default(), flip: Some(offset) }
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        let new = &mut buf.filled_mut()[before..];
        let mut seen = self.seen.lock().unwrap();
        let at = self.flip.and_then(|flip| usize::try_from(flip).unwrap().checked_sub(seen.len()));
        if let Some(byte) = at.and_then(|at| new.get_mut(at)) {
            *byte = !*byte;
        }
        seen.extend_from_slice(new);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The offsets at which the peer's records end, in a connection that is not cut. The last three belong to the data and
/// to the close_notify.
pub(crate) async fn record_ends(setup: &Setup) -> Vec<u64> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let seen = Arc::default();
    let ours = Stream::new(Tap { pipe: ours, seen: Arc::clone(&seen), flip: None }).delivers_at_once();
    let (outcome, peer) = tokio::join!(Outcome::of(setup, 0, ours), setup.peer(theirs));
    peer.unwrap();
    assert!(outcome.report.unwrap().0.is_clean());
    let seen = seen.lock().unwrap();
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some([_, _, _, high, low]) = seen[at..].first_chunk() {
        at += 5 + usize::from(*high) * 256 + usize::from(*low);
        ends.push(at as u64);
    }
    assert_eq!(at, seen.len());
    ends
}
