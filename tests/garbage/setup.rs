//! Our side, and a peer that may violate the protocol.
#![allow(dead_code, reason = "each of the tests that share this uses a part of it")]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bowline::testing::peer::{RawTcp, RawTls};
use bowline::testing::{pki::Pki, raw_tcp_pair};
use bowline::{ClientTls, Error, Phase, Policy, Reason, ServerTls, TcpConnection, TlsConnection, TlsError, TlsVersion};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];
pub(crate) const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// Which side is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) side: Side,
    pub(crate) server: ServerTls,
    pub(crate) client: ClientTls,
    pub(crate) policy: Arc<Policy>,
}

impl Setup {
    pub(crate) fn new(side: Side, version: TlsVersion) -> Self {
        let pki = Pki::new();
        let client = pki.client_tls_builder().min_version(version).max_version(version).build().unwrap();
        Self { side, server: pki.server_tls(), client, policy: Arc::default() }
    }

    pub(crate) fn with(self, change: impl FnOnce(Policy) -> Policy) -> Self {
        Self { policy: change(Policy::clone(&self.policy)).into(), ..self }
    }

    pub(crate) async fn ours(self, stream: TcpStream) -> Result<TlsConnection<TcpConnection>, Error> {
        let tcp = TcpConnection::new(stream, self.policy).unwrap();
        match self.side {
            Side::Client => TlsConnection::connect(tcp, &self.client, "localhost").await,
            Side::Server => TlsConnection::accept(tcp, &self.server).await,
        }
    }

    pub(crate) async fn raw(&self, stream: TcpStream) -> RawTls {
        match self.side {
            Side::Server => RawTls::client(stream, &self.client, "localhost").await.unwrap(),
            Side::Client => RawTls::server(stream, &self.server).await.unwrap(),
        }
    }

    /// Our handshake in progress, and a peer that has not started.
    pub(crate) async fn before(&self) -> (JoinHandle<Result<TlsConnection<TcpConnection>, Error>>, RawTcp) {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        (tokio::spawn(self.clone().ours(ours)), RawTcp::new(theirs))
    }

    /// Both sides after the handshake.
    pub(crate) async fn done(&self) -> (TlsConnection<TcpConnection>, RawTls) {
        let (ours, theirs) = raw_tcp_pair().await.unwrap();
        let (ours, raw) = tokio::join!(self.clone().ours(ours), self.raw(theirs));
        (ours.unwrap(), raw)
    }
}

pub(crate) fn tls_error(reason: &Reason) -> &TlsError {
    match reason {
        Reason::Tls(error) => error,
        other => panic!("not a failure of TLS: {other:?}"),
    }
}

pub(crate) fn reason_of(error: io::Error) -> Reason {
    Reason::from_io(error, Phase::Connect)
}

/// One unencrypted record.
pub(crate) fn record(typ: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[typ, 3, 3][..], &length, body].concat()
}

pub(crate) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const APPLICATION_DATA: u8 = 23;

/// Every side in every version.
pub(crate) fn all_setups() -> impl Iterator<Item = (String, TlsVersion, Setup)> {
    SIDES
        .into_iter()
        .flat_map(|side| VERSIONS.map(|version| (format!("{side:?}, {version:?}"), version, Setup::new(side, version))))
}
