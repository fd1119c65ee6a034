//! Terminates TLS in front of a plaintext service, or adds TLS in front of a TLS service, from the first byte or with
//! STARTTLS. It forwards every end of a connection as the same kind of end.
//!
//! ```text
//! cargo run --example terminator -- --listen tls:8443:cert=chain.pem:key=key.pem --connect tcp:127.0.0.1:8080
//! cargo run --example terminator -- --listen tcp:127.0.0.1:2525 --connect starttls:mail.example:587 --connect-starttls smtp
//! ```

mod args;
mod counts;
mod http;
mod log;
mod serve;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/descriptors.rs"]
mod descriptors;
#[path = "../common/host_port.rs"]
mod host_port;
#[path = "../common/lines.rs"]
mod lines;
#[path = "../common/log_format.rs"]
mod log_format;
#[path = "../common/proxy.rs"]
mod proxy;
#[cfg(feature = "redis")]
#[path = "../common/redis_keys.rs"]
mod redis_keys;
#[path = "../common/reload.rs"]
mod reload;
#[path = "../common/signals.rs"]
mod signals;
#[path = "../common/ticket_keys.rs"]
mod ticket_keys;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(feature = "redis")]
use bowline::RotationEvent;
use bowline::{
    DrainGroup, EndpointConnector, EndpointIncoming, EndpointListener, Error, Listener, ListenerBuilder, Observer,
    Policy, ReloadEvents, ServerTls, Truncation, chain,
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::args::{Args, Options};
use crate::counts::Counts;
use crate::log::Log;
#[cfg(feature = "redis")]
use crate::redis_keys::RedisKeys;
use crate::reload::{on_hangups, rfc3339};
use crate::signals::{Hangups, Signals};
#[cfg(feature = "redis")]
use crate::ticket_keys::KeySource;

fn main() -> ExitCode {
    let args = Args::parse().unwrap_or_else(|usage| usage.exit("terminator"));
    let runtime = tokio::runtime::Runtime::new().expect("a system without threads or polling runs no service");
    let log = Log::new(args.options.json);
    // `run` is spawned, so that it runs on a worker thread. On the main thread, each connection would wake one thread
    // to accept it and another one to serve it.
    let ended = runtime.block_on(runtime.spawn(run(args, log.clone())));
    log.finish();
    let ended = ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("terminator: {}", chain(&error));
    if matches!(error, Error::Config(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// The state that every connection needs.
struct Terminator {
    args: Args,
    connector: EndpointConnector,
    log: Log,
    /// The connections on both sides.
    group: DrainGroup,
    counts: Arc<Counts>,
    is_draining: AtomicBool,
}

impl Terminator {
    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }
}

/// Listens, serves until a signal comes, and drains.
async fn run(#[allow(unused_mut)] mut args: Args, log: Log) -> Result<(), Error> {
    let (mut signals, hangups) = (Signals::new(), Hangups::new());
    let connector = args.connect.connector(policy(&args.options))?;
    let group = DrainGroup::new();
    let counts = Arc::new(Counts::default());
    #[cfg(feature = "redis")]
    if let KeySource::Redis(mut redis) = std::mem::take(&mut args.options.ticket_keys) {
        redis.begin().await;
        args.listen = args.listen.ticket_keys(redis.keys());
        tokio::spawn(rotate(*redis, args.options.look_every, log.clone()));
    }
    let listener = args.listen.listen_with(front(&args.options, &counts).group(&group)).await?;
    let metrics = match &args.options.metrics {
        Some(addr) => Some(Listener::bind(addr.as_str()).await?),
        None => None,
    };
    if let Some(tls) = listener.server_tls() {
        print_warnings(tls);
        counts.watch(tls);
    }
    log.line(format!("listening {} {}", args.listen.kind(), listener.local_addr()));
    if let Some(metrics) = &metrics {
        log.line(format!("listening metrics {}", metrics.local_addr()));
    }
    log.line("ready".into());
    let (delay, patience) = (args.options.drain_delay, args.options.drain_timeout);
    let is_draining = AtomicBool::new(false);
    let terminator = Arc::new(Terminator { args, connector, log, group: group.clone(), counts, is_draining });
    if let Some(metrics) = metrics {
        tokio::spawn(http::serve(metrics, Arc::clone(&terminator)));
    }
    if let Some((reloader, tls)) = listener.reloader().zip(listener.server_tls()) {
        tokio::spawn(log_reloads(reloader.events(), tls.clone(), Arc::clone(&terminator)));
    }
    let draining = async {
        signals.stop().await;
        terminator.is_draining.store(true, Ordering::Release);
        terminator.log.event("draining", Vec::new());
        let draining = async {
            tokio::time::sleep(delay).await;
            group.drain(patience).await
        };
        // Connections that are still open then are aborted, so that no peer mistakes its data for complete.
        Ok(tokio::select! {
            report = draining => report,
            () = signals.stop() => group.drain(Duration::ZERO).await,
        })
    };
    let serving = async { tokio::try_join!(serve(&listener, &terminator), draining) };
    let ((), report) = tokio::select! {
        ended = serving => ended?,
        never = on_hangups(listener.reloader(), hangups) => match never {},
    };
    let counts = report.iter().map(|(outcome, count)| (outcome.name(), json!(count)));
    terminator.log.event("drained", counts.collect());
    Ok(())
}

/// Renews the ticket keys from Redis until the program ends, and logs failures.
#[cfg(feature = "redis")]
async fn rotate(redis: RedisKeys, every: Duration, log: Log) {
    let tell = |event: &RotationEvent| match event {
        RotationEvent::Failed(_) => log.event("reload_failed", vec![("detail", json!(event.to_string()))]),
        RotationEvent::Recovered => log.event("reloaded", vec![("detail", json!(event.to_string()))]),
        _ => {}
    };
    redis.run(every, Hangups::new(), tell).await;
}

/// Logs the results of the reloader, until it is dropped.
async fn log_reloads(mut events: ReloadEvents, tls: ServerTls, terminator: Arc<Terminator>) {
    while let Some(event) = events.next().await {
        match event {
            Ok(reloaded) => {
                if reloaded.is_new {
                    print_warnings(&tls);
                }
                let not_after = reloaded.not_after.map(rfc3339);
                let fields = vec![("generation", json!(reloaded.generation)), ("not_after", json!(not_after))];
                terminator.log.event("reloaded", fields);
            }
            Err(error) => terminator.log.event("reload_failed", vec![("detail", json!(chain(&error).to_string()))]),
        }
    }
}

fn print_warnings(tls: &ServerTls) {
    tls.warnings().iter().for_each(|warning| eprintln!("terminator: {warning}"));
}

/// Accepts connections until the drain starts, and returns when the last connection has ended and is logged.
async fn serve(listener: &EndpointListener, terminator: &Arc<Terminator>) -> Result<(), Error> {
    // Every connection's task holds a sender, and no task sends anything: the channel ends when the last sender is
    // dropped. A `JoinSet` would wake this task for each connection that ends.
    let (served, mut all_served) = mpsc::channel::<()>(1);
    let mut number = 0;
    loop {
        match accept(listener, terminator).await {
            Ok(incoming) => {
                number += 1;
                tokio::spawn(serve::serve(incoming, number, Arc::clone(terminator), served.clone()));
            }
            Err(Error::Draining) => break,
            Err(error) => return Err(error),
        }
    }
    drop(served);
    all_served.recv().await;
    Ok(())
}

/// Waits for space in the log, then accepts the next connection. A drain does not wait for that space.
async fn accept(listener: &EndpointListener, terminator: &Terminator) -> Result<EndpointIncoming, Error> {
    tokio::select! {
        () = terminator.log.room() => {}
        () = terminator.group.draining() => {}
    }
    listener.accept().await
}

fn front(options: &Options, counts: &Arc<Counts>) -> ListenerBuilder {
    let mut policy = policy(options).observer(Arc::clone(counts) as Arc<dyn Observer>);
    if options.tolerate_truncation {
        policy = policy.truncation(Truncation::Tolerate);
    }
    let max = max_connections(options.max_connections, descriptors::raise_limit());
    let builder = Listener::builder().policy(policy).max_connections(max).max_unfinished(max).finish_on_drain(true);
    let builder = match &options.proxy {
        Some(proxy) => builder.proxy(proxy.clone()),
        None => builder,
    };
    match options.max_per_peer {
        Some(max) => builder.max_per_peer(max),
        None => builder,
    }
}

/// A connection takes two descriptors, one on each side. The program itself needs some more.
fn max_connections(asked: Option<usize>, descriptors: Option<u64>) -> usize {
    const DEFAULT: usize = 10_000;
    let wanted = asked.unwrap_or(DEFAULT);
    let Some(descriptors) = descriptors else { return wanted };
    let most = usize::try_from(descriptors.saturating_sub(32) / 2).unwrap_or(usize::MAX).max(1);
    if asked.is_some_and(|asked| asked > most) {
        eprintln!("terminator: {descriptors} descriptors are allowed, which is enough for {most} connections at once");
    }
    wanted.min(most)
}

fn policy(options: &Options) -> Policy {
    Policy::default()
        .idle_timeout(options.idle_timeout)
        // rule: flow-7. This is set from the start, because the bytes before the relay must not look complete either.
        .reset_when_killed(true)
        .handshake_timeout(options.handshake_timeout)
        .close_timeout(options.close_timeout)
        .half_open_timeout(options.half_open_timeout)
}
