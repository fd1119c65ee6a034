//! A complete web service over TLS: an axum application that uses bowline's listener.
//!
//! ```text
//! cargo run --release --manifest-path examples/web/Cargo.toml
//! curl --cacert certs/ca.pem https://localhost:8443/whoami
//! ```

mod app;
mod args;
mod listening;
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
#[cfg(feature = "redis")]
#[path = "../../common/redis_keys.rs"]
mod redis_keys;
#[path = "../../common/reload.rs"]
mod reload;
#[path = "../../common/signals.rs"]
mod signals;
#[path = "../../common/ticket_keys.rs"]
mod ticket_keys;
#[path = "../../common/tls_flags.rs"]
#[allow(dead_code)]
mod tls_flags;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "redis")]
use bowline::RotationEvent;
use bowline::{Address, DrainReport, Error, Listener, ServerTls, chain};

use crate::args::Args;
use crate::common::args::Usage;
use crate::listening::Listening;
use crate::log::Log;
use crate::signals::{Hangups, Signals};
use crate::state::Web;
use crate::ticket_keys::KeySource;
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
async fn run(mut args: Args, files: Files, tls: ServerTls, log: Log) -> Result<(), Failure> {
    let (mut signals, hangups) = (Signals::new(), Hangups::new());
    let web = Arc::new(Web::new(tls, log));
    rotate(std::mem::take(&mut args.ticket_keys), args.reload_every, &web).await;
    let args = Arc::new(args);
    let Listening { https, metrics, succession } = Listening::open(&args, &web).await?;
    // Several workers have sockets with the same address, which is printed once.
    let mut addrs: Vec<Address> = https.iter().flat_map(Listener::local_addrs).collect();
    addrs.dedup();
    for addr in addrs {
        web.log.line(format!("listening https {addr}"));
    }
    let metrics = metrics.map(|metrics| {
        web.log.line(format!("listening metrics {}", metrics.local_addr()));
        tokio::spawn(serve::metrics(metrics, Arc::clone(&web)))
    });
    web.log.line("ready".into());
    let reloader = files.reloader(&args, &web);
    tokio::spawn(tls::log_reloads(reloader.events(), Arc::clone(&web)));
    tokio::spawn(async move { reload::on_hangups(Some(&reloader), hangups).await });
    let mut accepting = tokio::task::JoinSet::new();
    for listener in https {
        accepting.spawn(serve::serve(listener, Arc::clone(&web)));
    }
    let serving = async {
        while let Some(ended) = accepting.join_next().await {
            ended.map_err(std::io::Error::from)??;
        }
        Ok(())
    };
    let replaced = async {
        match succession {
            Some(succession) => succession.taken().await,
            None => std::future::pending().await,
        }
        // The successor answers there from now on.
        if let Some(metrics) = metrics {
            metrics.abort();
        }
    };
    let ((), report) = tokio::try_join!(serving, drain(&args, &web, &mut signals, replaced))?;
    web.log.drained(&report);
    Ok(())
}

/// Gets the first ticket keys from Redis, and starts the task that renews them.
#[allow(clippy::unused_async)] // Only the feature `redis` has something to await.
async fn rotate(keys: KeySource, every: Duration, web: &Arc<Web>) {
    match keys {
        KeySource::Own | KeySource::Files(_) => {}
        #[cfg(feature = "redis")]
        KeySource::Redis(mut redis) => {
            redis.begin().await;
            let web = Arc::clone(web);
            let tell = move |event: &RotationEvent| match event {
                RotationEvent::Failed(_) => web.log.reload_failed_by(&event.to_string()),
                RotationEvent::Recovered => web.log.reloaded(web.tls.generation(), first_end(&web.tls)),
                _ => {}
            };
            tokio::spawn(redis.run(every, Hangups::new(), tell));
        }
    }
}

#[cfg(feature = "redis")]
fn first_end(tls: &ServerTls) -> Option<std::time::SystemTime> {
    tls.identities().iter().filter_map(|identity| identity.not_after).min()
}

/// Waits for a signal or a successor, then drains. A later signal aborts the remaining connections.
async fn drain(
    args: &Args,
    web: &Web,
    signals: &mut Signals,
    replaced: impl Future<Output = ()>,
) -> Result<DrainReport, Error> {
    let delay = tokio::select! {
        () = signals.stop() => {
            web.begin_draining();
            args.drain_delay
        }
        // The service continues in the successor, so /health does not change, and there is no need to wait for a
        // balancer.
        () = replaced => Duration::ZERO,
    };
    web.log.draining();
    let draining = async {
        tokio::time::sleep(delay).await;
        web.group.drain(args.drain_timeout).await
    };
    Ok(tokio::select! {
        report = draining => report,
        () = signals.stop() => web.group.drain(Duration::ZERO).await,
    })
}
