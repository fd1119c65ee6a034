//! One connection: a client, the service, and the relay between them.

use std::sync::Arc;

use bowline::proxy::ProxyHeader;
use bowline::starttls::{Client, Dialogue, Server};
use bowline::{
    BoxConnection, Control, DialogueError, EndpointIncoming, Error, Phase, Reason, RelayReport, StartTls, TlsTransport,
    Transport, UpgradableTransport, UpgradeError, chain, relay,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use crate::Terminator;
use crate::args::ProxyOut;
use crate::common::info::{Fields, info};
use crate::log::{Ended, Failed, Side};

/// The facts of a connection after both sides are connected.
#[derive(Default)]
struct Known {
    service: String,
    facts: Fields,
}

/// Serves one connection to its end, and logs it. `_served` is dropped after that.
pub(crate) async fn serve(incoming: EndpointIncoming, conn: u64, terminator: Arc<Terminator>, _served: Sender<()>) {
    let begun = Instant::now();
    let control = incoming.control();
    let mut known = Known::default();
    let outcome = join(incoming, &terminator, &mut known).await;
    let seconds = begun.elapsed().as_secs_f64();
    let Known { service, facts } = known;
    // `peer_addr` is the client's address, even if the client came through a proxy that has named it in a PROXY header.
    let client = control.peer_addr().to_string();
    terminator.log.ended(&Ended { conn, client, service, facts, seconds, outcome });
}

async fn join(incoming: EndpointIncoming, terminator: &Terminator, known: &mut Known) -> Result<RelayReport, Failed> {
    let (mut client, mut service) = begin(incoming, terminator).await?;
    terminator.group.join(&service.control());
    known.service = service.peer_addr().to_string();
    let (host, peer) = (client.local_addr(), client.peer_addr());
    known.facts = info(terminator.args.listen.kind().name(), &host, &peer, client.tls().as_deref());
    Ok(relay(&mut client, &mut service).await)
}

/// Both connections, ready for data. If the service cannot be reached, the client is aborted, because a clean end
/// without data would look like an answer.
async fn begin(incoming: EndpointIncoming, terminator: &Terminator) -> Result<(BoxConnection, BoxConnection), Failed> {
    let offered = terminator.args.offer.as_ref().zip(incoming.start_tls());
    let mut client = incoming.begin().await.map_err(|error| failed(Side::Client, error))?;
    let control = client.control();
    let header = header(terminator.args.options.proxy_out, &client);
    let (mut service, mut greeting) = while_there(&control, connect(terminator, &header)).await?;
    match offered {
        Some((dialogue, how)) => {
            if greeting.is_empty() {
                greeting = while_there(&control, read_greeting(dialogue, &mut service)).await?;
            }
            offer_tls((dialogue, how), greeting, &mut client, terminator).await?;
        }
        // The service sent its greeting to us in plaintext. It does not repeat the greeting after TLS, but the client
        // waits for it.
        None => {
            client.write_all(&greeting).await.map_err(|error| failed(Side::Client, error.into()))?;
        }
    }
    Ok((client, service))
}

/// The PROXY header for the service. If TLS begins later (`starttls`), the header contains nothing about it.
fn header(how: ProxyOut, client: &BoxConnection) -> Vec<u8> {
    match how {
        ProxyOut::Off => Vec::new(),
        ProxyOut::V1 => ProxyHeader::describing(client).encode_v1(),
        ProxyOut::V2 => ProxyHeader::describing(client).encode_v2(),
    }
}

/// The service, with TLS if configured, and its greeting if it came before TLS. The service gets `header` first.
async fn connect(terminator: &Terminator, header: &[u8]) -> Result<(BoxConnection, Vec<u8>), Error> {
    let (args, connector) = (&terminator.args, &terminator.connector);
    let mut service = connector.connect_with_prefix(header).await?;
    let Some((by, how)) = args.upgrade.as_ref().zip(connector.start_tls()) else { return Ok((service, Vec::new())) };
    let mut dialogue = Client::new(by.clone(), args.connect.name().unwrap_or_default());
    dialogue.negotiate(&mut service).await?;
    let greeting = match by {
        // The greeting may list capabilities that end with the upgrade.
        Dialogue::Imap => b"* OK ready\r\n".to_vec(),
        // An IRC server has no greeting. The bytes that it sends before TLS are notices.
        Dialogue::Irc => Vec::new(),
        _ => dialogue.greeting().to_vec(),
    };
    service.start_tls(how).await?;
    Ok((service, greeting))
}

/// The plaintext greeting of a service, if the service sends first.
async fn read_greeting(dialogue: &Dialogue, service: &mut BoxConnection) -> Result<Vec<u8>, Error> {
    Client::new(dialogue.clone(), "").read_greeting(service).await.map(<[u8]>::to_vec)
}

/// Runs the plaintext part with the client, and upgrades. Any failure here counts as the client's.
async fn offer_tls(
    (dialogue, how): (&Dialogue, StartTls),
    greeting: Vec<u8>,
    client: &mut BoxConnection,
    terminator: &Terminator,
) -> Result<(), Failed> {
    let mut server = Server::new(dialogue.clone());
    // The service lists its capabilities again after TLS. Before TLS, the only capability is STARTTLS.
    if *dialogue != Dialogue::Imap && !greeting.is_empty() {
        server = server.greeting(greeting);
    }
    match server.negotiate(client).await {
        Ok(()) => {}
        Err(Error::Upgrade(UpgradeError::Dialogue(DialogueError::Left))) => {
            client.close().await;
            return Err(failed(Side::Client, Reason::Closed.into()));
        }
        Err(error) => return Err(failed(Side::Client, error)),
    }
    let leftover = terminator.args.options.leftover;
    let how = leftover.map_or(how.clone(), |leftover| how.leftover(leftover));
    client.start_tls(how).await.map_err(|error| failed(Side::Client, error))
}

/// Runs a step of connecting to the service while the client is still connected. If the step fails, the client is
/// aborted.
async fn while_there<T>(client: &Control, step: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
    tokio::select! {
        // If the client has left, that is the cause of a failed step, not its result.
        biased;
        () = client.lost() => {
            let reason = if client.is_aborted() { Reason::Aborted } else { Reason::Reset(Phase::Handshake) };
            Err(failed(Side::Client, reason.into()))
        }
        done = step => done.map_err(|error| {
            client.abort();
            failed(Side::Service, error)
        }),
    }
}

fn failed(side: Side, error: Error) -> Failed {
    let detail = chain(&error).to_string();
    let how = match error {
        Error::Connect(_) => "connect",
        error => Reason::from(error).name(),
    };
    Failed { side, how, detail }
}
