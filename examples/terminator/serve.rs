//! One connection: a client, the service, and the relay between them.

use std::io;
use std::sync::Arc;

use bowline::{
    BoxConnection, Control, EndpointIncoming, Error, Phase, Reason, RelayReport, StartTls, TlsTransport, Transport,
    UpgradableTransport, chain, relay,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout_at};

use crate::Terminator;
use crate::common::info::{Fields, info};
use crate::log::{Ended, Failed, Side};
use crate::starttls::{self, Refused, StartTlsBy};
use crate::starttls_server::Offer;

/// The facts of a connection after both sides are connected.
#[derive(Default)]
struct Known {
    service: String,
    facts: Fields,
}

/// Serves one connection to its end, and logs it. `_served` is dropped after that.
pub(crate) async fn serve(incoming: EndpointIncoming, conn: u64, terminator: Arc<Terminator>, _served: Sender<()>) {
    let begun = Instant::now();
    let client = incoming.peer_addr().to_string();
    let mut known = Known::default();
    let outcome = join(incoming, &terminator, &mut known).await;
    let seconds = begun.elapsed().as_secs_f64();
    let Known { service, facts } = known;
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
    let (mut service, mut greeting) = while_there(&control, connect(terminator)).await?;
    let deadline = deadline(terminator);
    match offered {
        Some((offer, how)) => {
            if greeting.is_empty() {
                greeting = while_there(&control, in_time(deadline, offer.greeting(&mut service))).await?;
            }
            offer_tls((offer, how), &greeting, &mut client, terminator, deadline).await?;
        }
        // The service sent its greeting to us in plaintext. It does not repeat the greeting after TLS, but the client
        // waits for it.
        None => {
            client.write_all(greeting.as_bytes()).await.map_err(|error| failed(Side::Client, error.into()))?;
        }
    }
    Ok((client, service))
}

/// The service, with TLS if configured, and its greeting if it came before TLS.
async fn connect(terminator: &Terminator) -> Result<(BoxConnection, String), Error> {
    let (args, connector) = (&terminator.args, &terminator.connector);
    let mut service = connector.connect().await?;
    let Some((by, how)) = args.upgrade.as_ref().zip(connector.start_tls()) else { return Ok((service, String::new())) };
    let name = args.connect.name().unwrap_or_default();
    let mut greeting = in_time(deadline(terminator), starttls::negotiate(by, name, &mut service)).await?;
    if *by == StartTlsBy::Imap {
        // The greeting may list capabilities that end with the upgrade.
        greeting = "* OK ready\r\n".into();
    }
    service.start_tls(how).await?;
    Ok((service, greeting))
}

/// Runs the plaintext part with the client, and upgrades. Any failure here counts as the client's.
async fn offer_tls(
    (offer, how): (&Offer, StartTls),
    greeting: &str,
    client: &mut BoxConnection,
    terminator: &Terminator,
    deadline: Option<Instant>,
) -> Result<(), Failed> {
    let spoken = in_time(deadline, offer.speak(greeting, client)).await;
    if spoken.map_err(|error| failed(Side::Client, error))? {
        let leftover = terminator.args.options.leftover;
        let how = leftover.map_or(how.clone(), |leftover| how.leftover(leftover));
        return client.start_tls(how).await.map_err(|error| failed(Side::Client, error));
    }
    client.close().await;
    Err(failed(Side::Client, Reason::Closed.into()))
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

/// The deadline of the plaintext part, counted from now.
fn deadline(terminator: &Terminator) -> Option<Instant> {
    Instant::now().checked_add(terminator.args.options.handshake_timeout)
}

async fn in_time<T>(deadline: Option<Instant>, step: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    let done = match deadline {
        Some(deadline) => timeout_at(deadline, step).await,
        None => Ok(step.await),
    };
    done.unwrap_or_else(|_| Err(Reason::TimedOut(Phase::Handshake).into())).map_err(said_no)
}

/// A refusal keeps the text of the peer.
fn said_no(error: io::Error) -> Error {
    match error.get_ref() {
        Some(inner) if inner.is::<Refused>() => Reason::Protocol(Arc::new(error)).into(),
        _ => error.into(),
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
