//! A service for manual tests: the client types commands for the server's transport, and sees what arrives.
//!
//! ```text
//! cargo run --example console
//! openssl s_client -connect 127.0.0.1:7001 -CAfile certs/ca.pem -quiet
//! ```
//!
//! One code path serves all three ports: a connection starts in plaintext or in TLS, and can change between them. The
//! transport decides how, when and why a connection ends; the program only prints the report.

mod args;
mod command;
mod log;
mod pattern;
mod protocol;
mod service;

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
#[path = "../common/signal.rs"]
mod signal;
#[path = "../common/tls_flags.rs"]
mod tls_flags;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bowline::testing::pki::Pki;
use bowline::{DrainGroup, Error, Incoming, Leftover, Listener, Policy, ServerTls, chain};
use tokio::task::JoinSet;

use crate::args::{Args, Face, Identity, Kind};
use crate::common::args::Usage;
use crate::log::Log;

fn main() -> ExitCode {
    let args = Args::parse().unwrap_or_else(|usage| usage.exit("console"));
    let tls = server_tls(&args).unwrap_or_else(|usage| usage.exit("console"));
    // A thousand unfinished handshakes need a thousand descriptors.
    descriptors::raise_limit();
    let runtime = tokio::runtime::Runtime::new().expect("a system without threads or polling runs no service");
    let log = Log::new(args.json);
    let ended = runtime.block_on(run(&args, tls, &log));
    log.finish();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("console: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The state that every connection needs.
struct Console {
    tls: ServerTls,
    face: Face,
    leftover: Option<Leftover>,
    log: Log,
    made: AtomicU64,
    /// All connections.
    group: DrainGroup,
}

/// Listens, serves until a signal comes, and drains.
async fn run(args: &Args, tls: ServerTls, log: &Log) -> Result<(), Error> {
    let policy = policy(args);
    let group = DrainGroup::new();
    let console = Arc::new(Console {
        tls,
        face: args.face,
        leftover: args.leftover,
        log: log.clone(),
        made: AtomicU64::new(0),
        group: group.clone(),
    });
    let mut ports = Vec::new();
    for (kind, addr) in &args.ports {
        let listener = Listener::builder().policy(Arc::clone(&policy)).group(&group).bind(addr.as_str()).await?;
        log.line(format!("listening {} {}", kind.name(), listener.local_addr()));
        ports.push((*kind, listener));
    }
    let signal = signal::signal();
    tokio::spawn(async move {
        signal.await;
        group.begin_drain();
    });
    log.line("ready".into());
    hint(args, ports.iter().filter_map(|(kind, listener)| Some((*kind, listener.local_addr().as_inet()?))));
    let mut serving = JoinSet::new();
    for (kind, listener) in ports {
        serving.spawn(serve(kind, listener, Arc::clone(&console)));
    }
    while let Some(ended) = serving.join_next().await {
        ended.map_err(std::io::Error::from)??;
    }
    Ok(())
}

/// Accepts until the drain begins, then waits for the connections that are open.
async fn serve(kind: Kind, listener: Listener, console: Arc<Console>) -> Result<(), Error> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = accept(&listener, &console) => match incoming {
                Ok(incoming) => {
                    let number = console.made.fetch_add(1, Ordering::Relaxed) + 1;
                    connections.spawn(serve_one(kind, incoming, number, Arc::clone(&console)));
                }
                Err(Error::Draining) => break,
                Err(error) => return Err(error),
            },
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Waits for space in the log, then accepts the next connection. A drain does not wait for that space.
async fn accept(listener: &Listener, console: &Console) -> Result<Incoming, Error> {
    tokio::select! {
        () = console.log.room() => {}
        () = console.group.draining() => {}
    }
    listener.accept().await
}

async fn serve_one(kind: Kind, incoming: Incoming, number: u64, console: Arc<Console>) {
    match console.face {
        Face::Async => service::serve(kind, incoming, number, console).await,
        Face::Protocol => protocol::serve(kind, incoming, number, console).await,
    }
}

fn policy(args: &Args) -> Arc<Policy> {
    let mut policy = Policy::default();
    if let Some(bound) = args.close_timeout {
        policy = policy.close_timeout(bound);
    }
    if let Some(bound) = args.handshake_timeout {
        policy = policy.handshake_timeout(bound);
    }
    Arc::new(policy)
}

fn server_tls(args: &Args) -> Result<ServerTls, Usage> {
    let mut builder = match &args.identity {
        Identity::Files(cert, key) => ServerTls::builder().identity_pem_files(cert, key),
        Identity::Made(dir) => Pki::load_or_create(dir).map_err(Usage::of)?.server_tls_builder(),
    };
    if let Some(ca) = &args.client_ca {
        builder = builder.client_ca_pem_file(ca);
    }
    if args.client_optional {
        builder = builder.client_auth_optional();
    }
    if let Some(version) = args.only {
        builder = builder.min_version(version).max_version(version);
    }
    let tls = builder.alpn(&args.alpn).build().map_err(Usage::of)?;
    tls.warnings().iter().for_each(|warning| eprintln!("console: {warning}"));
    Ok(tls)
}

/// Prints example commands to standard error, because scripts read standard output.
fn hint(args: &Args, ports: impl Iterator<Item = (Kind, SocketAddr)>) {
    let (for_openssl, for_netcat) = match &args.identity {
        Identity::Files(..) => (String::new(), String::new()),
        Identity::Made(dir) => (format!(" -CAfile {dir}/ca.pem"), format!(" --ca {dir}/ca.pem")),
    };
    eprintln!("\nIn another terminal, one of these, then HELP:");
    for (kind, addr) in ports {
        let (ip, port) = (addr.ip(), addr.port());
        match kind {
            Kind::Tcp => eprintln!("  nc {ip} {port}"),
            Kind::Tls => {
                eprintln!("  openssl s_client -connect {addr}{for_openssl} -quiet");
                eprintln!(
                    "  curl{} gophers://{addr}/_CLOSE%205000000 | wc -c",
                    for_openssl.replace("-CAfile", "--cacert")
                );
            }
            Kind::StartTls => {
                let endpoint = format!("--starttls line:STARTTLS tcp:{addr}");
                eprintln!("  cargo run -q --example netcat --{for_netcat} {endpoint}");
            }
        }
    }
}
