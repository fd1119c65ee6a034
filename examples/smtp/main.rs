//! Receives mail over SMTP, with TLS if the client asks for it, and delivers it into a Maildir.
//!
//! ```text
//! cargo run --example smtp -- --maildir mail
//! swaks --server 127.0.0.1:2525 --tls --tls-ca-path certs/ca.pem --from a@example.org --to b@example.org
//! ```

mod args;
mod command;
mod data;
mod maildir;
mod session;

#[path = "../common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../common/host_port.rs"]
mod host_port;
#[path = "../common/signal.rs"]
mod signal;
#[allow(dead_code)]
#[path = "../common/tls_flags.rs"]
mod tls_flags;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline::protocol::{Framed, Runner};
use bowline::testing::pki::Pki;
use bowline::{Error, Listener, ServerTls, chain};
use tokio::task::JoinSet;

use crate::args::{Args, Identity};
use crate::common::args::Usage;
use crate::maildir::Maildir;
use crate::session::Session;

/// The state that every connection needs.
struct Service {
    maildir: Maildir,
    tls: Option<ServerTls>,
    /// Plaintext is for STARTTLS only.
    requires_tls: bool,
    max_size: usize,
    timeout: Duration,
    /// Set when the service is stopping: no new mail is started.
    is_draining: AtomicBool,
}

fn main() -> ExitCode {
    let args = Args::parse().unwrap_or_else(|usage| usage.exit("smtp"));
    let service = service(&args).unwrap_or_else(|usage| usage.exit("smtp"));
    let runtime = tokio::runtime::Runtime::new().expect("a system without threads or polling runs no service");
    match runtime.block_on(run(&args.listen, Arc::new(service))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smtp: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn service(args: &Args) -> Result<Service, Usage> {
    let maildir = Maildir::open(&args.maildir);
    let maildir = maildir.map_err(|error| Usage::new(format!("{}: {error}", args.maildir.display())))?;
    let builder = match &args.identity {
        Identity::Files(cert, key) => Some(ServerTls::builder().identity_pem_files(cert, key)),
        Identity::Made(dir) => Some(Pki::load_or_create(dir).map_err(Usage::of)?.server_tls_builder()),
        Identity::None => None,
    };
    let tls = builder.map(|builder| builder.build()).transpose().map_err(Usage::of)?;
    let (requires_tls, max_size, timeout) = (args.requires_tls, args.max_size, args.timeout);
    Ok(Service { maildir, tls, requires_tls, max_size, timeout, is_draining: AtomicBool::new(false) })
}

/// Accepts until a signal comes; then waits for the connections that are open.
async fn run(listen: &str, service: Arc<Service>) -> Result<(), Error> {
    let listener = Listener::bind(listen).await?;
    let mut signal = std::pin::pin!(signal::signal());
    println!("listening smtp {}", listener.local_addr());
    let mut connections = JoinSet::new();
    let mut handles = Vec::new();
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let session = Framed::new(Session::new(Arc::clone(&service)));
                let runner = Runner::accept(session, incoming?, None);
                handles.push(runner.handle());
                connections.spawn(runner.run());
            }
            Some(_) = connections.join_next() => handles.retain(|handle| !handle.is_lost()),
            () = &mut signal => break,
        }
    }
    drop(listener);
    service.is_draining.store(true, Ordering::SeqCst);
    // The timer of each session fires at once, and the session then checks the flag.
    handles.iter().for_each(|handle| handle.set_timer(Some(Duration::ZERO)));
    while connections.join_next().await.is_some() {}
    Ok(())
}
