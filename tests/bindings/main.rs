//! The names of a session's peer, channel bindings and exporters.
#![allow(clippy::unwrap_used)]

mod exporter;
mod names;
mod openssl;
#[cfg(unix)]
mod postgres;
#[cfg(unix)]
mod postgres_server;
#[cfg(unix)]
mod scram;
mod server_end_point;

use std::time::Duration;

use bowline::testing::pki::{Identity, Pki};
use bowline::testing::{memory_pair, shared_pki};
use bowline::{ChannelBinding, ClientTls, Error, ServerTls, SessionError, TlsConnection, TlsVersion, Transport};

const SOON: Duration = Duration::from_secs(20);
const VERSIONS: [TlsVersion; 2] = [TlsVersion::V1_2, TlsVersion::V1_3];
/// Client and server: whether it is the express engine.
const ENGINES: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

fn server(identity: &Identity, express: bool) -> ServerTls {
    let builder = ServerTls::builder().identity(identity.chain_der(), identity.key_der());
    if express { builder.express() } else { builder }.build().unwrap()
}

fn client(pki: &Pki, version: TlsVersion, express: bool) -> ClientTls {
    let builder = ClientTls::builder().root(pki.ca_der()).min_version(version).max_version(version);
    if express { builder.express() } else { builder }.build().unwrap()
}

/// Client and server, with the handshake done.
async fn pair_of(
    client: &ClientTls,
    server: &ServerTls,
) -> (TlsConnection<impl Transport + use<>>, TlsConnection<impl Transport + use<>>) {
    let (a, b) = memory_pair();
    let both = async { tokio::join!(TlsConnection::connect(a, client, "localhost"), TlsConnection::accept(b, server)) };
    let (client, server) = tokio::time::timeout(SOON, both).await.unwrap();
    (client.unwrap(), server.unwrap())
}

async fn pair(
    version: TlsVersion,
    engines: (bool, bool),
) -> (TlsConnection<impl Transport + use<>>, TlsConnection<impl Transport + use<>>) {
    let pki = shared_pki();
    pair_of(&client(pki, version, engines.0), &server(&pki.server(&[]), engines.1)).await
}

fn session_error<T: std::fmt::Debug>(result: Result<T, Error>) -> SessionError {
    match result {
        Err(Error::Session(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

const BINDINGS: [ChannelBinding; 2] = [ChannelBinding::TlsServerEndPoint, ChannelBinding::TlsExporter];
