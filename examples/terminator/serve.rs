//! One connection: a client, the service, and the relay between them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bowline::{
    Control, EndpointKind, Error, Incoming, Phase, Reason, RelayReport, ServerTls, StartTls, TcpConnection, Transport,
    UpgradableConnection, relay,
};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::Terminator;
use crate::common::info::{Fields, info};
use crate::log::{Ended, Failed};
use crate::offer::Offer;
use crate::starttls::{self, Refused, StartTlsBy};

type Connection = UpgradableConnection<TcpConnection>;

/// What is known of a connection once it is joined.
#[derive(Default)]
struct Known {
    service: String,
    facts: Fields,
}

/// Serves one connection to its end, and logs it.
pub(crate) async fn serve(incoming: Incoming, conn: u64, terminator: Arc<Terminator>) {
    let begun = Instant::now();
    let client = incoming.peer().to_string();
    let mut known = Known::default();
    let outcome = join(incoming, &terminator, &mut known).await;
    let seconds = begun.elapsed().as_secs_f64();
    let Known { service, facts } = known;
    terminator.log.ended(&Ended { conn, client, service, facts, seconds, outcome });
}

async fn join(incoming: Incoming, terminator: &Terminator, known: &mut Known) -> Result<RelayReport, Failed> {
    let (mut client, mut service) = tokio::select! {
        pair = begin(incoming, terminator) => pair?,
        () = terminator.given_up() => return Err(failed("client", Reason::Aborted.into())),
    };
    known.service = service.peer().to_string();
    known.facts = info(terminator.args.listen.kind().name(), &client);
    let controls = [client.control(), service.control()];
    let relaying = relay(&mut client, &mut service);
    tokio::pin!(relaying);
    tokio::select! {
        report = &mut relaying => return Ok(report),
        () = terminator.given_up() => {}
    }
    controls.iter().for_each(Control::abort);
    Ok(relaying.await)
}

/// Both connections, ready for data. A client whose service cannot be had is aborted: silence in order would look like
/// an answer.
async fn begin(incoming: Incoming, terminator: &Terminator) -> Result<(Connection, Connection), Failed> {
    let args = &terminator.args;
    if let (Some(offer), Some(tls)) = (&args.offer, &terminator.front) {
        let mut client = incoming.into_upgradable();
        let (mut service, greeting) = connect(terminator).await.map_err(|error| refuse(&mut client, error))?;
        offer_tls((offer, greeting), tls, &mut client, &mut service, terminator).await?;
        return Ok((client, service));
    }
    let mut client = match &terminator.front {
        Some(tls) => incoming.handshake_upgradable(tls).await.map_err(|error| failed("client", error))?,
        None => incoming.into_upgradable(),
    };
    let (service, greeting) = connect(terminator).await.map_err(|error| refuse(&mut client, error))?;
    // It was said in plaintext, to us. Behind TLS the service does not say it again, and the client waits for it.
    client.write_all(greeting.as_bytes()).await.map_err(|error| failed("client", error.into()))?;
    Ok((client, service))
}

/// The service, behind TLS where that is asked for, and its greeting where it was said ahead of that.
async fn connect(terminator: &Terminator) -> Result<(Connection, String), Error> {
    let args = &terminator.args;
    let connection = terminator.connector.connect(args.connect.host(), args.connect.port()).await?;
    let mut service = UpgradableConnection::new(connection);
    let Some(tls) = &terminator.behind else { return Ok((service, String::new())) };
    let mut greeting = String::new();
    if let Some(by) = args.upgrade.as_ref().filter(|_| args.connect.kind() == EndpointKind::Tcp) {
        let negotiation = starttls::negotiate(by, args.name(), &mut service);
        greeting = in_time(terminator, negotiation).await?;
        if *by == StartTlsBy::Imap {
            // It may tell of capabilities that end with the upgrade.
            greeting = "* OK ready\r\n".into();
        }
    }
    service.start_tls(StartTls::client(tls, args.name())).await?;
    Ok((service, greeting))
}

/// Speaks the plaintext part to the client, and upgrades.
async fn offer_tls(
    (offer, greeting): (&Offer, String),
    tls: &ServerTls,
    client: &mut Connection,
    service: &mut Connection,
    terminator: &Terminator,
) -> Result<(), Failed> {
    match in_time(terminator, offer.speak(greeting, client, service)).await {
        Ok(true) => {
            let how = StartTls::server(tls);
            let how = terminator.args.options.leftover.map_or(how.clone(), |leftover| how.leftover(leftover));
            client.start_tls(how).await.map_err(|error| failed("client", error))
        }
        Ok(false) => {
            client.close().await;
            Err(failed("client", Reason::Closed.into()))
        }
        Err(error) => Err(refuse(client, error)),
    }
}

async fn in_time<T>(terminator: &Terminator, step: impl Future<Output = io::Result<T>>) -> Result<T, Error> {
    match timeout(terminator.args.options.handshake_timeout, step).await {
        Ok(done) => done.map_err(said_no),
        Err(_) => Err(Reason::TimedOut(Phase::Handshake).into()),
    }
}

/// A refusal keeps its words.
fn said_no(error: io::Error) -> Error {
    match error.get_ref() {
        Some(inner) if inner.is::<Refused>() => Reason::Protocol(Arc::new(error)).into(),
        _ => error.into(),
    }
}

fn refuse(client: &mut Connection, error: Error) -> Failed {
    client.abort();
    failed("service", error)
}

fn failed(side: &'static str, error: Error) -> Failed {
    let detail = error.to_string();
    let how = match error {
        Error::Connect(_) => "connect",
        error => Reason::from(error).name(),
    };
    Failed { side, how, detail }
}
