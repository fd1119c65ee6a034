//! A complete web service over TLS: an axum application that uses bowline's listener.
//!
//! ```text
//! cargo run --release --manifest-path examples/web/Cargo.toml
//! curl --cacert certs/ca.pem https://localhost:8443/whoami
//! ```

mod app;
mod args;
mod log;
mod page;
mod serve;
mod state;
mod tls;
mod watch;

#[path = "../../common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../../common/descriptors.rs"]
mod descriptors;
#[path = "../../common/host_port.rs"]
mod host_port;
#[path = "../../common/lines.rs"]
mod lines;
#[path = "../../common/log_format.rs"]
mod log_format;
#[path = "../../console/pattern.rs"]
#[allow(dead_code)]
mod pattern;
#[path = "../../common/proxy.rs"]
mod proxy;
#[path = "../../common/reload.rs"]
mod reload;
#[path = "../../common/signals.rs"]
mod signals;
#[path = "../../common/tls_flags.rs"]
#[allow(dead_code)]
mod tls_flags;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bowline::{DrainReport, Error, Listener, ListenerBuilder, Observer, Policy, ServerTls, Truncation, chain};

use crate::args::Args;
use crate::common::args::Usage;
use crate::log::Log;
use crate::signals::{Hangups, Signals};
use crate::state::Web;
use crate::tls::Files;

fn main() -> ExitCode {
    let args = Args::parse().unwrap_or_else(|usage| usage.exit("web"));
    let files = Files::of(&args).unwrap_or_else(|usage| usage.exit("web"));
    let tls = files.load().unwrap_or_else(|error| Usage::of(error).exit("web"));
    descriptors::raise_limit();
    let runtime = tokio::runtime::Runtime::new().expect("a system without threads or polling runs no service");
    let log = Log::new(args.json);
    let ended = runtime.block_on(runtime.spawn(run(args, files, tls, log.clone())));
    log.finish();
    let ended = ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(usage)) => usage.exit("web"),
        Err(Failure::Error(error)) => {
            eprintln!("web: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The reason why the service did not start, or stopped.
enum Failure {
    Usage(Usage),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Listens, serves until a signal comes, and drains.
async fn run(args: Args, files: Files, tls: ServerTls, log: Log) -> Result<(), Failure> {
    let (args, mut signals, hangups) = (Arc::new(args), Signals::new(), Hangups::new());
    let web = Arc::new(Web::new(tls, log));
    let listeners = listen(&args, &web).await?;
    let addrs = listeners.first().map(Listener::local_addrs).unwrap_or_default();
    let metrics = match &args.metrics {
        Some(addr) => Some(Listener::bind(addr.as_str()).await?),
        None => None,
    };
    for addr in addrs {
        web.log.line(format!("listening https {addr}"));
    }
    if let Some(metrics) = metrics {
        web.log.line(format!("listening metrics {}", metrics.local_addr()));
        tokio::spawn(serve::metrics(metrics, Arc::clone(&web)));
    }
    web.log.line("ready".into());
    tokio::spawn(tls::watch(files, Arc::clone(&args), hangups, Arc::clone(&web)));
    let mut accepting = tokio::task::JoinSet::new();
    for listener in listeners {
        accepting.spawn(serve::serve(listener, Arc::clone(&web)));
    }
    let serving = async {
        while let Some(ended) = accepting.join_next().await {
            ended.map_err(std::io::Error::from)??;
        }
        Ok(())
    };
    let ((), report) = tokio::try_join!(serving, drain(&args, &web, &mut signals))?;
    web.log.drained(&report);
    Ok(())
}

/// Waits for a signal, then drains. A second signal aborts the remaining connections.
async fn drain(args: &Args, web: &Web, signals: &mut Signals) -> Result<DrainReport, Error> {
    signals.stop().await;
    web.begin_draining();
    web.log.draining();
    let draining = async {
        tokio::time::sleep(args.drain_delay).await;
        web.group.drain(args.drain_timeout).await
    };
    Ok(tokio::select! {
        report = draining => report,
        () = signals.stop() => web.group.drain(Duration::ZERO).await,
    })
}

async fn listen(args: &Args, web: &Web) -> Result<Vec<Listener>, Failure> {
    let builder = builder(args, web);
    if let Some(passed_in) = builder.clone().from_listen_fds()? {
        if args.listen.is_some() || args.workers.is_some() {
            let problem = "sockets were passed in (LISTEN_FDS), so neither --listen nor --workers can be given";
            return Err(Failure::Usage(Usage::new(problem)));
        }
        return Ok(vec![passed_in]);
    }
    let addr = args.listen.as_deref().unwrap_or("127.0.0.1:8443");
    Ok(match args.workers {
        Some(workers) => builder.bind_workers(workers, addr).await?,
        None => vec![builder.bind(addr).await?],
    })
}

fn builder(args: &Args, web: &Web) -> ListenerBuilder {
    // HTTP itself detects an incomplete message, and many clients end without close_notify.
    let policy = Policy::default().handshake_timeout(args.handshake_timeout).truncation(Truncation::Tolerate);
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
