//! Takes TLS off in front of a plain service, or puts it on in front of a TLS service, from the first byte or by
//! STARTTLS; and passes on every end as what it was.
//!
//! ```text
//! cargo run --example terminator -- --listen tls:0.0.0.0:8443 --connect tcp:127.0.0.1:8080 --cert chain.pem --key key.pem
//! cargo run --example terminator -- --listen tcp:127.0.0.1:2525 --connect tcp:mail.example:587 --connect-starttls smtp
//! ```

mod args;
mod log;
mod offer;
mod serve;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/starttls/mod.rs"]
mod starttls;

use std::process::ExitCode;
use std::sync::Arc;

use bowline::{ClientTls, Connector, Error, Listener, Policy, ServerTls, Truncation};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::args::Args;
use crate::common::args::Usage;
use crate::log::Log;

fn main() -> ExitCode {
    let args = Args::parse().unwrap_or_else(|usage| usage.exit("terminator"));
    let front = server_tls(&args).unwrap_or_else(|usage| usage.exit("terminator"));
    let behind = client_tls(&args).unwrap_or_else(|usage| usage.exit("terminator"));
    let runtime = tokio::runtime::Runtime::new().expect("a system without threads or polling runs no service");
    let log = Log::new(args.options.json);
    let ended = runtime.block_on(run(args, front, behind, &log));
    log.finish();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("terminator: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What every connection needs.
struct Terminator {
    args: Args,
    front: Option<ServerTls>,
    behind: Option<ClientTls>,
    connector: Connector,
    log: Log,
    /// Turns true when the connections that are open have to end.
    give_up: watch::Receiver<bool>,
}

impl Terminator {
    /// Waits until everything has to end.
    async fn given_up(&self) {
        // The sender is gone only when the program ends.
        let _ = self.give_up.clone().wait_for(|given_up| *given_up).await;
    }
}

/// Listens, serves until a signal comes, and drains.
async fn run(args: Args, front: Option<ServerTls>, behind: Option<ClientTls>, log: &Log) -> Result<(), Error> {
    let mut signals = Signals::new();
    let policy = policy(&args);
    let mut front_policy = policy.clone();
    if args.options.tolerate_truncation {
        front_policy.truncation = Truncation::Tolerate;
    }
    let max = args.options.max_connections;
    let builder = Listener::builder().policy(front_policy).max_unfinished(max);
    let listener = builder.bind((args.listen.host(), args.listen.port())).await?;
    log.line(format!("listening {} {}", args.listen.kind().name(), listener.local_addr()));
    log.line("ready".into());
    let (giving_up, give_up) = watch::channel(false);
    let patience = args.options.drain_timeout;
    let connector = Connector::new().timeout(args.options.handshake_timeout).policy(policy);
    let terminator = Arc::new(Terminator { args, front, behind, connector, log: log.clone(), give_up });
    let mut connections = JoinSet::new();
    accept(&listener, max, &terminator, &mut connections, &mut signals).await?;
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        _ = timeout(patience, all_ended) => {}
        () = signals.next() => {}
    }
    // Those that are still open are aborted, so that nobody takes what they have for complete.
    giving_up.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Accepts until a signal comes.
async fn accept(
    listener: &Listener,
    max: usize,
    terminator: &Arc<Terminator>,
    connections: &mut JoinSet<()>,
    signals: &mut Signals,
) -> Result<(), Error> {
    let room = Arc::new(Semaphore::new(max));
    let mut number = 0;
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
            Ok::<_, Error>((permit, listener.accept().await?))
        };
        tokio::select! {
            next = next => {
                let (permit, incoming) = next?;
                number += 1;
                let serving = serve::serve(incoming, number, Arc::clone(terminator));
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
            () = signals.next() => return Ok(()),
        }
    }
}

fn policy(args: &Args) -> Policy {
    let mut policy = Policy::default();
    policy.handshake_timeout = Some(args.options.handshake_timeout);
    policy.close_timeout = Some(args.options.close_timeout);
    policy.half_open_timeout = args.options.half_open_timeout;
    policy
}

fn server_tls(args: &Args) -> Result<Option<ServerTls>, Usage> {
    let Some((cert, key)) = &args.identity else { return Ok(None) };
    let mut builder = ServerTls::builder().identity_pem_files(cert, key);
    if let Some(ca) = &args.client_ca {
        builder = builder.client_ca_pem_file(ca);
    }
    if let Some(version) = args.options.only {
        builder = builder.min_version(version).max_version(version);
    }
    let tls = builder.alpn(&args.options.alpn).build().map_err(Usage::new)?;
    tls.warnings().iter().for_each(|warning| eprintln!("terminator: {warning}"));
    Ok(Some(tls))
}

fn client_tls(args: &Args) -> Result<Option<ClientTls>, Usage> {
    if !args.is_tls_behind() {
        return Ok(None);
    }
    let mut builder = match &args.ca {
        Some(file) => ClientTls::builder().roots_pem_file(file),
        None if args.no_verify => ClientTls::builder().dangerous_no_verification(),
        None => ClientTls::builder().platform_roots(),
    };
    if let Some(version) = args.options.only {
        builder = builder.min_version(version).max_version(version);
    }
    bowline::config::server_name(args.name()).map_err(Usage::new)?;
    builder.alpn(&args.options.alpn).build().map(Some).map_err(Usage::new)
}

/// SIGTERM and SIGINT, each of them as often as it comes.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            terminate: signal(SignalKind::terminate()).expect("SIGTERM can be listened for"),
            interrupt: signal(SignalKind::interrupt()).expect("SIGINT can be listened for"),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a signal to wait for, the service runs until it is killed.
            std::future::pending::<()>().await
        }
    }
}
