//! Opens the ports, or takes them over from a service manager or from the process that this one replaces.

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::handover::{Handover, Offer};
use bowline::{Error, Listener, ListenerBuilder, Observer, Policy, Truncation, chain};
use tokio::net::lookup_host;

use crate::Failure;
use crate::args::Args;
use crate::common::args::Usage;
use crate::serve::GONE;
use crate::state::Web;

/// The names of the sockets in a handover.
const HTTPS: &str = "https";
const METRICS: &str = "metrics";

/// The open ports.
pub(crate) struct Listening {
    pub(crate) https: Vec<Listener>,
    pub(crate) metrics: Option<Listener>,
    pub(crate) succession: Option<Succession>,
}

/// The process that this one replaces, and the one that will replace this one.
pub(crate) struct Succession {
    path: String,
    predecessor: Option<Handover>,
    offer: Offer,
}

impl Listening {
    pub(crate) async fn open(args: &Args, web: &Web) -> Result<Self, Failure> {
        if let Some(passed_in) = builder(args, web).from_listen_fds()? {
            if args.listen.is_some() || args.workers.is_some() || args.upgrade_from.is_some() {
                let problem = "sockets were passed in (LISTEN_FDS), so none of --listen, --workers and --upgrade-from can \
                               be given";
                return Err(Failure::Usage(Usage::new(problem)));
            }
            return Ok(Self { https: vec![passed_in], metrics: open_metrics(args).await?, succession: None });
        }
        let Some(path) = args.upgrade_from.clone() else {
            let (https, metrics) = (open_https(args, web).await?, open_metrics(args).await?);
            return Ok(Self { https, metrics, succession: None });
        };
        let mut predecessor = Handover::take(&path).await?;
        let (asked, is_each) = (args.listen.as_deref(), args.workers.is_some());
        let https = match take(&mut predecessor, HTTPS, &builder(args, web), asked, is_each).await? {
            taken if taken.is_empty() => open_https(args, web).await?,
            taken => taken,
        };
        let metrics = match &args.metrics {
            None => None,
            Some(addr) => match take(&mut predecessor, METRICS, &Listener::builder(), Some(addr), false).await?.pop() {
                None => open_metrics(args).await?,
                taken => taken,
            },
        };
        let mut offer = Offer::new();
        https.iter().try_for_each(|listener| offer.add(HTTPS, listener))?;
        metrics.iter().try_for_each(|listener| offer.add(METRICS, listener))?;
        Ok(Self { https, metrics, succession: Some(Succession { path, predecessor, offer }) })
    }
}

impl Succession {
    /// Tells the predecessor that this process accepts connections, and waits until a successor has told this process
    /// the same. After an error, the service continues, but no successor can take over its sockets.
    pub(crate) async fn taken(self) {
        if let Err(error) = self.pass().await {
            eprintln!("web: {}", chain(&error));
            std::future::pending().await
        }
    }

    async fn pass(self) -> Result<(), Error> {
        if let Some(predecessor) = self.predecessor
            && let Err(error) = predecessor.ready().await
        {
            eprintln!("web: {}", chain(&error));
        }
        self.offer.open(&self.path)?.taken().await
    }
}

/// Listeners on the predecessor's sockets with this name: one listener for all of them, or one for each. Sockets that
/// do not have an address on the command line are left out.
async fn take(
    predecessor: &mut Option<Handover>,
    name: &str,
    builder: &ListenerBuilder,
    asked: Option<&str>,
    is_each: bool,
) -> Result<Vec<Listener>, Failure> {
    let Some(predecessor) = predecessor else { return Ok(Vec::new()) };
    let asked: Option<Vec<SocketAddr>> = match asked {
        Some(addr) => Some(lookup_host(addr).await.map_err(Error::from)?.collect()),
        None => None,
    };
    let is_asked = |has: SocketAddr, addr: &SocketAddr| addr.ip() == has.ip() && [0, has.port()].contains(&addr.port());
    let mut sockets = Vec::new();
    for socket in predecessor.sockets(name) {
        let has = socket.local_addr().map_err(Error::from)?;
        if asked.as_ref().is_none_or(|asked| asked.iter().any(|addr| is_asked(has, addr))) {
            sockets.push(socket);
        }
    }
    if is_each {
        return sockets.into_iter().map(|socket| Ok(builder.clone().from_std(socket)?)).collect();
    }
    Ok(if sockets.is_empty() { Vec::new() } else { vec![builder.clone().from_std_all(sockets)?] })
}

async fn open_https(args: &Args, web: &Web) -> Result<Vec<Listener>, Error> {
    let (builder, addr) = (builder(args, web), args.listen.as_deref().unwrap_or("127.0.0.1:8443"));
    match args.workers {
        Some(workers) => builder.bind_workers(workers, addr).await,
        None => Ok(vec![builder.bind(addr).await?]),
    }
}

async fn open_metrics(args: &Args) -> Result<Option<Listener>, Error> {
    match &args.metrics {
        Some(addr) => Listener::bind(addr.as_str()).await.map(Some),
        None => Ok(None),
    }
}

fn builder(args: &Args, web: &Web) -> ListenerBuilder {
    // HTTP itself detects an incomplete message, and many clients end without close_notify.
    let policy = Policy::default().handshake_timeout(args.handshake_timeout).truncation(Truncation::Tolerate);
    let policy = policy.idle_timeout(GONE);
    let policy = policy.observer(Arc::clone(&web.watch) as Arc<dyn Observer>);
    let policy = policy.observer(Arc::clone(&web.metrics) as Arc<dyn Observer>);
    let mut builder = Listener::builder().policy(policy).group(&web.group).finish_on_drain(true);
    if let Some(proxy) = &args.proxy {
        builder = builder.proxy(proxy.clone());
    }
    if let Some(max) = args.max_unfinished {
        builder = builder.max_unfinished(max);
    }
    if let Some(max) = args.max_connections {
        builder = builder.max_connections(max);
    }
    if let Some(max) = args.max_per_peer {
        builder = builder.max_per_peer(max);
    }
    builder
}
